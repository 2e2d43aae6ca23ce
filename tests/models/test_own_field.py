"""`model.field`: a user's own vector field takes the place of a model's, and FFJORD's that of the paper's flow."""

import math
import sys

import pytest
import torch

from odenet_cli import models
from odenet_cli.errors import RequestError
from odenet_cli.models.cnf import CNF
from odenet_cli.models.common.concat_squash import ConcatSquash, ConcatSquashField
from odenet_cli.models.common.flow import AugmentedField, hutchinson_noise, log_normal
from odenet_cli.ode import Adaptive

TIGHT = Adaptive(method="dopri5", rtol=1e-9, atol=1e-9)
FLOW = {"units": 8, "hidden": 8, "spread": 2.0, "horizon": 1.0, "divergence": "analytic", "noise": "rademacher"}
FLOW |= {"divergence_in_norm": True, "base_variance": 1.0}
LATENT = {"latent": 3, "rnn": 5, "cell": "rnn", "hidden": 4, "layers": 1, "kl": 1, "warmup": 0}
OTHERS = {
    "odenet": ((1, 28, 28), 10, {"stem": "conv", "width": 4, "augment": 2}, (6, 6, 6)),
    "odenet_dense": ((5,), 10, {"stem": "conv", "width": 4, "augment": 2}, (6,)),
    "latent_ode": ((2,), 0, {**LATENT, "sigma": None}, (3,)),
    "latent_poisson": ((1,), 0, {**LATENT, "rate": 5.0}, (3,)),
}
MODULE = """
import torch
class Linear(torch.nn.Module):
    def __init__(self, shape, scale: float = 0.4):
        super().__init__()
        self.a = torch.nn.Parameter(scale * torch.randn(shape[0], shape[0]))
        self.seen = shape
    def forward(self, t, y):
        return torch.einsum("ij,bj...->bi...", self.a, y)
class Narrow(Linear):
    def forward(self, t, y):
        return super().forward(t, y)[:, :1]
class Double(Linear):
    def forward(self, t, y):
        return super().forward(t, y).double()
class Unfinished(Linear):
    def forward(self, t, y):
        return self.missing(y)
class Hamiltonian(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.ones(2))
    def forward(self, t, y):
        (gradient,) = torch.autograd.grad((self.a * y.square()).sum(), y, create_graph=True)
        return torch.stack((gradient[:, 1], -gradient[:, 0]), 1)
"""


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    (tmp_path / "own_fields.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield
    sys.modules.pop("own_fields", None)


def flow(dim, field, solver=TIGHT, **options):
    torch.manual_seed(0)
    return models.model("cnf", {**FLOW, "field": field, **options}, shape=(dim,), classes=0, solver=solver).double()


def own_linear(dim, **options):
    return flow(dim, "own_fields:Linear", **options)


@pytest.mark.parametrize("dim", [1, 2, 5, 9])
def test_a_linear_field_of_ones_own_gives_the_gaussian_it_makes(dim):
    """x = exp(A) z for z ~ N(0, I); in evaluation, whatever the flow trains with."""
    made = own_linear(dim).eval()
    assert made.divergence == ("exact" if dim < 5 else "hutchinson")
    x, m = torch.randn(16, dim, dtype=torch.float64), torch.linalg.matrix_exp(made.field.a.detach())
    exact = torch.distributions.MultivariateNormal(x.new_zeros(dim), m @ m.T).log_prob(x)
    assert (made.log_prob(x) - exact).abs().max() < 1e-7


def test_in_training_one_noise_is_held_for_the_whole_solve():
    """Of a linear field the estimate of the trace, εᵀAε, is then the same at every time."""
    made = own_linear(6, noise="gaussian").train()
    x = torch.randn(8, 6, dtype=torch.float64)
    torch.manual_seed(5)
    estimated = made.log_prob(x)
    torch.manual_seed(5)
    noise = hutchinson_noise("gaussian", x)
    a = made.field.a
    z = x @ torch.linalg.matrix_exp(-a).T
    assert (log_normal(z, 1.0) - ((noise @ a.T) * noise).sum(1) - estimated).abs().max() < 1e-7


@pytest.mark.parametrize(("kind", "variance"), [("rademacher", 0), ("gaussian", 2)])
def test_hutchinsons_estimate_is_unbiased_and_has_its_variance(kind, variance):
    """Mean tr A; variance 2 Σ_(i≠j) S_ij² for signs, 2 Σ_ij S_ij² for normal numbers, S the symmetric part of A."""
    made, n = own_linear(7), 40_000
    z = torch.randn(1, 7, dtype=torch.float64).expand(n, 7)
    noise = hutchinson_noise(kind, z)
    _, found = AugmentedField(made.field, "hutchinson", noise)(torch.zeros(()), (z, z[:, 0]))
    a = made.field.a.detach()
    s = (a + a.T) / 2
    expected = 2 * s.square().sum() - (2 - variance) * s.diag().square().sum()
    assert abs(found.mean() - a.trace()) < 4 * (expected / n).sqrt()
    assert found.var().item() == pytest.approx(expected.item(), rel=0.05)


def test_concatsquash_is_its_equation():
    layer, z, t = ConcatSquash(3, 2), torch.randn(4, 3), torch.tensor(0.3)
    gate = torch.sigmoid(layer.gate.weight[:, 0] * t + layer.gate.bias)
    expected = (z @ layer.linear.weight.T + layer.linear.bias) * gate + layer.shift.weight[:, 0] * t
    assert torch.allclose(layer(t, z), expected)
    sizes = [(5, 8), (8, 8), (8, 5)]
    assert sum(p.numel() for p in ConcatSquashField(5, 8, 2).parameters()) == sum(i * o + 4 * o for i, o in sizes)


def test_the_exact_divergence_is_the_trace_of_the_jacobian():
    made, t = flow(6, "concatsquash", layers=2), torch.tensor(0.4, dtype=torch.float64)
    z = torch.randn(5, 6, dtype=torch.float64)
    _, found = AugmentedField(made.field, "exact")(t, (z, z[:, 0]))
    for point, value in zip(z, found):
        jacobian = torch.autograd.functional.jacobian(lambda one: made.field(t, one[None])[0], point)
        assert value.item() == pytest.approx(jacobian.trace().item(), abs=1e-12)


def test_the_divergence_follows_from_field_and_dimension():
    def chosen(dim, field, **options):
        return flow(dim, field, **options).divergence

    assert chosen(9, None, divergence="auto") == "analytic"
    assert chosen(2, "concatsquash") == chosen(4, "concatsquash") == "exact"
    assert chosen(5, "concatsquash") == "hutchinson"
    assert chosen(9, "concatsquash", divergence="exact") == "exact"
    assert len(flow(2, "concatsquash").field.layers) == 4


def test_units_are_spread_alike_in_every_dimension():
    """w·z of a standard normal z has the standard deviation that it has in the plane."""
    for dim in (2, 50):
        w = flow(dim, None, units=400).field.of_time[-1].bias[dim * 400 : 2 * dim * 400].view(400, dim)
        z = torch.randn(1000, dim, dtype=torch.float64)
        assert (z @ w.T).std().item() == pytest.approx(2.0 * math.sqrt(2), rel=0.1)


@pytest.mark.parametrize("name", OTHERS)
def test_every_model_with_a_field_takes_ones_own(name):
    shape, classes, options, state = OTHERS[name]
    words = {**options, "field": "own_fields:Linear", "field_args": {"scale": 0.1}}
    made = models.model(name.removesuffix("_dense"), words, shape=shape, classes=classes, solver=TIGHT)
    (field,) = (module for module in made.modules() if type(module).__name__ == "Linear" and hasattr(module, "seen"))
    assert field.seen == state
    assert 0 < field.a.abs().max() < 0.5
    with torch.device("meta"):
        models.model(name.removesuffix("_dense"), words, shape=shape, classes=classes, solver=TIGHT)


def test_a_field_that_differentiates_is_taken():
    made = flow(2, "own_fields:Hamiltonian").eval()
    x = torch.randn(8, 2, dtype=torch.float64)
    assert (made.log_prob(x) - log_normal(x, 1.0)).abs().max() < 1e-8  # a rotation


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize(
    ("field", "options", "part"),
    [
        ("own_fields:Narrow", {}, r"model\.field=own_fields:Narrow, called .*\(2, 3\) .*returned \(2, 1\)"),
        ("own_fields:Double", {}, r"\(2, 3\) torch\.float32; it returned \(2, 3\) torch\.float64"),
        ("own_fields:Unfinished", {}, r"no attribute 'missing'\n.*own_fields\.py, line \d+, in forward"),
        ("own_fields:Gone", {}, r"model\.field: own_fields has no Gone"),
        ("own_fields", {}, r"model\.field=own_fields must read package\.module:Class"),
        ("own_fields:Linear", {"wide": 2}, r"model\.field_args\.wide is not an option"),
        ("own_fields:Linear", {"scale": "x"}, r"model\.field_args\.scale='x' is not a number"),
        (None, {"scale": 2.0}, r"model\.field_args are options of your own field"),
    ],
)
def test_a_field_that_does_not_fit_is_refused_before_there_are_data(field, options, part, device):
    with torch.device(device), pytest.raises(RequestError, match=part):
        flow(3, field, field_args=options)


def test_layers_are_those_of_concatsquash():
    with pytest.raises(RequestError, match=r"model\.layers=2 is an option of model\.field=concatsquash"):
        flow(2, None, layers=2)
    with pytest.raises(ValueError, match=r"model\.layers=0 must be at least 1"):
        CNF((2,), TIGHT, **FLOW, field="concatsquash", layers=0)
