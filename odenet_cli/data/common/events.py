"""The layout of a batch of event sequences."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Events(NamedTuple):
    """Name the tensors of a batch, a plain tuple in this order. All sequences last from 0 to the end of `grid`.

    bins        (B, N)     centres of equal intervals of time, for a network that reads the sequence
    counts      (B, N, 1)  number of events in each interval, as (n - μ) / √μ with the mean μ
    times       (B, M)     increasing times of the events, followed by padding
    event_mask  (B, M)     True for an event, False for padding
    log_rate    (B, M)     true log λ at the events
    grid        (B, G)     times from 0 to the end
    rate        (B, G)     true λ on the grid
    """

    bins: Tensor
    counts: Tensor
    times: Tensor
    event_mask: Tensor
    log_rate: Tensor
    grid: Tensor
    rate: Tensor
