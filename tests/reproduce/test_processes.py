"""Cells run side by side: who waits for whom, what the failed ones say, and that nobody is left behind."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from odenet_cli.errors import Interrupted
from odenet_cli.lock import is_locked, locked, try_lock
from odenet_cli.reproduce import processes as launching
from odenet_cli.reproduce.processes import CellProcess, environment, launch

DONE = "open('run.json', 'w').write('{\"status\": \"done\"}')\n"
TOLD = """
import signal, sys, time
def told(number, frame):
    open("told", "w").close()
    sys.exit(143)
signal.signal(signal.SIGTERM, told)
open("ready", "w").close()
time.sleep(60)
"""


@pytest.fixture
def job(tmp_path):
    """A cell whose process is a tiny Python."""

    def make(name, code=DONE, **record):
        folder = tmp_path / name
        folder.mkdir()
        if record:
            (folder / "run.json").write_text(json.dumps(record))
        return CellProcess(folder, (code,))

    return make


@pytest.fixture
def begun(monkeypatch):
    """The processes that were started, as (job, environment, process)."""
    found = []

    def start(job, env):
        with open(job.log, "wb") as log:
            command = [sys.executable, "-S", "-E", "-c", *job.overrides]
            process = subprocess.Popen(command, cwd=job.folder, env=env, stdout=log, stderr=subprocess.STDOUT)
        found.append((job, env, process))
        return process

    monkeypatch.setattr(launching, "start", start)
    monkeypatch.setattr(launching, "POLL_S", 0.01)
    yield found
    for _, _, process in found:
        process.kill()
        process.wait()


def unseen(running):
    pass


def gone(pid):
    """Has the process ended? One that nobody has asked after stays as a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def eventually(condition, limit_s=20.0):
    end = time.monotonic() + limit_s
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_a_failing_cell_leaves_the_others(job, begun):
    record = json.dumps({"status": "failed", "reason": "the loss is not finite at step 3\nLower optim.lr."})
    cells = {
        "a": job("a"),
        "b": job("b", f"open('run.json', 'w').write({record!r}); raise SystemExit(1)"),
        "c": job("c"),
    }
    assert launch(list(cells.values()), 1, 0, unseen) == {cells["b"].folder: "the loss is not finite at step 3"}
    assert [one.folder.name for one, _, _ in begun] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("code", "record", "told"),
    [
        ("raise SystemExit(1)", {"status": "failed", "reason": "step 3"}, "step 3"),
        ("raise SystemExit(143)", {"status": "interrupted", "reason": "SIGTERM"}, "SIGTERM"),
        (
            "print('warning: w\\nerror: data.root=x does not exist.\\n  Name another.'); raise SystemExit(2)",
            {"status": "interrupted", "reason": "of an earlier start"},
            "data.root=x does not exist.",
        ),
        ("import os; os.kill(os.getpid(), 9)", {"status": "running"}, "killed by SIGKILL, perhaps for lack of memory"),
        ("import os; os.kill(os.getpid(), 11)", {}, "killed by SIGSEGV"),
        ("print('one\\ntwo\\n\\n'); raise SystemExit(1)", {}, "two"),
        ("raise SystemExit(3)", {}, "exit code 3"),
        ("", {"status": "running"}, "exit code 0"),
    ],
)
def test_a_cell_that_did_not_end_well_says_why(job, begun, code, record, told):
    one = job("cell", code, **record)
    assert launch([one], 1, 0, unseen) == {one.folder: told}


def test_a_cell_that_is_done_is_not_run_again(job, begun):
    cells = [job("old", status="done"), job("new")]
    assert launch(cells, 2, 0, unseen) == {}
    assert [one.folder.name for one, _, _ in begun] == ["new"]
    assert launch(cells, 2, 0, unseen) == {}
    assert len(begun) == 1


@pytest.mark.parametrize("finished", [True, False])
def test_a_cell_in_another_process_is_waited_for_and_run_only_if_that_leaves_it_undone(job, begun, finished):
    mine, theirs = job("mine"), job("theirs")
    updates = []
    with ExitStack() as other:
        other.enter_context(locked(theirs.folder))

        def update(running):
            updates.append(running)
            assert theirs.folder not in running or not finished
            if len(updates) == 20:
                if finished:
                    (theirs.folder / "run.json").write_text('{"status": "done"}')
                other.close()

        assert launch([theirs, mine], 2, 0, update) == {}
    names = [one.folder.name for one, _, _ in begun]
    assert names == (["mine"] if finished else ["mine", "theirs"])
    assert len(updates) >= 20


def test_a_cell_that_another_process_took_a_moment_earlier_is_waited_for_too(job, begun, monkeypatch):
    one, updates = job("cell", "print('error: in use'); raise SystemExit(2)"), []
    with ExitStack() as other:
        start = launching.start

        def late(*arguments):
            process = start(*arguments)
            other.enter_context(locked(one.folder))
            return process

        monkeypatch.setattr(launching, "start", late)

        def update(running):
            updates.append(running)
            if begun[0][2].poll() is not None and not running and len(updates) > 10:
                (one.folder / "run.json").write_text('{"status": "done"}')
                other.close()

        assert launch([one], 1, 0, update) == {}
    assert len(begun) == 1


