"""Events in time: the likelihood of a Poisson process, and how far its rate is from the true one.

A model of events has a method `intensity` of bins, counts, times, event_mask and grid (`data.common.events`). It says
its `log_rate` at the events and `total` = ∫λ, for its latent variable `kl` and `weight`, and outside of training λ on
the grid, as `path`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from odenet_cli.data.common.events import Events

NEEDS = ("intensity",)
SHOWN = 4  # sequences of the figure


def loss(model: Any, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor]]:
    """-E[log p(t | z)] + weight · KL of a sequence, a mean over the batch.

    gap         log p of the true rate above that of the model's, in nats an event; a sample of z, so no lower bound
    rate_error  ∫|λ̂ - λ| / ∫λ of the best guess
    """
    x = Events(*batch)
    made = model.intensity(x.bins, x.counts, x.times, x.event_mask, x.grid)
    nll, kl = negative_log_likelihood(made.log_rate, made.total, x.event_mask), made.kl.mean()
    total = nll.mean() + made.weight * kl
    extra = {"nll": nll.mean().detach(), "kl": kl.detach()}
    if model.training:
        return total, extra
    truth = negative_log_likelihood(x.log_rate, torch.trapezoid(x.rate, x.grid), x.event_mask)
    events = x.event_mask.sum(1).clamp_min(1)
    off = torch.trapezoid((made.path.detach() - x.rate).abs(), x.grid) / torch.trapezoid(x.rate, x.grid)
    return total, {**extra, "gap": ((nll.detach() - truth) / events).mean(), "rate_error": off.mean()}


def negative_log_likelihood(log_rate: Tensor, total: Tensor, event_mask: Tensor) -> Tensor:
    """∫λ - Σ log λ(t_i) of each sequence: (B, M), (B,), (B, M) -> (B,)."""
    return total - log_rate.where(event_mask, 0).sum(1)


@torch.no_grad()
def figure_data(model: Any, data: Any) -> dict[str, Tensor]:
    """A few held-out sequences: their events, the true rate and the model's."""
    x = Events(*(row[:SHOWN] for row in next(iter(data.test.epoch(0)))))
    made = model.intensity(x.bins, x.counts, x.times, x.event_mask, x.grid)
    return {"times": x.times, "there": x.event_mask, "grid": x.grid, "rate": x.rate, "path": made.path}
