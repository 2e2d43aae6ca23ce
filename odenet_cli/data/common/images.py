"""The resident data set: images that live on the device as bytes, and batches cut from them by a few kernels."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from odenet_cli.errors import RequestError


@dataclass(frozen=True, kw_only=True)
class BatchSpec:
    """How batches are wanted; sizes in samples."""

    batch_size: int
    eval_batch_size: int
    seed: int
    device: torch.device
    dtype: torch.dtype


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSplit:
    """One split on the device. Its length is the number of batches in an epoch.

    images  (N, 1, H, W) uint8, dealt as (B, 1, H, W) of `dtype` in [0, 1]
    labels  (N,) int64

    A training split is shuffled and cropped and drops the last partial batch; the others are dealt whole and in order.
    """

    images: Tensor
    labels: Tensor
    batch_size: int
    dtype: torch.dtype
    train: bool = False
    crop: int = 0
    seed: int = 0

    @property
    def size(self) -> int:
        return len(self.labels)

    def __len__(self) -> int:
        whole, rest = divmod(self.size, self.batch_size)
        return whole if self.train or not rest else whole + 1

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches `start, start + 1, …` of epoch `number`: a pure function of (seed, number, position)."""
        if not 0 <= start <= len(self):
            raise ValueError(f"batch {start} of an epoch of {len(self)}")
        return self._shuffled(number, start) if self.train else self._in_order(start)

    def unshuffled(self, batch_size: int) -> ImageSplit:
        """The same samples in order, without augmentation."""
        return replace(self, train=False, crop=0, batch_size=batch_size)

    def _in_order(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        for first in range(start * self.batch_size, self.size, self.batch_size):
            rows = slice(first, first + self.batch_size)
            yield scaled(self.images[rows], self.dtype), self.labels[rows]

    def _shuffled(self, number: int, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        # Drawn on the CPU, so that every device sees the same epoch, and sent over once.
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, number))
        order = torch.randperm(self.size, generator=generator).to(self.images.device)
        shifts = torch.randint(2 * self.crop + 1, (self.size, 2), generator=generator).to(self.images.device)

        for batch in range(start, len(self)):
            rows = slice(batch * self.batch_size, (batch + 1) * self.batch_size)
            images = self.images.index_select(0, order[rows])
            if self.crop:
                images = cropped(images, shifts[rows], self.crop)
            yield scaled(images, self.dtype), self.labels.index_select(0, order[rows])


class Split(Protocol):
    """One split, as training and scoring know it. Its length is the number of batches in an epoch."""

    @property
    def size(self) -> int: ...

    def __len__(self) -> int: ...

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Any]]:
        """Batches `start, start + 1, …` of epoch `number`."""
        ...

    def unshuffled(self, batch_size: int) -> Split:
        """The same samples in order, without augmentation."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Data:
    """What a task trains on.

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


def cropped(images: Tensor, shifts: Tensor, padding: int) -> Tensor:
    """Windows of the images' own size out of the images padded with zeros; `shifts` (B, 2) in 0…2·padding, rows first.

    images (B, 1, H, W) -> (B, 1, H, W)
    """
    batch, _, height, width = images.shape
    wide = width + 2 * padding
    down, right = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    window = (down[:, None] * wide + right).flatten()
    corner = shifts[:, 0] * wide + shifts[:, 1]
    padded = F.pad(images, (padding,) * 4).view(batch, -1)
    return padded.gather(1, corner[:, None] + window).view_as(images)


def scaled(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Bytes 0…255 as numbers in [0, 1]."""
    return images.to(dtype).div_(255)


def epoch_seed(seed: int, number: int) -> int:
    """A generator's seed for epoch `number`. Hashed, because torch's CPU generator uses 32 bits of its seed and
    neighbouring (seed, epoch) must not meet."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{number}".encode(), digest_size=8).digest(), "big")


def check(*, crop: int, validation: int) -> None:
    """Ranges of the options that every set of 28×28 images has."""
    if not 0 <= crop <= 27:
        raise RequestError(f"data.crop={crop} is out of range; it may be 0 to 27 pixels of padding.")
    if validation < 0:
        raise RequestError(f"data.validation={validation} is negative; give a number of training samples, or 0.")


def check_batch(batch_size: int, record: dict[str, Any]) -> None:
    """Refuse a batch of more samples than there are to train on."""
    count = record["sizes"]["train"]
    if batch_size > count:
        raise RequestError(
            f"trainer.batch_size={batch_size} is more than the {count:,} training samples of {record['used']}.\n"
            f"  It may be 1 to {count}."
        )


def sizes(train: int, test: int, validation: int) -> dict[str, int]:
    """Samples per split once the last `validation` of `train` are held out."""
    if validation >= train:
        raise RequestError(
            f"data.validation={validation} leaves nothing to train on: there are {train:,} training samples.\n"
            f"  It may be 0 to {train - 1}."
        )
    return {"train": train - validation, "valid": validation, "test": test}


def classify(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], *, crop: int, spec: BatchSpec, record: dict[str, Any]
) -> Data:
    """Ten classes of images (N, 1, 28, 28) with labels (N,); `record["sizes"]` says where `train` is cut in two."""
    cut = record["sizes"]["train"]
    check_batch(spec.batch_size, record)
    images, labels = (part.to(spec.device) for part in train)
    others = [part.to(spec.device) for part in test]

    def held(x: Tensor, y: Tensor) -> ImageSplit:
        return ImageSplit(images=x, labels=y, batch_size=spec.eval_batch_size, dtype=spec.dtype)

    return Data(
        train=ImageSplit(
            images=images[:cut],
            labels=labels[:cut],
            batch_size=spec.batch_size,
            dtype=spec.dtype,
            train=True,
            crop=crop,
            seed=spec.seed,
        ),
        valid=held(images[cut:], labels[cut:]),
        test=held(*others),
        shape=tuple(images.shape[1:]),
        classes=10,
        task="classify",
        record=record,
    )
