"""Read tables from files with typed columns: Parquet and Excel."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from odenet_cli.data.common import numerals
from odenet_cli.data.common.places import EXCEL
from odenet_cli.data.common.table_cells import FILE, LINE, Cells, brief
from odenet_cli.data.common.table_dialect import MAX_FOOTERS, ROWS_SEEN, all_named, count_footers
from odenet_cli.errors import RequestError
from odenet_cli.files import file_sha256

if TYPE_CHECKING:
    from odenet_cli.data.common.own import OwnTable

DAY_0 = datetime(1899, 12, 31)  # of Excel, the date of times without a date


def read_stored(source: OwnTable, path: Path, check: Callable[[Path, list[str]], object]) -> Cells:
    """Read a file with typed columns."""
    kind, notes = "Excel" if path.suffix.lower() in EXCEL else "Parquet", list[str]()
    skip = source.skip or 0
    try:
        frame = pl.read_parquet(path) if kind == "Parquet" else _read_excel(path, source.sheet, skip, notes)
    except ImportError as error:
        raise RequestError(
            f"{path}: Excel files need the package fastexcel: pip install -e '.[tables]'. "
            f"({brief(str(error).strip().splitlines()[0])})"
        ) from error
    except RequestError:
        raise
    except Exception as error:  # the readers raise errors without a common base class
        raise RequestError(f"{path} is not a valid {kind} file: {brief(str(error).splitlines()[0])}") from error
    names = all_named(["" if name.startswith("__UNNAMED__") else name for name in frame.columns])
    try:
        check(path, names)
    except RequestError as error:
        raise RequestError("\n  ".join([str(error), *notes])) from error
    if frame.is_empty():
        raise RequestError(
            "\n  ".join([f"{path} has column names but no rows. Add rows: each row is a point.", *notes])
        )
    frame.columns = names
    cells = stored_cells(path, frame, 1 if kind == "Parquet" else 2 + skip, notes)
    texts = cells.frame.head(ROWS_SEEN).select(pl.col(pl.String).fill_null(""))
    decimal, grouped = numerals.signs([cell.strip() for row in texts.rows() for cell in row], source.decimal, "")
    return cells._replace(decimal=decimal, grouped=grouped)


def stored_cells(path: Path, frame: pl.DataFrame, first: int, notes: list[str]) -> Cells:
    """Return the cells of a file with typed columns; `first` is the number of its first row.

    Categories are words; values other than numbers, text and dates are replaced by the name of their type.
    """
    names, plain = frame.columns, []
    for name, dtype in frame.schema.items():
        if isinstance(dtype, (pl.Categorical, pl.Enum)):
            plain.append(pl.col(name).cast(pl.String))
        elif dtype.is_nested() or dtype in (pl.Binary, pl.Object):
            plain.append(pl.when(pl.col(name).is_not_null()).then(pl.lit(f"{dtype}")).alias(name))
    places = [pl.lit(0, pl.UInt32).alias(FILE), pl.int_range(first, first + len(frame), dtype=pl.UInt32).alias(LINE)]
    frame = frame.with_columns(*plain, *places)
    there = frame.select(names).with_columns(pl.col(pl.String).str.strip_chars().replace("", None))
    blank = there.select(pl.all_horizontal(pl.all().is_null())).to_series()
    ragged = pl.DataFrame(schema={LINE: pl.UInt32, "cells": pl.UInt32, FILE: pl.UInt32})
    frame = frame.filter(~blank) if blank.any() else frame
    tail = [["" if x is None else str(x).strip() for x in row] for row in frame.select(names).tail(MAX_FOOTERS).rows()]
    if count := count_footers(tail, len(names)):
        notes.append(f"text below the table, skipped: {brief(tail[-count][0])}")
        frame = frame.head(len(frame) - count)
    return Cells(names, [], frame, ".", [path], notes, ragged, file_sha256(path))


def _read_excel(path: Path, sheet: str | None, skip: int, notes: list[str]) -> pl.DataFrame:
    """Return a sheet with its names `skip` lines below the top; remarks about other sheets are added to `notes`."""
    import fastexcel

    there = fastexcel.read_excel(path).sheet_names
    if sheet is not None and sheet not in there:
        raise RequestError(f"{path}: data.sheet={sheet}: there is no such sheet. Available: {brief(', '.join(there))}.")
    if sheet is None and len(there) > 1:
        notes.append(f"sheet {there[0]} was read; there are also (data.sheet=NAME) {brief(', '.join(there[1:]))}")
    logging.getLogger("fastexcel").setLevel(logging.ERROR)  # it warns of empty columns
    # Infer types from all rows: with the first thousand, words below them would be read as missing numbers.
    frame = pl.read_excel(
        path,
        sheet_name=sheet or there[0],
        infer_schema_length=None,
        drop_empty_rows=False,  # they count in the line numbers
        read_options={"header_row": skip},
    )
    clock = [name for name, dtype in frame.schema.items() if dtype == pl.Datetime and _is_clock(frame[name])]
    return frame.with_columns(pl.col(clock) - DAY_0)


def _is_clock(column: pl.Series) -> bool:
    """Return whether all Excel dates are on its first days, and are therefore times of day or durations."""
    return column.null_count() < len(column) and bool(column.is_between(DAY_0, DAY_0 + timedelta(60)).all())
