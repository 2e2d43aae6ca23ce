"""A continuous flow's log-density is the density of its samples."""

from __future__ import annotations

import math
import re

import pytest
import torch

from odenet_cli.models import model
from odenet_cli.models.cnf import ContinuousFlow, PlanarField
from odenet_cli.models.common.flow import AugmentedField, hutchinson_noise, log_normal
from odenet_cli.ode import Adaptive, tally

TIGHT = Adaptive(method="dopri5", rtol=1e-8, atol=1e-8)
STARTS = pytest.mark.parametrize(
    ("spread", "stretch"), [(None, 4.0), (2.0, 1.0)], ids=["torch's start, stretched", "the preset's start"]
)


class Linear(torch.nn.Module):
    """dz/dt = A z."""

    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.tensor([[0.3, -1.0], [0.6, -0.5]], dtype=torch.float64))

    def forward(self, t, z):
        return z @ self.a.T


def flow(units=8, solver=TIGHT, stretch=4.0, **changes):
    torch.manual_seed(0)
    options = {
        "units": units,
        "hidden": 32,
        "spread": None,
        "horizon": 1.0,
        "divergence": "analytic",
        "noise": "rademacher",
    }
    options |= {"divergence_in_norm": True, "base_variance": 1.0, **changes}
    made = model("cnf", options, shape=(2,), classes=0, solver=solver).double()
    with torch.no_grad():
        made.field.of_time[-1].weight.mul_(stretch)  # far enough from the identity to show an error
    return made


@pytest.mark.parametrize(("units", "count"), [(2, 1_516), (8, 2_704), (32, 7_456), (64, 13_792)])
def test_parameters_are_the_papers(units, count):
    assert sum(p.numel() for p in flow(units).parameters()) == count


@pytest.mark.numerics
@STARTS
def test_the_density_integrates_to_one(spread, stretch):
    x = torch.linspace(-9, 9, 181, dtype=torch.float64)
    made = flow(solver=Adaptive(method="dopri5", rtol=1e-5, atol=1e-5), spread=spread, stretch=stretch)
    with torch.no_grad():
        p = made.log_prob(torch.cartesian_prod(x, x)).exp()
    assert p.sum().item() * 0.1**2 == pytest.approx(1, abs=1e-3)


def test_a_linear_field_pushes_a_gaussian_to_a_gaussian():
    field = Linear()
    made, x = ContinuousFlow(field, (2,), TIGHT), torch.randn(64, 2, dtype=torch.float64)
    m = torch.linalg.matrix_exp(field.a.detach())
    exact = torch.distributions.MultivariateNormal(torch.zeros(2, dtype=torch.float64), m @ m.T).log_prob(x)
    assert (made.log_prob(x) - exact).abs().max() < 1e-6


@pytest.mark.numerics
@STARTS
def test_the_change_of_density_is_the_log_determinant_of_the_map(spread, stretch):
    made, z = flow(spread=spread, stretch=stretch), torch.randn(4, 2, dtype=torch.float64)
    _, log_q = made.generate(z)
    for one, value in zip(z, log_q):
        jacobian = torch.autograd.functional.jacobian(lambda p: made.generate(p[None])[0][0], one)
        assert (log_normal(one[None], 1.0) - torch.linalg.slogdet(jacobian)[1]).item() == pytest.approx(
            value.item(), abs=1e-6
        )


@pytest.mark.numerics
@STARTS
def test_there_and_back(spread, stretch):
    made, z = (
        flow(spread=spread, stretch=stretch),
        torch.randn(512, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),
    )
    with torch.no_grad():
        x, log_q = made.generate(z)
        assert (made.to_noise(x) - z).abs().max() < 3e-6
        assert (made.log_prob(x) - log_q).abs().max() < 1e-5


def test_the_analytic_divergence_is_the_traces_by_autograd():
    made, state = flow(), (torch.randn(9, 2, dtype=torch.float64), torch.zeros(9, dtype=torch.float64))
    t = torch.tensor(0.4, dtype=torch.float64)
    ours, exact = (AugmentedField(made.field, name)(t, state) for name in ("analytic", "exact"))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(ours, exact))


@pytest.mark.numerics
@pytest.mark.parametrize("kind", ["rademacher", "gaussian"])
def test_hutchinsons_estimate_is_unbiased(kind):
    torch.manual_seed(3)
    made, t = flow(), torch.tensor(0.4, dtype=torch.float64)
    z = torch.tensor([[0.3, -0.7]], dtype=torch.float64).expand(10_000, 2)
    state = (z, torch.zeros(10_000, dtype=torch.float64))
    found = AugmentedField(made.field, "hutchinson", hutchinson_noise(kind, z))(t, state)[1].detach()
    exact = made.field.with_divergence(t, z[:1])[1].item()
    assert abs(found.mean().item() - exact) <= 3 * found.std().item() / math.sqrt(10_000)


@pytest.mark.numerics
@pytest.mark.parametrize("gradient", ["backprop", "adjoint", "replay", "reversible"])
def test_as_a_quadrature_the_draw_changes_no_step(gradient):
    solver = Adaptive(method="dopri5", rtol=1e-5, atol=1e-5, gradient=gradient)
    made = flow(solver=solver, divergence="hutchinson", noise="gaussian", divergence_in_norm=False)
    x, counts = torch.randn(16, 2, dtype=torch.float64), set()
    for seed in range(5):
        torch.manual_seed(seed)
        with tally() as solves:
            made.log_prob(x).mean().backward()
        counts.add((solves[0].nfe_forward, solves[0].accepted))
    assert len(counts) == 1


def test_units_start_with_the_spread_that_is_asked_for():
    torch.manual_seed(0)
    _, w, b = PlanarField(2, 4000, 32, spread=2.0)._weights(torch.zeros(()))
    assert abs(torch.cat((w.flatten(), b)).std().item() - 2.0) < 0.1
    _, w, b = PlanarField(2, 4000, 32, spread=None)._weights(torch.zeros(()))
    assert torch.cat((w.flatten(), b)).std().item() < 0.3
    with pytest.raises(ValueError, match=r"model\.spread=-1"):
        PlanarField(2, 4, 4, spread=-1)


def test_a_field_without_its_divergence_is_told_what_to_do():
    with pytest.raises(ValueError, match=r"with_divergence.*use exact"):
        ContinuousFlow(Linear(), (2,), TIGHT, divergence="analytic")


@pytest.mark.parametrize("shape", [(4, 2, 2), (4, 3), (2,)])
def test_points_of_other_dimensions_have_no_density(shape):
    """A linear field takes (4, 2, 2), and would give each four numbers the density of two points."""
    options = {"layers": 1, "direction": "noise_to_data", "base_variance": 1.0}
    planar = model("planar", options, shape=(2,), classes=0, solver=None).double()
    for made in (ContinuousFlow(Linear(), (2,), TIGHT), planar):
        with pytest.raises(ValueError, match=re.escape(f"x has shape {shape}; this network takes (B, 2).")):
            made.log_prob(torch.randn(shape, dtype=torch.float64))


@pytest.mark.parametrize("method", ["generate", "to_noise", "flow"])
def test_noise_of_other_dimensions_is_no_sample(method):
    flow = ContinuousFlow(Linear(), (2,), TIGHT)
    given = (torch.randn(4, 2, 2, dtype=torch.float64), *([[0.5, 1.0]] if method == "flow" else []))
    with pytest.raises(ValueError, match=r"x has shape \(4, 2, 2\); this network takes \(B, 2\)\."):
        getattr(flow, method)(*given)
