"""Images kept on the device as bytes, from which a few kernels crop, mirror and scale batches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from odenet_cli.data.common.checks import check_choice, check_range
from odenet_cli.data.common.splits import Batch, BatchSpec, Data, TensorSplit, tensor_data
from odenet_cli.errors import RequestError

AUGMENTATIONS = ("crop", "flip")
Samples = tuple[Tensor, Tensor]  # images (N, H, W) or (N, C, H, W), labels (N,)


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageSplit(TensorSplit):
    """Hold rows = (images (N, C, H, W) uint8, labels (N,) int64); a batch has images of `dtype` in [0, 1].

    An epoch of a training split is one shuffled pass, or `least` batches if a pass has fewer. Each image is cropped at
    random after padding by `crop` pixels and, with `flip`, mirrored with probability ½; the last partial batch is
    dropped. Other rows (vectors, numbers) are unchanged, and followed by their units (`distribution`).
    """

    dtype: torch.dtype
    crop: int = 0
    flip: bool = False
    least: int = 0

    def __len__(self) -> int:
        return max(self.least, self.size // self.batch_size) if self.train else super().__len__()

    def _draw(self, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Draw the order of a pass, the shifts of the crops, and which images are mirrored."""
        order = super()._draw(generator)
        shifts = torch.randint(2 * self.crop + 1, (self.size, 2), generator=generator)
        return *order, shifts, torch.rand(self.size, generator=generator) < 0.5

    def _pick(self, order: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
        (images, labels), (shifts, mirrored) = super()._pick(order), more
        if self.crop:
            images = crop_windows(images, shifts, self.crop)
        if self.flip:
            images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        return images, labels

    def _batch(self, *rows: Tensor) -> Batch:
        images, *rest = rows
        return super()._batch(images.to(self.dtype).div_(255) if images.dtype == torch.uint8 else images, *rest)


def crop_windows(images: Tensor, shifts: Tensor, padding: int) -> Tensor:
    """Return crops of the images' own size from the images padded with zeros.

    images (B, C, H, W), shifts (B, 2) in 0…2·padding, rows first -> (B, C, H, W)
    """
    batch, channels, height, width = images.shape
    padded_width = width + 2 * padding
    down, right = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    window = (down[:, None] * padded_width + right).flatten()
    corner = shifts[:, 0] * padded_width + shifts[:, 1]
    padded = F.pad(images, (padding,) * 4).view(batch, channels, -1)
    return padded.gather(2, (corner[:, None, None] + window).expand(-1, channels, -1)).view_as(images)


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Hold the options of image data sets with their own splits; the last training samples are held out."""

    shape: ClassVar = (1, 28, 28)
    classes: ClassVar = 10
    task: ClassVar = "classify"

    crop: int
    validation: int

    def __post_init__(self) -> None:
        check_range("crop", self.crop, 0, min(self.shape[1:]) - 1, " pixels of padding")
        for word in self.augmentations:
            check_choice("augment", word, AUGMENTATIONS)
        if self.validation < 0:
            raise RequestError(
                f"data.validation={self.validation} is negative; it must be a number of training samples, or 0."
            )

    @property
    def augmentations(self) -> tuple[str, ...]:
        """The augmentations of training images; a set without the option `augment` crops them."""
        return tuple(getattr(self, "augment", ("crop",)) or ())

    def sizes(self, train: int, test: int) -> dict[str, int]:
        """Return the number of samples of each split after holding out the last `validation` of `train`."""
        if self.validation >= train:
            raise RequestError(
                f"data.validation={self.validation} leaves no samples to train on: there are {train:,} training "
                "samples.\n"
                f"  Allowed: 0 to {train - 1}."
            )
        return {"train": train - self.validation, "valid": self.validation, "test": test}

    def read(self) -> tuple[Samples, Samples, dict[str, Any]]:
        """Return the training and test samples, and the record, whose sizes say where the former are split."""
        raise NotImplementedError

    def prepare(self) -> dict[str, Any]:
        return self.read()[2]

    def load(self, spec: BatchSpec) -> Data:
        *both, record = self.read()
        (x, labels), (test_x, test_labels) = (
            (images.unsqueeze(1) if images.dim() == 3 else images, y.long()) for images, y in both
        )
        cut = record["sizes"]["train"]
        return tensor_data(
            [(x[:cut], labels[:cut]), (x[cut:], labels[cut:]), (test_x, test_labels)],
            spec,
            kind=partial(ImageSplit, dtype=spec.dtype),
            shape=self.shape,
            classes=self.classes,
            task=self.task,
            record=record,
            crop=self.crop if "crop" in self.augmentations else 0,
            flip="flip" in self.augmentations,
        )
