"""Columns of a table's cells as numbers and times; what is wrong with them is collected."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, time

import polars as pl
from torch import Tensor

from odenet_cli.data.common import numerals
from odenet_cli.data.common.faults import tell
from odenet_cli.data.common.numerals import MISSING
from odenet_cli.data.common.splits import PARTS, WORDS
from odenet_cli.data.common.table_columns import is_row_number
from odenet_cli.data.common.table_dates import SERIALS, DateError, localize, moment, only_zone, parse_dates, zones_of
from odenet_cli.data.common.table_file import COMMA_NUMBER, FILE, LINE, Cells, brief, counted, place
from odenet_cli.errors import RequestError

MAX_NUMBER = 1e100  # of a time or a value: spans and sums of squares stay finite
LISTED = 5  # lines of a kind of fault
TOTALS = (
    "total",
    "totals",
    "grand total",
    "sum",
    "mean",
    "average",
    "summe",
    "gesamt",
    "mittelwert",
    "moyenne",
    "totale",
)
ROW = "\0row"
Place = tuple[int, int]  # file and line
NUMBER_LIKE = r"^\s*[+-]?[.,]?\d"


@dataclass
class Faults:
    """Collect what is wrong with the rows of a table, one entry a kind; `rows` are all those that have a fault."""

    cells: Cells
    kinds: list[tuple[Place, int, str]] = field(default_factory=list)  # of the first, how many, text
    rows: set[int] = field(default_factory=set)

    def add(self, rows: pl.Series, say: str | Callable[[int], str], remedy: str) -> None:
        """Add a kind of fault: the rows that have it, or which of all do; what is said of the first; how to mend it."""
        rows = rows.arg_true() if rows.dtype == pl.Boolean else rows
        if len(rows):
            self.rows.update(rows)
            text = say if isinstance(say, str) else say(rows[0])
            self.kinds.append(self._kind(self._places(rows.head(LISTED + 1)), len(rows), text, remedy))

    def line(self, row: int) -> str:
        """Return in words where a row is, for an error that is about another."""
        return self._tell(self._places(pl.Series([row])))

    def raise_all(self) -> None:
        """Raise RequestError if there were any, in the order of files and lines."""
        names, paths, kinds = self.cells.names, self.cells.paths, {*self.kinds}
        for group in self.cells.ragged.partition_by("cells", maintain_order=True)[:3]:
            known = f"the first line has {len(names)} ({brief(', '.join(names))})"
            text = f"{group['cells'][0]} columns, where {known}"
            places = group.select(FILE, LINE).rows()
            kinds.add(self._kind(places, len(places), text, "Complete the row, or take it out."))
        if len(kinds) == 1:
            (file, line), _, text = kinds.pop()
            raise RequestError(f"{place(paths[file], line)}: {text}")
        if kinds:
            where = paths[0] if len(paths) == 1 else f"the table of {len(paths)} files beside {paths[0]}"
            told = [(count, f"{self._tell([first])}: {text}") for first, count, text in sorted(kinds)]
            raise RequestError(tell(where, told))

    def _kind(self, places: list[Place], count: int, text: str, remedy: str) -> tuple[Place, int, str]:
        more = " …" * (count > LISTED + 1)
        others = f", also in {self._tell(places[1:])}{more}" if len(places) > 1 else ""
        also = f" ({count:,} such cells or rows{others})" if count > 1 else ""
        return places[0], count, f"{text}{also}. {remedy}"

    def _places(self, rows: pl.Series) -> list[Place]:
        return self.cells.frame.select(FILE, LINE)[rows].unique(maintain_order=True).rows()

    def _tell(self, places: list[Place]) -> str:
        """Return lines in words, with their files where the table is of several."""
        paths = self.cells.paths
        lines = [f"{line}{f' of {paths[file].name}' * (len(paths) > 1)}" for file, line in places[:LISTED]]
        return f"{counted(paths[0])}{'s' * (len(lines) > 1)} {', '.join(lines)}"


def check_nameless(cells: Cells, known: Collection[str] = ()) -> None:
    """Raise RequestError for a column that has no name and is neither empty, known, nor numbers or names of rows."""
    for n, name in enumerate(cells.names):
        if is_row_number(name) and name not in known:
            column = cells.frame[name].drop_nulls().cast(pl.String)
            numbers = column.cast(pl.Int64, strict=False)
            whole = not numbers.null_count() and numbers.n_unique() == len(numbers)
            if not whole and column.str.contains(NUMBER_LIKE).any():
                raise RequestError(
                    f"{cells.where(0)}: column {n + 1} of {len(cells.names)} has no name, and is no number of the row. "
                    "Name it in the first line, or take it out."
                )


def check_totals(cells: Cells, known: Collection[str], faults: Faults) -> None:
    """Add the last row of a file that a column calls a total, and no other row: it sums the others up.

    known  columns whose words are known, and may be such: of an aggregate, sum and mean
    """
    last = cells.frame.with_row_index(ROW).group_by(FILE, maintain_order=True).last()
    for name in cells.names:
        if name in known or last[name].dtype != pl.String:
            continue
        ends = last.select(FILE, ROW, _folded(name)).filter(pl.col(name).is_in(TOTALS))
        totals = []
        for file, row, word in ends.rows():  # few: all cells are looked at for these alone
            alike = cells.frame.filter(pl.col(FILE) == file).select(_folded(name) == word).to_series()
            if alike.sum() == 1 < len(alike):
                totals.append(row)
        if totals:
            text = f"{name}={cells.frame[name][totals[0]]!r} is no sample but sums others up"
            faults.add(pl.Series(totals), text, "Take the row out.")


def without_totals(cells: Cells, name: str) -> Cells:
    """Return the cells without rows whose time is a word such as total: they are of no time."""
    if cells.frame[name].dtype != pl.String:
        return cells
    total = cells.frame.select(_folded(name).is_in(TOTALS).fill_null(False)).to_series()
    if not total.any():
        return cells
    cells.notes.append(f"rows that sum others up, passed over: {brief(', '.join(cells.frame[name].filter(total)))}")
    return cells._replace(frame=cells.frame.filter(~total))


def _folded(name: str) -> pl.Expr:
    return pl.col(name).str.strip_chars(" :").str.to_lowercase()


def series_names(cells: Cells, columns: Sequence[str], faults: Faults) -> pl.Series:
    """Return the name of each row's series; without such a column that of its file."""
    if not columns:
        stems = [path.stem for path in cells.paths]
        if len({*stems}) < len(stems):  # files of one name in several folders
            top = os.path.commonpath(cells.paths)
            stems = [str(path.relative_to(top).with_suffix("")) for path in cells.paths]
        return cells.frame[FILE].replace_strict(list(range(len(stems))), stems, return_dtype=pl.String)
    text = pl.col(list(columns)).cast(pl.String).str.strip_chars()
    names = cells.frame.select(pl.concat_str(text, separator=" ", ignore_nulls=True).str.strip_chars()).to_series()
    names = names.replace("", None)
    remedy = "Fill it in, or name series by other columns too: data.series=[…]."
    faults.add(names.is_null(), f"{' '.join(columns)} is empty; every row names its series", remedy)
    return names


