"""A solve computes backward under the settings that held forward: autocast, the default dtype and device."""

from __future__ import annotations

import pytest
import torch
from ode_cases import GRADIENTS, doubles

from odenet_cli.ode import Adaptive, Fixed

NODES = [name for name in GRADIENTS if name != "backprop"]
CASES = [(kind, name) for kind in ("rk4", "dopri5", "adams") for name in NODES if kind != "adams" or name == "adjoint"]
BF16 = {"device_type": "cpu", "dtype": torch.bfloat16}
ENDS = (0.0, 1.0)


def solver(kind, gradient="backprop", **options):
    if kind == "rk4":
        return Fixed(method=kind, steps=6, gradient=gradient, **options)
    return Adaptive(method=kind, rtol=1e-3, atol=1e-3, gradient=gradient, **options)


class Net(torch.nn.Module):
    """Linear layers, which autocast computes in half precision, and a cast back to that of the state."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(4)
        self.layers = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, 4))

    def forward(self, t, y):
        return self.layers(y).to(y.dtype)


def gradients(solve, net, forward=None, backward=None, ts=ENDS):
    """dL/dy0 and dL/dθ in one row, each in units of its size; `forward` and `backward` are contexts to be in."""
    net.zero_grad()
    y0 = torch.linspace(-1, 1, 12).reshape(3, 4).requires_grad_()
    with forward or torch.enable_grad():
        loss = solve(net, y0, ts).y.square().sum()
    with backward or torch.enable_grad():
        loss.backward()
    parts = (y0.grad, torch.cat([p.grad.flatten() for p in net.parameters()]))
    return torch.cat([part.flatten() / part.norm() for part in parts]), loss.item()


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_autocast_is_restored_on_the_way_back(kind, name):
    """The discrete gradient is that of backprop; a continuous one is as near as without autocast, up to bfloat16."""
    net, solve = Net(), solver(kind, name)
    expected, loss = gradients(solver(kind), net, torch.autocast(**BF16))
    found, same = gradients(solve, net, torch.autocast(**BF16))
    plain, _ = gradients(solve, net)
    assert (found - plain).norm() > 3e-4  # it does make a difference
    assert (found - expected).norm() < (1e-5 if name == "replay" else 1e-2)
    if name != "reversible":
        assert same == loss
    for backward in (torch.autocast(**BF16), torch.autocast("cpu", dtype=torch.float16)):
        again, _ = gradients(solve, net, torch.autocast(**BF16), backward)
        assert torch.equal(again, found)


@pytest.mark.parametrize(("kind", "name"), CASES)
@pytest.mark.parametrize("off", [None, torch.autocast("cpu", enabled=False)], ids=["none", "disabled"])
def test_no_autocast_forward_is_none_backward(kind, name, off):
    net, solve = Net(), solver(kind, name)
    expected, _ = gradients(solve, net)
    with torch.autocast(**BF16, enabled=off is not None):
        found, _ = gradients(solve, net, off, torch.autocast(**BF16))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", GRADIENTS)
def test_many_evaluations_do_not_add_up_in_half_precision(name):
    """The sum over evaluations of shared casts stood still at what 300 of them add up to."""
    torch.manual_seed(0)
    linear, y0 = torch.nn.Linear(4, 4), torch.rand(8, 4)

    def gradient(enabled):
        linear.zero_grad()
        with torch.autocast(**BF16, enabled=enabled):
            solve = Fixed(method="euler", steps=500, gradient=name)
            y = solve(lambda t, y: 0.1 * torch.tanh(linear(y)).float(), y0, ENDS).y
        y.sum().backward()
        return linear.weight.grad.clone()

    exact = gradient(False)
    assert (gradient(True) - exact).norm() < 5e-3 * exact.norm()


@pytest.mark.parametrize("kind", ["rk4", "dopri5", "adams"])
def test_the_arithmetic_of_the_solver_is_not_autocast(kind):
    """A field without matrix products has the same solution, at outputs inside steps too."""
    ts = torch.linspace(0, 1, 7)

    def swing(t, y):
        return torch.stack([y[1], -y[0]]) * (1 + t)

    y0 = torch.tensor([1.0, 0.5])
    expected, path = solver(kind)(swing, y0, ts).y, solver(kind).dense(swing, y0, ts)
    with torch.autocast(**BF16):
        assert torch.equal(solver(kind)(swing, y0, ts).y, expected)
        assert torch.equal(solver(kind).dense(swing, y0, ts)(ts), path(ts))


def test_a_field_that_forgets_to_cast_is_told_how():
    net, y0 = torch.nn.Linear(4, 4), torch.ones(2, 4)
    with torch.autocast(**BF16):
        with pytest.raises(ValueError, match=r"(?s)bfloat16.*net\(t, y\)\.float\(\).*enabled=False"):
            solver("rk4")(lambda t, y: net(y), y0, ENDS)
        assert solver("rk4")(lambda t, y: net(y).float(), y0, ENDS).y.dtype is torch.float32

        def exactly(t, y):
            with torch.autocast("cpu", enabled=False):
                return net(y)

        found = solver("rk4")(exactly, y0, ENDS).y
    assert torch.equal(found, solver("rk4")(lambda t, y: net(y), y0, ENDS).y)


@pytest.mark.parametrize("name", NODES)
def test_autocast_of_the_fields_own_is_its_own(name):
    net = Net()

    def inside(t, y):
        with torch.autocast(**BF16):
            return net(t, y)

    found, y0 = [], torch.ones(3, 4, requires_grad=True)
    for gradient in (name, "backprop"):
        (of_y0,) = torch.autograd.grad(solver("rk4", gradient)(inside, y0, ENDS).y.square().sum(), y0)
        found.append(of_y0)
    assert (found[0] - found[1]).norm() < (1e-6 if name == "replay" else 1e-2) * found[1].norm()


@pytest.mark.parametrize("name", NODES)
def test_new_tensors_have_the_dtype_and_the_device_of_the_forward_solve(name):
    """y' = -c y with c = 1/3 made anew: dy(1)/dy0 = exp(-c) in its own precision."""
    y0 = doubles(1.0, grad=True)
    solve = Fixed(method="rk4", steps=50, gradient=name)

    def field(t, y):
        third = torch.tensor(1.0) / 3.0
        assert third.device.type == "cpu"
        return -third * y

    expected = {
        dtype: torch.exp(-(torch.tensor(1.0, dtype=dtype) / 3.0).double()).item()
        for dtype in (torch.float32, torch.float64)
    }
    for forward, backward in ((torch.float64, torch.float32), (torch.float32, torch.float64)):
        torch.set_default_dtype(forward)
        try:
            y = solve(field, y0, ENDS).y
            torch.set_default_dtype(backward)
            with torch.device("meta"):
                (found,) = torch.autograd.grad(y, y0)
            assert torch.get_default_dtype() is backward
        finally:
            torch.set_default_dtype(torch.float32)
        assert found.item() == pytest.approx(expected[forward], abs=1e-10)
    assert abs(expected[torch.float32] - expected[torch.float64]) > 1e-9


@pytest.mark.parametrize("name", GRADIENTS)
def test_a_state_made_in_inference_mode_may_begin_a_solve(name):
    k = doubles(1.0, grad=True)
    with torch.inference_mode():
        y0 = doubles(2.0)
        assert solver("dopri5", name)(lambda t, y: -k * y, y0, ENDS).y.item() == pytest.approx(0.7358, abs=1e-2)
    solve = Adaptive(method="dopri5", rtol=1e-8, atol=1e-8, gradient=name)
    (found,) = torch.autograd.grad(solve(lambda t, y: -k * y, y0, ENDS).y.sum(), k)
    assert found.item() == pytest.approx(-2 * torch.exp(doubles(-1.0)).item(), rel=1e-6)


@pytest.mark.numerics
@pytest.mark.parametrize("name", ["backprop", "replay", "adjoint"])
def test_compiled_steps_are_autocast_too(name):
    net = Net()
    expected, _ = gradients(solver("bosh3", name), net, torch.autocast(**BF16))
    found, _ = gradients(solver("bosh3", name, compile=True), net, torch.autocast(**BF16))
    plain, _ = gradients(solver("bosh3", name), net)
    assert (found - plain).norm() > 3e-4
    assert (found - expected).norm() < 1e-2
