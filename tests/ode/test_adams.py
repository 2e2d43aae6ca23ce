"""Adams: the solve is VODE's, and its gradient that of the steps it took."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from ode_cases import Counting, Swirl, doubles, steps_of
from scipy.integrate import ode, solve_ivp
from test_adams_formulas import antiderivative, lagrange, weights

from odenet_cli.ode import Adaptive, Fixed
from odenet_cli.ode.gradient.adjoint import NORMS, Adjoint
from odenet_cli.ode.methods.adams import METHOD

GRADIENTS = ("backprop", "adjoint")
ONE, TS = doubles(1.0), doubles(0.0, 2.0)
Y0 = torch.ones(3, dtype=torch.float64)


def adams(tol=1e-4, **options):
    return Adaptive(**{"method": "adams", "rtol": tol, "atol": tol, **options})


@pytest.mark.parametrize("degree", range(1, 9))
def test_a_polynomial_is_met_exactly_once_the_order_is_its_degree(degree):
    def field(t, y):
        return degree * t ** (degree - 1) + 0 * y

    taken = steps_of(adams(1e-9), field, doubles(0.0), doubles(0.0, 2.0))
    reached = [s for s in taken if len(s.z) - 1 >= degree]
    assert len(reached) > 2
    for s in reached[degree:]:
        change = (s.step.y[0] - s.y[0]).item()
        assert change == pytest.approx(s.end**degree - s.t**degree, rel=1e-12, abs=1e-14)


def naive(taken, field, y0, ts):
    """The same steps in Lagrange's form, with exact weights: slopes are kept, and integrated by Adams' formulas."""
    times, states, y, slopes = ts.tolist(), {0: y0}, y0, []
    span, width = ts[-1] - ts[0], times[-1] - times[0]

    def at(t):
        return ts[0] + (t - times[0]) / width * span

    points = []
    for s in taken:
        q, now, unit = len(s.z) - 1, Fraction(s.end), Fraction(s.h)
        if s.restarted:
            points, slopes = [Fraction(s.t)], [field(at(s.t), y)]
        past = [(x - now) / unit for x in points[:q]]
        start, h = (Fraction(s.t) - now) / unit, s.h / width * span
        y1 = y + h * sum(float(w) * k for w, k in zip(weights(past, start, 0), slopes))
        near = [Fraction(0), *past[: q - 1]]
        moulton = [float(w) for w in weights(near, start, 0)]
        for _ in range(len(s.step.k) - s.restarted):
            k = field(at(s.end), y1)
            y1 = y + h * sum(w * slope for w, slope in zip(moulton, [k, *slopes]))
        slopes, points = [k, *slopes][:13], [now, *points][:13]
        bases = [[float(a) for a in antiderivative(lagrange(tuple(near), i))] for i in range(q)]
        for j, _ in s.interior_outputs:
            x = (ts[j] - at(s.end)) / h
            parts = [sum(a * x**n for n, a in enumerate(p)) for p in bases]
            states[j] = y1 + h * sum(w * slope for w, slope in zip(parts, slopes))
        y = y1
    states[times.index(times[-1])] = y
    for j in range(1, len(times)):
        states.setdefault(j, states[j - 1])
    return torch.stack([states[j] for j in range(len(times))])


CASES = {"up": (0.0, 0.3, 0.31, 1.0, 2.0), "down": (2.0, 1.4, 0.5), "twice": (0.0, 0.0, 0.5, 0.5, 1.0, 1.0)}


@pytest.mark.parametrize("times", CASES.values(), ids=list(CASES))
@pytest.mark.parametrize("tol", [1e-2, 1e-5, 1e-9])
def test_backprop_is_autograd_through_the_steps_in_another_form(tol, times):
    field, y0, ts = Swirl(), (2 * Y0).requires_grad_(), doubles(*times, grad=True)
    solve, weight = adams(tol), torch.linspace(-1, 2, 3 * len(times), dtype=torch.float64).reshape(-1, 3)
    inputs = (y0, ts, *field.parameters())
    y = solve(field, y0, ts).y
    twin = naive(steps_of(solve, field, y0.detach(), ts.detach()), field, y0, ts)
    assert torch.allclose(y, twin, rtol=1e-10, atol=1e-10)
    found = torch.autograd.grad((weight * y.cos()).sum(), inputs)
    known = torch.autograd.grad((weight * twin.cos()).sum(), inputs)
    # The twin gives what equal times share to one of them; their sum is the same.
    same = (ts[:, None] == ts).double()
    for x, z in zip(found, known):
        x, z = (same @ x, same @ z) if x is found[1] else (x, z)
        assert torch.allclose(x, z, rtol=1e-9, atol=1e-9)


def test_retreats_and_restarts_are_part_of_the_gradient():
    """At a jump that failures do not pass the order falls, and at order 1 the array is made anew."""
    w, y0, ts = doubles(0.9, grad=True), doubles(1.0, grad=True), doubles(0.0, 0.5, 0.9, 1.2, grad=True)
    restarts = retreats = 0
    for jump in (0.2, 0.26, 0.35):

        def field(t, y, jump=jump):
            return torch.where(t < jump, 1.0 + 0 * y, torch.where(t < 1.0, 1e4 * torch.cos(t) - y, 2 * y)) * w

        solve = adams(1e-9, first_step=1e-3)
        taken = steps_of(solve, field, y0.detach(), ts.detach())
        restarts += sum(s.restarted for s in taken[1:])
        retreats += sum(len(after.z) < len(before.z) for before, after in pairwise(taken))
        y = solve(field, y0, ts).y
        twin = naive(taken, field, y0, ts)
        assert torch.allclose(y, twin, rtol=1e-9)
        known = torch.autograd.grad(twin.sum(), (w, y0, ts))
        again = [torch.autograd.grad(y.sum(), (w, y0, ts), retain_graph=True) for _ in range(2)]
        # The first pass uses the graph of the solve, the second takes the steps again.
        for found in again:
            assert all(torch.allclose(x, z, rtol=1e-8) for x, z in zip(found, known))
    assert restarts > 0
    assert retreats > 0


@pytest.mark.parametrize("grad", GRADIENTS)
def test_a_known_jump_is_a_fresh_start(grad):
    w, y0, ts = doubles(2.0, grad=True), doubles(1.0, grad=True), doubles(0.0, 0.3, 0.8, 1.0, grad=True)

    def field(t, y):
        return torch.where(t < 0.5, w, -w) * y

    y, stats = adams(1e-9, jumps=(0.5,), gradient=grad)(field, y0, ts)
    exact = [math.exp(2 * (0.5 - abs(0.5 - t))) for t in ts.tolist()]
    assert torch.allclose(y[:, 0], doubles(*exact), rtol=1e-7)
    assert stats.rejected <= 2
    assert len([s for s in steps_of(adams(1e-9, jumps=(0.5,)), field, doubles(1.0), ts) if s.restarted]) == 2
    of_w, of_y0 = torch.autograd.grad(y[2].sum(), (w, y0))
    assert of_w.item() == pytest.approx(0.2 * exact[2], rel=1e-6)
    assert of_y0.item() == pytest.approx(exact[2], rel=1e-6)


def test_orders_rise_with_the_tolerance_and_fall_where_the_solution_fades():
    def orders(tol, field, end):
        return [len(s.z) - 1 for s in steps_of(adams(tol), field, doubles(1.0, 0.5), doubles(0.0, end))]

    def turning(t, y):
        return torch.stack([y[1], -y[0]])

    assert 3 <= max(orders(1e-3, turning, 20.0)) <= 4
    assert max(orders(1e-13, turning, 20.0)) >= 7
    assert max(orders(1e-13, lambda t, y: torch.cos(t) + 0 * y, 60.0)) == METHOD.max_order
    fading = orders(1e-3, lambda t, y: -y, 100.0)
    assert max(fading) >= 4
    assert fading[-1] == 1


def test_the_corrected_polynomial_meets_the_states_at_both_ends_of_a_step():
    for s in steps_of(adams(1e-5), Swirl(), Y0, doubles(1.0, 0.0)):
        before, after = adams().loop(lambda *_: None).interpolate(s, [0.0, 1.0])
        assert torch.allclose(before[0], s.y[0], rtol=1e-12)
        assert torch.equal(after[0], s.step.y[0])


# Cost.


def test_backprop_pulls_back_every_evaluation_of_the_accepted_steps_once():
    field, y0 = Swirl(), torch.ones(3, dtype=torch.float64, requires_grad=True)
    solve = adams(1e-6)
    y, stats = solve(field, y0, TS)
    taken = steps_of(solve, field, y0.detach(), TS)
    assert stats.rejected == 0 or stats.nfe_forward > sum(len(s.step.k) - s.restarted for s in taken)
    y.sum().backward()
    assert stats.vjps == 1 + sum(len(s.step.k) - s.restarted for s in taken)
    assert stats.accepted == len(taken)


PROBLEMS = {
    "decay": (lambda t, y, m: -y, [1.0]),
    "cosine": (lambda t, y, m: y * m.cos(t), [1.0]),
    "logistic": (lambda t, y, m: y / 4 * (1 - y / 20), [1.0]),
    "spiral": (lambda t, y, m: (y - t) / (y + t), [4.0]),
    "Volterra": (lambda t, y, m: m.stack([2 * (y[0] - y[0] * y[1]), -(y[1] - y[0] * y[1])]), [1.0, 3.0]),
    "rigid body": (lambda t, y, m: m.stack([y[1] * y[2], -y[0] * y[2], -0.51 * y[0] * y[1]]), [0.0, 1.0, 1.0]),
    "chain": (
        lambda t, y, m: m.stack([(y[i - 1] if i else 0) - 2 * y[i] + (y[i + 1] if i < 9 else 0) for i in range(10)]),
        [1.0] + [0.0] * 9,
    ),
    "orbit": (
        lambda t, y, m: m.stack([y[2], y[3], *(-x / (y[0] ** 2 + y[1] ** 2) ** 1.5 for x in (y[0], y[1]))]),
        [0.7, 0.0, 0.0, math.sqrt(1.3 / 0.7)],
    ),
    "van der Pol": (lambda t, y, m: m.stack([y[1], (1 - y[0] ** 2) * y[1] - y[0]]), [2.0, 0.0]),
    "Bessel": (
        lambda t, y, m: m.stack([y[1], -(y[1] / (t + 1) + (1 - 0.25 / (t + 1) ** 2) * y[0])]),
        [0.6713967071418030, 0.09540051444747446],
    ),
}
TOLERANCES = (1e-3, 1e-5, 1e-7, 1e-9, 1e-11)


def vode(field, y0, tol):
    """scipy's VODE, and its evaluations."""
    counting = Counting(lambda t, y: np.asarray(field(t, y, np)))
    solve = ode(counting).set_integrator("vode", method="adams", rtol=tol, atol=tol, order=12, nsteps=10**6)
    return solve.set_initial_value(y0, 0.0).integrate(20.0), counting.calls


