"""Divide the points of a table into training, validation and test, and long series into pieces."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from odenet_cli.data.common.checks import memory_lacking
from odenet_cli.data.common.table_faults import Faults
from odenet_cli.data.common.table_numbers import check_parts, read_parts
from odenet_cli.data.common.table_series import Table
from odenet_cli.data.common.units import Numbers, positions
from odenet_cli.errors import RequestError

if TYPE_CHECKING:
    from odenet_cli.data.table import Source


class Pieces(NamedTuple):
    """Hold the series of a batch, training series first.

    numbers  of the concatenated pieces
    points   (Q,) index of each of their points in the table
    names    of the series of each piece
    sizes    number of pieces in each split
    """

    numbers: Numbers
    points: Tensor
    names: list[str]
    sizes: list[int]


def parts_by_series(source: Source, count: int) -> Tensor:
    """Return the split of each of `count` series, (N,), with the last ones held out; for a run all may be held out."""
    validation, test = source.validation, source.test
    n_valid, n_test = max(1, round(validation * count)) if validation else 0, max(1, round(test * count))
    if source.run:
        n_valid = min(n_valid, count - n_test)
    elif count - n_valid - n_test < 1:
        raise RequestError(
            f"{source.file} has {count} series, and data.validation={validation} with data.test={test} leave no series "
            "to train on. Add series, hold out fewer, or hold out the end of each: data.split=time."
        )
    return torch.repeat_interleave(torch.tensor([count - n_valid - n_test, n_valid, n_test]))


def parts_by_time(table: Table, validation: float, test: float) -> Tensor:
    """Return the split of each point, (P,): the last points of every series for test, those before for validation."""
    counts = table.numbers.counts
    n_test = (test * counts).round().long().clamp_min(2)
    n_valid = (validation * counts).round().long().clamp_min(2) if validation else torch.zeros_like(counts)
    short = (counts - n_valid - n_test < 2).nonzero()
    if len(short):
        index = int(short[0])
        others = "Delete it, or hold out whole series: data.split=series"
        remedy = others if len(counts) > 1 else "Add points, or series"  # a single one cannot be held out
        raise table.fault(
            int(table.numbers.starts[index]),
            f"series {table.names[index]} has {int(counts[index])} points, too few for two in each split "
            f"({len(short)} such series). {remedy}.",
        )
    left = counts.repeat_interleave(counts) - table.numbers.places  # number of points of the series from this one on
    held_test, held = n_test.repeat_interleave(counts), (n_test + n_valid).repeat_interleave(counts)
    return torch.where(left <= held_test, 2, torch.where(left <= held, 1, 0))


def parts_by_words(table: Table, name: str) -> Tensor:
    """Return the split of each point, (P,), from a column of train, valid or test."""
    cells = table.cells
    if name not in cells.names:
        raise RequestError(
            f"data.split={name}: it must be series, time, or a column with the values train, valid or test, and "
            f"{cells.paths[0]} has no column {name}."
        )
    faults = Faults(cells)
    codes = read_parts(cells, name, faults)
    faults.raise_all()
    parts = codes.to_torch()[table.rows]
    check_parts(cells, name, parts)
    return parts


def pieces(path: Path, table: Table, parts: Tensor, length: int | None, stride: int | None) -> Pieces:
    """Return the series split by split, each divided into pieces of `length` points, starting every `stride` points.

    A shorter series is one piece; if the pieces do not fit exactly, the last one ends with the series.
    """
    numbers = table.numbers
    series = torch.arange(len(numbers.counts)).repeat_interleave(numbers.counts)
    order = (parts * len(numbers.counts) + series).argsort(stable=True)
    groups, counts = torch.unique_consecutive((parts * len(numbers.counts) + series)[order], return_counts=True)
    starts, alone = counts.cumsum(0) - counts, (counts < 2).nonzero()
    if len(alone):
        point = int(order[int(starts[alone[0]])])
        name = table.names[int(series[point])]
        raise table.fault(point, f"series {name} has only this point in its split; at least two are needed.")
    owner = torch.arange(len(groups))
    if length is not None:
        step = stride or length
        number = ((counts - length).clamp_min(0) + step - 1) // step + 1
        if lacking := memory_lacking(40 * int(number.sum()) * length * numbers.values.shape[1]):
            raise RequestError(
                f"{path}: its pieces {lacking}. Raise data.stride={step}, or choose a shorter data.length."
            )
        owner = owner.repeat_interleave(number)
        offset = torch.minimum(positions(number) * step, (counts - length).clamp_min(0)[owner])
        starts, counts = starts[owner] + offset, counts[owner].clamp_max(length)
    points = order[starts.repeat_interleave(counts) + positions(counts)]
    which = groups[owner]
    sizes = torch.bincount(which // len(numbers.counts), minlength=3).tolist()
    return Pieces(
        Numbers(numbers.times[points], numbers.values[points], counts),
        points,
        [table.names[k] for k in (which % len(numbers.counts)).tolist()],
        sizes,
    )
