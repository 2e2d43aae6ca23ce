"""No error is asked for that the dtype of a state cannot hold: the solver says so, and takes what can be had."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from ode_cases import doubles

from odenet_cli.ode import Adaptive, Fixed, PrecisionWarning
from odenet_cli.ode.control import error_scale
from odenet_cli.ode.gradient.adjoint import Adjoint
from odenet_cli.precision import EPS

REAL = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32, "float64": torch.float64}
COMPLEX = {"float32": torch.complex64, "float64": torch.complex128}


def decay(t, y):
    return -y


def solve(dtype, rtol, atol=None, method="dopri5", **options):
    atol = rtol if atol is None else atol
    return Adaptive(method=method, rtol=rtol, atol=atol, **options)(decay, torch.ones(3, dtype=dtype), [0.0, 1.0])


def test_the_table_of_resolutions_is_that_of_torch():
    for name, dtype in REAL.items():
        assert EPS[name] == torch.finfo(dtype).eps


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "adams"])
@pytest.mark.parametrize(
    ("dtype", "name"), [*[(v, k) for k, v in REAL.items()], *[(v, k) for k, v in COMPLEX.items()]], ids=str
)
def test_a_tolerance_below_the_resolution_is_raised_to_it_with_a_warning(dtype, name, method):
    if (method, name) == ("bosh3", "float64"):
        pytest.skip("a low order takes a million steps")
    eps = EPS[name]
    with pytest.warns(PrecisionWarning, match=rf"solver\.rtol=.* is below the resolution of {name}"):
        low = solve(dtype, eps / 50, method=method)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        at = solve(dtype, eps, eps / 50, method=method)
    assert torch.equal(low.y, at.y)
    assert low.stats == at.stats
    assert (low.y.to(torch.complex128) - math.exp(-1)).abs().max() < 20 * eps


@pytest.mark.parametrize("scale", [1.0, 1e-3, 100.0])
@pytest.mark.parametrize("rate", [0.0, 1e-3, -1.0])
def test_adams_holds_the_powers_of_growing_steps_within_float16(rate, scale):
    """y = exp(rate t) y0, where a first step that is far too short grows 10,000 times, and its powers more."""
    y0 = torch.full((3,), scale, dtype=torch.float16)
    for tol in (EPS["float16"], 1e-2):
        solve = Adaptive(method="adams", rtol=tol, atol=0.0)
        for end in (0.01, 1.0):
            y = solve(lambda t, y: rate * y, y0, [0.0, end]).y
            torch.testing.assert_close(y.double(), y0.double() * math.exp(rate * end), rtol=20 * tol, atol=0)


@pytest.mark.parametrize(("dtype", "name"), [(v, k) for k, v in REAL.items()], ids=str)
def test_a_tolerance_far_below_the_resolution_is_refused(dtype, name):
    way_out = "no floating-point type here" if name == "float64" else "use dtype=float64"
    one, far = torch.ones(1, dtype=dtype), Adaptive(method="bosh3", rtol=EPS[name] / 101, atol=1e-3)
    for call in (far, far.dense):
        with pytest.raises(ValueError, match=rf"solver\.rtol=.* far below the resolution of {name}: {way_out}"):
            call(decay, one, [0.0, 1.0])


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "adams"])
@pytest.mark.parametrize(("name", "cost"), [("bfloat16", 200), ("float32", 400)])
def test_an_absolute_tolerance_alone_is_held_to_the_resolution(name, cost, method):
    """y = 1 … e^-1: an atol of 1e-12 is below what the dtype resolves there, and would be searched for without end."""
    with pytest.warns(PrecisionWarning, match=rf"solver\.rtol=0 and solver\.atol=1e-12: {name}"):
        y, stats = solve(REAL[name], 0.0, 1e-12, method=method)
    assert (y.double() - math.exp(-1)).abs().max() < 5 * EPS[name]
    assert stats.nfe_forward < cost


def test_small_numbers_may_have_a_small_absolute_tolerance():
    """float32 resolves 1e-20 as well as 1: there atol = 1e-24 is a tolerance of 1e-4."""
    with pytest.warns(PrecisionWarning):
        y = Adaptive(method="dopri5", rtol=0.0, atol=1e-24)(decay, torch.full((2,), 1e-20), [0.0, 1.0]).y
    torch.testing.assert_close(y, torch.full((2,), 1e-20 * math.exp(-1)), rtol=1e-3, atol=0)


def test_each_component_has_the_resolution_of_its_dtype():
    state = (torch.ones(2), doubles(1.0), torch.ones(1, dtype=torch.bfloat16))
    sizes = [part.double().max().item() for part in error_scale(state, state, 1e-12, 0.0)]
    assert sizes == [EPS["float32"], 1e-12, EPS["bfloat16"]]
    mixed = (torch.ones(1), doubles(1.0))
    with pytest.warns(PrecisionWarning, match="far below the resolution of float32"):
        single, double = Adaptive(method="dopri8", rtol=1e-10, atol=1e-10)(
            lambda t, y: (-y[0], -y[1]), mixed, [0.0, 1.0]
        ).y
    assert double.item() == pytest.approx(math.exp(-1), rel=1e-8)
    assert single.item() == pytest.approx(math.exp(-1), rel=1e-6)
    with pytest.warns(PrecisionWarning, match="below the resolution of float32"):
        Adaptive(method="dopri8", rtol=5e-8, atol=5e-8)(lambda t, y: (-y[0], -y[1]), mixed, [0.0, 1.0])
    judged = Adaptive(method="dopri8", rtol=1e-10, atol=1e-10, n_controlled=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        judged(lambda t, y: (-y[0], -y[1]), mixed[::-1], [0.0, 1.0])


def test_the_backward_solver_is_held_to_the_same():
    own = Adjoint(solver=Adaptive(method="dopri5", rtol=1e-8, atol=1e-8))
    y0 = torch.ones(1, requires_grad=True)
    with pytest.warns(PrecisionWarning, match=r"gradient\.solver\.rtol=1e-08"):
        y = Adaptive(method="dopri5", rtol=1e-5, atol=1e-5, gradient=own)(decay, y0, [0.0, 1.0]).y
    (found,) = torch.autograd.grad(y.sum(), y0)
    assert found.item() == pytest.approx(math.exp(-1), rel=1e-5)


@pytest.mark.numerics
@pytest.mark.parametrize("compile", [True, "loop"])
def test_compiled_steps_are_held_to_the_same(compile):
    with pytest.warns(PrecisionWarning), torch.no_grad():
        plain, made = (solve(torch.float32, 1e-8, compile=way) for way in (False, compile))
    assert plain.stats == made.stats
    torch.testing.assert_close(plain.y, made.y, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("make", "ts", "dtype"),
    [
        (Adaptive(method="dopri5", rtol=1e-6, atol=1e-6), [1e6, 1e6 + 1], torch.float32),
        (Adaptive(method="dopri5", rtol=1e-6, atol=1e-6), [1e6 + 1, 1e6], torch.float32),
        (Adaptive(method="dopri5", rtol=1e-10, atol=1e-10), [1e9, 1e9 + 1], torch.float64),
        (Fixed(method="rk4", steps=100), [1e6, 1e6 + 1], torch.float32),
        (Fixed(method="euler", steps=1000), [0.0, 1.0], torch.bfloat16),
    ],
    ids=str,
)
def test_times_that_are_told_apart_too_coarsely_are_named(make, ts, dtype):
    with pytest.warns(PrecisionWarning, match=r"can only distinguish times .*float64") as caught:
        make(lambda t, y: torch.cos(t).to(y.dtype).expand_as(y), torch.ones(1, dtype=dtype), ts)
    assert caught[0].filename == __file__  # where the solver is called


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("ts", [[0.0, 1.0], [1.0, 0.0], [-3.0, 5.0], [0.0, 1e8], [0.0, 1e-6], [2.0, 2.0], [10.0, 11.0]])
def test_usual_times_and_tolerances_warn_of_nothing(ts, dtype):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for make in (Adaptive(method="dopri5", rtol=1e-6, atol=1e-9), Fixed(method="rk4", steps=10)):
            make(lambda t, y: torch.zeros_like(y), torch.ones(1, dtype=dtype), ts)


@pytest.mark.parametrize("solver", [Adaptive(method="dopri5", rtol=1e-5, atol=1e-5), Fixed(method="rk4", steps=2)])
@pytest.mark.parametrize(("dtype", "least"), [(torch.float64, 2.3e-308), (torch.float32, 1.2e-38)])
def test_times_too_close_together_for_their_gradients_are_refused(solver, dtype, least):
    """A span is a factor of the gradient and of its divisor: below the normal numbers it was 0. Times alone may be
    that close, and equal ones have the gradient of each."""
    y0 = torch.ones(2, dtype=dtype)

    def gradient(*ts):
        times = torch.tensor(ts, dtype=torch.float64, requires_grad=True)
        return torch.autograd.grad(solver(lambda t, y: 2 * y, y0, times).y.sum(), times)[0].tolist()

    with pytest.raises(ValueError, match=r"lie .* apart, below the smallest normal number of float.*ts\.detach"):
        gradient(0.0, least / 1e4)
    assert gradient(0.0, least) == pytest.approx([-4.0, 4.0], rel=1e-5)
    assert gradient(0.0, 0.0) == pytest.approx([-4.0, 4.0])
    assert torch.equal(solver(lambda t, y: 2 * y, y0, [0.0, least / 1e4]).y, y0)
