"""Tables as tests load them, and their series."""

from __future__ import annotations

import torch

from odenet_cli import data
from odenet_cli.data.common.series import PADDING, Series

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
