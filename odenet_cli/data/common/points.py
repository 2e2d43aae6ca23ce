"""Points from a file: coordinates by name, held-out points, and all errors, reported together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
import torch
from torch import Tensor

from odenet_cli.data.common import array_file, table_file
from odenet_cli.data.common.places import find
from odenet_cli.data.common.table_cells import Cells, brief, counted_rows
from odenet_cli.data.common.table_columns import check_names, is_row_number
from odenet_cli.data.common.table_faults import Faults, first_missing
from odenet_cli.data.common.table_numbers import (
    check_nameless,
    check_parts,
    holds_dates,
    ignored_dates,
    perhaps_parts,
    read_parts,
    read_values,
)
from odenet_cli.data.common.table_totals import check_totals
from odenet_cli.errors import RequestError

if TYPE_CHECKING:
    from odenet_cli.data.points import Source

MAX_DIMENSIONS = 64
IN_ORDER = "order"  # of `data.split`: the last rows are held out
ROW_NAMES = ("id", "index", "row", "no", "nr", "number", "obs", "sample")  # names of columns that may number the rows


class Points(NamedTuple):
    """Hold the points of a file.

    names   of the coordinates
    x       (N, D) in float64, finite
    parts   (N,) the split of each point stated by the file; None: not stated
    notes   what was done with columns and rows, for the reader
    cells   their table, without the coordinates
    """

    names: list[str]
    x: Tensor
    parts: Tensor | None
    notes: list[str]
    cells: Cells

    def hashes(self) -> np.ndarray:
        """Return a 64-bit number for each point, (N,), that depends only on its coordinates and their names."""
        return hashes(dict(zip(self.names, self.x.numpy().T)))

    def digest(self) -> str:
        """Return a SHA-256 of the points, the same for any order of rows and columns."""
        digest = hashlib.sha256(repr(sorted(self.names)).encode())
        digest.update(np.sort(self.hashes()).tobytes())
        return digest.hexdigest()


def hashes(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return a 64-bit hash of each row of the columns, in the order of names: SplitMix64 (Steele, Lea & Flood 2014)."""
    h = np.zeros(len(next(iter(columns.values()))), np.uint64)
    for _, column in sorted(columns.items()):
        # Each step absorbs one coordinate; -0.0 counts as 0.0.
        h += np.uint64(0x9E3779B97F4A7C15)
        h ^= (column + 0.0).view(np.uint64)
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            h ^= h >> np.uint64(shift)
            h *= np.uint64(factor)
        h ^= h >> np.uint64(31)
    return h


def read(source: Source, asked: bool = False) -> Points:
    """Return the points of a table or of arrays; raise RequestError for all faults of its rows.

    asked  a prediction is needed for each point, so that all of them are kept
    """
    columns = source.run["columns"] if source.run else source.columns or None
    split = None if source.split == IN_ORDER else source.split

    def choose(file: Path, names: list[str]) -> list[str]:
        return coordinates(file, names, columns, split)

    file, *others = find(source.path)
    if file.suffix in array_file.SUFFIXES:
        if others:
            raise RequestError(
                f"data.path={source.path}: {len(others) + 1} files match, but arrays are read from a single file. Name "
                "one, or combine the arrays in one file."
            )
        cells = array_file.read(file)
        split = split or (array_file.SPLIT if array_file.SPLIT in cells.names else None)
    else:
        cells = table_file.read(source, choose, bare=True)
    if columns is None:
        check_nameless(cells)
    faults, notes, found = Faults(cells), cells.notes, dict[str, pl.Series]()
    check_totals(cells, (), faults)
    chosen = choose(cells.paths[0], cells.names)
    for name, title in zip(chosen, columns or chosen):
        if columns is None and holds_dates(cells, name, source.absent):
            notes.append(ignored_dates(name))
        elif (column := read_values(cells, name, source.absent, asked or columns is not None, faults)) is None:
            notes += perhaps_parts(cells, [name]) or [f"ignored, not numeric: {brief(name)}"]
        elif columns is None and counts_rows(name, column):
            notes.append(f"ignored, row numbers: {brief(name)}; to include it, set data.columns=[…]")
        else:
            found[title] = column
    words = read_parts(cells, split, faults) if split is not None else None
    if not 1 <= len(found) <= MAX_DIMENSIONS:
        faults.raise_all()
        said = brief(", ".join(found) or ", ".join(cells.names))
        text = (
            f"{cells.paths[0]} has {len(found)} columns of numbers ({said}), and a flow can have 1 to "
            f"{MAX_DIMENSIONS}. Select columns: data.columns=[…]."
        )
        raise RequestError("\n  ".join([text, *cells.notes]))
    cells = faults.cells = cells._replace(frame=cells.frame.drop(chosen))  # the text of a large file is most of it
    kept = _kept(pl.DataFrame(found), faults, notes, source, asked)
    faults.raise_all()
    x = torch.from_numpy(pl.DataFrame(found).filter(kept).to_numpy(order="c", writable=True))
    parts = None if words is None else words.filter(kept).to_torch()
    if split is not None and parts is not None:
        check_parts(cells, split, parts)
    return Points([*found], x, parts, notes, cells._replace(frame=cells.frame.filter(kept)))


