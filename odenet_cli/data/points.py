"""A user's own points, whose density is learnt: `data=points data.path=FILE`, a table or arrays (see `common/points`).

A row is a point, its coordinates columns of numbers. They are learnt with mean 0 and standard deviation 1 over the
points to train on; a column that is constant there has no density, and is left out. Which points are held out follows
from their numbers, not from the order of the rows, so that points that are equal are in one part.

The units belong to the run (`run.json` has them): another file that it is scored on is measured in them, and
log-densities are told in the data's own units too, `nll_data`.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from odenet_cli.data.common import point_benchmarks, points, table_file
from odenet_cli.data.common.point_units import KEYS, PointUnits
from odenet_cli.data.common.points import Points
from odenet_cli.data.common.splits import BatchSpec, Data, data_record, split_rows, tensor_data
from odenet_cli.data.common.table_file import brief
from odenet_cli.data.common.table_pieces import PARTS
from odenet_cli.errors import RequestError

MAX_DEVIATIONS = 1e15  # standard deviations: their squares stay finite in float32
MAX_COLUMNS = 12  # that are described one by one
DEPENDENT = 1e-10  # an eigenvalue of the correlations below this is one of rounding
CHOICES = {"incomplete": ("refuse", "drop"), "repeats": ("refuse", "drop", "keep"), "decimal": (".", ",")}
IN_ORDER = "order"


@dataclass(frozen=True, kw_only=True)
class Source:
    """Options of `data=points`.

    path              of the file, or a pattern that finds several tables
    columns           the coordinates; None: all columns that hold numbers
    decimal           the sign in numbers; None: as the first rows have it
    missing           words and numbers that stand for no value, beside the usual ones
    incomplete        what becomes of points with a missing coordinate: refuse or drop them
    repeats           of points that are there again: refuse, drop (each stays once) or keep them
    skip              lines above the names of the columns
    sheet             of an Excel file, by its name; None: the first
    split             order: the last rows are held out; or a column that says train, valid or test; None: any rows
    validation, test  shares of the points that are held out
    """

    classes: ClassVar = 0
    task: ClassVar = "likelihood"
    UNITS: ClassVar = KEYS

    path: str | None = None
    columns: str | list[str] | None = None
    decimal: str | None = None
    missing: str | float | list[str | float] | None = None
    incomplete: str | None = None
    repeats: str | None = None
    skip: int | None = None
    sheet: str | None = None
    split: str | None = None
    validation: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        for key in ("columns", "missing"):
            value = getattr(self, key)  # hashable, so that a file is read once
            listed = value if isinstance(value, (list, tuple)) else () if value is None else (value,)
            object.__setattr__(self, key, tuple(listed))
        if not (self.path or "").strip():
            raise RequestError(
                "data.path is missing: data=points data.path=FILE, a table with a row for each point, or .npy or .npz."
            )
        for key, choices in CHOICES.items():
            if getattr(self, key) not in (None, *choices):
                raise RequestError(f"data.{key}={getattr(self, key)} is not known. There are: {', '.join(choices)}.")
        if self.skip is not None and self.skip < 0:
            raise RequestError(f"data.skip={self.skip} must be at least 0.")
        for key, low in (("validation", 0.0), ("test", 1e-9)):
            if not low <= getattr(self, key) <= 0.9:
                raise RequestError(f"data.{key}={getattr(self, key)} is out of range; it is a share, up to 0.9.")

    @property
    def file(self) -> Path:
        return Path(os.path.abspath(os.path.expanduser(str(self.path))))

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.prepare()["columns"]),)

    def in_units_of(self, record: dict[str, Any]) -> PointsInUnits:
        """Return the points in the units of the run that `record` is of."""
        return PointsInUnits(replace(self, sheet=table_file.sheet_for(self.path, self.sheet)), record)

    def prepare(self) -> dict[str, Any]:
        return dict(_record_of(self, table_file.state(self.file)))

    def load(self, spec: BatchSpec) -> Data:
        return self._load(spec, None)

    def points(self, columns: tuple[str, ...] = ()) -> Points:
        """Return the points of the file as they are; `columns`: the coordinates, of a run that knows them."""
        return points.read(
            str(self.file),
            columns=columns or self.columns or None,
            split=None if self.split == IN_ORDER else self.split,
            decimal=self.decimal,
            missing=self.missing or (),  # type: ignore[arg-type]
            skip=self.skip,
            sheet=self.sheet,
            incomplete=self.incomplete,
            repeats=self.repeats,
        )

    def _load(self, spec: BatchSpec, run: dict[str, Any] | None) -> Data:
        x, units, record = self._read(run)
        splits = split_rows([x], list(record["sizes"].values()))
        shape = (len(units.columns),)
        return tensor_data(splits, spec, shape=shape, task=self.task, record=record, distribution=units)

    def _read(self, run: dict[str, Any] | None) -> tuple[Tensor, PointUnits, dict[str, Any]]:
        """Return the points in units, those to train on first, the units, and what `run.json` keeps of them.

        In the units of the record `run`; None: in units of their own, fitted on the points to train on.
        """
        known = PointUnits.of(run) if run else None
        found = self.points(tuple(known.columns) if known else ())
        parts = points.held_out(found, self.split == IN_ORDER, self.validation, self.test, held=known is not None)
        warnings = list[str]()
        try:
            units = known or PointUnits.fit(found.names, found.x[parts == 0])
        except RequestError as error:
            raise RequestError(f"{self.file}: {error}") from error
        raw = found.x[:, [found.names.index(name) for name in units.columns]]
        x = units.scaled(raw)
        self._check_far(found, raw, x, units)
        if known is None:
            warnings = [f"{self.file}: {text}" for text in warn_degenerate(raw, x[parts == 0], units)]
        sizes = {name: int((parts == part).sum()) for part, name in enumerate(PARTS)}
        record = data_record(
            "points",
            sizes,
            sha256=found.cells.sha256,
            root=str(self.file),
            warning="\n".join(warnings) or None,
        )
        record |= {"content": found.digest(), **units.record(), "table": summary(found, raw, units)}
        if benchmark := point_benchmarks.find(self.file, len(raw), len(units.columns)):
            record["beside"] = benchmark
        return x[parts.argsort(stable=True)], units, record

    def _check_far(self, found: Points, raw: Tensor, x: Tensor, units: PointUnits) -> None:
        """Raise RequestError for a point so far away that the square of its distance is infinite in float32."""
        beyond = (x.abs() > MAX_DEVIATIONS).nonzero()
        if len(beyond):
            row, column = beyond[0].tolist()
            raise RequestError(
                f"{found.cells.where(row)}: {units.columns[column]}={raw[row, column]:g} is beyond {MAX_DEVIATIONS:g} "
                f"standard deviations ({units.sd[column]:g}) from the mean {units.mean[column]:g} of the points to "
                "train on. Correct it, or take it out."
            )


@dataclass(frozen=True)
class PointsInUnits:
    """Hold points as the run sees them that was trained in the units of this record, perhaps on another file."""

    source: Source
    run: dict[str, Any]

    classes: ClassVar = Source.classes
    task: ClassVar = Source.task

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(PointUnits.of(self.run).columns),)

    def load(self, spec: BatchSpec) -> Data:
        return self.source._load(spec, self.run)


@functools.lru_cache(maxsize=8)
def _record_of(source: Source, state: tuple[tuple[int, int], ...]) -> Mapping[str, Any]:
    """Return the record of a file, read once for as long as it is unchanged."""
    return source._read(None)[2]


def warn_degenerate(raw: Tensor, x: Tensor, units: PointUnits) -> list[str]:
    """Return a warning for points that have no density: a flow's likelihood on them grows without end.

    raw, x  (N, D) all points of the data, and (M, D) those to train on in units
    """
    warnings = []
    few = [
        f"{name} ({count})"
        for name, column in zip(units.columns, raw.T)
        if (count := len(column.unique())) ** 2 < len(column)
    ]
    if few:
        warnings.append(
            f"few different values in {brief(', '.join(few))} of {len(raw):,} points: such a column has no density, "
            "and its likelihood grows with every training step. Add noise as wide as its steps, or leave it out: "
            "data.columns=[…]."
        )
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    if values[0] < DEPENDENT * values[-1] and len(units.columns) > 1:
        named = [units.columns[n] for n in (vectors[:, 0].abs() > 1e-3).nonzero().flatten().tolist()]
        warnings.append(
            f"{brief(', '.join(named))} depend on each other linearly: points on a plane have no density. Leave one "
            "of them out: data.columns=[…]."
        )
    return warnings


def summary(found: Points, raw: Tensor, units: PointUnits) -> list[str]:
    """Return what was understood of the file: its points, and of each coordinate mean ± sd, range and unit."""
    lines = [f"{len(raw):,} points in {len(units.columns)} dimension{'s' * (len(units.columns) != 1)}"]
    stated = dict(zip(found.cells.names, found.cells.units))
    for name, column in list(zip(units.columns, raw.T))[:MAX_COLUMNS]:
        unit = f" {stated[name]}" if stated.get(name) else ""
        spread = f"{column.mean():.4g} ± {column.std(correction=0):.3g}{unit}"
        lines.append(f"{brief(name)}: {spread}, {column.min():.4g} to {column.max():.4g}")
    if len(units.columns) > MAX_COLUMNS:
        lines.append(f"and {len(units.columns) - MAX_COLUMNS} columns more")
    left_out = [f"left out, no spread: {brief(', '.join(units.left_out))}"] if units.left_out else []
    return [*lines, *left_out, *found.notes]
