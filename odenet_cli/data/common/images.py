"""Images that live on the device as bytes; batches are cut from them, and mirrored, by a few kernels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from odenet_cli.data.common.splits import Batch, BatchSpec, Data, TensorSplit, epoch_seed
from odenet_cli.errors import RequestError

AUGMENTATIONS = ("crop", "flip")


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSplit(TensorSplit):
    """Hold rows = (images (N, C, H, W) uint8, labels (N,) int64); a batch has images of `dtype` in [0, 1].

    An epoch of a training split is one pass, or `least` batches where one has fewer: shuffled, each image a random crop
    out of `crop` pixels of padding and, with `flip`, mirrored in half of the cases; the last partial batch is dropped.
    Other rows (vectors, numbers) are dealt as they are, and what they are measured in (`distribution`) behind them.
    """

    dtype: torch.dtype
    crop: int = 0
    flip: bool = False
    least: int = 0

    def __len__(self) -> int:
        return max(self.least, self.size // self.batch_size) if self.train else super().__len__()

    def _in_order(self, start: int) -> Iterator[Batch]:
        for images, *rest in super()._in_order(start):
            yield to_unit_interval(images, self.dtype), *rest

    def _shuffled(self, number: int, start: int) -> Iterator[Batch]:
        images, labels = self.rows
        extra = () if self.distribution is None else (self.distribution,)
        batches_per_pass, drawn, order, shifts, mirrored = self.size // self.batch_size, -1, *[torch.empty(0)] * 3

        for batch in range(number * len(self) + start, (number + 1) * len(self)):
            pass_number, position = divmod(batch, batches_per_pass)
            if pass_number != drawn:
                (order, shifts, mirrored), drawn = self._draw(pass_number), pass_number
            rows = slice(position * self.batch_size, (position + 1) * self.batch_size)
            x = images.index_select(0, order[rows])
            if self.crop:
                x = crop_windows(x, shifts[rows], self.crop)
            if self.flip:
                x = torch.where(mirrored[rows, None, None, None], x.flip(-1), x)
            yield to_unit_interval(x, self.dtype), labels.index_select(0, order[rows]), *extra

    def _draw(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        """Draw the order of a pass, the shifts of its crops, and which images are mirrored."""
        # On the CPU, so that every device sees the same epoch, and sent over once.
        generator = torch.Generator().manual_seed(epoch_seed(self.seed, number))
        order = torch.randperm(self.size, generator=generator)
        shifts = torch.randint(2 * self.crop + 1, (self.size, 2), generator=generator)
        mirrored = torch.rand(self.size, generator=generator) < 0.5 if self.flip else torch.empty(0)
        device = self.rows[0].device
        return order.to(device), shifts.to(device), mirrored.to(device)


def crop_windows(images: Tensor, shifts: Tensor, padding: int) -> Tensor:
    """Return windows of the images' own size, cut out of the images padded with zeros.

    images (B, C, H, W), shifts (B, 2) in 0…2·padding, rows first -> (B, C, H, W)
    """
    batch, channels, height, width = images.shape
    padded_width = width + 2 * padding
    down, right = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    window = (down[:, None] * padded_width + right).flatten()
    corner = shifts[:, 0] * padded_width + shifts[:, 1]
    padded = F.pad(images, (padding,) * 4).view(batch, channels, -1)
    return padded.gather(2, (corner[:, None, None] + window).expand(-1, channels, -1)).view_as(images)


def to_unit_interval(images: Tensor, dtype: torch.dtype) -> Tensor:
    """Return bytes 0…255 as numbers in [0, 1]; what is no byte stays."""
    return images.to(dtype).div_(255) if images.dtype == torch.uint8 else images


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Hold the options of every set of images with splits of its own.

    crop        padding of the random crop in pixels
    validation  training samples held out: the last ones, whatever the seed
    """

    shape: ClassVar = (1, 28, 28)
    classes: ClassVar = 10
    task: ClassVar = "classify"

    crop: int
    validation: int

    def __post_init__(self) -> None:
        most = min(self.shape[1:]) - 1
        if not 0 <= self.crop <= most:
            raise RequestError(f"data.crop={self.crop} is out of range; it may be 0 to {most} pixels of padding.")
        check_augmentations(self.augmentations)
        if self.validation < 0:
            raise RequestError(
                f"data.validation={self.validation} is negative; give a number of training samples, or 0."
            )

    @property
    def augmentations(self) -> tuple[str, ...]:
        """What is done to training images; a set without the option `augment` crops them."""
        return tuple(getattr(self, "augment", ("crop",)) or ())

    def sizes(self, train: int, test: int) -> dict[str, int]:
        """Return the samples of each split once the last `validation` of `train` are held out."""
        if self.validation >= train:
            raise RequestError(
                f"data.validation={self.validation} leaves nothing to train on: there are {train:,} training samples.\n"
                f"  It may be 0 to {train - 1}."
            )
        return {"train": train - self.validation, "valid": self.validation, "test": test}

    def image_data(
        self, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], spec: BatchSpec, record: dict[str, Any]
    ) -> Data:
        """Return images (N, H, W) or (N, C, H, W) and labels (N,) as `Data`.

        `record["sizes"]` says where `train` is cut in two.
        """
        check_images_batch(spec.batch_size, record)
        cut = record["sizes"]["train"]
        (images, labels), held_out = (
            ((x.unsqueeze(1) if x.dim() == 3 else x).to(spec.device), y.long().to(spec.device))
            for x, y in (train, test)
        )

        def in_order(*rows: Tensor) -> ImageSplit:
            return ImageSplit(rows=rows, batch_size=spec.eval_batch_size, dtype=spec.dtype)

        return Data(
            train=ImageSplit(
                rows=(images[:cut], labels[:cut]),
                batch_size=spec.batch_size,
                train=True,
                seed=spec.seed,
                dtype=spec.dtype,
                crop=self.crop if "crop" in self.augmentations else 0,
                flip="flip" in self.augmentations,
            ),
            valid=in_order(images[cut:], labels[cut:]),
            test=in_order(*held_out),
            shape=self.shape,
            classes=self.classes,
            task=self.task,
            record=record,
        )


def check_augmentations(words: Sequence[str]) -> None:
    """Raise RequestError for one that there is not."""
    for word in words:
        if word not in AUGMENTATIONS:
            raise RequestError(f"data.augment={word} is not known. There are: {', '.join(AUGMENTATIONS)}.")


def check_images_batch(batch_size: int, record: dict[str, Any]) -> None:
    """Raise RequestError for a batch of more samples than there are to train on."""
    count = record["sizes"]["train"]
    if batch_size > count:
        raise RequestError(
            f"trainer.batch_size={batch_size} is more than the {count:,} training samples of {record['used']}.\n"
            f"  It may be 1 to {count}."
        )
