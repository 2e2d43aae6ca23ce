"""Make the record `run.json`: what a run was made with, and its final numbers."""

from __future__ import annotations

import platform
import subprocess
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

import odenet_cli
from odenet_cli import threads
from odenet_cli.metrics import mean_nfe, read_metrics, steps_of
from odenet_cli.ode import Stats
from odenet_cli.rundir import FORMAT
from odenet_cli.training import device
from odenet_cli.training.identity import origin_sha256
from odenet_cli.training.session import Session

COUNTS = tuple(field.name for field in fields(Stats))


def opening(
    session: Session,
    command: str,
    overrides: list[str],
    data_record: dict[str, Any] | None,
    before: dict[str, Any],
    longer: Mapping[str, str],
) -> dict[str, Any]:
    """Return the record of a run that starts or, given its record `before`, continues, with the settings in `longer`
    changed: a schedule of another length was followed until then."""
    resumed = {"at": now(), "step": session.step, **({"changed": dict(longer)} if longer else {})}
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
        "origin": before.get("origin") if before else origin_sha256(session.config.checkpoint),
        "device": device.describe(session.device),
        "threads": torch.get_num_threads(),
        "wait_policy": threads.wait_policy(),
        "git": git_commit(),
        "versions": {
            "odenet": odenet_cli.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "started": before.get("started") or now(),
        "resumed": [*(before.get("resumed") or []), resumed] if before else [],
    }


def final(session: Session, scores: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return the run's numbers: test scores of the best weights, and the cost of training by its log."""
    train = [record for record in read_metrics(folder) if record["split"] == "train"]
    peaks = [record["peak_mib"] for record in train if record["peak_mib"] is not None]
    best = session.best or {}
    cost = mean_nfe(train)
    if "estimates" in scores:  # a fit's steps differ, and the last one only sees that it is done
        total = round(sum(record["nfe_forward"] * count for record, count in zip(train, steps_of(train))))
        cost |= {"nfe_forward": total / session.step, "nfe_total": total}
    return {
        **{name: value for name, value in scores.items() if name not in COUNTS and name != "time_s"},
        **cost,
        "nfe_test": scores["nfe_forward"],
        **({"gradient_error": error} if (error := session.certificates.error) is not None else {}),
        "saved_mib": max(record["saved_mib"] for record in train),
        "peak_mib": max(peaks, default=None),
        "step": session.step,
        "epoch": session.epoch,
        "best_epoch": best.get("epoch"),
        "valid_error": best.get("error"),
        "valid_loss": best.get("loss"),
        "time_s": session.elapsed_s,
    }


def git_commit() -> str | None:
    """Return the commit of the source this runs from, with a plus where it was changed; None outside a checkout."""
    root = Path(odenet_cli.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        # Else `status` writes what it learns to the index; a kill, or a full disk, would leave the checkout locked.
        git = ["git", "--no-optional-locks", "-C", str(root)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10).stdout.strip()
        dirty = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return (head + "+" * bool(dirty.strip())) or None


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
