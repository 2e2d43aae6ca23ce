"""The 90 % band of a forecast: quantiles of draws, and the factors that calibrate it on held-out series.

A model's likelihood is fitted to the window that it sees, with one standard deviation for all times. After the window
its errors may be larger or smaller. So the band is scaled around the median, by the factor with which it would have
covered 90 % of the observations of the validation series (conformal prediction: Romano, Patterson & Candès,
"Conformalized quantile regression", 2019). Each column has one factor for the window; after it, where errors grow, the
factor depends on the time since its end: one for each fifth of the observations there, linear between their middles.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

SHARE = 0.9
LEVELS = (0.05, 0.5, 0.95)
MIN_OBSERVATIONS = 20  # with fewer the factor would be too random
MAX_LEADS = 5  # times after the window with their own factors


class Factors(NamedTuple):
    """Hold the factors that scale the band of each of D columns.

    window   (D,)    in the window
    leads    (K,)    increasing times after its end, in the model's units
    further  (K, D)  at these
    """

    window: Tensor
    leads: Tensor
    further: Tensor

    def at(self, lead: Tensor) -> Tensor:
        """Return the factors (M, D) at times (M,) after the window's end: linear in between, constant outside."""
        right = torch.searchsorted(self.leads, lead.contiguous()).clamp_max(len(self.leads) - 1)
        left = (right - 1).clamp_min(0)
        share = ((lead - self.leads[left]) / (self.leads[right] - self.leads[left])).nan_to_num().clamp(0, 1)
        behind = self.further[left].lerp(self.further[right], share[:, None])
        return torch.where(lead[:, None] > 0, behind, self.window)


def quantiles(draws: Tensor, levels: tuple[float, ...] = LEVELS) -> Tensor:
    """Return the quantiles of (count, *S) at each level, linear between the draws: (len(levels), *S)."""
    # Not torch.quantile, which accepts at most 16 million numbers.
    ordered, places = draws.sort(0).values, [level * (len(draws) - 1) for level in levels]
    return torch.stack([ordered[int(p)].lerp(ordered[min(int(p) + 1, len(draws) - 1)], p % 1) for p in places])


def factors(truth: Tensor, band: Tensor, mask: Tensor) -> list[float | None]:
    """Return for each column the factor with which the band covers 90 % of the known values where `mask` is true.

    truth  (B, M, D), NaN if unknown; band (3, B, M, D), its quantiles; mask (B, M). None: too few values are known.
    """
    low, middle, high = band
    away = torch.where(truth < middle, (middle - truth) / (middle - low), (truth - middle) / (high - middle))
    known = mask[..., None] & ~away.isnan()
    return [_factor(*column) for column in zip(away.unbind(2), known.unbind(2))]


def factors_behind(
    truth: Tensor, band: Tensor, mask: Tensor, lead: Tensor
) -> tuple[list[float], list[list[float | None]]]:
    """Return times after the window, (K,), and the factors there as in `factors`, (K, D).

    lead  (B, M) time after the end of the window
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
    """Return the factor of one column, from the distances of the true values from the median in half bands (B, M).

    Of n independent values 0.9 (n + 1) must lie inside for the next to do so with probability 0.9. Values of a series
    are not independent: n is the number of independent values for which the share inside would vary as much as it does
    between the series (effective sample size, Kish 1965).
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
