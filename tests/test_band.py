"""The band of 90 % holds 90 % of what comes, however wrong the model's own spread is."""

from __future__ import annotations

import re

import pytest
import torch
from runs_kit import train_run

from odenet_cli.commands import predict
from odenet_cli.data.common.series import FURTHER, PADDING, WINDOW, Series
from odenet_cli.data.common.splits import Data, TensorSplit
from odenet_cli.tasks.common import band
from odenet_cli.tasks.series import calibrate

WRONG = torch.tensor([0.1, 4.0])  # the model's spread beside the true one, by column


class Guess(torch.nn.Module):
    """Draw around 0 with a spread that is wrong, and a skewed one in the second column."""

    def __init__(self):
        super().__init__()
        self.none = torch.nn.Parameter(torch.zeros(()))

    def draw(self, times, values, mask, target_times, count, generator):
        noise = torch.randn(count, *target_times.shape, 2, generator=generator)
        return WRONG * torch.stack((noise[..., 0], noise[..., 1].exp()), -1)


def series(count, seed):
    """Noise of spread 1 in the window, 1.2 to 5 behind it, whatever was observed; the last point is padding."""
    generator = torch.Generator().manual_seed(seed)
    times = torch.arange(40.0).expand(count, -1)
    scope = torch.where(torch.arange(40) < 20, WINDOW, FURTHER).to(torch.uint8).repeat(count, 1)
    scope[:, -1] = PADDING
    spread = torch.where(scope == WINDOW, 1.0, 1.0 + (times - 19) / 5)
    true = torch.randn(count, 40, 2, generator=generator) * spread[..., None]
    true[:, 3, 0] = float("nan")
    true[:, -1] = 1e6
    mask = torch.ones(count, 20, dtype=torch.bool)
    return Series(times[:, :20], true[:, :20], mask, times, true, true[..., :0], scope)


def data(valid):
    split = TensorSplit(rows=valid, batch_size=7)
    return Data(train=split, valid=split, test=split, shape=(2,), classes=0, task="series", record={})


@pytest.mark.parametrize("count", [201, 21, 2])
def test_quantiles_are_those_of_torch(count):
    draws = torch.randn(count, 3, 2, dtype=torch.float64)
    levels = torch.tensor(band.LEVELS, dtype=torch.float64)
    torch.testing.assert_close(band.quantiles(draws), torch.quantile(draws, levels, dim=0))


def test_a_scaled_band_holds_nine_tenths_of_other_series():
    """In the window, and at all times behind it: one factor for all of these held 0.99 near by and 0.75 far out."""
    record, test = calibrate(Guess(), data(series(48, 0))), series(500, 1)
    factors = band.Factors(*(torch.tensor(record[key]) for key in band.Factors._fields))
    draws = Guess().draw(None, None, None, test.target_times, 100, torch.Generator().manual_seed(2))
    low, _, high = band.scaled(band.quantiles(draws), factors.at(test.target_times[0] - 19))
    inside, known = (test.noisy >= low) & (test.noisy <= high), ~test.noisy.isnan()
    for part, off in ((slice(20), 0.02), (slice(20, 24), 0.05), (slice(24, 34), 0.03), (slice(34, 39), 0.05)):
        for k in range(2):
            assert float(inside[:, part, k][known[:, part, k]].float().mean()) == pytest.approx(0.9, abs=off)
    assert factors.window[0] == pytest.approx(10, rel=0.15)
    assert factors.leads.tolist() == [2.5, 6.5, 10.5, 14.5, 18.0]
    assert factors.further[:, 0] == pytest.approx(10 + 2 * factors.leads, rel=0.2)


def test_of_too_few_observations_there_is_no_factor():
    few = Series(*(part[:1] for part in series(2, 0)))
    factors = calibrate(Guess(), data(few))
    assert factors["further"] == [[None, None]]  # of 19
    assert factors["window"][0] is None
    assert factors["window"][1] > 0  # of 20


def test_without_validation_series_there_is_none():
    empty = Series(*(part[:0] for part in series(2, 0)))
    assert calibrate(Guess(), data(empty)) == {}
    assert calibrate(torch.nn.Linear(1, 1), data(series(2, 0))) == {}


@pytest.mark.numerics
def test_the_band_of_a_trained_latent_ode_holds(tmp_path, capsys):
    """Damped oscillations with noise, few and short training: of other series as many fall outside as should."""
    generator = torch.Generator().manual_seed(0)

    def table(count, path):
        t = torch.rand(count, 30, generator=generator).mul(8).sort(1).values
        phase, size = 6.3 * torch.rand(count, 1, generator=generator), 0.5 + torch.rand(count, 1, generator=generator)
        x = size * (-0.2 * t).exp() * (2 * t + phase).cos() + 0.05 * torch.randn(count, 30, generator=generator)
        rows = [f"s{n},{float(a):.5f},{float(b):.5f}" for n in range(count) for a, b in zip(t[n], x[n])]
        path.write_text("\n".join(["series,time,x", *rows]))
        return f"data.path={path}"

    own, other = table(80, tmp_path / "own.csv"), table(60, tmp_path / "other.csv")
    words = ("model=latent_ode", "data=table", own, "data.validation=0.4", "device=cpu", "compile=false")
    folder = train_run(tmp_path / "run", *words, "trainer.epochs=null", "trainer.steps=150")
    assert predict.main([str(folder), f"out={tmp_path / 'out.csv'}", other]) == 0
    not_seen, seen = (float(x) for x in re.findall(r"([\d.]+)% of 900 observations", capsys.readouterr().out))
    assert 80 <= not_seen <= 97
    assert 80 <= seen <= 97
