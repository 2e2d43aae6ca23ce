"""What is kept: by `adjoint` the same for any number of steps, by `backprop` every evaluation; afterwards, nothing."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from ode_cases import GRADIENTS, WAYS, Swirl, doubles, solver
from torch import nn


def saved_bytes(run, parameters):
    """Bytes in the distinct storages that autograd holds once `run` has returned, parameters aside."""
    own = {p.untyped_storage().data_ptr() for p in parameters}
    held = weakref.WeakValueDictionary()

    class Saved:
        def __init__(self, tensor):
            self.tensor = tensor

    def pack(tensor):
        # Detached: an operation's own output would hold the operation, and so itself.
        saved = Saved(tensor.detach())
        held[id(saved)] = saved
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved.tensor):
        made = run()
    storages = {saved.tensor.untyped_storage().data_ptr(): saved.tensor.untyped_storage() for saved in held.values()}
    del made
    return sum(storage.nbytes() for pointer, storage in storages.items() if pointer not in own)


FIXED = [("fixed", "dopri5", grad) for grad in GRADIENTS]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 8))


@pytest.mark.parametrize(("kind", "name", "grad"), [("adaptive", *way) for way in WAYS] + FIXED)
def test_memory_against_steps(kind, name, grad):
    module, y0 = net(), torch.ones(16, 8)

    def held(steps):
        options = {} if kind == "fixed" else {"max_step": 1 / steps, "first_step": 1 / steps}
        solve = solver((kind, name), grad, tol=1e-2, steps=steps, **options)
        return saved_bytes(lambda: solve(lambda t, y: module(y), y0, torch.tensor([0.0, 1.0])), module.parameters())

    state = y0.untyped_storage().nbytes()
    if grad in ("adjoint", "reversible"):
        few, many = held(10), held(100)
        assert many <= 1.05 * few
        assert few <= 3 * state
        return
    few, many = held(8), held(128)
    if grad == "backprop":
        # Six evaluations a step, of Adams one, each with its point and the 32 hidden numbers of a sample at least.
        assert few >= 8 * (6 if name == "dopri5" else 1) * 16 * (8 + 32) * 4
        assert many == pytest.approx(16 * few, rel=0.05 if name == "dopri5" else 0.2)
    else:
        assert many - few == 120 * state  # replay: one state a step


def live():
    return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())


QUICK = [("bosh3", "adjoint"), ("bosh3", "reversible"), *WAYS[-2:]]
MORE = [("adaptive", "bosh3", "backprop"), ("adaptive", "bosh3", "replay"), *(("fixed", "bosh3", g) for g in GRADIENTS)]


@pytest.mark.parametrize("times", [pytest.param((0.0, 1.0), marks=pytest.mark.numerics), (0.0, 0.5, 1.0)])
@pytest.mark.parametrize(
    ("kind", "name", "grad"),
    [*(("adaptive", *way) for way in QUICK), *(pytest.param(*way, marks=pytest.mark.numerics) for way in MORE)],
)
def test_training_leaves_nothing_behind(kind, name, grad, times):
    """No reference cycles: with the collector off, thirty steps end with as many tensors as three."""
    module, y0 = net(), torch.ones(4, 8)
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    solve = solver((kind, name), grad, tol=1e-1, steps=1)
    ts = torch.tensor(times, requires_grad=True)

    def train(steps):
        for _ in range(steps):
            loss = solve(lambda t, y: module(y), y0, ts).y.square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    gc.collect()
    gc.disable()
    try:
        train(3)
        early = live()
        train(27)
        assert live() == early
    finally:
        gc.enable()


@pytest.mark.parametrize("grad", GRADIENTS)
def test_a_failed_or_abandoned_solve_leaves_nothing_behind(grad):
    module, y0, ts = net(), torch.ones(4, 8), torch.tensor([0.0, 0.5, 1.0])

    def abandon():
        solve = solver(("adaptive", "dopri5"), grad, tol=1e-3)
        solve(lambda t, y: module(y), y0, ts)
        with torch.no_grad():
            solve(lambda t, y: module(y), y0, ts)

    gc.collect()
    gc.disable()
    try:
        abandon()
        early = live()
        for _ in range(10):
            abandon()
        assert live() == early
    finally:
        gc.enable()


@pytest.mark.parametrize("times", [(0.0, 1.0), (0.0, 0.5, 1.0)])
@pytest.mark.parametrize(("name", "grad"), WAYS)
def test_after_backward_a_loss_that_is_still_alive_holds_no_buffers(name, grad, times):
    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.seen = net(), []

        def forward(self, t, y):
            hidden = self.net[0](y)
            self.seen.append(weakref.ref(hidden.untyped_storage()))
            return self.net[2](torch.tanh(hidden) * hidden)

    field, y0 = Watched(), torch.ones(4, 8)
    loss = solver(("adaptive", name), grad, tol=1e-2)(field, y0, torch.tensor(times)).y.square().mean()
    loss.backward()
    assert loss.requires_grad
    assert sum(reference() is not None for reference in field.seen) == 0


def test_a_solve_without_gradients_keeps_no_states():
    seen = []

    def field(t, y):
        seen.append(weakref.ref(y))
        return -y

    with torch.no_grad():
        y = solver(("adaptive", "dopri5"), tol=1e-8)(field, doubles(1.0), doubles(0.0, 5.0)).y
    assert len(seen) > 100
    assert sum(reference() is not None for reference in seen) <= 1
    assert y is not None


def test_the_tape_may_live_on_the_other_side_of_saved_tensor_hooks():
    """`save_on_cpu` and its like see the states of the tape, and give the same gradient."""
    field, y0 = Swirl(), torch.ones(3, dtype=torch.float64)
    found = []
    for grad in GRADIENTS:
        solve = solver(("adaptive", "dopri5"), grad)
        with torch.autograd.graph.save_on_cpu():
            y = solve(field, y0, doubles(0.0, 1.0)).y
        found.append(torch.autograd.grad(y.sum(), field.w)[0])
        plain = torch.autograd.grad(solve(field, y0, doubles(0.0, 1.0)).y.sum(), field.w)[0]
        assert torch.equal(found[-1], plain)
