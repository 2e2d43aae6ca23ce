"""The latent ODE: its parts, one solve for all times, any solver and gradient, and what it keeps for backward."""

import copy

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from odenet_cli import models
from odenet_cli.config.presets import preset
from odenet_cli.errors import RequestError
from odenet_cli.models.common.latent import LatentField
from odenet_cli.models.common.series import kl_to_standard_normal
from odenet_cli.ode import Adaptive, Fixed, Stats, tally
from odenet_cli.ode.gradient.adjoint import Adjoint
from odenet_cli.training.memory import SavedMeter

OPTIONS = {key: value for key, value in preset("model", "latent_ode")["model"].items() if key != "name"}


def solver(rtol=1e-3, gradient="replay", method="dopri5"):
    return Adaptive(method=method, rtol=rtol, atol=rtol, gradient=gradient)


def build(one=None, dtype=torch.float64, **changes):
    torch.manual_seed(0)
    given = OPTIONS | changes
    return models.model("latent_ode", given, shape=(2,), classes=0, solver=one or solver()).to(dtype)


def batch(series=6, points=8, dtype=torch.float64, end=3.0):
    generator = torch.Generator().manual_seed(1)
    times = (end * torch.rand(series, points, generator=generator, dtype=torch.float64)).sort(1).values.to(dtype)
    values = torch.randn(series, points, 2, generator=generator, dtype=torch.float64).to(dtype)
    return times, values, torch.ones(series, points, dtype=torch.bool)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("layers", "parameters"), [(1, 184), (2, 604)])
def test_parameters_of_the_field(layers, parameters):
    assert count(LatentField(4, 20, layers)) == parameters
    assert count(build(layers=layers).field) == parameters


def test_the_divergence_is_that_of_torch():
    mean, log_spread = torch.randn(2, 5, 4, dtype=torch.float64)
    q = Independent(Normal(mean, log_spread.exp()), 1)
    p = Independent(Normal(torch.zeros_like(mean), torch.ones_like(mean)), 1)
    assert torch.allclose(kl_to_standard_normal(mean, log_spread), kl_divergence(q, p), rtol=1e-12)


@pytest.mark.parametrize("cell", ["rnn", "gru"])
def test_the_encoder_ignores_padding_and_the_order_of_the_batch(cell):
    network, (times, values, seen) = build(cell=cell), batch()
    seen[0, 5:], seen[3, 1:] = False, False
    whole = network.recognition(times, values, seen)
    alone = [network.recognition(t[s][None], v[s][None], s[s][None]) for t, v, s in zip(times, values, seen)]
    other = copy.deepcopy(values)
    other[~seen], times[~seen] = 1e3, -7.0
    turned = torch.tensor([4, 2, 0, 5, 1, 3])
    shuffled = network.recognition(times[turned], other[turned], seen[turned])
    for part, singles, parts in zip(whole, zip(*alone), shuffled):
        assert torch.allclose(part, torch.cat(singles), atol=1e-14)
        assert torch.allclose(part[turned], parts, atol=1e-14)


def test_the_encoder_runs_backwards_and_sees_times():
    network, (times, values, seen) = build(), batch()
    before, _ = network.recognition(times, values, seen)
    assert not torch.allclose(network.recognition(1.1 * times, values, seen)[0], before)
    states, _ = network.recognition.cell(torch.zeros(1, 1, 3, dtype=torch.float64))
    assert states.shape == (1, 1, 25)
    first, last = values.clone(), values.clone()
    first[:, 0], last[:, -1] = 3.0, 3.0
    moved = [(network.recognition(times, x, seen)[0] - before).norm() for x in (first, last)]
    assert moved[0] > 3 * moved[1]  # what comes first in time is read last


def test_one_solve_for_all_times_is_one_solve_a_series():
    rtol = 1e-8
    network, (times, values, seen) = build(solver(rtol)).eval(), batch()
    seen[2, 4:] = False
    at = torch.linspace(0, 6, 9, dtype=torch.float64).repeat(6, 1) + torch.arange(6, dtype=torch.float64)[:, None] / 7
    inside, later = (network.forecast(times, values, seen, targets).path for targets in (times, at))
    for n in range(6):
        row = slice(n, n + 1)
        keep = seen[n]
        z0, _ = network.recognition(times[row, keep], values[row, keep], seen[row, keep])
        for path, ts in ((inside[row, keep], times[n, keep]), (later[row], at[n])):
            assert torch.allclose(path, network.decoder(network.flow(z0, ts.tolist())), atol=100 * rtol)


