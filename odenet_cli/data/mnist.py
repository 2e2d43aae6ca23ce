"""MNIST (LeCun, Cortes, Burges 1998), or any set in its format: 28×28 bytes, labels 0 to 9.

ROOT/MNIST/raw holds the four files, as torchvision lays them, unpacked or `.gz`. The last `validation` training samples
are held out for validation, whatever the seed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from odenet_cli.data.common.downloaded import DownloadedImages
from odenet_cli.data.common.idx import IMAGES, LABELS, Idx, read_idx
from odenet_cli.data.common.images import Samples
from odenet_cli.data.common.splits import data_record
from odenet_cli.errors import RequestError

# The SHA-256 of the original files, unpacked.
ORIGINAL = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@dataclass(frozen=True, kw_only=True)
class Source(DownloadedImages):
    """Options of `data=mnist`."""

    title: ClassVar[str] = "MNIST"  # also the name of torchvision's class
    place: ClassVar[str] = "MNIST/raw"
    original: ClassVar[Mapping[str, str | None]] = ORIGINAL  # None if any valid file is accepted

    def read(self) -> tuple[Samples, Samples, dict[str, Any]]:
        files = self._read()
        train, test = (
            (files[f"{part}-images-idx3-ubyte"].values, files[f"{part}-labels-idx1-ubyte"].values)
            for part in ("train", "t10k")
        )
        others = [name for name in files if self._differs(name, files[name])]
        record = data_record(
            self,
            self.sizes(len(train[1]), len(test[1])),
            sha256={name: file.sha256 for name, file in files.items()},
            root=self.folder,
            warning=f"{self.raw} is intact but not the original {self.title}: {', '.join(others)}." if others else None,
        )
        return train, test, record

    def _read(self) -> dict[str, Idx]:
        """Return the four files, valid and with matching counts; missing files are downloaded if this is allowed."""
        self.check_folders()
        paths = {name: path for name in ORIGINAL if (path := self._find(name))}
        files = {name: self._read_file(path) for name, path in paths.items()}
        missing = [name for name in ORIGINAL if name not in files]
        if missing:
            # Only the original set is completed: another training set with MNIST's test set would be a silent mixture.
            if any(self._differs(name, file) for name, file in files.items()):
                raise RequestError(self.incomplete(missing, "its other files are those of another set"))
            self.fetch(missing)
            files |= {name: self._read_file(self.raw / name) for name in missing}

        for part in ("train", "t10k"):
            images, labels = (len(files[f"{part}-{kind}-ubyte"].values) for kind in ("images-idx3", "labels-idx1"))
            if images != labels:
                raise RequestError(
                    f"{self._find(f'{part}-labels-idx1-ubyte')} does not fit {part}-images-idx3-ubyte.\n"
                    f"  Expected {images:,} labels, one for each image; found {labels:,}.\n  {self.remedy}"
                )
        return {name: files[name] for name in ORIGINAL}

    def _differs(self, name: str, file: Idx) -> bool:
        return self.original[name] not in (None, file.sha256)

    def _find(self, name: str) -> Path | None:
        """Return the file, or its `.gz`, or None. A broken link counts as a file, whose reading reports the error."""
        candidates = (self.raw / name, self.raw / f"{name}.gz")
        return next((path for path in candidates if os.path.lexists(path)), None)

    def _read_file(self, path: Path) -> Idx:
        return read_idx(path, IMAGES if "images" in path.name else LABELS, self.remedy)

    def resources(self, missing: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
        from torchvision import datasets

        known: type[datasets.MNIST] = getattr(datasets, self.title)
        return [(name, md5) for name, md5 in known.resources if name.removesuffix(".gz") in missing], known.mirrors
