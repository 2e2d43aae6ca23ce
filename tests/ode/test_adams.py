"""Adams: the formulas are the classical ones, the solve is VODE's, and its gradient that of the steps it took."""

from __future__ import annotations

import cmath
import gc
import math
import weakref
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise

import numpy as np
import pytest
import torch
from ode_cases import Counting, Swirl, doubles, steps_of
from scipy.integrate import ode, solve_ivp
from test_memory import live, net, saved_bytes

from odenet_cli.ode import Adaptive, Fixed, NotFinite, SolveError, StepLimit, StepTooSmall
from odenet_cli.ode.gradient.adjoint import NORMS, Adjoint
from odenet_cli.ode.methods.adams import METHOD, formula, order_change_polynomial
from odenet_cli.ode.multistep.nordsieck import change_order

GRADIENTS = ("backprop", "adjoint")
ONE, TS = doubles(1.0), doubles(0.0, 2.0)
Y0 = torch.ones(3, dtype=torch.float64)


def adams(tol=1e-4, **options):
    return Adaptive(**{"method": "adams", "rtol": tol, "atol": tol, **options})


# The formulas, in exact arithmetic.


def poly_times(p, q):
    made = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            made[i + j] += a * b
    return made


def antiderivative(p):
    return [Fraction(0), *(a / n for n, a in enumerate(p, start=1))]


def value(p, x):
    return sum(a * x**n for n, a in enumerate(p))


@lru_cache
def lagrange(points, i):
    """The polynomial that is 1 at points[i] and 0 at the others."""
    made = [Fraction(1)]
    for j, x in enumerate(points):
        if j != i:
            made = poly_times(made, [-x / (points[i] - x), 1 / (points[i] - x)])
    return made


def weights(points, start, end):
    """Those of the slopes at `points` in the integral from `start` to `end` of their interpolant."""
    return list(_weights(tuple(points), start, end))


@lru_cache
def _weights(points, start, end):
    parts = [antiderivative(lagrange(points, i)) for i in range(len(points))]
    return tuple(value(p, end) - value(p, start) for p in parts)


def grid(q, even):
    """q + 2 points, the new one at 0 and the one before it at -1, the step being the unit."""
    rng = np.random.default_rng(q)
    steps = [Fraction(1)] * (q + 1) if even else [Fraction(1), *(Fraction(int(n), 7) for n in rng.integers(3, 20, q))]
    return [-sum(steps[:n], start=Fraction(0)) for n in range(q + 2)]


