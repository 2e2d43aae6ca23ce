"""A gradient that takes steps again draws their random numbers again, or says that it cannot; seeds notice nothing."""

from __future__ import annotations

import random
import threading
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from ode_cases import GRADIENTS, HEUN_EULER, Counting, doubles, label
from torch import nn

from odenet_cli.ode import Adaptive, Fixed, RandomField, method

STEPS = ["replay", "reversible"]
FIXED = [("fixed", name) for name in ("euler", "rk4", "dopri5")]
CHOSEN = [("adaptive", name) for name in ("dopri5", "bosh3", "dopri8", HEUN_EULER)]
TIMES = [(0.0, 1.0), (0.0, 0.2, 0.5, 1.0), (1.0, 0.3, 0.0)]
Y0 = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(3, 4)


def solver(case, gradient, **options):
    kind, name = case
    if kind == "fixed":
        return Fixed(method=name, steps=3, gradient=gradient, **options)
    return Adaptive(method=name, rtol=0.3, atol=0.3, gradient=gradient, max_steps=5000, **options)


class Net(nn.Module):
    """A network with dropout; `late`: not before t = 0.4."""

    def __init__(self, late=False):
        super().__init__()
        torch.manual_seed(2)
        self.layers = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.5), nn.Linear(16, 4)).double()
        self.late = late

    def forward(self, t, y):
        return -y if self.late and t < 0.4 else self.layers(y)


def gradients(solve, field, ts=(0.0, 1.0), seed=5):
    """y, dL/dy0 and dL/dθ of a solve with that seed, and the gradient of |dL/dy0|²."""
    y0, parameters = Y0.clone().requires_grad_(), list(field.parameters())
    torch.manual_seed(seed)
    y, stats = solve(field, y0, ts)
    after = torch.get_rng_state()
    loss = y.square().sum()
    first = torch.autograd.grad(loss, (y0, *parameters), retain_graph=True)
    again = torch.autograd.grad(loss, (y0, *parameters), retain_graph=True)
    assert all(map(torch.equal, first, again))
    (of_y0,) = torch.autograd.grad(loss, y0, create_graph=True)
    second = torch.autograd.grad(of_y0.square().sum(), (y0, *parameters))
    assert torch.equal(torch.get_rng_state(), after)  # as if the backward passes had drawn nothing
    return stats, y, *first, *second


def assert_same(found, expected):
    for one, other in zip(found, expected):
        assert (one - other).abs().max() <= 1e-10 * max(1.0, other.abs().max().item())


@pytest.mark.parametrize("late", [False, True], ids=["dropout", "late"])
@pytest.mark.parametrize("ts", TIMES, ids=["ends", "inside", "reversed"])
@pytest.mark.parametrize("case", FIXED + CHOSEN, ids=label)
def test_replay_draws_what_the_steps_drew(case, ts, late):
    """The gradient is that of backprop, which keeps the very steps, first and second derivatives."""
    field = Net(late)
    (_, *expected), (_, *found) = (gradients(solver(case, name), field, ts) for name in ("backprop", "replay"))
    assert_same(found, expected)


def test_steps_that_were_rejected_drew_too():
    field = Net()
    with torch.no_grad():
        field.layers[3].weight.mul_(8.0)
    solve = Adaptive(method="bosh3", rtol=0.1, atol=0.1, gradient="replay", first_step=1.0)
    stats, *found = gradients(solve, field)
    assert stats.rejected > 3
    _, *expected = gradients(replace(solve, gradient="backprop"), field)
    assert_same(found, expected)


class Pair:
    """The reversible pair of Euler steps, y₁ = λy + (1 - λ)z + hf(z), z₁ = z - (-h)f(y₁), in plain autograd."""

    def __init__(self, steps, coupling):
        self.steps, self.coupling = steps, coupling

    def __call__(self, field, y0, ts):
        y = z = y0
        h = (ts[1] - ts[0]) / self.steps
        for n in range(self.steps):
            t = ts[0] + n * h
            y = self.coupling * y + (1 - self.coupling) * z + h * field(doubles(t)[0], z)
            z = z + h * field(doubles(t + h)[0], y)
        return y, None


