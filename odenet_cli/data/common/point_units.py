"""The units of points: a run's coordinates by name, each measured from its mean in standard deviations."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from odenet_cli.data.common.units import constant, damaged, moments
from odenet_cli.errors import RequestError

KEYS = ("columns", "mean", "standard_deviation")  # of the record


class PointUnits(NamedTuple):
    """Hold the coordinates that are used, in their order, and what they are measured in.

    left_out  columns that were constant in the points to train on, and have no unit
    mean, sd  (D,) of the points to train on
    """

    columns: list[str]
    left_out: list[str]
    mean: Tensor
    sd: Tensor

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> PointUnits:
        """Return the units in a run's record of its data; raise RequestError for what no run writes there."""
        columns, left_out = record["columns"], record.get("left_out", [])
        for key, names in (("columns", columns), ("left_out", left_out)):
            if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
                raise damaged(key, names)
        for key in KEYS[1:]:
            numbers = record[key]
            plain = isinstance(numbers, list) and len(numbers) == len(columns) > 0
            if not plain or not all(type(x) in (int, float) and math.isfinite(x) for x in numbers):
                raise damaged(key, numbers)
            if key == "standard_deviation" and min(numbers) <= 0:
                raise damaged(key, numbers)
        mean, sd = (torch.tensor(record[key], dtype=torch.float64) for key in KEYS[1:])
        return cls(columns, left_out, mean, sd)

    @classmethod
    def fit(cls, names: list[str], points: Tensor) -> PointUnits:
        """Return the units in which points (N, D) have mean 0 and standard deviation 1; constant columns have none."""
        flat = constant(points)
        if bool(flat.all()):
            raise RequestError(
                f"every column is constant in the points to train on: {', '.join(names)}. There is nothing to learn."
            )
        kept = [name for name, still in zip(names, flat.tolist()) if not still]
        return cls(kept, [name for name in names if name not in kept], *moments(points[:, ~flat]))

    def record(self) -> dict[str, Any]:
        """Return what `run.json` keeps of the units."""
        return {
            "columns": self.columns,
            "left_out": self.left_out,
            "mean": self.mean.tolist(),
            "standard_deviation": self.sd.tolist(),
        }

    @property
    def log_scale(self) -> float:
        """log |det| of the map to the data's units, Σ log sd: by so much a log-density is smaller there."""
        return float(self.sd.log().sum())

    def scaled(self, points: Tensor) -> Tensor:
        """Return points (N, D) of the data in these units."""
        return (points - self.mean) / self.sd

    def restored(self, x: Tensor) -> Tensor:
        """Return points x (N, D) as the data have them, in float64."""
        return x.double().cpu() * self.sd + self.mean
