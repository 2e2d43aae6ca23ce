"""The tasks of time series and of events: likelihoods as torch has them, and errors that mean what they say."""

import math

import pytest
import torch
from torch.distributions import Exponential, Normal

from odenet_cli.data.common.events import Events
from odenet_cli.data.common.series import FURTHER, IN_TRAINING_RANGE, PADDING, WINDOW, Series
from odenet_cli.models.common.series import Forecast
from odenet_cli.tasks import events, series, task
from odenet_cli.tasks.common.scores import RootMean
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
    found = series.baselines(times, values, torch.tensor([[True, False]]), torch.tensor([[1.0, 2.0]]))
    assert found["velocity"].flatten().tolist() == found["last_value"].flatten().tolist() == [2.0, 2.0]


class TensorSplit:
    """Rows in batches of so many."""

    def __init__(self, rows, batch):
        self.rows, self.batch = rows, batch

    def __len__(self):
        return len(self.rows[0].split(self.batch))

    def epoch(self, number):
        return zip(*(part.split(self.batch) for part in self.rows))


def test_a_root_of_a_mean_square_is_one_over_the_whole_split():
    def loss(model, batch):
        (x,) = batch
        return x.mean(), {"rmse_x": RootMean.of(x), "mean": x.mean()}

    scores = evaluate(torch.nn.Identity(), loss, TensorSplit([torch.tensor([1.0, 1.0, 1.0, 3.0])], 3))
    assert scores["rmse_x"] == pytest.approx(math.sqrt(3.0))
    assert scores["mean"] == pytest.approx(1.5)


class Guesses(torch.nn.Module):
    """Draws nothing: nine tenths of each value, and a path from the last of them on."""

    def forecast(self, times, values, seen, at=None):
        kl, last = values.square().sum((1, 2)), values.gather(1, seen.sum(1)[:, None, None].expand(-1, 1, 2) - 1)
        return Forecast(0.9 * values, torch.tensor(0.5), kl, 0.5, last + at.sin()[..., None])


def irregular(clean):
    """Seven series with 2 to 6 observations and 0 to 8 targets, in scopes at random; two end with the window."""
    draw = torch.Generator().manual_seed(3)
    times, at = (torch.rand(7, n, generator=draw, dtype=torch.float64).sort(1).values for n in (6, 8))
    values, truth = (torch.randn(7, n, 2, generator=draw, dtype=torch.float64) + 5 for n in (6, 8))
    seen = torch.arange(6) < torch.tensor([2, 6, 3, 4, 5, 2, 6])[:, None]
    scope = torch.randint(1, 4, (7, 8), generator=draw).sort(1).values
    scope[:2] = WINDOW
    scope[torch.arange(8) >= torch.tensor([8, 3, 5, 1, 0, 7, 8])[:, None]] = PADDING
    noisy = truth + torch.randn(7, 8, 2, generator=draw, dtype=torch.float64)
    return Series(times, values, seen, 3 + at, noisy, truth if clean else truth[..., :0], scope.to(torch.uint8))


def without_cost(scores):
    return {name: value for name, value in scores.items() if name != "time_s"}


@pytest.mark.parametrize("clean", [True, False])
def test_scores_of_irregular_series_do_not_depend_on_the_batches(clean):
    x = irregular(clean)
    one, three, whole = (without_cost(evaluate(Guesses(), task("series"), TensorSplit(x, n))) for n in (1, 3, 7))
    assert one == pytest.approx(whole, rel=1e-12)
    assert three == pytest.approx(whole, rel=1e-12)
    kinds = ("clean", "noisy") if clean else ("noisy",)
    assert {f"rmse_{scope}_{kind}" for scope in series.SCOPES for kind in kinds} < whole.keys()
    assert {"loss", "nll", "kl", "relative_window", "relative_familiar", "rmse_velocity"} < whole.keys()
    where, path = x.scope >= FURTHER, Guesses().forecast(*x[:4]).path
    wanted = x.clean if clean else x.noisy
    assert whole[f"rmse_further_{kinds[0]}"] == pytest.approx(series.rmse(path, wanted, where).item(), rel=1e-12)
    spread = wanted[where].std(0, correction=0).square().mean().sqrt().item()
    assert whole["relative_further"] == pytest.approx(whole[f"rmse_further_{kinds[0]}"] / spread, rel=1e-12)
    assert (x.scope == IN_TRAINING_RANGE).any()


def test_targets_without_spread_have_no_relative_error():
    x = irregular(clean=True)
    still = x._replace(clean=torch.full_like(x.clean, 0.3).where(x.scope[..., None] != WINDOW, x.clean))
    alone = x._replace(scope=torch.zeros_like(x.scope))
    alone.scope[0, 0], alone.scope[0, 1] = WINDOW, FURTHER
    for n in (1, 3, 7):
        scores = evaluate(Guesses(), task("series"), TensorSplit(still, n))
        assert "relative_window" in scores
        assert not {"relative_further", "relative_familiar"} & scores.keys()
        assert {"rmse_further_clean", "rmse_last_value", "rmse_velocity"} < scores.keys()
        assert not any(
            name.startswith("relative") for name in evaluate(Guesses(), task("series"), TensorSplit(alone, n))
        )


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
