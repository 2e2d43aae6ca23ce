"""`logger=wandb` against the real package, offline: one run with the curves, the config and the figures."""

import importlib.util
import json
import struct

import pytest

from odenet_cli.errors import RequestError
from odenet_cli.training.boards import check_installed

WORDS = ("logger=wandb", "model=odenet", "model.width=4", "solver=heun", "solver.steps=2", "trainer.log_every=1")
WORDS += ("trainer.limit_batches=2", "trainer.epochs=2")
BLOCK = 1 << 15


def records(path):
    """Yield the records of a .wandb file: a log of LevelDB in blocks, after a head of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    content, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if BLOCK - at % BLOCK < 7:  # a trailer of zeros
            at += BLOCK - at % BLOCK
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)  # after a checksum of 4 bytes
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, last
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


def shown(folder):
    """Return the run's settings, its curves by tag, and the files that it shows."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    settings, curves = {}, {}
    for record in records(path):
        if record.HasField("run"):
            settings |= {one.key: json.loads(one.value_json) for one in record.run.config.update}
        elif record.HasField("history"):
            row = {one.key or "/".join(one.nested_key): json.loads(one.value_json) for one in record.history.item}
            for tag in row.keys() - {"_step"}:
                curves.setdefault(tag, []).append((row["_step"], row[tag]))
    return settings, curves


@pytest.mark.numerics
def test_a_run_and_how_it_goes_on(train, metrics, monkeypatch, tmp_path):
    """Where it goes on, the run of before is written anew: no step is shown twice."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    folder = train(*WORDS, "trainer.max_steps=2")
    names = [path.name.rpartition("-")[2] for path in folder.glob("wandb/offline-run-*")]
    assert train(*WORDS, "resume=auto") == folder
    assert [path.name.rpartition("-")[2] for path in folder.glob("wandb/offline-run-*")] == names

    settings, curves = shown(folder)
    assert settings["solver"]["method"] == "heun"
    assert settings["seed"] == 0
    for split in ("train", "valid", "test"):
        expected = [(r["step"], pytest.approx(100 * r["error"])) for r in metrics(folder) if r["split"] == split]
        assert curves[f"error_percent/{split}"] == expected
    assert curves["nfe/backward"] == [(step, 4) for step in (1, 2, 3, 4)]


@pytest.mark.numerics
def test_the_command_shows_its_figures_too(odenet, tmp_path):
    pytest.importorskip("wandb")
    done = odenet("train", "data=digits", "device=cpu", *WORDS, "hydra.run.dir=R", figures=True, WANDB_MODE="offline")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].endswith("| R")
    names = {path.name.partition("_")[0] for path in (tmp_path / "R").glob("wandb/*/files/media/images/figures/*.png")}
    assert names == {"training", "misread"}


def test_without_the_package_it_is_refused_by_name(tiny, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"pip install -e \"\.\[wandb\]\""):
        check_installed(tiny("logger=wandb"))
    check_installed(tiny())


def test_nobody_is_logged_in(odenet, tmp_path):
    """The request is wrong, and leaves no folder behind."""
    pytest.importorskip("wandb")
    words = ("train", "data=digits", *WORDS, "device=cpu", "hydra.run.dir=run")
    done = odenet(*words, HOME=str(tmp_path), WANDB_API_KEY="", WANDB_MODE="online")
    assert done.returncode == 2, done.stderr
    assert "logger=wandb: " in done.stderr
    assert "logger=tensorboard" in done.stderr
    assert not (tmp_path / "run").exists()
