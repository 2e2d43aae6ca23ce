"""The likelihood's gradient is that of the likelihood: finite differences in float64 say so."""

import pytest
import torch

from odenet_cli.models import model
from odenet_cli.ode import Adaptive, Fixed

TOLERANCE = 1e-6


def flow(solver, divergence="analytic"):
    torch.manual_seed(0)
    options = {"units": 4, "hidden": 8, "spread": None, "horizon": 1.0, "divergence": divergence, "noise": "rademacher"}
    options |= {"divergence_in_norm": True, "base_variance": 1.0}
    made = model("cnf", options, shape=(2,), classes=0, solver=solver).double()
    with torch.no_grad():
        made.field.of_time[-1].weight.mul_(4)
    return made


def loss(made, x):
    torch.manual_seed(7)  # one draw of Hutchinson's noise
    return -made.log_prob(x).mean()


def along(made, x, direction, h=1e-4):
    """Slope of the loss along a direction of the parameters, by differences of fourth order."""
    own = [p.detach().clone() for p in made.parameters()]

    def at(scale):
        with torch.no_grad():
            for p, start, d in zip(made.parameters(), own, direction):
                p.copy_(start + scale * d)
            return loss(made, x).item()

    slope = (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)
    at(0.0)
    return slope


def pairs(made, exact, x):
    """The gradient along random unit directions, the slope there of the flow `exact`; and the gradient's norm."""
    grads = torch.autograd.grad(loss(made, x), list(made.parameters()))
    norm = torch.cat([g.flatten() for g in grads]).norm().item()
    found = []
    for _ in range(3):
        direction = [torch.randn_like(g) for g in grads]
        size = torch.cat([d.flatten() for d in direction]).norm()
        direction = [d / size for d in direction]
        ours = sum((g * d).sum().item() for g, d in zip(grads, direction))
        found.append((ours, along(exact, x, direction)))
    return found, norm


POINTS = torch.randn(16, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(
    ("gradient", "divergence"),
    [
        ("backprop", "analytic"),
        *(
            pytest.param(gradient, divergence, marks=pytest.mark.numerics)
            for gradient in ("backprop", "replay", "reversible")
            for divergence in ("analytic", "exact", "hutchinson")
            if (gradient, divergence) != ("backprop", "analytic")
        ),
    ],
)
def test_of_the_steps_taken(gradient, divergence):
    made = flow(Fixed(method="rk4", steps=6, gradient=gradient), divergence)
    found, norm = pairs(made, made, POINTS)
    assert norm > 0.1
    for ours, slope in found:
        assert ours == pytest.approx(slope, abs=1e-6 * norm)


@pytest.mark.numerics
@pytest.mark.parametrize("divergence", ["analytic", "exact", "hutchinson"])
def test_of_the_adjoint_to_its_tolerance(divergence):
    made = flow(Adaptive(method="dopri5", rtol=TOLERANCE, atol=TOLERANCE, gradient="adjoint"), divergence)
    found, norm = pairs(made, flow(Fixed(method="dopri5", steps=40), divergence), POINTS)
    for ours, slope in found:
        assert ours == pytest.approx(slope, abs=100 * TOLERANCE * norm)
