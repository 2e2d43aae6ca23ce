"""Gradients are those of the recorded steps (discrete) or of the equation (continuous), for everything that goes in."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from ode_cases import GRADIENTS, HEUN_EULER, METHODS, SOLVERS, WAYS, Swirl, doubles, label, naive, solver, steps_of
from torch.autograd import gradcheck, gradgradcheck

from odenet_cli.ode import Adaptive, Fixed, method

DISCRETE = [name for name in GRADIENTS if name in ("backprop", "replay")]
HIGH = [name for name in METHODS if method(name).error_weights and method(name).order >= 5]
FORWARD, REVERSED = (0.0, 0.3, 0.31, 1.0), (1.0, 0.4, 0.35, -0.5)


def against_naive(solve, field, y0, ts, extra):
    """Compare gradients with plain autograd through the same steps, for a random cotangent of every output."""
    parts = (y0,) if isinstance(y0, torch.Tensor) else y0
    wanted = (*parts, ts, *extra)
    made = solve(field, y0, ts).y
    twin = naive(solve.tableau, steps_of(solve, field, y0, ts), field, y0, ts)
    made, twin = ((made,), (twin,)) if isinstance(made, torch.Tensor) else (made, twin)
    if len(ts) == 2:
        twin = [part[1] for part in twin]
    generator = torch.Generator().manual_seed(1)
    loss = loss_twin = 0.0
    for one, other in zip(made, twin):
        assert torch.allclose(one, other, rtol=1e-12, atol=1e-12)
        weight = torch.randn(one.shape, generator=generator, dtype=torch.float64).to(one.dtype)
        if one.is_complex():
            weight = weight * (1 + 0.5j)
        loss = loss + (one * weight).sum().real
        loss_twin = loss_twin + (other * weight).sum().real
    found = torch.autograd.grad(loss, wanted, allow_unused=True)
    expected = torch.autograd.grad(loss_twin, wanted, allow_unused=True)
    for one, other in zip(found, expected):
        assert (one is None) == (other is None)
        if one is not None:
            assert one.shape == other.shape
            assert one.dtype == other.dtype
            assert (one - other).abs().max() <= 1e-9 * max(1.0, other.abs().max().item())


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("times", [(0.0, 1.0), FORWARD, REVERSED], ids=["ends", "inside", "reversed"])
@pytest.mark.parametrize("case", SOLVERS, ids=label)
def test_discrete_gradients_are_those_of_the_steps(case, times, name):
    field = Swirl()
    y0, ts = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3).requires_grad_(), doubles(*times, grad=True)
    against_naive(solver(case, name, tol=1e-3), field, y0, ts, tuple(field.parameters()))


@pytest.mark.numerics
@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("tol", [1e-2, 1e-6, 1e-10])
@pytest.mark.parametrize("case", [case for case in SOLVERS if case[0] == "adaptive"], ids=label)
def test_discrete_gradients_are_those_of_the_steps_at_every_tolerance(case, tol, name):
    # Methods of low order take thousands of steps at such tolerances: over a shorter span then.
    low = solver(case).tableau.order <= 3 and tol < 1e-7
    field, times = Swirl(), [(1e-2 if low else 1.0) * t for t in FORWARD]
    y0, ts = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3).requires_grad_(), doubles(*times, grad=True)
    against_naive(solver(case, name, tol=tol), field, y0, ts, tuple(field.parameters()))


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("case", [("adaptive", "dopri5"), ("adaptive", HEUN_EULER), ("fixed", "rk4")], ids=label)
def test_discrete_gradients_of_tuples_and_complex_numbers(case, name):
    w = torch.tensor([0.3 + 1.1j, -0.2 + 0.4j], dtype=torch.complex128, requires_grad=True)
    v = doubles(0.4, grad=True)

    def field(t, state):
        z, x, s = state
        return w * z * (1 + x.sum()) + 0.1j * z.conj(), torch.tanh(v * x) * s + z.abs().sum() * t, -s * v[0] + x.mean()

    y0 = (
        torch.tensor([1 + 1j, 0.5j], dtype=torch.complex128, requires_grad=True),
        torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2).requires_grad_(),
        torch.tensor(0.5, dtype=torch.float64, requires_grad=True),
    )
    against_naive(solver(case, name, tol=1e-3), field, y0, doubles(*FORWARD, grad=True), (w, v))


@pytest.mark.parametrize("name", DISCRETE)
def test_an_output_time_at_the_very_end_of_a_step_still_has_its_gradient(name):
    solve = Adaptive(method="dopri5", rtol=1e-3, atol=1e-3, gradient=name, first_step=0.25, max_step=0.25)
    ts, y0 = doubles(0.0, 0.5, 1.0, grad=True), doubles(1.0, grad=True)
    (found,) = torch.autograd.grad(solve(lambda t, y: -y, y0, ts).y[1].sum(), ts)
    rate = torch.exp(doubles(-0.5)).item()
    assert torch.allclose(found, doubles(rate, -rate, 0.0), atol=1e-5)


@pytest.mark.filterwarnings("ignore:.*can only distinguish times")
@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("kind", ["adaptive", "fixed"])
@pytest.mark.parametrize(
    "times",
    [(0.0, 0.0, 1.0), (0.0, 0.5, 1.0, 1.0), (0.0, 0.5, 0.5, 1.0), (0.0, 0.0, 0.0), (0.0, 0.3, 0.1 + 0.2, 1.0)],
)
def test_repeated_output_times_each_pass_their_gradient_on(times, kind, name):
    """0.1 + 0.2 is an ulp from 0.3: of 40 fixed steps there many end on it, and each gave an output."""
    solve = solver((kind, "dopri5"), name, tol=1e-7, steps=40)
    p, y0, ts = doubles(0.5, grad=True), doubles(1.0, grad=True), doubles(*times, grad=True)
    weight = torch.arange(1.0, len(times) + 1, dtype=torch.float64)[:, None]
    made, exact = solve(lambda t, y: -p * y, y0, ts).y, y0 * torch.exp(-p * (ts - ts[0])[:, None])
    assert torch.allclose(made, exact, atol=1e-5)
    second = name != "adjoint"
    found = torch.autograd.grad((made * weight).sum(), (p, y0, ts), create_graph=second)
    expected = torch.autograd.grad((exact * weight).sum(), (p, y0, ts), create_graph=True)
    for one, other in zip(found, expected):
        assert torch.allclose(one, other, atol=1e-4)
    if second:
        along = [torch.linspace(-1, 2, x.numel(), dtype=torch.float64).view_as(x) for x in found]
        found, expected = (
            torch.autograd.grad([(x * v).sum() for x, v in zip(each, along)], (p, y0, ts)) for each in (found, expected)
        )
        for one, other in zip(found, expected):
            assert torch.allclose(one, other, atol=1e-2)


@pytest.mark.filterwarnings("ignore:.*can only distinguish times")
@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("kind", ["adaptive", "fixed"])
def test_float32_times_far_from_0_have_the_gradient_of_their_span(kind, name):
    """It was that of a span rounded to float32: 27 % off for 0.01 at 1e5."""
    ts = doubles(1e5, 1e5 + 0.01, grad=True)
    y = solver((kind, "dopri5"), name)(lambda t, y: -y, torch.ones(1), ts).y
    assert torch.autograd.grad(y, ts)[0].tolist() == pytest.approx([math.exp(-0.01), -math.exp(-0.01)], rel=1e-5)


def test_the_end_of_a_span_of_no_length_can_be_learned():
    ts = doubles(0.3, 0.3, grad=True)
    y = solver(("adaptive", "dopri5"))(lambda t, y: t * y, doubles(2.0), ts).y
    assert torch.autograd.grad(y, ts)[0].tolist() == pytest.approx([-0.6, 0.6])


@pytest.mark.parametrize(("kind", "name"), [*itertools.product(HIGH, GRADIENTS), *WAYS[-2:]])
@pytest.mark.parametrize("span", [(0.0, 1.5), (1.0, -0.5)])
def test_every_gradient_follows_the_matrix_exponential(kind, span, name):
    # The errors of Adams' longer steps add up to more.
    follow_the_matrix_exponential(kind, span, name, [(1e-4, 1e-2), (1e-9, 1e-6 if kind == "adams" else 1e-7)])


@pytest.mark.numerics
@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("kind", [name for name in METHODS if method(name).error_weights and method(name).order < 5])
def test_every_gradient_of_a_low_order_does_too(kind, name):
    follow_the_matrix_exponential(kind, (0.0, 1.0), name, [(1e-4, 1e-2), (1e-5, 1e-3)])


def follow_the_matrix_exponential(kind, span, name, bounds):
    torch.manual_seed(3)
    a = (torch.randn(4, 4, dtype=torch.float64) / 2).requires_grad_()
    y0 = torch.randn(4, dtype=torch.float64, requires_grad=True)
    ts = doubles(span[0], sum(span) / 2, span[1], grad=True)
    weight = torch.randn(3, 4, dtype=torch.float64)
    exact = torch.stack([torch.linalg.matrix_exp(a * (t - ts[0])) @ y0 for t in ts])
    expected = torch.autograd.grad((exact * weight).sum(), (a, y0, ts))
    for tol, bound in bounds:
        solve = Adaptive(method=kind, rtol=tol, atol=tol, gradient=name, max_steps=100_000)
        found = torch.autograd.grad((solve(lambda t, y: a @ y, y0, ts).y * weight).sum(), (a, y0, ts))
        for one, other in zip(found, expected):
            assert (one - other).abs().max() <= bound


@pytest.mark.parametrize("name", GRADIENTS)
def test_float32_gradients_are_good_to_float32(name):
    field, twin = Swirl(dtype=torch.float32), Swirl()
    twin.load_state_dict(field.state_dict())
    y0 = torch.linspace(-1, 1, 6).reshape(2, 3)
    for module, start, tol in ((field, y0, 1e-5), (twin, y0.double(), 1e-10)):
        solve = Adaptive(method="dopri5", rtol=tol, atol=tol, gradient=name)
        solve(module, start, torch.tensor([0.0, 1.0])).y.square().sum().backward()
    for one, other in zip(field.parameters(), twin.parameters()):
        assert one.grad.dtype == torch.float32
        assert (one.grad - other.grad).abs().max() < 1e-4 * other.grad.abs().max()


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("case", [("adaptive", "dopri5"), ("adaptive", HEUN_EULER), ("fixed", "rk38")], ids=label)
def test_first_and_second_derivatives_agree_with_finite_differences(case, name):
    """Finite differences move the inputs but must not move the steps: the adaptive solver is given its first step and
    a tolerance so loose that every step is accepted and grows by ten."""
    options = {"first_step": 0.1, "max_step": 0.4} if case[0] == "adaptive" else {}
    solve = solver(case, name, tol=10.0, steps=2, **options)
    field = Swirl(2)

    def run(y0, w, b, ts):
        def moved(t, y):
            return torch.tanh(y @ w.T + b * t) - 0.3 * y * torch.cos(3 * t)

        return solve(moved, y0, ts).y

    inputs = (doubles(0.3, -0.8, grad=True), *field.parameters(), doubles(0.0, 0.6, 1.0, grad=True))
    if case[0] == "fixed":
        assert gradcheck(run, inputs, atol=1e-7, fast_mode=True)
        assert gradgradcheck(run, inputs, atol=1e-6, fast_mode=True)
    else:
        # Moving a time of an adaptive solve moves its later steps; the times have their test against plain autograd.
        ts = inputs[-1].detach()
        assert gradcheck(lambda *rest: run(*rest, ts), inputs[:-1], atol=1e-7, fast_mode=True)
        assert gradgradcheck(lambda *rest: run(*rest, ts), inputs[:-1], atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("name", DISCRETE)
def test_second_derivatives_reach_the_times(name):
    """d²/dt² of exp(-2 t) is 4 exp(-2 t), at an output inside and at the end."""
    ts = doubles(0.0, 0.7, 1.0, grad=True)
    y = Adaptive(method="dopri5", rtol=1e-9, atol=1e-9, gradient=name)(lambda t, y: -2 * y, doubles(1.0), ts).y
    (first,) = torch.autograd.grad(y.sum(), ts, create_graph=True)
    assert first[2].item() == pytest.approx(-2 * torch.exp(doubles(-2.0)).item(), abs=1e-6)
    (second,) = torch.autograd.grad(first[2], ts)
    assert second[2].item() == pytest.approx(4 * torch.exp(doubles(-2.0)).item(), abs=1e-5)


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("case", [("adaptive", "dopri5"), ("fixed", "rk4")], ids=label)
def test_backward_may_be_called_again_where_the_graph_is_retained(case, name):
    field, y0 = Swirl(), torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    loss = solver(case, name)(field, y0, doubles(0.0, 0.5, 1.0)).y.square().sum()
    inputs = (y0, *field.parameters())
    first = torch.autograd.grad(loss, inputs, retain_graph=True)
    second = torch.autograd.grad(loss, inputs, retain_graph=True)
    third = torch.autograd.grad(loss, inputs)
    for one, two, three in zip(first, second, third):
        assert torch.allclose(one, two, rtol=1e-12, atol=1e-13)
        assert torch.equal(two, three)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, inputs)


@pytest.mark.parametrize("name", GRADIENTS)
def test_only_what_is_asked_for_is_returned(name):
    field, y0 = Swirl(), torch.ones(3, dtype=torch.float64, requires_grad=True)
    solve = solver(("adaptive", "dopri5"), name)
    (alone,) = torch.autograd.grad(solve(field, y0, doubles(0.0, 1.0)).y.sum(), y0)
    solve(field, y0, doubles(0.0, 1.0)).y.sum().backward()
    assert torch.equal(alone, y0.grad)
    assert all(p.grad is not None for p in field.parameters())


@pytest.mark.parametrize("name", GRADIENTS)
def test_parameters_changed_before_backward_are_noticed(name):
    field = Swirl()
    y = solver(("adaptive", "dopri5"), name)(field, torch.ones(3, dtype=torch.float64), doubles(0.0, 1.0)).y
    with torch.no_grad():
        field.w.add_(1.0)
    with pytest.raises(RuntimeError, match="inplace" if name == "backprop" else r"field\.w was changed in place"):
        y.sum().backward()


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_solution_changed_in_place_gives_the_right_gradient_or_an_error(name):
    field, y0 = Swirl(), torch.ones(3, dtype=torch.float64, requires_grad=True)
    for times in ((0.0, 1.0), (0.0, 0.5, 1.0)):
        solve, ts = solver(("adaptive", "dopri5"), name), doubles(*times)
        (expected,) = torch.autograd.grad((3 * solve(field, y0, ts).y).sum(), y0)
        y = solve(field, y0, ts).y
        try:
            (found,) = torch.autograd.grad(y.mul_(3).sum(), y0)
        except RuntimeError as error:
            assert "inplace" in str(error)  # noqa: PT017
        else:
            assert torch.allclose(found, expected)


@pytest.mark.parametrize("name", GRADIENTS)
def test_times_given_as_tensors_in_a_list_keep_their_gradient(name):
    end = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    y = Fixed(method="dopri5", steps=20, gradient=name)(lambda t, y: -y, doubles(1.0), [0.0, end]).y
    (found,) = torch.autograd.grad(y.sum(), end)
    assert found.item() == pytest.approx(-torch.exp(-end).item(), rel=1e-6)


@pytest.mark.parametrize("name", GRADIENTS)
def test_part_of_a_tuple_may_be_ignored_by_field_and_loss(name):
    w = doubles(0.7, grad=True)
    y0 = (doubles(1.0, grad=True), doubles(2.0, 3.0, grad=True))
    solve = Adaptive(method="dopri5", rtol=1e-9, atol=1e-9, gradient=name)
    decayed, idle = solve(lambda t, y: (-w * y[0], torch.zeros_like(y[1])), y0, doubles(0.0, 1.0)).y
    assert torch.equal(idle, y0[1])
    of_w, of_first = torch.autograd.grad(decayed.sum(), (w, y0[0]), retain_graph=True)
    assert torch.allclose(of_w, -torch.exp(-w), rtol=1e-7)
    assert torch.allclose(of_first, torch.exp(-w), rtol=1e-7)
    (of_second,) = torch.autograd.grad(idle.sum(), y0[1])
    assert torch.equal(of_second, torch.ones_like(of_second))


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("shared", ["solves in a row", "y0 in the closure", "times in the closure", "args"])
def test_second_derivatives_count_a_shared_tensor_once(shared, name):
    """y0, times and arguments may be made from what the field reads too. Up to third derivatives, as plain autograd."""

    def derivatives(name):
        solve = Fixed(method="rk4", steps=2, gradient=name)
        x = doubles(0.5, 0.2, grad=True)
        if shared == "solves in a row":
            y = doubles(1.0, 2.0)
            for _ in range(2):
                y = solve(lambda t, y: torch.sin(x * y), y, [0.0, 0.5]).y
        elif shared == "y0 in the closure":
            y0 = x * 2
            y = solve(lambda t, y: y * x - y0 * y, y0, [0.0, 0.5]).y
        elif shared == "times in the closure":
            y = solve(lambda t, y: y * x[0] + t, doubles(1.0, 2.0), torch.stack([0 * x[1], x[0]])).y
        else:
            y = solve(lambda t, y, u: y * torch.cos(u[0]) - x * u[1], x, [0.0, 0.5], args=([x, x * 3],)).y
        found = [y.square().sum()]
        for _ in range(3):
            found += torch.autograd.grad(found[-1].square().sum(), x, create_graph=True)
        return found

    for one, other in zip(derivatives(name), derivatives("backprop")):
        torch.testing.assert_close(one, other, rtol=1e-2 if name == "reversible" else 1e-10, atol=1e-10)