def step(q, points, slope):
    """Predicted state, corrected state and e of one step in Nordsieck form, y being 0 at -1, for y' = `slope`(x)."""
    made = formula([-x for x in points[1:]])
    past = points[1 : q + 1]
    parts = [[slope(x) * a for a in lagrange(tuple(past), i)] for i, x in enumerate(past)]
    y = antiderivative([sum(column) for column in zip(*parts)])
    predicted = value(y, 0) - value(y, Fraction(-1))
    e = (slope(Fraction(0)) - y[1]) / made.correct[1]
    return predicted, predicted + e, e, made


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("q", range(1, 13))
def test_the_corrector_is_adams_moulton_predicted_by_adams_bashforth(q, even):
    points = grid(q, even)
    for i in range(q + 1):  # a slope of 1 at one point only
        predicted, y, _, _ = step(q, points, lambda x, i=i: Fraction(x == points[i]))
        bashforth, moulton = weights(points[1 : q + 1], -1, 0), weights(points[:q], -1, 0)
        assert predicted == (bashforth[i - 1] if i else 0)
        assert y == (moulton[i] if i < q else 0)
    if even and q == 4:
        assert weights(points[1:5], -1, 0) == [Fraction(n, 24) for n in (55, -59, 37, -9)]
        assert weights(points[:4], -1, 0) == [Fraction(n, 24) for n in (9, 19, -5, 1)]


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("q", range(1, 13))
def test_the_error_estimates_are_exact_where_one_derivative_is_constant(q, even):
    """For the order in use y of degree q + 1, for the one below q, for the one above q + 2."""
    points = grid(q, even)

    def error(order, degree):
        """y - its approximation, for y = x^degree."""
        slope = [degree * x ** (degree - 1) for x in points]
        return -((-1) ** degree) - sum(w * k for w, k in zip(weights(points[:order], -1, 0), slope))

    _, _, e, made = step(q, points, lambda x: (q + 1) * x**q)
    assert abs(error(q, q + 1)) == made.error * abs(e)
    assert e == made.difference * math.factorial(q + 1)
    if q > 1:
        assert abs(error(q - 1, q)) == made.lower  # z_q is 1

    # The same from one step earlier, in its own unit: for y of degree q + 2 the change of e is the next derivative's.
    unit = points[1] - points[2]
    points_before = [(x - points[1]) / unit for x in points[1:]]
    before = [*points_before, points_before[-1] - 1]
    xi = [-x for x in before[1 : q + 2]]
    slope = {x: (q + 2) * y ** (q + 1) * unit for x, y in zip(before, points[1:])}
    past = before[1 : q + 1]
    predicted = sum(slope[x] * value(lagrange(tuple(past), i), Fraction(0)) for i, x in enumerate(past))
    earlier = formula(xi)
    e_before = (slope[Fraction(0)] - predicted) / earlier.correct[1]
    _, _, e, made = step(q, points, lambda x: (q + 2) * x ** (q + 1))
    carried = made.difference / earlier.difference / unit ** (q + 1)
    assert made.higher * abs(e - carried * e_before) == abs(error(q + 1, q + 2))


@pytest.mark.parametrize("q", range(2, 13))
def test_a_change_of_order_keeps_the_slopes_that_the_other_formula_looks_at(q):
    """Down from q and up again: the polynomial of degree q + 1 that is x^(q+1) comes back."""
    points = grid(q, even=False)
    xi = [-x for x in points[1:]]
    slopes = {x: (q + 1) * x**q for x in points}

    def interpolant(n):
        """Of the first n slopes, as a Nordsieck array at 0, where y is 0."""
        parts = [[slopes[x] * a for a in lagrange(tuple(points[:n]), i)] for i, x in enumerate(points[:n])]
        return antiderivative([sum(column) for column in zip(*parts)])

    up, high = interpolant(q), interpolant(q + 1)
    _, _, e, made = step(q, points, lambda x: slopes.get(x))
    top = e / (made.difference * math.factorial(q + 1))
    assert [a + b * top for a, b in zip([*up, 0], order_change_polynomial(xi[: q - 1]))] == high
    low = interpolant(q - 1)
    assert [a - b * up[-1] for a, b in zip(up, order_change_polynomial(xi[: q - 2]))] == [*low, 0]

    arrays = [[(doubles(float(a)),) for a in p] for p in (low, up, high)]
    down, up = ([float(a) for a in order_change_polynomial(xi[:n])] for n in (q - 2, q - 1))
    factor = float(1 / (made.difference * math.factorial(q + 1)))
    for found, known in (
        (change_order(arrays[1], (), down, None), arrays[0]),
        (change_order(arrays[1], (doubles(float(e)),), up, factor), arrays[2]),
    ):
        assert len(found) == len(known)
        size = max(x.abs().max().item() for (x,) in (*found, *known, *arrays[1])) * max(map(abs, up))
        assert all((x - y).abs().item() <= 1e-13 * size for (x,), (y,) in zip(found, known))


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


# The solve.


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


