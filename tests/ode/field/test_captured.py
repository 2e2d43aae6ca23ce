"""Gradients reach whatever a field reads, wherever it is kept, and each once."""

from __future__ import annotations

import collections
import dataclasses
import functools
import sys
import types
import weakref

import pytest
import torch
from ode_cases import GRADIENTS, doubles
from torch import nn

from odenet_cli.ode import Adaptive, FieldChanged, Fixed

SCALE = doubles(0.7, grad=True)
MADE = doubles(0.7, grad=True)
DOUBLED = MADE * 2
TS = doubles(0.0, 1.0)


def field_of_a_global(t, y):
    return -SCALE * y


def field_of_a_made_global(t, y):
    return -DOUBLED * y


@pytest.fixture(params=GRADIENTS)
def solve(request):
    return Adaptive(method="dopri5", rtol=1e-6, atol=1e-6, gradient=request.param)


def decay(solve, field, wanted, rate=1.0):
    """d/dw of exp(-rate w) at w = 0.7, for any way of keeping w."""
    y = solve(field, doubles(1.0), TS).y
    (found,) = torch.autograd.grad(y.sum(), wanted)
    exact = -rate * torch.exp(-rate * doubles(0.7))
    assert torch.allclose(found.reshape(1), exact, rtol=1e-4)


