"""Numbers between bounds as free ones: u = log(x - low) above a bound, the logit between two, x itself without any."""

from __future__ import annotations

import torch
from torch import Tensor


def to_free(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return u (*S) of x (*S), which lies inside the bounds; an open side is infinite."""
    above, below, both = _kinds(low, high)
    u = torch.where(above, (x - low).log(), x)
    u = torch.where(below, -(high - x).log(), u)
    return torch.where(both, ((x - low) / (high - x)).log(), u)


def from_free(u: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return x (*S) of u (*S)."""
    above, below, both = _kinds(low, high)
    x = torch.where(above, low + u.exp(), u)
    x = torch.where(below, high - (-u).exp(), x)
    return torch.where(both, low + (high - low) * u.sigmoid(), x)


def derivative(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return dx/du (*S) at x (*S)."""
    above, below, both = _kinds(low, high)
    # d(low + eᵘ)/du = x - low, and of low + (high - low) σ(u) the logistic rule, both written in x.
    slope = torch.where(above, x - low, torch.where(below, high - x, torch.ones_like(x)))
    return torch.where(both, (x - low) * (high - x) / (high - low), slope)


def _kinds(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return what is bounded below alone, above alone, and on both sides."""
    has_low, has_high = low.isfinite(), high.isfinite()
    return has_low & ~has_high, has_high & ~has_low, has_low & has_high
