"""The continuous adjoint: what its tolerance means, what it refuses, and that its options are the published forms."""

from __future__ import annotations

import math

import pytest
import torch
from ode_cases import ADAPTIVE, HEUN_EULER, Counting, Swirl, doubles, label

from odenet_cli.ode import Adaptive, NotFinite, Stats, StepLimit, tally
from odenet_cli.ode.gradient.adjoint import Adjoint

TS = doubles(0.0, 1.0)


def solver(tol=1e-6, name="dopri5", **options):
    return Adaptive(method=name, rtol=tol, atol=tol, gradient=Adjoint(**options))


@pytest.mark.parametrize("name", [*ADAPTIVE, "adams"])
@pytest.mark.parametrize("factor", [1e6, 2.0**-20, -1.0])
def test_scaling_the_loss_scales_the_gradient_and_nothing_else(factor, name):
    results = []
    for scale in (1.0, factor):
        field, ts = Swirl(), doubles(0.0, 0.4, 1.0, grad=True)
        y, stats = solver(1e-5, name)(field, torch.ones(2, 3, dtype=torch.float64), ts)
        (scale * y.square().sum()).backward()
        results.append((stats.nfe_backward, [ts.grad / scale, *(p.grad / scale for p in field.parameters())]))
    (nfe, one), (nfe_scaled, other) = results
    assert nfe == nfe_scaled
    for x, y in zip(one, other):
        assert torch.allclose(x, y, rtol=1e-9)


@pytest.mark.parametrize("size", [2.0**-100, 2.0**-76, 2.0**64, 2.0**100])
def test_a_gradient_whose_squares_leave_float32_is_solved_for(size):
    """The squares of 2^-76 are 0 in float32, and those of 2^64 infinite: the gradient is neither.

    Powers of two, so that rounding errors are multiplied too: the error of a short step is one, and chooses the next.
    """
    results = []
    for scale in (1.0, size):
        rate, y0 = torch.tensor(1.0, requires_grad=True), torch.ones(3, requires_grad=True)
        y, stats = solver(1e-4)(lambda t, y, rate: -rate * y, y0, TS, (rate,))
        (scale * y.sum()).backward()
        results.append((stats.nfe_backward, y0.grad[0].item() / scale, rate.grad.item() / scale))
    assert results[0][0] == results[1][0] > 0
    assert results[1][1:] == pytest.approx(results[0][1:], rel=1e-4)


def test_a_gradient_of_zero_costs_nothing():
    field, y0, ts = Swirl(), doubles(1.0, 2.0, 3.0, grad=True), doubles(0.0, 0.4, 1.0, grad=True)
    y, stats = solver()(field, y0, ts)
    (0 * y.sum()).backward()
    assert stats.nfe_backward == stats.vjps == 0
    assert not y0.grad.any()
    assert not ts.grad.any()
    assert all(p.grad is None or not p.grad.any() for p in field.parameters())


def test_nothing_is_solved_beyond_the_last_output_with_a_gradient():
    field = Counting(lambda t, y: -y)
    y0 = doubles(1.0, grad=True)
    costs = []
    for ts in (doubles(0.0, 0.5, 5.0), doubles(0.0, 0.5)):
        y, stats = solver()(field, y0, ts)
        (y[1] if len(ts) > 2 else y).sum().backward()
        costs.append(stats.nfe_backward)
    assert costs[0] == costs[1]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_gradient_that_is_not_finite_is_named(bad, place):
    y = solver()(Swirl(), torch.ones(3, dtype=torch.float64, requires_grad=True), doubles(0.0, 0.5, 1.0)).y
    weight = torch.zeros_like(y)
    weight[place, 0] = bad
    with pytest.raises(NotFinite, match=f"incoming gradient at t = {(0, 0.5, 1)[place]}"):
        y.backward(weight)


def test_a_failing_backward_solve_says_so():
    options = Adaptive(method="dopri5", rtol=1e-9, atol=1e-9, max_steps=2)
    w = doubles(5.0, grad=True)
    y = solver(1e-3, solver=options)(lambda t, y: torch.sin(w * y), doubles(1.0), TS).y
    with pytest.raises(StepLimit, match=r"backward solve.*gradient\.solver.*t = "):
        y.sum().backward()


def test_second_derivatives_are_refused():
    w = doubles(1.0, grad=True)
    y = solver()(lambda t, y: -w * y, doubles(1.0), TS).y
    with pytest.raises(RuntimeError, match="gradient=backprop"):
        torch.autograd.grad(y.sum(), w, create_graph=True)


def test_norms_are_checked_by_name():
    with pytest.raises(ValueError, match=r"gradient\.norm=relativ "):
        Adjoint(norm="relativ")


