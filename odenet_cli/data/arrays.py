"""Arrays of a user's own: `data=arrays data.path=FILE.npz`, x and y of any samples, in one piece or in splits.

x are vectors (N, D), (N,) is (N, 1); or images (N, H, W), (N, C, H, W), (N, H, W, C). y are labels 0…C-1 or text, or
numbers to predict, (N,) or (N, K). Splits are arrays of their own, as libraries write them: x_train and y_train, or
train_images and train_labels, beside those of valid (val) and test. What is wrong with shapes and dtypes is seen in the
headers, before a number is read.
"""

from __future__ import annotations

import os
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from odenet_cli.data.common.faults import Faults
from odenet_cli.data.common.labelled import LabelledSource
from odenet_cli.data.common.npz import Header, file_sha256, read_arrays, read_headers
from odenet_cli.data.common.samples import SPLITS, WHOLE, Part, check_forms
from odenet_cli.data.common.table_pieces import WORDS
from odenet_cli.data.common.understood import Found
from odenet_cli.errors import RequestError

X_NAMES = ("x", "X", "images", "image", "data", "inputs", "features")
Y_NAMES = ("y", "Y", "labels", "label", "targets", "target")


@dataclass(frozen=True, kw_only=True)
class Source(LabelledSource):
    """Options of `data=arrays`.

    path  of the file
    x, y  name the arrays, or what their names have beside the split's (`images` of train_images); None: by usual names
    """

    used: ClassVar = "arrays"

    path: str | None = None
    x: str | None = None
    y: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.path or "").strip():
            raise RequestError(
                "data.path is missing: data=arrays data.path=FILE.npz, which holds x and y, or x_train, y_train …."
            )

    @property
    def file(self) -> Path:
        return Path(os.path.abspath(os.path.expanduser(str(self.path))))

    def state(self) -> Hashable:
        try:
            stat = self.file.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_size

    def find(self, by_run: bool) -> Found:
        headers = read_headers(self.file)
        chosen = self._choose(headers, by_run)
        faults = Faults(self.file)
        check_forms([Part(split, headers[x], headers.get(y), x, y) for split, x, y in chosen], self.layout, faults)
        faults.raise_all()
        names = [name for _, *both in chosen for name in both if name]
        arrays = dict(zip(names, read_arrays(self.file, names)))
        parts = [Part(split, arrays[x], arrays.get(y), x, y) for split, x, y in chosen]
        unused = [name for name in headers if name not in names]
        notes = [f"arrays that are not used: {', '.join(unused)}."] if unused else []
        return Found(parts, str(self.file), file_sha256(self.file), notes)

    def _choose(self, headers: dict[str, Header], known: bool) -> list[tuple[str, str, str]]:
        """Return (split, name of its x, name of its y), training samples first.

        known  x alone will do; the names of y are then empty
        """
        faults = Faults(self.file)
        listing = ", ".join(f"{name} {header.shape}" for name, header in headers.items())
        found = {}
        for key, said, usual in (("x", self.x, X_NAMES), ("y", self.y, Y_NAMES)):
            bases = [said] if said else usual
            found[key] = next((names for base in bases if (names := _splits(headers, base))), {})
            if not found[key] and key == "y" and known and not said:
                found[key] = dict.fromkeys(found["x"], "")
            elif not found[key]:
                what = f"data.{key}={said} is not there" if said else f"no array is named {key}, {key}_train or alike"
                faults.add(f"{what}; there are {listing}", f"Name it: data.{key}=…")
            elif WHOLE in found[key] and len(found[key]) > 1:
                faults.add(
                    f"{', '.join(found[key].values())} are there, samples in one piece beside splits",
                    f"Name those to use: data.{key}=…",
                )
        faults.raise_all()
        for key, other in (("x", "y"), ("y", "x")):
            alone = [found[key][split] for split in found[key] if split not in found[other]]
            if alone:
                faults.add(f"{', '.join(alone)} without {other}; there are {listing}", "Each split has an x and a y")
        faults.raise_all()
        return [(split, found["x"][split], found["y"][split]) for split in (WHOLE, *SPLITS) if split in found["x"]]


def _splits(names: Iterable[str], base: str) -> dict[str, str]:
    """Return the arrays of `names` that are `base`, or that of a split, by split."""
    known = {base: WHOLE}
    for word, number in WORDS.items():
        for spelled in (f"{base}_{word}", f"{word}_{base}", f"{base}{word}", f"{word}{base}"):
            known[spelled] = SPLITS[number]
    return {known[name]: name for name in names if name in known}