def test_samples_of_the_prior():
    network = build().eval()
    drawn = [network.sample(5, [0.5, 1.0, 4.0], torch.Generator().manual_seed(3)) for _ in range(2)]
    assert drawn[0].shape == (5, 3, 2)
    assert torch.equal(*drawn)
    assert network.sample(2, [1.0]).shape == (2, 1, 2)


def test_training_draws_and_scoring_repeats():
    network, x = build(), batch()
    assert not torch.equal(network.forecast(*x).mean, network.forecast(*x).mean)
    assert int(network.updates) == 2
    network.eval()
    assert torch.equal(network.forecast(*x).mean, network.forecast(*x).mean)
    assert int(network.updates) == 2


def test_the_weight_of_the_divergence_rises():
    network, x = build(kl=0.5, warmup=4), batch()
    assert [float(network.forecast(*x).weight) for _ in range(6)] == [0.0, 0.125, 0.25, 0.375, 0.5, 0.5]
    assert network.eval().forecast(*x).weight == 0.5


def slopes(network, x):
    torch.manual_seed(5)
    with tally() as solves:
        made = network.forecast(*x)
        ((made.mean / made.spread).square().mean() + 0.1 * made.kl.mean()).backward()
    named = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
    return named, sum(solves, start=Stats())


@pytest.mark.parametrize(
    "one",
    [
        solver(1e-8, "backprop"),
        solver(1e-8, "adjoint"),
        solver(1e-8, "reversible"),
        solver(1e-8, "adjoint", "adams"),
        solver(1e-8, "replay", "tsit5"),
        Fixed(method="rk4", steps=4, gradient="adjoint"),
    ],
    ids=lambda one: f"{one.method}-{one.gradient}",
)
def test_any_solver_any_gradient(one):
    x = batch(3, 4)
    exact, _ = slopes(build(solver(1e-9)), x)
    found, _ = slopes(build(one), x)
    assert found.keys() == exact.keys()
    for name, part in exact.items():
        assert torch.allclose(found[name], part, atol=1e-5 * max(1.0, float(part.abs().max()))), name


def test_a_hundred_times_cost_no_evaluations_of_their_own():
    times = torch.linspace(0, 3.7, 100).repeat(50, 1)
    x = (times, torch.randn(50, 100, 2), torch.ones(50, 100, dtype=torch.bool))
    _, cost = slopes(build(dtype=torch.float32), x)
    assert cost.nfe_forward <= 50
    assert cost.nfe_backward <= 2.5 * cost.nfe_forward


def saved(network, x):
    with SavedMeter(list(network.parameters())) as meter:
        network.forecast(*x).mean.square().mean().backward()
    return 2**20 * meter.peak_mib


@pytest.mark.numerics
def test_of_many_times_the_adjoint_keeps_the_states_it_returned_and_nothing_else():
    series, points, latent = 20, 10, 4

    def at_times(many, one):
        _, values, seen = batch(series, points)
        times = torch.linspace(0, 3, points, dtype=torch.float64).repeat(series, 1)
        if many:
            times = times + torch.linspace(0, 0.1, series, dtype=torch.float64)[:, None]
        return saved(build(one), (times, values, seen))

    loose = Adjoint(solver=solver(1e-2))
    few, many = (at_times(many, solver(1e-3, loose)) for many in (False, True))
    states = (series * points - points) * series * latent * 8
    assert 0 <= many - few <= 1.1 * states
    tight = at_times(True, solver(1e-9, loose))
    assert tight <= 1.01 * many  # four times the steps
    assert at_times(True, solver(1e-9, "backprop")) > 2 * tight


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"latent": 0}, "model.latent=0"),
        ({"layers": 0}, "model.layers=0"),
        ({"sigma": 0.0}, "model.sigma=0.0"),
        ({"kl": -1.0}, "model.kl=-1.0"),
        ({"warmup": -1}, "model.warmup=-1"),
        ({"cell": "lstm"}, "model.cell=lstm"),
        ({"hiden": 3}, "Did you mean `hidden`"),
    ],
)
def test_a_bad_option_is_refused_by_its_name(change, part):
    with pytest.raises(RequestError, match=part):
        build(**change)


@pytest.mark.parametrize("name", ["latent_ode", "latent_poisson", "rnn", "rnn_dt"])
def test_images_are_no_series(name):
    options = {key: value for key, value in preset("model", name)["model"].items() if key != "name"}
    with pytest.raises(RequestError, match="is for time series"):
        models.model(name, options, shape=(1, 28, 28), classes=10, solver=solver())
