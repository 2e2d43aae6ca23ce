"""The reversible gradient: exact for the pair's own steps, and refused where decay makes it unsound.

McCallum & Foster, "Efficient, accurate and stable gradients for neural ODEs" (2024).
"""

from __future__ import annotations

import math

import pytest
import torch
from ode_cases import ADAPTIVE, HEUN_EULER, METHODS, SOLVERS, Swirl, doubles, label, solver
from torch.autograd import gradcheck, gradgradcheck

from odenet_cli.ode import Adaptive, Fixed, NotReversible, method
from odenet_cli.ode.gradient.reversible import Reversible
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.right_hand_side import RightHandSide

TIMES = {"ends": (0.0, 1.0), "inside": (0.0, 0.3, 0.31, 1.0), "reversed": (1.0, 0.4, 0.35, -0.5)}


def steps(solve, field, y0, ts):
    """Return the records of the accepted steps of the pair."""
    problem = Problem(RightHandSide(field, y0.detach()), ts.tolist(), None, solve)
    with torch.no_grad():
        _, records, _ = solve.gradient_method.forward(problem)
    return records


def increment(tableau, field, t, y, h):
    """h Σ b_i k_i of a textbook Runge-Kutta step."""
    k = []
    for c, row in zip(tableau.c, tableau.a):
        k.append(field(t + float(c) * h, y + h * sum(float(w) * s for w, s in zip(row, k))))
    return h * sum(float(w) * s for w, s in zip(tableau.b, k))


def naive(tableau, records, field, y0, ts, coupling):
    """The pair as its paper writes it, each step a constant fraction of its segment: all of it plain autograd."""
    times, states, y, z = ts.tolist(), {0: y0}, y0, y0
    for record in records:
        i, j = record.segment.i, record.segment.j
        span = ts[j] - ts[i]
        t = ts[i] + (record.t - times[i]) / (times[j] - times[i]) * span
        h = record.h / (times[j] - times[i]) * span
        y = coupling * y + (1 - coupling) * z + increment(tableau, field, t, z, h)
        z = z - increment(tableau, field, t + h, y, -h)
        if record.output_at_end is not None:
            states[record.output_at_end] = y
    return torch.stack([states[j] for j in range(len(times))])


def agree(solve, field, y0, ts, inputs, bound=1e-9):
    y = solve(field, y0, ts).y
    twin = naive(solve.tableau, steps(solve, field, y0, ts), field, y0, ts, solve.gradient_method.coupling)
    twin = twin if len(ts) > 2 else twin[1]
    torch.testing.assert_close(y, twin, rtol=1e-11, atol=1e-11)
    weight = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = torch.autograd.grad((weight * y).sum(), inputs)
    known = torch.autograd.grad((weight * twin).sum(), inputs)
    for one, other in zip(found, known):
        assert (one - other).abs().max() <= bound * max(1.0, other.abs().max().item())


@pytest.mark.parametrize("times", TIMES.values(), ids=list(TIMES))
@pytest.mark.parametrize("case", SOLVERS, ids=label)
def test_the_gradient_is_that_of_the_pairs_steps(case, times):
    field = Swirl()
    y0 = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3).requires_grad_()
    ts = doubles(*times, grad=True)
    agree(solver(case, "reversible", tol=1e-3), field, y0, ts, (y0, ts, *field.parameters()))


@pytest.mark.numerics
@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-6, 1e-8, 1e-10])
@pytest.mark.parametrize("span", [1.0, 5.0])
@pytest.mark.parametrize("name", [name for name in ADAPTIVE if method(name).order >= 5])
def test_decay_over_a_span_of_five_is_undone_exactly(name, span, tol):
    """y' = -w y: the map of a step has a growing partner for every decaying mode, up to exp(5) here."""
    w, y0, ts = doubles(1.0, grad=True), doubles(1.0, -2.0, grad=True), doubles(0.0, span, grad=True)
    agree(solver(("adaptive", name), "reversible", tol=tol), lambda t, y: -w * y, y0, ts, (w, y0, ts))


@pytest.mark.parametrize("coupling", [0.5, 0.9, 0.999, 0.999999])
def test_the_coupling_is_an_option(coupling):
    field, y0, ts = Swirl(), doubles(0.3, -0.8, 0.5, grad=True), doubles(0.0, 1.0, grad=True)
    solve = Adaptive(method="bosh3", rtol=1e-4, atol=1e-4, gradient=Reversible(coupling=coupling))
    agree(solve, field, y0, ts, (y0, ts, *field.parameters()))


@pytest.mark.parametrize("coupling", [0.0, 1.0, -0.5, 1.5, math.nan])
def test_a_coupling_out_of_range_is_refused_by_name(coupling):
    with pytest.raises(ValueError, match=r"gradient\.coupling="):
        Reversible(coupling=coupling)


