"""The cells of a reproduction: each an `odenet train` of its own, in a process of its own, some side by side."""

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
from odenet_cli.errors import Interrupted
from odenet_cli.rundir import is_locked, read_record
from odenet_cli.training.signals import Stop

POLL_S = 0.2
GRACE_S = 60.0  # for a run to keep its checkpoint when it is told to stop
DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl
_C = ctypes.CDLL(None)


@dataclass(frozen=True)
class Job:
    """`words` of `odenet train`, for the run in `folder`."""

    folder: Path
    words: tuple[str, ...]

    @property
    def log(self) -> Path:
        """What the process said."""
        return self.folder.with_name(f"{self.folder.name}.log")


def launch(jobs: Sequence[Job], at_once: int, gpus: int, look: Callable[[set[Path]], None]) -> dict[Path, str]:
    """Run those that are not done, `at_once` side by side; `look(running)` is called several times a second.

    Returns what the failed ones say. One that another process has in hand is waited for. On SIGINT and SIGTERM the runs
    keep their checkpoints, and `Interrupted` is raised.
    """
    waiting, failed = [job for job in jobs if not done(job.folder)], dict[Path, str]()
    running: dict[int, tuple[Job, subprocess.Popen[bytes]]] = {}
    with Stop() as stop:
        try:
            while waiting or running:
                for job in [job for job in waiting if not is_locked(job.folder)]:
                    slot = next((slot for slot in range(at_once) if slot not in running), None)
                    if slot is None:
                        break
                    waiting.remove(job)
                    if not done(job.folder):  # by that other process
                        running[slot] = job, start(job, environment(slot, at_once, gpus))
                for slot, (job, process) in list(running.items()):
                    if process.poll() is not None:
                        del running[slot]
                        if is_locked(job.folder):  # another process was a moment earlier, and this one was turned away
                            waiting.append(job)
                        elif not done(job.folder):
                            failed[job.folder] = reason(job, process.returncode)
                look({job.folder for job, _ in running.values()})
                if stop.name:
                    raise Interrupted(f"{stop.name}; the same command goes on where it was", stop.code)
                time.sleep(POLL_S)
        finally:
            end([process for _, process in running.values()])
    return failed


def done(folder: Path) -> bool:
    """Has the run in `folder` ended well?"""
    return read_record(folder).get("status") == "done"


def start(job: Job, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """The process of `job`; where the system can, it ends with this one."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    job.log.unlink(missing_ok=True)  # of a link only the link goes
    words = [*job.words, f"hydra.run.dir={job.folder}", "resume=auto"]
    with open(job.log, "xb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "odenet_cli", "train", *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=env,
            preexec_fn=partial(_end_with, os.getpid()) if sys.platform == "linux" else None,
        )


def _end_with(parent: int) -> None:
    _C.prctl(DEATH_SIGNAL, signal.SIGTERM)
    if os.getppid() != parent:  # it was gone before this could be said
        os.kill(os.getpid(), signal.SIGTERM)


def environment(slot: int, at_once: int, gpus: int) -> dict[str, str]:
    """What the process in `slot` is given: its share of the cores, and a GPU of its own where there are several."""
    env = dict(os.environ)
    if at_once > 1:
        env.setdefault("OMP_NUM_THREADS", str(threads.share(at_once)))
    if gpus > 1:
        visible = env.get("CUDA_VISIBLE_DEVICES", "").split(",") if env.get("CUDA_VISIBLE_DEVICES") else range(gpus)
        env["CUDA_VISIBLE_DEVICES"] = str(visible[slot % len(visible)])
    return env


def reason(job: Job, code: int) -> str:
    """Why the run did not end well: what its record or, where it did not come so far, its process said."""
    if code < 0:
        name = signal.Signals(-code).name
        return f"killed by {name}" + (", perhaps for want of memory" if name == "SIGKILL" else "")
    told = read_record(job.folder).get("reason") if code != 2 else None
    lines = [line for line in job.log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return str(told or (errors or lines or [f"exit code {code}"])[-1]).partition("\n")[0].removeprefix("error: ")


def end(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Tell the runs to stop, and wait for them; what does not end in time is killed."""
    for process in processes:
        process.terminate()
    limit = time.monotonic() + GRACE_S
    while any(process.poll() is None for process in processes) and time.monotonic() < limit:
        time.sleep(POLL_S)
    for process in processes:
        if process.poll() is None:
            process.kill()
            process.wait()
