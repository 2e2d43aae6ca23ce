"""A user's own images: `data=images data.path=FOLDER`, one sub-folder per class, in torchvision's layout.

FOLDER/CLASS/*.png, or with splits FOLDER/train/CLASS/*.png beside valid (val) and test; for a run also FOLDER/*.png, of
unknown classes. Grey images have one channel; if any image has colour, all have three. They are read once, rotated
according to EXIF, scaled to `data.size` if it is given, and stored as bytes. There are two passes: sizes and modes are
in the first bytes of a file, so images of different sizes are refused before any is decoded.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy

from odenet_cli.data.common.checks import memory_lacking
from odenet_cli.data.common.faults import Faults, few
from odenet_cli.data.common.labelled import TASKS, LabelledSource
from odenet_cli.data.common.own import OwnFile
from odenet_cli.data.common.samples import WHOLE, Part
from odenet_cli.data.common.splits import PARTS, WORDS
from odenet_cli.data.common.understood import Found
from odenet_cli.errors import RequestError

GREY, COLOUR = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV")  # modes of Pillow
REMEDY = "Replace it with an intact copy of 8 bits per channel, or delete it"


class File(NamedTuple):
    """Hold the path of an image, its split and class, and its size (height, width) and mode from the file's head."""

    path: Path
    split: str
    label: str
    size: tuple[int, int] = (0, 0)
    mode: str = ""


@dataclass(frozen=True, kw_only=True)
class Source(OwnFile, LabelledSource):
    """Options of `data=images`."""

    tasks: ClassVar[tuple[str, ...]] = TASKS[:1]
    WANTED: ClassVar = "data=images data.path=FOLDER, with a sub-folder for each class."

    task: str | None = "classify"
    layout: str | None = "hwc"
    size: int | list[int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        sides = (self.size,) * 2 if isinstance(self.size, int) else tuple(self.size or ())
        object.__setattr__(self, "size", sides)  # hashable, so that images are read once
        if len(sides) not in (0, 2) or any(not 1 <= side <= 4096 for side in sides):
            raise RequestError(
                f"data.size={list(sides)} is not a size: give a side of 1 to 4096 pixels, [height,width], or null."
            )

    def state(self) -> Hashable:
        try:
            return tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in _below(self.file))
        except OSError:
            return None

    def find(self) -> Found:
        faults = Faults(self.file)
        files, notes = self._list(faults)
        bad = dict[str, list[str]]()
        files = [known for file in files if (known := _look(file, bad))]
        _report(bad, faults)
        self._check_sizes(files, faults)
        faults.raise_all()
        mode = "L" if all(file.mode in GREY for file in files) else "RGB"
        images, sha256, transparent = _decode(files, self.file, self._scaled(files), mode, faults)
        faults.raise_all()
        if transparent:
            named = few(transparent)
            notes.append(
                f"transparent pixels are read as opaque, in the colour stored below the transparency: {named}."
            )
        split = numpy.array([file.split for file in files])
        labels = numpy.array([file.label for file in files])
        parts = [
            Part(name, images[some], labels[some] if any(labels) else None, "the images", f"{self.file.name}")
            for name in (WHOLE, *PARTS)
            if (some := split == name).any()
        ]
        order = [n for part in parts for n in numpy.flatnonzero(split == part.split)]
        names = [str(files[n].path.relative_to(self.file)) for n in order]
        return Found(parts, str(self.file), sha256, notes, names=names)

    def _list(self, faults: Faults) -> tuple[list[File], list[str]]:
        """Return the files, split by split, and notes on files that are not images."""
        if not self.file.is_dir():
            what = "is not a folder" if self.file.exists() else "does not exist"
            wanted = "of images" if self.run else "with a sub-folder for each class"
            raise RequestError(f"data.path={self.file} {what}. Name a folder {wanted}.")
        tops = _folders(self.file)
        split_of = {folder: WORDS[folder.name.lower()] for folder in tops if folder.name.lower() in WORDS}
        if not {"valid", "test"} & {*split_of.values()}:
            split_of = {}
        elif others := [folder.name for folder in tops if folder not in split_of]:
            faults.add(
                f"next to its splits it contains {few(others)}",
                "Move them into the splits, or delete them",
                len(others),
            )
        holders = split_of or {self.file: WHOLE}
        files, notes = list[File](), list[str]()
        for holder, split in holders.items():
            files += self._list_split(holder, split, faults, notes)
        return files, notes

    def _list_split(self, holder: Path, split: str, faults: Faults, notes: list[str]) -> list[File]:
        """Return the files of a split; a class without an image is a fault."""
        from torchvision.datasets.folder import IMG_EXTENSIONS

        files, folders = list[File](), _folders(holder)
        others = [path for path in sorted(holder.iterdir()) if path.is_file() and not path.name.startswith(".")]
        if not folders and self.run and holder == self.file:
            folders, others = [holder], []  # classes are unknown
        if not folders:
            what = "it" if holder == self.file else holder.name
            faults.add(
                f"{what} has no sub-folders of classes",
                "Put the images of each class into a folder named like the class",
            )
        for folder in folders:
            paths = _below(folder)
            images = [path for path in paths if path.suffix.lower() in IMG_EXTENSIONS]
            others += [path for path in paths if path.suffix.lower() not in IMG_EXTENSIONS]
            if not images:
                held = f", but {few([path.name for path in paths])}" if paths else ""
                remedy = f"Fill it ({' '.join(IMG_EXTENSIONS)}), or delete it"
                faults.add(
                    f"{'it' if folder == self.file else folder.relative_to(self.file)} contains no image{held}", remedy
                )
            files += [File(path, split, folder.name if folder != holder else "") for path in images]
        if others:
            named = few([path.relative_to(self.file) for path in others])
            notes.append(f"ignored, not images of a class: {named}.")
        return files

    def _check_sizes(self, files: list[File], faults: Faults) -> None:
        """Add a fault unless all images have one size or `data.size` is given, and one if they exceed the memory."""
        counts = Counter(file.size for file in files)
        if len(counts) > 1 and not self.size:
            first = {file.size: file.path for file in reversed(files)}
            named = few([f"{h}×{w} ({first[h, w].relative_to(self.file)})" for (h, w), _ in counts.most_common()])
            usual = counts.most_common(1)[0][0]
            faults.add(
                f"its images have {len(counts):,} sizes: {named}",
                f"Scale them all to one: data.size={min(usual)}, or data.size=[HEIGHT,WIDTH]",
                len(counts) - 1,
            )
        height, width = self._scaled(files)
        if lacking := memory_lacking(3 * len(files) * height * width):
            faults.add(f"{len(files):,} images of {height}×{width} {lacking}", "Scale them down: data.size=")

    def _scaled(self, files: list[File]) -> tuple[int, int]:
        """Return height and width of the images after scaling."""
        if isinstance(self.size, tuple) and self.size:
            return self.size
        return files[0].size if files else (0, 0)


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _below(folder: Path) -> list[Path]:
    """Return the files below a folder in order, without hidden ones."""
    walk = ((Path(top), names) for top, _, names in os.walk(folder, followlinks=True))
    return sorted(top / name for top, names in walk for name in names if not name.startswith("."))


