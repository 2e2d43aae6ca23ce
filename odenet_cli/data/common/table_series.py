"""Series made of the cells of a table: columns by name, numbers, dates, missing cells; all faults are told at once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import polars as pl
import torch
from torch import Tensor

from odenet_cli.data.common.table_dates import DateError, moment, parse_dates
from odenet_cli.data.common.table_file import COMMA_NUMBER, FILE, LINE, Cells, brief, fault, place
from odenet_cli.data.common.units import Numbers
from odenet_cli.errors import RequestError

SERIES = ("series", "id")  # names that are looked for; where there are several, the first
TIME = ("time", "t", "date", "datetime", "timestamp")
MISSING = ("", "na", "nan", "n/a", "#n/a", "null", "none", "-", "?")
MAX_NUMBER = 1e100  # of a time or a value: spans and sums of squares stay finite
LISTED = 5  # lines of a kind of fault
NUMBER_LIKE = r"^\s*[+-]?[.,]?\d"
THOUSANDS = r"^[+-]?[1-9]\d{0,2}(\.\d{3})+$"  # beside decimal commas: 1.234 may be 1234


class Columns(NamedTuple):
    """Hold which columns are what.

    series  whose cells name the series; none: the file is the series
    time    whose cells, with a blank between them, are the time
    values  all that may be values
    stated  the values were chosen by name, and must be numbers
    """

    series: list[str]
    time: list[str]
    values: list[str]
    stated: bool


class Table(NamedTuple):
    """Hold the series of a table.

    header    names of the columns of series and time
    columns   names of the values
    names     of the series, in an order that follows from them alone
    numbers   the points of the series in this order, each by time; NaN: missing
    rows      (P,) row of each point in the cells
    left_out  columns without any number
    dates     times are seconds since 1970, read from dates or times of day; "date", "clock" or empty
    notes     what was done with the rows, for the reader
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

    def fault(self, point: int, text: str) -> RequestError:
        """Return the error for one point."""
        return RequestError(f"{self.cells.where(int(self.rows[point]))}: {text}")


@dataclass
class Faults:
    """Collect what is wrong with the rows of a table, one entry a kind."""

    cells: Cells
    kinds: list[tuple[int, int, str]] = field(default_factory=list)  # row, how many, text

    def add(self, rows: Sequence[int], text: str, remedy: str) -> None:
        """Add a kind of fault: the rows that have it, what is said of the first, and how to mend it."""
        if not len(rows):
            return
        more = ""
        if len(rows) > 1:
            lines = self.cells.frame[LINE].gather(list(rows[1 : LISTED + 1])).to_list()
            listed = ", ".join(map(str, lines)) + (" …" if len(rows) > LISTED + 1 else "")
            more = f" ({len(rows):,} such cells or rows, also in line{'s' * (len(lines) > 1)} {listed})"
        self.kinds.append((int(rows[0]), len(rows), f"{text}{more}. {remedy}"))

    def raise_all(self) -> None:
        """Raise RequestError if there were any."""
        kinds = [(self.cells.where(row), count, text) for row, count, text in sorted(self.kinds)]
        for (line, count, file), group in self._ragged():
            kinds.append((place(self.cells.paths[file], line), len(group), self._short(count, group)))
        if not kinds:
            return
        if len(kinds) == 1:
            raise RequestError(f"{kinds[0][0]}: {kinds[0][2]}")
        total = sum(count for _, count, _ in kinds)
        listed = [f"  {where.rpartition(', ')[2]}: {text}" for where, _, text in kinds[:10]]
        raise RequestError("\n".join([f"{self.cells.paths[0]} has {total:,} faults of {len(kinds)} kinds.", *listed]))

    def _ragged(self) -> list[tuple[tuple[int, int, int], pl.DataFrame]]:
        groups = self.cells.ragged.partition_by("cells", maintain_order=True) if len(self.cells.ragged) else []
        return [(group.select(LINE, "cells", FILE).row(0), group) for group in groups[:3]]

    def _short(self, count: int, group: pl.DataFrame) -> str:
        names = self.cells.names
        lines = ", ".join(map(str, group[LINE][1 : LISTED + 1]))
        more = f" ({len(group):,} such rows, also in lines {lines} …)" if len(group) > 1 else ""
        return (
            f"{count} columns, where the first line has {len(names)} ({brief(', '.join(names))}){more}. Complete the "
            "row, or take it out."
        )