def read_times(
    cells: Cells, names: list[str], form: str | None, zone: str | None, faults: Faults
) -> tuple[pl.Series, str, pl.Series | None, str]:
    """Return the times, null where they are none, and what they are: "" (numbers), "date" or "clock" (of a day).

    Returns also the zones in which dates are local, None where nothing says, and the one in which they are told.
    """
    label, stored = " ".join(names), None
    column, zones = cells.frame[names[0]], None
    if len(names) > 1:
        texts = [_words(cells.frame[name]) for name in names]
        column = cells.frame.select(pl.concat_str(texts, separator=" ").alias(label))[label]
    if column.dtype == pl.Time:
        x, kind = column.cast(pl.Int64) / 1e9, "clock"
    elif column.dtype == pl.Duration:
        x, kind = column.dt.total_microseconds() / 1e6, "clock"
    elif column.dtype.is_temporal():
        x, kind = column.cast(pl.Datetime("us")).dt.epoch("us") / 1e6, "date"
        stored = getattr(column.dtype, "time_zone", None)
        if stored is None and zone:
            zones = pl.Series([zone]).new_from_index(0, len(column))
    else:
        x, kind = read_numbers(column, cells, label), ""
        note_decimal_sign(column, x, cells, label, faults)
        if form in SERIALS:
            (unit, zero), kind = SERIALS[form], "date"
            rough = form == "excel" and not (x.round(5) != x).any()  # 1e-5 d are a second
            x = ((x + zero) * unit).round() if rough else (x + zero) * unit
            zones = pl.Series([zone if form == "excel" else "UTC"], dtype=pl.String).new_from_index(0, len(x))
        elif form is not None or 2 * x.null_count() > len(x):
            text = column.cast(pl.String).str.strip_chars()
            dates, found = _read_dates(cells, label, column, text, form)
            if form is not None or dates.null_count() < x.null_count():
                x, kind = dates, found
                zones = zones_of(text, form, zone) if kind == "date" else None
    what = "is no finite number, such as -1.5 or 2e-3" if not kind else f"is no {kind} that can be read"
    remedy = "Correct it, or take the row out."
    if x.null_count() == len(x):
        what = "is neither a number nor a date that can be read"
        remedy = (
            "Say how dates are written: 'data.time_format=\"%d/%m/%y %H:%M\"'; or which column it is: data.time=NAME."
        )
    _report(faults, label, column, x, x.is_null(), what, remedy)
    if zone and kind != "date":
        raise RequestError(
            f"{cells.where(0)}: {label}={column[0]!r}: data.zone={zone} is for dates. Leave it out, or say "
            "how they are written: data.time_format=."
        )
    zones = None if zones is None or zones.null_count() == len(zones) else zones
    return x, kind, zones, zone or stored or only_zone(() if zones is None else zones.unique())


