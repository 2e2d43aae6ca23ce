"""Units that the numbers of a table of series are measured in. They belong to the run that was trained in them.

They are fitted once, on the series to train on, and kept in `run.json`; whatever the run is shown later, another file
too, is measured in them, its columns taken by name.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from odenet_cli.errors import RequestError

KEYS = ("columns", "time_unit", "mean", "standard_deviation")  # of the record
ROUNDING = 32 * torch.finfo(torch.float64).eps
OTHER_UNIT = 100.0  # a series so many times as long, or as large, as others is taken to be in another unit
MAX_NAMES = 3


class Units(NamedTuple):
    """Hold the columns that are used, in their order, and what they and the time are measured in.

    left_out  columns that were constant where they are seen, and have no unit
    time      of the model, in the table's
    mean, sd  (D,) over what is seen of the series to train on
    """

    columns: list[str]
    left_out: list[str]
    time: float
    mean: Tensor
    sd: Tensor

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Units:
        """Return the units in a run's record of its data; raise RequestError for what no run writes there."""
        columns, left_out = record["columns"], record.get("left_out", [])  # a run may be from before columns were
        for key, names in (("columns", columns), ("left_out", left_out)):
            if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
                raise damaged(key, names)
        numbers = {"time_unit": [record["time_unit"]], **{key: record[key] for key in ("mean", "standard_deviation")}}
        for key, values in numbers.items():
            count = 1 if key == "time_unit" else len(columns) - 2
            plain = isinstance(values, list) and len(values) == count and all(type(x) in (int, float) for x in values)
            if not plain or not all(math.isfinite(x) and (key == "mean" or x > 0) for x in values):
                raise damaged(key, record[key])
        mean, sd = (torch.tensor(numbers[key], dtype=torch.float64) for key in ("mean", "standard_deviation"))
        return cls(columns[2:], left_out, float(record["time_unit"]), mean, sd)

    def record(self, header: Sequence[str]) -> dict[str, Any]:
        """Return what `run.json` keeps of the units; `header` names the columns of series and time."""
        return {
            "columns": [*header[:2], *self.columns],
            "left_out": self.left_out,
            "time_unit": self.time,
            "mean": self.mean.tolist(),
            "standard_deviation": self.sd.tolist(),
        }

    def check_columns(self, path: Path, header: Sequence[str]) -> None:
        """Raise `RequestError` unless the columns of the file at `path` are those that the run knows, in any order."""
        values = header[2:]
        missing = [name for name in self.columns if name not in values]
        extra = [name for name in values if name not in (*self.columns, *self.left_out)]
        if missing or extra:
            faults = [
                f"{what}: {', '.join(names)}" for what, names in (("missing", missing), ("extra", extra)) if names
            ]
            raise RequestError(
                f"{path}, line 1: its columns are not those that the run was trained on, {', '.join(self.columns)}; "
                f"{'; '.join(faults)}. Rename, add or take out columns; any order will do."
            )


class Numbers(NamedTuple):
    """Hold the numbers of series of different lengths, one behind the other, in float64.

    times   (P,)
    values  (P, D)  NaN: missing
    counts  (N,) points of each series
    """

    times: Tensor
    values: Tensor
    counts: Tensor

    @property
    def starts(self) -> Tensor:
        """Index at which each series begins, (N,)."""
        return self.counts.cumsum(0) - self.counts

    @property
    def ends(self) -> Tensor:
        """Index of the last point of each series, (N,)."""
        return self.counts.cumsum(0) - 1

    @property
    def durations(self) -> Tensor:
        """Duration of each series, (N,)."""
        return self.times[self.ends] - self.times[self.starts]

    @property
    def places(self) -> Tensor:
        """Index of each point in its series, (P,)."""
        return torch.arange(len(self.times)) - self.starts.repeat_interleave(self.counts)

    def means(self, x: Tensor) -> Tensor:
        """Return the mean of what is not missing of x over each series, (P, D) -> (N, D); 0 where all is."""
        series = torch.arange(len(self.counts)).repeat_interleave(self.counts)
        sums, counts = (
            part.new_zeros(len(self.counts), x.shape[1]).index_add(0, series, part)
            for part in (x.nan_to_num(), (~x.isnan()).to(x))
        )
        return sums / counts.clamp_min(1)

    def in_window(self, window: float) -> Tensor:
        """Return which points lie in the first `window` of their series, at least one of each, (P,)."""
        return self.places < (window * self.counts).floor().long().clamp_min(1).repeat_interleave(self.counts)

    def digest(self, columns: Sequence[str], series: Sequence[str]) -> str:
        """Return a SHA-256 of numbers and names, the same for any order of the columns."""
        order = sorted(range(len(columns)), key=columns.__getitem__)
        digest = hashlib.sha256(repr(([columns[k] for k in order], series, self.counts.tolist())).encode())
        for part in (self.times, self.values[:, order].contiguous()):
            digest.update(part.numpy().tobytes())
        return digest.hexdigest()


