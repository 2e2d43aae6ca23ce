"""Tables as tests load them, and their series."""

from __future__ import annotations

import pytest
import torch

from odenet_cli import data
from odenet_cli.data.common.series import PADDING, Series
from odenet_cli.data.table import Source

HOW = {"batch_size": 500, "eval_batch_size": 500, "seed": 0, "device": torch.device("cpu"), "dtype": torch.float64}


def load(path, run=None, name="table", **options):
    return data.load(name, {"path": str(path), **options}, **HOW, run=run)


def batches(found):
    """All series of each split."""
    return [next(iter(split.unshuffled(500).epoch(0))) for split in (found.train, found.valid, found.test)]


def parts(found):
    return [Series(*batch[:7]) for batch in batches(found)]


def same(a, b):
    return all(torch.equal(x, y) for one, other in zip(parts(a), parts(b)) for x, y in zip(one, other))


def series(found):
    """The times and values of every series as the table has them, part by part."""
    keys = ("time_unit", "mean", "standard_deviation")
    unit, mean, sd = (torch.tensor(found.record[key], dtype=torch.float64) for key in keys)
    return [
        [(t[there] * unit, y[there] * sd + mean) for t, y, there in zip(x.target_times, x.noisy, x.scope != PADDING)]
        for x in parts(found)
    ]


def write(folder, text, name="own.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def read(path, **options):
    return Source(path=str(path), **options).table()


def rows(table):
    """The times and values of each series."""
    counts = table.numbers.counts.tolist()
    pairs = zip(table.numbers.times.split(counts), table.numbers.values.split(counts), strict=True)
    return {name: (t.tolist(), x.tolist()) for name, (t, x) in zip(table.names, pairs, strict=True)}


def only(table):
    (pair,) = rows(table).values()
    return pair


def excel(path, table):
    pytest.importorskip("fastexcel")
    book = pytest.importorskip("openpyxl").Workbook()
    for row in table:
        book.active.append(row)
    book.save(path)
    return path


PLAIN = "time,x,y\n0,1,2\n1,2,3\n2,3,5\n"


VALUES = [[1, 2], [2, 3], [3, 5]]
