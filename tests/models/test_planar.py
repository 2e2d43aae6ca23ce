"""Planar layers are invertible, and their log-determinants are those of their maps."""

import pytest
import torch

from odenet_cli.models import model
from odenet_cli.models.planar import PlanarLayer


def flow(direction, layers=8):
    torch.manual_seed(0)
    made = model(
        "planar", {"layers": layers, "direction": direction, "base_variance": 1.0}, shape=(2,), classes=0, solver=None
    )
    with torch.no_grad():
        for layer in made.layers:
            layer.u.normal_(0, 2), layer.w.normal_(0, 2), layer.b.normal_()
    return made.double()


def test_five_parameters_a_layer():
    assert sum(p.numel() for p in flow("noise_to_data", 32).parameters()) == 160


def test_the_log_determinant_is_autograds():
    layer, z = flow("noise_to_data").layers[0], torch.randn(20, 2, dtype=torch.float64)
    jacobian = torch.vmap(torch.func.jacrev(lambda p: layer(p[None])[0][0]))(z)
    assert torch.allclose(torch.linalg.slogdet(jacobian)[1], layer(z)[1], atol=1e-12)


def test_the_inverse():
    for layer in flow("noise_to_data").layers:
        z = 3 * torch.randn(200, 2, dtype=torch.float64)
        y, log_det = layer(z)
        back, same = layer.inverse(y)
        assert (back - z).abs().max() < 1e-5
        assert (same - log_det).abs().max() < 1e-4


@pytest.mark.parametrize("direction", ["noise_to_data", "data_to_noise"])
def test_samples_have_the_density_that_the_flow_says(direction):
    torch.manual_seed(1)
    made = flow(direction, 4)
    x, log_q = made.generate(torch.randn(100, 2, dtype=torch.float64))
    assert (made.log_prob(x) - log_q).abs().max() < 1e-4


def test_gradients_pass_the_inverse():
    torch.manual_seed(2)
    layer, y = PlanarLayer(2).double(), torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: layer.inverse(y)[0], (y,))