def ours(field, y0, tol):
    with torch.no_grad():
        y, stats = adams(tol, max_steps=10**6)(lambda t, y: field(t, y, torch), doubles(*y0), [0.0, 20.0])
    return y.numpy(), stats.nfe_forward


@pytest.mark.numerics
def test_evaluations_and_errors_are_those_of_vode():
    """Ten problems, five tolerances: evaluations within 25 % on average, at every tolerance; errors in log mean."""
    ratios, logs = np.zeros((10, 5)), np.zeros((10, 5))
    for i, (field, y0) in enumerate(PROBLEMS.values()):
        exact = solve_ivp(lambda t, y, f=field: f(t, y, np), (0, 20), y0, method="DOP853", rtol=1e-13, atol=1e-14)
        for j, tol in enumerate(TOLERANCES):
            errors = []
            (y, nfe), (peer, peers) = ours(field, y0, tol), vode(field, y0, tol)
            errors = [np.abs(x - exact.y[:, -1]).max() for x in (y, peer)]
            # Errors of multistep codes scatter by ten between neighbouring tolerances; this is the outlier's bound.
            assert errors[0] <= 50 * max(errors[1], 10 * tol)
            ratios[i, j], logs[i, j] = nfe / peers, math.log((errors[0] + tol) / (errors[1] + tol))
    print("\nevaluations / VODE's", dict(zip(TOLERANCES, ratios.mean(0).round(2))), "all", ratios.mean().round(3))
    print("errors / VODE's", dict(zip(TOLERANCES, np.exp(logs.mean(0)).round(2))))
    assert 0.75 <= ratios.mean() <= 1.25
    assert all(0.75 <= mean <= 1.25 for mean in ratios.mean(0))
    assert math.exp(logs.mean()) <= 2


