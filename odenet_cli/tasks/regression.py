"""Regression: mean squared error of standardised values, RMSE in the data's own units, and R².

A batch is (x (B, *S), y (B, K) standardised, the units of y: `mean` and `sd` of each value).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from odenet_cli.ode.scalars import widest
from odenet_cli.tasks.common.scores import PerSample, RootMean, Score

NEEDS = ("forward",)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor, Any]) -> tuple[Tensor, dict[str, Tensor | Score]]:
    """Return the mean squared error in standard deviations of y, and the RMSE over all K values.

    Outside of training also R², and the `predicted` values and `target` of every sample.
    """
    x, y, unit = batch
    predicted = model(x)
    squared = F.mse_loss(predicted, y)
    sd = y.new_tensor(unit.sd)
    residual = sd * (predicted.detach() - y)
    if model.training:
        return squared, {"rmse": residual.square().mean().sqrt()}
    mean = y.new_tensor(unit.mean)
    return squared, {
        "rmse": RootMean.of(residual),
        "r2": Determination.of(residual, y * sd),
        "predicted": PerSample((predicted * sd + mean,)),
        "target": PerSample((y * sd + mean,)),
    }


@dataclass(frozen=True)
class Determination:
    """R², the mean over K values of 1 - Σ residual² / Σ (y - ȳ)²; None if a y is constant.

    Sums about a mean are merged as by Chan, Golub & LeVeque, "Algorithms for computing the sample variance", Am. Stat.
    37 (1983).

    mean, scatter, residual  (K,) mean of y, sum of squares about the mean, and sum of squared residuals
    """

    count: int
    mean: Tensor
    scatter: Tensor
    residual: Tensor

    @classmethod
    def of(cls, residual: Tensor, y: Tensor) -> Determination:
        """Return the score of residuals and values (N, K)."""
        y, residual = y.to(widest(y.device)), residual.to(widest(y.device))
        mean = y.mean(0)
        return cls(len(y), mean, (y - mean).square().sum(0), residual.square().sum(0))

    def __add__(self, other: Determination) -> Determination:
        count, shift = self.count + other.count, other.mean - self.mean
        between = shift.square() * (self.count * other.count / count)
        return Determination(
            count,
            self.mean + shift * (other.count / count),
            self.scatter + other.scatter + between,
            self.residual + other.residual,
        )

    def item(self) -> float | None:
        spread = bool((self.scatter > 1e-24 * self.count * self.mean.square()).all())
        return float((1 - self.residual / self.scatter).mean()) if spread and self.count > 1 else None


def figure_data(model: nn.Module, data: Any, per_sample: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return predictions and targets of all test samples, (N, K) in the data's units."""
    return {name: per_sample[name] for name in ("predicted", "target")}