def _read_dates(
    cells: Cells, label: str, column: pl.Series, text: pl.Series, form: str | None
) -> tuple[pl.Series, str]:
    """Return the dates or times of day in a column, and which of them; raise RequestError where they are ambiguous."""
    try:
        return parse_dates(text, form)
    except DateError as error:
        raise RequestError(
            f"{cells.where(0)}: {label}={column[0]!r}: {error}. Say how dates are written: data.time_format=dmy, mdy "
            "or ymd, or a pattern such as '%d/%m/%y %H:%M'."
        ) from error


def _words(column: pl.Series) -> pl.Series:
    """Return the days or times of day in a column as text, to be read beside those of another."""
    if column.dtype == pl.Datetime and (column.dt.time().drop_nulls() == time()).all():
        column = column.dt.date()
    elif column.dtype == pl.Duration:
        column = (pl.Series([datetime(1970, 1, 1)]) + column).dt.time()
    return column.cast(pl.String)


def in_utc(
    cells: Cells, names: list[str], local: pl.Series, zones: pl.Series, hour: pl.Series, faults: Faults
) -> pl.Series:
    """Return local dates in UTC; add those that do not exist, or exist twice, to the faults."""
    try:
        x, twice = localize(local, zones, hour)
    except DateError as error:
        raise RequestError(f"{cells.paths[0]}: {error}.") from error

    def say(row: int, what: str) -> str:
        return f"{' '.join(names)}={moment(local[row], 'date')} {what} (in {zones[row]})"

    again, gone = "is there twice, since clocks were put back", "is not there, since clocks were put forward"
    faults.add(twice, lambda row: say(row, again), "Say data.ambiguous=order, earliest or latest.")
    absent = x.is_null() & local.is_not_null() & ~twice
    faults.add(absent, lambda row: say(row, gone), "Correct it, or leave data.zone out.")
    return x


def check_midnight(cells: Cells, label: str, names: pl.Series, seconds: pl.Series, faults: Faults) -> None:
    """Add times of day that go past midnight: 00:15 behind 23:45 is another day, and would be sorted to its begin.

    Rows may go up or down in time; what jumps by more than half a day against their direction has passed midnight.
    """
    half = 43200
    steps = pl.DataFrame({"name": names, "t": seconds}).with_columns(pl.col("t").diff().over("name").alias("step"))
    usual = pl.when(pl.col("step").abs() <= half).then(pl.col("step").sign())
    past = (pl.col("step") * usual.sum().over("name").sign() < -half) & (pl.col("t").max() < 2 * half)

    def shown(t: float) -> str:
        return f"{int(t // 3600):02d}:{int(t % 3600 // 60):02d}"

    faults.add(
        steps.select(past.fill_null(False)).to_series(),
        lambda row: (
            f"{label}={shown(seconds[row])} is past midnight, behind {shown(seconds[row] - steps['step'][row])}"
        ),
        "Add a column of dates, data.time=[date,time], or sort the rows of each series.",
    )


