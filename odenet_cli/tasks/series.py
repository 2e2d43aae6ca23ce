"""Time series: the likelihood of what was observed, and the error of what is predicted inside the window and after it.

A model of series has a method `forecast(times, values, observed_mask, target_times)`, target_times None in training
(layout: `data.common.series.Series`), and `control=` if there are controls. It returns `mean` and `spread` of the
observations, `kl` and its `weight` for a latent variable, and the `path` at the target times. It may also have
`draw(times, values, observed_mask, target_times, count, generator)`, which returns draws (count, B, M, D) of future
observations, as needed by `odenet predict`.
"""

from __future__ import annotations

import math
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from odenet_cli.data.common.series import FURTHER, IN_TRAINING_RANGE, WINDOW, Series, control_of
from odenet_cli.tasks.common import band
from odenet_cli.tasks.common.scores import Deviation, Relative, RootMean, Score

NEEDS = ("forecast",)
SHOWN, FINE = 8, 400  # series of the figure, and times of each line
CALIBRATING, TOGETHER, DRAWS = 64, 16, 100  # series for calibration, number at a time, and draws of each
SCOPES = {"window": (WINDOW,), "further": (FURTHER, IN_TRAINING_RANGE), "familiar": (IN_TRAINING_RANGE,)}


def loss(model: Any, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor | Score]]:
    """Return -log p(x) per series, or its bound -E[log p(x | z)] + weight · KL, the batch mean; and errors."""
    x = Series(*batch[:7])
    forecast = model.forecast(*x[:3], None if model.training else x.target_times, **control_of(batch))
    nll = negative_log_likelihood(x.values, forecast.mean, forecast.spread, x.observed_mask).mean()
    extra, total = {"nll": nll.detach()}, nll
    if forecast.kl is not None:
        kl = forecast.kl.mean()
        extra["kl"], total = kl.detach(), nll + forecast.weight * kl
    if model.training:
        return total, {**extra, "rmse_observed": rmse(forecast.mean.detach(), x.values, x.observed_mask)}
    return total, {**extra, **errors(forecast.path.detach(), x)}


def negative_log_likelihood(x: Tensor, mean: Tensor, spread: Tensor, observed_mask: Tensor) -> Tensor:
    """Return -log N(x; mean, spread²) of the observed values, summed over each series: (B, N, D) -> (B,)."""
    known = observed_mask[..., None] & ~x.isnan()
    # In the backward pass a masked NaN would still give 0 · NaN.
    per_value = 0.5 * ((x.nan_to_num() - mean) / spread).square() + spread.log() + 0.5 * math.log(2 * math.pi)
    return per_value.where(known, 0).sum((1, 2))


