#!/usr/bin/env python3
"""Measure what defaults are decided by, and write odenet_cli/training/measured.json:

    python scripts/bench/defaults.py compile            a few minutes; steps from results/bench, compilation anew
    python scripts/bench/defaults.py backward RUN …     a minute a run: ODE-Nets of images

Of the two the other is kept. `odenet_cli/training/measured.py` says what is made of them.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from odenet_cli.analysis.gradcheck import solver_of
from odenet_cli.analysis.witnesses import Comparison, Row
from odenet_cli.bench.machine import facts
from odenet_cli.commands import tune
from odenet_cli.files import write_json
from odenet_cli.training.measured import PATH
from odenet_cli.training.progress import Parts
from odenet_cli.training.record import git_commit

BENCH = Path(__file__).resolve().parents[2] / "results" / "bench"
OURS, COMPILED = "odenet ", " compiled"
SOLVES = [("bosh3", 1e-1), ("bosh3", 3e-2), ("bosh3", 1e-2), ("dopri5", 3e-2), ("dopri5", 1e-3)]
FORWARD = {"solver.method": "dopri5", "solver.rtol": 1e-3}
SAMPLES, REFERENCE = 32, 1e-6


def compiled() -> dict[str, Any]:
    """Return the steps of results/bench that were timed both ways, and the CPU seconds of a compilation."""
    rows = []
    for name in ("w1", "w3", "w4"):
        for table in json.loads((BENCH / f"{name}-cpu.json").read_text(encoding="utf-8"))["tables"]:
            times = {cells[0]: float(cells[1]) for cells in table["cells"]}
            rows += [
                {
                    **{"workload": f"{name}: {table['title']}", "gradient": subject.removeprefix(OURS)},
                    **{"convolves": name == "w1", "plain_ms": ms, "compiled_ms": times[subject + COMPILED]},
                }
                for subject, ms in times.items()
                if subject + COMPILED in times and subject.startswith(OURS)
            ]
    return {"rows": rows, "compilation_s": round(train_s("true") - train_s("false"), 1)}


def train_s(mode: str) -> float:
    """Return the CPU seconds of two steps of a flow in a process of its own, nothing compiled before."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        words = ["model=cnf", "data=moons", "device=cpu", "trainer.max_steps=2", "trainer.limit_batches=1"]
        command = [
            "train",
            *words,
            "trainer.certify=0",
            "logger=none",
            f"compile={mode}",
            f"hydra.run.dir={folder}/run",
        ]
        env = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": f"{folder}/cache"}
        subprocess.run([sys.executable, "-m", "odenet_cli", *command], check=True, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def backward(folder: str) -> list[dict[str, Any]]:
    """Return what each backward solve evaluates and how far it is off, at the best and the first weights of a run."""
    request = tune.PARSER.parse([folder, f"samples={SAMPLES}"])
    tuner = tune.assemble(request, {}, Parts(1))
    rows = []
    for weights, state in zip(("best", "first"), tuner.weights):
        tuner.model.load_state_dict(state)
        reference = Comparison(tuner.net, solver_of(tuner.run), SAMPLES, REFERENCE)

        def measure(keys: dict[str, Any], reference: Comparison = reference) -> Row:
            return reference.own(solver_of(tuner.change(tuner.run, {**FORWARD, **keys})), reference.dtype)

        replay = measure({"gradient.method": "replay"})
        for method, rtol in SOLVES:
            keys = {"gradient.method": "adjoint", "gradient.solver.method": method, "gradient.solver.rtol": rtol}
            row = measure(keys)
            assert row.cost is not None
            rows.append(
                {
                    **{
                        "run": Path(folder).name,
                        "data": tuner.run.data["name"],
                        "step": tuner.net.step if weights == "best" else 0,
                    },
                    **{"method": method, "rtol": rtol, "nfe_backward": row.cost.nfe_backward, "error": row.gradient},
                    **{"replay_error": replay.gradient},
                }
            )
    return rows


def main() -> None:
    """Measure what is asked for, and keep the rest of the file."""
    kind, *folders = sys.argv[1:]
    content = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {}
    about = {
        **facts(torch.device("cpu"), [], {}),
        "commit": git_commit(),
        "command": f"python scripts/bench/defaults.py {kind}",
    }
    if kind == "compile":
        found = compiled()
    else:
        found = {
            "forward": FORWARD,
            "samples": SAMPLES,
            "reference": REFERENCE,
            "rows": [row for folder in folders for row in backward(folder)],
        }
    write_json(PATH, {**content, kind: {**found, "made": about}})


if __name__ == "__main__":
    main()
