"""Downloaded sets of images: where they are, what may be downloaded, and what to do without a network."""

from __future__ import annotations

import hashlib
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from odenet_cli.data.common.download import Unavailable, download, reason
from odenet_cli.data.common.images import ImageSource, Samples
from odenet_cli.data.common.places import absolute
from odenet_cli.data.common.splits import data_record, name_of
from odenet_cli.errors import RequestError


@dataclass(frozen=True, kw_only=True)
class DownloadedImages(ImageSource):
    """Hold the options of a downloaded data set.

    A subclass has its name in `title`, and in `place` the folder of its files below the root, in torchvision's layout.
    """

    title: ClassVar[str]
    place: ClassVar[str]

    root: str | None = None
    download: str | bool = "auto"
    crop: int = 4
    validation: int = 5_000

    def __post_init__(self) -> None:
        if str(self.download).lower() not in ("auto", "true", "false"):
            raise RequestError(f"data.download={self.download} is not known. Available: auto, true, false.")
        if self.root is not None and (not self.root.strip() or "\0" in self.root):
            raise RequestError(
                f"data.root={self.root!r} is not the name of a folder; leave it out for {default_root()}."
            )
        super().__post_init__()

    @property
    def folder(self) -> Path:
        return absolute(self.root) if self.root is not None else default_root()

    @property
    def raw(self) -> Path:
        return self.folder / self.place

    def check_folders(self) -> None:
        """Raise RequestError for a root that does not exist, or files instead of folders."""
        if self.root is not None and not os.path.lexists(self.folder) and str(self.download).lower() != "true":
            raise RequestError(
                f"data.root={self.root} does not exist.\n  To download {self.title} to it: {self.command}"
            )
        for folder in (self.folder, self.raw.parent, self.raw):
            if os.path.lexists(folder) and not folder.is_dir():
                raise RequestError(f"{folder} is not a folder. Expected data.root to hold {self.place}; set data.root.")

    def resources(self, missing: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
        """Return (name, MD5) of the downloads for the missing files, and the base URLs."""
        raise NotImplementedError

    def fetch(self, missing: list[str]) -> None:
        """Download the missing files; raise Unavailable if this is not allowed or fails."""
        if str(self.download).lower() == "false":
            raise Unavailable(self.incomplete(missing, "data.download is false"))
        try:
            download(*self.resources(missing), self.raw, missing)
        except OSError as error:
            raise Unavailable(self.incomplete(missing, f"cannot be downloaded ({reason(error)})")) from None

    def incomplete(self, missing: list[str], why: str) -> str:
        """Describe what is missing, and what to do with and without a network."""
        forms = ", unpacked or as .gz" if self.place.endswith("raw") else ""
        return (
            f"{self.title} is not complete in {self.raw} and {why}.\n"
            f"  Missing: {', '.join(missing)}.\n"
            f"  With a network, download them: {self.command}\n"
            f"  Without a network, copy them there{forms} (with data.root=FOLDER to FOLDER/{self.place}), or use "
            "data=digits."
        )

    @property
    def command(self) -> str:
        root = f" {shlex.quote(f'data.root={self.root}')}" if self.root is not None else ""
        return f"odenet data {name_of(self)}{root}"

    @property
    def remedy(self) -> str:
        return f"Replace it with an intact copy, or move it away and download {self.title} with: {self.command}"


def default_root() -> Path:
    """Return the folder of all downloaded data: $ODENET_DATA, or ~/.cache/odenet."""
    return absolute(os.environ.get("ODENET_DATA") or "~/.cache/odenet")


@dataclass(frozen=True, kw_only=True)
class TorchvisionImages(DownloadedImages):
    """Read a set as torchvision does, after verifying the MD5 of every file, since some are pickles."""

    shape: ClassVar = (3, 32, 32)

    augment: list[str] | None = None

    def files(self) -> dict[str, str]:
        """Return the MD5 of each file in `raw`."""
        raise NotImplementedError

    def split(self, train: bool) -> tuple[Any, Any]:
        """Return images (N, 3, 32, 32) or (N, 32, 32, 3) and labels (N,) of a split."""
        raise NotImplementedError

    def read(self) -> tuple[Samples, Samples, dict[str, Any]]:
        self.check_folders()
        missing = [name for name in self.files() if not os.path.lexists(self.raw / name)]
        if missing:
            self.fetch(missing)
        sha256 = {name: self._verified(name, md5) for name, md5 in self.files().items()}
        train, test = (
            (x if x.shape[1] == 3 else x.movedim(3, 1).contiguous(), y)
            for x, y in (map(torch.as_tensor, self.split(train)) for train in (True, False))
        )
        sizes = self.sizes(len(train[1]), len(test[1]))
        return train, test, data_record(self, sizes, sha256=sha256, root=self.folder)

    def _verified(self, name: str, md5: str) -> str:
        """Return the SHA-256 of a file; raise RequestError unless it has the known MD5."""
        path = self.raw / name
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RequestError(f"{path} cannot be read ({reason(error)}).\n  {self.remedy}") from None
        found = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if found != md5:
            raise RequestError(f"{path} is damaged.\n  Expected the MD5 {md5}; found {found}.\n  {self.remedy}")
        return hashlib.sha256(content).hexdigest()
