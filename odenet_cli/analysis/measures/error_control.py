"""How a trained ODE-Net answers to its tolerance (figure 3 of Chen et al. 2018), in float64.

`solve`     evaluations, and the error of z(1) against a solve at the tolerance `reference`; by batch and tolerance
`time`      time of the forward solves, by tolerance: medians of `repeats` rounds over all tolerances
`gradient`  evaluations both ways, and the error of the gradient; by setting, batch and tolerance
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from odenet_cli.analysis.gradcheck import Gradcheck
from odenet_cli.analysis.measures import Row, Rows, config_of
from odenet_cli.analysis.trained import Trained, trained
from odenet_cli.config.schema import Config, GradientConfig, SolverChange, SolverConfig
from odenet_cli.ode import Adaptive, Solution, Solver
from odenet_cli.training.evaluate import solved_by

SETTINGS = {  # of panel c: the forward solver, and the norm of the adjoint
    "dopri5, relative norm": ("dopri5", "relative"),
    "dopri5, absolute norm": ("dopri5", "absolute"),
    "Adams, relative norm": ("adams", "relative"),
    "Adams, absolute norm": ("adams", "absolute"),
}


@dataclass(frozen=True)
class Seen:
    """`of`, and what its solves were: (solution, seconds)."""

    of: Solver
    solves: list[tuple[Solution, float]] = field(default_factory=list)

    def __call__(self, *arguments: Any) -> Solution:
        begun = clock()
        solution = self.of(*arguments)
        self.solves.append((solution, clock() - begun))
        return solution


def clock() -> float:
    """Seconds, once the device has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(folder: Path, options: dict[str, Any], say: Callable[[str], None]) -> list[Row]:
    """`options`: tolerances, reference, batches, samples of each, repeats of the timing; and `gradient`, the same."""
    rows = Rows(folder / "error_control.jsonl")
    config = replace(config_of(folder), dtype="float64")
    kept = solved(rows, folder, config, options, say)
    kept += timed(rows, folder, config, options)
    return kept + differentiated(rows, folder, config, options["gradient"], say)


def solved(rows: Rows, folder: Path, config: Config, options: dict[str, Any], say: Callable[[str], None]) -> list[Row]:
    """The error of z(1) by tolerance, on the first batches of the test samples."""
    base = {"kind": "solve", "samples": options["samples"], "reference": options["reference"]}
    net, kept = trained(folder, config, "best", options["samples"]), []
    for number, batch in enumerate(islice(net.data.test.epoch(0), options["batches"])):
        keys = [{**base, "batch": number, "rtol": tol} for tol in options["tolerances"]]
        if missing := rows.missing(keys):
            begun = time.perf_counter()
            exact = state(net, batch, options["reference"])
            seconds = time.perf_counter() - begun
            say(f"  batch {number + 1}: reference of {exact.stats.nfe_forward:,} evaluations, {seconds:.1f} s")
            for key in missing:
                found = state(net, batch, key["rtol"])
                error = ((found.y - exact.y).norm() / exact.y.norm()).item()
                rows.put(key, {"nfe": found.stats.nfe_forward, "rejected": found.stats.rejected, "error": error})
        kept += rows.all(keys)
    return kept


def state(net: Trained, batch: Any, tolerance: float) -> Solution:
    """The solution, z(1), of a batch at this tolerance."""
    solution: Solution = seen(net, batch, tolerance).solves[0][0]
    return solution


@torch.no_grad()
def seen(net: Trained, batch: Any, tolerance: float) -> Any:
    """The forward solve of a batch by dopri5 at this tolerance, whatever steps that needs, with its time."""
    watched: Any = Seen(Adaptive(method="dopri5", rtol=tolerance, atol=tolerance, max_steps=1_000_000))
    with solved_by(net.model.eval(), watched):
        net.loss_fn(net.model, batch)
    return watched


def timed(rows: Rows, folder: Path, config: Config, options: dict[str, Any]) -> list[Row]:
    """The time of a forward solve by tolerance; all tolerances take turns, so that a busy machine harms all alike."""
    keys = [{"kind": "time", "samples": options["samples"], "rtol": tol} for tol in options["tolerances"]]
    if rows.missing(keys):
        net = trained(folder, config, "best", options["samples"])
        batch = next(iter(net.data.test.epoch(0)))
        seen(net, batch, min(key["rtol"] for key in keys))  # pays for warming up
        rounds = [[seen(net, batch, key["rtol"]).solves[0] for key in keys] for _ in range(options["repeats"])]
        for key, solves in zip(keys, zip(*rounds)):
            nfe = solves[0][0].stats.nfe_forward
            rows.put(key, {"nfe": nfe, "time_s": statistics.median(spent for _, spent in solves)})
    return rows.all(keys)


def differentiated(
    rows: Rows, folder: Path, config: Config, options: dict[str, Any], say: Callable[[str], None]
) -> list[Row]:
    """The gradient's cost and error in each of SETTINGS, on the first batches of the training data."""
    samples, batches, reference = options["samples"], options["batches"], options["reference"]
    keys = [
        {
            "kind": "gradient",
            "setting": setting,
            "rtol": tol,
            "batch": number,
            "samples": samples,
            "reference": reference,
        }
        for number in range(batches)
        for setting in SETTINGS
        for tol in options["tolerances"]
    ]
    if missing := rows.missing(keys):
        check = Gradcheck(trained(folder, config, "best", samples), samples, batches, reference)
        for number in dict.fromkeys(key["batch"] for key in missing):
            begun = time.perf_counter()
            nfe = check.reference(number).cost.nfe_forward
            say(f"  gradient {number + 1}: reference of {nfe:,} evaluations, {time.perf_counter() - begun:.1f} s")
        for key in missing:
            rows.put(key, gradient(check, config, key))
    return rows.all(keys)


def gradient(check: Gradcheck, config: Config, key: Mapping[str, Any]) -> Row:
    """One row: the adjoint of `key["setting"]`, both solves at its tolerance."""
    method, norm = SETTINGS[key["setting"]]
    solver = SolverConfig(method=method, rtol=key["rtol"], atol=key["rtol"], max_steps=100_000)
    adjoint = GradientConfig(method="adjoint", norm=norm, solver=SolverChange())
    row = check.row(replace(config, solver=solver, gradient=adjoint), key["batch"])
    names: Sequence[str] = ("nfe_forward", "nfe_backward", "error", "error_steps", "failed")
    return {name: row[name] for name in names if name in row}
