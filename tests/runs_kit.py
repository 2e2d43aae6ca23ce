"""Tiny runs in this process, and what they left behind."""

from __future__ import annotations

import copy
import functools
import json
from pathlib import Path

import pytest
import torch

from odenet_cli.config.resolve import complete
from odenet_cli.config.saved import save
from odenet_cli.data import digits
from odenet_cli.request.compose import compose
from odenet_cli.tasks.common import flow_figures
from odenet_cli.training import record
from odenet_cli.training import run as runs

QUICK = ("trainer.certify=0",)  # a certificate at its end takes as long as a short run
TINY = ("data=digits", "device=cpu", "model=mlp", "model.hidden=4", "trainer.limit_batches=5", "trainer.epochs=3")


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


enlarge, load_small = functools.cache(digits.enlarge), functools.cache(digits.load_small)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """What takes longer than these runs: asking git for the commit, enlarging the digits once more, and large figures
    of flows."""
    monkeypatch.setattr(record, "git_commit", lambda: None)
    monkeypatch.setattr(digits, "enlarge", enlarge)
    monkeypatch.setattr(digits, "load_small", load_small)
    for name, value in {"GRID": 6, "SAMPLES": 50, "PATHS": 3, "MOMENTS": 5}.items():
        monkeypatch.setattr(flow_figures, name, value)


@functools.lru_cache(maxsize=64)
def composed(words):
    return complete(compose(list(words)), gpu=False)


def configure(*words):
    """The config of `odenet train`: a tiny perceptron on digits, and these words."""
    said = {word.partition("=")[0] for word in words}
    said |= {"model.hidden"} if "model" in said else set()
    return copy.deepcopy(composed((*(word for word in TINY + QUICK if word.partition("=")[0] not in said), *words)))


@pytest.fixture
def tiny():
    return configure


@pytest.fixture
def train(tmp_path):
    """Train in `tmp_path/<name>` and return the folder; a second call with the same name goes on."""

    def call(*words, name="run", config=None):
        config, folder = config or configure(*words), tmp_path / name
        folder.mkdir(exist_ok=True)
        runs.run(config, folder, "odenet train " + " ".join(words), list(words))
        return folder

    return call


def train_run(folder: Path, *words: str) -> Path:
    """Train by these words in `folder`, with its config saved as `odenet train` saves it."""
    config = complete(compose([*QUICK, *words]), gpu=False)
    folder.mkdir(exist_ok=True)
    save(config, folder, tied=True)
    runs.run(config, folder, "", list(words))
    return folder


def read_metrics(folder: Path, split=None):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if split in (None, record["split"])]


def kept(folder: Path, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.pt", weights_only=True)["content"]


def same_tensors(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def metrics():
    return read_metrics


@pytest.fixture
def checkpoint_of():
    return kept


@pytest.fixture
def same_bits():
    """Two finished runs agree in everything but time and memory of the machine."""

    def compare(a: Path, b: Path) -> bool:
        def bare(folder):
            free = ("step_ms", "epoch_s", "peak_mib")
            return [
                {key: value for key, value in record.items() if key not in free and not key.startswith("time_")}
                for record in read_metrics(folder)
            ]

        assert bare(a) == bare(b)
        for name in ("last", "best"):
            x, y = kept(a, name), kept(b, name)
            assert same_tensors(x["model"], y["model"])
            assert (x["step"], x["epoch"]) == (y["step"], y["epoch"])
        assert kept(a)["best"] == kept(b)["best"]
        assert torch.equal(kept(a)["generator"], kept(b)["generator"])
        finals = [json.loads((folder / "run.json").read_text())["final"] for folder in (a, b)]
        for final in finals:
            del final["time_s"]
        assert finals[0] == finals[1]
        return True

    return compare
