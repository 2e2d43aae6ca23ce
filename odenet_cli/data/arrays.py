"""A user's own arrays: `data=arrays data.path=FILE.npz`, x and y of any samples, in one piece or in splits.

x are vectors (N, D) or (N,), or images (N, H, W), (N, C, H, W), (N, H, W, C). y are labels 0…C-1 or text, or numbers to
predict, (N,) or (N, K). Splits are separate arrays with the usual names: x_train and y_train, or train_images and
train_labels, and those of valid (val) and test. Wrong shapes and dtypes are detected in the headers, before reading any
numbers.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from odenet_cli.data.common.faults import Faults
from odenet_cli.data.common.labelled import LabelledSource
from odenet_cli.data.common.npz import Header, read_arrays, read_headers
from odenet_cli.data.common.own import OwnFile
from odenet_cli.data.common.samples import WHOLE, Part, check_forms
from odenet_cli.data.common.splits import PARTS, WORDS
from odenet_cli.data.common.understood import Found
from odenet_cli.files import file_sha256

X_NAMES = ("x", "X", "images", "image", "data", "inputs", "features")
Y_NAMES = ("y", "Y", "labels", "label", "targets", "target")


@dataclass(frozen=True, kw_only=True)
class Source(OwnFile, LabelledSource):
    """Options of `data=arrays`; x and y name the arrays, or the part of their names besides the split."""

    WANTED: ClassVar = "data=arrays data.path=FILE.npz, a file with x and y, or x_train, y_train …."

    x: str | None = None
    y: str | None = None

    def find(self) -> Found:
        headers = read_headers(self.file)
        parts, faults = self._choose(headers), Faults(self.file)
        check_forms(parts, self.layout, faults)
        faults.raise_all()
        names = [name for part in parts for name in (part.x_name, part.y_name) if name]
        arrays = dict(zip(names, read_arrays(self.file, names)))
        parts = [part._replace(x=arrays[part.x_name], y=arrays.get(part.y_name)) for part in parts]
        unused = [name for name in headers if name not in names]
        notes = [f"ignored arrays: {', '.join(unused)}."] if unused else []
        return Found(parts, str(self.file), file_sha256(self.file), notes)

    def _choose(self, headers: dict[str, Header]) -> list[Part]:
        """Return the headers of x and y of each split, training samples first; data for a run may lack y."""
        faults = Faults(self.file)
        listing = ", ".join(f"{name} {header.shape}" for name, header in headers.items())
        found = {}
        for key, said, usual in (("x", self.x, X_NAMES), ("y", self.y, Y_NAMES)):
            bases = [said] if said else usual
            found[key] = next((names for base in bases if (names := _splits(headers, base))), {})
            if not found[key] and key == "y" and self.run and not said:
                found[key] = dict.fromkeys(found["x"], "")
            elif not found[key]:
                what = (
                    f"data.{key}={said} does not exist" if said else f"no array has a name such as {key} or {key}_train"
                )
                faults.add(f"{what}; there are {listing}", f"Name it: data.{key}=…")
            elif WHOLE in found[key] and len(found[key]) > 1:
                faults.add(
                    f"the file contains {', '.join(found[key].values())}, both unsplit samples and splits",
                    f"Name those to use: data.{key}=…",
                )
        faults.raise_all()
        for key, other in (("x", "y"), ("y", "x")):
            alone = [found[key][split] for split in found[key] if split not in found[other]]
            if alone:
                faults.add(f"{', '.join(alone)} without {other}; there are {listing}", "Each split needs an x and a y")
        faults.raise_all()
        chosen = [(split, found["x"][split], found["y"][split]) for split in (WHOLE, *PARTS) if split in found["x"]]
        return [Part(split, headers[x], headers.get(y), x, y) for split, x, y in chosen]


def _splits(names: Iterable[str], base: str) -> dict[str, str]:
    """Return by split the arrays of `names` called `base`, alone or combined with a split's name."""
    known = {base: WHOLE}
    for word, split in WORDS.items():
        for spelled in (f"{base}_{word}", f"{word}_{base}", f"{base}{word}", f"{word}{base}"):
            known[spelled] = split
    return {known[name]: name for name in names if name in known}
