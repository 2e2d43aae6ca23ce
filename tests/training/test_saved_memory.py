"""`saved_mib` is what autograd holds: exact on small graphs, flat for the adjoint, a straight line for backprop."""

import gc
import weakref

import pytest
import torch
from torch import nn

from odenet_cli import models
from odenet_cli.models.common.blocks import ODEBlock
from odenet_cli.ode import Fixed
from odenet_cli.ode.gradient import gradient
from odenet_cli.ode.gradient import names as gradients
from odenet_cli.tasks import task
from odenet_cli.training.memory import MIB, PeakMeter, SavedMeter


def test_a_small_graph_by_hand():
    x = torch.rand(10, 3)
    weight = torch.rand(3, 4, requires_grad=True)
    with SavedMeter([weight]) as meter:
        # mm keeps x for the weight's gradient, tanh its own result, and the square its argument: the same storage.
        y = (x @ weight).tanh()
        loss = y.square().sum()
        assert meter.peak == 4 * (10 * 3 + 10 * 4)
        loss.backward()
    assert meter.peak == 4 * (10 * 3 + 10 * 4)
    assert meter.peak_mib == meter.peak / MIB


def test_parameters_and_buffers_are_left_out():
    layer, x = nn.Linear(3, 4), torch.rand(5, 3, requires_grad=True)
    with SavedMeter(layer.parameters()) as left_out:
        layer(x).sum().backward()
    with SavedMeter() as counted:
        layer(x).sum().backward()
    assert left_out.peak == 4 * 5 * 3
    assert counted.peak == 4 * (5 * 3 + 4 * 3)


def test_views_of_one_storage_count_once():
    x = torch.rand(8, 8, requires_grad=True)
    base = x * 1.0
    with SavedMeter() as meter:
        ((base[:4] ** 2).sum() + (base.t()[4:] ** 2).sum() + (base**3).sum()).backward()
    assert meter.peak == 4 * 64


def test_backward_lets_go():
    w = torch.rand(6, requires_grad=True)
    with SavedMeter([w]) as meter:
        for _ in range(3):  # the peak of three graphs after each other is that of one
            loss = (w.exp() * w.sin()).sum()
            loss.backward()
            del loss
    assert meter._now == 0
    assert meter.peak == pytest.approx(4 * 6 * 2)


def test_a_graph_that_is_dropped_lets_go_too():
    w = torch.rand(6, requires_grad=True)
    with SavedMeter([w]) as meter:
        loss = w.exp().sum()
        assert meter._now == 24
        del loss
        gc.collect()
        assert meter._now == 0


def test_metered_steps_leave_nothing_behind():
    """A solve drops graphs that no backward pass ever frees; the meter must not keep them alive."""
    torch.manual_seed(0)
    options = {"stem": "conv", "width": 4, "augment": 0}
    solver = Fixed(method="heun", steps=2, gradient="adjoint")
    network = models.model("odenet", options, shape=(1, 28, 28), classes=10, solver=solver)
    batch = torch.rand(2, 1, 28, 28), torch.tensor([1, 2])
    refs = []

    class Watched(SavedMeter):
        def _pack(self, tensor):
            refs.append(weakref.ref(held := super()._pack(tensor)))
            return held

    with Watched(network.parameters()):
        task("classify")(network, batch)[0].backward()
    gc.collect()
    assert refs
    assert not [ref for ref in refs if ref() is not None]


class Gentle(nn.Module):
    """A field that every gradient can run backwards."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, t, x):
        return self.outer(torch.tanh(self.inner(x) * t))


@pytest.mark.parametrize("name", gradients())
def test_the_meter_changes_no_gradient(name):
    def gradients_of(metered):
        torch.manual_seed(0)
        block = ODEBlock(Gentle(), Fixed(method="rk4", steps=8, gradient=gradient(name)))
        network = nn.Sequential(nn.Linear(6, 4), block, nn.Linear(4, 3))
        batch = torch.rand(5, 6), torch.tensor([0, 1, 2, 0, 1])
        if metered:
            with SavedMeter(network.parameters()) as meter:
                task("classify")(network, batch)[0].backward()
            assert meter._now == 0
            assert meter.peak > 0
        else:
            task("classify")(network, batch)[0].backward()
        return [parameter.grad for parameter in network.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(gradients_of(True), gradients_of(False)))


def logged(train, metrics, gradient_name, steps):
    words = ("model=odenet", "model.width=4", "solver=rk4", f"solver.steps={steps}", f"gradient={gradient_name}")
    folder = train(*words, "trainer.max_steps=1", "trainer.batch_size=8", name=f"{gradient_name}-{steps}")
    (record,) = metrics(folder, "train")
    return record["saved_mib"]


def test_saved_mib_is_flat_for_the_adjoint(train, metrics):
    sizes = [logged(train, metrics, "adjoint", steps) for steps in (2, 4, 8, 16)]
    assert sizes[0] > 0
    assert len(set(sizes)) == 1


def test_saved_mib_is_a_straight_line_for_backprop(train, metrics):
    two, four, eight = (logged(train, metrics, "backprop", steps) for steps in (2, 4, 8))
    per_step = (four - two) / 2
    # Every step adds its four evaluations, each of which keeps at least the state (8 × 4 × 6 × 6 numbers).
    assert per_step * MIB >= 4 * 4 * 8 * 4 * 36
    assert eight - four == pytest.approx(4 * per_step, rel=1e-9)
    assert logged(train, metrics, "adjoint", 2) < two


def test_there_is_no_allocators_peak_on_a_cpu():
    with PeakMeter(torch.device("cpu")) as meter:
        torch.zeros(10)
    assert meter.peak_mib is None
