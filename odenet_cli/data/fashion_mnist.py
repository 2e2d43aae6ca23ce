"""Fashion-MNIST (Xiao, Rasul, Vollgraf 2017): MNIST's format and sizes, ten kinds of clothes.

ROOT/FashionMNIST/raw holds the four files, as torchvision lays them, unpacked or `.gz`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from odenet_cli.data import mnist


@dataclass(frozen=True, kw_only=True)
class Source(mnist.Source):
    """Options of `data=fashion_mnist`."""

    title: ClassVar = "FashionMNIST"
    place: ClassVar = "FashionMNIST/raw"
    original: ClassVar = dict.fromkeys(mnist.ORIGINAL)  # downloads are verified by torchvision's MD5

    augment: list[str] | None = None
