"""Units of the numbers in a user's table of series or points. They belong to a run.

They are fitted once, on the training data, and stored in `run.json`. All data that the run sees later, including other
files, are measured in them, with columns matched by name.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from odenet_cli.data.common.faults import few
from odenet_cli.errors import RequestError

KEYS = ("columns", "mean", "standard_deviation")  # in the record
ROUNDING = 32 * torch.finfo(torch.float64).eps
MAX_DEVIATIONS = 1e15  # in standard deviations, whose squares stay finite in float32
SEEN = "in what is seen of the series to train on"
MAX_SHIFT = 5  # standard deviations between the mean in training and that of other data in the same unit
OTHER_UNIT = 100.0  # times as long or as large as others: a series is probably in another unit


class Units(NamedTuple):
    """Hold the columns used, in their order, and the units of them and of time.

    left_out  columns that were constant in the observed part, and have no unit
    mean, sd  (D,) over the observed part of the training series, or over the training points
    time      the model's unit of time, in that of the table; points have none
    """

    columns: list[str]
    left_out: list[str]
    mean: Tensor
    sd: Tensor
    time: float = 0.0

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> Units:
        """Return the units in a run's record of its data; raise RequestError if they are invalid."""
        columns, left_out = record["columns"], record.get("left_out", [])  # older runs did not omit columns
        for key, names in (("columns", columns), ("left_out", left_out)):
            if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
                raise damaged(key, names)
        timed = "time_unit" in record
        columns = columns[2 * timed :]
        numbers = {"time_unit": [record["time_unit"]]} if timed else {}
        numbers |= {key: record[key] for key in KEYS[1:]}
        for key, values in numbers.items():
            count = 1 if key == "time_unit" else len(columns)
            plain = isinstance(values, list) and len(values) == count and all(type(x) in (int, float) for x in values)
            if not plain or not all(math.isfinite(x) and (key == "mean" or x > 0) for x in values):
                raise damaged(key, record[key])
        mean, sd = (torch.tensor(record[key], dtype=torch.float64) for key in KEYS[1:])
        return cls(columns, left_out, mean, sd, float(record.get("time_unit", 0.0)))

    @classmethod
    def fit(
        cls, path: Path, names: Sequence[str], values: Tensor, where: str, time: float = 0.0, remedy: str = ""
    ) -> Units:
        """Return the units in which values (N, D) have mean 0 and standard deviation 1; constant columns have none.

        Raises RequestError if all columns are constant, stating `where`, and the `remedy`.
        """
        flat = constant(values)
        if bool(flat.all()):
            raise RequestError(
                f"{path}: every column is constant {where}: {', '.join(names)}. There is nothing to learn.{remedy}"
            )
        if bool(flat.any()):
            values = values[:, ~flat]
        left_out = [name for name, still in zip(names, flat.tolist()) if still]
        return cls([name for name in names if name not in left_out], left_out, *moments(values), time)

    def record(self, header: Sequence[str] = ()) -> dict[str, Any]:
        """Return the record of the units for `run.json`; `header` names the columns of series and time."""
        return {
            "columns": [*header, *self.columns],
            "left_out": self.left_out,
            **({"time_unit": self.time} if header else {}),
            "mean": self.mean.tolist(),
            "standard_deviation": self.sd.tolist(),
        }

    @property
    def log_scale(self) -> float:
        """log |det| of the map to the data's units, Σ log sd, to be subtracted from a log-density there."""
        return float(self.sd.log().sum())

    def scaled(self, values: Tensor) -> Tensor:
        """Return values (N, D) of the data in these units."""
        return (values - self.mean) / self.sd

    def restored(self, x: Tensor) -> Tensor:
        """Return x (N, D) in the units of the data, in float64."""
        return x.double().cpu() * self.sd + self.mean

    def find_far(self, values: Tensor, whose: str) -> tuple[int, str] | None:
        """Return the first row of values (N, D) with one too far from the mean, that of `whose`, and the message."""
        far = (self.scaled(values).abs() > MAX_DEVIATIONS).nonzero()
        if not len(far):
            return None
        row, column = far[0].tolist()
        return row, (
            f"{self.columns[column]}={values[row, column]:g} is more than {MAX_DEVIATIONS:g} standard deviations "
            f"({self.sd[column]:g}) from the mean {self.mean[column]:g} of the {whose}. Correct it, or delete it."
        )

    def check_columns(self, path: Path, values: Sequence[str]) -> None:
        """Raise RequestError unless the columns of the file at `path` are those of the run, in any order."""
        missing = [name for name in self.columns if name not in values]
        extra = [name for name in values if name not in (*self.columns, *self.left_out)]
        if missing or extra:
            faults = [
                f"{what}: {', '.join(names)}" for what, names in (("missing", missing), ("extra", extra)) if names
            ]
            raise RequestError(
                f"{path}, line 1: its columns are not those that the run was trained on, {', '.join(self.columns)}; "
                f"{'; '.join(faults)}. Rename, add or delete columns; their order does not matter."
            )