@pytest.mark.numerics
@pytest.mark.parametrize("tol", [1e-6, 1e-9])
def test_as_accurate_as_scipy_on_detest(tol):
    """Within ten times the error of VODE or, where that one was lucky, of DOP853."""
    from test_detest import PROBLEMS as DETEST
    from test_detest import by_numpy, by_us

    behind = {}
    for name, (field, y0) in DETEST.items():
        exact = by_numpy(name, "DOP853", 1e-13, 1e-14).y[:, -1]
        theirs = max(
            np.abs(y - exact).max() for y in (vode(field, y0, tol)[0], by_numpy(name, "DOP853", tol, tol).y[:, -1])
        )
        error = np.abs(by_us(name, "adams", tol)[0] - exact).max()
        if error > 10 * max(theirs, 10 * tol):
            behind[name] = (error, theirs)
    assert behind == {}


# Gradients.


BOTH = [("adams", "adams", norm) for norm in NORMS]


@pytest.mark.parametrize(
    ("there", "back", "norm"), [*BOTH, ("dopri5", "adams", "relative"), ("adams", "dopri5", "relative")]
)
def test_adams_solves_the_adjoint_in_every_norm(there, back, norm):
    field, y0 = Swirl(), doubles(1.0, -2.0, 0.5, grad=True)
    options = Adjoint(norm=norm, solver=Adaptive(method=back, rtol=1e-8, atol=1e-8))
    solve, ts = Adaptive(method=there, rtol=1e-8, atol=1e-8, gradient=options), doubles(0.0, 0.4, 1.0)
    known = Adaptive(method="dopri5", rtol=1e-11, atol=1e-11)
    inputs = (y0, *field.parameters())
    for x, z in zip(*(torch.autograd.grad(s(field, y0, ts).y.square().sum(), inputs) for s in (solve, known))):
        assert torch.allclose(x, z, rtol=1e-5, atol=1e-6)


