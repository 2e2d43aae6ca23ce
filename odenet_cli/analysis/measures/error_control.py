"""Measure how a trained ODE-Net responds to its tolerance (figure 3 of Chen et al. 2018), in float64.

`solve`     function evaluations, and the error of z(1) relative to a solve at tolerance `reference`; per batch and
            tolerance
`time`      time of the forward solves, per tolerance: medians of `repeats` rounds over all tolerances
`gradient`  forward and backward evaluations, and the error of the gradient; per setting, batch and tolerance
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from odenet_cli.analysis.gradcheck import Gradcheck
from odenet_cli.analysis.measures import Row, Rows, config_of
from odenet_cli.analysis.trained import Trained, trained
from odenet_cli.config.schema import Config, GradientConfig, SolverChange, SolverConfig
from odenet_cli.ode import Adaptive, Solution
from odenet_cli.training.evaluate import solved_by

SETTINGS = {  # of panel c: the forward solver, and the norm of the adjoint
    "dopri5, relative norm": ("dopri5", "relative"),
    "dopri5, absolute norm": ("dopri5", "absolute"),
    "Adams, relative norm": ("adams", "relative"),
    "Adams, absolute norm": ("adams", "absolute"),
}
Say = Callable[[str], None]


def synchronized_clock() -> float:
    """Return the time in seconds, after waiting for the work queued on the device."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure(folder: Path, options: dict[str, Any], say: Say) -> list[Row]:
    """Measure as `options` say: tolerances, reference, batches, samples, timing repeats; for `gradient` the same."""
    rows = Rows(folder / "error_control.jsonl")
    config = replace(config_of(folder), dtype="float64")
    return [
        *solve_errors(rows, folder, config, options, say),
        *solve_times(rows, folder, config, options),
        *gradient_errors(rows, folder, config, options["gradient"], say),
    ]


def solve_errors(rows: Rows, folder: Path, config: Config, options: dict[str, Any], say: Say) -> list[Row]:
    """Measure the error of z(1) for each tolerance, on the first batches of the test samples."""
    base = {"kind": "solve", "samples": options["samples"], "reference": options["reference"]}
    net, measured = trained(folder, config, "best", options["samples"]), []
    for n, batch in enumerate(islice(net.data.test.epoch(0), options["batches"])):
        keys = [{**base, "batch": n, "rtol": rtol} for rtol in options["tolerances"]]
        if missing := rows.missing(keys):
            exact, seconds = forward_solve(net, batch, options["reference"])
            say(f"  batch {n + 1}: reference of {exact.stats.nfe_forward:,} evaluations, {seconds:.1f} s")
            for key in missing:
                solution, _ = forward_solve(net, batch, key["rtol"])
                error, stats = ((solution.y - exact.y).norm() / exact.y.norm()).item(), solution.stats
                rows.put(key, {"nfe": stats.nfe_forward, "rejected": stats.rejected, "error": error})
        measured += rows.all(keys)
    return measured


@torch.no_grad()
def forward_solve(net: Trained, batch: Any, tolerance: float) -> tuple[Solution, float]:
    """Return the first solve of a batch by dopri5 at this tolerance, without a limit of steps, and its seconds."""
    solver = Adaptive(method="dopri5", rtol=tolerance, atol=tolerance, max_steps=1_000_000)
    solves: list[tuple[Solution, float]] = []

    def timed(*arguments: Any) -> Solution:
        start = synchronized_clock()
        solves.append((solver(*arguments), synchronized_clock() - start))
        return solves[-1][0]

    with solved_by(net.model.eval(), timed):  # type: ignore[arg-type]
        net.loss_fn(net.model, batch)
    return solves[0]


def solve_times(rows: Rows, folder: Path, config: Config, options: dict[str, Any]) -> list[Row]:
    """Measure the time of a forward solve for each tolerance, in turn, so that other load slows all of them alike."""
    keys = [{"kind": "time", "samples": options["samples"], "rtol": rtol} for rtol in options["tolerances"]]
    if rows.missing(keys):
        net = trained(folder, config, "best", options["samples"])
        batch = next(iter(net.data.test.epoch(0)))
        forward_solve(net, batch, min(options["tolerances"]))  # warms up
        rounds = [[forward_solve(net, batch, key["rtol"]) for key in keys] for _ in range(options["repeats"])]
        for key, solves in zip(keys, zip(*rounds)):
            nfe = solves[0][0].stats.nfe_forward
            rows.put(key, {"nfe": nfe, "time_s": statistics.median(seconds for _, seconds in solves)})
    return rows.all(keys)


def gradient_errors(rows: Rows, folder: Path, config: Config, options: dict[str, Any], say: Say) -> list[Row]:
    """Measure the cost and error of the gradient for each of SETTINGS, on the first batches of the training data."""
    samples, batches, reference = options["samples"], options["batches"], options["reference"]
    keys = [
        {"kind": "gradient", "setting": setting, "rtol": rtol, "batch": n, "samples": samples, "reference": reference}
        for n in range(batches)
        for setting in SETTINGS
        for rtol in options["tolerances"]
    ]
    if missing := rows.missing(keys):
        check = Gradcheck(trained(folder, config, "best", samples), samples, batches, reference)
        for n in dict.fromkeys(key["batch"] for key in missing):
            start = time.perf_counter()
            nfe = check.reference(n).cost.nfe_forward
            say(f"  gradient {n + 1}: reference of {nfe:,} evaluations, {time.perf_counter() - start:.1f} s")
        for key in missing:
            rows.put(key, gradient_error(check, config, key))
    return rows.all(keys)


def gradient_error(check: Gradcheck, config: Config, key: Mapping[str, Any]) -> Row:
    """Return one row: the adjoint of `key["setting"]`, with both solves at its tolerance."""
    method, norm = SETTINGS[key["setting"]]
    solver = SolverConfig(method=method, rtol=key["rtol"], atol=key["rtol"], max_steps=100_000)
    adjoint = GradientConfig(method="adjoint", norm=norm, solver=SolverChange())
    row = check.row(replace(config, solver=solver, gradient=adjoint), key["batch"])
    names = ("nfe_forward", "nfe_backward", "error", "error_steps", "failed")
    return {name: row[name] for name in names if name in row}
