"""The Poisson process with a latent rate: ∫λ comes out of the solve that makes the path."""

import pytest
import torch

from odenet_cli import models
from odenet_cli.config.presets import preset
from odenet_cli.errors import RequestError
from odenet_cli.ode import Adaptive, Stats, tally

OPTIONS = {key: value for key, value in preset("model", "latent_poisson")["model"].items() if key != "name"}


def build(rtol=1e-3, gradient="replay", **changes):
    torch.manual_seed(0)
    solver = Adaptive(method="dopri5", rtol=rtol, atol=rtol, gradient=gradient)
    made = models.model("latent_poisson", OPTIONS | changes, shape=(1,), classes=0, solver=solver).double()
    torch.nn.init.normal_(made.field.inner.layers[-1].weight)  # a path that goes somewhere
    return made


def batch(sequences=3, events=9):
    generator = torch.Generator().manual_seed(1)
    times = (5 * torch.rand(sequences, events, generator=generator, dtype=torch.float64)).sort(1).values
    bins = torch.linspace(0.1, 4.9, 25, dtype=torch.float64).repeat(sequences, 1)
    counts = torch.randn(sequences, 25, 1, generator=generator, dtype=torch.float64)
    grid = torch.linspace(0, 5, 2001, dtype=torch.float64).repeat(sequences, 1)
    return bins, counts, times, torch.ones_like(times, dtype=torch.bool), grid


@pytest.mark.parametrize(("rtol", "bound"), [(1e-3, 1e-2), (1e-6, 1e-4)])
def test_the_integral_is_that_of_quadrature(rtol, bound):
    network, x = build(rtol).eval(), batch()
    z0 = torch.randn(3, 4, dtype=torch.float64)
    z, total = network.solver(network.field, (z0, torch.zeros_like(z0[:, 0])), x[-1][0]).y
    rate = network.field.log_intensity(z).exp()
    assert rate.std(0).min() > 0.01 * rate.mean()
    by_quadrature = torch.trapezoid(rate, x[-1][0], dim=0)
    assert torch.allclose(total[-1], by_quadrature, rtol=bound)


def test_rates_at_the_events_are_those_of_the_path():
    network, (bins, counts, times, there, grid) = build(1e-8).eval(), batch()
    there[1, 5:] = False
    made = network.intensity(bins, counts, times, there, grid)
    assert (made.log_rate.shape, made.total.shape, made.path.shape) == ((3, 9), (3,), (3, 2001))
    alone = network.intensity(bins[1:2], counts[1:2], times[1:2, :5], there[1:2, :5], grid[1:2])
    assert torch.allclose(made.path[1], alone.path[0], rtol=1e-5)  # a path that grows errors a thousandfold


@pytest.mark.numerics
def test_its_gradient_is_the_same_by_every_way_back():
    found = []
    for gradient in ("backprop", "replay", "adjoint"):
        network = build(1e-8, gradient).train()
        torch.manual_seed(3)
        with tally() as solves:
            made = network.intensity(*batch())
            (made.total - made.log_rate.sum(1)).mean().backward()
        found.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
        assert made.path is None
        assert sum(solves, start=Stats()).nfe_forward > 0
    assert torch.allclose(found[1], found[0], rtol=1e-6, atol=1e-8)
    assert torch.allclose(found[2], found[0], rtol=1e-3, atol=1e-4 * float(found[0].abs().max()))


def test_a_rate_is_above_zero():
    with pytest.raises(RequestError, match=r"model\.rate=0"):
        build(rate=0.0)
