"""CIFAR-10 (Krizhevsky 2009): 60,000 colour images of 32×32 pixels in ten classes, 10,000 of them for the test.

ROOT/cifar-10-batches-py holds the files, as torchvision lays them. The last `validation` training samples are held out
for validation, whatever the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from odenet_cli.data.common.downloaded import TorchvisionImages


@dataclass(frozen=True, kw_only=True)
class Source(TorchvisionImages):
    """Options of `data=cifar10`."""

    title: ClassVar = "CIFAR-10"
    place: ClassVar = "cifar-10-batches-py"

    def files(self) -> dict[str, str]:
        from torchvision.datasets import CIFAR10

        meta = (CIFAR10.meta["filename"], CIFAR10.meta["md5"])
        return dict((*CIFAR10.train_list, *CIFAR10.test_list, meta))

    def resources(self, missing: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
        from torchvision.datasets import CIFAR10

        return [(CIFAR10.filename, CIFAR10.tgz_md5)], [CIFAR10.url.removesuffix(CIFAR10.filename)]

    def split(self, train: bool) -> tuple[Any, Any]:
        from torchvision.datasets import CIFAR10

        split = CIFAR10(self.folder, train=train)
        return split.data, split.targets