def test_control_of_the_parameters_reaches_adams():
    """y' = -0.1 y + θ sin(60 t) y: the quadrature of θ is rough where the state is smooth."""
    theta, costs = doubles(0.5, grad=True), []
    for control in (False, True):
        options = Adjoint(control_parameters=control)
        y, stats = adams(1e-6, gradient=options)(lambda t, y: -0.1 * y + theta * torch.sin(60 * t) * y, ONE, [0.0, 0.5])
        (found,) = torch.autograd.grad(y.sum(), theta)
        area = (1 - math.cos(30)) / 60
        assert found.item() == pytest.approx(area * math.exp(-0.05 + 0.5 * area), abs=1e-4)
        costs.append(stats.nfe_backward)
    assert costs[0] != costs[1]


def test_first_and_second_derivatives_of_a_decay():
    """d²/dt² and d²/dλ² of exp(-λ t), at an output inside and at the end; and a second backward pass."""
    rate, ts = doubles(2.0, grad=True), doubles(0.0, 0.7, 1.0, grad=True)
    y = adams(1e-9)(lambda t, y: -rate * y, ONE, ts).y[:, 0]
    for j in (1, 2):
        t = ts[j].item()
        by_rate, by_t = torch.autograd.grad(y[j], (rate, ts), create_graph=True)
        assert by_rate.item() == pytest.approx(-t * math.exp(-2 * t), abs=1e-7)
        assert by_t[j].item() == pytest.approx(-2 * math.exp(-2 * t), abs=1e-6)
        (twice,) = torch.autograd.grad(by_rate, rate, retain_graph=True)
        assert twice.item() == pytest.approx(t * t * math.exp(-2 * t), abs=1e-6)
        (twice,) = torch.autograd.grad(by_t[j], ts, retain_graph=True)
        assert twice[j].item() == pytest.approx(4 * math.exp(-2 * t), abs=1e-5)
    first, second = (torch.autograd.grad(y.sum(), (rate, ts), retain_graph=n == 0) for n in range(2))
    assert all(torch.allclose(x, z, rtol=1e-10) for x, z in zip(first, second))
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(y.sum(), rate)


# States and spans.


def test_starts_without_a_scale_and_fields_without_an_error():
    assert adams(1e-8)(lambda t, y: torch.cos(t) + 0 * y, doubles(0.0), TS).y.item() == pytest.approx(math.sin(2))
    still = adams()(lambda t, y: torch.zeros_like(y), Y0, TS)
    assert torch.equal(still.y, Y0)
    assert still.stats.accepted < 8
    assert adams()(lambda t, y: torch.ones_like(y), ONE, TS).y.item() == pytest.approx(3.0, rel=1e-15)
    for width in (1e-15, 1e-12, 1e-3):
        y = adams()(lambda t, y: -y, ONE, [1.0, 1.0 + width]).y.item()
        assert y == pytest.approx(math.exp(-width), abs=1e-6)
    assert adams()(lambda t, y: -y / 1e8, ONE, [0.0, 1e9]).y.item() == pytest.approx(math.exp(-10), abs=1e-3)


# Failures.


def test_what_cannot_be_is_refused_by_name():
    for grad in ("replay", "reversible"):
        with pytest.raises(ValueError, match=rf"gradient={grad} .*solver\.method=adams .*adjoint or backprop"):
            adams(gradient=grad)
    with pytest.raises(ValueError, match=r"solver\.method=adams chooses its own steps.*solver\.rtol"):
        Fixed(method="adams", steps=3)
    for options in ({"controller": "PI"}, {"safety": 0.5}):
        with pytest.raises(ValueError, match=r"solver\.controller=.*solver\.safety=.*solver\.method=adams"):
            adams(**options)
