"""Which points of a table are for training, validation and test, and the pieces that long series are cut into."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import polars as pl
import torch
from torch import Tensor

from odenet_cli.data.common.table_series import Table
from odenet_cli.data.common.units import Numbers
from odenet_cli.errors import RequestError

PARTS = ("train", "valid", "test")
WORDS = {"train": 0, "training": 0, "valid": 1, "validation": 1, "val": 1, "dev": 1, "test": 2}
GIB = 2**30


class Pieces(NamedTuple):
    """Hold the series of a batch, those to train on first.

    numbers  of the pieces, one behind the other
    points   (Q,) index of each of their points in the table
    names    of the series that each piece is of
    sizes    pieces of each part
    """

    numbers: Numbers
    points: Tensor
    names: list[str]
    sizes: list[int]


def parts_by_series(path: Path, count: int, validation: float, test: float, *, held: bool) -> Tensor:
    """Return the part of each of `count` series, (N,), the last of them held out.

    held  for scoring only: none is needed to train on
    """
    n_valid, n_test = (round(share * count) for share in (validation, test))
    n_valid, n_test = (max(1, n_valid) if validation else 0), max(1, n_test)
    if held:
        n_valid = min(n_valid, count - n_test)
    elif count - n_valid - n_test < 1:
        raise RequestError(
            f"{path} has {count} series, and data.validation={validation} with data.test={test} leave none to train "
            "on. Add series, hold out fewer, or hold out the end of each: data.split=time."
        )
    return torch.repeat_interleave(torch.tensor([count - n_valid - n_test, n_valid, n_test]))


def parts_by_time(path: Path, table: Table, validation: float, test: float) -> Tensor:
    """Return the part of each point, (P,): the last points of every series are for the test, those before to choose."""
    counts = table.numbers.counts
    n_test = (test * counts).round().long().clamp_min(2)
    n_valid = (validation * counts).round().long().clamp_min(2) if validation else torch.zeros_like(counts)
    short = (counts - n_valid - n_test < 2).nonzero()
    if len(short):
        index = int(short[0])
        raise table.fault(
            int(table.numbers.starts[index]),
            f"series {table.names[index]} has {int(counts[index])} points, too few for two in each split "
            f"({len(short)} such series). Take it out, or hold out whole series: data.split=series.",
        )
    left = counts.repeat_interleave(counts) - table.numbers.places  # points of the series from this one on
    held_test, held = n_test.repeat_interleave(counts), (n_test + n_valid).repeat_interleave(counts)
    return torch.where(left <= held_test, 2, torch.where(left <= held, 1, 0))


def parts_by_words(table: Table, name: str) -> Tensor:
    """Return the part of each point, (P,), as a column says it: train, valid or test."""
    cells = table.cells
    if name not in cells.names:
        raise RequestError(
            f"data.split={name}: it is series, time, or a column that says train, valid or test, and {cells.paths[0]} "
            f"has no column {name}."
        )
    words = cells.frame[name].cast(pl.String).str.strip_chars().str.to_lowercase()
    codes = words.replace_strict(WORDS, default=None, return_dtype=pl.Int64)
    if codes.null_count():
        row = int(codes.is_null().arg_true()[0])
        raise RequestError(
            f"{cells.where(row)}: {name}={cells.frame[name][row]!r} is none of train, valid, test "
            f"({codes.null_count()} such rows). Correct it, or take the row out."
        )
    parts = torch.from_numpy(codes.to_numpy(writable=True))[table.rows]
    for part in (0, 2):
        if not bool((parts == part).any()):
            raise RequestError(f"{cells.paths[0]}: no row has {name}={PARTS[part]}, and some are needed.")
    return parts


def pieces(path: Path, table: Table, parts: Tensor, length: int | None, stride: int | None) -> Pieces:
    """Return the series part by part, each cut into pieces of `length` points, one every `stride` points.

    A series that is shorter is one piece; where pieces do not come out even, the last ends with the series.
    """
    numbers = table.numbers
    series = torch.arange(len(numbers.counts)).repeat_interleave(numbers.counts)
    order = (parts * len(numbers.counts) + series).argsort(stable=True)
    groups, counts = torch.unique_consecutive((parts * len(numbers.counts) + series)[order], return_counts=True)
    alone = (counts < 2).nonzero()
    if len(alone):
        point = int(order[int((counts.cumsum(0) - counts)[alone[0]])])
        name = table.names[int(series[point])]
        raise table.fault(point, f"series {name} has only this one point in its split; two are the least.")
    starts = counts.cumsum(0) - counts
    owner = torch.arange(len(groups))
    if length is not None:
        step = stride or length
        number = ((counts - length).clamp_min(0) + step - 1) // step + 1
        _check_memory(path, int(number.sum()) * length * numbers.values.shape[1], step)
        owner = owner.repeat_interleave(number)
        nth = torch.arange(len(owner)) - (number.cumsum(0) - number).repeat_interleave(number)
        offset = torch.minimum(nth * step, (counts - length).clamp_min(0)[owner])
        starts, counts = starts[owner] + offset, counts[owner].clamp_max(length)
    within = torch.arange(int(counts.sum())) - (counts.cumsum(0) - counts).repeat_interleave(counts)
    points = order[starts.repeat_interleave(counts) + within]
    which = groups[owner]
    sizes = torch.bincount(which // len(numbers.counts), minlength=3).tolist()
    return Pieces(
        Numbers(numbers.times[points], numbers.values[points], counts),
        points,
        [table.names[k] for k in (which % len(numbers.counts)).tolist()],
        sizes,
    )


def _check_memory(path: Path, count: int, stride: int) -> None:
    needed, memory = 40 * count, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > memory:
        raise RequestError(
            f"{path}: its pieces need {needed / GIB:,.0f} GiB, and there are {memory / GIB:,.0f} GiB of memory. "
            f"Raise data.stride={stride}, or choose a shorter data.length."
        )
