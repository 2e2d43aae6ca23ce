"""A signal is acted on at the next step: the checkpoint is kept, the way to go on is printed, no process stays."""

import json
import os
import shlex
import signal
import threading
import time
from pathlib import Path

import pytest
from faults_kit import LONG, ODE, RHYTHM, ROOT, TINY, bare, faults, kept, run_json

ROW = "3 signals"
slow, numerics = pytest.mark.slow, pytest.mark.numerics
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGUSR1: 143}


@numerics
@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_a_run_stops_with_its_checkpoint(start, odenet, tmp_path, number, happened):
    """A signal while training: exit 130 or 143, the checkpoint of that step kept, the line that resumes printed."""
    child = start("train", *LONG, "trainer.checkpoint_every=100000", "hydra.run.dir=my run")
    child.until_records(tmp_path / "my run", 3)
    child.send(number)
    done = child.wait(60)
    assert done.code == CODES[number]
    assert "Traceback" not in done.err
    record = run_json(tmp_path / "my run")
    assert record["status"] == "interrupted"
    step = kept(tmp_path / "my run")["step"]
    assert f"{number.name} after step {step} of" in record["reason"]
    assert done.err.splitlines()[-1] == "  odenet train 'resume=my run'"
    if number == signal.SIGTERM:  # what it printed works
        again = start("train", f"resume={tmp_path / 'my run'}")
        again.until(lambda: run_json(tmp_path / "my run")["status"] == "running")
    happened(f"exit {done.code}, checkpoint of step {step}")


@numerics
def test_two_sigints_leave_at_once(start, tmp_path):
    """SIGINT twice, while a step hangs: exit 130 within a second, without waiting for the step."""
    child = start("train", *LONG, "hydra.run.dir=run", before=faults("hang", 20))
    child.until_records(tmp_path / "run", 4)
    time.sleep(1)  # from step 16 into step 20
    child.send(signal.SIGINT)
    time.sleep(0.5)
    assert child.alive
    child.send(signal.SIGINT)
    done = child.wait(20)
    assert done.code == 130
    assert "Traceback" not in done.err
    assert run_json(tmp_path / "run")["status"] == "interrupted"


@slow
@pytest.mark.parametrize("number", CODES, ids=lambda number: number.name)
def test_a_signal_during_imports(command, tmp_path, number, happened):
    """A signal while torch is being imported: exit 130 or 143, no traceback, no folder."""
    process = command("train", *TINY)
    maps, end = Path(f"/proc/{process.pid}/maps"), time.monotonic() + 120
    while "libtorch_cpu" not in maps.read_text() and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == CODES[number]
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []
    happened(f"exit {process.returncode}: {err.strip()}")


@numerics
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_stops_a_whole_sweep(start, tmp_path, number):
    """SIGINT or SIGTERM in the first of three jobs: the others do not start, and the summary says so."""
    child = start("train", "-m", *LONG, "seed=1,2,3", "hydra.sweep.dir=out")
    child.until_records(tmp_path / "out" / "0-seed=1", 2)
    child.send(number)
    done = child.wait(60)
    assert done.code == CODES[number]
    again = ["odenet", "train", "-m", *LONG, "seed=1,2,3", "hydra.sweep.dir=out", "resume=auto"]
    assert shlex.split(done.err.splitlines()[-1]) == again  # the sweep, not one run of it
    assert "2-seed=3: not started\n" in done.out
    statuses = [job["status"] for job in json.loads((tmp_path / "out" / "summary.json").read_text())["jobs"]]
    assert statuses == ["interrupted", "not started", "not started"]


@slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_no_child_is_left_behind(command, tmp_path, number):
    """A signal to a sweep that has its jobs in other processes: they end too."""
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    words = ["-m", *LONG, "seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "hydra.sweep.dir=out"]
    process = command("train", *words)
    begun, end = [tmp_path / "out" / f"{n}-seed={n + 1}" / "metrics.jsonl" for n in (0, 1)], time.monotonic() + 200
    while not all(path.exists() and path.stat().st_size for path in begun) and time.monotonic() < end:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    process.communicate(timeout=120)
    assert process.returncode == CODES[number]
    end = time.monotonic() + 30
    while working(tmp_path) and time.monotonic() < end:
        time.sleep(0.1)
    assert working(tmp_path) == []


def working(folder):
    """Processes that are at work in `folder`."""
    return [process.name for process in Path("/proc").glob("[0-9]*") if works_in(process, folder)]


def works_in(process, folder):
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        return Path(os.readlink(process / "cwd")) == folder and state not in "ZX"
    except OSError:
        return False


@numerics
def test_a_reader_that_leaves_does_no_harm(start, odenet, tmp_path):
    """`odenet train … | true`: the run goes on to its end, with the same bits, and exit 0."""
    words = ["train", *TINY, *RHYTHM, "hydra.run.dir=run"]
    os.mkfifo(tmp_path / "pipe")
    reader = threading.Thread(target=lambda: open(tmp_path / "pipe").close())
    reader.start()
    child = start(*words, out=tmp_path / "pipe")
    reader.join(60)
    done = child.wait()
    assert (done.code, done.err) == (0, "")
    assert run_json(tmp_path / "run")["status"] == "done"
    assert odenet(*words[:-1], "hydra.run.dir=other").code == 0
    assert bare(tmp_path / "run") == bare(tmp_path / "other")


@numerics
def test_stop_and_continue_do_no_harm(start, odenet, tmp_path):
    """SIGSTOP, then SIGCONT: the same bits as without."""
    words = ["train", *ODE, "trainer.limit_batches=6", "trainer.log_every=1"]
    child = start(*words, "hydra.run.dir=run")
    child.until_records(tmp_path / "run", 1)
    child.send(signal.SIGSTOP)
    time.sleep(0.5)
    child.send(signal.SIGCONT)
    assert child.wait().code == 0
    assert odenet(*words, "hydra.run.dir=other").code == 0
    assert bare(tmp_path / "run") == bare(tmp_path / "other")


def test_the_suite_breaks_this_checkout():
    """The package under test is that beside these tests."""
    assert Path(__file__).parents[2] == ROOT