def test_a_fast_forcing_needs_the_parameters_under_control():
    """y' = -0.1 y + θ sin(60 t) y at θ = 0: y and a are mild, only the integral for θ oscillates. Steps that are chosen
    for y and a stride over it, a thousand tolerances off; with its error under control it is met."""

    def error(**options):
        theta = doubles(0.0, grad=True)
        solve = solver(1e-6, **options)
        y = solve(lambda t, y: -0.1 * y + theta * torch.sin(60 * t) * y, doubles(1.0), TS).y
        y.sum().backward()
        return abs(theta.grad.item() - y.item() * (1 - math.cos(60.0)) / 60)

    assert error(control_parameters=True) < 1e-5
    assert error(norm="absolute") < 1e-5
    assert error() > 1e-3


def augmented(field, parameters, y1, a1, ts, solve):
    """The paper's algorithm 1, written down once more: one flat state [z, a, θ̄], solved backwards by a plain solve."""
    size, sizes = y1.numel(), [p.numel() for p in parameters]

    def slope(t, state):
        z, a = state[:size].reshape(y1.shape), state[size : 2 * size].reshape(y1.shape)
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            k = field(t, z)
            found = torch.autograd.grad(k, (z, *parameters), -a)
        return torch.cat([k.detach().flatten(), *(g.flatten() for g in found)])

    start = torch.cat([y1.flatten(), a1.flatten(), torch.zeros(sum(sizes), dtype=y1.dtype)])
    counting = Counting(slope)
    with torch.no_grad():
        end = solve(counting, start, ts.flip(0)).y
    return end[size : 2 * size].reshape(y1.shape), end[2 * size :].split(sizes), counting.calls


@pytest.mark.parametrize("name", [*ADAPTIVE, HEUN_EULER], ids=label)
def test_absolute_is_the_papers_augmented_state(name):
    field, y0 = Swirl(), torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3).requires_grad_()
    solve = solver(1e-4, name, norm="absolute")
    y, stats = solve(field, y0, TS)
    loss = (y**3).sum()
    (a1,) = torch.autograd.grad(loss, y, retain_graph=True)
    loss.backward()
    parameters = list(field.parameters())
    a0, thetas, calls = augmented(field, parameters, y.detach(), a1, TS, solve)
    assert stats.nfe_backward == calls
    assert torch.allclose(y0.grad, a0, rtol=1e-11)
    for p, theta in zip(parameters, thetas):
        assert torch.allclose(p.grad.flatten(), theta, rtol=1e-11)


@pytest.mark.parametrize("name", [*ADAPTIVE, HEUN_EULER], ids=label)
def test_seminorm_leaves_the_parameters_out(name):
    """Then z and a are solved as if there were no parameters: same steps, hence the same evaluations and a(t0)."""
    field, y0 = Swirl(), torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3).requires_grad_()
    solve = solver(1e-4, name, norm="seminorm")
    y, stats = solve(field, y0, TS)
    loss = (y**3).sum()
    (a1,) = torch.autograd.grad(loss, y, retain_graph=True)
    loss.backward()
    a0, _, calls = augmented(field, [], y.detach(), a1, TS, solve)
    assert stats.nfe_backward == calls
    assert torch.allclose(y0.grad, a0, rtol=1e-11)
    (exact,) = torch.autograd.grad((solver(1e-10)(field, y0, TS).y ** 3).sum(), field.w)
    assert torch.allclose(field.w.grad, exact, atol=0.2)


def test_seminorm_with_controlled_parameters_is_refused():
    """The seminorm is the norm without them: together they were the absolute norm by another name."""
    with pytest.raises(ValueError, match=r"gradient\.norm=seminorm .*gradient\.control_parameters=true"):
        Adjoint(norm="seminorm", control_parameters=True)


@pytest.mark.parametrize("options", [{}, {"norm": "absolute"}, {"norm": "seminorm"}, {"control_parameters": True}])
def test_every_option_converges_to_the_gradient(options):
    torch.manual_seed(3)
    a = (torch.randn(3, 3, dtype=torch.float64) / 2).requires_grad_()
    y0 = torch.ones(3, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad((torch.linalg.matrix_exp(a) @ y0).sum(), a)
    for tol in (1e-4, 1e-6, 1e-8, 1e-10):
        y = solver(tol, **options)(lambda t, y: a @ y, y0, TS).y
        (found,) = torch.autograd.grad(y.sum(), a)
        assert (found - expected).abs().max() <= 100 * tol


def test_backward_has_a_solver_of_its_own():
    field, y0 = Swirl(), torch.ones(3, dtype=torch.float64)
    tight = Adaptive(method="tsit5", rtol=1e-10, atol=1e-10)
    with tally() as solves:
        solver(1e-3)(field, y0, TS).y.sum().backward()
        solver(1e-3, solver=tight)(field, y0, TS).y.sum().backward()
    loose, strict = solves
    assert loose.nfe_forward == strict.nfe_forward
    assert strict.nfe_backward > 2 * loose.nfe_backward
    assert sum(solves, start=Stats()).nfe_backward == loose.nfe_backward + strict.nfe_backward
