"""Reported cost is the true cost: evaluations, vector-Jacobian products, steps, and looks at the device."""

from __future__ import annotations

import pytest
import torch
from ode_cases import GRADIENTS, SOLVERS, WAYS, Counting, Swirl, doubles, label, solver

from odenet_cli.ode import Adaptive, Stats, method, tally

TIMES = [(0.0, 1.0), (0.0, 0.2, 0.21, 0.9, 1.0), (1.0, 0.3, -0.5), (0.0, 0.0, 0.5, 0.5, 1.0, 1.0)]


# Every method with every gradient; the ways through times of one method are those of all.
COUNTED = [(case, TIMES[1], grad) for case in SOLVERS for grad in GRADIENTS]
COUNTED += [(("fixed", "rk4"), times, grad) for times in TIMES if times != TIMES[1] for grad in GRADIENTS]
COUNTED += [
    (("adaptive", name), times, grad) for times in TIMES for name, grad in WAYS if name == "adams" or times != TIMES[1]
]


@pytest.mark.parametrize(("case", "times", "grad"), COUNTED, ids=label)
def test_a_counting_field_agrees(case, times, grad):
    for wanted in (True, False):
        module = Swirl()
        field, y0 = Counting(module), torch.ones(3, dtype=torch.float64)
        with torch.set_grad_enabled(wanted):
            y, stats = solver(case, grad, tol=1e-3)(field, y0, doubles(*times, grad=wanted))
        assert stats.nfe_forward == field.calls
        assert stats.nfe_backward == stats.vjps == 0
        if wanted:
            y.square().sum().backward()
            assert stats.nfe_forward + stats.nfe_backward == field.calls
            assert stats.vjps > 0
            assert (stats.nfe_backward == 0) == (grad == "backprop")


@pytest.mark.parametrize("case", SOLVERS, ids=label)
def test_evaluations_are_what_the_tableau_says(case):
    solve = solver(case, tol=1e-4, steps=7)
    table = solve.tableau
    with torch.no_grad():
        stats = solve(Swirl(), torch.ones(3, dtype=torch.float64), doubles(0.0, 2.0)).stats
    if case[0] == "fixed":
        assert stats == Stats(nfe_forward=7 * (table.stages - table.fsal), accepted=7)
    else:
        # One to open and one to choose the first step; then the stages, of which the first is known: after a
        # rejected step always, after an accepted one if it is FSAL.
        opened = 0 if table.fsal else stats.accepted - 1
        assert stats.nfe_forward == 2 + (stats.accepted + stats.rejected) * (table.stages - 1) + opened
        assert stats.accepted > 1


@pytest.mark.parametrize("name", ["bosh3", "dopri5"])
def test_backprop_pulls_back_each_used_stage_once(name):
    field, y0 = Swirl(), torch.ones(3, dtype=torch.float64, requires_grad=True)
    y, stats = solver(("adaptive", name))(field, y0, doubles(0.0, 2.0))
    y.sum().backward()
    used = method(name).stages - 1
    assert stats.vjps == stats.accepted * used
    assert stats.nfe_backward == 0


@pytest.mark.parametrize(("name", "grad"), WAYS)
def test_a_second_backward_adds_its_share(name, grad):
    field, y0 = Counting(Swirl()), torch.ones(3, dtype=torch.float64, requires_grad=True)
    y, stats = solver(("adaptive", name), grad)(field, y0, doubles(0.0, 0.5, 1.0))
    y.sum().backward(retain_graph=True)
    y.sum().backward()
    assert stats.nfe_forward + stats.nfe_backward == field.calls


@pytest.mark.parametrize("grad", ["backprop", "replay"])
def test_a_slope_that_the_caller_owns_is_counted_once_an_evaluation_and_left_alone(grad):
    """A parameter, or a tensor made before the solve, returned as it is."""
    w = doubles(2.0, grad=True)
    for slope in (w, w * 3):
        for _ in range(2):
            y0 = doubles(1.0, grad=True)
            y, stats = solver(("fixed", "rk4"), grad, steps=2)(lambda t, y, k=slope: k, y0, [0.0, 1.0])
            y.sum().backward(retain_graph=True)
            assert stats.vjps == 8
        assert not slope._backward_hooks


def test_tally_collects_every_solve_begun_inside_and_no_other():
    solve, y0 = solver(("fixed", "rk4"), "adjoint", steps=2), doubles(1.0, grad=True)
    outside = solve(lambda t, y: -y, y0, [0.0, 1.0])
    with tally() as outer:
        first = solve(lambda t, y: -y, y0, [0.0, 1.0])
        with tally() as inner:
            second = solve(lambda t, y: -y, first.y, [0.0, 1.0])
        with tally() as empty:
            pass
        second.y.sum().backward()
    solve(lambda t, y: -y, y0, [0.0, 1.0])
    assert [id(stats) for stats in outer] == [id(first.stats), id(second.stats)]
    assert [id(stats) for stats in inner] == [id(second.stats)]
    assert empty == []
    assert outside.stats.nfe_backward == 0
    total = sum(outer, start=Stats())
    assert (total.nfe_forward, total.accepted) == (16, 4)
    assert total.nfe_backward == first.stats.nfe_backward + second.stats.nfe_backward > 0


def test_tally_closes_when_the_solve_fails():
    from odenet_cli.ode import stats

    with pytest.raises(ZeroDivisionError), tally() as solves:
        solver(("fixed", "rk4"))(lambda t, y: 1 / 0, doubles(1.0), [0.0, 1.0])
    assert len(solves) == 1
    assert stats.open_tallies.get() == ()


@pytest.mark.parametrize("state", ["tensor", "tuple"])
@pytest.mark.parametrize(("name", "grad"), WAYS)
def test_the_host_looks_at_the_device_once_an_attempted_step(looks, name, grad, state):
    """Adams once a corrector iteration: at each evaluation but those at the start and at its probe."""
    w = doubles(1.0, grad=True)

    def field(t, y):
        return -w * y * torch.cos(9 * t) if state == "tensor" else (-w * y[0] * torch.cos(9 * t), w * y[1])

    y0 = doubles(1.0, 2.0) if state == "tensor" else (doubles(1.0, 2.0), doubles(3.0))
    ts = doubles(0.0, 3.0)
    extra = []
    for tol in (1e-3, 1e-8):
        solve = Adaptive(method=name, rtol=tol, atol=tol, gradient=grad)
        looks[0] = 0
        y, stats = solve(field, y0, ts)
        asked = stats.nfe_forward - 2 if name == "adams" else stats.accepted + stats.rejected
        extra.append(looks[0] - asked)
        looks[0] = 0
        (y if state == "tensor" else y[0]).sum().backward()
        # Backwards the discrete gradients never look; the adjoint does once in six evaluations, by Adams in one.
        assert looks[0] <= 4 + stats.nfe_backward // (1 if name == "adams" else 6)
    assert extra[0] == extra[1] == 4  # the times, two of Hairer's rule, the end


def test_a_fixed_solve_looks_at_its_times_and_at_its_end(looks):
    w, ts = doubles(1.0, grad=True), doubles(0.0, 1.0)
    for steps in (3, 30):
        looks[0] = 0
        y = solver(("fixed", "rk4"), steps=steps)(lambda t, y: -w * y, doubles(1.0), ts).y
        y.sum().backward()
        assert looks[0] == 2
