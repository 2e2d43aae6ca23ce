"""A run of an older version can be scored, gone on with and reported; a newer one, and half a file, are refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from odenet_cli.config import saved
from odenet_cli.config.saved import load
from odenet_cli.errors import RequestError
from odenet_cli.report.runs import read_run
from odenet_cli.reproduce.plan import digest
from odenet_cli.rundir import FORMAT, read_record
from odenet_cli.training import checkpoint
from odenet_cli.training.identity import check_same_run

OLD = (
    Path(__file__).parent / "old_runs"
)  # made at format 1, before `optim.schedule`; relative paths, as they were typed
ENDED = 2.33111219935947  # test loss of OLD/odenet, by the version that made it, after six steps in one go


@pytest.fixture
def run(tmp_path):
    """The old ODE-Net, made older still: without `model.augment`, which has been an option since."""
    folder = tmp_path / "moved" / "run"
    shutil.copytree(OLD / "odenet", folder)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("  augment: 0\n", ""))
    for path in (folder / "checkpoints").iterdir():
        content = torch.load(path, weights_only=True)["content"]
        del content["config"]["model.augment"]
        torch.save({"format": 1, "sha256": checkpoint.digest(content), "content": content}, path)
    return folder


def test_what_is_new_takes_its_default_and_is_said_once(run, capsys, monkeypatch):
    monkeypatch.setattr(saved, "_reported", set())
    config = load(run)
    assert (config.model["augment"], config.optim.schedule, config.optim.warmup) == (0, "steps", None)
    load(run)
    read_run(run)
    told = capsys.readouterr().err
    assert told.count("model.augment=0") == 1
    assert told.startswith(f"warning: {run / 'config.yaml'} was written by an older version and lacks ")
    assert check_same_run(run, config) == {}


def test_the_hash_of_a_cell_outlives_a_new_option(run):
    """What `runs/cells` was filled with by an older version is found again."""
    assert digest(load(OLD / "odenet")) == digest(load(run)) == "6e99038f9d78a764"  # as it said itself


@pytest.mark.numerics
def test_it_is_scored_gone_on_with_and_reported(odenet, run, tmp_path):
    done = odenet("eval", str(run))
    assert done.returncode == 0, done.stderr
    record = json.loads((run / "eval.jsonl").read_text())
    assert record["loss"] == pytest.approx(read_record(OLD / "odenet")["final"]["loss"], rel=1e-5)

    done = odenet("train", f"resume={run}", "trainer.max_steps=6")
    assert done.returncode == 0, done.stderr
    record = read_record(run)
    assert (record["format"], record["final"]["step"]) == (FORMAT, 6)
    assert record["final"]["loss"] == pytest.approx(ENDED, rel=1e-5)
    assert load(run).model["augment"] == 0

    shutil.copytree(OLD / "odenet", tmp_path / "moved" / "other")
    done = odenet("report", "moved", "by=model.augment")
    assert done.returncode == 0, done.stderr
    assert "2 (0)" in done.stdout or "1 (0)" in done.stdout  # one row: both have augment=0


@pytest.mark.numerics
def test_relative_paths_of_old_runs_are_found_beside_them(odenet, tmp_path):
    """From another folder, the run moved together with its table."""
    shutil.copytree(OLD / "latent_ode", tmp_path / "project" / "run")
    (tmp_path / "project" / "run" / "data.csv").rename(tmp_path / "project" / "data.csv")
    done = odenet("eval", "project/run")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "project" / "run" / "eval.jsonl").read_text())
    assert record["loss"] == pytest.approx(read_record(OLD / "latent_ode")["final"]["loss"], rel=1e-5)

    (tmp_path / "project" / "data.csv").rename(tmp_path / "elsewhere.csv")
    done = odenet("eval", "project/run")
    assert done.returncode == 2
    assert "data.path=FILE (SHA-256 138e509b36ed6392cedac844b926680c8f6488143591b3986e5ae78a779a8af2)" in done.stderr
    done = odenet("train", "resume=project/run", "data.path=elsewhere.csv", "trainer.steps=5")
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "project" / "run").data["path"] == str(tmp_path / "elsewhere.csv")


def test_a_newer_format_is_refused(run):
    path = run / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": FORMAT + 1}))
    with pytest.raises(
        RequestError, match=rf"run\.json was written by a newer version of odenet: its format is {FORMAT + 1}"
    ):
        read_record(run)


DAMAGES = {
    "empty": lambda text: "",
    "half": lambda text: text[: len(text) // 2],
    "no trainer": lambda text: text[: text.index("trainer:")],
    "NUL": lambda text: "\0" * len(text),
    "a list": lambda text: "[1, 2]",
    "comments": lambda text: "# nothing\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_half_a_config_is_no_older_version(run, damage):
    """Whoever reads it names the file: eval, gradcheck, audit, sample and rerun by `load`, reports by `read`."""
    path = run / "config.yaml"
    path.write_text(DAMAGES[damage](path.read_text()))
    with pytest.raises(RequestError, match=r"config\.yaml (is|has)"):
        load(run)
    found = read_run(run)
    assert found.status == "unreadable"
    assert "config.yaml" in found.reason


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (("resume=R",), "config.yaml"),
        (("resume=R",), "run.json"),
        (("resume=auto",), "config.yaml"),
        (("resume=auto",), "run.json"),
        (("--config-dir", "R", "--config-name", "config"), "config.yaml"),
    ],
)
def test_a_damaged_file_is_named_by_train(odenet, run, tmp_path, words, name):
    run.rename(tmp_path / "R")
    (tmp_path / "R" / name).write_text("")
    place = ("hydra.run.dir=R", "data=digits", "device=cpu") if words == ("resume=auto",) else ()
    done = odenet("train", *words, *place)
    assert done.returncode == 2
    assert f"R/{name}" in done.stderr
    assert (tmp_path / "R" / name).read_text() == ""