def rmse(predicted: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Return the root mean square of the difference (B, M, D) over the values present at the times in `mask`."""
    known = mask[..., None] & ~target.isnan()
    square = (predicted - target).square().where(known, 0)
    return (square.sum() / known.sum().clamp_min(1)).sqrt()


def errors(path: Tensor, x: Series) -> dict[str, Score]:
    """Return RMSEs of the path (B, M, D) against clean and noisy targets, inside and after the window.

    Those against clean targets, or noisy ones if there are none, also relative to the targets' standard deviation; and,
    after the window, the RMSE of baselines without a model.
    """
    targets = {"clean": x.clean, "noisy": x.noisy} if x.clean.shape[2] else {"noisy": x.noisy}
    best = next(iter(targets.values()))
    scores: dict[str, Score] = {}
    for name, codes in SCOPES.items():
        mask = torch.isin(x.scope, torch.tensor(codes, dtype=x.scope.dtype, device=x.scope.device))
        if not (mask[..., None] & ~best.isnan()).any():
            continue
        for kind, target in targets.items():
            scores[f"rmse_{name}_{kind}"] = _root_mean(path, target, mask)
        scores[f"relative_{name}"] = Relative(
            _root_mean(path, best, mask), Deviation.of(best[mask], ~best[mask].isnan())
        )
    if "relative_further" in scores:
        for name, guess in baselines(x.times, x.values, x.observed_mask, x.target_times).items():
            scores[f"rmse_{name}"] = _root_mean(guess, best, x.scope >= FURTHER)
    return scores


def _root_mean(predicted: Tensor, target: Tensor, mask: Tensor) -> RootMean:
    """Return the RMSE (B, M, D) over the values present at the times in `mask` (B, M)."""
    return RootMean.of((predicted - target)[mask[..., None] & ~target.isnan()])


def baselines(times: Tensor, values: Tensor, observed_mask: Tensor, target_times: Tensor) -> dict[str, Tensor]:
    """Return predictions without a model at the target times, (B, M, D): the last value, and constant velocity.

    The velocity is that of a straight line through the last quarter of the window, or through the last two observations
    if it holds only one. Each feature uses its own observations.
    """
    if values.isnan().any():
        each = [
            baselines(*_compact(times, column, observed_mask), target_times) for column in torch.split(values, 1, dim=2)
        ]
        return {name: torch.cat([guess[name] for guess in each], 2) for name in each[0]}
    last = observed_mask.sum(1, keepdim=True) - 1
    end, before = times.gather(1, last), times.gather(1, (last - 1).clamp_min(0))
    last_value = values.gather(1, last[..., None].expand(-1, -1, values.shape[2]))
    weight = (observed_mask & (times >= torch.minimum(0.75 * end, before))).to(values)
    total = weight.sum(1, keepdim=True)
    mean_time = (weight * times).sum(1, keepdim=True) / total
    mean_value = (weight[..., None] * values).sum(1, keepdim=True) / total[..., None]
    centred = weight * (times - mean_time)
    variance = (centred * (times - mean_time)).sum(1)[:, None, None]
    velocity = (centred[..., None] * (values - mean_value)).sum(1, keepdim=True) / variance.clamp_min(1e-12)
    return {
        "last_value": last_value.expand(-1, target_times.shape[1], -1),
        "velocity": mean_value + velocity * (target_times - mean_time)[..., None],
    }


def _compact(times: Tensor, values: Tensor, observed_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the known observations of one feature (B, N, 1), followed by padding.

    If all are missing, the mean, 0, is the only observation.
    """
    known = observed_mask & ~values[..., 0].isnan()
    order = (~known).sort(dim=1, stable=True).indices
    known = known.gather(1, order)
    known[:, 0] = True
    return times.gather(1, order), values.gather(1, order[..., None]).nan_to_num(), known


@torch.no_grad()
def calibrate(model: Any, data: Any) -> dict[str, Any]:
    """Return the factors that scale the 90 % band of each column, inside the window and at times after it.

    They are computed on the validation series; empty if there are none, or the model cannot draw series.
    """
    if not data.valid.size or not hasattr(model, "draw"):
        return {}
    generator, parts, dtype = torch.Generator().manual_seed(0), [], next(model.parameters()).dtype
    for batch in islice(data.valid.unshuffled(TOGETHER).epoch(0), CALIBRATING // TOGETHER):
        batch = [part.to(dtype) if part.is_floating_point() else part for part in batch]
        x = Series(*batch[:7])
        draws = model.draw(*x[:4], DRAWS, generator, **control_of(batch))
        lead = x.target_times - x.times.where(x.observed_mask, 0).amax(1, keepdim=True)
        parts.append((x.noisy, band.quantiles(draws), x.scope, lead))
    truth, bands, scope, lead = (torch.cat(part, dim) for part, dim in zip(zip(*parts), (0, 1, 0, 0)))
    leads, further = band.factors_behind(truth, bands, scope >= FURTHER, lead)
    return {"window": band.factors(truth, bands, scope == WINDOW), "leads": leads, "further": further}


@torch.no_grad()
def figure_data(model: Any, data: Any, per_sample: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a few held-out series: the observations, the true values if known, and the model's path."""
    batch = [row[:SHOWN] for row in next(iter(data.test.epoch(0)))]
    x = Series(*batch[:7])
    share = torch.linspace(0, 1, FINE, device=x.target_times.device, dtype=x.target_times.dtype)
    fine = x.target_times.amax(1, keepdim=True) * share
    path = model.forecast(*x[:3], fine, **control_of(batch)).path
    end = x.target_times.where(x.scope == WINDOW, 0).amax(1)
    # The names used in saved figures of runs.
    names = {"observed_mask": "seen", "target_times": "at"}
    return {
        **{names.get(key, key): value for key, value in x._asdict().items()},
        "fine": fine,
        "path": path,
        "end": end,
    }