@pytest.mark.parametrize("late", [False, True], ids=["dropout", "late"])
def test_reversible_draws_what_its_steps_drew(late):
    field = Net(late)
    _, *expected = gradients(Pair(4, 0.999), field)
    _, *found = gradients(Fixed(method="euler", steps=4, gradient="reversible"), field)
    assert_same(found, expected)


@pytest.mark.parametrize("case", [("fixed", "dopri5"), ("adaptive", "dopri5"), ("adaptive", HEUN_EULER)], ids=label)
@pytest.mark.parametrize("ts", TIMES, ids=["ends", "inside", "reversed"])
def test_reversible_undoes_its_steps_with_what_they_drew(case, ts):
    """Its first derivative, by undoing steps, is that of a second pass, which takes them again from the start."""
    field, solve, y0 = Net(), solver(case, "reversible"), Y0.clone().requires_grad_()
    loss = solve(field, y0, ts).y.square().sum()
    inputs = (y0, *field.parameters())
    found = torch.autograd.grad(loss, inputs, retain_graph=True)
    expected = torch.autograd.grad(loss, inputs, create_graph=True)
    assert max((one - other).norm() / other.norm() for one, other in zip(found, expected)) < 1e-8


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("case", [("fixed", "euler"), ("adaptive", "dopri5")], ids=label)
def test_evaluations_of_a_random_field_are_counted(case, name):
    """One that begins to draw on the way is solved a second time, and that counts."""
    for late in (False, True):
        field = Counting(Net(late))
        solve, y0 = solver(case, name), Y0.clone().requires_grad_()
        y, stats = solve(field, y0, (0.0, 1.0))
        forward = field.calls
        assert stats.nfe_forward == forward
        y.sum().backward()
        assert stats.nfe_backward == field.calls - forward


@pytest.mark.parametrize(
    "solve",
    [
        Fixed(method="rk4", steps=3, gradient="adjoint"),
        *[Adaptive(method=name, rtol=0.3, atol=0.3, gradient="adjoint") for name in ("dopri5", "adams")],
    ],
    ids=["rk4", "dopri5", "adams"],
)
def test_the_adjoint_of_a_random_field_is_refused(solve):
    """It would be that of another field; in evaluation mode there is nothing to refuse."""
    field, y0 = Net(), Y0.clone().requires_grad_()
    with pytest.raises(RandomField, match=r"(?s)gradient=adjoint.*gradient=replay or gradient=backprop"):
        solve(field, y0, (0.0, 1.0))
    with torch.no_grad():
        solve(field, y0, (0.0, 1.0))
    solve(field.eval(), y0, (0.0, 1.0)).y.sum().backward()


@pytest.mark.numerics
def test_compiled_steps_that_draw_are_refused():
    solve = Adaptive(method="bosh3", rtol=0.3, atol=0.3, gradient="replay", compile=True)
    with pytest.raises(RandomField, match="compile=False"):
        solve(Net(), Y0.clone().requires_grad_(), (0.0, 1.0))


@pytest.mark.parametrize("name", GRADIENTS)
def test_noise_drawn_once_for_a_solve_is_no_randomness(name):
    """As a flow draws its trace's noise in the first evaluation and keeps it: dy/dy0 = exp(-noise)."""
    kept = {}

    def field(t, y):
        if "noise" not in kept:
            kept["noise"] = torch.rand(3, dtype=torch.float64)
        return -kept["noise"] * y

    y0 = torch.ones(3, dtype=torch.float64, requires_grad=True)
    y = Adaptive(method="dopri5", rtol=1e-5, atol=1e-5, gradient=name)(field, y0, (0.0, 1.0)).y
    (found,) = torch.autograd.grad(y.sum(), y0)
    assert torch.allclose(found, torch.exp(-kept["noise"]), atol=1e-3)