class Holder(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(doubles(0.7))
        self.rows = [{"deep": (self.w,)}]

    def forward(self, t, y):
        return -self.w * y

    def from_a_container(self, t, y):
        return -self.rows[0]["deep"][0] * y


class Slotted:
    """Hides its tensor from inspection; only the graph tells."""

    __slots__ = ("w",)

    def __init__(self, w):
        self.w = w

    def __call__(self, t, y):
        return -self.w * y


def weighted(w, t, y, *, v=None):
    return -(w if v is None else v) * y


def test_a_leaf_in_the_closure(solve):
    w = doubles(0.7, grad=True)
    decay(solve, lambda t, y: -w * y, w)


def test_a_leaf_as_default_argument(solve):
    w = doubles(0.7, grad=True)
    decay(solve, lambda t, y, w=w: -w * y, w)


def test_a_leaf_among_the_globals(solve):
    decay(solve, field_of_a_global, SCALE)


def test_a_made_tensor_among_the_globals(solve):
    y = solve(field_of_a_made_global, doubles(1.0), TS).y
    for wanted, rate in ((DOUBLED, 1.0), (MADE, 2.0)):
        (found,) = torch.autograd.grad(y.sum(), wanted, retain_graph=True)
        assert torch.allclose(found, -rate * torch.exp(doubles(-1.4)), rtol=1e-4)


def test_a_module_a_bound_method_and_a_container(solve):
    holder = Holder()
    decay(solve, holder, holder.w)
    decay(solve, holder.forward, holder.w)
    decay(solve, holder.from_a_container, holder.w)
    decay(solve, lambda t, y: holder(t, y), holder.w)


def test_a_partial(solve):
    w = doubles(0.7, grad=True)
    decay(solve, functools.partial(weighted, w), w)
    decay(solve, functools.partial(weighted, None, v=w), w)


def test_a_made_tensor_keeps_its_own_gradient_and_passes_it_on(solve):
    leaf = doubles(1.4, grad=True)
    w = leaf / 2
    y = solve(lambda t, y: -w * y, doubles(1.0), TS).y
    of_made, of_leaf = torch.autograd.grad(y.sum(), (w, leaf))
    assert torch.allclose(of_made, -torch.exp(doubles(-0.7)), rtol=1e-4)
    assert torch.allclose(of_leaf, of_made / 2)


def test_a_made_tensor_used_elsewhere_too(solve):
    leaf = doubles(1.4, grad=True)
    w = torch.sin(leaf)
    y = solve(lambda t, y: -w * y, doubles(1.0), TS).y
    (found,) = torch.autograd.grad((y + w**2).sum(), leaf)
    assert torch.allclose(found, (2 * torch.sin(leaf) - torch.exp(-torch.sin(leaf))) * torch.cos(leaf), rtol=1e-4)


def test_hidden_tensors_are_found_in_the_graph(solve):
    leaf = doubles(0.7, grad=True)
    decay(solve, Slotted(leaf), leaf)
    decay(solve, Slotted(leaf * 2), leaf, rate=2.0)


def test_a_tensor_and_another_made_from_it_are_not_counted_twice(solve):
    p = doubles(0.35, grad=True)
    w = p * 2
    y = solve(lambda t, y: -(w - p) * y - p * y, doubles(1.0), TS).y
    (found,) = torch.autograd.grad(y.sum(), p)
    assert torch.allclose(found, -2 * torch.exp(doubles(-0.7)), rtol=1e-4)


def test_a_chain_of_made_tensors(solve):
    p = doubles(0.1, grad=True)
    q = p * 3
    r = q * 2
    y = solve(lambda t, y: -(q + r) * y, doubles(1.0), TS).y
    (found,) = torch.autograd.grad(y.sum(), p)
    assert torch.allclose(found, -9 * torch.exp(doubles(-0.9)), rtol=1e-4)


def test_a_condition_encoded_by_the_module_that_holds_the_field(solve):
    """The closure holds `self`, hence the encoder's weights, and also what the encoder made."""

    class Conditional(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.encoder, self.net = nn.Linear(2, 2).double(), nn.Linear(2, 2).double()

        def forward(self, x, through_self):
            condition, net = torch.sin(self.encoder(x)), self.net
            if through_self:
                return solve(lambda t, y: torch.tanh(self.net(y) + condition), x, TS).y
            return solve(lambda t, y: torch.tanh(net(y) + condition), x, TS).y

    model, x = Conditional(), torch.ones(3, 2, dtype=torch.float64)
    found = [torch.autograd.grad(model(x, through).sum(), list(model.parameters())) for through in (True, False)]
    for one, other in zip(*found):
        assert torch.allclose(one, other, rtol=1e-12)


@pytest.mark.parametrize("keep", ["self", "list"])
def test_what_a_field_stores_while_it_runs_changes_nothing(solve, keep):
    class Storing(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net, self.stored, self.kept = nn.Linear(2, 2).double(), [], None

        def forward(self, t, y):
            z = self.net(y)
            if keep == "self":
                self.kept = z
            elif keep == "list":
                self.stored[:] = [z, torch.tanh(z)]
            return torch.tanh(z)

    field, y0 = Storing(), torch.ones(3, 2, dtype=torch.float64)

    def gradient(field):
        return torch.autograd.grad(solve(field, y0, TS).y.sum(), list(net.parameters()))

    net = field.net
    expected = gradient(lambda t, y: torch.tanh(net(y)))
    for _ in range(3):
        for one, other in zip(gradient(field), expected):
            assert torch.equal(one, other)


def test_a_tensor_that_only_some_times_use(solve):
    """The first evaluation does not see it; the field's closure does. Leaf and made tensors alike. The field
    y' = -(1 + w max(t - 1/2, 0)³) y has y(1) = exp(-1 - w/64)."""
    p = doubles(0.7, grad=True)
    q = p * 1.0

    def late_leaf(t, y):
        return -(1 + p * (t - 0.5) ** 3) * y if t > 0.5 else -y

    def late_made(t, y):
        return -(1 + q * (t - 0.5) ** 3) * y if t > 0.5 else -y

    for field in (late_leaf, late_made):
        (found,) = torch.autograd.grad(solve(field, doubles(1.0), TS).y.sum(), p)
        assert torch.allclose(found, -torch.exp(doubles(-1 - 0.7 / 64)) / 64, rtol=1e-4)


def test_a_tensor_behind_another_and_itself_used_at_later_times_only(solve):
    p = doubles(0.7, grad=True)
    q = p * 1.0
    y = solve(lambda t, y: -q * y - p * (t - 0.5) ** 3 * y if t > 0.5 else -q * y, doubles(1.0), TS).y
    (found,) = torch.autograd.grad(y.sum(), p)
    assert torch.allclose(found, -(1 + 1 / 64) * torch.exp(doubles(-0.7 * (1 + 1 / 64))), rtol=1e-4)


def test_a_spent_graph_lying_about_is_no_obstacle(solve):
    p = doubles(0.7, grad=True)
    old = torch.exp(p) * p
    old.sum().backward()

    def field(t, y):
        return -p * y if t < 10 else old

    decay(solve, field, p)


def test_y0_may_be_closed_over(solve):
    x = doubles(0.5, grad=True)
    y0 = x * 2
    y = solve(lambda t, y: -y * y0, y0, TS).y
    (found,) = torch.autograd.grad(y.sum(), x)
    assert torch.allclose(found, 2 * (1 - doubles(1.0)) * torch.exp(doubles(-1.0)), atol=1e-4)


def test_a_parameter_that_takes_no_part_gets_none(solve):
    holder = Holder()
    holder.spare = nn.Parameter(doubles(1.0))
    solve(holder, doubles(1.0), TS).y.sum().backward()
    assert holder.spare.grad is None
    assert holder.w.grad is not None


def test_a_frozen_parameter_stays_without_gradient(solve):
    holder, w = Holder(), doubles(0.7, grad=True)
    holder.w.requires_grad_(False)
    decay(solve, lambda t, y: -w * y + 0 * holder.w, w)
    assert holder.w.grad is None


def test_a_field_that_is_its_own_input_or_a_bare_parameter(solve):
    y0, w = doubles(1.0, grad=True), doubles(2.0, grad=True)
    (found,) = torch.autograd.grad(solve(lambda t, y: y, y0, TS).y, y0)
    assert torch.allclose(found, torch.exp(doubles(1.0)), rtol=1e-4)
    (found,) = torch.autograd.grad(solve(lambda t, y: w, y0, TS).y, w)
    assert torch.allclose(found, doubles(1.0))


def test_a_solve_inside_a_field(solve):
    """y' = -w g, where g is itself the solution at 1 of g' = -w g, g(0) = y: so y' = -w exp(-w) y."""
    w = doubles(0.7, grad=True)

    def field(t, y):
        return -w * solve(lambda s, g: -w * g, y, TS).y

    solve_ = Adaptive(method="dopri5", rtol=1e-4, atol=1e-4, gradient=solve.gradient)
    (found,) = torch.autograd.grad(solve_(field, doubles(1.0), TS).y, w)
    with torch.enable_grad():
        (exact,) = torch.autograd.grad(torch.exp(-w * torch.exp(-w)), w)
    assert torch.allclose(found, exact, rtol=1e-3)


def test_an_object_with_a_method_called_parameters_is_left_alone(solve):
    class Fit:
        def parameters(self, needed):
            raise AssertionError("not ours to call")

    fit, w = Fit(), doubles(0.7, grad=True)
    decay(solve, lambda t, y: -w * y if fit else y, w)


def test_a_custom_function_with_an_attribute_called_variable(solve):
    class Times(torch.autograd.Function):
        @staticmethod
        def forward(ctx, w, y):
            ctx.variable = w
            ctx.save_for_backward(w, y)
            return w * y

        @staticmethod
        def backward(ctx, g):
            w, y = ctx.saved_tensors
            return (g * y).sum().reshape(w.shape), g * w

    hidden = Slotted(doubles(0.35, grad=True) * 2)
    leaf = hidden.w.grad_fn.next_functions[0][0].variable
    y = solve(lambda t, y: -Times.apply(hidden.w, y), doubles(1.0), TS).y
    (found,) = torch.autograd.grad(y.sum(), leaf)
    assert torch.allclose(found, -2 * torch.exp(doubles(-0.7)), rtol=1e-4)


def switch():
    """Two networks, the first before t = 1/2 and the second after, kept in every way one may think of."""

    def make():
        return nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Sequential(nn.Linear(2, 2))).double()

    def case(name, keep):
        torch.manual_seed(0)
        nets = [make(), make()]
        return pytest.param(keep(nets), nets, id=name)

    class Slots:
        __slots__ = ("nets",)

        def __init__(self, nets):
            self.nets = nets

        def __call__(self, t, y):
            return self.nets[int(t >= 0.5)](y)

    class Numbered:
        def __init__(self, nets):
            self.net0, self.net1 = nets

        def __call__(self, t, y):
            return getattr(self, f"net{int(t >= 0.5)}")(y)

    @dataclasses.dataclass
    class Picking:
        early: nn.Module
        late: nn.Module

        def pick(self, t):
            return self.late if t >= 0.5 else self.early

        @property
        def picked(self):
            return self.pick

        def __call__(self, t, y):
            return self.picked(t)(y)

    class Proxy:
        def __init__(self, inner):
            self._inner = inner

        def __getattr__(self, name):
            return getattr(self._inner, name)

    class Module(nn.Module):
        def __init__(self, nets):
            super().__init__()
            self.nets = nn.ModuleDict({"False": nets[0], "True": nets[1]})

        def forward(self, t, y):
            return self.nets[str(bool(t >= 0.5))](y)

    def nested(nets):
        def inner(t, y):
            return nets[int(t >= 0.5)](y)

        return lambda t, y: inner(t, y)

    def behind_a_proxy(nets):
        proxy = Proxy(Slots(nets))
        return lambda t, y: proxy.nets[int(t >= 0.5)](y)

    def weakly(nets):
        refs = [weakref.ref(net) for net in nets]
        return lambda t, y: refs[int(t >= 0.5)]()(y)

    def of_a_class(nets):
        kept = type("Kept", (), {"nets": nets})
        return lambda t, y: kept.nets[int(t >= 0.5)](y)

    def of_the_function(nets):
        def field(t, y):
            return field.nets[int(t >= 0.5)](y)

        field.nets = nets
        return field

    def deep(nets):
        rows = nets
        for _ in range(40):
            rows = [{"in": (rows,)}]

        def field(t, y):
            part = rows
            while isinstance(part[0], dict):
                part = part[0]["in"][0]
            return part[int(t >= 0.5)](y)

        return field

    yield case("list", lambda nets: lambda t, y: nets[int(t >= 0.5)](y))
    yield case("dict", lambda nets: lambda t, y, d={"a": {"b": nets}}: d["a"]["b"][int(t >= 0.5)](y))
    yield case("slots", Slots)
    yield case("getattr", Numbered)
    yield case("dataclass", lambda nets: Picking(*nets))
    yield case("method", lambda nets: Picking(*nets).__call__)
    yield case("closures", nested)
    yield case("partial", lambda nets: functools.partial(lambda nets, t, y: nets[int(t >= 0.5)](y), nets))
    yield case("deque", lambda nets: nested(collections.deque(nets)))
    yield case("proxy", behind_a_proxy)
    yield case("weakref", weakly)
    yield case("class", of_a_class)
    yield case("function", of_the_function)
    yield case("module", Module)
    yield case("deep", deep)


@pytest.mark.parametrize(("field", "nets"), list(switch()))
def test_every_parameter_within_reach_gets_its_gradient(solve, field, nets):
    """Those that are not used at the first time, too: as by plain autograd through the steps."""
    parameters = [parameter for net in nets for parameter in net.parameters()]

    def gradient(grad):
        steps = Fixed(method="rk4", steps=4, gradient=grad)
        return torch.autograd.grad(steps(field, doubles(1.0, 2.0), TS).y.sum(), parameters)

    rtol = {"backprop": 0, "replay": 1e-10, "reversible": 2e-2, "adjoint": 2e-1}[solve.gradient]
    for one, other in zip(gradient(solve.gradient), gradient("backprop")):
        assert (one - other).norm() <= rtol * other.norm()


def test_parameters_is_the_way_in_where_nothing_can_be_seen(solve, monkeypatch):
    """A module that the field imports while it runs; used at the later times only."""
    w = doubles(0.7, grad=True)
    monkeypatch.setitem(sys.modules, "hidden_weights", types.SimpleNamespace(w=w))

    def field(t, y):
        import hidden_weights

        return -(1 + hidden_weights.w * (t - 0.5) ** 3) * y if t > 0.5 else -y

    y = solve(field, doubles(1.0), TS, parameters=[w]).y
    (found,) = torch.autograd.grad(y.sum(), w)
    assert torch.allclose(found, -torch.exp(doubles(-1 - 0.7 / 64)) / 64, rtol=1e-4)
    with pytest.raises(TypeError, match="parameters must be tensors"):
        solve(field, doubles(1.0), TS, parameters=[nn.Linear(1, 1)])
    if solve.gradient != "backprop":  # w would get no gradient, and no word
        with pytest.raises(FieldChanged, match=r"of shape \(1,\) .* inspection cannot find"):
            solve(field, doubles(1.0, grad=True), TS).y.sum().backward()


def test_a_leaf_that_is_made_in_the_field_does_not_hide(solve):
    def field(t, y):
        return -y + doubles(0.0, grad=True) if t > 0.5 else -y

    y0 = doubles(1.0, grad=True)
    assert torch.allclose(torch.autograd.grad(solve(field, y0, TS).y.sum(), y0)[0], torch.exp(doubles(-1.0)), rtol=1e-5)
