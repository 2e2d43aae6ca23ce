"""Targets of flows: their constants, their entropies, and batches that depend on seed, epoch and position alone."""

import importlib
import math

import pytest
import torch

from odenet_cli import data
from odenet_cli.data import circles, gaussians8, moons, pinwheel

TOYS = ("moons", "circles", "gaussians8", "checkerboard", "pinwheel")


def source(name):
    return importlib.import_module(f"odenet_cli.data.{name}").Source()


def load(name, seed=0):
    how = {"batch_size": 512, "eval_batch_size": 512, "device": torch.device("cpu"), "dtype": torch.float32}
    return data.load(name, {}, seed=seed, **how)


@pytest.mark.numerics
@pytest.mark.parametrize("name", ["u1", "u2", "u3", "u4"])
def test_the_constants(name):
    x = torch.linspace(-5, 5, 1001, dtype=torch.float64)
    target = source(name)
    total = torch.exp(-target(torch.cartesian_prod(x, x))).sum().item() * 0.01**2
    assert total == pytest.approx(target.normalizer, rel=1e-4)
    assert target.floor == -math.log(target.normalizer)


def test_the_floors_are_those_of_the_reference():
    """Z of exp(-U - C) on the plane, by quadrature elsewhere."""
    reference = {"u1": 6.5372, "u2": 8.2725, "u3": 14.4769, "u4": 15.2518}
    assert {name: source(name).normalizer for name in reference} == pytest.approx(reference, abs=5e-5)


@pytest.mark.parametrize("name", [*TOYS, "u1"])
def test_batches_are_a_function_of_seed_epoch_and_position(name):
    one, other = load(name), load(name, seed=1)
    batch = [x for x, _ in one.train.epoch(3, 97)]
    assert len(batch) == 3
    assert torch.equal(batch[0], next(one.train.epoch(3, 97))[0])
    assert not torch.equal(batch[0], batch[1])
    assert not torch.equal(batch[0], next(other.train.epoch(3, 97))[0])
    assert torch.equal(one.test.rows[0], other.test.rows[0])
    assert (len(one.train), one.test.size, one.shape, one.classes) == (100, 10_000, (2,), 0)


@pytest.mark.numerics
@pytest.mark.parametrize(("sigma", "outer"), [(0.06, 1.6), (0.01, 1.1), (0.002, 1.02), (0.001, 1.01)])
def test_entropy_of_circles_is_that_of_their_radial_density(sigma, outer):
    r = torch.linspace(1e-4, outer, 20_001, dtype=torch.float64)
    rings = [
        torch.exp(-((r - radius) ** 2) / (2 * sigma**2)) * torch.special.i0e(r * radius / sigma**2)
        for radius in (1.0, 0.5)
    ]
    p = sum(rings) / (2 * 2 * math.pi * sigma**2)
    exact = -torch.trapezoid(torch.xlogy(p, p) * 2 * math.pi * r, r).item()
    assert circles.Source(noise=sigma).entropy == pytest.approx(exact, abs=1e-7)


@pytest.mark.parametrize("sigma", [0.001, 0.004, 0.02])
def test_narrow_circles_have_the_entropy_of_their_lengths_and_of_the_noise_across(sigma):
    lengths = [math.log(2 * math.pi * radius) for radius in (1.0, 0.5)]
    limit = math.log(2) + sum(lengths) / 2 + 0.5 * math.log(2 * math.pi * math.e * sigma**2)
    assert circles.Source(noise=sigma).entropy == pytest.approx(limit, abs=10 * sigma**2)  # O((sigma / radius)^2)


def test_narrow_moons_have_the_entropy_of_their_length_and_of_the_noise_across():
    for sigma in (0.001, 0.004):
        limit = math.log(2 * math.pi) + 0.5 * math.log(2 * math.pi * math.e * sigma**2)
        assert moons.Source(noise=sigma).entropy == pytest.approx(limit, abs=sigma)  # four ends, O(sigma / length)


