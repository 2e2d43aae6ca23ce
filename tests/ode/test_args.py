"""Arguments of a solve: field(t, y, *args). Gradients reach the tensors in them, and each solve has its own."""

from __future__ import annotations

import math
from typing import NamedTuple

import pytest
import torch
from ode_cases import GRADIENTS, doubles
from test_memory import saved_bytes
from torch import nn

from odenet_cli.ode import Adaptive, Fixed

TS = [0.0, 1.0]


@pytest.fixture(params=GRADIENTS)
def solve(request):
    return Adaptive(method="dopri5", rtol=1e-9, atol=1e-9, gradient=request.param)


class Control(NamedTuple):
    gain: torch.Tensor
    offsets: dict


def test_gradients_reach_tensors_however_nested(solve):
    """y' = -(a + b + 2 c) y: each has d/dx exp(-rate), times its factor."""
    a, b, c = doubles(0.1, grad=True), doubles(0.2, grad=True), doubles(0.3, grad=True)

    def field(t, y, u, names, factor, flag):
        return -(u.gain + u.offsets["b"][0] + factor * names[0]) * y if flag else y

    y = solve(field, doubles(1.0), TS, args=(Control(a, {"b": [b]}), [c], 2.0, True)).y
    found = torch.autograd.grad(y.sum(), (a, b, c))
    for one, factor in zip(found, (1, 1, 2)):
        assert one.item() == pytest.approx(-factor * math.exp(-0.9), rel=1e-7)


def test_a_control_per_interval(solve):
    """y' = -y + u: dy(3)/du_i = (1 - 1/e) exp(i - 2)."""
    u, y = doubles(0.1, 0.2, 0.3, grad=True), doubles(1.0)
    for i in range(3):
        y = solve(lambda t, y, u: u - y, y, [float(i), i + 1.0], args=(u[i],)).y
    (found,) = torch.autograd.grad(y.sum(), u)
    exact = (1 - math.exp(-1)) * torch.exp(doubles(-2.0, -1.0, 0.0))
    torch.testing.assert_close(found, exact, rtol=1e-7, atol=1e-9)


def test_each_solve_keeps_its_own_numbers(solve):
    y0, k = doubles(1.0, grad=True), [1.0]
    total = 0
    for rate in (1.0, 2.0, 3.0):
        k[0] = rate
        total = total + solve(lambda t, y, k: -k[0] * y, y0, TS, args=(k,)).y.sum()
    (found,) = torch.autograd.grad(total, y0)
    assert found.item() == pytest.approx(sum(math.exp(-rate) for rate in (1, 2, 3)), rel=1e-7)


def test_one_field_under_two_conditions(solve):
    torch.manual_seed(0)
    net, encoder = nn.Linear(2, 2).double(), nn.Linear(2, 2).double()

    def gradient(solve):
        total = 0
        for x in (doubles(1.0, 2.0), doubles(-1.0, 0.5)):
            total = total + solve(lambda t, y, c: torch.tanh(net(y) + c), x, TS, args=(encoder(x),)).y.sum()
        return torch.autograd.grad(total, [*net.parameters(), *encoder.parameters()])

    plain = gradient(Adaptive(method="dopri5", rtol=1e-9, atol=1e-9))
    for one, other in zip(gradient(solve), plain):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)


def test_an_argument_that_is_y0_and_in_the_closure_too(solve):
    """y' = -(x + x) y, y(0) = x: y(1) = x exp(-2 x)."""
    x = doubles(0.5, grad=True)
    (found,) = torch.autograd.grad(solve(lambda t, y, u: -(u + x) * y, x, TS, args=(x,)).y, x)
    assert found.item() == pytest.approx(0.0, abs=1e-8)


def test_modules_as_arguments(solve):
    net = nn.Linear(2, 2).double()
    solve(lambda t, y, net: torch.tanh(net(y)), doubles(1.0, 2.0), TS, args=(net,)).y.sum().backward()
    assert all(parameter.grad is not None for parameter in net.parameters())


