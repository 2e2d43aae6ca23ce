"""A run folder has one writer, and its records are what the design promises."""

import json
import math
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
import torch
from sklearn.datasets import load_digits

import odenet_cli
from odenet_cli.analysis.trained import trained
from odenet_cli.commands._summary import summarise
from odenet_cli.config.resolve import eval_solver
from odenet_cli.config.saved import load, save
from odenet_cli.errors import RequestError
from odenet_cli.files import without_nan
from odenet_cli.lock import locked
from odenet_cli.metrics import MetricsFile
from odenet_cli.rundir import write_record
from odenet_cli.training import build
from odenet_cli.training.evaluate import solved_by
from odenet_cli.training.record import git_commit as COMMIT

COST = {"nfe_forward", "nfe_backward", "vjps", "accepted", "rejected"}
EVERY = {"step", "epoch", "split", "loss", "error", *COST}
ODE = ("model=odenet", "model.width=4", "solver=heun", "solver.steps=2", "gradient=backprop")
SHORT = ("trainer.limit_batches=2", "trainer.epochs=2", "trainer.log_every=1", "trainer.batch_size=8")


def elsewhere(act):
    """What another thread gets."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(act).result()


def test_a_second_writer_is_refused(tmp_path):
    code = (
        "import sys; from pathlib import Path; from odenet_cli.lock import locked; "
        "from odenet_cli.errors import RequestError\n"
        "try:\n with locked(Path(sys.argv[1])): pass\n"
        "except RequestError as error: print(error); sys.exit(2)"
    )

    def other():
        return subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True)

    with locked(tmp_path):
        with locked(tmp_path):  # who holds it may take it again
            pass
        with pytest.raises(RequestError, match="in use"):
            elsewhere(lambda: locked(tmp_path).__enter__())
        done = other()
        assert done.returncode == 2
        assert str(tmp_path) in done.stdout
    assert other().returncode == 0


def test_a_refused_writer_leaves_the_run_as_it_was(train, tmp_path):
    folder = train()
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with locked(folder), pytest.raises(RequestError, match="in use"):
        elsewhere(train)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


def test_who_made_the_folder_is_told(tmp_path):
    with locked(tmp_path / "a" / "b") as made, locked(tmp_path / "a" / "b") as again:
        assert (made, again) == (True, False)
    with locked(tmp_path / "a" / "b") as made:
        assert not made


def test_a_lock_that_went_with_its_folder_is_no_lock(tmp_path):
    folder, other = tmp_path / "run", locked(tmp_path / "run")
    with ThreadPoolExecutor(1) as pool:
        with locked(folder):
            waiting = pool.submit(other.__enter__)
            time.sleep(0.1)
            shutil.rmtree(folder)
        assert waiting.result()  # made anew
    with pytest.raises(RequestError, match="in use"), locked(folder):
        pass
    other.__exit__(None, None, None)


def test_metrics_are_cut_back_to_what_a_checkpoint_knew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(tmp_path)
    first.write({"step": 1})
    size = first.size
    first.write({"step": 2})
    path.open("ab").write(b'{"half a li')
    first.close()
    again = MetricsFile(tmp_path, size)
    again.write({"step": 2, "again": True})
    again.close()
    assert path.read_text().splitlines() == ['{"step": 1}', '{"step": 2, "again": true}']
    MetricsFile(tmp_path).close()
    assert path.read_bytes() == b""


def test_records_are_json_for_everyone(tmp_path):
    write_record(tmp_path, {"a": math.nan, "b": [math.inf, 1.5], "c": {"d": -math.inf}, "é": "π"})

    def refuse(word):
        raise AssertionError(word)

    assert json.loads((tmp_path / "run.json").read_text(), parse_constant=refuse) == {
        "a": "nan",
        "b": ["inf", 1.5],
        "c": {"d": "-inf"},
        "é": "π",
    }
    assert without_nan((1, math.nan)) == [1, "nan"]


@pytest.mark.parametrize("name", ["config.yaml", "summary.json"])
def test_without_room_the_file_before_stays(tiny, tmp_path, name):
    write = {
        "config.yaml": lambda: save(tiny(), tmp_path, tied=True),
        "summary.json": lambda: summarise(tmp_path, [([], tmp_path / "0")]),
    }[name]
    write()
    before, limits = (tmp_path / name).read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / name).read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_to_look_at_the_commit_writes_nothing(tmp_path, monkeypatch):
    """Git would refresh the index; stopped in that, by a full disk or a kill, it leaves a lock in the checkout."""
    source = tmp_path / "odenet_cli" / "__init__.py"
    source.parent.mkdir()
    source.write_text("")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "a"]):
        subprocess.run([*git, *words], check=True)
    os.utime(source, (1e9, 1e9))  # the index knows another time
    before = (tmp_path / ".git" / "index").stat().st_mtime_ns
    monkeypatch.setattr(odenet_cli, "__file__", str(source))
    head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert COMMIT() == head
    assert (tmp_path / ".git" / "index").stat().st_mtime_ns == before
    source.write_text("changed = True")
    assert COMMIT() == f"{head}+"


def test_run_json_says_what_the_design_promises(train):
    folder = train(*ODE, *SHORT)
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "done"
    assert record["reason"] is None
    assert record["parameters"] == 1026
    assert record["command"].startswith("odenet train model=odenet")
    assert record["versions"].keys() == {"odenet", "python", "torch"}
    assert record["versions"]["torch"] == torch.__version__
    assert record["device"].startswith("cpu")
    assert record["threads"] == 1
    assert record["git"] is None
    assert record["data"]["used"] == "digits"
    assert len(record["data"]["sha256"]) == 64
    final = record["final"]
    assert {"loss", "error", "nfe_forward", "nfe_backward", "saved_mib", "peak_mib", "step", "epoch"} <= final.keys()
    assert (final["step"], final["epoch"], final["nfe_forward"], final["nfe_backward"]) == (4, 2, 4, 0)
    assert 0 <= final["error"] <= 1
    left = {path.name.split(".1")[0] if path.name.startswith("events") else path.name for path in folder.iterdir()}
    assert {"config.yaml", "run.json", "metrics.jsonl", "checkpoints", "events.out.tfevents"} <= left


def test_a_classifier_keeps_its_answer_to_every_test_sample(train):
    """The file tells the same error as the record, and the labels are the data set's own, in its order."""
    folder = train(*ODE, *SHORT, "trainer.limit_batches=null", "trainer.epochs=1", "trainer.max_steps=2")
    final = json.loads((folder / "run.json").read_text())["final"]
    with numpy.load(folder / "predictions.npz") as kept:
        predicted, label = kept["predicted"], kept["label"]
    assert (predicted.dtype, label.dtype, predicted.shape) == (numpy.uint8, numpy.uint8, (360,))
    assert label.tolist() == load_digits().target[1437:].tolist()
    assert (predicted != label).mean() == pytest.approx(final["error"], abs=1e-7)

    config = load(folder)
    net = trained(folder, config, "best", 100)
    with torch.no_grad(), solved_by(net.model.eval(), build.solver(eval_solver(config))):
        answers = torch.cat([net.model(x).argmax(1) for x, _ in net.data.test.epoch(0)])
    assert predicted.tolist() == answers.tolist()


