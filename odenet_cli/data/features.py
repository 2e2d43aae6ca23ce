"""A table of features: `data=features data.path=FILE data.y=NAME`, one row per sample, y a column (see `table_file`).

The other columns, or those in `x`, are the features: numbers, or words, with a 0/1 feature for each word. y are classes
(words, or a few different integers) or numbers to predict, in one or several columns. Standardisation and held-out
samples are as for arrays (see `common/labelled`). Features and words belong to the run: in another table columns are
matched by name. Rows without y are ignored in training; later they are predicted, and in no split and no score.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import torch

from odenet_cli.data.common import table_file
from odenet_cli.data.common.labelled import LabelledSource
from odenet_cli.data.common.numerals import TRUTH
from odenet_cli.data.common.own import Names, OwnTable
from odenet_cli.data.common.points import counts_rows
from odenet_cli.data.common.samples import WHOLE, Part
from odenet_cli.data.common.splits import PARTS
from odenet_cli.data.common.table_cells import Cells, brief, counted_rows
from odenet_cli.data.common.table_columns import check_names, is_row_number
from odenet_cli.data.common.table_controls import indicators, spelled_as
from odenet_cli.data.common.table_dates import are_dates
from odenet_cli.data.common.table_faults import Faults, first_missing
from odenet_cli.data.common.table_numbers import (
    absent_cells,
    check_nameless,
    check_parts,
    ignored_dates,
    perhaps_parts,
    read_numbers,
    read_parts,
    read_values,
    refuse_dates,
)
from odenet_cli.data.common.table_totals import check_totals
from odenet_cli.data.common.understood import Found
from odenet_cli.data.common.units import damaged
from odenet_cli.errors import RequestError

MAX_WORDS = 50  # of a column that is a feature without being requested
MAX_CLASSES = 20  # of integers that are classes by default


@dataclass(frozen=True, kw_only=True)
class Source(OwnTable, LabelledSource):
    """Options of `data=features`."""

    UNITS: ClassVar = (*LabelledSource.UNITS, "columns", "target")
    LISTS: ClassVar = (*LabelledSource.LISTS, "x", "y", "missing")
    CHOSEN: ClassVar = "x"
    CHOICES: ClassVar = {**LabelledSource.CHOICES, "incomplete": ("refuse", "drop"), "decimal": (".", ",")}
    WANTED: ClassVar = "data=features data.path=FILE data.y=NAME, a table with a row for each sample."

    x: Names | None = None
    y: Names | None = None
    incomplete: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("repeats", "layout", "augment"):
            if getattr(self, key) is not None:
                raise RequestError(
                    f"data.{key}={getattr(self, key)} has no meaning for rows of features; leave it out."
                )

    def prepare(self) -> dict[str, Any]:
        return dict(self.understand().record)

    def state(self) -> Hashable:
        return OwnTable.state(self)

    def check_record(self, record: Mapping[str, Any]) -> None:
        LabelledSource.check_record(self, record)
        for key in ("columns", "target"):
            if not (isinstance(record[key], list) and all(isinstance(name, str) for name in record[key])):
                raise damaged(key, record[key])

    def find(self) -> Found:
        cells = table_file.read(self, self._check)
        target = [name for name in self._target() if name in cells.names]
        if not self._target():
            raise RequestError(
                f"{cells.paths[0]}: the column to predict is not set. Available: {brief(', '.join(cells.names))}. Set "
                "data.y=NAME."
            )
        faults, notes = Faults(cells), cells.notes
        check_nameless(cells)
        check_totals(cells, [*self._chosen(cells.names), *target] if self.run else (), faults)
        x = self._features(cells, target, faults, notes)
        y = self._values(cells, target, faults)
        words = read_parts(cells, self.split, faults) if self.split in cells.names else None
        lacking = x.select(pl.any_horizontal(pl.all().is_null())).to_series()
        if self.incomplete == "drop":
            notes += [f"{counted_rows(int(lacking.sum()))} with a missing feature ignored"] if lacking.any() else []
        else:
            untold = lacking & ~pl.int_range(len(x), eager=True).is_in([*faults.rows])
            faults.add(
                untold,
                lambda row: f"{_column(first_missing(x, row), cells.names)} is missing",
                "Fill it in, or ignore such rows: data.incomplete=drop.",
            )
        faults.raise_all()
        unknown = y.select(pl.any_horizontal(pl.all().is_null())).to_series() if y.width else ~lacking
        kept, unknown = ~(lacking | unknown), unknown & ~lacking
        if unknown.any() and not self.run:
            notes.append(f"{counted_rows(int(unknown.sum()))} without {' '.join(target)} ignored")
        if not (kept | unknown if self.run else kept).any():
            raise RequestError(f"{cells.paths[0]}: no row has {' '.join(target)} and all features.")
        masks = {WHOLE: kept}
        if words is not None and kept.any():
            check_parts(cells, str(self.split), words.filter(kept).to_torch())
            masks = {split: kept & (words == n) for n, split in enumerate(PARTS)}
        if self.run:
            masks["unlabelled"] = unknown
        rows = torch.cat([mask.to_torch().nonzero().flatten() for mask in masks.values()])
        name = " ".join(target) or "y"
        parts = [
            Part(split, x.filter(mask).to_numpy(), _answers(y, mask & kept), "x", name, tuple(x.columns))
            for split, mask in masks.items()
            if mask.any()
        ]
        more = {
            "columns": x.columns,
            "target": self._target(),
            "table": notes if self.run else [f"features: {brief(', '.join(x.columns))}", *notes],
        }
        return Found(parts, str(self.file), cells.sha256, [], rows, more, faults.line)

    @property
    def asked(self) -> Sequence[str]:
        return [*self._target(), *(self.run["columns"] if self.run else self.x or ())]

    def _target(self) -> list[str]:
        return list(self.run["target"] if self.run else self.y or ())

    def _check(self, path: Path, names: list[str]) -> None:
        """Raise RequestError for a column that does not exist."""
        asked = {"x": self._chosen(names)}
        if not self.run:
            asked |= {"y": [*(self.y or ())], "split": [self.split] if self.split else []}
        for key, wanted in asked.items():
            check_names(path, names, wanted)
            for name in wanted:
                if name not in names:
                    who = "the run was trained with it" if self.run and key == "x" else f"data.{key}={name}"
                    raise RequestError(
                        f"{path}: there is no column {name} ({who}). Available: {brief(', '.join(names))}."
                    )
        twice = {*self._target()} & {*(self.x or ())}
        if twice:
            raise RequestError(f"{path}: {', '.join(twice)} is in data.x and in data.y; remove it from one.")

    def _chosen(self, names: list[str]) -> list[str]:
        """Return the columns of the run's features, or those in `x`; empty: all may be features."""
        return [*dict.fromkeys(_column(key, names) for key in self.run["columns"])] if self.run else [*(self.x or ())]

    def _features(self, cells: Cells, target: list[str], faults: Faults, notes: list[str]) -> pl.DataFrame:
        """Return the features, null if missing: numbers, and 0 and 1 for each word of a column of words."""
        found, known = dict[str, pl.Series](), self.run["columns"] if self.run else None
        chosen = self._chosen(cells.names)
        others = [name for name in cells.names if name not in (*target, self.split) and not is_row_number(name)]
        for name in chosen or others:
            column = cells.frame[name]
            kept = [key for key in known or () if key.startswith(f"{name}=")]
            absent = absent_cells(column, self.absent)
            words = not known and (column.dtype.is_temporal() or _is_words(column, cells, absent))
            if words and chosen:
                refuse_dates(column, absent, cells, name)
            count = column.filter(~absent).n_unique() if words else 0
            if words and are_dates(column.filter(~absent)):
                notes.append(ignored_dates(name))
            elif words and not chosen and (told := perhaps_parts(cells, [name])):
                notes += told
            elif kept or (words and (count <= 1000 if chosen else 1 < count <= min(MAX_WORDS, len(column) // 2))):
                found |= indicators(column, name, absent, kept, faults)
            elif words and chosen:
                raise RequestError(
                    f"{cells.paths[0]}: {name} contains {count:,} different words. Remove it from data.x."
                )
            elif words:
                notes.append(f"ignored, {count:,} different words: {brief(name)}")
            elif (x := read_values(cells, name, self.absent, bool(chosen), faults)) is None:
                notes.append(f"ignored, not numeric: {brief(name)}")
            elif not chosen and counts_rows(name, x):
                notes.append(f"ignored, row numbers: {brief(name)}; to include it, set data.x=[…]")
            else:
                found[name] = x
        if not found:
            faults.raise_all()
            raise RequestError(f"{cells.paths[0]}: no column is left for the features. Select some: data.x=[…].")
        return pl.DataFrame(found).select(known) if known else pl.DataFrame(found)

    def _values(self, cells: Cells, target: list[str], faults: Faults) -> pl.DataFrame:
        """Return the values to predict, null if missing: words for classes, or numbers."""
        if not target:
            return pl.DataFrame()
        cells, task = cells._replace(chosen="y"), self.run["task"] if self.run else self.task
        columns = [cells.frame[name] for name in target]
        absent = [absent_cells(column, self.absent) for column in columns]
        for name, column, empty in zip(target, columns, absent):
            if _is_words(column, cells, empty) or column.dtype.is_temporal():
                refuse_dates(column, empty, cells, name)
        if task is None and len(target) == 1:
            task = self._guess(cells, columns[0], absent[0], target[0])
        if task != "classify":
            self._check_names(target)
            values = [read_values(cells, name, self.absent, True, faults) for name in target]
            return pl.DataFrame({name: x for name, x in zip(target, values) if x is not None})
        if len(target) > 1:
            raise RequestError(
                f"data.y=[{','.join(target)}]: classes must be one column; for numbers set data.task=regression."
            )
        words = columns[0].cast(pl.String).str.strip_chars()
        numbers = words.cast(pl.Float64, strict=False)
        if numbers.is_null().equals(words.is_null() | absent[0]) and bool((numbers == numbers.floor()).all()):
            words = numbers.cast(pl.Int64).cast(pl.String)  # 1.0 is 1: missing cells turn integers into floating point
        words = spelled_as(words, self.run["classes"] if self.run else ())
        return pl.DataFrame({target[0]: words.set(absent[0], None)})

    def _check_names(self, target: list[str]) -> None:
        """Raise RequestError for numbers with the name of another column written by `predict`."""
        taken = {"sample", "split", *(f"{name}_predicted" for name in target)}
        for name in target:
            if name in taken:
                raise RequestError(
                    f"{self.file}: data.y={name}: predictions have a column of that name beside it. Rename it in the "
                    "file."
                )

    def _guess(self, cells: Cells, column: pl.Series, absent: pl.Series, name: str) -> str:
        """Return the task determined by a column: words are classes, and so are a few integers without gaps."""
        if column.dtype == pl.Boolean or _is_words(column, cells, absent):
            return "classify"
        numbers = read_numbers(column, cells).set(absent, None).drop_nulls()
        if numbers.is_empty() or not bool((numbers == numbers.floor()).all()):
            return "regression"
        values = numbers.unique().sort().to_list()
        count, low, high = len(values), values[0], values[-1]
        if count > MAX_CLASSES or high - low != count - 1 or 4 * count > len(numbers):
            raise RequestError(
                f"{cells.paths[0]}: {name} holds whole numbers, {low:g} to {high:g}, {count:,} different ones. Set "
                "data.task=classify or data.task=regression."
            )
        return "classify"


def _answers(y: pl.DataFrame, mask: pl.Series) -> Any:
    """Return the values to predict in some rows, (N,) for one column or (N, K) for several; None if unknown."""
    if not mask.any():
        return None
    values = y.filter(mask).to_numpy()
    values = values.astype(str) if values.dtype == object else values
    return values[:, 0] if y.width == 1 else values


def _column(key: str, names: list[str]) -> str:
    """Return the column of a feature, which has its name or is `name=word`."""
    return key if key in names else key.partition("=")[0]


def _is_words(column: pl.Series, cells: Cells, absent: pl.Series) -> bool:
    """Return whether a column contains words: at most half of its cells are numbers.

    Numbers with a unit count once each: 2XL beside S and M is a word in any number of rows, but 5 kg, 6 kg … are not.
    """
    if column.dtype != pl.String or absent.all():
        return False
    plain = column.filter(~absent).str.strip_chars()
    if plain.str.to_lowercase().is_in([*TRUTH]).all() or not plain.str.contains(r"\d").any():
        return True
    numbers = read_numbers(plain, cells).is_not_null()
    if numbers.any() and plain.filter(numbers).str.contains(r"\p{L}").all():
        numbers = numbers.filter(plain.is_first_distinct())
    return bool(2 * numbers.sum() <= len(numbers))