def choose(
    path: Path,
    names: list[str],
    series: Sequence[str] | None,
    time: Sequence[str] | None,
    values: Sequence[str] | None,
    wide: bool,
) -> Columns:
    """Return which of the columns are what, by their names; raise RequestError where one that is needed is not there.

    A `T` is no time: it may be a temperature.
    """
    nameless = [n for n, name in enumerate(names) if not name]
    if len(nameless) > 1:
        raise fault(path, 1, f"column {nameless[1] + 1} of {len(names)} has no name. Name it, or take it out.")
    folded = [name.lower() if name != "T" else name for name in names]
    for n, name in enumerate(folded):
        if name and name in folded[:n] and (name in (*SERIES, *TIME) or names[n] in names[:n]):
            first = folded.index(name) + 1
            raise fault(path, 1, f"columns {first} and {n + 1} are both named {names[n]}. Rename one of them.")
    for key, wanted in (("series", series), ("time", time), ("values", values)):
        for name in wanted or ():
            if name not in names:
                raise RequestError(
                    f"{path}: data.{key}={name}: there is no such column, but {brief(', '.join(names))}."
                )
    if time is None:
        found = next((names[folded.index(key)] for key in TIME if key in folded), None)
        if found is None:
            raise RequestError(
                f"{path}: no column is named time (or {', '.join(TIME[1:])}); there are {brief(', '.join(names))}. "
                "Say which one it is: data.time=NAME."
            )
        time = [found]
        if found.lower() == "time" and "date" in folded and not values:  # a day and, beside it, the time of the day
            time = [names[folded.index("date")], found]
    if series is None and not wide:
        series = next(
            ([names[folded.index(key)]] for key in SERIES if key in folded and names[folded.index(key)] not in time), []
        )
    series = list(series or [])
    rest = [name for name in names if not is_row_number(name) and name not in (*series, *time)]
    chosen = list(values) if values else rest
    if not chosen:
        raise RequestError(
            f"{path}: {brief(', '.join(names))} are all columns; there must be one of values beside them."
        )
    return Columns(series, list(time), chosen, stated=bool(values))


def make(
    cells: Cells,
    columns: Columns,
    *,
    keep: Collection[str] = (),
    wide: bool = False,
    time_format: str | None = None,
    missing: Sequence[str] = (),
    average: bool = False,
) -> Table:
    """Return the series of a table; raise RequestError for all faults of its rows.

    keep     columns that are values although they may hold no number
    wide     each column of values is a series
    missing  words and numbers beside `MISSING` that stand for no value
    average  take the mean of values at the same time of a series, instead of refusing them
    """
    faults = Faults(cells)
    _check_nameless(cells)
    time, dates = _times(cells, columns.time, time_format, faults)
    read, left_out = {}, []
    for name in columns.values:
        x = _values(cells, name, missing, columns.stated or name in keep, faults)
        if x is None:
            left_out.append(name)
        else:
            read[name] = x
    if not read:
        faults.raise_all()
        raise RequestError(
            f"{cells.paths[0]}: no column holds numbers ({brief(', '.join(columns.values))}). "
            "Choose some: data.values=[…]."
        )
    names = _names(cells, columns.series, faults)
    base = pl.DataFrame({"row": pl.int_range(len(time), eager=True), "name": names, "time": time})
    if wide:
        base = pl.concat([base.with_columns(pl.lit(name).alias("name"), x.alias("0")) for name, x in read.items()])
        value_names = ["value"]
    else:
        base = base.with_columns(x.alias(f"{n}") for n, x in enumerate(read.values()))
        value_names = list(read)
    header = [columns.series[0] if columns.series else "series", " ".join(columns.time)]
    if not dates and time_format is None and _looks_like_days(time):
        cells.notes.append("times such as 20200131 taken as numbers; if they are dates: data.time_format=%Y%m%d")
    points, order, notes = _arrange(base, len(value_names), faults, average, dates)
    faults.raise_all()
    rows, numbers = _tensor(points["row"]), _numbers_of(points, len(value_names))
    rest = cells._replace(frame=cells.frame.drop(columns.values))
    return Table(header, value_names, order, numbers, rows, left_out, dates, notes, rest)


def _numbers_of(points: pl.DataFrame, count: int) -> Numbers:
    """Return points that are in the order of their series as tensors; null becomes NaN."""
    values = [_tensor(points[f"{n}"].fill_null(float("nan"))) for n in range(count)]
    counts = points["code"].value_counts().sort("code")["count"].cast(pl.Int64)
    return Numbers(_tensor(points["time"]), torch.stack(values, 1), _tensor(counts))


def _tensor(column: pl.Series) -> Tensor:
    return torch.from_numpy(column.to_numpy(writable=True))


def is_row_number(name: str) -> bool:
    """Return whether a column has the name that R and pandas give to the numbers of rows."""
    return not name or name.startswith("Unnamed: ")


