"""The cells of a table and their positions, for errors and notes."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from odenet_cli.errors import RequestError

FILE, LINE = "\0file", "\0line"  # names of the columns with the origin of a row


class Cells(NamedTuple):
    """Hold the rows of one file or several.

    names    of the columns, from the first line
    units    of each column, if a row of units follows the names; else empty
    frame    the rows: text or, for Parquet and Excel, the stored values; with FILE and LINE of each row
    decimal  the decimal sign: "." or ","
    grouped  the other sign is known to separate thousands; None: unknown, and `decimal` was guessed
    chosen   the option that selects columns
    turned   each row of the file is a series, of which every cell is a row here (see `table_across`)
    paths    of the files; FILE is their index
    notes    what was skipped or assumed, for the reader
    ragged   (row, cells) of rows with more or fewer cells than names; they are not in `frame`
    sha256   of the bytes; a common one for several files
    """

    names: list[str]
    units: list[str]
    frame: pl.DataFrame
    decimal: str
    paths: list[Path]
    notes: list[str]
    ragged: pl.DataFrame
    sha256: str
    grouped: bool | None = None
    turned: bool = False
    chosen: str = "values"

    def describe(self, name: str, mean: float, sd: float) -> str:
        """Describe a column, in the unit stated by the file."""
        unit = dict(zip(self.names, self.units)).get(name)
        return f"{brief(name)}: {mean:.4g} ± {sd:.3g}{f' {unit}' if unit else ''}"

    def where(self, row: int) -> str:
        """Return file and line of a row of `frame`; for Parquet, which has no lines, the row, counted from 1."""
        file, line = self.frame.select(FILE, LINE).row(row)
        return place(self.paths[file], line)

    def file_names(self) -> pl.Series:
        """Return the name of each row's file, with its folder if names are repeated."""
        names = [path.stem for path in self.paths]
        if len({*names}) < len(names):
            top = os.path.commonpath(self.paths)
            names = [str(path.relative_to(top).with_suffix("")) for path in self.paths]
        return self.frame[FILE].replace_strict(list(range(len(names))), names, return_dtype=pl.String)


def row_word(path: Path) -> str:
    """Return the word for the rows of a file; only text has lines."""
    return "row" if path.suffix.lower() in (".parquet", ".npy", ".npz") else "line"


def place(path: Path, line: int) -> str:
    """Return the position of a row, for an error."""
    return f"{path}, {row_word(path)} {line}"


def fault(path: Path, line: int, text: str) -> RequestError:
    """Return the error for one line of a file."""
    return RequestError(f"{place(path, line)}: {text}")


def brief(text: str) -> str:
    """Shorten a text to at most 100 characters."""
    return text if len(text) <= 100 else text[:99] + "…"


def natural(name: str) -> list[str | int]:
    """Return the key by which names are listed for a reader: p2 before p10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def counted_rows(count: int) -> str:
    return f"{count:,} row{'s' * (count != 1)}"


def counted_names(what: str, names: Sequence[str]) -> str:
    """Return the number of names and the names, or only some if they are many."""
    return f"{len(names):,} {what} ({brief(', '.join(names))})"
