"""Build series from the cells of a table, reporting all faults of its rows together."""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import polars as pl
from torch import Tensor

from odenet_cli.data.common import table_controls
from odenet_cli.data.common.table_cells import Cells, brief, counted_names, counted_rows
from odenet_cli.data.common.table_columns import Columns, choose, is_row_number
from odenet_cli.data.common.table_controls import Controls
from odenet_cli.data.common.table_dates import moment, which_hour
from odenet_cli.data.common.table_faults import Faults
from odenet_cli.data.common.table_numbers import (
    absent_cells,
    check_nameless,
    perhaps_parts,
    read_numbers,
    read_values,
    refuse_dates,
    series_names,
)
from odenet_cli.data.common.table_times import check_midnight, in_utc, perhaps_dates, read_times
from odenet_cli.data.common.table_totals import perhaps_totals, without_totals
from odenet_cli.data.common.units import Numbers, median
from odenet_cli.errors import RequestError

if TYPE_CHECKING:
    from odenet_cli.data.table import Source

EPS, ROUGH = 2.0**-52, 0.01  # relative resolution of float64; share of a gap
EACH_FILE = ["each file is a series; combine parts of one series in one file: cat DAY*.csv > ALL.csv"]
MAX_VARIABLES = 200  # distinct words that name the measured quantity


class Table(NamedTuple):
    """Hold the series of a table.

    header    names of the columns of series and time
    columns   names of the values
    names     of the series, in an order that depends only on them
    numbers   the points of the series in this order, sorted by time; NaN: missing
    rows      (P,) row of each point in the cells
    left_out  columns without any number
    dates     times are seconds since 1970, read from dates or times of day; "date", "clock" or empty
    notes     what was done with the rows, for the reader
    controls  columns that are known at all times; None: there are none
    zone      in which dates are written; empty: UTC
    empty     names of series without any value, which are omitted
    blank     times of each series in rows without any value, if there are no controls: to be predicted
    """

    header: list[str]
    columns: list[str]
    names: list[str]
    numbers: Numbers
    rows: Tensor
    left_out: list[str]
    dates: str
    notes: list[str]
    cells: Cells
    controls: Controls | None = None
    zone: str = ""
    empty: tuple[str, ...] = ()
    blank: tuple[Tensor, ...] = ()

    def fault(self, point: int, text: str) -> RequestError:
        """Return the error for one point."""
        return RequestError(f"{self.cells.where(int(self.rows[point]))}: {text}")

    def digest(self) -> str:
        """Return a SHA-256 of all numbers and names, the same for any order of rows and columns."""
        values = self.numbers.digest(self.columns, self.names)
        if self.controls is None:
            return values
        known = self.controls.numbers.digest(self.controls.columns, self.names)
        return hashlib.sha256(f"{values}{known}".encode()).hexdigest()


