"""The layout of a batch of time series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

# Kinds of times to predict. IN_TRAINING_RANGE is after the window too, at a state that training windows reach.
PADDING, WINDOW, FURTHER, IN_TRAINING_RANGE = 0, 1, 2, 3


class Series(NamedTuple):
    """Batches are plain tuples of these tensors, in this order. Time begins at 0 with each series.

    times          (B, N)     when each series was observed, rising; N the largest number of observations
    values         (B, N, D)  what was observed; NaN: missing
    observed_mask  (B, N)     True for an observation, False for padding behind them
    target_times   (B, M)     times at which predictions are scored, rising, padding behind them
    noisy          (B, M, D)  what was measured there; NaN: missing
    clean          (B, M, D)  what is true there; D = 0 where that is unknown
    scope          (B, M)     PADDING, inside the WINDOW that was observed, or FURTHER on, perhaps IN_TRAINING_RANGE

    Where something is known at all times, a batch has two more: see `control_of`.
    """

    times: Tensor
    values: Tensor
    observed_mask: Tensor
    target_times: Tensor
    noisy: Tensor
    clean: Tensor
    scope: Tensor


def control_of(batch: Sequence[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the argument `control` of a model, what a batch says is known at all times; nothing where nothing is.

    times         (B, K)        when the controls were given, rising from 0, the last again as padding
    coefficients  (B, K, O, C)  of (t - t_k)^0 … (t - t_k)^(O-1) from each of them to the next
    """
    times, coefficients = batch[len(Series._fields) :] or (None, None)
    return {} if times is None or coefficients is None else {"control": (times, coefficients)}
