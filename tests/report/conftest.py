"""Run folders written by hand, as real runs leave them."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

CONFIG: dict[str, Any] = {
    "name": "odenet-dopri5",
    "seed": 0,
    "dtype": "float32",
    "device": "auto",
    "deterministic": False,
    "compile": "auto",
    "resume": "none",
    "checkpoint": None,
    "solver": {"method": "dopri5", "rtol": 0.001, "atol": "${.rtol}", "steps": None, "max_steps": 10000},
    "gradient": {
        "method": "adjoint",
        "norm": "relative",
        "control_parameters": False,
        "coupling": 0.999,
        "solver": dict.fromkeys(("method", "rtol", "atol", "steps", "max_steps")),
    },
    "model": {"name": "odenet", "stem": "conv", "width": 64, "augment": 0},
    "data": {"name": "digits", "crop": 2, "validation": 144},
    "optim": {"name": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 0.0, "milestones": [0.375], "decay": 0.1},
    "trainer": {
        **{"epochs": 3, "steps": None, "max_steps": None, "batch_size": 8},
        **{"log_every": 50, "checkpoint_every": 200, "limit_batches": None},
    },
    "eval": {"solver": dict.fromkeys(("method", "rtol", "atol", "steps", "max_steps")), "batch_size": None},
}
MLP = {"model": {"name": "mlp", "hidden": 300}}
RECORD: dict[str, Any] = {
    "status": "done",
    "reason": None,
    "name": "odenet-dopri5",
    "command": "odenet train -m model=odenet",
    "overrides": [],
    "parameters": 208266,
    "data": {"used": "digits", "sha256": "8f26b2bd", "root": None, "warning": None, "requested": "digits"},
    "device": "cpu (1 threads)",
    "threads": 1,
    "git": "f31175c9",
    "versions": {"odenet": "0.1.0", "python": "3.11.7", "torch": "2.14.1"},
    "started": "2026-11-25T08:21:14+0000",
    "resumed": [],
    "finished": "2026-11-25T08:22:14+0000",
}
COST = {"nfe_forward": 20, "nfe_backward": 26, "vjps": 26, "accepted": 3, "rejected": 0}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`base` with `changes`: dotted keys go down, a dictionary takes the place of what was there."""
    made = copy.deepcopy(base)
    for key, value in changes.items():
        *sections, last = key.split(".")
        where = made
        for section in sections:
            where = where[section]
        where[last] = value
    return made


def write_run(
    folder: Path,
    config: dict[str, Any] | None = None,
    error: float | None = 0.05,
    loss: float = 0.5,
    final: dict[str, Any] | None = None,
    epochs: int = 3,
    epoch_s: float = 2.0,
    logged: bool = True,
    **record: Any,
) -> Path:
    """A run of `epochs` epochs of 10 steps, logged every 5; `record` changes `run.json`, `final` its numbers."""
    folder.mkdir(parents=True)
    text = yaml.safe_dump(merged(CONFIG, config or {}), sort_keys=False)
    (folder / "config.yaml").write_text("defaults:\n- schema\n- hydra/odenet\n- _self_\n" + text)

    numbers = {**COST, "nfe_test": 20, "saved_mib": 4.0, "peak_mib": None, **(final or {})}
    score = {} if error is None else {"error": error}
    cost = {name: numbers[name] for name in COST}
    scored = {**cost, "nfe_forward": numbers["nfe_test"], "nfe_backward": 0, "vjps": 0}
    lines = []
    for step in range(5, 10 * epochs + 1, 5):
        away = 1 + 10 / step
        shown = {name: min(1.0, value * away) for name, value in score.items()}
        memory = {"step_ms": 1.0, "peak_mib": numbers["peak_mib"], "saved_mib": numbers["saved_mib"]}
        at = {"step": step, "epoch": step // 10}
        lines.append({**at, "split": "train", "lr": 0.05, "loss": loss * away, **shown, **cost, **memory})
        if step % 10 == 0:
            lines.append({**at, "split": "valid", "loss": loss * away, **shown, **scored, "epoch_s": epoch_s})
    lines.append({"step": 10 * epochs, "epoch": epochs, "split": "test", "loss": loss, **score, **scored})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines if logged))

    ended = {"loss": loss, **score, **numbers, "step": 10 * epochs, "epoch": epochs, "time_s": 2.5 * epochs}
    told = {**RECORD, "final": ended, **record}
    (folder / "run.json").write_text(json.dumps({**told, "final": ended if told["status"] == "done" else None}))
    return folder


@pytest.fixture
def write():
    return write_run