@pytest.mark.parametrize("ends", [(0.0, 3.0), (3.0, 0.0)])
def test_outputs_change_nothing_and_lie_on_the_solution(ends):
    solve, many = adams(1e-7), torch.linspace(*ends, 201, dtype=torch.float64)
    y0 = doubles(math.exp(math.sin(ends[0])))

    def field(t, y):
        return y * torch.cos(t)

    bare, dense = solve(field, y0, doubles(*ends)), solve(field, y0, many)
    assert bare.stats == dense.stats
    assert torch.equal(bare.y, dense.y[-1])
    ends_of_steps = doubles(ends[0], *(s.end for s in steps_of(solve, field, y0, many)))
    known = (solve(field, y0, ends_of_steps).y[:, 0] - torch.exp(torch.sin(ends_of_steps))).abs().max().item()
    assert (dense.y[:, 0] - torch.exp(torch.sin(many))).abs().max() <= 10 * max(1e-7, known)


@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (-1e3, -1e3 + 1), (1 / 3, math.pi), (1.0, 1.0 + 1e-15)])
def test_steps_join_and_the_last_one_ends_on_the_end_time(ends):
    taken = steps_of(adams(1e-5), Swirl(), Y0, doubles(*ends))
    assert (taken[0].t, taken[-1].end) == ends
    for one, other in pairwise(taken):
        assert one.end == other.t
        assert torch.equal(one.step.y[0], other.y[0])
    for s in taken:  # the corrected polynomial meets the state at the beginning of the step, too
        before, after = adams().loop(lambda *_: None).interpolate(s, [0.0, 1.0])
        assert torch.allclose(before[0], s.y[0], rtol=1e-12)
        assert torch.equal(after[0], s.step.y[0])


def test_the_field_is_never_asked_beyond_the_interval():
    seen = []

    def field(t, y):
        seen.append(float(t))
        return torch.sin(20 * t) * y

    for ends in ((0.3, 0.9), (0.9, 0.3)):
        adams(1e-6)(field, ONE, [ends[0], 0.7, ends[1]])
        assert 0.3 <= min(seen) <= max(seen) <= 0.9


def test_steps_stay_within_their_bounds():
    steps = [s.h for s in steps_of(adams(1e-2, max_step=0.05, first_step=0.01), Swirl(), Y0, doubles(0.0, 1.0))]
    assert steps[0] == 0.01
    assert max(steps) == 0.05
    floor = steps_of(adams(1e-2, min_step=0.1), Swirl(), Y0, doubles(0.0, 1.0))
    assert all(s.h >= 0.1 for s in floor[:-1])
    assert [s.h for s in steps_of(adams(1.0, first_step=50.0), Swirl(), Y0, doubles(0.0, 0.1))] == [0.1]


# Cost.


@pytest.mark.parametrize("grad", GRADIENTS)
@pytest.mark.parametrize("times", [(0.0, 1.0), (1.0, 0.3, -0.5), *CASES.values()], ids=str)
def test_a_counting_field_agrees(times, grad):
    for wanted in (True, False):
        field = Counting(Swirl())
        with torch.set_grad_enabled(wanted):
            y, stats = adams(1e-4, gradient=grad)(field, Y0, doubles(*times, grad=wanted))
        assert stats.nfe_forward == field.calls
        assert stats.nfe_backward == stats.vjps == 0
        if wanted:
            y.square().sum().backward(retain_graph=True)
            assert stats.nfe_forward + stats.nfe_backward == field.calls
            assert (stats.nfe_backward == 0) == (grad == "backprop")
            y.square().sum().backward()
            assert stats.nfe_forward + stats.nfe_backward == field.calls


def test_backprop_pulls_back_every_evaluation_of_the_accepted_steps_once():
    field, y0 = Swirl(), torch.ones(3, dtype=torch.float64, requires_grad=True)
    solve = adams(1e-6)
    y, stats = solve(field, y0, TS)
    taken = steps_of(solve, field, y0.detach(), TS)
    assert stats.rejected == 0 or stats.nfe_forward > sum(len(s.step.k) - s.restarted for s in taken)
    y.sum().backward()
    assert stats.vjps == 1 + sum(len(s.step.k) - s.restarted for s in taken)
    assert stats.accepted == len(taken)


