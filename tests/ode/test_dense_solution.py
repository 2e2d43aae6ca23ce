"""Dense output as a callable: the solution as a function of time, between the steps as good as at their ends."""

from __future__ import annotations

import math
import pickle

import numpy
import pytest
import torch
from ode_cases import ADAPTIVE, METHODS, PAIRS, Swirl, doubles, label, solver

from odenet_cli.ode import Adaptive, DenseSolution, Fixed, tally
from odenet_cli.ode.methods import method

EVERY = [*PAIRS, "adams"]


def waves(t, y):
    """y' = y cos t, whose solution from y(0) = 1 is exp(sin t)."""
    return y * torch.cos(t)


@pytest.mark.parametrize("name", EVERY, ids=label)
@pytest.mark.parametrize("tol", [1e-3, pytest.param(1e-6, marks=pytest.mark.numerics)])
@pytest.mark.parametrize("ends", [(0.0, 6.0), (6.0, 0.0)], ids=str)
def test_between_the_steps_the_error_stays_that_of_their_ends(name, tol, ends):
    y0 = doubles(math.exp(math.sin(ends[0])))
    path = Adaptive(method=name, rtol=tol, atol=tol, max_steps=100_000).dense(waves, y0, ends)
    times = torch.linspace(0, 6, 2001, dtype=torch.float64)

    def error(t):
        return (path(t)[:, 0] - torch.exp(torch.sin(t))).abs().max().item()

    assert error(times) <= 10 * max(tol, error(doubles(*path.ends)))