@pytest.mark.parametrize("name", [name for name in GRADIENTS if name != "backprop"])
def test_a_field_that_draws_backward_only_is_refused(name):
    field, y0 = Net().eval(), Y0.clone().requires_grad_()
    y = solver(("fixed", "rk4"), name)(field, y0, (0.0, 1.0)).y
    field.train()
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError):
        y.sum().backward()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", [name for name in GRADIENTS if name != "backprop"])
def test_a_field_that_seeds_itself_is_the_same_at_every_evaluation(name):
    def field(t, y):
        torch.manual_seed(3)
        return -torch.rand(3, dtype=torch.float64) * y

    y0 = torch.ones(3, dtype=torch.float64, requires_grad=True)
    y = Adaptive(method="dopri5", rtol=1e-5, atol=1e-5, gradient=name)(field, y0, (0.0, 1.0)).y
    torch.manual_seed(9)
    before = torch.get_rng_state()
    (found,) = torch.autograd.grad(y.sum(), y0)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(3)
    assert torch.allclose(found, torch.exp(-torch.rand(3, dtype=torch.float64)), atol=1e-3)


def test_noise_under_autograd_alone_is_refused():
    """It draws in the evaluation that looks for gradients, and in the backward pass, but in no step of the solve."""

    def field(t, y):
        return nn.functional.dropout(y, training=torch.is_grad_enabled())

    y0 = torch.ones(64, requires_grad=True)
    y = Fixed(method="rk4", steps=2, gradient="replay")(field, y0, (0.0, 1.0)).y
    with pytest.raises(RandomField, match="not the same field"):
        y.sum().backward()


def test_fewer_numbers_backward_are_noticed():
    """A field that draws what its step was not, even where the masks would not show it."""
    calls = []

    def field(t, y):
        calls.append(t)
        return y * torch.rand(2 if len(calls) < 4 else 3, dtype=torch.float64)[0]

    y0 = torch.ones(1, dtype=torch.float64, requires_grad=True)
    y = Fixed(method="euler", steps=3, gradient="replay")(field, y0, (0.0, 1.0)).y
    with pytest.raises(RandomField, match="fewer or more"):
        y.sum().backward()


class Noise(nn.Module):
    """y' = -ε y with ε from a generator of its own, held by a module in it or by the closure of `field`."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Identity()
        self.inner.generator = torch.Generator().manual_seed(1)

    def forward(self, t, y):
        return -torch.rand(y.shape, generator=self.inner.generator, dtype=y.dtype) * y


def of_closure():
    generator = torch.Generator().manual_seed(1)
    return lambda t, y: -torch.rand(y.shape, generator=generator, dtype=y.dtype) * y


@pytest.mark.parametrize(
    "make", [Noise, of_closure, lambda: partial(Noise().forward)], ids=["module", "closure", "partial"]
)
def test_generators_of_the_fields_own_are_repeated_too(make):
    """y is linear in y0, number by number, so dy/dy0 = y / y0."""
    y0 = Y0.clone().requires_grad_()
    for name in STEPS:
        y = Fixed(method="rk4", steps=3, gradient=name)(make(), y0, (0.0, 1.0)).y
        (found,) = torch.autograd.grad(y.sum(), y0)
        assert torch.allclose(found, y / y0, rtol=1e-9)
    with pytest.raises(RandomField, match="gradient=adjoint"):
        Fixed(method="rk4", steps=3, gradient="adjoint")(make(), y0, (0.0, 1.0))


def of_numpy():
    np.random.seed(1)  # noqa: NPY002
    return lambda: np.random.randn()  # noqa: NPY002 - every other number is one that it has in stock


def of_numpys_function():
    np.random.seed(1)  # noqa: NPY002
    return np.random.random_sample


def of_numpys_generator():
    generator = np.random.default_rng(1)
    return lambda: generator.normal()


def of_a_closures_module():
    held = nn.Identity()
    held.dice = np.random.RandomState(np.random.PCG64(1))
    return lambda: held.dice.standard_normal()


def of_random():
    random.seed(1)
    return lambda: random.gauss(0.0, 1.0)


def of_a_local_import():
    def draw():
        import random as dice

        return dice.random()

    random.seed(1)
    return draw


def of_randoms_method():
    random.seed(1)
    return random.random


SOURCES = [
    of_numpy,
    of_numpys_function,
    of_numpys_generator,
    lambda: np.random.default_rng(1).random,
    of_a_closures_module,
    of_random,
    of_randoms_method,
    of_a_local_import,
    lambda: random.Random(1).gauss,
    lambda: random.Random(1).random,
]


def noisy(make):
    """y' = -ε y with ε drawn by `draw`, which `make` has seeded; and `draw`."""
    draw = make()
    return (lambda t, y: -(1.0 + draw()) * y), draw