@pytest.mark.parametrize(("sigma", "radius"), [(0.001, 0.1), (0.001, 100.0), (0.05, 2.8), (10.0, 100.0)])
def test_eight_gaussians_apart_have_the_entropy_of_one_and_that_of_the_choice(sigma, radius):
    """Neighbours 7.6 sigma apart or more share 7e-5 of their mass."""
    limit = math.log(8) + math.log(2 * math.pi * math.e * sigma**2)
    apart = 2 * radius * math.sin(math.pi / 8) / sigma
    distribution = gaussians8.Source(noise=sigma, radius=radius)
    assert distribution.entropy == pytest.approx(limit, abs=4 * math.erfc(apart / 8**0.5) + 1e-9)


@pytest.mark.parametrize("sigma", [0.001, 10.0])
def test_eight_gaussians_in_one_place_have_the_entropy_of_one(sigma):
    distribution = gaussians8.Source(noise=sigma, radius=1e-3 * sigma)
    assert distribution.entropy == pytest.approx(math.log(2 * math.pi * math.e * sigma**2), abs=1e-5)


def test_the_arms_of_the_pinwheel_share_little():
    """Apart, they would have the entropy of one, of the choice, and of what the turn stretches."""
    z = torch.linspace(-8, 8, 401, dtype=torch.float64)
    weight, u = torch.exp(-0.5 * z.square()), torch.exp(1 + pinwheel.ALONG * z)
    stretched = (1 - pinwheel.RATE * u[:, None] * pinwheel.ACROSS * z).abs().log()
    mean = (weight @ stretched @ weight / weight.sum() ** 2).item()
    one = math.log(2 * math.pi * math.e * pinwheel.ALONG * pinwheel.ACROSS * pinwheel.SCALE**2) + mean
    assert 0 < one + math.log(5) - pinwheel.Source().entropy < 0.01


def test_the_entropy_of_the_pinwheel_is_the_mean_over_many_samples():
    distribution = pinwheel.Source()
    surprise = -distribution.density(distribution.draw(100_000, torch.Generator().manual_seed(1), torch.float64)).log()
    assert distribution.entropy == pytest.approx(
        surprise.mean().item(), abs=3 * surprise.std().item() / math.sqrt(100_000)
    )


@pytest.mark.parametrize("name", TOYS)
def test_the_density_in_float32_is_that_in_float64(name):
    distribution = source(name)
    x = distribution.draw(1_000, torch.Generator().manual_seed(0), torch.float32)
    assert distribution.density(x).dtype == torch.float32
    assert torch.allclose(distribution.density(x).double(), distribution.density(x.double()), rtol=2e-4)


@pytest.mark.parametrize("name", TOYS)
def test_the_entropy_is_the_mean_over_samples(name):
    distribution = source(name)
    x = distribution.draw(4_000, torch.Generator().manual_seed(0), torch.float64)
    surprise = -distribution.density(x).log()
    assert abs(distribution.entropy - surprise.mean().item()) < 3 * surprise.std().item() / math.sqrt(4_000) + 1e-9


@pytest.mark.numerics
@pytest.mark.parametrize("name", TOYS)
def test_the_density_integrates_to_one(name):
    axis = torch.arange(-299.5, 300, dtype=torch.float64) / 50
    distribution = source(name)
    assert distribution.density(torch.cartesian_prod(axis, axis)).sum().item() * 4e-4 == pytest.approx(1, abs=1e-8)


def test_density_of_moons_is_the_mean_of_gaussians():
    distribution, x = moons.Source(), torch.tensor([[0.0, 1.0], [0.5, 0.25]], dtype=torch.float64)
    nodes = distribution.curve((torch.arange(1024, dtype=torch.float64) + 0.5) / 1024)
    normal = torch.distributions.Independent(torch.distributions.Normal(nodes, distribution.noise), 1)
    assert torch.allclose(distribution.density(x), normal.log_prob(x[:, None]).exp().mean(1))
