"""Read columns of a table as numbers, names of series and splits, and collect their errors."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence

import polars as pl
from torch import Tensor

from odenet_cli.data.common import numerals
from odenet_cli.data.common.numerals import MISSING
from odenet_cli.data.common.splits import PARTS, WORDS
from odenet_cli.data.common.table_cells import Cells, brief
from odenet_cli.data.common.table_columns import is_row_number
from odenet_cli.data.common.table_dates import are_dates
from odenet_cli.data.common.table_dialect import COMMA_NUMBER
from odenet_cli.data.common.table_faults import Faults, list_option, shown
from odenet_cli.errors import RequestError

MAX_NUMBER = 1e100  # of a time or a value: spans and sums of squares stay finite
CODES = re.compile(r"(^|[_\s-])(id|sku|plz|zip|(zip|post|postal)[_\s-]?code)$", re.IGNORECASE)
NUMBER_LIKE = r"^\s*[+-]?[.,]?\d"


def check_nameless(cells: Cells, known: Collection[str] = ()) -> None:
    """Raise RequestError for an unnamed column that is not empty, known, or the numbers or names of rows."""
    for n, name in enumerate(cells.names):
        if is_row_number(name) and name not in known:
            column = cells.frame[name].drop_nulls().cast(pl.String)
            numbers = column.cast(pl.Int64, strict=False)
            whole = not numbers.null_count() and numbers.n_unique() == len(numbers)
            if not whole and column.str.contains(NUMBER_LIKE).any():
                raise RequestError(
                    f"{cells.where(0)}: column {n + 1} of {len(cells.names)} has no name, and does not contain row "
                    "numbers. Name it in the first line, or delete it."
                )


def series_names(cells: Cells, columns: Sequence[str], faults: Faults) -> pl.Series:
    """Return the name of each row's series; without such a column, the name of its file."""
    if not columns:
        return cells.file_names()
    text = pl.col(list(columns)).cast(pl.String).str.strip_chars()
    names = cells.frame.select(pl.concat_str(text, separator=" ", ignore_nulls=True).str.strip_chars()).to_series()
    names = names.replace("", None)
    remedy = "Fill it in, or choose other columns that name the series: data.series=[…]."
    faults.add(names.is_null(), f"{' '.join(columns)} is empty; every row must name its series", remedy)
    return names


def read_values(cells: Cells, name: str, missing: Sequence[str], stated: bool, faults: Faults) -> pl.Series | None:
    """Return a column of values, null if they are missing; None for a column without any number."""
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
    report_numbers(
        faults, name, column, x, bad, "is not a finite number, such as -1.5 or 2e-3", _remedy(column.filter(bad), cells)
    )
    note_codes(column, x, cells, name)
    note_decimal_sign(column, x, cells, name, faults)
    return x.set(absent, None)


def note_decimal_sign(column: pl.Series, x: pl.Series, cells: Cells, name: str, faults: Faults) -> None:
    """Note the guessed decimal sign of numbers x, if all may have thousands separators."""
    if cells.grouped is None and column.dtype == pl.String and numerals.like_thousands(column, cells.decimal):
        mark, other = (".", ",") if cells.decimal == "." else (",", ".")
        marked = column.str.contains(mark, literal=True).fill_null(False)
        between = f"if it separates thousands, data.decimal='{other}'"
        if numerals.likely_thousands(column, mark):
            faults.add(
                marked,
                lambda row: f"{name}={shown(column, row)} is ambiguous: {mark} may separate thousands",
                f"Set data.decimal='{mark}' if it is the decimal sign, or {between}.",
            )
        else:
            row = marked.arg_true()[0]
            text = f"{name}: {shown(column, row)} read as {x[row]:.15g}, with {mark} as the decimal sign; {between}"
            cells.notes.append(text)


def note_codes(column: pl.Series, x: pl.Series, cells: Cells, name: str) -> None:
    """Note that numbers x may be codes: some begin with 0, unlike counts, or the name of the column suggests it."""
    if x.null_count() == len(x) or not (x == x.floor()).all():
        return
    zeros = column.str.contains(r"^\s*0\d+\s*$") if column.dtype == pl.String else pl.Series([False])
    like = zeros.fill_null(False) if zeros.any() else x.is_not_null()
    if zeros.any() or CODES.search(name):
        row = like.arg_true()[0]
        taken = f"{shown(column, row)} read as the number {x[row]:.15g}"
        cells.notes.append(f"{name}: {taken}; if it is a code, remove {name} from data.{cells.chosen}=[…]")


def perhaps_parts(cells: Cells, names: Iterable[str]) -> list[str]:
    """Return notes on columns that contain only names of splits, such as train and test, but are not used as such."""
    notes = []
    for name in names:
        column = cells.frame[name]
        words = column.drop_nulls().unique() if column.dtype == pl.String else ()
        parts = {WORDS.get(word.strip().lower()) for word in words}
        if len(parts) > 1 and PARTS[0] in parts and None not in parts:
            notes.append(f"{name} seems to name the splits, and is ignored; to use it, set data.split={name}")
    return notes


