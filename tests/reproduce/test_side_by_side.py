"""Functions of many items in processes side by side: in order, each with its share of the cores, and none left over."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from odenet_cli import threads
from odenet_cli.errors import RunFailed
from odenet_cli.reproduce.side_by_side import side_by_side

# Each process says that it works, by a file in the current folder: a signal before that finds one that still starts.
# The signal is heard also where these tests were started behind a shell's `&`, which has it ignored.
WAITING = """
import signal
from odenet_cli.reproduce.side_by_side import side_by_side
signal.signal(signal.SIGINT, signal.default_int_handler)
work = "import os, time; open(str(os.getpid()), 'x'); time.sleep(60)"
list(side_by_side(exec, 9 * [work], 2))
"""


@pytest.mark.parametrize("chosen", [None, "3"])
def test_results_are_in_order_and_the_cores_are_shared(monkeypatch, chosen):
    monkeypatch.setattr(threads, "cores", lambda: 4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if chosen:
        monkeypatch.setenv("OMP_NUM_THREADS", chosen)
    names = [*"abcdef", "OMP_NUM_THREADS"]
    assert list(side_by_side(os.getenv, names, 2)) == [None] * 6 + [chosen or "2"]
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_an_error_is_raised_here_and_a_killed_process_is_told(monkeypatch):
    with pytest.raises(ValueError, match="'x'"):
        list(side_by_side(int, ["1", "x"], 2))
    monkeypatch.setattr(threads, "cores", lambda: 4)
    with pytest.raises(RunFailed, match=r"(?s)one of 2 processes was killed, .* memory.*OMP_NUM_THREADS=4"):
        list(side_by_side(os._exit, [9, 9], 2))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_the_command(tmp_path, number):
    """Ctrl-C reaches all processes, and one traceback is printed; after a SIGKILL nobody could end the others."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], stderr=subprocess.PIPE, text=True, start_new_session=True, cwd=tmp_path
    )
    until(lambda: len(os.listdir(tmp_path)) == 2)
    started = [Path("/proc", pid) for pid in os.listdir(tmp_path)]
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.kill()
    errors = process.communicate(timeout=30)[1]
    assert errors.count("Traceback") == (number == signal.SIGINT), errors
    until(lambda: not any(path.exists() for path in started))


def until(condition):
    """Wait for what another process does."""
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.02)
