"""Columns of a table that are known at all times, including future ones: controls and static columns.

Static columns are controls that are constant in a series, so that a network reads both alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import polars as pl
import torch
from torch import Tensor

from odenet_cli.data.common.control import coefficients
from odenet_cli.data.common.numerals import TRUTH
from odenet_cli.data.common.table_cells import brief
from odenet_cli.data.common.units import MAX_SHIFT, Numbers, constant, damaged, moments
from odenet_cli.errors import RequestError

if TYPE_CHECKING:
    from odenet_cli.data.common.table_faults import Faults
    from odenet_cli.data.table import Source

INTERPOLATIONS = ("linear", "hermite", "step")
FILLS = ("refuse", "interpolate")
Scale = Mapping[str, tuple[float, float]]  # mean and standard deviation of each control


class Controls(NamedTuple):
    """Hold the controls of each series at each of its rows, including rows without a value.

    columns  the controls, then the static columns
    static   number of static columns
    numbers  (R,) times, (R, C) values, (N,) rows of each series
    rows     (P,) index of each point's row
    ends     (N, C) the last time at which each was given
    filled   number of filled missing cells of each column
    """

    columns: list[str]
    static: int
    numbers: Numbers
    rows: Tensor
    ends: Tensor
    filled: list[int]


def indicators(
    column: pl.Series, name: str, absent: pl.Series, kept: Sequence[str], faults: Faults
) -> dict[str, pl.Series]:
    """Return for each word of a column an indicator column of 0 and 1, `name=word`.

    absent  missing cells; `kept` are the columns of the run for which the table is read
    """
    text = column.cast(pl.String).str.strip_chars().set(absent, None)
    words = [key.removeprefix(f"{name}=") for key in kept] or sorted(text.drop_nulls().unique())
    text = spelled_as(text, words)
    known = f"is not among the values the run was trained on: {brief(', '.join(words))}"
    faults.add((~text.is_in(words)).fill_null(False), lambda row: f"{name}={text[row]!r} {known}", "Correct it.")
    return {f"{name}={word}": (text == word).cast(pl.Float64) for word in words}


def spelled_as(text: pl.Series, words: Sequence[str]) -> pl.Series:
    """Return a column with true and false spelled as in `words`: programs write true, True and TRUE."""
    for word in words:
        if word.lower() in TRUTH:
            text = text.replace(
                [form for form in (word.lower(), word.title(), word.upper()) if form not in words], word
            )
    return text


def complete(
    rows: pl.DataFrame, every: pl.DataFrame, names: Sequence[str], static: int, source: Source, faults: Faults
) -> tuple[pl.DataFrame, list[int]]:
    """Return the rows, by series and time, with all cells of the controls "c0", "c1", … filled, and the numbers filled.

    every   all rows with a series and a time, also without value and control; static columns are read from them
    static  number of static `names`, which are the last ones
    """
    keys = [f"c{n}" for n in range(len(names))]
    changing, fixed = keys[: len(keys) - static], keys[len(keys) - static :]
    missing = [rows[key].null_count() for key in changing]
    for name, key, count in zip(names, changing, missing):
        if count and source.fill != "interpolate":
            told = pl.col("row").is_in([*faults.rows])  # not a number
            faults.add(
                rows.filter(pl.col(key).is_null(), ~told)["row"].sort(),
                f"{name} is missing; a control must be known at all times",
                "Fill it in, or interpolate from the neighbouring rows: data.fill=interpolate.",
            )
        empty = rows.group_by("name", maintain_order=True).agg(pl.col("row").first(), pl.col(key).is_null().all())
        _report_empty(empty.filter(pl.col(key)), name, faults)
    if sum(missing) and not faults.kinds:
        # As in torchcde, missing values are interpolated linearly for cubic pieces too.
        column = pl.col(changing)
        inner = column if source.kind == "step" else column.interpolate_by("time")
        rows = rows.with_columns(inner.over("code"))
        rows = rows.with_columns(pl.col(changing).forward_fill().over("code"))
        rows = rows.with_columns(pl.col(changing).backward_fill().over("code"))
    for name, key in zip(names[len(changing) :], fixed):
        rows = rows.drop(key).join(_constants(every, name, key, faults), on="name", how="left", maintain_order="left")
    return rows, [*missing, *[0] * static]


def _constants(every: pl.DataFrame, name: str, key: str, faults: Faults) -> pl.DataFrame:
    """Return the value of a static column for each series; it may be given in only one row."""
    given = every.filter(pl.col(key).is_not_null()).sort("row")
    first = given.group_by("name", maintain_order=True).agg(pl.col(key, "row").first())
    both = given.join(first, on="name", how="left", suffix="_first").filter(pl.col(key) != pl.col(f"{key}_first"))
    if len(both):
        one, shown = both.sort("row").row(0, named=True), name.partition("=")[0]
        # `name=word` is 1 if the cell is this word
        values = "" if shown != name else f" ({one[key]:g} after {one[f'{key}_first']:g})"
        faults.add(
            both["row"].sort(),
            f"{shown} of series {one['name']} differs from that in {faults.line(one['row_first'])}{values}; a static "
            "column is constant in a series",
            f"Correct it, or make it a control, which may vary: data.controls=[{shown}].",
        )
    series = every.group_by("name", maintain_order=True).agg(pl.col("row").first())
    _report_empty(series.join(first, on="name", how="anti"), name, faults)
    return first.select("name", key)


def _report_empty(series: pl.DataFrame, name: str, faults: Faults) -> None:
    """Add as a fault the series for which a column is not given at all."""
    shown = name.partition("=")[0]
    faults.add(
        series["row"],
        lambda _: f"series {series['name'][0]} has no {shown} in any row",
        "Fill it in, or delete the series.",
    )


def table_controls(
    rows: pl.DataFrame, given: pl.DataFrame, is_point: pl.Series, names: list[str], static: int, filled: list[int]
) -> Controls:
    """Return the controls of complete rows.

    given     the same rows before filling
    is_point  which of them have a value
    """
    keys, changing = [f"c{n}" for n in range(len(names))], len(names) - static
    counts = rows.group_by("code", maintain_order=True).len()["len"].cast(pl.Int64)
    last = given.group_by("code", maintain_order=True).agg(
        pl.col("time").filter(pl.col(key).is_not_null()).max().alias(key) for key in keys[:changing]
    )
    ends = torch.full((len(counts), len(keys)), math.inf, dtype=torch.float64)
    if changing:
        ends[:, :changing] = last.select(keys[:changing]).to_torch()
    numbers = Numbers(rows["time"].to_torch(), rows.select(keys).to_torch(), counts.to_torch())
    return Controls(names, static, numbers, is_point.arg_true().cast(pl.Int64).to_torch(), ends, filled)


def fit_scale(path: Path, controls: Controls, first: Tensor, last: Tensor) -> tuple[Scale, list[str]]:
    """Return mean and standard deviation of each control in the training pieces, and warnings.

    first, last  (B,) rows between which each piece lies
    """
    within = torch.zeros(len(controls.numbers.times) + 1, dtype=torch.int64)
    within.index_add_(0, first, torch.ones_like(first)).index_add_(0, last + 1, -torch.ones_like(last))
    values, warnings = controls.numbers.values[within.cumsum(0)[:-1] > 0], list[str]()
    mean, sd = moments(values)
    flat = constant(values).tolist()
    for n, name in enumerate(controls.columns):
        if flat[n] and "=" in name:
            sd[n] = 1.0  # a word that occurs only in held-out series
            warnings.append(f"{path}: {name} is the same in all training series, so nothing can be learned from it.")
        elif flat[n]:
            raise RequestError(
                f"{path}: {name} is {float(mean[n]):g} throughout the training series, so nothing can be learned from "
                f"it. Remove it from data.{'static' if n >= len(flat) - controls.static else 'controls'}."
            )
    return dict(zip(controls.columns, zip(mean.tolist(), sd.tolist()))), warnings


def warn_shifted(path: Path, controls: Controls, scale: Scale) -> list[str]:
    """Return a warning of controls whose mean is so far from that in training that the unit may be another."""
    here, odd = moments(controls.numbers.values)[0].tolist(), list[str]()
    for name, x in zip(controls.columns, here):
        mean, sd = scale[name]
        if "=" not in name and abs(x - mean) > MAX_SHIFT * sd:
            odd.append(f"{name} ({x:.4g}; there {mean:.4g} ± {sd:.3g})")
    said = (
        f"{path}: means more than {MAX_SHIFT} standard deviations from those of the training series: "
        f"{brief(', '.join(odd))}. If the unit is another, convert it."
    )
    return [said] if odd else []


def scale_of(record: Mapping[str, Any]) -> Scale:
    """Return the scale in a run's record; raise RequestError if it is invalid."""
    scale = record.get("controls", {})
    pairs = list(scale.values()) if isinstance(scale, dict) else [None]
    if not all(
        isinstance(pair, (list, tuple))
        and len(pair) == 2
        and all(type(x) in (int, float) and math.isfinite(x) for x in pair)
        and pair[1] > 0
        for pair in pairs
    ):
        raise damaged("controls", scale)
    return {name: (float(mean), float(sd)) for name, (mean, sd) in scale.items()}


