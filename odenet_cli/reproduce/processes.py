"""Run the cells of a reproduction: each an `odenet train` in a process of its own, some side by side."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from odenet_cli import threads
from odenet_cli.errors import Interrupted, first_line
from odenet_cli.lock import is_locked
from odenet_cli.rundir import read_record
from odenet_cli.training.signals import Stop

POLL_S = 0.2
GRACE_S = 60.0  # for a run to write its checkpoint when it is told to stop
PR_SET_PDEATHSIG = 1  # of Linux's prctl: the signal that a process gets when its parent ends
_LIBC = ctypes.CDLL(None)


@dataclass(frozen=True)
class CellProcess:
    """Hold the overrides of `odenet train` for the run in `folder`."""

    folder: Path
    overrides: tuple[str, ...]

    @property
    def log(self) -> Path:
        return self.folder.with_name(f"{self.folder.name}.log")


def launch(
    jobs: Sequence[CellProcess], at_once: int, gpus: int, update: Callable[[set[Path]], None]
) -> dict[Path, str]:
    """Run the jobs that are not done, `at_once` side by side, and return folder -> reason of those that failed.

    Several times a second `update(running)` is called, with the folders of the runs under way. A run that another
    process works on is waited for. On SIGINT and SIGTERM the runs write their checkpoints and `Interrupted` is raised.
    """
    waiting, failed = [job for job in jobs if not is_done(job.folder)], dict[Path, str]()
    running: dict[int, tuple[CellProcess, subprocess.Popen[bytes]]] = {}  # by slot, which has a GPU of its own
    with Stop() as stop:
        try:
            while waiting or running:
                for job in [job for job in waiting if not is_locked(job.folder)]:
                    slot = next((slot for slot in range(at_once) if slot not in running), None)
                    if slot is None:
                        break
                    waiting.remove(job)
                    if not is_done(job.folder):  # by that other process
                        running[slot] = job, start(job, environment(slot, at_once, gpus))
                for slot, (job, process) in list(running.items()):
                    if process.poll() is not None:
                        del running[slot]
                        if is_locked(job.folder):  # another process took it a moment earlier, and ours was refused
                            waiting.append(job)
                        elif not is_done(job.folder):
                            failed[job.folder] = failure_reason(job, process.returncode)
                update({job.folder for job, _ in running.values()})
                if stop.name:
                    raise Interrupted(stop.name, stop.code, "the same command continues")
                time.sleep(POLL_S)
        finally:
            end([process for _, process in running.values()])
    return failed


def is_done(folder: Path) -> bool:
    return read_record(folder).get("status") == "done"


def start(job: CellProcess, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the process of a job; on Linux it ends with this one."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    job.log.unlink(missing_ok=True)  # where it is a link, only the link goes
    words = [*job.overrides, f"hydra.run.dir={job.folder}", "resume=auto"]
    with open(job.log, "xb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "odenet_cli", "train", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=env,
            preexec_fn=partial(_end_with_parent, os.getpid()) if sys.platform == "linux" else None,
        )


def _end_with_parent(parent: int) -> None:
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it ended before the call, so no signal will come
        os.kill(os.getpid(), signal.SIGTERM)


def environment(slot: int, at_once: int, gpus: int) -> dict[str, str]:
    """Return the environment of the process in `slot`: its share of the cores and, of several GPUs, one of its own."""
    env = dict(os.environ)
    if at_once > 1:
        env.setdefault("OMP_NUM_THREADS", str(threads.share(at_once)))
    if gpus > 1:
        visible = env.get("CUDA_VISIBLE_DEVICES", "").split(",") if env.get("CUDA_VISIBLE_DEVICES") else range(gpus)
        env["CUDA_VISIBLE_DEVICES"] = str(visible[slot % len(visible)])
    return env


def failure_reason(job: CellProcess, exit_code: int) -> str:
    """Return in one line why a run failed: from its record or, if it has none, from its output."""
    if exit_code < 0:
        name = signal.Signals(-exit_code).name
        return f"killed by {name}" + (", perhaps for lack of memory" if name == "SIGKILL" else "")
    recorded = read_record(job.folder).get("reason") if exit_code != 2 else None  # refused: the record is older
    lines = [line for line in job.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    reason = recorded or (errors or lines or [f"exit code {exit_code}"])[-1]
    return first_line(reason).removeprefix("error: ")


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Tell the runs to stop, and kill those that do not end within `GRACE_S`."""
    for process in processes:
        process.terminate()
    limit = time.monotonic() + GRACE_S
    while any(process.poll() is None for process in processes) and time.monotonic() < limit:
        time.sleep(POLL_S)
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()
