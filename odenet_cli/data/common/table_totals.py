"""Detect rows of a table that are not samples but totals of the others."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import polars as pl

from odenet_cli.data.common.table_cells import FILE, Cells, brief, counted_rows
from odenet_cli.data.common.table_faults import Faults, list_option

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


def check_totals(cells: Cells, known: Collection[str], faults: Faults) -> None:
    """Add as a fault the last row of a file if a column calls it, and no other row, a total.

    known  columns whose words are known, and may include sum and mean
    """
    last = cells.frame.with_row_index(ROW).group_by(FILE, maintain_order=True).last()
    for name in cells.names:
        if name in known or last[name].dtype != pl.String:
            continue
        ends = last.select(FILE, ROW, _folded(name)).filter(pl.col(name).is_in(TOTALS))
        totals = []
        for file, row, word in ends.rows():  # few, so that all cells are searched only for these
            alike = cells.frame.filter(pl.col(FILE) == file).select(_folded(name) == word).to_series()
            if alike.sum() == 1 < len(alike):
                totals.append(row)
        if totals:
            text = f"{name}={cells.frame[name][totals[0]]!r} is not a sample but the total of others"
            faults.add(pl.Series(totals), text, "Delete the row.")


def without_totals(cells: Cells, name: str, values: Sequence[str]) -> Cells:
    """Return the cells without rows whose time is a word such as total, or missing together with all values."""
    if cells.frame[name].dtype != pl.String:
        return cells
    timeless = cells.frame.select(_empty(name)).to_series()
    if timeless.any():
        rows = cells.frame.select(pl.all_horizontal(_empty(key) for key in (name, *values))).to_series()
        cells = cells._replace(frame=cells.frame.filter(~rows))
        cells.notes.extend([f"{counted_rows(int(rows.sum()))} without a time and a value skipped"] * bool(rows.any()))
    total = cells.frame.select(_folded(name).is_in(TOTALS).fill_null(False)).to_series()
    if not total.any():
        return cells
    cells.notes.append(f"rows that are totals of others, skipped: {brief(', '.join(cells.frame[name].filter(total)))}")
    return cells._replace(frame=cells.frame.filter(~total))


def perhaps_totals(columns: Sequence[str], series: Sequence[str]) -> list[str]:
    """Return notes on columns of values and series named as totals, since they may be sums of others."""
    others = [name for name in columns if not _is_total(name)]
    notes = [f"if series {name} is the total of others, delete its rows" for name in series if _is_total(name)]
    if 0 < len(others) < len(columns):
        totals = ", ".join(filter(_is_total, columns))
        notes.append(f"if {totals} is the total of others, leave it out: {list_option('data.values', others)}")
    return notes


def _is_total(name: str) -> bool:
    return name.strip(" :").lower() in TOTALS


def _empty(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.String).str.strip_chars().fill_null("") == ""


def _folded(name: str) -> pl.Expr:
    return pl.col(name).str.strip_chars(" :").str.to_lowercase()
