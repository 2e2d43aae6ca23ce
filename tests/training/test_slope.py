"""Exact gradients to hold others against: of the steps taken, and of the equation."""

import copy
import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from odenet_cli.errors import RunFailed
from odenet_cli.models._blocks import ODEBlock
from odenet_cli.ode import Adaptive, Fixed
from odenet_cli.ode.gradient import names
from odenet_cli.ode.gradient.adjoint import Adjoint
from odenet_cli.training.slope import Slope, fields_of, of_equation, of_steps, slope

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


SOLVERS = {
    "dopri5": lambda gradient: Adaptive(method="dopri5", rtol=1e-3, atol=1e-3, gradient=gradient),
    "dopri8": lambda gradient: Adaptive(method="dopri8", rtol=1e-5, atol=1e-5, gradient=gradient),
    "euler": lambda gradient: Fixed(method="euler", steps=3, gradient=gradient),
}


@pytest.mark.parametrize("gradient", EXACT)
@pytest.mark.parametrize("solver", SOLVERS)
def test_an_exact_gradient_is_that_of_its_steps(network, batch, solver, gradient):
    """Up to the rounding of the precision: the same steps taken again, in float64, by plain autograd."""
    solver, double = SOLVERS[solver](gradient), copy.deepcopy(network).double()
    single = slope(network, loss_fn, batch, solver)
    assert single.error(of_steps(network, double, loss_fn, batch, solver)) < 1e-5
    exactly = (batch[0].double(), batch[1].double())
    own = slope(double, loss_fn, exactly, solver)
    assert own.error(of_steps(double, double, loss_fn, exactly, solver)) < 1e-10
    assert own.loss == pytest.approx(single.loss, rel=1e-5)
    assert own.cost.accepted > 0


def test_a_pair_of_solutions_takes_other_steps(network, batch):
    double = copy.deepcopy(network).double()
    plain, pair = (
        of_steps(network, double, loss_fn, batch, SOLVERS["euler"](gradient)) for gradient in ("replay", "reversible")
    )
    assert plain.error(pair) > 1e-3


def test_multistep_solves_are_seen_as_they_are_made(network, batch):
    solver = Adaptive(method="adams", rtol=1e-3, atol=1e-3, gradient=Adjoint())
    exact = of_steps(network, copy.deepcopy(network).double(), loss_fn, batch, solver)
    assert slope(network, loss_fn, batch, Adaptive(method="adams", rtol=1e-3, atol=1e-3)).error(exact) == 0
    assert 0 < slope(network, loss_fn, batch, solver).error(exact) < 0.1


def test_the_reference_is_what_fine_steps_come_to(network, batch):
    double = copy.deepcopy(network).double()
    reference = of_equation(double, loss_fn, batch, 1e-11)
    exactly = (batch[0].double(), batch[1].double())
    errors = [
        slope(double, loss_fn, exactly, Fixed(method="rk4", steps=steps)).error(reference) for steps in (2, 4, 8, 16)
    ]
    assert errors[-1] < 1e-6
    rates = [math.log2(a / b) for a, b in pairwise(errors)]
    assert rates[-1] == pytest.approx(4, abs=0.3)


def test_a_coarse_adjoint_is_far_from_its_steps(network, batch):
    """The backward Euler steps solve another equation than the one whose gradient is asked for."""
    double = copy.deepcopy(network).double()
    solver = SOLVERS["euler"]("adjoint")
    assert slope(network, loss_fn, batch, solver).error(of_steps(network, double, loss_fn, batch, solver)) > 0.01


def test_errors_by_hand():
    cost = None
    exact = Slope(0.0, {"a": torch.tensor([3.0]), "b": torch.tensor([0.0, 4.0])}, cost)
    other = Slope(0.0, {"a": torch.tensor([3.0]), "b": torch.tensor([0.0, 3.0])}, cost)
    assert exact.norm() == 5
    assert other.error(exact) == pytest.approx(1 / 5)
    assert other.error(exact, {"b"}.__contains__) == pytest.approx(1 / 4)
    assert other.error(exact, {"a"}.__contains__) == 0
    assert math.isnan(other.error(Slope(0.0, {"a": torch.zeros(1), "b": torch.zeros(2)}, cost)))


def test_the_parameters_of_the_fields(network):
    names = {name for name, _ in network.named_parameters()}
    assert fields_of(network) == {name for name in names if not name.startswith("stem.")}
    assert fields_of(nn.Linear(2, 2)) == frozenset()


def test_a_reference_that_fails_names_its_key(batch):
    class Explodes(nn.Module):
        def forward(self, t, y):
            return 10 * (1 + y * y)

    with pytest.raises(RunFailed, match="reference=1e-10"):
        of_equation(
            nn.Sequential(ODEBlock(Explodes(), Fixed(method="euler", steps=1)), nn.Linear(4, 3)).double(),
            lambda model, batch: (model(batch[0]).sum(), {}),
            batch,
            1e-10,
        )
