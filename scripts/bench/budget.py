#!/usr/bin/env python3
"""Train an ODE-Net on digits under `solver.budget` and at fixed tolerances, and write results/budget:

    python scripts/bench/budget.py SWEEPS      what is missing is trained, one thread, about a minute a run when idle

The mean evaluations are those of all steps of training; the error is that of the 360 test digits at the end.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from odenet_cli.bench.machine import facts
from odenet_cli.bench.table import opening
from odenet_cli.files import write, write_json
from odenet_cli.markdown import MISSING, markdown_table

OUT = Path(__file__).resolve().parents[2] / "results" / "budget" / "cpu.json"
WORDS = ("data=digits", "model=odenet", "model.width=16", "gradient=backprop", "device=cpu", "trainer.epochs=5")
WORDS += ("trainer.certify=0", "logger=none", "seed=0,1,2", "resume=auto")
SWEEPS = {"steered": "solver.budget=14,20,32", "fixed": "solver.rtol=0.6,0.03"}


def read(folder: Path) -> dict[str, Any] | None:
    """Return what a run came to; None where it is not done."""
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    if record["status"] != "done":
        return None
    overrides = dict(word.split("=", 1) for word in folder.name.split("-", 1)[1].split(","))
    evaluations, final = record["cost"]["evaluations"]["forward"], record["final"]
    return {
        "budget": overrides.get("solver.budget"),
        "rtol": overrides.get("solver.rtol"),
        "seed": int(overrides["seed"]),
        "mean_nfe": evaluations / final["step"],
        "test_error": final["error"],
    }


def rows(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the runs by what was asked for, over their seeds."""
    result = []
    for asked in dict.fromkeys((run["budget"], run["rtol"]) for run in runs):
        alike = [run for run in runs if (run["budget"], run["rtol"]) == asked]
        means, errors = ([run[name] for run in alike] for name in ("mean_nfe", "test_error"))
        result.append(
            {
                "asked": f"solver.budget={asked[0]}" if asked[0] else f"solver.rtol={asked[1]}",
                "seeds": len(alike),
                "mean_nfe": statistics.mean(means),
                "least_nfe": min(means),
                "most_nfe": max(means),
                "test_error": statistics.mean(errors),
                "sd": statistics.stdev(errors) if len(errors) > 1 else None,
            }
        )
    return sorted(result, key=lambda row: row["mean_nfe"])


def main() -> int:
    """Train what is missing, and write the table."""
    folder = Path(sys.argv[1]).resolve()
    for name, word in SWEEPS.items():
        command = ["-m", "odenet_cli", "train", "-m", *WORDS, word, f"hydra.sweep.dir={folder / name}"]
        subprocess.run([sys.executable, *command], check=True)
    write_results(folder)
    return 0


def write_results(folder: Path) -> None:
    """Write the table of the runs that are done."""
    runs = [run for path in sorted(folder.glob("*/*/run.json")) if (run := read(path.parent)) is not None]
    about = {**facts(torch.device("cpu"), [], {}), "command": "python scripts/bench/budget.py SWEEPS"}
    about["training"] = " ".join(WORDS[:6])
    OUT.parent.mkdir(exist_ok=True)
    write_json(OUT, {"facts": about, "rows": rows(runs), "runs": runs})
    write(OUT.with_suffix(".md"), page(about, rows(runs)))
    print(page(about, rows(runs)))


def page(about: dict[str, str], table: list[dict[str, Any]]) -> str:
    """Return the table for reading."""
    head = ["asked for", "seeds", "mean evaluations", "least to most", "test error %", "sd"]
    cells = [
        [
            *(
                row["asked"],
                str(row["seeds"]),
                f"{row['mean_nfe']:.2f}",
                f"{row['least_nfe']:.2f} - {row['most_nfe']:.2f}",
            ),
            *(f"{100 * row['test_error']:.1f}", MISSING if row["sd"] is None else f"{100 * row['sd']:.1f}"),
        ]
        for row in table
    ]
    title = "# budget: evaluations of a training step under solver.budget, and at fixed tolerances"
    return "\n".join([title, "", opening(about), "", markdown_table(head, cells, 1), ""])


if __name__ == "__main__":
    sys.exit(main())
