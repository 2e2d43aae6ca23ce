"""MNIST (LeCun, Cortes, Burges 1998), or any set in its format: 28×28 bytes, labels 0 to 9.

ROOT/MNIST/raw holds the four files, as torchvision lays them, unpacked or `.gz`. The last `validation` training samples
are held out for choosing, whatever the seed.
"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from odenet_cli.data.common.download import Unavailable, download, reason
from odenet_cli.data.common.idx import IMAGES, LABELS, Idx, read_idx
from odenet_cli.data.common.images import ImageSource
from odenet_cli.data.common.splits import BatchSpec, Data, data_record
from odenet_cli.errors import RequestError

# The SHA-256 of the original files, unpacked.
ORIGINAL = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}


@dataclass(frozen=True, kw_only=True)
class Source(ImageSource):
    """Options of `data=mnist`.

    root      folder that holds MNIST/raw; null is $ODENET_DATA, or ~/.cache/odenet
    download  auto fetches missing files into the default root or a folder that exists, true makes the folder
    """

    root: str | None = None
    download: str | bool = "auto"
    crop: int = 4
    validation: int = 5_000

    def __post_init__(self) -> None:
        if str(self.download).lower() not in ("auto", "true", "false"):
            raise RequestError(f"data.download={self.download} is not one of auto, true, false.")
        if self.root is not None and (not self.root.strip() or "\0" in self.root):
            raise RequestError(f"data.root={self.root!r} names no folder; leave it out for {default_root()}.")
        super().__post_init__()

    @property
    def folder(self) -> Path:
        return Path(os.path.abspath(os.path.expanduser(self.root))) if self.root is not None else default_root()

    @property
    def raw(self) -> Path:
        return self.folder / "MNIST" / "raw"

    def prepare(self) -> dict[str, Any]:
        return self._record(self._read())

    def load(self, spec: BatchSpec) -> Data:
        files = self._read()

        def pair(part: str) -> tuple[Tensor, Tensor]:
            return files[f"{part}-images-idx3-ubyte"].values, files[f"{part}-labels-idx1-ubyte"].values

        return self.image_data(pair("train"), pair("t10k"), spec, self._record(files))

    def _record(self, files: dict[str, Idx]) -> dict[str, Any]:
        others = [name for name, sha256 in ORIGINAL.items() if files[name].sha256 != sha256]
        train, test = (len(files[f"{part}-labels-idx1-ubyte"].values) for part in ("train", "t10k"))
        return data_record(
            "mnist",
            self.sizes(train, test),
            sha256={name: file.sha256 for name, file in files.items()},
            root=str(self.folder),
            warning=f"{self.raw} is sound but not the original MNIST: {', '.join(others)}." if others else None,
        )

    def _read(self) -> dict[str, Idx]:
        """Return the four files, sound and of matching counts; missing ones are fetched where that is allowed."""
        self._check_folders()
        paths = {name: path for name in ORIGINAL if (path := self._find(name))}
        files = {name: self._read_file(path) for name, path in paths.items()}
        missing = [name for name in ORIGINAL if name not in files]
        if missing:
            # Only the original is completed: MNIST's test set beside another training set would be a silent mixture.
            if any(file.sha256 != ORIGINAL[name] for name, file in files.items()):
                raise RequestError(self._incomplete(missing, "its other files are those of another set"))
            if str(self.download).lower() == "false":
                raise Unavailable(self._incomplete(missing, "data.download is false"))
            self._fetch(missing)
            files |= {name: self._read_file(self.raw / name) for name in missing}

        for part in ("train", "t10k"):
            images, labels = (len(files[f"{part}-{kind}-ubyte"].values) for kind in ("images-idx3", "labels-idx1"))
            if images != labels:
                raise RequestError(
                    f"{self._find(f'{part}-labels-idx1-ubyte')} does not fit {part}-images-idx3-ubyte.\n"
                    f"  Expected {images:,} labels, one for each image; found {labels:,}.\n  {self._remedy}"
                )
        return {name: files[name] for name in ORIGINAL}

    def _find(self, name: str) -> Path | None:
        """Return the file, or the `.gz` beside it, or None. A link to nowhere counts: reading names it as unsound."""
        candidates = (self.raw / name, self.raw / f"{name}.gz")
        return next((path for path in candidates if os.path.lexists(path)), None)

    def _read_file(self, path: Path) -> Idx:
        return read_idx(path, IMAGES if "images" in path.name else LABELS, self._remedy)

    def _check_folders(self) -> None:
        if self.root is not None and not os.path.lexists(self.folder) and str(self.download).lower() != "true":
            raise RequestError(f"data.root={self.root} does not exist.\n  To fetch MNIST there: {self._command}")
        for folder in (self.folder, self.raw.parent, self.raw):
            if os.path.lexists(folder) and not folder.is_dir():
                raise RequestError(f"{folder} is not a folder. Expected data.root to hold MNIST/raw; set data.root.")

    def _fetch(self, missing: list[str]) -> None:
        from torchvision.datasets import MNIST

        resources = [(name, md5) for name, md5 in MNIST.resources if name.removesuffix(".gz") in missing]
        try:
            download(resources, MNIST.mirrors, self.raw)
        except OSError as error:
            raise Unavailable(self._incomplete(missing, f"cannot be downloaded ({reason(error)})")) from None

    def _incomplete(self, missing: list[str], why: str) -> str:
        return (
            f"MNIST is not complete in {self.raw} and {why}.\n  Missing: {', '.join(missing)}.\n"
            f"  With a network, fetch them by: {self._command}\n"
            "  Without one, copy them there, unpacked or as .gz (with data.root=FOLDER to FOLDER/MNIST/raw), or use "
            "data=digits."
        )

    @property
    def _command(self) -> str:
        return "odenet data mnist" + (f" {shlex.quote(f'data.root={self.root}')}" if self.root is not None else "")

    @property
    def _remedy(self) -> str:
        return f"Put a sound copy in its place, or move it away and fetch MNIST with: {self._command}"


def default_root() -> Path:
    """Return the folder of all downloaded data: $ODENET_DATA, or ~/.cache/odenet."""
    return Path(os.path.abspath(os.path.expanduser(os.environ.get("ODENET_DATA") or "~/.cache/odenet")))