def _look(file: File, bad: dict[str, list[str]]) -> File | None:
    """Return the file with size and mode from its head; None, after adding it to `bad`, if it cannot be used."""
    from PIL import Image

    try:
        with Image.open(file.path) as image:
            turned = image.getexif().get(0x0112, 1) >= 5  # EXIF's orientation: a quarter turn
            size, mode = (image.size if turned else image.size[::-1]), image.mode
    except Exception as error:  # Pillow's decoders may raise anything
        bad.setdefault(_unsound(error), []).append(_name(file))
        return None
    if mode not in GREY + COLOUR:
        bad.setdefault(f"{mode} pixels, of more than a byte each", []).append(_name(file))
        return None
    return file._replace(size=size, mode=mode)


def _unsound(error: Exception) -> str:
    known = type(error).__name__ != "UnidentifiedImageError"  # whose message contains the whole path
    return f"not a valid image ({error})" if known else "not a valid image (unknown format)"


def _name(file: File) -> str:
    return f"{file.path.parent.name}/{file.path.name}"


def _report(bad: dict[str, list[str]], faults: Faults) -> None:
    """Add a fault for each kind of files that cannot be used."""
    for what, names in bad.items():
        faults.add(f"{what}: {few(names)}", REMEDY, len(names))


def _decode(
    files: list[File], folder: Path, size: tuple[int, int], mode: str, faults: Faults
) -> tuple[Any, str, list[str]]:
    """Return the images, (N, H, W) or (N, H, W, 3) uint8, a SHA-256 of names and bytes, and the transparent files."""
    from PIL import Image, ImageOps

    images = numpy.empty((len(files), *size) + (3,) * (mode == "RGB"), dtype=numpy.uint8)
    digest, bad, transparent = hashlib.sha256(), dict[str, list[str]](), list[str]()
    for n, file in enumerate(files):
        try:
            content = file.path.read_bytes()
            with Image.open(io.BytesIO(content)) as opened:
                if opened.has_transparency_data and opened.convert("RGBA").getextrema()[3][0] < 255:
                    transparent.append(_name(file))
                image = ImageOps.exif_transpose(opened).convert(mode)
                if image.size != size[::-1]:
                    image = image.resize(size[::-1], Image.Resampling.BILINEAR)
                images[n] = numpy.asarray(image)
        except Exception as error:
            bad.setdefault(_unsound(error), []).append(_name(file))
            continue
        digest.update(str(file.path.relative_to(folder)).encode() + hashlib.sha256(content).digest())
    _report(bad, faults)
    return images, digest.hexdigest(), transparent
