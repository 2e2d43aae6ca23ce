"""Step sizes: proposed by the error, bounded by the settings, and carried where they help."""

from __future__ import annotations

import math

import pytest
import torch
from ode_cases import PAIRS, Swirl, doubles, label, solver, steps_of

from odenet_cli.ode import Adaptive
from odenet_cli.ode.control import GAINS, Controller
from odenet_cli.ode.state import norms, rms

Y0 = torch.ones(3, dtype=torch.float64)


def test_the_error_is_met_at_safety_of_the_power_law():
    """An error of r tolerances falls to one when h shrinks by r^(-1/order); safety aims a little below."""
    assert Controller(5).factor(32.0) == pytest.approx(0.9 / 2)
    assert Controller(5).factor(1 / 32) == pytest.approx(0.9 * 2)
    assert Controller(5).factor(1e-30) == 10.0
    assert Controller(5).factor(0.0) == 10.0
    assert Controller(5).factor(1e30) == 0.2
    assert Controller(5).factor(math.nan) == Controller(5).factor(math.inf) == 0.2


@pytest.mark.parametrize("kind", GAINS)
@pytest.mark.parametrize("name", PAIRS, ids=label)
def test_every_controller_keeps_the_tolerance(name, kind):
    exact = math.exp(math.sin(5.0))
    for tol in (1e-3, 1e-5):
        solve = solver(("adaptive", name), tol=tol, controller=kind)
        y, stats = solve(lambda t, y: y * torch.cos(t), doubles(1.0), doubles(0.0, 5.0))
        assert y.item() == pytest.approx(exact, abs=20 * tol)
        assert stats.rejected <= stats.accepted


@pytest.mark.parametrize("name", ["dopri5", "adams"])
def test_steps_stay_within_their_bounds(name):
    solve = solver(("adaptive", name), tol=1e-2, max_step=0.05, first_step=0.01)
    steps = [step.h for step in steps_of(solve, Swirl(), Y0, doubles(0.0, 1.0))]
    assert steps[0] == 0.01
    assert max(steps) == 0.05
    floor = solver(("adaptive", name), tol=1e-2, min_step=0.1)
    assert all(step.h >= 0.1 for step in steps_of(floor, Swirl(), Y0, doubles(0.0, 1.0))[:-1])


def test_a_first_step_saves_the_evaluation_that_would_choose_it():
    bare = solver(("adaptive", "dopri5"), tol=1e-3, first_step=0.1)(Swirl(), Y0, doubles(0.0, 0.1)).stats
    assert (bare.nfe_forward, bare.accepted) == (7, 1)


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "adams", "rodas4"])
@pytest.mark.parametrize("ts", [(0.0, 1e12), (1.7e12, 1.7e12 + 1e3), (-1e12, 1e12), (1e12, 0.0)])
def test_a_first_step_that_times_do_not_resolve_is_made_longer(method, ts):
    """A state that begins at 0 has no size, and Hairer's rule then says 1e-6, which is no step at t = 1e12."""
    span = ts[1] - ts[0]
    y = Adaptive(method=method, rtol=1e-6, atol=1e-6)(lambda t, y: (1 - y) / span, doubles(0.0), ts).y
    assert y.item() == pytest.approx(1 - math.exp(-1), abs=1e-5)


@pytest.mark.parametrize("name", ["dopri5", "adams"])
def test_a_first_step_beyond_the_end_is_cut(name):
    taken = steps_of(solver(("adaptive", name), tol=1.0, first_step=50.0), Swirl(), Y0, doubles(0.0, 0.1))
    assert [step.h for step in taken] == [0.1]


def test_the_first_step_is_a_fair_guess():
    """Hairer's rule errs on the small side: few rejections on the way, and no more than a handful of growing steps."""
    for tol in (1e-3, 1e-6, 1e-9):
        steps = [abs(s.h) for s in steps_of(solver(("adaptive", "dopri5"), tol=tol), Swirl(), Y0, doubles(2.0, 0.0))]
        assert max(steps) / steps[0] < 100


def test_a_still_field_is_crossed_in_a_few_growing_steps():
    stats = solver(("adaptive", "dopri5"))(lambda t, y: torch.zeros_like(y), Y0, doubles(0.0, 1.0)).stats
    assert stats.rejected == 0
    assert stats.accepted <= 8


def test_the_norm_is_a_root_mean_square_over_all_parts():
    parts = (doubles(3.0, 4.0), torch.tensor([[2 + 1j]]), torch.zeros(0))
    assert rms(parts) == pytest.approx(math.sqrt((9 + 16 + 5) / 3))
    assert rms(()) == rms((torch.zeros(0),)) == 0.0
    assert norms([parts, (), (doubles(2.0),)], [2.0] * 3) == pytest.approx([math.sqrt(10), 0.0, 2.0])


@pytest.mark.parametrize(
    ("size", "dtype"),
    [
        *((size, torch.float32) for size in (1e-40, 1e-23, 1e-18, 1e19, 3e38)),
        *((size, torch.float64) for size in (1e-320, 1e-200, 1e200)),
        (300.0, torch.float16),
        (1e25, torch.complex64),
    ],
)
def test_the_norm_holds_where_squares_leave_the_dtype(size, dtype):
    """The sum of squares of 10^5 numbers: in float16 its root is above 65,504 too."""
    assert rms((torch.full((100_000,), size, dtype=dtype),)) == pytest.approx(size, rel=1e-3)


def test_what_is_not_finite_has_no_norm():
    for bad in (math.nan, math.inf):
        assert not math.isfinite(rms((torch.tensor([1e25, bad]),)))


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.numerics)])
def test_a_first_step_is_found_where_the_field_is_far_beyond_the_tolerance(compile):
    """f is 1e31 tolerances: in float32 the squares of Hairer's rule are infinite, the field is not."""
    solve = Adaptive(method="dopri5", rtol=1e-4, atol=1e-6, compile=compile)
    y = solve(lambda t, y: 1e25 * torch.cos(t) + 0 * y, torch.zeros(3), [0.0, 1.0]).y
    assert y.double() / 1e25 == pytest.approx(math.sin(1.0), rel=1e-4)


def test_the_number_of_copies_of_a_system_does_not_matter():
    """RMS, not the sum: a batch of equal states takes the steps of one."""
    solve = solver(("adaptive", "dopri5"), tol=1e-6)
    one, many = (solve(Swirl(), torch.ones(n, 3, dtype=torch.float64), doubles(0.0, 2.0)).stats for n in (1, 64))
    assert one == many
