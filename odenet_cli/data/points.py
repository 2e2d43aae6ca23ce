"""A user's own points, for density estimation: `data=points data.path=FILE`, a table or arrays (see `common/points`).

Each row is a point, with its coordinates in columns. They are standardised over the training points; a column that is
constant there has no density, and is omitted. The held-out points are chosen by a hash of their numbers, not by the
order of the rows, so that equal points are in the same split.

The units belong to the run (`run.json` has them), and apply to other files on which it is scored. Log-densities are
also given in the data's own units, `nll_data`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from odenet_cli.data.common import point_benchmarks, points
from odenet_cli.data.common.own import Names, OwnTable
from odenet_cli.data.common.points import Points
from odenet_cli.data.common.splits import PARTS, BatchSpec, Data, data_record, split_rows, tensor_data
from odenet_cli.data.common.table_cells import brief
from odenet_cli.data.common.table_faults import Faults
from odenet_cli.data.common.units import KEYS, Units, far_alone, say_alone
from odenet_cli.errors import RequestError

MAX_COLUMNS = 12  # described one by one
DEPENDENT = 1e-10  # eigenvalues of the correlations below this are rounding errors


@dataclass(frozen=True, kw_only=True)
class Source(OwnTable):
    """Options of `data=points`."""

    classes: ClassVar = 0
    task: ClassVar = "likelihood"
    UNITS: ClassVar[tuple[str, ...]] = KEYS

    LISTS: ClassVar = ("columns", "missing")
    CHOSEN: ClassVar = "columns"
    CHOICES: ClassVar = {"incomplete": ("refuse", "drop"), "repeats": ("refuse", "drop", "keep"), "decimal": (".", ",")}
    WANTED: ClassVar = "data=points data.path=FILE, a table with a row for each point, or .npy or .npz."

    columns: Names | None = None
    incomplete: str | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return (len((self.run or self.prepare())["columns"]),)

    @property
    def asked(self) -> Sequence[str]:
        return self.run["columns"] if self.run else self.columns or ()

    def check_record(self, record: Mapping[str, Any]) -> None:
        Units.of(record)

    def load(self, spec: BatchSpec) -> Data:
        x, units, record = self.read()
        splits = split_rows([x], list(record["sizes"].values()))
        shape = (len(units.columns),)
        return tensor_data(splits, spec, shape=shape, task=self.task, record=record, distribution=units)

    def read(self) -> tuple[Tensor, Units, dict[str, Any]]:
        """Return the points in units, training points first, the units, and their record for `run.json`.

        The units are those of the run, or without a run those fitted on the training points.
        """
        found = points.read(self)
        parts = points.held_out(found, self)
        if self.run:
            units = Units.of(self.run)
        else:
            units = Units.fit(self.file, found.names, found.x[parts == 0], "in the training points")
        raw = found.x[:, [found.names.index(name) for name in units.columns]]
        if far := units.find_far(raw, "training points"):
            raise RequestError(f"{found.cells.where(far[0])}: {far[1]}")
        x = units.scaled(raw)
        warnings = [] if self.run else warn_degenerate(raw, x[parts == 0], units)
        for n, k, ratio in far_alone(raw):
            warnings.append(f"{Faults(found.cells).line(n)}: {say_alone(units.columns[k], float(raw[n, k]), ratio)}")
        sizes = {name: int((parts == part).sum()) for part, name in enumerate(PARTS)}
        warning = "\n".join(f"{self.file}: {text}" for text in warnings) or None
        record = data_record(self, sizes, sha256=found.cells.sha256, root=self.file, warning=warning)
        record |= {"content": found.digest(), **units.record(), "table": summary(found, raw, units)}
        if benchmark := point_benchmarks.find(self.file, len(raw), len(units.columns)):
            record["beside"] = benchmark
        return x[parts.argsort(stable=True)], units, record


def warn_degenerate(raw: Tensor, x: Tensor, units: Units) -> list[str]:
    """Return a warning for points without a density, for which a flow's likelihood grows without bound.

    raw, x  (N, D) all points in the data's units, and (M, D) the training points in the fitted units
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
            "and its likelihood grows with every training step. Add noise as large as its steps, or leave the column "
            "out: data.columns=[…]."
        )
    values, vectors = torch.linalg.eigh(x.T @ x / len(x))
    if values[0] < DEPENDENT * values[-1] and len(units.columns) > 1:
        named = [units.columns[n] for n in (vectors[:, 0].abs() > 1e-3).nonzero().flatten().tolist()]
        warnings.append(
            f"{brief(', '.join(named))} depend on each other linearly: points on a plane have no density. Leave one "
            "of them out: data.columns=[…]."
        )
    return warnings


def summary(found: Points, raw: Tensor, units: Units) -> list[str]:
    """Describe the file: its points, and mean ± sd, range and unit of each coordinate."""
    lines = [f"{len(raw):,} points in {len(units.columns)} dimension{'s' * (len(units.columns) != 1)}"]
    for name, column in list(zip(units.columns, raw.T))[:MAX_COLUMNS]:
        spread = found.cells.describe(name, float(column.mean()), float(column.std(correction=0)))
        lines.append(f"{spread}, {column.min():.4g} to {column.max():.4g}")
    if len(units.columns) > MAX_COLUMNS:
        lines.append(f"and {len(units.columns) - MAX_COLUMNS} more columns")
    left_out = [f"ignored, constant: {brief(', '.join(units.left_out))}"] if units.left_out else []
    return [*lines, *left_out, *found.notes]