def read_parts(cells: Cells, name: str, faults: Faults) -> pl.Series:
    """Return the split of each row, as a number, from a column of train, valid or test."""
    words = cells.frame[name].cast(pl.String).str.strip_chars().str.to_lowercase()
    numbers = {word: PARTS.index(part) for word, part in WORDS.items()}
    parts = words.replace_strict(numbers, default=None, return_dtype=pl.Int64)
    known = ", ".join(PARTS)
    faults.add(
        parts.is_null(),
        lambda row: f"{name}={cells.frame[name][row]!r} is not one of {known}",
        "Correct it, or delete the row.",
    )
    return parts


def check_parts(cells: Cells, name: str, parts: Tensor) -> None:
    """Raise RequestError if one of the required splits is empty."""
    for part in ("train", "test"):
        if not bool((parts == PARTS.index(part)).any()):
            raise RequestError(f"{cells.paths[0]}: no row has {name}={part}; at least one is needed.")


def absent_cells(column: pl.Series, missing: Sequence[str]) -> pl.Series:
    """Return which cells are empty or have a word for a missing value."""
    words = [*MISSING, *(word.strip().lower() for word in missing)]
    if column.dtype.is_temporal():
        return column.is_null()
    plain = column.cast(pl.String).str.strip_chars().str.to_lowercase()
    return column.is_null() | plain.is_in(words).fill_null(False)


def holds_dates(cells: Cells, name: str, missing: Sequence[str]) -> bool:
    """Return whether a column holds dates or times, by its first cells."""
    column = cells.frame[name]
    first = column.filter(~absent_cells(column, missing)).head(100)
    return bool(read_numbers(first, cells).is_null().all()) and are_dates(first)


def ignored_dates(name: str) -> str:
    """Return the note on a column of dates or times that is ignored."""
    return f"ignored, dates or times: {brief(name)}; to include it, write it as days since the first"


def read_numbers(column: pl.Series, cells: Cells, name: str = "") -> pl.Series:
    """Return a column as finite numbers, null for other cells, including NaN and dates.

    name  of the column: assumptions about its numbers are added to the notes
    """
    if column.dtype.is_temporal():  # from a file with typed columns; a cast would return days or microseconds
        return pl.Series(column.name, [None] * len(column), dtype=pl.Float64)
    if column.dtype == pl.String:
        x, notes = numerals.read(column, cells.decimal, cells.grouped)
        cells.notes.extend(f"{name}: {note}" for note in notes if name)
    else:
        x = column.cast(pl.Float64, strict=False)
    return x.set(~x.is_finite(), None)


def refuse_dates(column: pl.Series, absent: pl.Series, cells: Cells, name: str) -> None:
    """Raise RequestError for a column of dates, each of which would be a separate word."""
    if are_dates(column.filter(~absent)):
        raise RequestError(
            f"{cells.paths[0]}: {name} holds dates or times ({shown(column, absent.not_().arg_true()[0])}). Write them "
            f"as numbers, such as days since the first, or remove it from data.{cells.chosen}."
        )


def report_numbers(
    faults: Faults, name: str, column: pl.Series, x: pl.Series, bad: pl.Series, what: str, remedy: str
) -> None:
    """Add as faults cells that are not numbers, and numbers that are too large."""
    faults.add(bad, lambda row: f"{name}={shown(column, row)} {what}", remedy)
    large = (x.abs() > MAX_NUMBER).fill_null(False)
    too = f"is beyond ±{MAX_NUMBER:g}"
    faults.add(large, lambda row: f"{name}={x[row]:g} {too}", f"Correct it, rescale {name}, or delete the row.")


def _remedy(column: pl.Series, cells: Cells) -> str:
    """Return the remedy for cells that are not numbers."""
    words = pl.Series([str(word) for word in column.unique(maintain_order=True).to_list()], dtype=pl.String)
    shown = words.head(3).to_list()
    if any(COMMA_NUMBER.fullmatch(word.strip()) for word in shown):
        return (
            "If the comma is the decimal sign, set data.decimal=','; if it separates thousands, data.decimal=.; "
            "otherwise correct it."
        )
    if any(re.fullmatch(r"[+-]?\d{1,3}(\.\d{3})+", word.strip()) for word in shown):
        return "With decimal commas, a point is read as a separator of thousands: remove it, or write a comma."
    others = words.head(1000)
    others = others.filter(~others.str.strip_chars().str.contains(numerals.NUMERAL))
    if others.is_empty():
        return "Write numbers without units, or the same unit in every cell of the column."
    if len(column) > 20 and len(words) > 3:
        return f"Correct it, or select the columns to use: data.{cells.chosen}=[…]."
    return f"Correct it, or count it as missing: {list_option('data.missing', others.head(3).to_list())}."
