"""scikit-learn's 1,797 handwritten digits, 8×8 pixels of 0…16, scaled up to 28×28 bytes.

The optical digits of Alpaydin and Kaynak (UCI, 1998), part of scikit-learn, so nothing is downloaded. The rows are
ordered by writer: the first 1,437 train and the last 360 test, on other hands. The last `validation` of the 1,437 are
held out for choosing, whatever the seed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from odenet_cli.data.common.images import BatchSpec, Data, check, classify, sizes

TRAIN, TEST = 1437, 360


@dataclass(frozen=True, kw_only=True)
class Source:
    """Options of `data=digits`: padding of the random crop in pixels, training samples held out."""

    shape: ClassVar = (1, 28, 28)
    classes: ClassVar = 10
    task: ClassVar = "classify"

    crop: int = 2
    validation: int = 144

    def __post_init__(self) -> None:
        check(crop=self.crop, validation=self.validation)
        sizes(TRAIN, TEST, self.validation)

    def prepare(self) -> dict[str, Any]:
        return self._record(_embedded()[0])

    def load(self, spec: BatchSpec) -> Data:
        small, labels = _embedded()
        images = enlarged(small).unsqueeze(1)
        train, test = (images[:TRAIN], labels[:TRAIN]), (images[TRAIN:], labels[TRAIN:])
        return classify(train, test, crop=self.crop, spec=spec, record=self._record(small))

    def _record(self, small: Tensor) -> dict[str, Any]:
        return {
            "used": "digits",
            "sha256": hashlib.sha256(small.numpy().tobytes()).hexdigest(),
            "root": None,
            "sizes": sizes(TRAIN, TEST, self.validation),
            "warning": None,
        }


def enlarged(small: Tensor) -> Tensor:
    """Bilinear from 8×8 to 28×28 and from 0…16 to 0…255, (N, 8, 8) -> (N, 28, 28) uint8.

    Pixel i of 28 has its centre at (4i − 5)/14 of 8, so all weights are whole fourteenths, and the sums are exact in
    integers: every machine makes the same bytes.
    """
    weight = torch.zeros(28, 8, dtype=torch.int64)
    for i in range(28):
        left, part = divmod(min(max(4 * i - 5, 0), 7 * 14), 14)
        weight[i, left] += 14 - part
        weight[i, min(left + 1, 7)] += part
    total = torch.einsum("ia,nab,jb->nij", weight, small.long(), weight)
    whole = 16 * 14 * 14
    return ((255 * total + whole // 2) // whole).to(torch.uint8)


def _embedded() -> tuple[Tensor, Tensor]:
    """Images (1797, 8, 8) uint8 and labels (1797,) int64."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return torch.from_numpy(digits.images).to(torch.uint8), torch.from_numpy(digits.target).long()
