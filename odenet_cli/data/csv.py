"""A user's own series: `data=csv data.path=FILE`, with the columns series, time, values…, in any order of rows.

The first line names the columns, in any order: `series` (or `id`), `time` (or `t`), and whatever else is a value.
Series may be irregular and of different lengths. Of each, the first `window` of its points are what a model sees, the
others are to be predicted. Which series are held out follows from their names alone. Time begins at 0 with each series,
and its unit is chosen so that the longest lasts `span`; values have mean 0 and standard deviation 1 over what is seen
of the training series, and errors are in units of that. A column that is constant there has no unit and is left out.

The units belong to the run (`run.json` has them): another file that it is scored on is measured in them.
"""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from odenet_cli.data.common.batches import dealt, parted
from odenet_cli.data.common.csv_rows import LARGEST, Point, fault, read
from odenet_cli.data.common.images import BatchSpec, Data
from odenet_cli.data.common.series import FURTHER, PADDING, WINDOW, Series
from odenet_cli.data.common.units import KEYS, Numbers, Units, fitted, warn_odd
from odenet_cli.errors import RequestError

FAR = 1e15  # standard deviations: errors squared stay finite in float32


@dataclass(frozen=True, kw_only=True)
class Source:
    """Options of `data=csv`.

    path              of the file
    window            share of the points of each series that are seen, at least one; at 1.0 none is left to predict
    validation, test  shares of the series that are held out
    span              how long the longest series lasts, in the model's time
    """

    classes: ClassVar = 0
    task: ClassVar = "series"
    UNITS: ClassVar = KEYS

    path: str | None = None
    window: float = 0.5
    validation: float = 0.15
    test: float = 0.15
    span: float = 5.0

    def __post_init__(self) -> None:
        if not (self.path or "").strip():
            raise RequestError(
                "data.path is missing: data=csv data.path=FILE, a table of comma-separated values whose first line "
                "names its columns: series, time, values …."
            )
        for key in ("window", "validation", "test"):
            low, high = (0 if key == "validation" else 1e-9), (1 if key == "window" else 0.9)
            if not low <= getattr(self, key) <= high:
                raise RequestError(f"data.{key}={getattr(self, key)} is out of range; it is a share, up to {high}.")
        if not 0 < self.span < 1e6:
            raise RequestError(f"data.span={self.span} must be above 0; usual are 1 to 10.")

    @property
    def file(self) -> Path:
        return Path(os.path.abspath(os.path.expanduser(str(self.path))))

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.prepare()["columns"]) - 2,)

    def prepare(self) -> dict[str, Any]:
        return dict(_prepared(self, _state(self.file)))

    def load(self, spec: BatchSpec) -> Data:
        return self._load(spec, None)

    def measured(self, record: Mapping[str, Any]) -> Measured:
        """Return this table in the columns and units of the run that `record` is of."""
        return Measured(self, Units.of(record))

    def _load(self, spec: BatchSpec, units: Units | None) -> Data:
        rows, record = self._read(units)
        splits = parted(rows, list(record["sizes"].values()))
        return dealt(splits, spec, shape=(rows.values.shape[2],), task=self.task, record=record)

    def _read(self, units: Units | None) -> tuple[Series, dict[str, Any]]:
        """All series, those to train on first, and what `run.json` says of them; in `units`, or in units of their
        own."""
        table = read(self.file)
        names = sorted(table.series, key=lambda name: hashlib.blake2b(name.encode()).digest())
        sizes = self._sizes(len(names), held=units is not None)
        ordered, columns = [table.series[name] for name in names], table.header[2:]
        numbers, span = Numbers.of(ordered), self.span if units else None
        content, warnings = numbers.digest(columns, names), list[str]()
        if units is None:
            train = int(numbers.counts[: sizes["train"]].sum())
            time = self._unit(ordered, numbers.durations, table.header[1])
            seen = numbers.seen(self.window)[:train]
            units, warnings = fitted(self.file, columns, time, numbers.values[:train], seen)
        else:
            units.check_columns(self.file, table.header)
        numbers = numbers._replace(values=numbers.values[:, [columns.index(name) for name in units.columns]])
        warnings += warn_odd(self.file, names, numbers, units, span)
        record = {
            "used": "csv",
            "sha256": table.sha256,
            "content": content,
            "root": str(self.file),
            "sizes": sizes,
            "warning": "\n".join(warnings) or None,
            **units.record(table.header),
        }
        return self._scaled(ordered, padded(numbers, numbers.seen(self.window), units.time), units), record

    def _sizes(self, count: int, held: bool) -> dict[str, int]:
        """The series of each split; only a table to train on needs some for all of them."""
        valid, test = (round(share * count) for share in (self.validation, self.test))
        valid, test = (max(1, valid) if self.validation else 0), max(1, test)
        if held:
            valid = min(valid, count - test)
        elif count - valid - test < 1:
            raise RequestError(
                f"{self.file} has {count} series, and data.validation={self.validation} with "
                f"data.test={self.test} leave none to train on. Add series, or hold out fewer."
            )
        return {"train": count - valid - test, "valid": valid, "test": test}

    def _unit(self, ordered: list[list[Point]], durations: torch.Tensor, name: str) -> float:
        """Of time, in the table's: the longest series lasts `span`."""
        longest = float(durations.max())
        unit, line = longest / self.span, ordered[int(durations.argmax())][-1].line
        if not 1 / LARGEST <= unit <= LARGEST:
            raise fault(
                self.file,
                line,
                f"the longest series ends here and lasts {longest:g}, which makes {unit:g} the unit of {name} for "
                f"data.span={self.span:g}. Rescale {name}, or set data.span near 5.",
            )
        return unit

    def _scaled(self, ordered: list[list[Point]], rows: Series, units: Units) -> Series:
        """Values in `units`, padding 0."""
        noisy = torch.where((rows.scope == PADDING)[..., None], 0.0, (rows.noisy - units.mean) / units.sd)
        far = (noisy.abs() > FAR).nonzero()
        if len(far):
            row, place, column = far[0].tolist()
            raise fault(
                self.file,
                ordered[row][place].line,
                f"{units.columns[column]}={rows.noisy[row, place, column]:g} is beyond {FAR:g} standard deviations "
                f"({units.sd[column]:g}) from the mean {units.mean[column]:g} of the training series. Correct it, or "
                "take it out.",
            )
        return rows._replace(values=noisy[:, : rows.values.shape[1]], noisy=noisy)


