"""A user's own series: `data=table data.path=FILE`, any table (text, Parquet, Excel; see `table_file`).

Rows are points with the columns series, time, values…, in any order (`data.form=long`); or columns are series, with one
value each (`wide`); or rows are series, and columns are named by times (`across`, chosen automatically for dates).
Series may be irregular and of different lengths, and cells may be missing (NaN in a batch). A model sees the first
`window` of the points of each series, and predicts the others. The names of the series determine which are held out; a
single long series is split by time, and cut into pieces. Time starts at 0 in each series or piece, and its unit is
chosen so that the longest lasts `span`. Values are standardised over the observed parts of the training series, and
errors are in these units; a column that is constant there is omitted. Columns that are known in advance (`controls`,
and `static` ones, which are constant in a series) accompany each series as piecewise polynomials in time.

The units belong to the run (`run.json` has them), and apply to other files on which it is scored.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from odenet_cli.data.common import table_columns, table_controls, table_file, table_series
from odenet_cli.data.common.checks import check_choice, check_least, check_share
from odenet_cli.data.common.own import Name, Names, OwnTable
from odenet_cli.data.common.series import FURTHER, PADDING, WINDOW, Series
from odenet_cli.data.common.splits import PARTS, BatchSpec, Data, data_record, split_rows, tensor_data
from odenet_cli.data.common.table_across import times_across, turned
from odenet_cli.data.common.table_cells import counted_names
from odenet_cli.data.common.table_controls import Scale
from odenet_cli.data.common.table_dates import AMBIGUOUS, ORDERS, SERIALS, check_zone
from odenet_cli.data.common.table_numbers import MAX_NUMBER
from odenet_cli.data.common.table_patterns import DateError, check_pattern
from odenet_cli.data.common.table_pieces import Pieces, parts_by_series, parts_by_time, parts_by_words, pieces
from odenet_cli.data.common.table_series import Table
from odenet_cli.data.common.table_summary import summary
from odenet_cli.data.common.units import (
    KEYS,
    Numbers,
    Units,
    far_alone,
    fit_units,
    say_alone,
    warn_odd,
    warn_still,
)
from odenet_cli.errors import RequestError

UNFIT = {
    "wide": (("variable", "static"), "a column is a series, and no row is of one"),
    "across": (("values", "controls"), "a row is a series, and its cells are the values"),
}


@dataclass(frozen=True, kw_only=True)
class Source(OwnTable):
    """Options of `data=table`."""

    classes: ClassVar = 0
    task: ClassVar = "series"
    UNITS: ClassVar[tuple[str, ...]] = (*KEYS, "time_unit")
    LISTS: ClassVar = ("series", "time", "values", "controls", "static", "missing")
    NAMES: ClassVar = (*OwnTable.NAMES, "variable")
    CHOICES: ClassVar = {
        "form": ("long", "wide", "across"),
        "repeats": ("refuse", "mean"),
        "decimal": (".", ","),
        "ambiguous": AMBIGUOUS,
        "interpolation": table_controls.INTERPOLATIONS,
        "fill": table_controls.FILLS,
    }
    WANTED: ClassVar = "data=table data.path=FILE, a table whose first line names its columns: series, time, values …."

    form: str | None = None
    series: Names | None = None
    time: Names | None = None
    values: Names | None = None
    variable: Name | None = None
    controls: Names | None = None
    static: Names | None = None
    interpolation: str | None = None
    fill: str | None = None
    time_format: str | None = None
    zone: str | None = None
    ambiguous: str | None = None
    length: int | None = None
    stride: int | None = None
    window: float = 0.5
    validation: float = 0.15
    test: float = 0.15
    span: float = 5.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least("length", self.length, 2)
        check_least("stride", self.stride, 1)
        check_share("window", self.window, 1e-9, 1)
        for form, (keys, why) in UNFIT.items():
            if self.form == form and (key := next((key for key in keys if getattr(self, key)), None)):
                raise RequestError(f"data.{key} cannot be used with data.form={form}: {why}.")
        if self.stride is not None and self.length is None:
            raise RequestError(f"data.stride={self.stride} needs data.length, the number of points in a piece.")
        if "%" not in (self.time_format or "%"):
            check_choice("time_format", self.time_format, (*ORDERS, *SERIALS, "a pattern such as '%d/%m/%y %H:%M'"))
        for key, check in (("zone", check_zone), ("time_format", check_pattern)):
            if (value := getattr(self, key)) is not None:
                try:
                    check(value)
                except DateError as error:
                    raise RequestError(f"data.{key}={error}.") from error
        if not 0 < self.span < 1e6:
            raise RequestError(f"data.span={self.span} must be above 0; typical values are 1 to 10.")

    @property
    def shape(self) -> tuple[int, ...]:
        return input_shape(self.run or self.prepare())

    @property
    def kind(self) -> str:
        """The interpolation of controls."""
        return self.interpolation or "linear"

    def load(self, spec: BatchSpec) -> Data:
        rows, record = self.read()
        splits = split_rows(rows, list(record["sizes"].values()))
        return tensor_data(splits, spec, shape=input_shape(self.run or record), task=self.task, record=record)

    def check_record(self, record: Mapping[str, Any]) -> None:
        Units.of(record)

    @property
    def asked(self) -> Sequence[str]:
        return [*(self.time or ()), *(self.values or ())]

    def are_names(self, names: list[str]) -> bool:
        return super().are_names(names) or bool(times_across(self, names))

    def table(self) -> Table:
        """Return the series of the file."""
        cells = table_file.read(self, functools.partial(table_columns.check_head, self))
        return table_series.make(turned(self, cells), self, columns_of(self.run) if self.run else ())

    def table_of_run(self) -> tuple[Table, Units, dict[str, Any]]:
        """Return the unscaled series of the file, in the columns of the run, its units, and what identifies the file.

        For a run on pieces each series consists of its last `length` points.
        """
        table, units = self.table(), Units.of(self.run or {})
        self._check_kind(table, units)
        record: dict[str, Any] = {"sha256": table.cells.sha256, "content": table.digest()}
        record["table"] = summary(table, units.columns, table.left_out, self.kind)
        numbers = table.numbers
        values = numbers.values[:, [table.columns.index(name) for name in units.columns]]
        left = numbers.counts.repeat_interleave(numbers.counts) - numbers.places
        kept = left <= (self.length or len(left))
        counts = numbers.counts.clamp_max(self.length or len(left))
        numbers = Numbers(numbers.times[kept], values[kept], counts)
        table = table._replace(numbers=numbers, columns=units.columns, rows=table.rows[kept])
        if table.controls is not None:
            table = table._replace(controls=table.controls._replace(rows=table.controls.rows[kept]))
        warnings = warn_odd(self.file, table.names, numbers, units, self.span)
        if table.controls is not None:
            warnings += table_controls.warn_shifted(self.file, table.controls, table_controls.scale_of(self.run or {}))
        record["warning"] = "\n".join(warnings)
        return table, units, record

    def read(self) -> tuple[tuple[torch.Tensor, ...], dict[str, Any]]:
        """Return all series, training series first, as rows of a batch, and their record for `run.json`.

        The units are those of the run, or without a run those fitted on the training series.
        """
        table, run = self.table(), self.run
        split = self._held_out(table)
        cut = self._cut(table, split)
        numbers, warnings = cut.numbers, list[str]()
        observed = numbers.in_window(self.window)
        if run is None:
            train = int(numbers.counts[: cut.sizes[0]].sum())
            time = self._unit(table, cut)
            units, warnings = fit_units(self.file, table.columns, time, numbers.values[:train], observed[:train])
        else:
            units = Units.of(run)
            self._check_kind(table, units)
        numbers = numbers._replace(values=numbers.values[:, [table.columns.index(name) for name in units.columns]])
        warnings += self._warn_far(table, cut, numbers, units)
        scale, known, more = self._known(table, cut, units.time)
        if run and table.empty:
            warnings.append(f"{self.file}: ignored, without values: {counted_names('series', table.empty)}.")
        warning = "\n".join([*warnings, *more]) or None
        sizes = dict(zip(PARTS, cut.sizes))
        record = data_record(self, sizes, sha256=table.cells.sha256, root=self.file, warning=warning)
        units = units._replace(left_out=list(dict.fromkeys((*units.left_out, *table.left_out))))
        record |= {"content": table.digest(), **units.record(table.header)}
        record |= {"split": split} if split != (self.split or "series") else {}
        record |= {"dates": table.dates} if table.dates else {}
        record |= {"masked": True} if bool(numbers.values.isnan().any()) else {}
        record |= {"controls": scale} if scale else {}
        record["table"] = summary(table, units.columns, units.left_out, self.kind)
        if far := units.find_far(numbers.values, "training series"):
            raise table.fault(int(cut.points[far[0]]), far[1])
        rows = pad(numbers._replace(values=units.scaled(numbers.values)), observed, units.time)
        return (*rows, *known), record

    def _warn_far(self, table: Table, cut: Pieces, numbers: Numbers, units: Units) -> list[str]:
        """Return warnings of values far from all others: an isolated one, or those of a series in another unit."""
        warnings, usual = list[str](), numbers.values
        every = table.numbers.values[:, [table.columns.index(name) for name in units.columns]]
        for point, n, ratio in far_alone(every):
            x = float(every[point, n])
            text = f"{say_alone(units.columns[n], x, ratio)} To count it as missing, set data.missing={x:.15g}."
            warnings.append(f"{table.cells.where(int(table.rows[point]))}: {text}")
            usual = usual.clone()
            usual[cut.points == point, n] = torch.nan
        if self.run is None:
            train = int(numbers.counts[: cut.sizes[0]].sum())
            warnings += warn_still(self.file, usual[:train], units)
        span = self.span if self.run else None
        return warnings + warn_odd(self.file, cut.names, numbers._replace(values=usual), units, span)

    def _known(self, table: Table, cut: Pieces, unit: float) -> tuple[Scale, tuple[torch.Tensor, ...], list[str]]:
        """Return the scale of the controls, their polynomials for each piece, and warnings."""
        controls, warnings = table.controls, list[str]()
        if controls is None:
            return {}, (), []
        first, last = (controls.rows[cut.points[part]] for part in (cut.numbers.starts, cut.numbers.ends))
        if self.run:
            scale = table_controls.scale_of(self.run)
            warnings = table_controls.warn_shifted(self.file, controls, scale)
        else:
            scale, warnings = table_controls.fit_scale(self.file, controls, first[: cut.sizes[0]], last[: cut.sizes[0]])
        return scale, table_controls.pieces_of(controls, scale, self.kind, unit, first, last), warnings

    def _check_kind(self, table: Table, units: Units) -> None:
        """Raise RequestError unless columns and times are of the same kind as in the run's training."""
        run = self.run or {}
        units.check_columns(self.file, table.columns)
        table_controls.check_known(self.file, table.controls, table_controls.scale_of(run))
        if run.get("dates", "") != table.dates:
            raise RequestError(
                f"{self.file}: its times are {table.dates or 'number'}s, and those of the run are "
                f"{run.get('dates') or 'number'}s. Write them in the same form."
            )

    def _held_out(self, table: Table) -> str:
        """Return what is held out: series, the end of each (time), or the name of a column with the splits."""
        known = self.split or (self.run or {}).get("split")
        if known is None and self.run is None and len(table.names) == 1:  # a single series can only be split by time
            cut = "" if self.length else "; data.length=N cuts it into pieces of N points"
            table.notes.append(f"one series, whose end is held out (data.split=time){cut}")
            return "time"
        return str(known or "series")

    def _cut(self, table: Table, split: str) -> Pieces:
        """Return the pieces of the series in each split; only a table for training must have training pieces."""
        counts = table.numbers.counts
        if split == "time":
            parts = parts_by_time(table, self.validation, self.test)
        elif split == "series":
            parts = parts_by_series(self, len(counts)).repeat_interleave(counts)
        else:
            parts = parts_by_words(table, split)
        return pieces(self.file, table, parts, self.length, self.stride)

    def _unit(self, table: Table, cut: Pieces) -> float:
        """Return the unit of time, in that of the table, such that the longest series lasts `span`."""
        durations = cut.numbers.durations
        longest, index = float(durations.max()), int(durations.argmax())
        unit, name = longest / self.span, table.header[1]
        if not 1 / MAX_NUMBER <= unit <= MAX_NUMBER:
            last = int(cut.numbers.starts[index] + cut.numbers.counts[index]) - 1
            raise table.fault(
                int(cut.points[last]),
                f"the longest series ends here and lasts {longest:g}, which makes {unit:g} the unit of {name} for "
                f"data.span={self.span:g}. Rescale {name}, or set data.span near 5.",
            )
        return unit


def input_shape(record: Mapping[str, Any]) -> tuple[int, ...]:
    """Return (D,), or (2, D) for values and mask if cells are missing; (1 or 2, D, C) with C controls."""
    features, kinds, controls = len(record["columns"]) - 2, 1 + record.get("masked", False), record.get("controls")
    if controls:
        return (kinds, features, len(controls))
    return (features,) if kinds == 1 else (kinds, features)


def columns_of(run: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns of values and controls of a run."""
    return (*run["columns"][2:], *table_controls.scale_of(run))


def pad(numbers: Numbers, observed: torch.Tensor, unit: float) -> Series:
    """Return padded series of different lengths; `observed` (P,) marks observations, `unit` is the unit of time."""
    begins = numbers.times[numbers.starts].repeat_interleave(numbers.counts)
    times, noisy, mask = map(numbers.padded, ((numbers.times - begins) / unit, numbers.values, observed))
    scope = numbers.padded(torch.where(observed, WINDOW, FURTHER).to(torch.uint8), PADDING)
    longest = int(mask.sum(1).max())
    return Series(times[:, :longest], noisy[:, :longest], mask[:, :longest], times, noisy, noisy[..., :0], scope)
