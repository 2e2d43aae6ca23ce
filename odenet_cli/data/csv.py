"""A user's own series: `data=csv data.path=FILE`, with the columns series, time, values…, in any order of rows.

The first line names the columns, in any order: `series` (or `id`), `time` (or `t`), and whatever else is a value.
Series may be irregular and of different lengths. Of each, the first `window` of its points are what a model sees, the
others are to be predicted. Which series are held out follows from their names alone. Time begins at 0 with each series,
and its unit is chosen so that the longest lasts `span`; values have mean 0 and standard deviation 1 over what is seen
of the training series. `run.json` has these units; errors are in units of the standard deviation.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from odenet_cli.data._dealt import dealt, parted
from odenet_cli.data._resident import Data, Deal
from odenet_cli.data._rows import LARGEST, Point, columns, content, fault, series
from odenet_cli.data._series import FURTHER, PADDING, WINDOW, Series
from odenet_cli.errors import RequestError

FAR = 1e15  # standard deviations: errors squared stay finite in float32


@dataclass(frozen=True, kw_only=True)
class Source:
    """Options of `data=csv`.

    path              of the file
    window            share of the points of each series that are seen, at least one; at 1.0 none is left to predict
    validation, test  shares of the series that are held out
    span              how long the longest series lasts, in the model's time
    """

    classes: ClassVar = 0
    task: ClassVar = "series"

    path: str | None = None
    window: float = 0.5
    validation: float = 0.15
    test: float = 0.15
    span: float = 5.0

    def __post_init__(self) -> None:
        if not (self.path or "").strip():
            raise RequestError(
                "data.path is missing: data=csv data.path=FILE, a table of comma-separated values whose first line "
                "names its columns: series, time, values …."
            )
        for key in ("window", "validation", "test"):
            low, high = (0 if key == "validation" else 1e-9), (1 if key == "window" else 0.9)
            if not low <= getattr(self, key) <= high:
                raise RequestError(f"data.{key}={getattr(self, key)} is out of range; it is a share, up to {high}.")
        if not 0 < self.span < 1e6:
            raise RequestError(f"data.span={self.span} must be above 0; usual are 1 to 10.")

    @property
    def file(self) -> Path:
        return Path(os.path.abspath(os.path.expanduser(str(self.path))))

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(columns(self.file)) - 2,)

    def prepare(self) -> dict[str, Any]:
        return self._read()[1]

    def load(self, deal: Deal) -> Data:
        rows, record = self._read()
        splits = parted(rows, list(record["sizes"].values()))
        return dealt(splits, deal, shape=self.shape, task=self.task, record=record)

    def _read(self) -> tuple[Series, dict[str, Any]]:
        """All series, those to train on first, and what `run.json` says of them."""
        found = series(self.file)
        names = sorted(found, key=lambda name: hashlib.blake2b(name.encode()).digest())
        valid, test = (round(share * len(names)) for share in (self.validation, self.test))
        valid, test = (max(1, valid) if self.validation else 0), max(1, test)
        sizes = {"train": len(names) - valid - test, "valid": valid, "test": test}
        if sizes["train"] < 1:
            raise RequestError(
                f"{self.file} has {len(names)} series, and data.validation={self.validation} with "
                f"data.test={self.test} leave none to train on. Add series, or hold out fewer."
            )
        ordered = [found[name] for name in names]
        header = columns(self.file)
        unit = self._unit(ordered, header[1])
        rows = padded(ordered, self.window, unit)
        scaled, mean, spread = self._scaled(rows, sizes["train"], ordered, header[2:])
        record = {
            "used": "csv",
            "sha256": hashlib.sha256(content(self.file)).hexdigest(),
            "root": str(self.file),
            "sizes": sizes,
            "warning": None,
            "columns": header,
            "time_unit": unit,
            "mean": mean.tolist(),
            "standard_deviation": spread.tolist(),
        }
        return scaled, record

    def _unit(self, ordered: list[list[Point]], name: str) -> float:
        """Of time, in the table's: the longest series lasts `span`."""
        lasting = [points[-1].time - points[0].time for points in ordered]
        longest = max(lasting)
        unit, line = longest / self.span, ordered[lasting.index(longest)][-1].line
        if not 1 / LARGEST <= unit <= LARGEST:
            raise fault(
                self.file,
                line,
                f"the longest series ends here and lasts {longest:g}, which makes {unit:g} the unit of {name} for "
                f"data.span={self.span:g}. Rescale {name}, or set data.span near 5.",
            )
        return unit

    def _scaled(
        self, rows: Series, train: int, ordered: list[list[Point]], names: list[str]
    ) -> tuple[Series, torch.Tensor, torch.Tensor]:
        """Values in units of what is seen of the first `train` series, padding 0; its mean, its standard deviation."""
        known = rows.values[:train][rows.seen[:train]]
        mean, spread = known.mean(0), known.std(0, unbiased=False)
        spread = torch.where(spread > 0, spread, 1.0)
        noisy = torch.where((rows.scope == PADDING)[..., None], 0.0, (rows.noisy - mean) / spread)
        far = (noisy.abs() > FAR).nonzero()
        if len(far):
            row, place, column = far[0].tolist()
            point = ordered[row][place]
            raise fault(
                self.file,
                point.line,
                f"{names[column]}={point.values[column]:g} is beyond {FAR:g} standard deviations ({spread[column]:g}) "
                f"from the mean {mean[column]:g} of the training series. Correct it, or take it out.",
            )
        return rows._replace(values=noisy[:, : rows.values.shape[1]], noisy=noisy), mean, spread


def padded(ordered: list[list[Point]], window: float, unit: float) -> Series:
    """Series of different lengths side by side, in float64."""
    counts = torch.tensor([len(points) for points in ordered])
    seen_counts = (window * counts).floor().long().clamp_min(1)
    place = torch.arange(int(counts.max()))
    there, seen = place < counts[:, None], place < seen_counts[:, None]
    features = len(ordered[0][0].values)
    at = torch.zeros(there.shape, dtype=torch.float64)
    noisy = torch.zeros(*there.shape, features, dtype=torch.float64)
    at[there] = torch.tensor(
        [(p.time - points[0].time) / unit for points in ordered for p in points], dtype=torch.float64
    )
    noisy[there] = torch.tensor([p.values for points in ordered for p in points], dtype=torch.float64)
    scope = torch.where(seen, WINDOW, FURTHER).where(there, 0).to(torch.uint8)
    longest = int(seen_counts.max())
    times, values, kept = at[:, :longest], noisy[:, :longest], seen[:, :longest]
    return Series(times, values, kept, at, noisy, noisy[..., :0], scope)