@dataclass(frozen=True)
class Measured:
    """A table, this one or another, as the run sees it that was trained in these units."""

    source: Source
    units: Units

    classes: ClassVar = Source.classes
    task: ClassVar = Source.task

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.units.columns),)

    def load(self, spec: BatchSpec) -> Data:
        return self.source._load(spec, self.units)


@functools.lru_cache(maxsize=8)
def _prepared(source: Source, state: tuple[int, int] | None) -> dict[str, Any]:
    """The record of a table, read once for as long as its file is as it is."""
    return source._read(None)[1]


def _state(path: Path) -> tuple[int, int] | None:
    """When the file was written, and its size; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size


def padded(numbers: Numbers, seen: torch.Tensor, unit: float) -> Series:
    """Series of different lengths side by side; `seen` (P,) tells which points are, `unit` is that of time."""
    counts = numbers.counts
    there = torch.arange(int(counts.max())) < counts[:, None]
    at = torch.zeros(there.shape, dtype=torch.float64)
    noisy = torch.zeros(*there.shape, numbers.values.shape[1], dtype=torch.float64)
    kept = torch.zeros_like(there)
    begins = numbers.times[numbers.starts].repeat_interleave(counts)
    at[there], noisy[there], kept[there] = (numbers.times - begins) / unit, numbers.values, seen
    scope = torch.where(kept, WINDOW, FURTHER).where(there, 0).to(torch.uint8)
    longest = int(kept.sum(1).max())
    return Series(at[:, :longest], noisy[:, :longest], kept[:, :longest], at, noisy, noisy[..., :0], scope)
