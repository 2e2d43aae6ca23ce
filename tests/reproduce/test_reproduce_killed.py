"""Killed at any moment and started again, a reproduction gives what an uninterrupted one gives."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.numerics

WORDS = ("table1", "--rows", "MLP,no middle", "--seeds", "1", "trainer.epochs=1", "trainer.limit_batches=5")
WORDS += ("trainer.checkpoint_every=1", "trainer.log_every=1", "device=cpu")
MOMENTS = {  # what is there when it is killed -> how
    "*": signal.SIGKILL,
    "*/checkpoints/last.pt": signal.SIGTERM,
    "*/run.json": signal.SIGINT,
}
FREE = {"epoch_s", "step_ms", "commit"}


def start(folder):
    folder.mkdir(exist_ok=True)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    env.pop("ODENET_REQUEST", None)
    command = [sys.executable, "-m", "odenet_cli", "reproduce", *WORDS]
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def works_in(process, folder):
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        return Path(os.readlink(process / "cwd")) == folder and state not in "ZX"
    except OSError:
        return False


def children(folder):
    """The processes at work in `folder`."""
    return [path.name for path in Path("/proc").glob("[0-9]*") if works_in(path, folder)]


def statuses(folder):
    return [json.loads(path.read_text())["status"] for path in sorted(folder.glob("runs/cells/*/run.json"))]


def wait_for(condition, limit_s=300.0):
    end = time.monotonic() + limit_s
    while not (found := condition()) and time.monotonic() < end:
        time.sleep(0.005)
    assert found


def result(folder):
    """The JSON of the result, without what a clock measured; and who edits the source meanwhile changes its commit."""
    whole = json.loads((folder / "results" / "table1" / "quick.json").read_text())
    assert len(whole["rows"]) == 2
    for row in whole["rows"]:
        assert row["epoch_s"] > 0
    facts = {name: value for name, value in whole["facts"].items() if "time" not in name}
    rows = [{name: value for name, value in row.items() if name not in FREE} for row in whole["rows"]]
    return {**whole, "facts": facts, "rows": rows, "source": {**whole["source"], "commits": []}}


def stopped(folder, moment, number):
    """Start, and send the signal `number` as soon as there is a new `moment`."""
    before = set(folder.glob(f"runs/cells/{moment}"))
    process = start(folder)
    try:
        wait_for(lambda: set(folder.glob(f"runs/cells/{moment}")) - before or process.poll() is not None)
        assert process.poll() is None, process.communicate()[0]
        process.send_signal(number)
        said, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143}.get(number, -number), said


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a run with the process that started it")
def test_killed_and_started_again_it_gives_the_same_table(tmp_path):
    calm, stormy = tmp_path / "calm", tmp_path / "stormy"
    uninterrupted = start(calm)
    said, _ = uninterrupted.communicate(timeout=300)
    assert uninterrupted.returncode == 0, said

    for moment, number in MOMENTS.items():
        stopped(stormy, moment, number)
        wait_for(lambda: not children(stormy), 60 if number == signal.SIGKILL else 0)
        assert not (stormy / "results" / "table1" / "quick.json").exists()

    last = start(stormy)
    said, _ = last.communicate(timeout=300)
    assert last.returncode == 0, said
    assert statuses(stormy) == ["done", "done"]
    assert result(stormy) == result(calm)