@pytest.mark.parametrize("make", SOURCES)
def test_numbers_of_numpy_and_python_are_repeated_too(make):
    """With one seed replay's solution is that of backprop; y is linear in y0, so dy/dy0 = y / y0. What is drawn between
    the passes and after them is what backprop leaves to be drawn."""
    y0 = Y0.clone().requires_grad_()
    for case in (("fixed", "rk4"), ("adaptive", "dopri5")):
        field, draw = noisy(make)
        expected, following = solver(case, "backprop")(field, y0, (0.0, 1.0)).y, [draw(), draw()]
        for name in STEPS:
            field, draw = noisy(make)
            y = solver(case, name)(field, y0, (0.0, 1.0)).y
            between = draw()
            (found,) = torch.autograd.grad(y.sum(), y0)
            torch.testing.assert_close(found, y / y0, rtol=1e-9, atol=0)
            if name == "replay":
                torch.testing.assert_close(y, expected, rtol=1e-10, atol=0)
                assert [between, draw()] == following


@pytest.mark.parametrize(
    ("make", "source"), [(of_numpy, "numpy.random"), (of_random, "random"), (of_numpys_generator, "numpy.random.Gen")]
)
def test_a_refusal_names_the_generator(make, source):
    field, _ = noisy(make)
    solve = Fixed(method="rk4", steps=3, gradient="adjoint")
    with pytest.raises(RandomField, match=rf"(?s) from {source}.*gradient=adjoint.*Use gradient=replay"):
        solve(field, Y0.clone().requires_grad_(), (0.0, 1.0))


def test_a_generator_in_args_is_repeated_too():
    y0 = Y0.clone().requires_grad_()
    solve = Fixed(method="rk4", steps=3, gradient="replay")
    for generator in (torch.Generator().manual_seed(1), np.random.default_rng(1)):

        def field(t, y, rng):
            return -(rng.random() if isinstance(rng, np.random.Generator) else torch.rand((), generator=rng)) * y

        y = solve(field, y0, (0.0, 1.0), args=(generator,)).y
        (found,) = torch.autograd.grad(y.sum(), y0)
        torch.testing.assert_close(found, y / y0, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", [name for name in GRADIENTS if name != "backprop"])
def test_what_another_thread_draws_is_no_drawing_of_the_field(name):
    done, drawn = threading.Event(), [0]

    def draw():
        while not done.wait(1e-4):
            drawn[0] += bool(np.random.rand() + random.random())  # noqa: NPY002

    def field(t, y):
        return -np.pi * y

    y0 = Y0.clone().requires_grad_()
    solve = solver(("adaptive", "dopri5"), name)
    alone = solve(field, y0, (0.0, 1.0)).stats.nfe_forward
    other = threading.Thread(target=draw)
    other.start()
    try:
        while not drawn[0]:
            pass
        y, stats = solve(field, y0, (0.0, 1.0))
        y.sum().backward()
    finally:
        done.set()
        other.join()
    assert stats.nfe_forward == alone


def test_the_solve_of_the_issue():
    """One Euler step of y' = dropout(y) from 1: y = 1 + mask, and so is dy/dy0."""
    torch.manual_seed(0)
    y0 = torch.ones(64, requires_grad=True)
    y = Fixed(method="euler", steps=1, gradient="replay")(lambda t, y: nn.functional.dropout(y, 0.5), y0, (0.0, 1.0)).y
    y.sum().backward()
    assert set(y.tolist()) == {1.0, 3.0}
    assert torch.equal(y0.grad, y)
    assert method("euler").stages == 1
