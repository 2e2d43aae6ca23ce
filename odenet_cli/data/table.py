"""A user's own series: `data=table data.path=FILE`, a table as it is found (text, Parquet, Excel; see `table_file`).

Rows are points: the columns series, time, values…, in any order (`data.form=long`); or columns are series, one value
each (`wide`). Series may be irregular and of different lengths, and cells may be missing (NaN in a batch). Of each, the
first `window` of its points are what a model sees, the others are to be predicted. Which series are held out follows
from their names alone; one long series is split by time, and cut into pieces. Time begins at 0 with each series or
piece, and its unit is chosen so that the longest lasts `span`; values have mean 0 and standard deviation 1 over what is
seen of the training series, and errors are in units of that. A column that is constant there has no unit, and is left
out. Columns that are known in advance (`controls`, and `static` ones, constant in a series) go with each series as
pieces of polynomials in time.

The units belong to the run (`run.json` has them): another file that it is scored on is measured in them.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch

from odenet_cli.data.common import table_controls, table_file, table_series
from odenet_cli.data.common.series import FURTHER, PADDING, WINDOW, Series
from odenet_cli.data.common.splits import BatchSpec, Data, data_record, split_rows, tensor_data
from odenet_cli.data.common.table_columns import Columns
from odenet_cli.data.common.table_columns import choose as choose_columns
from odenet_cli.data.common.table_controls import Scale
from odenet_cli.data.common.table_dates import AMBIGUOUS, DateError, check_zone
from odenet_cli.data.common.table_file import brief
from odenet_cli.data.common.table_numbers import MAX_NUMBER
from odenet_cli.data.common.table_pieces import PARTS, Pieces, parts_by_series, parts_by_time, parts_by_words, pieces
from odenet_cli.data.common.table_series import Table
from odenet_cli.data.common.table_summary import summary
from odenet_cli.data.common.units import KEYS, Numbers, Units, fit_units, warn_odd
from odenet_cli.errors import RequestError

MAX_DEVIATIONS = 1e15  # standard deviations: errors squared stay finite in float32
CHOICES = {
    "form": ("long", "wide"),
    "repeats": ("refuse", "mean"),
    "decimal": (".", ","),
    "ambiguous": AMBIGUOUS,
    "interpolation": table_controls.INTERPOLATIONS,
    "fill": table_controls.FILLS,
}


@dataclass(frozen=True, kw_only=True)
class Source:
    """Options of `data=table`.

    path              of the file, or a pattern that finds several
    form              long: a row is a point, wide: a column is a series
    series            column, or columns, that name the series; None: `series` or `id`, else the file is one series
    time              column, or columns, of the time; None: by name
    values            columns of the values; None: all others that hold numbers
    variable          column that says what a row measures, whose words become the columns; None: a row is a whole point
    controls          columns that are known at later times too, and are no values
    static            columns that are constant in a series, numbers or words
    interpolation     of controls between rows: linear (None), hermite or step
    fill              what becomes of missing cells of controls: refuse (None), or interpolate
    time_format       dmy, mdy, ymd, or a pattern of strptime; None: as the dates have it
    zone              of dates that state none: Europe/Berlin; None: UTC
    ambiguous         which is meant of an hour that is there twice: earliest, latest, or by the order of rows
    decimal           the sign in numbers; None: as the first rows have it
    missing           words and numbers that stand for no value, beside the usual ones
    repeats           what becomes of points at the same time of a series: refuse them, or take their mean
    sheet             of an Excel file, by its name; None: the first
    skip              lines above the names of the columns
    split             series, time, or a column that says train, valid or test
    length, stride    of pieces of each series, in points; None: whole series, and as many as a piece has
    window            share of the points of each series that are seen, at least one; at 1.0 none is left to predict
    validation, test  shares of the series, or of each series' points, that are held out
    span              how long the longest series lasts, in the model's time
    """

    classes: ClassVar = 0
    task: ClassVar = "series"
    UNITS: ClassVar[tuple[str, ...]] = KEYS
    used: ClassVar[str] = "table"
    OPTIONAL: ClassVar[tuple[str, ...]] = ("validation",)  # parts that may be 0

    path: str | None = None
    form: str | None = None
    series: str | list[str] | None = None
    time: str | list[str] | None = None
    values: str | list[str] | None = None
    variable: str | None = None
    controls: str | list[str] | None = None
    static: str | list[str] | None = None
    interpolation: str | None = None
    fill: str | None = None
    time_format: str | None = None
    zone: str | None = None
    ambiguous: str | None = None
    decimal: str | None = None
    missing: str | float | list[str | float] | None = None
    repeats: str | None = None
    sheet: str | None = None
    skip: int | None = None
    split: str | None = None
    length: int | None = None
    stride: int | None = None
    window: float = 0.5
    validation: float = 0.15
    test: float = 0.15
    span: float = 5.0

    def __post_init__(self) -> None:
        for key in ("series", "time", "values", "controls", "static", "missing"):
            value = getattr(self, key)  # hashable, so that a table is read once
            object.__setattr__(self, key, tuple(value) if isinstance(value, (list, tuple)) else value and (value,))
        if not (self.path or "").strip():
            raise RequestError(
                "data.path is missing: data=table data.path=FILE, a table whose first line names its columns: series, "
                "time, values …."
            )
        for key, choices in CHOICES.items():
            if getattr(self, key) not in (None, *choices):
                raise RequestError(f"data.{key}={getattr(self, key)} is not known. There are: {', '.join(choices)}.")
        for key, least in (("skip", 0), ("length", 2), ("stride", 1)):
            if getattr(self, key) is not None and getattr(self, key) < least:
                raise RequestError(f"data.{key}={getattr(self, key)} must be at least {least}.")
        if self.variable and self.form == "wide":
            raise RequestError("data.variable goes with data.form=long: in a wide table a column is a series.")
        if self.static and self.form == "wide":
            raise RequestError("data.static goes with data.form=long: in a wide table no row is of one series.")
        if self.stride is not None and self.length is None:
            raise RequestError(f"data.stride={self.stride} needs data.length, the points of a piece.")
        for key in ("window", "validation", "test"):
            low, high = (0 if key in self.OPTIONAL else 1e-9), (1 if key == "window" else 0.9)
            if not low <= getattr(self, key) <= high:
                raise RequestError(f"data.{key}={getattr(self, key)} is out of range; it is a share, up to {high}.")
        if self.zone is not None:
            try:
                check_zone(self.zone)
            except DateError as error:
                raise RequestError(f"data.zone={error}.") from error
        if not 0 < self.span < 1e6:
            raise RequestError(f"data.span={self.span} must be above 0; usual are 1 to 10.")

    @property
    def file(self) -> Path:
        return Path(os.path.abspath(os.path.expanduser(str(self.path))))

    @property
    def shape(self) -> tuple[int, ...]:
        return input_shape(self.prepare())

    def prepare(self) -> dict[str, Any]:
        return dict(_record_of(self, table_file.state(self.file)))

    def load(self, spec: BatchSpec) -> Data:
        return self._load(spec, None)

    def in_units_of(self, record: Mapping[str, Any]) -> TableInUnits:
        """Return this table in the columns and units of the run that `record` is of."""
        return TableInUnits(replace(self, sheet=table_file.sheet_for(self.path, self.sheet)), dict(record))

    def table(self, keep: tuple[str, ...] = ()) -> Table:
        """Return the series of the file; columns `keep` are values although they may hold no number here."""
        wide = self.form == "wide"

        def choose(path: Path, names: list[str]) -> Columns:
            columns = (self.series, self.time, self.values, self.controls, self.static)
            chosen = choose_columns(path, names, *columns, wide)
            if self.variable not in (None, *names):
                raise RequestError(
                    f"{path}: data.variable={self.variable}: there is no such column, but {brief(', '.join(names))}."
                )
            return chosen._replace(values=[name for name in chosen.values if name not in (self.split, self.variable)])

        cells = table_file.read(str(self.path), choose, self.decimal, self.skip, self.sheet)
        return table_series.make(
            cells,
            choose(cells.paths[0], cells.names),
            keep=keep,
            wide=wide,
            time_format=self.time_format,
            missing=self.missing or (),  # type: ignore[arg-type]
            average=self.repeats == "mean",
            fill=self.fill or "refuse",
            interpolation=self.interpolation or "linear",
            zone=self.zone,
            ambiguous=self.ambiguous,
            variable=self.variable,
        )

    def _load(self, spec: BatchSpec, run: dict[str, Any] | None) -> Data:
        rows, record = self._read(run)
        splits = split_rows(rows, list(record["sizes"].values()))
        return tensor_data(splits, spec, shape=input_shape(run or record), task=self.task, record=record)

    def _read(self, run: dict[str, Any] | None) -> tuple[tuple[torch.Tensor, ...], dict[str, Any]]:
        """Return all series, those to train on first, as rows of a batch, and what `run.json` keeps of them.

        In the units of the record `run`; None: in units of their own, fitted on the training series.
        """
        units, span = (Units.of(run), self.span) if run else (None, None)
        table = self.table(columns_of(run) if run else ())
        cut = self._cut(table, held=units is not None)
        numbers, warnings = cut.numbers, list[str]()
        observed = numbers.in_window(self.window)
        if units is None:
            train = int(numbers.counts[: cut.sizes[0]].sum())
            time = self._unit(table, cut)
            units, warnings = fit_units(self.file, table.columns, time, numbers.values[:train], observed[:train])
        else:
            self.check_kind(table, units, run or {})
        numbers = numbers._replace(values=numbers.values[:, [table.columns.index(name) for name in units.columns]])
        warnings += warn_odd(self.file, cut.names, numbers, units, span)
        scale, known, more = self._known(table, cut, units.time, run)
        warning = "\n".join([*warnings, *more]) or None
        sizes, root = dict(zip(PARTS, cut.sizes)), str(self.file)
        record = data_record(self.used, sizes, sha256=table.cells.sha256, root=root, warning=warning)
        units = units._replace(left_out=list(dict.fromkeys((*units.left_out, *table.left_out))))
        record |= {"content": table.digest(), **units.record(table.header)}
        record |= {"dates": table.dates} if table.dates else {}
        record |= {"masked": True} if bool(numbers.values.isnan().any()) else {}
        record |= {"controls": scale} if scale else {}
        record["table"] = summary(table, units, self.interpolation or "linear")
        return (*self._scaled(table, cut, pad(numbers, observed, units.time), units), *known), record

    def _known(
        self, table: Table, cut: Pieces, unit: float, run: dict[str, Any] | None
    ) -> tuple[Scale, tuple[torch.Tensor, ...], list[str]]:
        """Return the scale of the controls, what each piece has of them, and what to warn of."""
        controls, warnings = table.controls, list[str]()
        if controls is None:
            return {}, (), []
        first, last = (controls.rows[cut.points[part]] for part in (cut.numbers.starts, cut.numbers.ends))
        if run:
            scale = table_controls.scale_of(run)
        else:
            scale, warnings = table_controls.fit_scale(self.file, controls, first[: cut.sizes[0]], last[: cut.sizes[0]])
        kind = self.interpolation or "linear"
        return scale, table_controls.pieces_of(controls, scale, kind, unit, first, last), warnings

    def check_kind(self, table: Table, units: Units, run: Mapping[str, Any]) -> None:
        """Raise RequestError unless columns and times are of the kind that the run was trained on."""
        units.check_columns(self.file, [*table.header, *table.columns])
        table_controls.check_known(self.file, table.controls, table_controls.scale_of(run))
        if run.get("dates", "") != table.dates:
            raise RequestError(
                f"{self.file}: its times are {table.dates or 'number'}s, and those that the run was trained on "
                f"{run.get('dates') or 'number'}s. Write them alike."
            )

    def _cut(self, table: Table, held: bool) -> Pieces:
        """Return the pieces of the series in each split; only a table to train on needs some to train on."""
        counts, shares = table.numbers.counts, (self.validation, self.test)
        if self.split == "time":
            parts = parts_by_time(self.file, table, *shares)
        elif self.split in (None, "series"):
            parts = parts_by_series(self.file, len(counts), *shares, held=held).repeat_interleave(counts)
        else:
            parts = parts_by_words(table, str(self.split))
        return pieces(self.file, table, parts, self.length, self.stride)

    def _unit(self, table: Table, cut: Pieces) -> float:
        """Return the unit of time, in the table's: the longest series lasts `span`."""
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

    def _scaled(self, table: Table, cut: Pieces, rows: Series, units: Units) -> Series:
        """Return the series with values in `units`, padding 0."""
        noisy = torch.where((rows.scope == PADDING)[..., None], 0.0, (rows.noisy - units.mean) / units.sd)
        beyond = (noisy.abs() > MAX_DEVIATIONS).nonzero()
        if len(beyond):
            row, place, column = beyond[0].tolist()
            raise table.fault(
                int(cut.points[cut.numbers.starts[row] + place]),
                f"{units.columns[column]}={rows.noisy[row, place, column]:g} is beyond {MAX_DEVIATIONS:g} standard "
                f"deviations ({units.sd[column]:g}) from the mean {units.mean[column]:g} of the training series. "
                "Correct it, or take it out.",
            )
        return rows._replace(values=noisy[:, : rows.values.shape[1]], noisy=noisy)


