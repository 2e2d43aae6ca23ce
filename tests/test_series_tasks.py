"""The tasks of time series and of events: likelihoods as torch has them, and errors that mean what they say."""

import math

import pytest
import torch
from torch.distributions import Exponential, Normal

from odenet_cli.data._events import Events
from odenet_cli.data._series import FURTHER, WINDOW, Series
from odenet_cli.models._series import Forecast
from odenet_cli.tasks import events, series, task
from odenet_cli.training.evaluate import evaluate


class Says(torch.nn.Module):
    """A model that says what it is told, row by row of what it is asked about."""

    def __init__(self, **parts):
        super().__init__()
        self.parts = parts

    def forecast(self, times, values, seen, at=None):
        return Forecast(**{**self.parts, "path": None if at is None else self.parts["path"]})


def lines(slopes=((1.0, -2.0), (0.5, 0.0)), clean=True):
    """Straight lines from (1, 0), two features, seen at t = 0, 1, 2, 3; targets at those and at 4, 5."""
    at = torch.arange(6.0).repeat(2, 1)
    truth = torch.tensor([1.0, 0.0]) + at[..., None] * torch.tensor(slopes)[:, None]
    seen = torch.tensor([[True] * 4, [True, True, True, False]])
    scope = torch.tensor([[WINDOW] * 4 + [FURTHER] * 2, [WINDOW] * 3 + [FURTHER] * 3], dtype=torch.uint8)
    return Series(at[:, :4], truth[:, :4], seen, at, truth + 0.3, truth if clean else truth[..., :0], scope)


def test_the_likelihood_is_that_of_torch():
    x, mean, spread = torch.randn(3, 5, 2), torch.randn(3, 5, 2), torch.rand(3, 5, 2) + 0.1
    seen = torch.rand(3, 5) < 0.7
    expected = torch.stack(
        [-Normal(mean[n, seen[n]], spread[n, seen[n]]).log_prob(x[n, seen[n]]).sum() for n in range(3)]
    )
    assert torch.allclose(series.negative_log_likelihood(x, mean, spread, seen), expected, rtol=1e-5)


def test_the_loss_is_a_bound_with_its_divergence_weighted():
    x = lines()
    model = Says(mean=x.values, spread=torch.tensor(0.5), kl=torch.tensor([1.0, 3.0]), weight=0.25, path=None)
    loss, extra = task("series")(model.train(), tuple(x))
    nll = (4 + 3) / 2 * 2 * (math.log(0.5) + 0.5 * math.log(2 * math.pi))
    assert loss.item() == pytest.approx(nll + 0.25 * 2.0)
    assert {name: value.item() for name, value in extra.items()} == pytest.approx(
        {"nll": nll, "kl": 2.0, "rmse_observed": 0.0}
    )


def test_errors_inside_and_after_the_window():
    x = lines()
    path = x.clean + torch.where(x.scope == FURTHER, 0.4, 0.1)[..., None]
    found = {name: value.item() for name, value in series.errors(path, x).items()}
    assert found["rmse_window_clean"] == pytest.approx(0.1, rel=1e-5)
    assert found["rmse_window_noisy"] == pytest.approx(0.2, rel=1e-5)
    assert found["rmse_further_clean"] == pytest.approx(0.4, rel=1e-5)
    assert found["rmse_further_noisy"] == pytest.approx(0.1, rel=1e-5)
    targets = torch.cat((x.clean[0, 4:], x.clean[1, 3:]))
    assert found["relative_further"] == pytest.approx(0.4 / (targets - targets.mean(0)).square().mean().sqrt().item())
    assert found["rmse_velocity"] == pytest.approx(0.0, abs=1e-5)
    squares = [(1.0 + 4.0) * (1 + 4), 0.25 * (1 + 4 + 9)]  # 1 or 2 further on; 1, 2 or 3
    assert found["rmse_last_value"] == pytest.approx(math.sqrt(sum(squares) / 10), rel=1e-5)
    assert not any(name.endswith("clean") for name in series.errors(path, lines(clean=False)))


def test_constant_velocity_of_a_single_point_stands_still():
    times, values = torch.tensor([[0.0, 0.0]]), torch.tensor([[[2.0], [9.0]]])
    found = series.simple(times, values, torch.tensor([[True, False]]), torch.tensor([[1.0, 2.0]]))
    assert found["velocity"].flatten().tolist() == found["last_value"].flatten().tolist() == [2.0, 2.0]


def test_a_root_of_a_mean_square_is_one_over_the_whole_split():
    class Split:
        size = 4

        def epoch(self, number):
            yield (torch.tensor([1.0, 1.0, 1.0]),)
            yield (torch.tensor([3.0]),)

    def loss(model, batch):
        (x,) = batch
        return x.mean(), {"rmse_x": x.square().mean().sqrt(), "mean": x.mean()}

    scores = evaluate(torch.nn.Identity(), loss, Split())
    assert scores["rmse_x"] == pytest.approx(math.sqrt(3.0))
    assert scores["mean"] == pytest.approx(1.5)


def test_the_likelihood_of_a_constant_rate_is_that_of_waiting_times():
    rate, waits = 3.0, torch.tensor([0.2, 0.5, 0.1])
    times, end = waits.cumsum(0)[None], 2.0
    there = torch.ones(1, 3, dtype=torch.bool)
    found = events.negative_log_likelihood(torch.full((1, 3), rate).log(), torch.tensor([rate * end]), there)
    left = rate * (end - times[0, -1])  # no event after the last
    assert found.item() == pytest.approx((left - Exponential(rate).log_prob(waits).sum()).item(), rel=1e-6)


def test_the_gap_and_the_error_of_a_rate():
    grid = torch.linspace(0, 2, 5)[None]
    true = torch.full((1, 5), 4.0)
    there = torch.tensor([[True, True, False]])
    x = Events(
        *[torch.zeros(1, 1)] * 2, torch.tensor([[0.5, 1.0, 0.0]]), there, torch.full((1, 3), 4.0).log(), grid, true
    )

    class Off(torch.nn.Module):
        def intensity(self, *given):
            made = Says(kl=torch.tensor([0.5]), weight=1.0).parts
            return type(
                "Made", (), made | {"log_rate": x.log_rate + 1.0, "total": torch.tensor([10.0]), "path": true * 1.5}
            )

    loss, extra = task("events")(Off().eval(), tuple(x))
    nll = 10.0 - 2 * (math.log(4.0) + 1.0)
    assert loss.item() == pytest.approx(nll + 0.5)
    assert extra["rate_error"].item() == pytest.approx(0.5)
    assert extra["gap"].item() == pytest.approx((nll - (8.0 - 2 * math.log(4.0))) / 2)