def _check_nameless(cells: Cells) -> None:
    """Raise RequestError for a column that has no name and is neither empty nor the numbers or names of the rows."""
    for n, name in enumerate(cells.names):
        if is_row_number(name):
            column = cells.frame[name].drop_nulls().cast(pl.String)
            numbers = column.cast(pl.Int64, strict=False)
            whole = not numbers.null_count() and numbers.n_unique() == len(numbers)
            if not whole and column.str.contains(NUMBER_LIKE).any():
                raise RequestError(
                    f"{cells.where(0)}: column {n + 1} of {len(cells.names)} has no name, and is no number of the row. "
                    "Name it in the first line, or take it out."
                )


def _times(cells: Cells, names: list[str], form: str | None, faults: Faults) -> tuple[pl.Series, str]:
    """Return the times, null where they are none, and what they are: "" (numbers), "date" or "clock" (of a day)."""
    label = " ".join(names)
    column = cells.frame[names[0]]
    if len(names) > 1:
        column = cells.frame.select(pl.concat_str(pl.col(names).cast(pl.String), separator=" ")).to_series()
    if column.dtype == pl.Time:
        x, kind = column.cast(pl.Int64) / 1e9, "clock"
    elif column.dtype.is_temporal():
        x, kind = column.cast(pl.Datetime("us")).dt.epoch("us") / 1e6, "date"
    else:
        x, kind = _numbers(column, cells.decimal), ""
        if form is not None or 2 * x.null_count() > len(x):
            try:
                dates, found = parse_dates(column.cast(pl.String).str.strip_chars(), form)
            except DateError as error:
                raise RequestError(
                    f"{cells.where(0)}: {label}={column[0]!r}: {error}. Say how dates are written: "
                    "data.time_format=dmy, mdy or ymd, or a pattern such as '%d/%m/%y %H:%M'."
                ) from error
            if form is not None or dates.null_count() < x.null_count():
                x, kind = dates, found
    what = "is no finite number, such as -1.5 or 2e-3" if not kind else f"is no {kind} that can be read"
    _report(faults, label, column, x, x.is_null(), what, "Correct it, or take the row out.")
    return x, kind


def _looks_like_days(x: pl.Series) -> bool:
    """Return whether all times read as year, month and day without anything between."""
    if x.is_empty() or x.null_count() or not x.is_between(19000101, 21001231).all():
        return False
    return not x.cast(pl.Int64).cast(pl.String).str.to_date("%Y%m%d", strict=False).null_count()


def _values(cells: Cells, name: str, missing: Sequence[str], stated: bool, faults: Faults) -> pl.Series | None:
    """Return a column of values, null where they are missing; None for a column without any number."""
    column = cells.frame[name]
    x = _numbers(column, cells.decimal)
    words = [str(word).strip().lower() for word in missing]
    codes = [float(word) for word in words if is_number(word)]
    absent = column.is_null()
    if x.null_count() > column.null_count():
        plain = column.cast(pl.String).str.strip_chars().str.to_lowercase()
        absent |= plain.is_in([*MISSING, *words]).fill_null(False)
    if codes:
        absent |= x.is_in(codes).fill_null(False)
    bad = x.is_null() & ~absent
    if (
        not stated
        and x.null_count() == len(x)
        and not column.filter(bad).cast(pl.String).str.contains(NUMBER_LIKE).any()
    ):
        return None
    _report(faults, name, column, x, bad, "is no finite number, such as -1.5 or 2e-3", _remedy(column.filter(bad)))
    return x.set(absent, None)


def _numbers(column: pl.Series, decimal: str) -> pl.Series:
    """Return a column as finite numbers, null where it has none; NaN is none."""
    if column.dtype == pl.String and decimal == ".":
        x = column.cast(pl.Float64, strict=False)
        if x.null_count() > column.null_count():
            x = _careful(column, ",", ".")
    elif column.dtype == pl.String:
        x = _careful(column, ".", ",")
    else:
        x = column.cast(pl.Float64, strict=False)
    return x.set(~x.is_finite(), None)


def _careful(column: pl.Series, group: str, point: str) -> pl.Series:
    """Return the numbers of a column with blanks around them, or with signs between thousands: 1.234.567,8."""
    text = column.str.strip_chars()
    grouped = rf"^[+-]?\d{{1,3}}(\{group}\d{{3}})+\{point}\d+$"
    frame = pl.DataFrame({"x": text}).with_columns(
        pl.when(pl.col("x").str.contains(grouped))
        .then(pl.col("x").str.replace_all(group, "", literal=True))
        .otherwise(pl.col("x"))
    )
    if point == ",":
        plain = ~pl.col("x").str.contains(".", literal=True)
        clear = ~pl.col("x").str.contains(THOUSANDS)
        frame = frame.with_columns(
            pl.when(plain).then(pl.col("x").str.replace(",", ".", literal=True)).when(clear).then(pl.col("x"))
        )
    return frame["x"].cast(pl.Float64, strict=False)


