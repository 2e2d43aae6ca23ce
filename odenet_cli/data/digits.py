"""scikit-learn's 1,797 handwritten digits, 8×8 pixels of 0…16, scaled up to 28×28 bytes.

The optical digits of Alpaydin and Kaynak (UCI, 1998), part of scikit-learn, so nothing is downloaded. The rows are
ordered by writer: the first 1,437 are for training and the last 360, by other writers, for testing. The last
`validation` of the 1,437 are held out for validation, whatever the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from odenet_cli.data.common.images import ImageSource, Samples
from odenet_cli.data.common.splits import data_record, sha256_of

TRAIN, TEST = 1437, 360


@dataclass(frozen=True, kw_only=True)
class Source(ImageSource):
    """Options of `data=digits`."""

    crop: int = 2
    validation: int = 144

    def __post_init__(self) -> None:
        super().__post_init__()
        self.sizes(TRAIN, TEST)

    def read(self) -> tuple[Samples, Samples, dict[str, Any]]:
        small, labels = load_small()
        images = enlarge(small)
        record = data_record(self, self.sizes(TRAIN, TEST), sha256=sha256_of([small]))
        return (images[:TRAIN], labels[:TRAIN]), (images[TRAIN:], labels[TRAIN:]), record


def enlarge(small: Tensor) -> Tensor:
    """Return the images scaled bilinearly from 8×8 to 28×28 and from 0…16 to 0…255, (N, 8, 8) -> (N, 28, 28) uint8.

    Pixel i of 28 has its centre at (4i − 5)/14 of 8, so all weights are multiples of 1/14, and the sums integers, which
    are exact in float64: the bytes are the same on every machine.
    """
    weight = torch.zeros(28, 8, dtype=torch.float64)
    for i in range(28):
        left, part = divmod(min(max(4 * i - 5, 0), 7 * 14), 14)
        weight[i, left] += 14 - part
        weight[i, min(left + 1, 7)] += part
    total = weight @ small.double() @ weight.T
    whole = 16 * 14 * 14
    # Truncation is safe: a quotient of such small numbers is never rounded up to an integer.
    return ((255 * total + whole // 2) / whole).to(torch.uint8)


@cache
def load_small() -> tuple[Tensor, Tensor]:
    """Return images (1797, 8, 8) uint8 and labels (1797,) int64.

    The file is read from the installation of scikit-learn, whose import takes as long as that of torch.
    """
    package = find_spec("sklearn")
    file = Path((package and package.origin) or "").parent / "datasets" / "data" / "digits.csv.gz"
    if file.is_file():
        table = np.loadtxt(file, delimiter=",")
    else:  # a version with the file elsewhere
        from sklearn.datasets import load_digits

        digits = load_digits()
        table = np.column_stack([digits.data, digits.target])
    rows = torch.from_numpy(table)  # 64 pixels and the label
    return rows[:, :-1].reshape(-1, 8, 8).to(torch.uint8), rows[:, -1].long()
