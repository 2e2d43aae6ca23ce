"""Planar layers are invertible, and their log-determinants are those of their maps."""

import pytest
import torch

from odenet_cli.models import model

ENOUGH = torch.float64


def flow(direction, layers=8):
    torch.manual_seed(0)
    options = {"layers": layers, "direction": direction, "base_variance": 1.0}
    made = model("planar", options, shape=(2,), classes=0, solver=None).to(ENOUGH)
    with torch.no_grad():
        made.u.normal_(0, 2), made.w.normal_(0, 2), made.b.normal_()
    return made


def test_five_parameters_a_layer():
    assert sum(p.numel() for p in flow("noise_to_data", 32).parameters()) == 160


def test_a_layer_is_the_papers():
    """z + û tanh(w·z + b) with û of appendix A.1, written out for one layer."""
    made, z = flow("noise_to_data", 1), torch.randn(20, 2, dtype=ENOUGH)
    u, w, b = made.u[0], made.w[0], made.b[0]
    u_hat = u + (torch.log(1 + torch.exp(w @ u)) - 1 - w @ u) * w / (w @ w)
    assert torch.allclose(made.transform(z)[0], z + u_hat * torch.tanh(z @ w + b)[:, None], atol=1e-12)


@pytest.mark.parametrize("layers", [1, 8])
def test_the_log_determinant_is_autograds(layers):
    made, z = flow("noise_to_data", layers), torch.randn(20, 2, dtype=ENOUGH)
    jacobian = torch.vmap(torch.func.jacrev(lambda p: made.transform(p[None])[0][0]))(z)
    assert torch.allclose(torch.linalg.slogdet(jacobian)[1], made.transform(z)[1], atol=1e-12)


def test_the_inverse():
    made, z = flow("noise_to_data"), 3 * torch.randn(200, 2, dtype=ENOUGH)
    for k in range(8):
        y, log_det = made.transform(z, range(k, k + 1))
        back, same = made.inverse(y, range(k, k + 1))
        assert (back - z).abs().max() < 1e-5
        assert (same - log_det).abs().max() < 1e-4


@pytest.mark.parametrize("direction", ["noise_to_data", "data_to_noise"])
def test_particles_pass_the_layers_in_order(direction):
    made, z = flow(direction), torch.randn(30, 2, dtype=ENOUGH)
    half, end = made.flow(z, (0.5, 1.0))
    assert torch.allclose(end, made.generate(z)[0], atol=1e-9)
    there = made.transform(z, range(4)) if direction == "noise_to_data" else made.inverse(z, range(4, 8))
    assert torch.equal(half, there[0])
    assert torch.equal(made.flow(z, (0.0,))[0], z)


@pytest.mark.numerics
@pytest.mark.parametrize("direction", ["noise_to_data", "data_to_noise"])
def test_samples_have_the_density_that_the_flow_says(direction):
    torch.manual_seed(1)
    made = flow(direction, 4)
    x, log_q = made.generate(torch.randn(100, 2, dtype=ENOUGH))
    assert (made.log_prob(x) - log_q).abs().max() < 1e-4


@pytest.mark.numerics
def test_gradients_pass_the_inverse():
    made, y = flow("noise_to_data", 1), torch.randn(5, 2, dtype=ENOUGH, requires_grad=True)
    assert torch.autograd.gradcheck(lambda y: made.inverse(y)[0], (y,))
