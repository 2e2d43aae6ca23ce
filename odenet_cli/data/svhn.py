"""SVHN (Netzer et al. 2011), street view house numbers: 99,289 colour images of 32×32 pixels in ten classes.

ROOT/SVHN holds train_32x32.mat and test_32x32.mat, as torchvision reads them. The last `validation` training samples
are held out for choosing, whatever the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from odenet_cli.data.common.downloaded import TorchvisionImages

SPLITS = ("train", "test")


@dataclass(frozen=True, kw_only=True)
class Source(TorchvisionImages):
    """Options of `data=svhn`."""

    used: ClassVar = "svhn"
    title: ClassVar = "SVHN"
    place: ClassVar = "SVHN"

    def files(self) -> dict[str, str]:
        return dict(self.resources()[0])

    def resources(self) -> tuple[list[tuple[str, str]], str]:
        from torchvision.datasets import SVHN

        known = [SVHN.split_list[split] for split in SPLITS]
        return [(name, md5) for _, name, md5 in known], known[0][0].removesuffix(known[0][1])

    def read(self, train: bool) -> tuple[Any, Any]:
        from torchvision.datasets import SVHN

        split = SVHN(self.raw, split=SPLITS[not train])
        return split.data, split.labels