def test_an_attempt_takes_thirteen_evaluations_with_dopri5():
    """Seven to go and judge, six to come back; one more opens each step, as the pair has no closing slope for it."""
    y0 = torch.ones(3, dtype=torch.float64)
    stats = solver(("adaptive", "dopri5"), "reversible", tol=1e-5)(Swirl(), y0.requires_grad_(), [0.0, 2.0]).stats
    attempts = stats.accepted + stats.rejected
    assert stats.nfe_forward <= 13 * attempts + 2
    assert stats.nfe_forward >= 12 * attempts


@pytest.mark.parametrize("name", ADAPTIVE)
def test_decay_that_cannot_be_undone_is_refused_with_the_way_out(name):
    w = doubles(30.0, grad=True)
    tol = 1e-3 if method(name).order < 3 else 1e-6
    with pytest.raises(NotReversible, match=r"tolerances apart.*gradient=replay"):
        solver(("adaptive", name), "reversible", tol=tol)(lambda t, y: -w * y, doubles(1.0), doubles(0.0, 10.0))


@pytest.mark.parametrize("name", METHODS)
def test_fixed_steps_that_come_apart_are_refused(name):
    w = doubles(15.0, grad=True)
    with pytest.raises(NotReversible, match="gradient=replay"):
        Fixed(method=name, steps=100, gradient="reversible")(lambda t, y: -w * y, doubles(1.0), doubles(0.0, 10.0))


@pytest.mark.parametrize("case", [("adaptive", "dopri5"), ("adaptive", HEUN_EULER), ("fixed", "rk38")], ids=label)
def test_first_and_second_derivatives_agree_with_finite_differences(case):
    """The steps are held fixed: every one is accepted at this tolerance, and none is longer than 0.25."""
    options = {"first_step": 0.25, "max_step": 0.25} if case[0] == "adaptive" else {}
    solve, field = solver(case, "reversible", tol=10.0, steps=2, **options), Swirl(2)

    def run(y0, w, b):
        return solve(lambda t, y: torch.tanh(y @ w.T + b * t) - 0.3 * y, y0, doubles(0.0, 0.5, 1.0)).y

    inputs = (doubles(0.3, -0.8, grad=True), *field.parameters())
    assert gradcheck(run, inputs, atol=1e-7, fast_mode=True)
    assert gradgradcheck(run, inputs, atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("kind", ["fixed", "adaptive"])
def test_steps_that_rounding_does_not_let_undo_are_refused(kind):
    """At a coupling of 0.9 rounding grows by 0.9^-400 = 2e18 over the steps, at 0.999 by 1.5."""

    def solve(coupling):
        options = {"gradient": Reversible(coupling=coupling)}
        if kind == "fixed":
            options |= {"method": "rk4", "steps": 400}
        else:
            options |= {"method": "heun_euler", "rtol": 1e-5, "atol": 1e-5}
        y0 = doubles(1.0, grad=True)
        y, stats = (Fixed if kind == "fixed" else Adaptive)(**options)(
            lambda t, y: torch.cos(t) * y, y0, doubles(0.0, 10.0)
        )
        assert stats.accepted >= 400
        return torch.autograd.grad(y.sum(), y0)[0].item()

    assert solve(0.999) == pytest.approx(math.exp(math.sin(10.0)), rel=1e-2)
    with pytest.raises(NotReversible, match=r"return to y0.*gradient\.coupling"):
        solve(0.9)


def test_numbers_that_begin_at_zero_come_back_up_to_the_rounding_of_the_others():
    """float32 holds a coordinate of 0 that a rotation mixes with one of 30 to 1e-6, a thousand times atol here."""
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
    y0 = torch.tensor([30.0, 0.0], requires_grad=True)
    y = Adaptive(method="dopri5", rtol=1e-5, atol=1e-9, gradient="reversible")(lambda t, y: y @ turn, y0, [0.0, 7.0]).y
    (gradient,) = torch.autograd.grad(y[0], y0)
    assert torch.allclose(gradient, torch.tensor([math.cos(7.0), -math.sin(7.0)]), atol=1e-4)


@pytest.mark.numerics
def test_float32_comes_back_to_where_it_began():
    """A thousand steps undone: y0's gradient of a quadratic loss is right to float32, so the states were."""
    found = []
    for dtype in (torch.float32, torch.float64):
        field, y0 = Swirl(dtype=dtype), torch.tensor([0.3, -0.8, 0.5], dtype=dtype, requires_grad=True)
        y = Fixed(method="rk4", steps=1000, gradient="reversible")(field, y0, torch.tensor([0.0, 2.0])).y
        y.square().sum().backward()
        found.append([y0.grad.double(), *(p.grad.double() for p in field.parameters())])
    for one, other in zip(*found):
        assert (one - other).abs().max() <= 2e-5 * other.abs().max()


def test_without_gradients_the_pair_is_not_solved():
    """Scoring a net costs what its method costs."""
    with torch.no_grad():
        stats = solver(("adaptive", "dopri5"), "reversible")(Swirl(), torch.ones(3, dtype=torch.float64), [0.0, 1.0])[1]
        plain = solver(("adaptive", "dopri5"))(Swirl(), torch.ones(3, dtype=torch.float64), [0.0, 1.0])[1]
    assert stats == plain
