"""Measure how much memory the backward pass needs."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from operator import attrgetter

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

MIB = 2**20


class _Saved:
    """Hold a tensor that autograd saved; this object is freed when autograd drops it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor


class SavedMeter(saved_tensors_hooks):
    """Measure the peak number of bytes that autograd saves for the backward pass while the meter is open.

    Each storage counts once, however many tensors share it; parameters and buffers, `resident`, do not count. The
    meter must stay open through the backward pass, and works the same on every device.

    >>> with SavedMeter(model.parameters()) as meter:
    ...     loss(model, batch).backward()
    >>> meter.peak_mib
    """

    def __init__(self, resident: Iterable[Tensor] = ()) -> None:
        self._resident = {tensor.untyped_storage().data_ptr() for tensor in resident}
        self._users: dict[int, int] = {}
        self._now = self.peak = 0
        super().__init__(self._pack, attrgetter("tensor"))

    @property
    def peak_mib(self) -> float:
        return self.peak / MIB

    def __enter__(self) -> SavedMeter:  # type: ignore[override]
        super().__enter__()
        return self

    def _pack(self, tensor: Tensor) -> _Saved:
        # Detached: an output that holds on to its own graph would keep a graph that no backward frees for ever.
        saved = _Saved(tensor.detach())
        storage = tensor.untyped_storage()
        key, size = storage.data_ptr(), storage.nbytes()
        if size and key not in self._resident:
            users = self._users.get(key, 0)
            self._users[key] = users + 1
            if not users:
                self._now += size
                self.peak = max(self.peak, self._now)
            weakref.finalize(saved, self._release, key, size).atexit = False
        return saved

    def _release(self, key: int, size: int) -> None:
        self._users[key] -= 1
        if not self._users[key]:
            self._now -= size


class PeakMeter:
    """Measure the GPU allocator's peak above what was resident when the meter opened; None on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.peak_mib: float | None = None

    def __enter__(self) -> PeakMeter:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        return self

    def __exit__(self, *_: object) -> None:
        if self.device.type == "cuda":
            self.peak_mib = (torch.cuda.max_memory_allocated(self.device) - self._before) / MIB