def is_number(word: str) -> bool:
    """Return whether a word is a finite number."""
    return pl.Series([word]).cast(pl.Float64, strict=False).is_finite().fill_null(False)[0]


def _remedy(words: pl.Series) -> str:
    """Return how to mend cells that are no numbers."""
    shown = words.cast(pl.String).unique(maintain_order=True).to_list()[:3]
    if any(COMMA_NUMBER.fullmatch(word.strip()) for word in shown):
        return "If the comma is the decimal sign, say data.decimal=','; else correct it."
    if any(re.match(THOUSANDS, word.strip()) for word in shown):
        return "Beside decimal commas a point may stand between thousands: write it without, or with a comma."
    if words.len() > 20:
        return "Correct it, or say which columns hold the values: data.values=[…]."
    return f"Correct it, or count it as missing: data.missing=[{','.join(shown)}]."


def _report(faults: Faults, name: str, column: pl.Series, x: pl.Series, bad: pl.Series, what: str, remedy: str) -> None:
    """Add the cells that are no numbers, and numbers that are too large."""
    rows = bad.arg_true()
    if len(rows):
        text = str(column[rows[0]] if column[rows[0]] is not None else "").strip()
        faults.add(rows.to_list(), f"{name}={brief(text)!r} {what}", remedy)
    large = (x.abs() > MAX_NUMBER).fill_null(False).arg_true()
    if len(large):
        text = f"{name}={x[large[0]]:g} is beyond ±{MAX_NUMBER:g}"
        faults.add(large.to_list(), text, f"Correct it, rescale {name}, or take the row out.")


def _names(cells: Cells, columns: Sequence[str], faults: Faults) -> pl.Series:
    """Return the name of each row's series; without such a column that of its file."""
    if not columns:
        stems = [path.stem for path in cells.paths]
        return cells.frame[FILE].replace_strict(list(range(len(stems))), stems, return_dtype=pl.String)
    text = pl.col(list(columns)).cast(pl.String).str.strip_chars()
    names = cells.frame.select(pl.concat_str(text, separator=" ")).to_series()
    empty = names.is_null() | (names == "")
    faults.add(empty.arg_true().to_list(), f"{' '.join(columns)} is empty; every row names its series", "Fill it in.")
    return names


def _arrange(
    base: pl.DataFrame, count: int, faults: Faults, average: bool, dates: str
) -> tuple[pl.DataFrame, list[str], list[str]]:
    """Return the points by series and time, with the number of its series as `code`; the names; what was done.

    base   row, name, time and `count` columns of values "0", "1", …
    """
    notes, keys = [], [f"{n}" for n in range(count)]
    sound = base.filter(pl.col("name").is_not_null(), pl.col("time").is_not_null())
    points = sound.filter(~pl.all_horizontal(pl.col(keys).is_null()))
    if empty := len(sound) - len(points):
        notes.append(f"{empty:,} rows without any value passed over")
    names = sorted(points["name"].unique().to_list(), key=lambda name: hashlib.blake2b(name.encode()).digest())
    codes = points["name"].replace_strict(names, list(range(len(names))), return_dtype=pl.Int64)
    points = points.with_columns(codes.alias("code")).sort("code", "time", maintain_order=True)
    again = (pl.col("code") == pl.col("code").shift(1)) & (pl.col("time") == pl.col("time").shift(1))
    repeats = points.with_columns(pl.col("row").shift(1).alias("before")).filter(again)
    if len(repeats) and average:
        mean = [pl.col(key).mean() for key in keys]
        points = points.group_by("code", "time", maintain_order=True).agg(pl.col("row", "name").first(), *mean)
        notes.append(f"{len(repeats):,} rows at the time of another averaged with it")
    elif len(repeats):
        _report_repeats(faults, repeats, dates)
    if not faults.kinds:
        alone = points.filter(pl.len().over("code") == 1)
        text = f"series {alone['name'][0]} has only this one point; two are the least" if len(alone) else ""
        faults.add(alone["row"].to_list(), text, "Add one, or take it out.")
    return points, names, notes


def _report_repeats(faults: Faults, repeats: pl.DataFrame, dates: str) -> None:
    later = repeats.with_columns(pl.max_horizontal("row", "before"), pl.min_horizontal("row", "before").alias("before"))
    first = later.sort("row").row(0, named=True)
    line = faults.cells.frame[LINE][first["before"]]
    faults.add(
        later["row"].sort().to_list(),
        f"series {first['name']} has the time {moment(first['time'], dates)} already in line {line}",
        "Take one of them out, say data.repeats=mean, or name the column that tells series apart: data.series=NAME.",
    )