@dataclass(frozen=True)
class TableInUnits:
    """Hold a table as the run sees it that was trained in the units of this record, perhaps on another table."""

    source: Source
    run: dict[str, Any]

    classes: ClassVar = Source.classes
    task: ClassVar = Source.task

    @property
    def shape(self) -> tuple[int, ...]:
        Units.of(self.run)
        return input_shape(self.run)

    def load(self, spec: BatchSpec) -> Data:
        return self.source._load(spec, self.run)

    def table(self) -> tuple[Table, Units]:
        """Return the series of the file as they are, in the columns of the run, and its units.

        Of a run on pieces each series is its last `length` points.
        """
        units = Units.of(self.run)
        table = self.source.table(columns_of(self.run))
        self.source.check_kind(table, units, self.run)
        numbers = table.numbers
        values = numbers.values[:, [table.columns.index(name) for name in units.columns]]
        left = numbers.counts.repeat_interleave(numbers.counts) - numbers.places
        kept = left <= (self.source.length or len(left))
        counts = numbers.counts.clamp_max(self.source.length or len(left))
        numbers = Numbers(numbers.times[kept], values[kept], counts)
        table = table._replace(numbers=numbers, columns=units.columns, rows=table.rows[kept])
        if table.controls is not None:
            table = table._replace(controls=table.controls._replace(rows=table.controls.rows[kept]))
        return table, units


def input_shape(record: Mapping[str, Any]) -> tuple[int, ...]:
    """Return (D,), or (2, D) where cells are missing: values, and which of them are there; (1 or 2, D, C) with C
    controls."""
    features, kinds, controls = len(record["columns"]) - 2, 1 + record.get("masked", False), record.get("controls")
    if controls:
        return (kinds, features, len(controls))
    return (features,) if kinds == 1 else (kinds, features)


def columns_of(run: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the columns of a run, of values and of controls."""
    return (*run["columns"][2:], *table_controls.scale_of(run))


@functools.lru_cache(maxsize=8)
def _record_of(source: Source, state: tuple[tuple[int, int], ...]) -> dict[str, Any]:
    """Return the record of a table, read once for as long as its files are unchanged."""
    return source._read(None)[1]


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
