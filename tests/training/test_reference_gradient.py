"""Exact gradients to hold others against: of the steps taken, and of the equation; and what holds these."""

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import nn

from odenet_cli.errors import RunFailed
from odenet_cli.models.common.blocks import ODEBlock
from odenet_cli.ode import Adaptive, Fixed, SolveError
from odenet_cli.ode.gradient import names
from odenet_cli.ode.gradient.adjoint import Adjoint
from odenet_cli.training import device
from odenet_cli.training.exact_gradient.model_contexts import Objective
from odenet_cli.training.exact_gradient.reference_gradient import (
    Gradient,
    NoExactGradient,
    compute_gradient,
    field_parameters,
    finite_difference_error,
    gradient_of_equation,
    gradient_of_steps,
    record_steps,
)
from odenet_cli.training.exact_gradient.step_replay import replaying_solver

EXACT = sorted(set(names()) - {"adjoint"})


class Field(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(3, 8), nn.Linear(8, 3)

    def forward(self, t, y):
        return self.outer(torch.tanh(self.inner(y) + t))


class TwoFlows(nn.Module):
    """Two solves, the second with outputs inside its steps."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.one, self.two = nn.Linear(4, 3), ODEBlock(Field(), None), ODEBlock(Field(), None)
        self.two.ts = torch.tensor([0.0, 0.3, 0.3, 0.71, 1.0], dtype=torch.float64)

    def forward(self, x):
        return self.two(self.one(self.stem(x)))


def loss_fn(model, batch):
    x, target = batch
    return (model(x) - target).square().mean(), {}


@pytest.fixture
def network():
    made = TwoFlows()
    made.one.solver = made.two.solver = Fixed(method="euler", steps=1)
    return made


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(5, 4, generator=generator), torch.randn(5, 5, 3, generator=generator)


@pytest.fixture
def objective(network, batch):
    return Objective(network, loss_fn, batch)


SOLVERS = {
    "dopri5": lambda gradient: Adaptive(method="dopri5", rtol=1e-3, atol=1e-3, gradient=gradient),
    "dopri8": lambda gradient: Adaptive(method="dopri8", rtol=1e-5, atol=1e-5, gradient=gradient),
    "euler": lambda gradient: Fixed(method="euler", steps=3, gradient=gradient),
}


def steps_of(objective, solver):
    return gradient_of_steps(objective, solver, record_steps(objective, solver))


def off(objective, solver):
    """How far the gradient is off its steps, infinite where it is refused, and autograd off finite differences."""
    recording = record_steps(objective, solver)
    steps = gradient_of_steps(objective, solver, recording)
    try:
        error = compute_gradient(objective, solver).error(steps)
    except SolveError:
        error = math.inf
    return error, finite_difference_error(objective, partial(replaying_solver, solver, recording), steps)


@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize("solver", SOLVERS)
def test_an_exact_gradient_is_that_of_its_steps(objective, network, solver, gradient):
    """Up to the rounding of the precision: the same steps taken again, in float64, by plain autograd."""
    solver = SOLVERS[solver](gradient)
    single = compute_gradient(objective, solver)
    error, apart = off(objective, solver)
    assert error < 1e-5
    assert apart < 1e-6  # eps of float64 over the shift of the parameters
    with objective.in_dtype(torch.float64) as fine:
        own = compute_gradient(fine, solver)
        assert own.error(steps_of(fine, solver)) < 1e-10
    assert own.loss == pytest.approx(single.loss, rel=1e-5)
    assert own.cost.accepted > 0
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_a_pair_of_solutions_takes_other_steps(objective):
    plain, pair = (steps_of(objective, SOLVERS["euler"](gradient)) for gradient in ("replay", "reversible"))
    assert plain.error(pair) > 1e-3


def test_multistep_solves_are_taken_again_too(objective):
    backprop = Adaptive(method="adams", rtol=1e-3, atol=1e-3)
    adjoint = Adaptive(method="adams", rtol=1e-3, atol=1e-3, gradient=Adjoint())
    exact = steps_of(objective, adjoint)
    assert compute_gradient(objective, backprop).error(exact) < 1e-5
    assert max(off(objective, backprop)) < 1e-5
    assert 1e-5 < compute_gradient(objective, adjoint).error(exact) < 0.1


def test_the_reference_is_what_fine_steps_come_to(objective):
    reference = gradient_of_equation(objective, 1e-11)
    with objective.in_dtype(torch.float64) as fine:
        errors = [compute_gradient(fine, Fixed(method="rk4", steps=steps)).error(reference) for steps in (2, 4, 8, 16)]
    assert errors[-1] < 1e-6
    rates = [math.log2(a / b) for a, b in pairwise(errors)]
    assert rates[-1] == pytest.approx(4, abs=0.3)


def test_a_coarse_adjoint_is_far_from_its_steps(objective):
    """The backward Euler steps solve another equation than the one whose gradient is asked for."""
    error, apart = off(objective, SOLVERS["euler"]("adjoint"))
    assert error > 0.01
    assert apart < 1e-6


class Backward(torch.autograd.Function):
    """Twice x, with a wrong sign on the way back."""

    @staticmethod
    def forward(ctx, x):
        return 2 * x

    @staticmethod
    def backward(ctx, cotangent):
        return -2 * cotangent


class Planted(nn.Module):
    """A flow whose field, or the network around it, has a fault, or draws random numbers."""

    def __init__(self, kind, solver):
        super().__init__()
        torch.manual_seed(0)
        self.kind, self.solver, self.rate = kind, solver, 1.0
        self.inner, self.outer, self.head = nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 3)
        self.dropout = nn.Dropout(0.3)
        self.norm = nn.BatchNorm1d(4)
        self.register_buffer("calls", torch.zeros(()))

    def field(self, t, y):
        inner = torch.tanh(self.inner(y))
        if self.kind == "detach":
            inner = inner + inner.detach()
        if self.kind == "wrong sign":
            inner = Backward.apply(inner)
        if self.kind == "missing":
            inner = inner + self.inner.bias.data
        if self.kind == "dropout":
            inner = self.dropout(inner)
        slope = self.rate * self.outer(inner)
        return self.norm(slope) if self.kind == "batch norm" else slope

    def forward(self, x):
        y = x
        self.calls += 1
        for rate in (1.0, 2.0, 3.0) if self.kind == "late" else (1.0,):
            self.rate = rate
            y = self.solver(self.field, y, [0.0, 1.0]).y
        if self.kind == "noise":
            y = y + torch.randn_like(y)
        return self.head(self.dropout(y) if self.kind == "head" else y)


def planted_loss(model, batch):
    x, target = batch
    return (model(x) - target[0]).square().mean(), {}


FIXED, LOOSE = Fixed(method="rk4", steps=2), Adaptive(method="heun_euler", rtol=0.3, atol=0.3, min_step=0.2)


@pytest.mark.parametrize("kind", ["plain", "late", "batch norm", "head"])
@pytest.mark.parametrize("solver", [FIXED, LOOSE])
def test_what_backprop_gets_right_is_not_faulted(batch, kind, solver):
    model = Planted(kind, solver).train()
    error, apart = off(Objective(model, planted_loss, batch), solver)
    assert error < 1e-5
    assert apart < 1e-6
    assert (model.calls, model.rate) == (0, 1.0)  # it is as it was
    assert torch.equal(model.norm.running_mean, torch.zeros(4))


def test_a_field_that_changes_between_solves_is_noticed(batch):
    """Replay evaluates it with the last rate; plain autograd does not."""
    model = Planted("late", FIXED).train()
    error, apart = off(Objective(model, planted_loss, batch), Fixed(method="rk4", steps=2, gradient="replay"))
    assert error > 0.1
    assert apart < 1e-6


@pytest.mark.parametrize("kind", ["detach", "wrong sign", "missing"])
def test_a_wrong_backward_of_the_network_is_noticed(batch, kind):
    """Autograd agrees with itself there, and not with finite differences."""
    error, apart = off(Objective(Planted(kind, FIXED).train(), planted_loss, batch), FIXED)
    assert error < 1e-5
    assert apart > 0.05


@pytest.mark.parametrize("solver", [FIXED, LOOSE])
def test_dropout_in_the_field_draws_the_same_again(batch, solver):
    objective = Objective(Planted("dropout", solver).train(), planted_loss, batch)
    assert record_steps(objective, solver).random
    error, apart = off(objective, solver)
    assert error < 1e-5
    assert apart < 1e-6
    objective.model.eval()
    assert not record_steps(objective, solver).random


def test_random_numbers_that_depend_on_the_precision_are_told(batch):
    for kind, same in (("noise", False), ("head", True)):
        objective = Objective(Planted(kind, FIXED).train(), planted_loss, batch)
        own, exact = compute_gradient(objective, FIXED), steps_of(objective, FIXED)
        assert (own.random_state == exact.random_state) == same


def test_without_room_the_reference_is_made_by_replay(objective, batch, monkeypatch):
    kept = gradient_of_equation(objective, 1e-6)
    monkeypatch.setattr(device, "free_memory", lambda where: 1000)
    again = gradient_of_equation(objective, 1e-6)
    assert (kept.cost.nfe_backward, again.cost.nfe_backward > 0) == (0, True)
    assert again.error(kept) < 1e-10
    for solver in ("dopri5", "euler"):
        monkeypatch.undo()
        steps = steps_of(objective, SOLVERS[solver]("adjoint"))
        monkeypatch.setattr(device, "free_memory", lambda where: 1000)
        assert steps_of(objective, SOLVERS[solver]("adjoint")).error(steps) < 1e-12
    with pytest.raises(NoExactGradient, match="evaluating fields again"):
        gradient_of_equation(Objective(Planted("late", FIXED).train(), planted_loss, batch), 1e-6)
    for solver in (SOLVERS["euler"]("reversible"), Adaptive(method="adams", rtol=1e-3, atol=1e-3)):
        with pytest.raises(NoExactGradient, match="cannot be repeated one by one"):
            steps_of(objective, solver)


def test_a_closure_sees_the_borrowed_model(batch):
    """A copy in float64 would leave it with the weights of the original."""

    class Closure(Planted):
        def __init__(self):
            super().__init__("plain", FIXED)
            self.field = lambda t, y: self.outer(torch.tanh(self.inner(y)) * self.scale)
            self.scale = torch.linspace(1, 2, 8)

    model = Closure()
    assert max(off(Objective(model, planted_loss, batch), FIXED)) < 1e-5
    assert model.scale.dtype is torch.float32


def test_errors_by_hand():
    cost = None
    exact = Gradient(0.0, {"a": torch.tensor([3.0]), "b": torch.tensor([0.0, 4.0])}, cost)
    other = Gradient(0.0, {"a": torch.tensor([3.0]), "b": torch.tensor([0.0, 3.0])}, cost)
    assert exact.norm() == 5
    assert other.error(exact) == pytest.approx(1 / 5)
    assert other.error(exact, {"b"}.__contains__) == pytest.approx(1 / 4)
    assert other.error(exact, {"a"}.__contains__) == 0
    assert math.isnan(other.error(Gradient(0.0, {"a": torch.zeros(1), "b": torch.zeros(2)}, cost)))


def test_the_parameters_of_the_fields(network):
    names = {name for name, _ in network.named_parameters()}
    assert field_parameters(network) == {name for name in names if not name.startswith("stem.")}
    assert field_parameters(nn.Linear(2, 2)) == frozenset()


def test_a_reference_that_fails_names_its_key(batch):
    class Explodes(nn.Module):
        def forward(self, t, y):
            return 10 * (1 + y * y)

    model = nn.Sequential(ODEBlock(Explodes(), Fixed(method="euler", steps=1)), nn.Linear(4, 3))
    with pytest.raises(RunFailed, match="reference=1e-10"):
        gradient_of_equation(Objective(model, lambda model, batch: (model(batch[0]).sum(), {}), batch), 1e-10)