def make(cells: Cells, source: Source, keep: Collection[str] = ()) -> Table:
    """Return the series of a table; raise RequestError for all faults of its rows.

    keep  columns of a run: values even if they contain no number, and the words of static columns
    """
    columns, wide = choose(source, cells.paths[0], cells.names, cells.turned), source.form == "wide"
    cells = without_totals(cells, columns.time[0], columns.values)
    faults = Faults(cells)
    check_nameless(cells, columns.series)
    names = series_names(cells, columns.series, faults)
    cells.notes.extend(EACH_FILE * (len(cells.paths) > 1 and not wide and not columns.series))
    time, dates, zones, zone = read_times(cells, columns.time, source.time_format, source.zone, faults)
    if zones is not None:
        time = in_utc(cells, columns.time, time, zones, which_hour(names, time, source.ambiguous), faults)
    tell = functools.partial(moment, dates=dates, zone=zone)
    if dates == "clock":
        check_midnight(" ".join(columns.time), names, time, faults)
    read, left_out = _measured(cells, columns, source.absent, keep, faults)
    if source.variable is not None:
        kinds, read = _by_variable(cells, columns, source.variable, read, keep, faults)
    elif len(read) == 1 and not wide:
        cells.notes.extend(_perhaps_variables(cells, left_out))
    known = _known(cells, columns, source.absent, keep, faults)
    static = len(known) - len(columns.known) + len(columns.static)  # a column of words becomes several
    base = pl.DataFrame({"row": pl.int_range(len(time), eager=True), "name": names, "time": time})
    base = base.with_columns(x.alias(f"c{n}") for n, x in enumerate(known.values()))
    base = base.with_columns(kinds.alias("kind")) if source.variable is not None else base
    if wide:
        base = pl.concat([base.with_columns(pl.lit(name).alias("name"), x.alias("0")) for name, x in read.items()])
    else:
        base = base.with_columns(x.alias(f"{n}") for n, x in enumerate(read.values()))
    value_names = ["value"] if wide else list(read)
    words = _beside(cells, columns, source) if cells.turned else left_out * (not wide)
    header = [columns.series[0] if any(columns.series) else "series", " ".join(columns.time)]
    if not dates and source.time_format is None and (note := perhaps_dates(time, header[1])):
        cells.notes.append(note)
    keys = [f"{n}" for n in range(len(value_names))], [f"c{n}" for n in range(len(known) - static)]
    average, words = source.repeats == "mean", [] if source.variable else words
    given, order, empty, blank, notes = _arrange(base, *keys, faults, average, tell, words, columns.series)
    every = base.filter(pl.col("name").is_in(order)) if static else base
    full, filled = table_controls.complete(given, every, list(known), static, source, faults)
    faults.raise_all()
    is_point = given.select(~pl.all_horizontal(pl.col(keys[0]).is_null())).to_series()
    controls = table_controls.table_controls(full, given, is_point, list(known), static, filled) if known else None
    points = given.filter(is_point)
    values = points.select(keys[0]).fill_null(math.nan).to_torch().contiguous()
    counts = points.group_by("code", maintain_order=True).len()["len"].cast(pl.Int64)
    numbers = Numbers(points["time"].to_torch(), values, counts.to_torch())
    check_rounding(cells, header[1], numbers, tell)
    rest, rows = cells._replace(frame=cells.frame.drop(columns.values)), points["row"].to_torch()
    notes += perhaps_totals([] if columns.stated else [*read], [] if wide else order)
    notes += [f"ignored, without values: {counted_names('series', empty)}"] if empty else []
    empty += left_out if wide else []
    told = (header, value_names, order, numbers, rows, left_out, dates, notes, rest)
    return Table(*told, controls, zone, tuple(empty), () if known else _times_of(blank, order))


def _times_of(blank: pl.DataFrame, names: Sequence[str]) -> tuple[Tensor, ...]:
    """Return the times of each series in the rows without any value."""
    parts = blank.partition_by("name", as_dict=True)
    return tuple(parts.get((name,), blank[:0])["time"].to_torch() for name in names)


def check_rounding(cells: Cells, label: str, numbers: Numbers, tell: Callable[[float], str]) -> None:
    """Raise RequestError if rounding changes times by more than ROUGH of their gap, such as 1 µs since 1970.

    Times are in float64, with 16 digits; nanoseconds since 1970 have 19.
    """
    gaps = numbers.times.diff()
    gap = median(gaps[gaps > 0]) if bool((gaps > 0).any()) else math.inf
    if EPS * float(numbers.times.abs().max()) > ROUGH * gap:
        raise RequestError(
            f"{cells.paths[0]}: {label} has gaps of {gap:g}, and numbers as large as {tell(float(numbers.times[0]))} "
            "are rounded to more than a hundredth of that. Count times from the start of the table, or in a larger "
            "unit."
        )


def _beside(cells: Cells, columns: Columns, source: Source) -> list[str]:
    """Return the unused columns beside those whose names are times, and add a note."""
    used = (*columns.series, *columns.time, *columns.known, *columns.values, source.split, source.variable)
    words = [name for name in cells.names if name not in used and not is_row_number(name)]
    if words:
        told = "to include columns that are constant in a series, set data.static=[…]"
        cells.notes.append(f"ignored: {brief(', '.join(words))}; {told}")
    return words


