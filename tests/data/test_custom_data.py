"""A data set of the user's own code: what it may give, what is refused by name, and who may name it."""

from __future__ import annotations

import json

import pytest
import torch

from odenet_cli import data
from odenet_cli.errors import RequestError

OWN = """
import torch
from torch.utils.data import Dataset

X = torch.arange(60.0).reshape(20, 3)
LABELS = torch.arange(20) % 2
PAIR = (X, LABELS)

class Rows(Dataset):
    def __init__(self, n: int = 20, scale: float = 1.0):
        self.n, self.scale = n, scale

    def __len__(self):
        return self.n

    def __getitem__(self, i):
        return self.scale * X[i], int(LABELS[i])

class Images(Rows):
    def __getitem__(self, i):
        return torch.full((3, 5, 5), i, dtype=torch.uint8), LABELS[i]

class Ragged(Rows):
    def __getitem__(self, i):
        return torch.zeros(3 + (i == 5)), 0

class Single(Rows):
    def __getitem__(self, i):
        return X[i]

def splits(noise: float):
    return {"train": (X, X.sum(1)), "val": (X, X.sum(1)), "test": (X + noise, X.sum(1))}

def lists():
    return X.tolist(), LABELS.tolist()

def unknown():
    return {"training": PAIR, "rest": PAIR}

def both():
    return {"all": PAIR, "test": PAIR}

def twice():
    return {"train": PAIR, "val": PAIR, "valid": PAIR}

def gaps():
    return X, LABELS * 2

def holes():
    return torch.where(X == 7, torch.nan, X), LABELS

def fails():
    raise OSError("no such file")

def nothing():
    return None

def leaves():
    raise SystemExit(0)
"""
SPEC = {"batch_size": 8, "eval_batch_size": 10, "seed": 0, "device": torch.device("cpu"), "dtype": torch.float64}


@pytest.fixture(autouse=True)
def module(tmp_path, monkeypatch):
    (tmp_path / "own_data_of_test.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


def load(name, **options):
    return data.load("custom", {"target": f"own_data_of_test:{name}", **options}, **SPEC)


@pytest.mark.parametrize(
    ("name", "options", "shape", "task", "sizes"),
    [
        ("Rows", {}, (3,), "classify", (16, 2, 2)),
        ("Rows", {"n": 10, "scale": 2}, (3,), "classify", (8, 1, 1)),
        ("Images", {"augment": ["flip"]}, (3, 5, 5), "classify", (16, 2, 2)),
        ("PAIR", {}, (3,), "classify", (16, 2, 2)),
        ("lists", {"test": 0.5, "validation": 0.0}, (3,), "classify", (10, 0, 10)),
        ("splits", {"noise": 0.5}, (3,), "regression", (20, 20, 20)),
        ("Rows", {"task": "regression"}, (3,), "regression", (16, 2, 2)),
    ],
)
def test_what_it_gives_is_dealt_like_arrays(name, options, shape, task, sizes):
    found = load(name, **options)
    assert (found.shape, found.task, tuple(found.record["sizes"].values())) == (shape, task, sizes)
    x, *_ = next(found.train.epoch(0))
    assert (x.dtype, x.shape[1:]) == (torch.float64, shape)


def test_the_numbers_identify_the_data():
    assert load("Rows").record["sha256"] == load("Rows", n=20).record["sha256"]
    assert load("Rows").record["sha256"] != load("Rows", n=18).record["sha256"]


@pytest.mark.parametrize(
    ("name", "options", "says"),
    [
        ("Nett", {}, "own_data_of_test has no Nett"),
        ("Rows", {"m": 1}, "data.m is not an option here"),
        ("Rows", {"n": "x"}, "data.n='x' is not a whole number"),
        ("splits", {}, r"data.noise is missing; give it a value: \+data.noise="),
        ("PAIR", {"n": 1}, r"is not callable, and takes no option \+data.n"),
        ("fails", {}, r"(?s)own_data_of_test:fails failed: OSError: no such file.*line \d+, in fails"),
        ("leaves", {}, "calls sys.exit"),
        ("nothing", {}, "gave NoneType. It returns a torch Dataset"),
        ("Single", {}, "item 0 is Tensor. It returns a torch Dataset"),
        ("Ragged", {}, r"x of item 5 has the shape \(4,\), and that of item 0 \(3,\)"),
        ("unknown", {}, "gave a split 'rest'. Available: train, valid, test"),
        ("both", {}, "gave 'all', 'test'"),
        ("twice", {}, "gave 'train', 'val', 'valid'. It returns"),
        ("gaps", {}, "1 of the 3 classes 0 to 2 have no training sample: 1"),
        ("holes", {}, "x holds NaN or infinite numbers in 1 of 20 samples, first in sample 2"),
        ("Rows", {"augment": ["crop"]}, "is for images"),
    ],
)
def test_what_does_not_fit_is_named(name, options, says):
    with pytest.raises(RequestError, match=says):
        load(name, **options)


def test_it_trains_and_only_the_command_line_names_it(odenet, tmp_path):
    target = "data.target=own_data_of_test:splits"
    words = ["data=custom", "+data.noise=0.5", "model=odenet", "model.width=4", "device=cpu", "logger=none"]
    done = odenet("train", target, *words, "trainer.max_steps=2", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    final = json.loads((tmp_path / "run" / "run.json").read_text())["final"]
    refused = odenet("eval", "run")
    assert refused.returncode == 2
    assert f"Give it again: {target}" in refused.stderr
    scored = odenet("eval", "run", target)
    assert scored.returncode == 0, scored.stderr
    row = json.loads((tmp_path / "run" / "eval.jsonl").read_text().splitlines()[-1])
    assert row["rmse"] == pytest.approx(final["rmse"])
    refused = odenet("train", "--config-dir", "run", "--config-name", "config")
    assert refused.returncode == 2
    assert "no file may name code to run" in refused.stderr