def check_known(path: Path, controls: Controls | None, scale: Scale) -> None:
    """Raise RequestError unless the table has the controls of a run's training."""
    columns = controls.columns if controls else []
    if sorted(columns) != sorted(scale):
        raise RequestError(
            f"{path}: its controls and static columns are {', '.join(columns) or 'none'}, but the run was trained with "
            f"{', '.join(scale) or 'none'}. Use the same data.controls and data.static as the run."
        )


def pieces_of(
    controls: Controls, scale: Scale, kind: str, unit: float, first: Tensor, last: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the controls of pieces as padded polynomials: times (B, K), from 0, and coefficients (B, K, O, C).

    first, last  (B,) rows between which each piece lies
    unit         of time
    """
    numbers = controls.numbers
    order = [controls.columns.index(name) for name in scale]
    mean, sd = torch.tensor(list(scale.values()), dtype=torch.float64).T
    values = (numbers.values[:, order] - mean) / sd
    parts = coefficients(numbers.times / unit, values, numbers.counts, kind)
    steps = torch.arange(int((last - first).max()) + 1)
    rows = torch.minimum(first[:, None] + steps, last[:, None])
    ended = steps >= (last - first)[:, None]
    chosen = parts[rows]
    chosen[:, :, 1:] = chosen[:, :, 1:].where(~ended[..., None, None], 0.0)  # constant after the last row
    return (numbers.times[rows] - numbers.times[first][:, None]) / unit, chosen