def fit_units(
    path: Path, names: Sequence[str], time: float, values: Tensor, observed: Tensor
) -> tuple[Units, list[str]]:
    """Return the units in which the `observed` values have mean 0 and standard deviation 1, and what to warn of.

    values  (P, D) of the series to train on; observed (P,). Raises RequestError where no column has a unit.
    """
    is_constant = constant(values[observed]).tolist()
    left_out = [name for name, flat in zip(names, is_constant) if flat]
    where = "in what is seen of the series to train on"
    if all(is_constant):
        raise RequestError(
            f"{path}: every column is constant {where}: {', '.join(left_out)}. There is nothing to learn.\n"
            "  See more of each series (data.window), or measure something that moves."
        )
    values = values[:, [not flat for flat in is_constant]] if left_out else values
    known = values[observed]
    used = [name for name in names if name not in left_out]
    units = Units(used, left_out, time, *moments(known))
    warnings = []
    if left_out:
        warnings.append(f"{path}: constant {where}, and left out of model and scores: {_brief(left_out)}.")
    further = moments(values)[1] / units.sd
    if hardly := [name for name, ratio in zip(used, further.tolist()) if ratio > OTHER_UNIT]:
        warnings.append(
            f"{path}: {_brief(hardly)} hardly moves {where}, and more than {OTHER_UNIT:g} times as much after it. Its "
            "errors, in standard deviations of what is seen, will be large numbers."
        )
    return units, warnings


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of what is not missing of (N, D): (D,) each."""
    if not values.isnan().any():
        return values.mean(0), values.std(0, unbiased=False)
    known = [column[~column.isnan()] for column in values.T]
    return torch.stack([x.mean() for x in known]), torch.stack([x.std(unbiased=False) for x in known])


def constant(values: Tensor) -> Tensor:
    """Return which columns of (N, D) have no spread beyond the rounding of their numbers, or are missing: (D,)."""
    absent = values.isnan()
    low, high = values.where(~absent, torch.inf).amin(0), values.where(~absent, -torch.inf).amax(0)
    return absent.all(0) | (high - low <= ROUNDING * torch.maximum(low.abs(), high.abs()))


def warn_odd(path: Path, series: Sequence[str], numbers: Numbers, units: Units, span: float | None = None) -> list[str]:
    """Return a warning for the time, and one for each column, in which some series look like another unit.

    Those last more than OTHER_UNIT times as long as is usual or, in root mean square, lie as far away from the middle.

    numbers  whose columns are those of `units`
    span     of a run that was trained on another table: what is usual there counts; None: the median of these series
    """
    middle = units.mean if span else numbers.means(numbers.values).median(0).values
    away = numbers.means((numbers.values - middle).square()).sqrt()
    sizes = torch.cat((numbers.durations[:, None], away), 1)
    usual = sizes.median(0).values
    if span:
        usual = torch.cat((torch.tensor([units.time * span], dtype=torch.float64), units.sd))
    warnings = []
    for column, ratios, ordinary in zip(("the time", *units.columns), (sizes / usual).T.tolist(), usual.tolist()):
        odd = [(ratio, name) for ratio, name in zip(ratios, series) if OTHER_UNIT < ratio < math.inf]
        if odd:
            listed = _brief([f"{name} ({ratio:,.0f} times)" for ratio, name in sorted(odd, reverse=True)])
            whose = "what the run was trained on" if span else "the others, which hardly count beside it"
            warnings.append(
                f"{path}: {column} of series {listed} goes more than {OTHER_UNIT:g} times as far as is usual "
                f"({ordinary:g}) in {whose}. If it is in another unit, correct it, or take the series out."
            )
    return warnings


def _brief(words: Sequence[str]) -> str:
    more = len(words) - MAX_NAMES
    return ", ".join(words[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")


def damaged(key: str, value: Any) -> RequestError:
    """Return the error for a part of a run's record."""
    return RequestError(f"run.json: data.{key} is {value!r:.60}. Put back what the run wrote there.")
