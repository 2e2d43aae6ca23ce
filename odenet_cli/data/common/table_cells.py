"""The cells of a table, and where each of them stands, for errors and notes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import polars as pl

from odenet_cli.errors import RequestError

FILE, LINE = "\0file", "\0line"  # names of the columns that say where a row is from


class Cells(NamedTuple):
    """Hold the rows of one file or several.

    names    of the columns, as the first line has them
    units    of each column, where a row of units stands below the names; else empty
    frame    the rows: text or, of Parquet and Excel, what is stored there; and FILE, LINE of each
    decimal  the sign in numbers: "." or ","
    grouped  the other sign is known to stand between thousands; None: nothing says so, and `decimal` was guessed
    chosen   the option that says which columns are taken
    turned   a row of the file is a series, and here every cell of it is one (see `table_across`)
    paths    of the files, FILE their index
    notes    what was passed over or assumed, for the reader
    ragged   (row, cells) of rows that have more or fewer cells than there are names; they are not in `frame`
    sha256   of the bytes, of several files one of theirs together
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
        """Return in words what a column holds, in the unit that the file states."""
        unit = dict(zip(self.names, self.units)).get(name)
        return f"{brief(name)}: {mean:.4g} ± {sd:.3g}{f' {unit}' if unit else ''}"

    def where(self, row: int) -> str:
        """Return file and line of a row of `frame`; of Parquet, which has no lines, the row, counted from 1."""
        file, line = self.frame.select(FILE, LINE).row(row)
        return place(self.paths[file], line)

    def file_names(self) -> pl.Series:
        """Return the name of each row's file, with its folder where names are there twice."""
        names = [path.stem for path in self.paths]
        if len({*names}) < len(names):
            top = os.path.commonpath(self.paths)
            names = [str(path.relative_to(top).with_suffix("")) for path in self.paths]
        return self.frame[FILE].replace_strict(list(range(len(names))), names, return_dtype=pl.String)


def row_word(path: Path) -> str:
    """Return what the rows of a file are called; only text has lines."""
    return "row" if path.suffix.lower() in (".parquet", ".npy", ".npz") else "line"


def place(path: Path, line: int) -> str:
    """Return where a row stands, for an error."""
    return f"{path}, {row_word(path)} {line}"


def fault(path: Path, line: int, text: str) -> RequestError:
    """Return the error for one line of a file."""
    return RequestError(f"{place(path, line)}: {text}")


def brief(text: str) -> str:
    """Return a text in at most 100 characters."""
    return text if len(text) <= 100 else text[:99] + "…"


def counted_names(what: str, names: Sequence[str]) -> str:
    """Return how many there are, and their names, some where they are many."""
    return f"{len(names):,} {what} ({brief(', '.join(names))})"
