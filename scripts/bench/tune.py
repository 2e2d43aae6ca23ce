#!/usr/bin/env python3
"""Hold the search of `odenet tune` against all settings, on six workloads, and write results/tune/cpu.md:

    python scripts/bench/tune.py FOLDER [NAME,…]     trains and tunes in FOLDER what is not there; an hour on one core

Each network is trained for a few steps, then `odenet tune RUN all=true` searches for 60 s of CPU time, measures what
the search left out, and times what may be the best in turn. The table is of all that is there.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from scipy.integrate import solve_ivp

from odenet_cli.bench.machine import facts
from odenet_cli.bench.table import opening
from odenet_cli.files import write, write_json
from odenet_cli.markdown import markdown_table
from odenet_cli.training.record import git_commit

OUT = Path(__file__).resolve().parents[2] / "results" / "tune" / "cpu.json"
WORKLOADS = {
    "MNIST": ("model=odenet", "data=mnist", "trainer.batch_size=32"),
    "digits": ("model=odenet", "data=digits"),
    "moons": ("model=cnf", "data=moons"),
    "latent ODE": ("model=latent_ode", "data=spirals"),
    "Lotka-Volterra": ("model=latent_ode", "data=table", "data.path={}"),
    "stiff": ("model=odenet", "data=digits", "model.width=4", "gradient=backprop"),
}
CODE = {"stiff": ("model.field=stiff_field:Stiff",)}  # beside this file; said to both commands
STEPS = 50  # of training


def write_table(path: Path) -> None:
    """Write 64 orbits of Lotka and Volterra's equations, 41 times each."""
    lines = ["series,time,prey,predator"]
    for n in range(64):
        start, times = (20 + 10 * math.sin(n), 10 + 6 * math.cos(3 * n)), [0.5 * k for k in range(41)]
        y = solve_ivp(lotka_volterra, (0, 20), start, t_eval=times, rtol=1e-8, atol=1e-8).y
        lines += [f"s{n},{t:g},{prey:.6g},{predator:.6g}" for t, prey, predator in zip(times, *y)]
    write(path, "\n".join([*lines, ""]))


def lotka_volterra(t: float, y: Any) -> tuple[float, float]:
    return 0.55 * y[0] - 0.028 * y[0] * y[1], 0.024 * y[0] * y[1] - 0.8 * y[1]


def measure(name: str, folder: Path) -> None:
    """Train and tune a workload in `folder`, where that is not done."""
    run, table, code = folder / name.replace(" ", "-"), folder / "orbits.csv", CODE.get(name, ())
    write_table(table)
    words = [word.format(table) for word in WORKLOADS[name]]
    more = (f"trainer.max_steps={STEPS}", "device=cpu", "trainer.certify=0", "logger=none", "resume=auto")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
    for command in (["train", *words, *code, *more, f"hydra.run.dir={run}"], ["tune", str(run), *code, "all=true"]):
        subprocess.run([sys.executable, "-m", "odenet_cli", *command], check=True, env=env)


def row(name: str, folder: Path) -> dict[str, Any] | None:
    """Return what was found on a workload; None where it is not measured."""
    path = folder / name.replace(" ", "-") / "tune.json"
    if not path.is_file():
        return None
    content = json.loads(path.read_text(encoding="utf-8"))
    best, own = (next(row for row in content["rows"] if row[key]) for key in ("best", "own"))
    search = content["search"]
    found = next(row for row in content["rows"] if row["name"] == search["name"])
    return {
        **{"workload": name, "search": search, "cpu_seconds": content["cpu_seconds"]},
        **{"best": best["name"], "best_ms": best["time"], "found_ms": found["time"], "own_ms": own["time"]},
        **{"own": own["name"], "own_gradient": own["gradient"], "found_gradient": found["gradient"]},
    }


def page(about: dict[str, str], rows: list[dict[str, Any]]) -> str:
    """Return the table for reading."""
    head = ["", "found", "s", "settings", "ms a step", "of the best", "best of all", "settings", "of the default"]
    cells = [
        [
            *(row["workload"], ", ".join(row["search"]["name"]), f"{row['search']['seconds']:.0f}"),
            *(str(row["search"]["settings"]), f"{row['found_ms']:.3g}", f"{row['search']['share']:.3f}"),
            *(", ".join(row["best"]), str(row["search"]["of"]), f"{row['found_ms'] / row['own_ms']:.2f}"),
        ]
        for row in rows
    ]
    title = "# tune: the search of `odenet tune` beside all settings, a gradient within 10 % in the least time"
    note = "Times of the last columns: the shortest of a few steps in turn, CPU time of one thread, a whole batch."
    return "\n".join([title, "", opening(about), "", markdown_table(head, cells, 1), "", note, ""])


def main() -> None:
    """Measure what is missing, and write the table."""
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    for name in sys.argv[2].split(",") if len(sys.argv) > 2 else WORKLOADS:
        if row(name, folder) is None:
            measure(name, folder)
    rows = [found for name in WORKLOADS if (found := row(name, folder))]
    about = {**facts(torch.device("cpu"), [], {}), "commit": git_commit() or "unknown"}
    about["command"] = "python scripts/bench/tune.py FOLDER"
    OUT.parent.mkdir(exist_ok=True)
    write_json(OUT, {"facts": about, "rows": rows})
    write(OUT.with_suffix(".md"), page(about, rows))


if __name__ == "__main__":
    main()