def perhaps_dates(time: pl.Series, label: str) -> str:
    """Return what to say of times that may be dates: 20200131, 202001, seconds since 1970, days of Excel."""
    if time.null_count() or time.is_empty():
        return ""
    for form, low, high in (("excel", 20_000, 60_000), ("unix", 0.9e9, 2.5e9), ("unix_ms", 0.9e12, 2.5e12)):
        if time.is_between(low, high).all() and (form != "excel" or re.search("dat|fecha", label.lower())):
            return f"times such as {time[0]:.15g} taken as numbers; if they are dates: data.time_format={form}"
    if not bool(((time == time.floor()) & time.is_between(190001, 1e14)).all()):
        return ""
    text = time.cast(pl.Int64).cast(pl.String)
    if (text.n_unique() < 2) or text.str.len_bytes().n_unique() > 1 or not text.str.contains("^(19|20)").all():
        return ""
    for form, length in (("%Y%m%d%H%M%S", 14), ("%Y%m%d", 8), ("%Y%m", 6)):
        if not parse_dates(text, form)[0].null_count() and len(text[0]) == length:
            return f"times such as {text[0]} taken as numbers; if they are dates: data.time_format={form}"
    weeks = len(text[0]) == 6 and bool((time % 100).is_between(1, 53).all())
    return f"times such as {text[0]} taken as numbers; weeks are written {text[0][:4]}-W{text[0][4:]}" if weeks else ""


def read_values(cells: Cells, name: str, missing: Sequence[str], stated: bool, faults: Faults) -> pl.Series | None:
    """Return a column of values, null where they are missing; None for a column without any number."""
    column = cells.frame[name]
    if column.dtype.is_temporal() and not stated:
        return None
    given = column
    if missing and column.dtype == pl.String:  # -999 among 1.5 kg has no unit
        given = column.set(column.str.strip_chars().is_in(missing).fill_null(False), None)
    x = read_numbers(given, cells, name)
    codes = read_numbers(pl.Series(missing, dtype=pl.String), cells).drop_nulls()
    absent = absent_cells(column, missing) if x.null_count() > column.null_count() else column.is_null()
    absent |= x.is_in(codes.to_list()).fill_null(False)
    bad = x.is_null() & ~absent
    if (
        not stated
        and x.null_count() == len(x)
        and not column.filter(bad).cast(pl.String).str.contains(NUMBER_LIKE).any()
    ):
        return None
    _report(faults, name, column, x, bad, "is no finite number, such as -1.5 or 2e-3", _remedy(column.filter(bad)))
    note_decimal_sign(column, x, cells, name, faults)
    return x.set(absent, None)


def note_decimal_sign(column: pl.Series, x: pl.Series, cells: Cells, name: str, faults: Faults) -> None:
    """Say of numbers x what was guessed of their decimal sign, where all may have signs between thousands."""
    if cells.grouped is None and column.dtype == pl.String and numerals.like_thousands(column, cells.decimal):
        mark, other = (".", ",") if cells.decimal == "." else (",", ".")
        marked = column.str.contains(mark, literal=True).fill_null(False)
        between = f"if it stands between thousands data.decimal='{other}'"
        if numerals.likely_thousands(column, mark):
            faults.add(
                marked,
                lambda row: f"{name}={shown(column, row)} may be a number of thousands, as others have no {mark}",
                f"Say which: data.decimal='{mark}', or {between}.",
            )
        else:
            row = marked.arg_true()[0]
            text = f"{name}: {shown(column, row)} taken as {x[row]:.15g}, the {mark} as decimal sign; {between}"
            cells.notes.append(text)


