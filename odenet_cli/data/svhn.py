"""SVHN (Netzer et al. 2011), street view house numbers: 99,289 colour images of 32×32 pixels in ten classes.

ROOT/SVHN holds train_32x32.mat and test_32x32.mat, as torchvision reads them. The last `validation` training samples
are held out for validation, whatever the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from odenet_cli.data.common.downloaded import TorchvisionImages


@dataclass(frozen=True, kw_only=True)
class Source(TorchvisionImages):
    """Options of `data=svhn`."""

    title: ClassVar = "SVHN"
    place: ClassVar = "SVHN"

    def files(self) -> dict[str, str]:
        from torchvision.datasets import SVHN

        return {name: md5 for _, name, md5 in (SVHN.split_list["train"], SVHN.split_list["test"])}

    def resources(self, missing: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
        from torchvision.datasets import SVHN

        url, first, _ = SVHN.split_list["train"]
        return [(name, md5) for name, md5 in self.files().items() if name in missing], [url.removesuffix(first)]

    def split(self, train: bool) -> tuple[Any, Any]:
        from torchvision.datasets import SVHN

        split = SVHN(self.raw, split="train" if train else "test")
        return split.data, split.labels