@pytest.mark.parametrize("state", ["tensor", "tuple"])
@pytest.mark.parametrize("grad", GRADIENTS)
def test_the_host_looks_at_the_device_once_an_evaluation(monkeypatch, grad, state):
    count = [0]
    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"):
        original = getattr(torch.Tensor, name)

        def counted(self, *args, original=original, **kwargs):
            count[0] += self.dtype is not torch.uint8  # the states of random generators, which are the host's
            return original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)
    w, y0 = doubles(1.0, grad=True), doubles(1.0, 2.0)

    def field(t, y):
        return -w * y * torch.cos(9 * t) if state == "tensor" else (-w * y[0] * torch.cos(9 * t), w * y[1])

    for tol in (1e-3, 1e-8):
        count[0] = 0
        start = y0 if state == "tensor" else (y0, doubles(3.0))
        y, stats = adams(tol, gradient=grad)(field, start, TS)
        # For ts, the end, and two for the first step; of the evaluations, that at the start and its probe ask nothing.
        assert count[0] == 4 + stats.nfe_forward - 2
        count[0] = 0
        (y if state == "tensor" else y[0]).sum().backward()
        assert count[0] == 0 if grad == "backprop" else count[0] <= 3 + stats.nfe_backward


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


@pytest.mark.parametrize("grad", GRADIENTS)
@pytest.mark.parametrize("tol", [1e-4, 1e-7, 1e-10])
def test_gradients_follow_the_matrix_exponential(tol, grad):
    a = doubles([-0.1, 2.0], [-2.0, -0.1], grad=True)
    y0, ts = doubles(2.0, 0.0, grad=True), doubles(0.0, 0.7, 1.5, grad=True)
    weight = torch.arange(1.0, 7.0, dtype=torch.float64).reshape(3, 2) / 21
    y = adams(tol, gradient=grad)(lambda t, y: a @ y, y0, ts).y
    exact = torch.stack([torch.linalg.matrix_exp(a * (t - ts[0])) @ y0 for t in ts])
    for x, z in zip(*(torch.autograd.grad((weight * out.cos()).sum(), (a, y0, ts)) for out in (y, exact))):
        assert (x - z).abs().max() <= 100 * tol


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


@pytest.mark.parametrize("factor", [1e6, 2.0**-20, -1.0])
def test_scaling_the_loss_scales_the_gradient_and_nothing_else(factor):
    results = []
    for scale in (1.0, factor):
        field = Swirl()
        y, stats = adams(1e-5, gradient="adjoint")(field, Y0, doubles(0.0, 0.4, 1.0))
        (scale * y.square().sum()).backward()
        results.append((stats.nfe_backward, [p.grad / scale for p in field.parameters()]))
    assert results[0][0] == results[1][0]
    assert all(torch.allclose(x, y, rtol=1e-9) for x, y in zip(results[0][1], results[1][1]))


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


@pytest.mark.parametrize("grad", GRADIENTS)
def test_complex_tuples_and_parts_that_are_not_used(grad):
    omega = torch.tensor(2.0 + 0.5j, dtype=torch.complex128, requires_grad=True)
    y0 = (torch.tensor(1 + 1j, dtype=torch.complex128, requires_grad=True), doubles(2.0, 3.0, grad=True), torch.ones(0))

    def field(t, y):
        assert t.dtype == torch.float64
        return 1j * omega * y[0], torch.zeros_like(y[1]), y[2]

    y = adams(1e-9, gradient=grad)(field, y0, doubles(0.0, 1.0)).y
    exact = (1 + 1j) * cmath.exp(1j * (2 + 0.5j))
    assert abs(y[0].item() - exact) < 1e-6
    assert torch.equal(y[1], y0[1])
    of_omega, of_y0 = torch.autograd.grad(y[0].real, (omega, y0[0]), retain_graph=True)
    assert abs(of_omega.item() - (1j * exact).conjugate()) < 1e-6
    assert abs(of_y0.item() - (exact / (1 + 1j)).conjugate()) < 1e-6
    (of_rest,) = torch.autograd.grad(y[1].sum(), y0[1])
    assert torch.equal(of_rest, torch.ones_like(of_rest))


