"""Time series: the likelihood of what was observed, and the error of what is predicted inside the window and after it.

A model of series has a method `forecast` of times, values, observed_mask and, where they are asked for, target_times,
all as in `data.common.series`. It says `mean` and `spread` of the observations, for a latent variable its divergence
`kl` and the `weight` of it, and the `path` at the times asked for.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from odenet_cli.data.common.series import FURTHER, IN_TRAINING_RANGE, WINDOW, Series
from odenet_cli.tasks.common.scores import Deviation, Relative, RootMean, Score

NEEDS = ("forecast",)
SHOWN, FINE = 8, 400  # series of the figure, and times of a line in it
SCOPES = {"window": (WINDOW,), "further": (FURTHER, IN_TRAINING_RANGE), "familiar": (IN_TRAINING_RANGE,)}


def loss(model: Any, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor | Score]]:
    """-log p(x) of a series, or its bound -E[log p(x | z)] + weight · KL, a mean over the batch; errors beside it."""
    x = Series(*batch)
    forecast = model.forecast(x.times, x.values, x.observed_mask, None if model.training else x.target_times)
    nll = negative_log_likelihood(x.values, forecast.mean, forecast.spread, x.observed_mask).mean()
    extra, total = {"nll": nll.detach()}, nll
    if forecast.kl is not None:
        kl = forecast.kl.mean()
        extra["kl"], total = kl.detach(), nll + forecast.weight * kl
    if model.training:
        return total, {**extra, "rmse_observed": rmse(forecast.mean.detach(), x.values, x.observed_mask)}
    return total, {**extra, **errors(forecast.path.detach(), x)}


def negative_log_likelihood(x: Tensor, mean: Tensor, spread: Tensor, observed_mask: Tensor) -> Tensor:
    """-log N(x; mean, spread²) of the observations, summed over each series: (B, N, D) -> (B,)."""
    each = 0.5 * ((x - mean) / spread).square() + spread.log() + 0.5 * math.log(2 * math.pi)
    return each.where(observed_mask[..., None], 0).sum((1, 2))


def rmse(found: Tensor, wanted: Tensor, where: Tensor) -> Tensor:
    """Root mean square of the difference, over samples, times and coordinates."""
    square = (found - wanted).square().where(where[..., None], 0)
    return (square.sum() / (where.sum() * found.shape[2]).clamp_min(1)).sqrt()


def errors(path: Tensor, x: Series) -> dict[str, Score]:
    """RMSE against clean and noisy targets inside and after the window; the first of them also by the targets' standard
    deviation, if they have one; and, after the window, that of predictors that know no model."""
    truths = {"clean": x.clean, "noisy": x.noisy} if x.clean.shape[2] else {"noisy": x.noisy}
    best = next(iter(truths.values()))
    found: dict[str, Score] = {}
    for name, codes in SCOPES.items():
        where = torch.isin(x.scope, torch.tensor(codes, dtype=x.scope.dtype, device=x.scope.device))
        if not where.any():
            continue
        for kind, truth in truths.items():
            found[f"rmse_{name}_{kind}"] = RootMean.of((path - truth)[where])
        found[f"relative_{name}"] = Relative(RootMean.of((path - best)[where]), Deviation.of(best[where]))
    if "relative_further" in found:
        for name, guess in simple(x.times, x.values, x.observed_mask, x.target_times).items():
            found[f"rmse_{name}"] = RootMean.of((guess - best)[x.scope >= FURTHER])
    return found


def simple(times: Tensor, values: Tensor, observed_mask: Tensor, at: Tensor) -> dict[str, Tensor]:
    """What anyone would guess at (B, M): the last value, and constant velocity, by a straight line through the last
    quarter of the window, or the last two observations where that holds only one."""
    last = observed_mask.sum(1, keepdim=True) - 1
    end, before = times.gather(1, last), times.gather(1, (last - 1).clamp_min(0))
    final = values.gather(1, last[..., None].expand(-1, -1, values.shape[2]))
    weight = (observed_mask & (times >= torch.minimum(0.75 * end, before))).to(values)
    total = weight.sum(1, keepdim=True)
    middle = (weight * times).sum(1, keepdim=True) / total
    centre = (weight[..., None] * values).sum(1, keepdim=True) / total[..., None]
    moved = weight * (times - middle)
    spread = (moved * (times - middle)).sum(1)[:, None, None]
    slope = (moved[..., None] * (values - centre)).sum(1, keepdim=True) / spread.clamp_min(1e-12)
    return {
        "last_value": final.expand(-1, at.shape[1], -1),
        "velocity": centre + slope * (at - middle)[..., None],
    }


@torch.no_grad()
def figure_data(model: Any, data: Any) -> dict[str, Tensor]:
    """A few held-out series: what was observed of them, the truth where it is known, and the model's path between."""
    x = Series(*(row[:SHOWN] for row in next(iter(data.test.epoch(0)))))
    share = torch.linspace(0, 1, FINE, device=x.target_times.device, dtype=x.target_times.dtype)
    fine = x.target_times.amax(1, keepdim=True) * share
    path = model.forecast(x.times, x.values, x.observed_mask, fine).path
    end = x.target_times.where(x.scope == WINDOW, 0).amax(1)
    known = x._asdict()
    # The names that saved figures of runs use.
    known |= {"seen": known.pop("observed_mask"), "at": known.pop("target_times")}
    return {**known, "fine": fine, "path": path, "end": end}