def read_parts(cells: Cells, name: str, faults: Faults) -> pl.Series:
    """Return the part of each row, as a number, by a column that says train, valid or test."""
    words = cells.frame[name].cast(pl.String).str.strip_chars().str.to_lowercase()
    numbers = {word: PARTS.index(part) for word, part in WORDS.items()}
    parts = words.replace_strict(numbers, default=None, return_dtype=pl.Int64)
    known = ", ".join(PARTS)
    faults.add(
        parts.is_null(),
        lambda row: f"{name}={cells.frame[name][row]!r} is none of {known}",
        "Correct it, or take the row out.",
    )
    return parts


def check_parts(cells: Cells, name: str, parts: Tensor) -> None:
    """Raise RequestError if nothing is left in one of the parts that are needed."""
    for part in ("train", "test"):
        if not bool((parts == PARTS.index(part)).any()):
            raise RequestError(f"{cells.paths[0]}: no row has {name}={part}, and some are needed.")


def absent_cells(column: pl.Series, missing: Sequence[str]) -> pl.Series:
    """Return which cells hold nothing, or a word that stands for it."""
    words = [*MISSING, *(word.strip().lower() for word in missing)]
    if column.dtype.is_temporal():
        return column.is_null()
    plain = column.cast(pl.String).str.strip_chars().str.to_lowercase()
    return column.is_null() | plain.is_in(words).fill_null(False)


def read_numbers(column: pl.Series, cells: Cells, name: str = "") -> pl.Series:
    """Return a column as finite numbers, null where it has none; NaN and dates are none.

    name  of the column: what is assumed of its numbers is added to the notes
    """
    if column.dtype.is_temporal():  # of a file whose columns have types; a cast would count days or microseconds
        return pl.Series(column.name, [None] * len(column), dtype=pl.Float64)
    if column.dtype == pl.String:
        x, notes = numerals.read(column, cells.decimal, cells.grouped)
        cells.notes.extend(f"{name}: {note}" for note in notes if name)
    else:
        x = column.cast(pl.Float64, strict=False)
    return x.set(~x.is_finite(), None)


def _remedy(column: pl.Series) -> str:
    """Return how to mend cells that are no numbers."""
    words = pl.Series([str(word) for word in column.unique(maintain_order=True).to_list()], dtype=pl.String)
    shown = words.head(3).to_list()
    if any(COMMA_NUMBER.fullmatch(word.strip()) for word in shown):
        return (
            "If the comma is the decimal sign, say data.decimal=','; if it stands between thousands, data.decimal=.; "
            "else correct it."
        )
    if any(re.fullmatch(r"[+-]?\d{1,3}(\.\d{3})+", word.strip()) for word in shown):
        return "Beside decimal commas a point may stand between thousands: write it without, or with a comma."
    if words.head(1000).str.strip_chars().str.contains(numerals.NUMERAL).all():
        return "Write the numbers alone, or one unit in every cell of the column."
    if len(column) > 20 and len(words) > 3:
        return "Correct it, or say which columns hold the values: data.values=[…]."
    return f"Correct it, or count it as missing: {list_option('data.missing', shown)}."


def first_missing(columns: pl.DataFrame, row: int) -> str:
    """Return the name of the first column that is null in a row."""
    return next(column.name for column in columns if column[row] is None)


def list_option(key: str, words: Sequence[str]) -> str:
    """Return what to type for a list of words: key=[a,b], in quotes where the shell or Hydra would misread it."""
    if all(re.fullmatch(r"[\w.+/%-]+", word) for word in words):
        return f"{key}=[{','.join(words)}]"
    return shlex.quote(f"{key}=[{','.join(json.dumps(word, ensure_ascii=False) for word in words)}]")


def shown(column: pl.Series, row: int) -> str:
    """Return a cell, in quotes."""
    return repr(brief("" if column[row] is None else str(column[row]).strip()))


def _report(faults: Faults, name: str, column: pl.Series, x: pl.Series, bad: pl.Series, what: str, remedy: str) -> None:
    """Add the cells that are no numbers, and numbers that are too large."""
    faults.add(bad, lambda row: f"{name}={shown(column, row)} {what}", remedy)
    large = (x.abs() > MAX_NUMBER).fill_null(False)
    too = f"is beyond ±{MAX_NUMBER:g}"
    faults.add(large, lambda row: f"{name}={x[row]:g} {too}", f"Correct it, rescale {name}, or take the row out.")
