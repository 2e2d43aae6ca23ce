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

from odenet_cli.data.common.csv_rows import MAX_NUMBER, Point, fault, read
from odenet_cli.data.common.series import FURTHER, PADDING, WINDOW, Series
from odenet_cli.data.common.splits import BatchSpec, Data, data_record, split_rows, tensor_data
from odenet_cli.data.common.units import KEYS, Numbers, Units, fit_units, warn_odd
from odenet_cli.errors import RequestError

MAX_DEVIATIONS = 1e15  # standard deviations: errors squared stay finite in float32


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
        return dict(_record_of(self, _state(self.file)))

    def load(self, spec: BatchSpec) -> Data:
        return self._load(spec, None)

    def in_units_of(self, record: Mapping[str, Any]) -> TableInUnits:
        """Return this table in the columns and units of the run that `record` is of."""
        return TableInUnits(self, Units.of(record))

    def _load(self, spec: BatchSpec, units: Units | None) -> Data:
        rows, record = self._read(units)
        splits = split_rows(rows, list(record["sizes"].values()))
        return tensor_data(splits, spec, shape=(rows.values.shape[2],), task=self.task, record=record)

    def _read(self, units: Units | None) -> tuple[Series, dict[str, Any]]:
        """Return all series, those to train on first, and what `run.json` keeps of them.

        In `units`; None: in units of their own, fitted on the training series.
        """
        table = read(self.file)
        names = sorted(table.series, key=lambda name: hashlib.blake2b(name.encode()).digest())
        sizes = self._sizes(len(names), held=units is not None)
        ordered, columns = [table.series[name] for name in names], table.header[2:]
        numbers, span = Numbers.of(ordered), self.span if units else None
        content, warnings = numbers.digest(columns, names), list[str]()
        if units is None:
            train = int(numbers.counts[: sizes["train"]].sum())
            time = self._unit(ordered, numbers.durations, table.header[1])
            observed = numbers.in_window(self.window)[:train]
            units, warnings = fit_units(self.file, columns, time, numbers.values[:train], observed)
        else:
            units.check_columns(self.file, table.header)
        numbers = numbers._replace(values=numbers.values[:, [columns.index(name) for name in units.columns]])
        warnings += warn_odd(self.file, names, numbers, units, span)
        warning = "\n".join(warnings) or None
        record = data_record("csv", sizes, sha256=table.sha256, root=str(self.file), warning=warning)
        record |= {"content": content, **units.record(table.header)}
        return self._scaled(ordered, pad(numbers, numbers.in_window(self.window), units.time), units), record

    def _sizes(self, count: int, held: bool) -> dict[str, int]:
        """Return the number of series in each split; only a table to train on needs some to train on."""
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
        """Return the unit of time, in the table's: the longest series lasts `span`."""
        longest = float(durations.max())
        unit, line = longest / self.span, ordered[int(durations.argmax())][-1].line
        if not 1 / MAX_NUMBER <= unit <= MAX_NUMBER:
            raise fault(
                self.file,
                line,
                f"the longest series ends here and lasts {longest:g}, which makes {unit:g} the unit of {name} for "
                f"data.span={self.span:g}. Rescale {name}, or set data.span near 5.",
            )
        return unit

    def _scaled(self, ordered: list[list[Point]], rows: Series, units: Units) -> Series:
        """Return the series with values in `units`, padding 0."""
        noisy = torch.where((rows.scope == PADDING)[..., None], 0.0, (rows.noisy - units.mean) / units.sd)
        beyond = (noisy.abs() > MAX_DEVIATIONS).nonzero()
        if len(beyond):
            row, place, column = beyond[0].tolist()
            raise fault(
                self.file,
                ordered[row][place].line,
                f"{units.columns[column]}={rows.noisy[row, place, column]:g} is beyond {MAX_DEVIATIONS:g} standard "
                f"deviations ({units.sd[column]:g}) from the mean {units.mean[column]:g} of the training series. "
                "Correct it, or take it out.",
            )
        return rows._replace(values=noisy[:, : rows.values.shape[1]], noisy=noisy)


@dataclass(frozen=True)
class TableInUnits:
    """Hold a table as the run sees it that was trained in these units, perhaps on another table."""

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
def _record_of(source: Source, state: tuple[int, int] | None) -> dict[str, Any]:
    """Return the record of a table, read once for as long as its file is unchanged."""
    return source._read(None)[1]


def _state(path: Path) -> tuple[int, int] | None:
    """Return when the file was written, and its size; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size


def pad(numbers: Numbers, observed: torch.Tensor, unit: float) -> Series:
    """Return series of different lengths side by side; `observed` (P,) marks observations, `unit` is that of time."""
    counts = numbers.counts
    present = torch.arange(int(counts.max())) < counts[:, None]
    times = torch.zeros(present.shape, dtype=torch.float64)
    noisy = torch.zeros(*present.shape, numbers.values.shape[1], dtype=torch.float64)
    mask = torch.zeros_like(present)
    begins = numbers.times[numbers.starts].repeat_interleave(counts)
    times[present], noisy[present], mask[present] = (numbers.times - begins) / unit, numbers.values, observed
    scope = torch.where(mask, WINDOW, FURTHER).where(present, PADDING).to(torch.uint8)
    longest = int(mask.sum(1).max())
    return Series(times[:, :longest], noisy[:, :longest], mask[:, :longest], times, noisy, noisy[..., :0], scope)
