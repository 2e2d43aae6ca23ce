"""Splits of tensors with one row a sample, dealt as tuples: for data that were generated, or are series."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from odenet_cli.data.common.images import BatchSpec, Data, epoch_seed
from odenet_cli.errors import RequestError

GIB = 2**30
EPOCH = 100  # batches: such data are small, and passing over them is no unit of training


@dataclass(frozen=True, kw_only=True, eq=False)
class TensorSplit:
    """One split on the device, `rows` tensors (N, *S), dealt as tuples of (B, *S).

    A training split has epochs of `EPOCH` batches, which go through the samples again and again: every pass in an
    order of its own, its last partial batch dropped. The others are dealt whole and in order.
    """

    rows: tuple[Tensor, ...]
    batch_size: int
    train: bool = False
    seed: int = 0

    @property
    def size(self) -> int:
        return len(self.rows[0])

    def __len__(self) -> int:
        return EPOCH if self.train else -(-self.size // self.batch_size)

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, ...]]:
        """Batches `start, start + 1, …` of epoch `number`: a pure function of (seed, number, position)."""
        if not 0 <= start <= len(self):
            raise ValueError(f"batch {start} of an epoch of {len(self)}")
        return self._shuffled(number, start) if self.train else self._in_order(start)

    def unshuffled(self, batch_size: int) -> TensorSplit:
        """The same samples in order, once."""
        return replace(self, train=False, batch_size=batch_size)

    def _in_order(self, start: int) -> Iterator[tuple[Tensor, ...]]:
        for first in range(start * self.batch_size, self.size, self.batch_size):
            yield tuple(row[first : first + self.batch_size] for row in self.rows)

    def _shuffled(self, number: int, start: int) -> Iterator[tuple[Tensor, ...]]:
        each, order, drawn = self.size // self.batch_size, torch.empty(0), -1
        for batch in range(number * EPOCH + start, (number + 1) * EPOCH):
            turn, place = divmod(batch, each)
            if turn != drawn:  # drawn on the CPU, so that every device sees the same order
                generator = torch.Generator().manual_seed(epoch_seed(self.seed, turn))
                order, drawn = torch.randperm(self.size, generator=generator).to(self.rows[0].device), turn
            chosen = order[place * self.batch_size : (place + 1) * self.batch_size]
            yield tuple(row.index_select(0, chosen) for row in self.rows)


def dealt(
    splits: Sequence[Sequence[Tensor]], spec: BatchSpec, *, shape: tuple[int, ...], task: str, record: dict[str, Any]
) -> Data:
    """Training, validation and test as `Data`; floating-point rows in the precision of `spec`.

    Where there are fewer training samples than `spec.batch_size`, all of them are a batch.
    """

    def held(rows: Sequence[Tensor], **how: Any) -> Any:
        moved = [row.to(spec.device, spec.dtype if row.is_floating_point() else row.dtype) for row in rows]
        return TensorSplit(rows=tuple(moved), **how)

    train, valid, test = splits
    return Data(
        train=held(train, batch_size=min(spec.batch_size, len(train[0])), train=True, seed=spec.seed),
        valid=held(valid, batch_size=spec.eval_batch_size),
        test=held(test, batch_size=spec.eval_batch_size),
        shape=shape,
        classes=0,
        task=task,
        record=record,
    )


def digest(tensors: Sequence[Tensor]) -> str:
    """SHA-256 of the numbers."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.contiguous().numpy().tobytes())
    return found.hexdigest()


def parted(rows: Sequence[Tensor], sizes: Sequence[int]) -> list[list[Tensor]]:
    """Rows cut into splits of the given sizes, in order."""
    return [list(part) for part in zip(*(torch.split(row, list(sizes)) for row in rows))]


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A data set that is drawn whole from its own `seed`: `count` samples to train on, others held out.

    A kind of it has `rows()`, all samples in the order of the splits, and says in `name` and `unit` what it is.
    """

    name: ClassVar[str]
    unit: ClassVar[str]
    shape: ClassVar[tuple[int, ...]]
    task: ClassVar[str]

    count: int
    validation: int
    test: int
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("count", "validation", "test"):
            if getattr(self, key) < (least := 0 if key == "validation" else 1):
                raise RequestError(f"data.{key}={getattr(self, key)} must be at least {least} {self.unit}.")
        if self.seed < 0:
            raise RequestError(f"data.seed={self.seed} must be 0 or more.")
        needed, there = sum(self.sizes.values()) * self.each, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > there:
            key = max(("count", "validation", "test"), key=lambda key: getattr(self, key))
            raise RequestError(
                f"data.{key}={getattr(self, key)}: so many {self.unit} need {needed / GIB:,.0f} GiB, and there are "
                f"{there / GIB:,.0f} GiB of memory."
            )

    @property
    def each(self) -> float:
        """Bytes that a sample takes when it is drawn."""
        raise NotImplementedError

    @property
    def sizes(self) -> dict[str, int]:
        return {"train": self.count, "valid": self.validation, "test": self.test}

    def rows(self) -> Any:
        raise NotImplementedError

    def prepare(self) -> dict[str, Any]:
        return self._record(self.rows())

    def load(self, spec: BatchSpec) -> Data:
        rows = self.rows()
        splits = parted(rows, list(self.sizes.values()))
        return dealt(splits, spec, shape=self.shape, task=self.task, record=self._record(rows))

    def _record(self, rows: Any) -> dict[str, Any]:
        return {"used": self.name, "sha256": digest(rows), "root": None, "sizes": self.sizes, "warning": None}