@pytest.mark.parametrize("name", EVERY, ids=label)
def test_a_path_goes_through_the_outputs_of_the_solve(name):
    field, y0, ts = Swirl(), torch.ones(2, 3, dtype=torch.float64), doubles(0.0, 0.2, 0.21, 1.5, 2.0)
    solve = Adaptive(method=name, rtol=1e-5, atol=1e-5)
    path, solution = solve.dense(field, y0, ts), solve(field, y0, ts)
    assert path.stats.accepted == solution.stats.accepted
    torch.testing.assert_close(path(ts), solution.y.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(path(0.0), y0, rtol=0, atol=0)


@pytest.mark.parametrize("name", METHODS)
def test_fixed_steps_have_a_path_too(name):
    ts = doubles(0.0, 1.0, 3.0)
    solve = Fixed(method=name, steps=40)
    path, y = solve.dense(waves, doubles(1.0), ts), solve(waves, doubles(1.0), ts).y
    torch.testing.assert_close(path(ts), y, rtol=1e-12, atol=1e-12)
    at_ends = (path(doubles(*path.ends)) - torch.exp(torch.sin(doubles(*path.ends)))[:, None]).abs().max()
    times = torch.linspace(0, 3, 400, dtype=torch.float64)
    assert (path(times) - torch.exp(torch.sin(times))[:, None]).abs().max() <= 10 * max(1e-6, at_ends)


def rotation_error(solve):
    """Return the largest error of a path of a damped rotation y' = A y against exp(A t) y(0), and the path."""
    matrix = doubles([-0.1, -1.0], [1.0, -0.1])
    y0, t = doubles(1.0, 0.5), torch.linspace(0, 3, 301, dtype=torch.float64)
    path = solve.dense(lambda t, y: y @ matrix.T, y0, [0.0, 1.0, 3.0])
    return (path(t) - torch.matrix_exp(matrix * t[:, None, None]) @ y0).abs().max().item(), path


@pytest.mark.parametrize("compile", [True, "loop"])
@pytest.mark.parametrize("name", METHODS)
def test_a_path_of_compiled_fixed_steps_is_the_plain_one(name, compile):
    """A compiled fixed step returns its end alone, and a polynomial inside it needs its stages."""
    plain, path = rotation_error(Fixed(method=name, steps=20))
    compiled, other = rotation_error(Fixed(method=name, steps=20, compile=compile))
    assert compiled == plain
    assert (path.ends, path.stats.nfe_forward) == (other.ends, other.stats.nfe_forward)
    assert plain < 2 * 0.1 ** method(name).order


@pytest.mark.numerics
@pytest.mark.parametrize(("name", "compile"), [("heun_euler", True), ("dopri8", "loop")])
def test_a_path_of_compiled_adaptive_steps_is_the_plain_one(name, compile):
    """Without FSAL (heun_euler) and with extra stages (dopri8), and with a jump inside."""
    settings = {"method": name, "rtol": 1e-6, "atol": 1e-6, "jumps": (0.7,), "max_steps": 100_000}
    plain, path = rotation_error(Adaptive(**settings))
    compiled, other = rotation_error(Adaptive(**settings, compile=compile))
    assert max(plain, compiled) < 1e-4
    assert compiled == pytest.approx(plain, rel=1e-3)
    assert path.stats.nfe_forward == other.stats.nfe_forward
    assert path.ends == pytest.approx(other.ends, rel=1e-6)  # rounding differs, and step sizes follow it


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_path_costs_at_most_one_evaluation_a_step_and_the_extra_stages(name):
    with tally() as solves:
        solve = Adaptive(method=name, rtol=1e-4, atol=1e-4)
        bare = solve(Swirl(), torch.ones(3, dtype=torch.float64), [0.0, 2.0]).stats
        path = solve.dense(Swirl(), torch.ones(3, dtype=torch.float64), [0.0, 2.0])
    assert solves[1] is path.stats
    more = path.stats.nfe_forward - bare.nfe_forward
    assert more == len(solve.tableau.extra) * bare.accepted + (not solve.tableau.fsal)


def test_shapes_follow_the_times_and_the_state():
    solve = solver(("adaptive", "dopri5"))
    path = solve.dense(lambda t, y: -y, torch.ones(2, 3), torch.tensor([0.0, 1.0]))
    assert isinstance(path, DenseSolution)
    assert path(0.5).shape == (2, 3)
    assert path(torch.tensor(0.5)).shape == (2, 3)
    assert path([0.1, 0.2]).shape == (2, 2, 3)
    assert path(torch.zeros(4, 5)).shape == (4, 5, 2, 3)
    assert path(torch.zeros(0)).shape == (0, 2, 3)
    assert path(0.5).dtype == torch.float32
    scalar = solve.dense(lambda t, y: -y, doubles(1.0)[0], [0.0, 1.0])
    assert scalar(0.5).shape == ()
    assert scalar(0.5).item() == pytest.approx(math.exp(-0.5), abs=1e-4)
    assert solve.dense(lambda t, y: -y, torch.ones(0, 3), [0.0, 1.0])(0.5).shape == (0, 3)


@pytest.mark.parametrize("name", ["dopri5", "dopri8", "adams"])
def test_tuples_and_complex_numbers(name):
    y0 = (torch.ones(2, dtype=torch.complex128), doubles([1.0, 2.0]))
    path = Adaptive(method=name, rtol=1e-9, atol=1e-9).dense(lambda t, y: (1j * y[0], -y[1]), y0, [0.0, 2.0])
    z, x = path(doubles(0.7, 1.9))
    assert (z.shape, x.shape) == ((2, 2), (2, 1, 2))
    torch.testing.assert_close(z[:, 0], torch.exp(1j * doubles(0.7, 1.9)), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(x[:, 0, 1], 2 * torch.exp(-doubles(0.7, 1.9)), rtol=1e-7, atol=1e-7)


def test_a_time_outside_is_refused_by_its_value():
    for ends in ((0.0, 1.0), (1.0, 0.0)):
        path = solver(("adaptive", "dopri5")).dense(lambda t, y: -y, doubles(1.0), ends)
        for bad in (-0.1, 1.0001, math.nan, math.inf):
            with pytest.raises(ValueError, match=f"t = {bad:.6g} is not between 0 and 1"):
                path([0.5, bad])


def test_a_path_goes_into_a_file_without_its_field():
    path = solver(("adaptive", "dopri5")).dense(lambda t, y: (-y[0], y[1]), (doubles(2.0), doubles(1.0)), [0.0, 1.0])
    again = pickle.loads(pickle.dumps(path))
    assert all(map(torch.equal, again([0.2, 0.9]), path([0.2, 0.9])))
    assert again.stats == path.stats


def test_a_span_of_no_length_holds_its_state():
    path = solver(("adaptive", "dopri5")).dense(lambda t, y: -y, doubles(2.0), [1.0, 1.0])
    assert path(1.0).item() == 2.0
    assert path.stats.nfe_forward == 0
    with pytest.raises(ValueError, match="between 1 and 1"):
        path(1.1)


def test_the_slope_of_a_path_is_that_of_the_field():
    t = doubles(0.3, 0.8, grad=True)
    path = Adaptive(method="dopri8", rtol=1e-10, atol=1e-10).dense(waves, doubles(1.0), [0.0, 1.0])
    (found,) = torch.autograd.grad(path(t).sum(), t)
    torch.testing.assert_close(found, torch.exp(torch.sin(t)) * torch.cos(t), rtol=1e-6, atol=1e-6)


def test_a_path_keeps_both_sides_of_a_known_jump():
    solve = Adaptive(method="dopri5", rtol=1e-8, atol=1e-8, jumps=(0.5,))
    path = solve.dense(lambda t, y: -y if t <= 0.5 else 2 * y, doubles(1.0), [0.0, 1.0])
    for t in (0.25, 0.499, 0.5, 0.501, 0.75):
        exact = math.exp(-t) if t <= 0.5 else math.exp(-0.5 + 2 * (t - 0.5))
        assert path(t).item() == pytest.approx(exact, rel=1e-6)


@pytest.mark.parametrize("ends", [(0.0, 0.1), (0.1, 0.0), (-0.7, 0.3), (0.3, -0.7)])
def test_times_outside_by_rounding_are_those_of_the_ends(ends):
    """float32's 0.1 is 0.10000000149: asked for in float32, or solved for in float32 and asked for as a number."""
    solve = Adaptive(method="dopri5", rtol=1e-10, atol=1e-10)
    exact = lambda t: math.exp(-(t - ends[0]))  # noqa: E731
    single = [torch.tensor(t, dtype=torch.float32).item() for t in ends]
    for ts in (ends, torch.tensor(ends), numpy.array(ends, dtype=numpy.float32), [numpy.float32(t) for t in ends]):
        path = solve.dense(lambda t, y: -y, doubles(1.0), ts)
        found = path(torch.linspace(*ends, 50))
        assert found.shape == (50, 1)
        for asked in (ends, single if ts is not ends else torch.tensor(ends), numpy.float32(ends[1]), doubles(*ends)):
            found = path(asked)
            assert found.reshape(-1)[-1].item() == pytest.approx(exact(ends[1]), rel=1e-6)
        for far in (min(ends) - 1e-6, max(ends) + 1e-6):
            with pytest.raises(ValueError, match="is not between"):
                path(far)
            with pytest.raises(ValueError, match="is not between"):
                path(torch.tensor([ends[0], far], dtype=torch.float32))
    path = solve.dense(lambda t, y: -y, doubles(1.0), ends)
    assert path(ends[1]).item() == path(math.nextafter(ends[1], 2 * ends[1] - ends[0])).item()


def test_numbers_are_asked_for_in_double_precision():
    path = Adaptive(method="dopri8", rtol=1e-13, atol=1e-13).dense(lambda t, y: -y, doubles(1.0), [0, 1])
    for asked in (0.3, [0.3], [[0.3]], numpy.float64(0.3), (numpy.float64(0.3),), doubles(0.3)):
        assert path(asked).item() == pytest.approx(math.exp(-0.3), rel=1e-12)
    assert path(1).item() == path(torch.tensor(1)).item() == path([0, 1])[1].item()


def test_a_time_of_the_end_has_its_slope():
    """Rounded beyond the end, a time keeps its gradient."""
    t = torch.tensor([0.1], requires_grad=True)
    path = Adaptive(method="dopri8", rtol=1e-10, atol=1e-10).dense(lambda t, y: -y, doubles(1.0), [0.0, 0.1])
    (found,) = torch.autograd.grad(path(t).sum(), t)
    assert found.item() == pytest.approx(-math.exp(-0.1), rel=1e-5)
