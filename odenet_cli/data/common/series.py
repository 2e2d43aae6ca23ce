"""The layout of a batch of time series."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

# Kinds of target times. IN_TRAINING_RANGE is also after the window, at a state that training windows reach.
PADDING, WINDOW, FURTHER, IN_TRAINING_RANGE = 0, 1, 2, 3


class Series(NamedTuple):
    """Name the tensors of a batch, a plain tuple in this order. Time starts at 0 in each series.

    times          (B, N)     increasing times of the observations; N is the largest number of observations
    values         (B, N, D)  observed values; NaN: missing
    observed_mask  (B, N)     True for an observation, False for the padding after them
    target_times   (B, M)     increasing times at which predictions are scored, followed by padding
    noisy          (B, M, D)  measured values there; NaN: missing
    clean          (B, M, D)  true values there; D = 0 if they are unknown
    scope          (B, M)     PADDING, inside the observed WINDOW, or FURTHER, perhaps IN_TRAINING_RANGE

    If there are controls, a batch has two more tensors: see `control_of`.
    """

    times: Tensor
    values: Tensor
    observed_mask: Tensor
    target_times: Tensor
    noisy: Tensor
    clean: Tensor
    scope: Tensor


def control_of(batch: Sequence[Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the argument `control` of a model from a batch, empty if there are no controls.

    times         (B, K)        of the controls, increasing from 0, padded by the last one
    coefficients  (B, K, O, C)  of (t - t_k)^0 … (t - t_k)^(O-1) from each time to the next
    """
    times, coefficients = batch[len(Series._fields) :] or (None, None)
    return {} if times is None or coefficients is None else {"control": (times, coefficients)}
