"""Splits of a data set that is already on the device, and the order in which their batches come."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

EPOCH_BATCHES = 100  # of data that are small or drawn: one pass over them is no useful unit of training

Batch = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class BatchSpec:
    """Say how batches are wanted; sizes in samples."""

    batch_size: int
    eval_batch_size: int
    seed: int
    device: torch.device
    dtype: torch.dtype


class Split(Protocol):
    """One split, as training and scoring know it. Its length is the number of batches in an epoch."""

    @property
    def size(self) -> int: ...

    def __len__(self) -> int: ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield batches `start, start + 1, …` of epoch `number`, a pure function of (seed, number, position)."""
        ...

    def unshuffled(self, batch_size: int) -> Split:
        """Return the same samples in order, without augmentation."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """Hold what a task trains on.

    shape   of one input, without the batch
    task    the name of the task: its loss and metrics
    record  {used, sha256, root, sizes, warning}, plain values for `run.json`
    """

    train: Split
    valid: Split
    test: Split
    shape: tuple[int, ...]
    classes: int
    task: str
    record: dict[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class TensorSplit:
    """Hold `rows`, tensors (N, *S) with one row a sample; a batch is a tuple of (B, *S).

    A training split has epochs of `EPOCH_BATCHES` batches that pass through the samples again and again: each pass in
    an order of its own, its last partial batch dropped. The other splits come whole and in order.

    distribution  what the samples are drawn from, where the task asks for it; then the last item of every batch
    """

    rows: tuple[Tensor, ...]
    batch_size: int
    train: bool = False
    seed: int = 0
    distribution: Any = None

    @property
    def size(self) -> int:
        return len(self.rows[0])

    def __len__(self) -> int:
        return EPOCH_BATCHES if self.train else math.ceil(self.size / self.batch_size)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Yield batches `start, start + 1, …` of epoch `number`, a pure function of (seed, number, position)."""
        if not 0 <= start <= len(self):
            raise ValueError(f"batch {start} of an epoch of {len(self)}")
        return self._shuffled(number, start) if self.train else self._in_order(start)

    def unshuffled(self, batch_size: int) -> TensorSplit:
        """Return the same samples in order, without augmentation."""
        return replace(self, train=False, batch_size=batch_size)

    def _in_order(self, start: int) -> Iterator[Batch]:
        for first in range(start * self.batch_size, self.size, self.batch_size):
            yield *(row[first : first + self.batch_size] for row in self.rows), *self._extra

    @property
    def _extra(self) -> tuple[Any, ...]:
        return () if self.distribution is None else (self.distribution,)

    def _shuffled(self, number: int, start: int) -> Iterator[Batch]:
        batches_per_pass, order, drawn = self.size // self.batch_size, torch.empty(0), -1
        for batch in range(number * EPOCH_BATCHES + start, (number + 1) * EPOCH_BATCHES):
            pass_number, position = divmod(batch, batches_per_pass)
            if pass_number != drawn:
                order, drawn = self._permutation(pass_number), pass_number
            chosen = order[position * self.batch_size : (position + 1) * self.batch_size]
            yield *(row.index_select(0, chosen) for row in self.rows), *self._extra

    def _permutation(self, number: int) -> Tensor:
        # Drawn on the CPU, so that every device sees the same order, and sent over once.
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, number))
        return torch.randperm(self.size, generator=generator).to(self.rows[0].device)


def tensor_data(
    splits: Sequence[Sequence[Tensor]],
    spec: BatchSpec,
    *,
    shape: tuple[int, ...],
    task: str,
    record: dict[str, Any],
    distribution: Any = None,
) -> Data:
    """Return training, validation and test rows as `Data` on the device, floating-point rows in the precision wanted.

    Where there are fewer training samples than `spec.batch_size`, all of them are one batch.
    """
    on_device = [
        tuple(row.to(spec.device, spec.dtype if row.is_floating_point() else row.dtype) for row in rows)
        for rows in splits
    ]
    train, valid, test = on_device
    batches: dict[str, Any] = {"batch_size": spec.eval_batch_size, "distribution": distribution}
    own = {"batch_size": min(spec.batch_size, len(train[0])), "train": True, "seed": spec.seed}
    return Data(
        train=TensorSplit(rows=train, **{**batches, **own}),
        valid=TensorSplit(rows=valid, **batches),
        test=TensorSplit(rows=test, **batches),
        shape=shape,
        classes=0,
        task=task,
        record=record,
    )


def split_rows(rows: Sequence[Tensor], sizes: Sequence[int]) -> list[tuple[Tensor, ...]]:
    """Return the rows cut into splits of the given sizes, in order."""
    return list(zip(*(torch.split(row, list(sizes)) for row in rows)))


def data_record(
    used: str, sizes: dict[str, int], *, sha256: Any = None, root: str | None = None, warning: str | None = None
) -> dict[str, Any]:
    """Return what `run.json` keeps of the data: plain values."""
    return {"used": used, "sha256": sha256, "root": root, "sizes": sizes, "warning": warning}


def sha256_of(tensors: Sequence[Tensor]) -> str:
    """Return the SHA-256 of the numbers."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def epoch_seed(seed: int, number: int) -> int:
    """Return the seed of the generator for epoch `number`.

    Hashed, because torch's CPU generator uses 32 bits of its seed and neighbouring (seed, epoch) must not meet.
    """
    return int.from_bytes(hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=8).digest(), "big")
