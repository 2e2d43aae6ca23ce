"""`run.json`: what a run was, how it ended, and why."""

from __future__ import annotations

import os
import platform
import resource
import shlex
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

import odenet_cli
from odenet_cli import threads
from odenet_cli.errors import Interrupted, OdenetError, RunFailed, described, exhausted, full, no_space, told
from odenet_cli.models import solvers
from odenet_cli.ode import Stats
from odenet_cli.rundir import FORMAT, read_metrics
from odenet_cli.training import device
from odenet_cli.training.keeper import FAILED
from odenet_cli.training.loop import Session
from odenet_cli.training.memory import MIB
from odenet_cli.training.progress import duration, number, percent
from odenet_cli.training.same import origin

COUNTS = tuple(field.name for field in fields(Stats))


def final(session: Session, scores: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The numbers of the run: the test score of the weights chosen on validation, the cost of training by its log."""
    train = [record for record in read_metrics(folder) if record["split"] == "train"]
    peaks = [record["peak_mib"] for record in train if record["peak_mib"] is not None]
    best = session.best or {}
    return {
        **{name: value for name, value in scores.items() if name not in COUNTS and name != "time_s"},
        "nfe_forward": train[-1]["nfe_forward"],
        "nfe_backward": train[-1]["nfe_backward"],
        "nfe_test": scores["nfe_forward"],
        "saved_mib": max(record["saved_mib"] for record in train),
        "peak_mib": max(peaks) if peaks else None,
        "step": session.step,
        "epoch": session.epoch,
        "best_epoch": best.get("epoch"),
        "valid_error": best.get("error"),
        "valid_loss": best.get("loss"),
        "time_s": session.elapsed_s,
    }


def opening(
    session: Session, command: str, overrides: list[str], data_record: dict[str, Any] | None, before: dict[str, Any]
) -> dict[str, Any]:
    """The record of a run that begins, or, where there is one `before`, goes on."""
    return {
        "format": FORMAT,
        "status": "running",
        "reason": None,
        "final": None,
        "name": session.config.name,
        "command": command,
        "overrides": overrides,
        "parameters": sum(p.numel() for p in session.model.parameters()),
        "data": {**session.data.record, **(data_record or {})},
        "origin": before.get("origin") if before else origin(session.config.checkpoint),
        "device": device.describe(session.device),
        "threads": torch.get_num_threads(),
        "wait_policy": threads.wait_policy(),
        "git": commit(),
        "versions": {
            "odenet": odenet_cli.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "started": before.get("started") or now(),
        "resumed": [*(before.get("resumed") or []), {"at": now(), "step": session.step}] if before else [],
    }


def explained(error: BaseException, session: Session, folder: Path) -> tuple[str, str, BaseException]:
    """Status and reason for `run.json`, and what to raise."""
    again = f"odenet train {shlex.quote(f'resume={folder}')}"
    if isinstance(error, Interrupted):
        text = f"{error}; the checkpoint is kept. Go on with: {again}"
        return "interrupted", str(error), Interrupted(text, error.code)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "stopped at once by a second SIGINT", error
    if isinstance(error, OSError) and not folder.exists():
        reason = f"the run's folder has gone: {folder} was deleted, moved or renamed while the run was under way."
        return "failed", reason, RunFailed(reason)
    if exhausted(error):
        reason = out_of_memory(session)
        return "failed", reason, RunFailed(reason)
    if full(error):
        reason = f"{no_space(error)}\n  The last checkpoint is as it was. Make room, and go on with: {again}"
        return "failed", reason, RunFailed(reason)
    if isinstance(error, SystemExit):
        return "failed", exited(error), RunFailed(exited(error))
    if not isinstance(error, Exception):  # it means to end the process
        return "failed", told(error), error
    repeat = (folder / "checkpoints" / FAILED).exists()
    more = f"\n  Repeat it with: odenet rerun {shlex.quote(str(folder))}" if repeat else ""
    if isinstance(error, RunFailed):
        return "failed", f"{error}{more}", RunFailed(f"{error}{more}")
    words = described(error)
    if words is None and session.config.model["name"] == "custom" and not isinstance(error, OdenetError):
        target = session.config.model["target"]
        words = f"{told(error)}\n  It arose with the network of model.target={target}; train.log has the traceback."
    if words is None:
        return "failed", f"{told(error)}{more}", error
    return "failed", f"{words}{more}", RunFailed(f"{words}{more}")


def exited(stop: SystemExit) -> str:
    """What is wrong with a network, or a module of a user's, that would end the process, as if all were done."""
    return (
        f"the model called sys.exit({'' if stop.code is None else repr(stop.code)}).\n  Let it raise an error instead."
    )


LEAN = {"backprop": "gradient=replay, adjoint or reversible need", "replay": "gradient=adjoint or reversible need"}


def out_of_memory(session: Session) -> str:
    """How much there was, and what needs less."""
    config = session.config
    if session.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(session.device)
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    lean = LEAN.get(config.gradient.method) if solvers(session.model) else None
    return (
        f"out of memory on {session.device} after step {session.step}: the peak was {peak / MIB:,.0f} MiB with "
        f"trainer.batch_size={config.trainer.batch_size} and gradient={config.gradient.method}.\n"
        f"  Use a smaller trainer.batch_size or eval.batch_size{f'; {lean} less' if lean else ''}."
    )


def last_line(final: dict[str, Any], folder: Path) -> str:
    """What the terminal shows at the end."""
    score = scored(final)
    nfe = f"NFE {number(final['nfe_forward'])} forward, {number(final['nfe_backward'])} backward"
    nfe = nfe if final["nfe_forward"] else "no solver"
    peak = f", {final['peak_mib']:.0f} MiB peak" if final["peak_mib"] is not None else ""
    memory = f"{final['saved_mib']:.1f} MiB saved for backward{peak}"
    return f"{score} | {nfe} | {memory} | {duration(final['time_s'])} | {_short(folder)}"


def scored(final: dict[str, Any]) -> str:
    """The test score: the error of a classifier, else the loss and the other metrics of the task."""
    if "error" in final:
        return f"test error {percent(final['error'])}"
    shown = [name for name in list(final)[: list(final).index("nfe_forward")] if not name.endswith(("_sd", "_se"))]
    if any(final[name] == final["loss"] for name in shown if name != "loss"):
        shown.remove("loss")  # said under its own name
    return "test " + ", ".join(f"{name} {final[name]:.4g}" for name in shown)


def _short(folder: Path) -> str:
    relative = os.path.relpath(folder)
    return str(folder) if relative.startswith("..") else relative


def commit() -> str | None:
    """The commit of the source this runs from, with a plus where it was changed; None outside a checkout."""
    root = Path(odenet_cli.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10).stdout.strip()
        dirty = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return (head + "+" * bool(dirty.strip())) or None


def now() -> str:
    """Local time with its zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