class Numbers(NamedTuple):
    """Hold the numbers of concatenated series of different lengths, in float64.

    times   (P,)
    values  (P, D)  NaN: missing
    counts  (N,) number of points of each series
    """

    times: Tensor
    values: Tensor
    counts: Tensor

    @property
    def starts(self) -> Tensor:
        """Index of the first point of each series, (N,)."""
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
        return positions(self.counts)

    def padded(self, x: Tensor, fill: float = 0.0) -> Tensor:
        """Arrange x, with a row for each point, (P, *S), series by series: (N, T, *S), padded with `fill`."""
        present = torch.arange(int(self.counts.max())) < self.counts[:, None]
        out = x.new_full((*present.shape, *x.shape[1:]), fill)
        out[present] = x
        return out

    def means(self, x: Tensor) -> Tensor:
        """Return the mean of the known values of x over each series, (P, D) -> (N, D); 0 if there are none."""
        series = torch.arange(len(self.counts)).repeat_interleave(self.counts)
        sums, counts = (
            part.new_zeros(len(self.counts), x.shape[1]).index_add(0, series, part)
            for part in (x.nan_to_num(), (~x.isnan()).to(x))
        )
        return sums / counts.clamp_min(1)

    def in_window(self, window: float) -> Tensor:
        """Return which points lie in the first share `window` of their series, at least one of each, (P,)."""
        return self.places < seen_counts(window, self.counts).repeat_interleave(self.counts)

    def digest(self, columns: Sequence[str], series: Sequence[str]) -> str:
        """Return a SHA-256 of numbers and names, independent of the order of the columns."""
        order = sorted(range(len(columns)), key=columns.__getitem__)
        digest = hashlib.sha256(repr(([columns[k] for k in order], series, self.counts.tolist())).encode())
        for part in (self.times, self.values[:, order].contiguous()):
            digest.update(part.numpy().tobytes())
        return digest.hexdigest()


def seen_counts(window: float, counts: Tensor) -> Tensor:
    """Return the number of points in the first share `window` of series with `counts` points, at least one."""
    # In float64, and such that 0.53 * 100 gives 53 in spite of rounding.
    return (window * counts.double() + 1e-9).long().clamp_min(1)


def positions(counts: Tensor) -> Tensor:
    """Return 0, 1, … for the members of each of the concatenated groups of these sizes."""
    return torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)


def fit_units(
    path: Path, names: Sequence[str], time: float, values: Tensor, observed: Tensor
) -> tuple[Units, list[str]]:
    """Return the units in which the `observed` values have mean 0 and standard deviation 1, and warnings.

    values  (P, D) of the training series; observed (P,). Raises RequestError if no column has a unit.
    """
    remedy = "\n  Raise the visible share of each series (data.window), or use data that vary."
    units, warnings = Units.fit(path, names, values[observed], SEEN, time, remedy), list[str]()
    if units.left_out:
        warnings.append(f"{path}: constant {SEEN}, and ignored by model and scores: {few(units.left_out)}.")
    return units, warnings