def _measured(
    cells: Cells, columns: Columns, missing: Sequence[str], keep: Collection[str], faults: Faults
) -> tuple[dict[str, pl.Series], list[str]]:
    """Return the columns of values, and the names of those without numbers."""
    read: dict[str, pl.Series] = {}
    left_out = []
    for name in columns.values:
        x = read_values(cells, name, missing, columns.stated or name in keep, faults)
        if x is None:
            left_out.append(name)
            cells.notes.extend(perhaps_parts(cells, [name]))
        else:
            read[name] = x
    if not read:
        faults.raise_all()
        raise RequestError(
            f"{cells.paths[0]}: no column contains numbers ({brief(', '.join(columns.values))}). Select columns: "
            "data.values=[…]."
        )
    return read, left_out


def _by_variable(
    cells: Cells,
    columns: Columns,
    variable: str,
    read: dict[str, pl.Series],
    keep: Collection[str],
    faults: Faults,
) -> tuple[pl.Series, dict[str, pl.Series]]:
    """Return the quantity measured by each row, and a column of values for each of them and for those of a run."""
    if len(read) != 1:
        raise RequestError(
            f"{cells.paths[0]}: with data.variable={variable} there must be one column of measured values, and there "
            f"are {brief(', '.join(read))}. Select one: data.values=[NAME]."
        )
    (x,) = read.values()
    words = cells.frame[variable].cast(pl.String).str.strip_chars().fill_null("")
    faults.add(
        (words == "") & x.is_not_null(),
        f"{variable} is empty; it must name what is measured",
        "Fill it in, or delete the row.",
    )
    found = sorted(set(words.filter(x.is_not_null()).to_list()) - {""})
    taken = [name for name in found if name in (*columns.series, *columns.time, *columns.known)]
    if taken or len(found) > MAX_VARIABLES:
        what = (
            f"{taken[0]}, which is a column too"
            if taken
            else f"{len(found):,} different words, too many for names of measured quantities"
        )
        raise RequestError(f"{cells.paths[0]}: {variable} contains {what}. Choose another column: data.variable=NAME.")
    asked = [name for name in keep if name.partition("=")[0] not in columns.known]
    return words, {name: x.set(words != name, None) for name in dict.fromkeys([*found, *asked])}


def _perhaps_variables(cells: Cells, left_out: list[str]) -> list[str]:
    """Return notes on columns of words beside the only column of numbers: they may name the measured quantity."""
    notes = []
    for name in left_out:
        column = cells.frame[name]
        if column.dtype.is_temporal() or perhaps_parts(cells, [name]):
            continue
        words = column.cast(pl.String).drop_nulls().unique().sort().to_list()
        if 1 < len(words) <= MAX_VARIABLES and 2 * len(words) <= len(cells.frame):
            listed = brief(", ".join(words))
            notes.append(f"if {name} names what a row measures ({listed}), set data.variable={name}")
    return notes


def _known(
    cells: Cells, columns: Columns, missing: Sequence[str], keep: Collection[str], faults: Faults
) -> dict[str, pl.Series]:
    """Return the columns of controls, then of static columns: numbers, or 0 and 1 for each word."""
    known: dict[str, pl.Series] = {}
    for name in columns.known:
        kept = [key for key in keep if key.startswith(f"{name}=")]  # a run's indicator columns
        column, absent = cells.frame[name], absent_cells(cells.frame[name], missing)
        cells = cells._replace(chosen="static" if name in columns.static else "controls")
        if name in columns.static and (kept or (~absent & read_numbers(column, cells).is_null()).any()):
            refuse_dates(column, absent, cells, name)
            known |= table_controls.indicators(column, name, absent, kept, faults)
        else:
            x = read_values(cells, name, missing, True, faults)
            assert x is not None
            known[name] = x
    return known