MULTISTEP = [Adaptive(method="adams", rtol=1e-8, atol=1e-8, gradient=grad) for grad in ("backprop", "adjoint")]


@pytest.mark.parametrize("solve", [Fixed(method="rk4", steps=60, gradient=grad) for grad in GRADIENTS] + MULTISTEP)
def test_fixed_steps_and_multistep_formulas(solve):
    u = doubles(0.7, grad=True)
    y = solve(lambda t, y, u: -u * y, doubles(1.0), [0.0, 0.5, 1.0], args=(u,)).y
    (found,) = torch.autograd.grad(y[-1].sum(), u)
    assert found.item() == pytest.approx(-math.exp(-0.7), rel=1e-5)


def test_dense_output_and_solves_without_gradient():
    solve, u = Adaptive(method="dopri5", rtol=1e-9, atol=1e-9), doubles(0.7, grad=True)
    path = solve.dense(lambda t, y, u: -u * y, doubles(1.0), TS, args=(u,))
    assert path(0.5).item() == pytest.approx(math.exp(-0.35), rel=1e-7)
    with torch.no_grad():
        assert solve(lambda t, y, u: -u * y, doubles(1.0), TS, args=(u,)).y.item() == pytest.approx(math.exp(-0.7))


def test_an_argument_changed_in_place_is_noticed(solve):
    u = doubles(0.7)
    y = solve(lambda t, y, u: u * y, doubles(1.0, grad=True), TS, args=(u,)).y
    u.add_(1)
    with pytest.raises(RuntimeError, match="inplace"):
        y.backward()


@pytest.mark.parametrize("grad", ["backprop", "replay", "reversible"])
def test_second_derivatives(grad):
    """y = exp(-u²): y'' = (4 u² - 2) exp(-u²)."""
    u = doubles(0.7, grad=True)
    solve = Adaptive(method="dopri5", rtol=1e-10, atol=1e-10, gradient=grad)
    y = solve(lambda t, y, u, v: -u * v * y, doubles(1.0), TS, args=(u, u * 1)).y
    (first,) = torch.autograd.grad(y, u, create_graph=True)
    (second,) = torch.autograd.grad(first, u)
    assert first.item() == pytest.approx(-1.4 * math.exp(-0.49), rel=1e-7)
    assert second.item() == pytest.approx((4 * 0.49 - 2) * math.exp(-0.49), rel=1e-5)


@pytest.mark.parametrize("grad", ["replay", "adjoint", "reversible"])
def test_what_is_kept_of_arguments_is_told_to_autograd(grad):
    u = torch.ones(1000, dtype=torch.float64) * doubles(1.0, grad=True)
    solve = Fixed(method="rk4", steps=2, gradient=grad)
    bytes_ = saved_bytes(lambda: solve(lambda t, y, u: -u.mean() * y, doubles(1.0), TS, args=(u,)), [])
    assert 8000 <= bytes_ <= 8000 + 500


def test_args_are_checked_by_name():
    with pytest.raises(TypeError, match=r"args must be a tuple.*args=\(u,\)"):
        Fixed(method="rk4", steps=2)(lambda t, y, u: -u * y, doubles(1.0), TS, args=doubles(0.7))


@pytest.mark.numerics
@pytest.mark.parametrize("grad", ["backprop", "replay", "adjoint"])
def test_compiled_steps(grad):
    u = doubles(0.7, grad=True)

    def field(t, y, u):
        return -u["u"] * y

    for value in (0.7, 0.9):
        made = doubles(value) * u / 0.7
        solve = Adaptive(method="bosh3", rtol=1e-8, atol=1e-8, gradient=grad, compile=True)
        y = solve(field, doubles(1.0), TS, args=({"u": made},)).y
        (found,) = torch.autograd.grad(y.sum(), u)
        assert found.item() == pytest.approx(-value / 0.7 * math.exp(-value), rel=1e-6)
