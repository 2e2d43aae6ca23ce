"""Splits of a data set on the device, and the order of their batches."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

EPOCH_BATCHES = 100  # for small or generated data, for which one pass is no useful unit of training

PARTS = ("train", "valid", "test")
# Names of splits in columns, arrays and folders.
WORDS = {"train": "train", "training": "train", "test": "test"}
WORDS |= dict.fromkeys(("valid", "validation", "val", "dev"), "valid")

Batch = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class BatchSpec:
    """Specify batches; sizes are in samples."""

    batch_size: int
    eval_batch_size: int
    seed: int
    device: torch.device
    dtype: torch.dtype


class Split(Protocol):
    """The interface of a split for training and scoring. Its length is the number of batches in an epoch."""

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
    """Hold the splits and properties of a data set.

    shape   of one input, without the batch dimension
    task    the name of the task: its loss and metrics
    record  {used, sha256, root, sizes, warning}, plain values for `run.json`

    `unlabelled` are the samples without y of data for a run, if its task has y.
    """

    train: Split
    valid: Split
    test: Split
    shape: tuple[int, ...]
    classes: int
    task: str
    record: dict[str, Any]
    unlabelled: Split | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class TensorSplit:
    """Hold `rows`, tensors (N, *S) with one row per sample; a batch is a tuple of (B, *S).

    A training split has epochs of `EPOCH_BATCHES` batches, which pass through the samples repeatedly: each pass has its
    own order, and its last partial batch is dropped. The other splits are complete and in order.

    distribution  of the samples, if the task needs it; then the last item of every batch
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
        if not 0 <= start <= len(self):
            raise ValueError(f"batch {start} of an epoch of {len(self)}")
        return self._shuffled(number, start) if self.train else self._in_order(start)

    def unshuffled(self, batch_size: int) -> TensorSplit:
        return replace(self, train=False, batch_size=batch_size)

    def _in_order(self, start: int) -> Iterator[Batch]:
        for first in range(start * self.batch_size, self.size, self.batch_size):
            yield self._batch(*(row[first : first + self.batch_size] for row in self.rows))

    def _shuffled(self, number: int, start: int) -> Iterator[Batch]:
        batches_per_pass, drawn = self.size // self.batch_size, -1
        draws: tuple[Tensor, ...] = ()
        for batch in range(number * len(self) + start, (number + 1) * len(self)):
            pass_number, position = divmod(batch, batches_per_pass)
            if pass_number != drawn:
                # Drawn on the CPU, so that the order is the same for every device, and transferred once.
                generator = torch.Generator().manual_seed(epoch_seed(self.seed, pass_number))
                draws, drawn = tuple(x.to(self.rows[0].device) for x in self._draw(generator)), pass_number
            some = slice(position * self.batch_size, (position + 1) * self.batch_size)
            yield self._batch(*self._pick(*(x[some] for x in draws)))

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw the random numbers of a pass, one row per sample: the order."""
        return (torch.randperm(self.size, generator=generator),)

    def _pick(self, order: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        """Return the samples of a batch, from its part of the drawn numbers."""
        return tuple(row.index_select(0, order) for row in self.rows)

    def _batch(self, *rows: Tensor) -> Batch:
        return rows if self.distribution is None else (*rows, self.distribution)


def tensor_data(
    splits: Sequence[Sequence[Tensor]],
    spec: BatchSpec,
    *,
    shape: tuple[int, ...],
    task: str,
    record: dict[str, Any],
    classes: int = 0,
    distribution: Any = None,
    kind: Callable[..., TensorSplit] = TensorSplit,
    **of_training: Any,
) -> Data:
    """Return training, validation, test and perhaps unlabelled rows as `Data` on the device, floating-point rows in the
    requested dtype.

    With fewer training samples than `spec.batch_size`, all of them form one batch.

    kind         makes a split from its rows; `of_training` are further fields of the training split
    """
    train, valid, test, *unlabelled = (
        tuple(row.to(spec.device, spec.dtype if row.is_floating_point() else row.dtype) for row in rows)
        for rows in splits
    )
    batch_size = max(1, min(spec.batch_size, len(train[0])))
    fixed: dict[str, Any] = {"batch_size": spec.eval_batch_size, "distribution": distribution}
    return Data(
        train=kind(
            rows=train, batch_size=batch_size, train=True, seed=spec.seed, distribution=distribution, **of_training
        ),
        valid=kind(rows=valid, **fixed),
        test=kind(rows=test, **fixed),
        unlabelled=kind(rows=unlabelled[0], **fixed) if unlabelled else None,
        shape=shape,
        classes=classes,
        task=task,
        record=record,
    )


def split_rows(rows: Sequence[Tensor], sizes: Sequence[int]) -> list[tuple[Tensor, ...]]:
    """Divide the rows into splits of the given sizes, in order."""
    return list(zip(*(torch.split(row, list(sizes)) for row in rows)))


def data_record(
    source: object, sizes: dict[str, int], *, sha256: Any = None, root: object = None, warning: str | None = None
) -> dict[str, Any]:
    """Return the record of the data for `run.json`: plain values."""
    where = None if root is None else str(root)
    return {"used": name_of(source), "sha256": sha256, "root": where, "sizes": sizes, "warning": warning}


def name_of(source: object) -> str:
    """Return the name of a data set, which is that of its module."""
    return type(source).__module__.rpartition(".")[2]


def sha256_of(tensors: Sequence[Tensor]) -> str:
    """Return the SHA-256 of the numbers."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def epoch_seed(seed: int, number: int) -> int:
    """Return the seed of the generator for epoch `number`.

    It is hashed, because torch's CPU generator uses 32 bits of its seed, and (seed, epoch) must not collide.
    """
    return int.from_bytes(hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=8).digest(), "big")
