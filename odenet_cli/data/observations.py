"""Time series for `model=fit`: `data=table` with every point of every series, in the table's own times and units.

One batch contains all series. Nothing is scaled and no series is held out, but the end of each may be (`test`). Dates
are times since 1970 in `unit`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from odenet_cli.data import table
from odenet_cli.data.common.checks import check_choice
from odenet_cli.data.common.splits import BatchSpec, Data, TensorSplit, data_record
from odenet_cli.data.common.table_series import Table
from odenet_cli.data.common.table_summary import summary
from odenet_cli.errors import RequestError

SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "week": 604800.0, "year": 31557600.0}
UNUSED: dict[str, Any] = {
    **dict.fromkeys(("split", "length", "stride", "controls", "static", "interpolation", "fill")),
    **{"window": 0.5, "span": 5.0},
}


class Observations(NamedTuple):
    """Name the tensors of a batch, a plain tuple in this order.

    series    (B,)       index of each series in the table
    begins    (B,)       time of its first point, in the table's times
    lasts     (B,)       duration from there to its last point
    times     (B, T)     of its points as fractions of this duration, increasing from 0 to 1; padding at 1
    values    (B, T, C)  observed values; NaN: missing, and padding
    held_out  (B, T)     True for points that are not fitted
    """

    series: Tensor
    begins: Tensor
    lasts: Tensor
    times: Tensor
    values: Tensor
    held_out: Tensor


@dataclass(frozen=True, kw_only=True)
class Source(table.Source):
    """Options of `data=observations`: those of `data=table` for reading it, and two of its own."""

    task: ClassVar = "fit"
    UNITS: ClassVar[tuple[str, ...]] = ("columns", "time_unit", "series")
    LEAST_TEST: ClassVar = 0.0

    unit: str | None = None
    validation: float = 0.0
    test: float = 0.0

    def __post_init__(self) -> None:
        for key, default in UNUSED.items():
            if getattr(self, key) not in (None, default):
                raise RequestError(
                    f"data.{key}={getattr(self, key)} has no meaning for model=fit, to which all points of a series "
                    "are one path; leave it out. To hold out the end of each series: data.test=0.2."
                )
        if self.validation:
            raise RequestError(f"data.validation={self.validation}: a fit does not use validation data; use data.test.")
        check_choice("unit", self.unit, [*SECONDS])
        super().__post_init__()

    @property
    def shape(self) -> tuple[int, ...]:
        return input_shape(self.run or self.prepare())

    def check_record(self, record: Mapping[str, Any]) -> None:
        """Accept any record, since `load` compares it with the table."""

    def prepare(self) -> dict[str, Any]:
        return self._record(self.table())

    def load(self, spec: BatchSpec) -> Data:
        read = self.table()
        record, run = self._record(read), self.run
        if run and record["content"] != run.get("content"):
            raise RequestError(
                f"{self.file} is not the table to which the run was fitted; its series have other initial values.\n"
                "  Fit it: odenet train model=fit …, with the run's parameters as +model.start.NAME=… if you like."
            )
        rows = self.rows(read, record["time_unit"])
        on_device = tuple(row.to(spec.device, spec.dtype if row.is_floating_point() else None) for row in rows)
        whole = TensorSplit(rows=on_device, batch_size=len(rows.series))
        none = TensorSplit(rows=tuple(row[:0] for row in on_device), batch_size=1)
        return Data(
            train=whole, valid=none, test=whole, shape=input_shape(record), classes=0, task=self.task, record=record
        )

    def rows(self, read: Table, unit: float) -> Observations:
        """Return the padded series of a table, with times in `unit`."""
        numbers = read.numbers
        begins, lasts = numbers.times[numbers.starts] / unit, numbers.durations / unit
        of_point = torch.arange(len(numbers.counts)).repeat_interleave(numbers.counts)
        times = numbers.padded((numbers.times / unit - begins[of_point]) / lasts[of_point], 1.0)
        fitted = (numbers.counts - (self.test * numbers.counts).round()).long()
        held_out = torch.arange(times.shape[1]) >= fitted[:, None]
        values = numbers.padded(numbers.values, torch.nan)
        return Observations(torch.arange(len(begins)), begins, lasts, times, values, held_out)

    def _record(self, read: Table) -> dict[str, Any]:
        """Return the record of the table for `run.json`."""
        if self.unit is not None and not read.dates:
            raise RequestError(
                f"data.unit={self.unit} only applies to dates, and the times of {self.file} are numbers."
            )
        unit = SECONDS[self.unit or ("d" if read.dates == "date" else "h")] if read.dates else 1.0
        absent = [name for name, column in zip(read.columns, read.numbers.values.T) if bool(column.isnan().all())]
        if absent:
            raise RequestError(f"{self.file}: no row has a value of {', '.join(absent)}.")
        count = len(read.names)
        record = data_record(self, {"train": count}, sha256=read.cells.sha256, root=self.file) | {"used": "table"}
        columns = [*read.header, *read.columns]
        record |= {"columns": columns, "time_unit": unit, "series": read.names, "left_out": read.left_out}
        record |= {"dates": read.dates} if read.dates else {}
        return record | {"content": read.digest(), "table": summary(read, read.columns, read.left_out, self.kind)}


def input_shape(record: Mapping[str, Any]) -> tuple[int, ...]:
    """Return (S, C): series, and columns of values."""
    return len(record["series"]), len(record["columns"]) - 2
