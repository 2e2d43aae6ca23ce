"""Events in time: the likelihood of a Poisson process, and how far its rate is from the true one.

A model of events has a method `intensity(bins, counts, times, event_mask, grid)` (layout: `data.common.events.Events`).
It returns `log_rate` at the events and `total` = ∫λ, `kl` and its `weight` for the latent variable, and outside of
training λ on the grid, as `path`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from odenet_cli.data.common.events import Events

NEEDS = ("intensity",)
SHOWN = 4  # sequences of the figure


def loss(model: Any, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """Return -E[log p(t | z)] + weight · KL per sequence, the mean over the batch.

    gap         log p under the true rate minus that under the model's, in nat per event; z is sampled: this is no bound
    rate_error  ∫|λ̂ - λ| / ∫λ for the mean of q
    """
    x = Events(*batch)
    predicted = model.intensity(x.bins, x.counts, x.times, x.event_mask, x.grid)
    nll, kl = negative_log_likelihood(predicted.log_rate, predicted.total, x.event_mask), predicted.kl.mean()
    total = nll.mean() + predicted.weight * kl
    extra = {"nll": nll.mean().detach(), "kl": kl.detach()}
    if model.training:
        return total, extra
    true_nll = negative_log_likelihood(x.log_rate, torch.trapezoid(x.rate, x.grid), x.event_mask)
    gap = (nll.detach() - true_nll) / x.event_mask.sum(1).clamp_min(1)
    return total, {**extra, "gap": gap.mean(), "rate_error": rate_error(predicted.path.detach(), x).mean()}


def negative_log_likelihood(log_rate: Tensor, total: Tensor, event_mask: Tensor) -> Tensor:
    """Return ∫λ - Σ log λ(t_i) of each sequence: (B, M), (B,), (B, M) -> (B,)."""
    return total - log_rate.where(event_mask, 0).sum(1)


def rate_error(rate: Tensor, x: Events) -> Tensor:
    """Return ∫|λ̂ - λ| / ∫λ of each sequence, λ̂ (B, G) on the grid -> (B,)."""
    return torch.trapezoid((rate - x.rate).abs(), x.grid) / torch.trapezoid(x.rate, x.grid)


@torch.no_grad()
def figure_data(model: Any, data: Any, per_sample: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a few held-out sequences: their events, the true rate and the model's."""
    x = Events(*(row[:SHOWN] for row in next(iter(data.test.epoch(0)))))
    path = model.intensity(x.bins, x.counts, x.times, x.event_mask, x.grid).path
    return {"times": x.times, "there": x.event_mask, "grid": x.grid, "rate": x.rate, "path": path}