def test_who_only_asks_whether_a_folder_is_held_turns_no_run_away(tmp_path):
    """The question takes the lock for a moment, here a long one; a run that begins in it waits."""
    with locked(tmp_path):
        assert is_locked(tmp_path)
    asking = os.open(tmp_path / ".lock", os.O_RDWR)
    assert try_lock(asking)
    threading.Timer(0.1, os.close, [asking]).start()
    begun = time.monotonic()
    with locked(tmp_path):
        assert time.monotonic() - begun > 0.05
    assert not is_locked(tmp_path)


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_never_more_run_than_were_asked_for(job, begun, at_once, monkeypatch):
    alive, start = [], launching.start

    def counted(*arguments):
        process = start(*arguments)
        alive.append(sum(one.poll() is None for _, _, one in begun))
        return process

    monkeypatch.setattr(launching, "start", counted)
    updates = []
    jobs = [job(str(n), f"import time; time.sleep({0.05 + n % 3 / 20})\n{DONE}") for n in range(6)]
    assert launch(jobs, at_once, 0, updates.append) == {}
    assert max(alive) == max(map(len, updates)) == at_once
    assert len(begun) == 6


def test_those_that_run_at_the_same_time_have_a_gpu_each(job, begun, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    seen = []

    def update(running):
        devices = [env["CUDA_VISIBLE_DEVICES"] for one, env, _ in begun if one.folder in running]
        seen.append(sorted(devices))

    jobs = [job(str(n), f"import time; time.sleep({0.05 + n % 2 / 10})\n{DONE}") for n in range(5)]
    assert launch(jobs, 2, 2, update) == {}
    assert all(devices in (["0", "1"], ["0"], ["1"], []) for devices in seen)
    assert ["0", "1"] in seen


@pytest.mark.parametrize(
    ("visible", "gpus", "given"),
    [
        (None, 0, [None, None, None]),
        (None, 1, [None, None, None]),
        (None, 2, ["0", "1", "0"]),
        ("", 0, ["", "", ""]),
        ("5", 1, ["5", "5", "5"]),
        ("4,7", 2, ["4", "7", "4"]),
        ("GPU-8f2a,GPU-11b0,GPU-c3", 3, ["GPU-8f2a", "GPU-11b0", "GPU-c3"]),
    ],
)
def test_a_slot_has_a_gpu_of_its_own_of_those_that_are_to_be_used(monkeypatch, visible, gpus, given):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [environment(slot, 3, gpus).get("CUDA_VISIBLE_DEVICES") for slot in range(3)] == given


@pytest.mark.parametrize(("cores", "at_once", "threads"), [(8, 1, None), (8, 2, "4"), (8, 3, "2"), (2, 4, "1")])
def test_cores_are_shared_out(monkeypatch, cores, at_once, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(launching.threads, "cores", lambda: cores)
    assert environment(0, at_once, 0).get("OMP_NUM_THREADS") == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    assert environment(0, at_once, 0)["OMP_NUM_THREADS"] == "6"  # who says so means it


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_is_handed_to_the_runs_and_they_are_waited_for(job, begun, number, code):
    jobs = [job(str(n), TOLD) for n in range(3)]

    def update(running):
        assert len(running) == 2
        if all((folder / "ready").exists() for folder in running):
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as stopped:
        launch(jobs, 2, 0, update)
    assert stopped.value.code == code
    assert signal.Signals(number).name in str(stopped.value)
    assert [(one.folder / "told").exists() for one in jobs] == [True, True, False]
    assert [process.poll() for _, _, process in begun] == [143, 143]
    assert signal.getsignal(number) is before


def test_a_run_that_does_not_leave_is_killed(job, begun, monkeypatch):
    monkeypatch.setattr(launching, "GRACE_S", 0.1)
    deaf = TOLD.replace("sys.exit(143)", "pass").replace("time.sleep(60)", "\nwhile True: time.sleep(60)")
    one = job("deaf", deaf)

    def update(running):
        if (one.folder / "ready").exists():
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        launch([one], 1, 0, update)
    assert (one.folder / "told").exists()
    assert begun[0][2].returncode == -signal.SIGKILL


def test_whatever_happens_no_run_is_left_behind(job, begun):
    def update(running):
        raise RuntimeError("the board fell over")

    with pytest.raises(RuntimeError):
        launch([job("a", "import time; time.sleep(60)")], 1, 0, update)
    assert begun[0][2].poll() is not None


@pytest.mark.skipif(sys.platform != "linux", reason="a death signal is Linux's")
def test_a_run_ends_with_the_process_that_started_it(tmp_path):
    python = tmp_path / "python"  # in the place of the real one, which takes seconds to begin
    python.write_text("#!/bin/sh\nexec sleep 60\n")
    python.chmod(0o755)
    code = (
        "import os, sys, time; from pathlib import Path\n"
        "from odenet_cli.reproduce.processes import CellProcess, start\n"
        f"sys.executable = {str(python)!r}\n"
        f"print(start(CellProcess(Path({str(tmp_path / 'cell')!r}), ()), dict(os.environ)).pid, flush=True)\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert not gone(child)
    parent.kill()
    parent.communicate()
    assert eventually(lambda: gone(child))


def test_the_process_is_odenet_train_in_the_folder_of_the_cell(tmp_path, monkeypatch):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@"; echo "$MARK"; cat\n')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    one = CellProcess(tmp_path / "cells" / "ab12", ("seed=1", "model=mlp"))
    assert launching.start(one, {**os.environ, "MARK": "env"}).wait() == 0
    words = ["-m", "odenet_cli", "train", "seed=1", "model=mlp", f"hydra.run.dir={one.folder}", "resume=auto", "env"]
    assert one.log.read_text().splitlines() == words
    assert one.log == tmp_path / "cells" / "ab12.log"


def test_what_a_process_says_does_not_go_through_a_link(job, tmp_path):
    one = job("a")
    (tmp_path / "precious").write_text("mine")
    one.log.symlink_to(tmp_path / "precious")
    launching.start(CellProcess(one.folder, ("trainer.epochs=-1",)), dict(os.environ)).wait()
    assert (tmp_path / "precious").read_text() == "mine"
    assert "trainer.epochs=-1" in one.log.read_text()
