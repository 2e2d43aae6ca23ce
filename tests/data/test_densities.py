"""Targets of flows: their constants, their entropies, and batches that depend on seed, epoch and position alone."""

import importlib
import math

import pytest
import torch

from odenet_cli import data
from odenet_cli.data import _energies, circles, moons

TOYS = ("moons", "circles", "gaussians8", "checkerboard", "pinwheel")


def load(name, seed=0):
    how = {"batch_size": 512, "eval_batch_size": 512, "device": torch.device("cpu"), "dtype": torch.float32}
    return data.load(name, {}, seed=seed, **how)


@pytest.mark.numerics
@pytest.mark.parametrize("name", ["u1", "u2", "u3", "u4"])
def test_the_constants(name):
    x = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    target = _energies.TARGETS[name]
    total = torch.exp(-target(torch.cartesian_prod(x, x))).sum().item() * 0.01**2
    assert total == pytest.approx(target.z, rel=1e-4)
    assert target.floor == -math.log(target.z)


def test_the_floors_are_those_of_the_reference():
    """Z of exp(-U - C) on the plane, by quadrature elsewhere."""
    reference = {"u1": 6.5372, "u2": 8.2725, "u3": 14.4769, "u4": 15.2518}
    assert {name: target.z for name, target in _energies.TARGETS.items()} == pytest.approx(reference, abs=5e-5)


@pytest.mark.parametrize("name", [*TOYS, "u1"])
def test_batches_are_a_function_of_seed_epoch_and_position(name):
    one, other = load(name), load(name, seed=1)
    batch = [x for x, _ in one.train.epoch(3, 97)]
    assert len(batch) == 3
    assert torch.equal(batch[0], next(one.train.epoch(3, 97))[0])
    assert not torch.equal(batch[0], batch[1])
    assert not torch.equal(batch[0], next(other.train.epoch(3, 97))[0])
    assert torch.equal(one.test.x, other.test.x)
    assert (len(one.train), one.test.size, one.shape, one.classes) == (100, 10_000, (2,), 0)


@pytest.mark.numerics
def test_entropy_of_circles_is_that_of_their_radial_density():
    sigma, r = 0.06, torch.linspace(1e-4, 1.6, 20_001, dtype=torch.float64)
    rings = [
        torch.exp(-((r - radius) ** 2) / (2 * sigma**2)) * torch.special.i0e(r * radius / sigma**2)
        for radius in (1.0, 0.5)
    ]
    p = sum(rings) / (2 * 2 * math.pi * sigma**2)
    exact = -torch.trapezoid(torch.xlogy(p, p) * 2 * math.pi * r, r).item()
    assert circles.Source().entropy == pytest.approx(exact, abs=1e-3)


@pytest.mark.parametrize("name", ["moons", "circles", "gaussians8", "checkerboard"])
def test_the_entropy_is_the_mean_over_samples(name):
    law = importlib.import_module(f"odenet_cli.data.{name}").Source()
    x = law.draw(4_000, torch.Generator().manual_seed(0), torch.float64)
    surprise = -law.density(x).log()
    assert abs(law.entropy - surprise.mean().item()) < 3 * surprise.std().item() / math.sqrt(4_000) + 1e-9


@pytest.mark.numerics
@pytest.mark.parametrize("name", ["moons", "circles", "gaussians8", "checkerboard"])
def test_the_density_integrates_to_one(name):
    axis = torch.arange(-299.5, 300, dtype=torch.float64) / 50
    law = importlib.import_module(f"odenet_cli.data.{name}").Source()
    assert law.density(torch.cartesian_prod(axis, axis)).sum().item() * 4e-4 == pytest.approx(1, abs=1e-9)


def test_density_of_moons_is_the_mean_of_gaussians():
    law, x = moons.Source(), torch.tensor([[0.0, 1.0], [0.5, 0.25]], dtype=torch.float64)
    nodes = law.spine((torch.arange(1024, dtype=torch.float64) + 0.5) / 1024)
    normal = torch.distributions.Independent(torch.distributions.Normal(nodes, law.noise), 1)
    assert torch.allclose(law.density(x), normal.log_prob(x[:, None]).exp().mean(1))