def _arrange(
    base: pl.DataFrame,
    keys: list[str],
    changing: list[str],
    faults: Faults,
    average: bool,
    tell: Callable[[float], str],
    words: Sequence[str],
    series: Sequence[str],
) -> tuple[pl.DataFrame, list[str], list[str], pl.DataFrame, list[str]]:
    """Return the rows by series and time, with the number of the series as `code`; the names of series, and of those
    without any value; names and times of the rows without any; and notes.

    base   row, name, time, the values `keys`, controls, of which `changing` justify a row without values, and the
           `kind` of each row if a row is one measurement
    tell   formats a time
    words  omitted columns, one of which may distinguish rows of the same time
    series  columns that name the series
    """
    notes = []
    sound = base.filter(pl.col("name").is_not_null(), pl.col("time").is_not_null())
    is_point = ~pl.all_horizontal(pl.col(keys).is_null())
    names = sound.filter(is_point)["name"].unique().to_list()
    names.sort(key=lambda name: hashlib.blake2b(name.encode()).digest())
    without = sound.filter(~pl.col("name").is_in(names))["name"].unique(maintain_order=True).to_list()
    is_blank, known = pl.all_horizontal(pl.col(keys + changing).is_null()), pl.col("name").is_in(names)
    points, blank = sound.filter(~is_blank, known), sound.filter(is_blank.all().over("row"), known)
    if empty := len(sound) - len(points):
        notes.append(f"{counted_rows(empty)} without any value")
    codes = points["name"].replace_strict(names, list(range(len(names))), return_dtype=pl.Int64)
    points = points.with_columns(codes.alias("code")).sort("code", "time", maintain_order=True)
    if "kind" in points.columns:  # measurements at one time form one point; a repeated one begins another
        points = points.with_columns(pl.int_range(pl.len()).over("code", "time", "kind").alias("n"))
        whole = pl.exclude("code", "time", "n", "row", "name", "kind").drop_nulls().first()
        points = points.group_by("code", "time", "n", maintain_order=True).agg(pl.col("row", "name").first(), whole)
        points = points.drop("n").sort("code", "time", maintain_order=True)
    again = (pl.col("code") == pl.col("code").shift(1)) & (pl.col("time") == pl.col("time").shift(1))
    repeats = points.with_columns(pl.col("row").shift(1).alias("before")).filter(again)
    if len(repeats) and average:
        mean = pl.exclude("code", "time", "row", "name").mean()
        points = points.group_by("code", "time", maintain_order=True).agg(pl.col("row", "name").first(), mean)
        notes.append(f"{counted_rows(len(repeats))} with equal times averaged")
    elif len(repeats):
        _report_repeats(faults, repeats, tell, words, series)
    if not faults.kinds:
        alone = points.filter(is_point).filter(pl.len().over("code") == 1)
        faults.add(
            alone["row"],
            lambda _: f"series {alone['name'][0]} has only this point; at least two are needed",
            "Add a point, or delete this one.",
        )
    return points, names, without, blank, notes


def _report_repeats(
    faults: Faults, repeats: pl.DataFrame, tell: Callable[[float], str], words: Sequence[str], series: Sequence[str]
) -> None:
    later = repeats.with_columns(pl.max_horizontal("row", "before"), pl.min_horizontal("row", "before").alias("before"))
    first = later.sort("row").row(0, named=True)
    cells, remedy = faults.cells.frame, "Delete one of them, set data.repeats=mean"
    for name in words:
        if (cells[name].gather(later["row"]) != cells[name].gather(later["before"])).fill_null(False).all():
            remedy = f"If {name} names what a row measures, set data.variable={name}; otherwise delete one of them"
            break
    naming = "the column that identifies the series: data.series=NAME"
    if series:
        naming = f"the columns that together identify the series: data.series=[{','.join(series)},NAME]"
    faults.add(
        later["row"].sort(),
        f"series {first['name']} already has the time {tell(first['time'])} in {faults.line(first['before'])}",
        f"{remedy}, or name {naming}.",
    )