def test_without_gradients_nothing_is_recorded_and_nothing_changes():
    field, y0 = Swirl(), (2 * Y0).requires_grad_()
    recorded = adams(1e-6)(field, y0, doubles(0.0, 0.5, 1.0))
    with torch.no_grad():
        plain = adams(1e-6)(field, y0, doubles(0.0, 0.5, 1.0))
    assert torch.equal(recorded.y, plain.y)
    assert recorded.stats == plain.stats
    assert not plain.y.requires_grad


@pytest.mark.parametrize("grad", GRADIENTS)
def test_training_leaves_nothing_behind(grad):
    """No reference cycles: with the collector off, twenty steps end with as many tensors as three."""
    module, y0, ts = net(), torch.ones(4, 8), torch.tensor([0.0, 0.5, 1.0], requires_grad=True)

    def train(steps):
        for _ in range(steps):
            adams(1e-2, gradient=grad)(lambda t, y: module(y), y0, ts).y.square().mean().backward()
            adams(1e-2, gradient=grad)(lambda t, y: module(y), y0, ts)

    gc.collect()
    gc.disable()
    try:
        train(3)
        early = live()
        train(17)
        assert live() == early
    finally:
        gc.enable()


@pytest.mark.parametrize("grad", GRADIENTS)
def test_what_is_held_between_forward_and_backward(grad):
    """The evaluations of the accepted steps by backprop, and after its backward nothing; by the adjoint the outputs."""
    module, y0 = net(), torch.ones(16, 8)
    held, hidden = {}, []

    def field(t, y):
        inner = module[0](y)
        hidden.append(weakref.ref(inner.untyped_storage()))
        return module[2](torch.tanh(inner) * inner)

    for steps in (8, 64):
        solve = adams(1e-1, gradient=grad, max_step=1 / steps, first_step=1 / steps)
        held[steps] = saved_bytes(lambda solve=solve: solve(field, y0, [0.0, 1.0]), module.parameters())
    if grad == "adjoint":
        assert held[8] == held[64] <= 2 * y0.untyped_storage().nbytes()
    else:
        assert held[64] == pytest.approx(8 * held[8], rel=0.2)
    hidden.clear()
    loss = adams(gradient=grad)(field, y0, [0.0, 0.4, 1.0]).y.square().mean()
    loss.backward()
    assert all(reference() is None for reference in hidden)


# States and spans.


