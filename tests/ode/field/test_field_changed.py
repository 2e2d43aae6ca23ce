"""The backward pass has the field of the forward solve, or says by name what is not as it was."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import types
from array import array

import numpy as np
import pytest
import torch
from ode_cases import GRADIENTS, doubles
from torch import nn

from odenet_cli.ode import Adaptive, FieldChanged, Fixed

AGAIN = [name for name in GRADIENTS if name != "backprop"]  # those that evaluate the field again
RATE = 2.0
MODULE = types.ModuleType("settings")
MODULE.__file__, MODULE.rate = "/somewhere/settings.py", 2.0


def solve(field, y0, grad="replay", **settings):
    return Fixed(method="rk4", steps=2, gradient=grad)(field, y0, [0.0, 1.0], **settings).y


class Rate:
    rate = 2.0

    def __init__(self, rate=None):
        if rate is not None:
            self.rate = rate

    def __call__(self, t, y):
        return -self.rate * y


class Slotted:
    __slots__ = ("__own", "rate")

    def __init__(self):
        self.rate = self.__own = 2.0

    def __call__(self, t, y):
        return -self.rate * self.__own * y

    def change(self):
        self.__own = 3.0


@dataclasses.dataclass
class Data:
    rate: float = 2.0
    note: str = ""

    def slope(self, t, y):
        return -self.rate * y

    @property
    def doubled(self):
        return 2 * self.rate


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.w = nn.Parameter(doubles(0.5, 0.7))
        self.register_buffer("shift", doubles(0.1, 0.2))
        self.rows = [{"deep": nn.Linear(2, 2).double()}]
        self.layers = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.0)).double()
        self.unread = nn.Linear(2, 2)

    def forward(self, t, y):
        return self.layers(torch.tanh(self.rows[0]["deep"](y))) - self.w * y + self.shift


def no_grad(change):
    def run():
        with torch.no_grad():
            change()

    return run


def scaled(rate):
    """A field, and what sets its variable anew."""

    def change(value):
        nonlocal rate
        rate = value

    return lambda t, y: -rate * y, change


def places():
    """(id, field, what changes it, how the message names the place)"""
    field, change = scaled(2.0)
    yield "closure", field, lambda: change(3.0), r"rate was 2\.0, and is 3\.0 now"
    field, change_tensor = scaled(doubles(2.0))
    yield "closure-tensor", field, lambda: change_tensor(doubles(2.0)), "rate is another tensor now"
    yield "global", lambda t, y: -RATE * y, lambda: globals().update(RATE=RATE + 1), r"RATE was .*, and is .* now"
    yield (
        "module-global",
        lambda t, y: -MODULE.rate * y,
        lambda: setattr(MODULE, "rate", MODULE.rate + 1),
        "MODULE.rate",
    )
    rate = Rate(2.0)
    yield "attribute", rate, lambda: setattr(rate, "rate", 3.0), r"field\.rate was 2\.0, and is 3\.0 now"
    other = Rate()
    yield "attribute-over-class", other, lambda: setattr(other, "rate", 3.0), r"field\.rate is new"
    method = Rate(2.0)
    yield "method", method.__call__, lambda: setattr(method, "rate", 3.0), r"self\.rate"
    slotted, mangled = Slotted(), Slotted()
    yield "slot", slotted, lambda: setattr(slotted, "rate", 3.0), r"field\.rate"
    yield "mangled-slot", mangled, mangled.change, r"field\._Slotted__own"
    data = Data()
    yield "dataclass", data.slope, lambda: setattr(data, "rate", 3.0), r"self\.rate"
    seen = Data()
    yield "property", lambda t, y: -seen.doubled * y, lambda: setattr(seen, "rate", 3.0), r"seen\.rate"

    def defaulted(t, y, rate=2.0):
        return -rate * y

    yield "default", defaulted, lambda: setattr(defaulted, "__defaults__", (3.0,)), "defaults"
    held = [2.0]
    yield "partial", functools.partial(lambda r, t, y: -r[0] * y, held), lambda: held.append(held.pop() + 1), r"\[0\]"
    rows = [doubles(1.0)]
    yield (
        "list-grows",
        lambda t, y: -rows[-1] * y,
        lambda: rows.append(doubles(2.0)),
        "rows has more entries now",
    )
    table = {"rate": 2.0}
    yield "dict", lambda t, y: -table["rate"] * y, lambda: table.update(rate=3.0), r"table\['rate'\]"
    empty = {}
    yield (
        "dict-grows",
        lambda t, y: -empty.get("rate", 1.0) * y,
        lambda: empty.update(rate=3.0),
        "empty has more entries",
    )
    shown = {"rate": 2.0}
    proxy = types.MappingProxyType(shown)
    yield "proxy", lambda t, y: -proxy["rate"] * y, lambda: shown.update(rate=3.0), r"proxy\['rate'\]"
    spread = types.SimpleNamespace(inner=types.SimpleNamespace(rate=2.0))
    yield (
        "namespace",
        lambda t, y: -spread.inner.rate * y,
        lambda: setattr(spread.inner, "rate", 3),
        "spread.inner",
    )
    numbers, raw = np.array([2.0]), array("d", [2.0])
    yield "numpy", lambda t, y: -y * float(numbers[0]), lambda: numbers.fill(3.0), "numbers has other numbers now"
    yield "array", lambda t, y: -y * raw[0], lambda: raw.append(raw.pop() + 1), "raw has other numbers now"


def modules():
    def case(name, change, place):
        net = Net()
        return name, net, functools.partial(change, net), place

    yield case("add_", lambda net: no_grad(lambda: net.w.add_(1))(), r"field\.w was changed in place")
    yield case("load", lambda net: net.load_state_dict(Net().state_dict()), r"field\.")
    yield case("data", lambda net: setattr(net.w, "data", net.w.data + 1), r"field\.w has other numbers now.*\.data")
    yield case("data.mul_", lambda net: net.w.data.mul_(2), r"field\.w has other numbers now.*\.data")
    yield case("buffer", lambda net: setattr(net, "shift", doubles(0.1, 0.2)), r"field\.shift is another tensor now")
    yield case(
        "parameter", lambda net: setattr(net, "w", nn.Parameter(doubles(1.0, 1.0))), r"field\.w is another tensor"
    )
    yield case(
        "in-containers", lambda net: no_grad(net.rows[0]["deep"].bias.zero_)(), r"field\.rows\[0\]\['deep'\]\.bias"
    )
    yield case("layer", lambda net: net.layers.__setitem__(0, nn.Linear(2, 2)), r"field\.layers\.0 is another object")
    yield case("layers", lambda net: net.layers.append(nn.Tanh()), r"field\.layers")
    yield case("mode", lambda net: net.eval(), r"field\.layers\.1\.training was True, and is False now")
    yield case("option", lambda net: setattr(net.layers[1], "p", 0.9), r"field\.layers\.1\.p was 0\.0, and is 0\.9 now")
    yield case("hook", lambda net: net.layers.register_forward_hook(lambda *_: None), r"call of field\.layers")
    yield case(
        "forward", lambda net: setattr(net, "forward", lambda t, y: y), r"the call of field is another object now"
    )


CASES = [pytest.param(*case, id=name) for name, *case in [*places(), *modules()]]


@pytest.mark.parametrize(("field", "change", "place"), CASES)
def test_a_change_before_the_backward_pass_is_named(field, change, place):
    y0 = doubles(1.0, 2.0, grad=True)
    y = solve(field, y0)
    torch.autograd.grad(y.sum(), y0, retain_graph=True)
    change()
    with pytest.raises(FieldChanged, match=place) as refused:
        torch.autograd.grad(y.sum(), y0)
    assert "args=" in str(refused.value)
    assert "gradient=backprop" in str(refused.value)
    assert len(str(refused.value).splitlines()) <= 5


@pytest.mark.parametrize("grad", AGAIN)
def test_every_gradient_that_evaluates_again_looks(grad):
    y0, total = doubles(1.0, grad=True), 0
    for k in (1.0, 2.0):
        end = solve(lambda t, y: -k * y, y0, grad).sum()  # noqa: B023
        total = total + end
    (found,) = torch.autograd.grad(end, y0, retain_graph=True)
    assert found.item() == pytest.approx(math.exp(-2), abs=0.02)
    with pytest.raises(FieldChanged, match=r"k was 1\.0, and is 2\.0 now"):
        total.backward()


@pytest.mark.parametrize("grad", AGAIN)
def test_one_field_under_two_conditions_is_refused_by_the_attribute(grad):
    net, encoder = Net(), nn.Linear(2, 2).double()

    class Conditional(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, t, y):
            return torch.tanh(self.net(t, y) + self.condition)

    field, total = Conditional(), 0
    for x in (doubles(1.0, 2.0), doubles(-1.0, 0.5)):
        field.condition = encoder(x)
        total = total + solve(field, x, grad).sum()
    with pytest.raises(FieldChanged, match=r"field\.condition is another tensor now"):
        total.backward()


def test_what_is_as_it_was_passes():
    """Set to an equal number; away and back again; to the same memory; what the code does not read."""
    y0, net, data = doubles(1.0, 2.0, grad=True), Net(), Data()
    field, change = scaled(2.0)
    fields = (net, data.slope, field)
    ends = [solve(field, y0).sum() for field in fields]
    change(float("2"))
    net.eval().train()
    net.w.data = net.w.data
    net.double()
    net.zero_grad()
    no_grad(net.unread.weight.zero_)()
    data.note = "solved"
    for end in ends:
        torch.autograd.grad(end, y0)


@pytest.mark.parametrize("grad", AGAIN)
def test_fields_that_keep_books_are_not_refused(grad):
    """Counters, logs, caches and running statistics: what the field changes itself. The caller may reset them."""

    class Books(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).double()
            self.calls, self.times, self.known, self.last = 0, [], {}, None

        def forward(self, t, y):
            nonlocal calls
            calls += 1
            self.calls += 1
            self.times.append(float(t))
            self.known.setdefault(float(t), torch.tanh(t))
            self.last = torch.tanh(self.net(y))
            return self.last * self.known[float(t)]

    def gradient(grad):
        field, y0 = Books(), doubles(1.0, 2.0, -1.0, 0.5, 0.3, 0.2).reshape(3, 2).requires_grad_()
        y = Adaptive(method="dopri5", rtol=1e-5, atol=1e-5, gradient=grad)(field, y0, [0.0, 1.0]).y
        field.calls = 0
        field.times.clear()
        field.loss = y.sum()
        return torch.autograd.grad(field.loss, [y0, *field.net.parameters()])

    calls = 0
    for one, other in zip(gradient(grad), gradient("backprop")):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
    assert calls


@pytest.mark.parametrize("grad", AGAIN)
def test_what_a_model_keeps_beside_its_field_may_change(grad):
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.net, self.head, self.solves = nn.Linear(2, 2).double(), nn.Linear(2, 2).double(), 0

        def forward(self, x):
            self.features = solve(lambda t, y: torch.tanh(self.net(y)), x, grad)
            self.solves += 1
            return self.head(self.features)

    model = Model()
    loss = model(doubles(1.0, 2.0)).sum() + model(doubles(2.0, 1.0)).sum()
    model.loss, model.solves = loss, 0
    no_grad(lambda: model.head.bias.add_(1))()
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_a_cache_that_another_solve_fills_is_no_change():
    class Cached:
        def __init__(self):
            self.eyes = {}

        def __call__(self, t, y):
            if y.shape not in self.eyes:
                self.eyes[y.shape] = torch.eye(len(y), dtype=y.dtype)
            return -self.eyes[y.shape] @ y

    field, y0, other = Cached(), doubles(1.0, grad=True), doubles(1.0, 2.0, grad=True)
    solve(field, y0)
    y = solve(field, y0)
    (y.sum() + solve(field, other).sum()).backward()
    assert y0.grad.item() == pytest.approx(math.exp(-1), abs=1e-3)


def test_loggers_and_memoised_functions_are_no_state():
    """A logger reaches all others, and another call fills the cache of a memoised function."""
    log, rate = logging.getLogger("field"), functools.lru_cache(lambda n: float(n))

    def field(t, y):
        log.debug("t = %s", t)
        return -rate(2) * y

    y0 = doubles(1.0, grad=True)
    y = solve(field, y0)
    logging.getLogger("another").debug("made since")
    rate(3)
    y.sum().backward()
    assert y0.grad.item() == pytest.approx(math.exp(-2), abs=0.02)


def test_a_frame_of_old_and_new_normalisations_is_left_alone():
    torch.manual_seed(0)
    for wrap in (nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm):
        layer, y0 = wrap(nn.Linear(2, 2).double()), doubles(1.0, 2.0, grad=True)
        solve(lambda t, y, layer=layer: torch.tanh(layer(y)), y0).sum().backward()
        assert all(parameter.grad is not None for parameter in layer.parameters())