def warn_still(path: Path, values: Tensor, units: Units) -> list[str]:
    """Return a warning of columns of values (P, D) with a far larger spread than where their unit was fitted."""
    further = moments(values)[1] / units.sd
    hardly = [name for name, ratio in zip(units.columns, further.tolist()) if ratio > OTHER_UNIT]
    said = (
        f"{path}: {few(hardly)} hardly varies {SEEN}, and more than {OTHER_UNIT:g} times as much after it. Its errors, "
        "in standard deviations of what is seen, will be large numbers."
    )
    return [said] if hardly else []


def far_alone(values: Tensor) -> list[tuple[int, int, float]]:
    """Return row and column of each isolated value of (N, D), and its relative distance from the others.

    In a column of ten values or more, it is farther from the mean of the others than OTHER_UNIT times their standard
    deviation.
    """
    counts = (~values.isnan()).sum(0)
    enough = (counts >= 10).nonzero().flatten()
    if not len(enough):
        return []
    alone, some = [], values[:, enough]
    (mean, sd), (low, high) = moments(some), extremes(some)
    least = OTHER_UNIT / (1 + OTHER_UNIT**2 / counts[enough]).sqrt()  # distance in standard deviations of all values
    most = torch.maximum(high - mean, mean - low) / sd
    for n in enough[most > 0.9 * least].tolist():
        rows = (~values[:, n].isnan()).nonzero().flatten()
        x = values[rows, n]
        k = int((x - x.median()).abs().argmax())
        others = torch.cat((x[:k], x[k + 1 :]))
        ratio = float((x[k] - others.mean()).abs() / others.std(unbiased=False))
        if ratio > OTHER_UNIT and not bool(constant(others[:, None])):
            alone.append((int(rows[k]), n, ratio))
    return alone


def say_alone(name: str, value: float, ratio: float) -> str:
    """Return the warning of an isolated value."""
    return (
        f"{name}={value:g} is {ratio:,.3g} times as far from the mean of the others as they are, which hardly count "
        "beside it. If it is not a measurement, correct it or delete it."
    )


def moments(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the known values of (N, D): (D,) each."""
    if not values.isnan().any():
        return values.mean(0), values.std(0, unbiased=False)
    known = [column[~column.isnan()] for column in values.T]
    return torch.stack([x.mean() for x in known]), torch.stack([x.std(unbiased=False) for x in known])


def median(x: Tensor) -> float:
    """Return the median of x (N,), for even N the mean of the two middle values, of which torch returns the lower.

    Not torch.quantile, which accepts at most 16 million numbers.
    """
    ordered = x.sort().values
    return float(ordered[(len(x) - 1) // 2] + ordered[len(x) // 2]) / 2


def constant(values: Tensor) -> Tensor:
    """Return which columns of (N, D) are constant up to the rounding of their numbers, or missing: (D,)."""
    low, high = extremes(values)
    return (low > high) | (high - low <= ROUNDING * torch.maximum(low.abs(), high.abs()))


def extremes(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return minimum and maximum of each column of (N, D), ignoring NaN; inf and -inf if there are no numbers."""
    absent = values.isnan()
    return values.where(~absent, torch.inf).amin(0), values.where(~absent, -torch.inf).amax(0)


def warn_odd(path: Path, series: Sequence[str], numbers: Numbers, units: Units, span: float | None = None) -> list[str]:
    """Return a warning for time and for each column in which some series seem to be in another unit.

    Such series last more than OTHER_UNIT times as long as usual, or their root mean square distance from the centre is
    larger than usual by this factor.

    numbers  with the columns of `units`
    span     of a run trained on another table, which defines what is usual; None: the median of these series
    """
    # Of two series torch's median, the lower, is one of them, to which the other is compared, not to their mean.
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
            listed = few([f"{name} ({ratio:,.0f} times)" for ratio, name in sorted(odd, reverse=True)])
            whose = "what the run was trained on" if span else "the others, which hardly count beside it"
            warnings.append(
                f"{path}: {column} of series {listed} goes more than {OTHER_UNIT:g} times as far as is usual "
                f"({ordinary:g}) in {whose}. If it is in another unit, correct it, or delete the series."
            )
    return warnings


def damaged(key: str, value: Any) -> RequestError:
    """Return the error for an invalid item of a run's record."""
    return RequestError(f"run.json: data.{key} is {value!r:.60}. Restore what the run wrote.")