def coordinates(path: Path, names: list[str], chosen: Sequence[str] | None, split: str | None) -> list[str]:
    """Return which columns may be coordinates; raise RequestError if a requested column does not exist.

    If the file has no names, only x1, x2, …, the chosen names are those of its columns.
    """
    if chosen and len(chosen) == len(names) and names == [f"x{n + 1}" for n in range(len(names))]:
        return names if not set(chosen) & set(names) else list(chosen)
    wanted = [("columns", name) for name in chosen or ()] + ([("split", split)] if split else [])
    for key, name in wanted:
        if name not in names:
            raise RequestError(f"{path}: no column is named {name} (data.{key}). Available: {brief(', '.join(names))}.")
    check_names(path, names, [name for _, name in wanted])
    skipped = {split, array_file.SPLIT if path.suffix == ".npz" else None}
    return list(chosen) if chosen else [name for name in names if not is_row_number(name) and name not in skipped]


def counts_rows(name: str, column: pl.Series) -> bool:
    """Return whether a column numbers rows by its name, and is 0, 1, 2, … or 1, 2, 3, …, of ten rows or more."""
    first = column[0] if name.lower() in ROW_NAMES and len(column) >= 10 else None
    return first in (0, 1) and bool((column == pl.int_range(first, first + len(column), eager=True)).all())


def _kept(found: pl.DataFrame, faults: Faults, notes: list[str], source: Source, asked: bool) -> pl.Series:
    """Return which rows are points of the data, (N,)."""
    whole = ~found.select(pl.any_horizontal(pl.all().is_null())).to_series()
    lacking = (~whole).arg_true()
    lacking = lacking.filter(~lacking.is_in(list(faults.rows)))  # cells that are no numbers are already reported
    if source.incomplete == "drop":
        notes += [f"{counted_rows(len(lacking))} with a missing coordinate ignored"] if len(lacking) else []
    elif len(lacking):
        option = "delete the row" if asked else "ignore such rows: data.incomplete=drop"
        faults.add(lacking, lambda row: f"{first_missing(found, row)} is missing", f"Fill it in, or {option}.")
    again = _again(found, whole)
    if not len(again) or asked or source.repeats == "keep":
        return whole
    if source.repeats == "drop":
        notes.append(f"{len(again):,} repeated points ignored")
        return whole.scatter(again, False)
    row = found.row(again[0])
    before = found.select(pl.all_horizontal(pl.col(name) == x for name, x in zip(found.columns, row))).to_series()
    faults.add(
        again,
        f"this repeats the point of {faults.line(int(before.arg_true()[0]))}",
        "Delete it, or set data.repeats=drop (use each point once) or keep (for example, if numbers were rounded).",
    )
    return whole


def _again(found: pl.DataFrame, whole: pl.Series) -> pl.Series:
    """Return the indices of rows that repeat the point of an earlier row; polars would take 200 bytes per row."""
    rows = whole.arg_true().to_numpy()
    h = hashes({column.name: column.to_numpy()[rows] for column in found})
    order = np.argsort(h, kind="stable")
    rows, like = rows[order], np.diff(h[order]) == 0
    later, before = found[rows[1:][like]], found[rows[:-1][like]]
    same = np.ones(len(later), bool)  # two points with the same hash may differ
    for name in found.columns:
        same &= (later[name] == before[name]).to_numpy()
    return pl.Series(np.sort(rows[1:][like][same]), dtype=pl.UInt32)


def held_out(points: Points, source: Source) -> Tensor:
    """Return the part of each point, (N,).

    If the file and `data.split` do not state it, it depends only on the numbers, not on the order of the rows.
    """
    count, validation, test = len(points.x), source.validation, source.test
    order = np.arange(count) if source.split == IN_ORDER else np.argsort(points.hashes(), kind="stable")
    parts = torch.zeros(count, dtype=torch.int64) if points.parts is None else points.parts.clone()
    if points.parts is not None:
        order = order[parts.numpy()[order] == 0]  # a file without validation points: take some of the training points
        n_test, validation = 0, 0.0 if bool((parts == 1).any()) else validation
    else:
        n_test = min(max(1, round(test * count)), count)
    n_valid = min(max(1, round(validation * count)) if validation else 0, len(order) - n_test)
    parts[torch.from_numpy(order[len(order) - n_test :].copy())] = 2
    parts[torch.from_numpy(order[len(order) - n_test - n_valid : len(order) - n_test].copy())] = 1
    if source.run is None and int((parts == 0).sum()) < 2:
        raise RequestError(
            f"{points.cells.paths[0]} has {count} points, and data.validation={validation:g} with data.test={test:g} "
            "leave fewer than two points to train on. Add points, or hold out fewer."
        )
    return parts
