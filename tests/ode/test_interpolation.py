"""Output times are where the caller looks, not where the solver steps: looking changes nothing."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from ode_cases import METHODS, PAIRS, Swirl, doubles, label, solver, steps_of
from torch.utils._python_dispatch import TorchDispatchMode

from odenet_cli.ode import Adaptive, Fixed, Tableau


@pytest.mark.parametrize("name", [*PAIRS, "adams"], ids=label)
@pytest.mark.parametrize("ends", [(0.0, 3.0), (3.0, 0.0)])
def test_outputs_change_neither_steps_nor_evaluations(name, ends):
    field, y0 = Swirl(), torch.ones(2, 3, dtype=torch.float64)
    solve = solver(("adaptive", name), tol=1e-4)
    many = torch.linspace(*ends, 50, dtype=torch.float64)
    bare, dense = solve(field, y0, doubles(*ends)), solve(field, y0, many)
    assert torch.equal(bare.y, dense.y[-1])
    assert torch.equal(dense.y[0], y0)
    assert (bare.stats.accepted, bare.stats.rejected) == (dense.stats.accepted, dense.stats.rejected)
    more, table = dense.stats.nfe_forward - bare.stats.nfe_forward, solve.formulas
    if not isinstance(table, Tableau):
        assert more == 0
    elif table.extra:
        # An interpolant with stages of its own evaluates them in the steps that have an output.
        assert 0 < more <= len(table.extra) * bare.stats.accepted
    else:
        # Without FSAL an output inside the last step needs the slope at its end, which opens no other step.
        assert more in ((0,) if table.fsal else (0, 1))


@pytest.mark.parametrize("name", [*PAIRS, "adams"], ids=label)
@pytest.mark.parametrize("tol", [1e-3, pytest.param(1e-6, marks=pytest.mark.numerics)])
def test_between_the_steps_the_error_stays_that_of_their_ends(name, tol):
    """y' = y cos t, y = exp(sin t): within 10 max(tol, error at the ends of the steps)."""
    solve, y0 = solver(("adaptive", name), tol=tol, max_steps=100_000), doubles(1.0)

    def field(t, y):
        return y * torch.cos(t)

    ends = [0.0, *(step.end for step in steps_of(solve, field, y0, doubles(0.0, 6.0)))]
    at_ends = solve(field, y0, ends).y[:, 0]
    dense = torch.linspace(0, 6, 1001, dtype=torch.float64)
    between = solve(field, y0, dense).y[:, 0]
    known = (at_ends - torch.exp(torch.sin(doubles(*ends)))).abs().max().item()
    assert (between - torch.exp(torch.sin(dense))).abs().max() <= 10 * max(tol, known)


# Heun's method with Euler's, and the two stages that its Hermite interpolant is written out in: one that it does not
# use, and f at the new point.
HEUN = """
0  |
1  | 1
---+--------
b  | 1/2 1/2
b* | 1   0
"""
EXTRA = """
1/2 | 1/2 0
1   | 1/2 1/2 0
"""
HERMITE = """
1 -1/2 0
0  3/2 -1
0  0   0
0 -1   1
"""


@pytest.mark.parametrize("make", [partial(Fixed, steps=1), partial(Adaptive, rtol=1e-3, atol=1e-3)])
@pytest.mark.parametrize("gradient", ["backprop", "replay"])
def test_extra_stages_need_no_method_with_first_same_as_last(make, gradient):
    implied = Tableau.parse(HEUN, order=2, embedded_order=1)
    written = Tableau.parse(HEUN + EXTRA, order=2, embedded_order=1, dense=HERMITE)
    y0, ts, results = torch.ones(3, dtype=torch.float64), torch.linspace(0, 2, 9, dtype=torch.float64), []
    for tableau in (implied, written):
        start, solve = y0.clone().requires_grad_(), make(method=tableau, gradient=gradient)
        states = solve(Swirl(), start, ts).y
        states.square().sum().backward()
        results.append((states, start.grad, solve.dense(Swirl(), y0, [0.0, 2.0])(ts)))
    for one, other in zip(*results):
        assert torch.allclose(one, other, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("name", [*PAIRS, "adams"], ids=label)
@pytest.mark.parametrize("ends", [(0.0, 1.0), (1.0, 0.0), (0.1, 0.7), (-1e3, -1e3 + 1), (1 / 3, math.pi)])
def test_the_last_step_ends_on_the_end_time_exactly(name, ends):
    taken = steps_of(solver(("adaptive", name), tol=1e-3), Swirl(), torch.ones(3, dtype=torch.float64), doubles(*ends))
    assert taken[-1].end == ends[1]
    assert taken[0].t == ends[0]
    for one, other in pairwise(taken):
        assert one.end == other.t
        assert torch.equal(one.step.y[0], other.y[0])


@pytest.mark.parametrize("name", ["dopri5", "adams"])
def test_the_field_is_never_asked_beyond_the_interval(name):
    seen = []

    def field(t, y):
        seen.append(float(t))
        return torch.sin(20 * t) * y

    for ends in ((0.3, 0.9), (0.9, 0.3)):
        seen.clear()
        solver(("adaptive", name), tol=1e-6)(field, doubles(1.0), [ends[0], 0.7, ends[1]])
        assert min(seen) >= 0.3
        assert max(seen) <= 0.9


@pytest.mark.parametrize("name", METHODS)
def test_a_fixed_solve_steps_from_output_to_output(name):
    field, y0, ts = Swirl(), torch.ones(3, dtype=torch.float64), doubles(0.0, 0.1, 0.7, 1.0)
    solve = Fixed(method=name, steps=4)
    whole, y = solve(field, y0, ts).y, y0
    for j in range(3):
        y = solve(field, y, ts[j : j + 2]).y
        assert torch.equal(whole[j + 1], y)


def test_three_times_give_all_states_and_two_the_last():
    y0, solve = torch.ones(4, 2, dtype=torch.float64), solver(("adaptive", "dopri5"))
    assert solve(Swirl(2), y0, doubles(0.0, 1.0)).y.shape == (4, 2)
    assert solve(Swirl(2), y0, doubles(0.0, 0.5, 1.0)).y.shape == (3, 4, 2)


class Operations(TorchDispatchMode):
    """Count the operations on tensors."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["dopri5", "adams", "rodas4"])
def test_outputs_inside_a_step_are_one_product_also_where_their_times_have_gradients(name):
    solve = Adaptive(method=name, rtol=1e-3, atol=1e-3)

    def operations(count):
        ts = torch.linspace(0.0, 1.0, count, dtype=torch.float64, requires_grad=True)
        with Operations() as seen:
            stats = solve(lambda t, y: -y, doubles(1.0), ts).stats
        return seen.count, stats.accepted

    (few, steps), (many, again) = operations(200), operations(400)
    assert steps == again
    assert many - few < 2 * 200
