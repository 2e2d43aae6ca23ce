"""The band of 90 % of a forecast: quantiles of draws, and by how much held-out series show that it has to be wider.

A model's likelihood is fitted to the window that it sees, with one standard deviation for all times. Behind the window
it may err by more, or by less. So the band is scaled around the median, by the factor with which it would have held
90 % of the observations of the validation series (conformal prediction: Romano, Patterson & Candès, "Conformalized
quantile regression", 2019). Of each column the factor is one for the window; behind it, where errors grow, it goes by
the time from its end: one for each fifth of what is known there, linear between their middles.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

SHARE = 0.9
LEVELS = (0.05, 0.5, 0.95)
MIN_OBSERVATIONS = 20  # of fewer the factor would be chance
MAX_LEADS = 5  # times behind the window that have factors of their own


class Factors(NamedTuple):
    """Hold by how much the band of each of D columns is scaled.

    window   (D,)    in the window
    leads    (K,)    times behind its end, rising, in the model's units
    further  (K, D)  at these
    """

    window: Tensor
    leads: Tensor
    further: Tensor

    def at(self, lead: Tensor) -> Tensor:
        """Return the factors (M, D) so far behind the window's end (M,): linear between, held outside."""
        right = torch.searchsorted(self.leads, lead.contiguous()).clamp_max(len(self.leads) - 1)
        left = (right - 1).clamp_min(0)
        share = ((lead - self.leads[left]) / (self.leads[right] - self.leads[left])).nan_to_num().clamp(0, 1)
        behind = self.further[left].lerp(self.further[right], share[:, None])
        return torch.where(lead[:, None] > 0, behind, self.window)


def quantiles(draws: Tensor, levels: tuple[float, ...] = LEVELS) -> Tensor:
    """Return the quantiles of (count, *S) at each level, linear between the draws: (len(levels), *S)."""
    # Not torch.quantile, which takes 16 million numbers at most.
    ordered, places = draws.sort(0).values, [level * (len(draws) - 1) for level in levels]
    return torch.stack([ordered[int(p)].lerp(ordered[min(int(p) + 1, len(draws) - 1)], p % 1) for p in places])


def factors(truth: Tensor, band: Tensor, mask: Tensor) -> list[float | None]:
    """Return for each column by how much the band must be scaled to hold 90 % of what is known where `mask` is true.

    truth  (B, M, D), NaN where unknown; band (3, B, M, D), its quantiles; mask (B, M). None: too little is known.
    """
    low, middle, high = band
    away = torch.where(truth < middle, (middle - truth) / (middle - low), (truth - middle) / (high - middle))
    known = mask[..., None] & ~away.isnan()
    return [_factor(*column) for column in zip(away.unbind(2), known.unbind(2))]


def factors_behind(
    truth: Tensor, band: Tensor, mask: Tensor, lead: Tensor
) -> tuple[list[float], list[list[float | None]]]:
    """Return times behind the window and the factors there, (K,) and (K, D), as `factors` has them.

    lead  (B, M) time behind the end of the window
    """
    known = mask[..., None] & ~truth.isnan()
    least, ordered = int(known.sum((0, 1)).min()), lead[known.any(2)].sort().values
    count = max(1, min(MAX_LEADS, least // (2 * MIN_OBSERVATIONS)))
    ends = [len(ordered) * (k + 1) // count - 1 for k in range(count)] if len(ordered) else []
    edges = [-math.inf, *sorted({*ordered[ends].tolist()})] if ends else [-math.inf, math.inf]
    parts = [mask & (lead > low) & (lead <= high) for low, high in pairwise(edges)]
    middles = [float(lead[part & known.any(2)].mean().nan_to_num()) for part in parts]
    return middles, [factors(truth, band, part) for part in parts]


def _factor(away: Tensor, known: Tensor) -> float | None:
    """Return the factor of one column, by how far the truth is away from the median, in half bands (B, M).

    Of n independent values 0.9 (n + 1) must lie inside for the next to do so at 90 %. Values of a series are not: n is
    the number of independent ones that would let the share inside vary as it does from series to series (Kish 1965).
    """
    values, counts = away[known], known.sum(1)
    if len(values) < MIN_OBSERVATIONS:
        return None
    inside = (known & (away <= quantiles(values, (SHARE,)))).sum(1)[counts > 0] / counts[counts > 0]
    series = len(inside)
    variance = float(inside.var()) if series > 1 else 1.0
    n = min(max(series, SHARE * (1 - SHARE) * series / max(variance, 1e-9)), len(values))
    return float(quantiles(values, (min(1.0, SHARE * (1 + 1 / n)),)))


def scaled(band: Tensor, factor: Tensor) -> Tensor:
    """Return the band (3, *S, D) scaled around its median by the factors (*S, D)."""
    return band[1] + factor * (band - band[1])