@pytest.mark.parametrize("shape", [(), (1,), (2, 3), (0,), (0, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.complex64, torch.complex128])
@pytest.mark.parametrize("grad", GRADIENTS)
def test_shape_and_type_are_kept(shape, dtype, grad):
    y0 = torch.ones(shape, dtype=dtype, requires_grad=True)
    for ts, lead in (((0.0, 1.0), ()), ((0.0, 0.4, 1.0), (3,)), ((1.0, 1.0), ()), ((1.0, 1.0, 1.0), (3,))):
        y = adams(1e-3, gradient=grad)(lambda t, y: -y, y0, ts).y
        assert y.shape == lead + shape
        assert y.dtype == dtype
        assert torch.allclose(y[-1] if lead else y, y0 * math.exp(ts[0] - ts[-1]), rtol=1e-2)
        (found,) = torch.autograd.grad(y.real.sum(), y0)
        assert found.shape == shape


def test_a_tuple_takes_the_steps_of_its_parts_laid_side_by_side():
    field, y0 = Swirl(4), torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(2, 4)
    solve, ts = adams(1e-6), doubles(0.0, 0.3, 1.0)
    whole, parts = solve(field, y0, ts), solve(lambda t, y: field(t, torch.stack(y)).unbind(), tuple(y0.unbind()), ts)
    assert torch.allclose(torch.stack(parts.y, 1), whole.y, rtol=1e-12)
    assert parts.stats == whole.stats


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


def test_the_callers_tensors_are_left_alone():
    y0, seen = torch.ones(2, 3, dtype=torch.float64), []

    def field(t, y):
        seen.append((y, y.clone()))
        return torch.tanh(y)

    for times in ((0.0, 0.5, 1.0), (0.0, 1.0), (0.0, 0.0)):
        with torch.no_grad():
            adams(1e-6)(field, y0, times).y.mul_(5)
        assert torch.equal(y0, torch.ones_like(y0))
    assert all(torch.equal(one, other) for one, other in seen)


# Failures.


@pytest.mark.parametrize("grad", GRADIENTS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_field_that_is_not_finite_is_named_with_its_time(bad, grad):
    w = doubles(1.0, grad=True)
    with pytest.raises(NotFinite, match="t = 0, where the solve begins"):
        adams(gradient=grad)(lambda t, y: w * y * bad, ONE, TS)
    with pytest.raises(NotFinite, match=r"t = 0\.5 .*accepted and .* rejected.*optim\.lr"):
        adams(gradient=grad)(lambda t, y: y if t < 0.5 else y * bad, ONE, TS)
    with pytest.raises(NotFinite, match="t = 0 "):
        adams(gradient=grad, first_step=0.1)(lambda t, y: w * y * bad, ONE, TS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_blow_up_stops_at_the_pole(dtype):
    with pytest.raises(SolveError, match=r"t = (1|0\.99|1\.00)\d* "):
        adams()(lambda t, y: y * y, ONE.to(dtype), TS)


def test_stiffness_noise_and_steps_below_the_smallest_end_by_themselves():
    with pytest.raises(StepLimit, match=r"t = 0\.0.* of 2; the step is .*solver\.max_steps.*solver\.rtol"):
        adams(max_steps=100)(lambda t, y: -1e6 * (y - torch.cos(t)), ONE, TS)
    torch.manual_seed(0)
    with pytest.raises(SolveError, match=r"t = [\d.e-]+ of 2.*solver\.max_steps"):
        adams(1e-9, max_steps=1000)(lambda t, y: torch.randn_like(y), ONE, TS)
    with pytest.raises(StepTooSmall, match=r"step of .* at t = .*solver\.rtol"):
        adams(1e-9, min_step=0.1)(lambda t, y: torch.sin(50 * t) * y, ONE, TS)


def test_the_step_limit_counts_accepted_and_rejected_steps():
    def field(t, y):
        return torch.where(t < 0.7, 1.0, -1.0) * y * torch.cos(9 * t)

    stats = adams()(field, ONE, TS).stats
    needed = stats.accepted + stats.rejected
    assert stats.rejected > 3
    assert adams(max_steps=needed)(field, ONE, TS).stats == stats
    with pytest.raises(StepLimit):
        adams(max_steps=needed - 1)(field, ONE, TS)


@pytest.mark.parametrize("grad", GRADIENTS)
def test_an_error_of_the_field_passes_unchanged(grad):
    error = ZeroDivisionError("as it was")

    def field(t, y):
        if t > 0.5:
            raise error
        return -y

    with pytest.raises(ZeroDivisionError) as caught:
        adams(gradient=grad)(field, doubles(1.0, grad=True), TS)
    assert caught.value is error


def test_what_cannot_be_is_refused_by_name():
    for grad in ("replay", "reversible"):
        with pytest.raises(ValueError, match=rf"gradient={grad} .*solver\.method=adams .*adjoint or backprop"):
            adams(gradient=grad)
    with pytest.raises(ValueError, match=r"solver\.method=adams chooses its own steps.*solver\.rtol"):
        Fixed(method="adams", steps=3)
    for options in ({"controller": "PI"}, {"safety": 0.5}):
        with pytest.raises(ValueError, match=r"solver\.controller=.*solver\.safety=.*solver\.method=adams"):
            adams(**options)
