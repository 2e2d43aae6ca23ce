"""A regression is judged by least squares, in the units of the data, whatever the batches."""

from __future__ import annotations

import json

import numpy
import pytest
import torch
from runs_kit import train_run
from torch import nn

from odenet_cli import data
from odenet_cli.data.common.labelled import Target
from odenet_cli.tasks import regression, task
from odenet_cli.tasks.regression import Determination
from odenet_cli.training.evaluate import evaluate

RNG = numpy.random.default_rng(1)
UNIT = Target((3.0, -1.0), (2.0, 10.0))


class Constant(nn.Module):
    def forward(self, x):
        return x[:, :2] * 0.5


class Split:
    """Batches of 3 of the same 10 samples, standardised."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.x, self.y = torch.randn(2, 10, 2, generator=generator, dtype=torch.float64)

    def __len__(self):
        return 4

    def epoch(self, number):
        return ((x, y, UNIT) for x, y in zip(self.x.split(3), self.y.split(3)))


def test_scores_are_those_of_all_samples_at_once_in_the_units_of_the_data():
    split, kept = Split(), {}
    scores = evaluate(Constant(), task("regression"), split, per_sample=kept)
    sd, mean = torch.tensor(UNIT.sd), torch.tensor(UNIT.mean)
    y, predicted = split.y * sd + mean, split.x * 0.5 * sd + mean
    assert scores["rmse"] == pytest.approx(float((predicted - y).square().mean().sqrt()))
    assert scores["loss"] == pytest.approx(float((split.x * 0.5 - split.y).square().mean()))
    explained = 1 - (predicted - y).square().sum(0) / (y - y.mean(0)).square().sum(0)
    assert scores["r2"] == pytest.approx(float(explained.mean()))
    assert torch.allclose(kept["predicted"], predicted)
    assert torch.allclose(kept["target"], y)
    assert set(regression.figure_data(None, None, kept)) == {"predicted", "target"}


def test_a_value_without_spread_has_no_determination():
    y = torch.full((5, 1), 1e6)
    assert Determination.of(torch.zeros(5, 1), y).item() is None
    assert Determination.of(torch.zeros(1, 1), y[:1]).item() is None


def test_the_loss_of_training_has_a_gradient_and_its_rmse_none():
    x = torch.randn(4, 2, requires_grad=True)
    loss, extra = regression.loss(Constant().train(), (x, torch.zeros(4, 2), UNIT))
    loss.backward()
    assert x.grad is not None
    assert not extra["rmse"].requires_grad


def test_a_linear_network_finds_the_least_squares_solution(tmp_path):
    """Stem and head of a network without blocks are a linear map, so the optimum is known in closed form."""
    x = RNG.normal(5, 3, (60, 3))
    y = 1e4 * (x @ [1.0, -2.0, 0.5] + 7 + RNG.normal(0, 0.5, 60))
    numpy.savez(tmp_path / "file.npz", x=x, y=y)
    words = ["data=arrays", f"data.path={tmp_path / 'file.npz'}", "model=resnet", "model.blocks=0", "model.width=2"]
    words += ["trainer.steps=300", "optim.lr=0.1", "dtype=float64", "device=cpu", "logger=none", "data.validation=0"]
    folder = train_run(tmp_path / "run", *words)
    record = json.loads((folder / "run.json").read_text())

    spec = {"batch_size": 54, "eval_batch_size": 9, "seed": 0, "device": torch.device("cpu"), "dtype": torch.float64}
    found = data.load("arrays", {"path": str(tmp_path / "file.npz"), "validation": 0.0}, **spec)
    (unit,), (mean,) = record["data"]["y_sd"], record["data"]["y_mean"]
    parts = [(part.rows[0].numpy(), part.rows[1].numpy() * unit + mean) for part in (found.train, found.test)]
    (x, y), (x_test, y_test) = [(numpy.column_stack([x, numpy.ones(len(x))]), y) for x, y in parts]
    best = numpy.linalg.lstsq(x, y, rcond=None)[0]
    expected = numpy.sqrt(numpy.mean((x_test @ best - y_test) ** 2))
    assert record["final"]["rmse"] == pytest.approx(expected, rel=1e-5)
    with numpy.load(folder / "predictions.npz") as kept:
        assert kept["predicted"] == pytest.approx(x_test @ best, abs=1e-4 * unit)
        assert kept["target"] == pytest.approx(y_test)