def test_no_answers_are_kept_where_there_are_no_labels(train):
    folder = train("model=planar", "model.layers=1", "data=moons", "trainer.steps=2", "trainer.epochs=null")
    assert not (folder / "predictions.npz").exists()


def test_the_commit_is_forty_digits_and_a_plus_where_it_was_changed():
    found = COMMIT()
    assert found is None or re.fullmatch(r"[0-9a-f]{40}\+?", found)


def test_metrics_have_the_promised_keys(train, metrics):
    folder = train(*ODE, *SHORT, "trainer.certify=500")
    records = metrics(folder)
    order = [(record["step"], record["epoch"], record["split"]) for record in records]
    assert order == [
        (1, 0, "train"),
        (2, 1, "train"),
        (2, 1, "valid"),
        (3, 1, "train"),
        (4, 2, "train"),
        (4, 2, "valid"),
        (4, 2, "test"),
    ]
    more = {"train": {"lr", "step_ms", "peak_mib", "saved_mib"}, "valid": {"time_s", "epoch_s"}, "test": {"time_s"}}
    certified = {"gradient_error", "nfe_certify"}  # of the run's last step
    for record in records:
        last = certified if record is records[4] else set()
        assert record.keys() == EVERY | more[record["split"]] | last
        for key, value in record.items():
            if key in COST | {"step", "epoch", "nfe_certify"}:
                assert type(value) is int, key
            elif key == "peak_mib":
                assert value is None
            elif key != "split":
                assert type(value) is float, key
                assert math.isfinite(value)
        assert record["nfe_forward"] == 4
        assert record["nfe_backward"] == 0
        assert record["accepted"] == 2
        assert record["rejected"] == 0


def test_counts_of_a_step_are_the_solves_own(train, metrics):
    folder = train(*ODE[:2], "gradient=adjoint", "solver=heun", "solver.steps=2", *SHORT)
    for record in metrics(folder, "train"):
        assert (record["nfe_forward"], record["nfe_backward"], record["vjps"]) == (4, 4, 4)
    for record in metrics(folder, "valid"):
        assert (record["nfe_forward"], record["nfe_backward"], record["vjps"]) == (4, 0, 0)
