"""Score a trained network at other tolerances than its own, and measure the error of its gradient.

`score`     test error, function evaluations, and the `wrong` test samples; per tolerance
`gradient`  error of the gradient of training, relative to that at tolerance `reference` in float64; per batch
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from odenet_cli.analysis.gradcheck import Gradcheck
from odenet_cli.analysis.measures import Row, Rows, config_of
from odenet_cli.analysis.trained import trained
from odenet_cli.config.resolve import eval_batch, eval_solver
from odenet_cli.config.schema import Config, SolverChange
from odenet_cli.training import build
from odenet_cli.training.evaluate import evaluate


def measure(folder: Path, options: dict[str, Any], say: Callable[[str], None]) -> list[Row]:
    """Measure as `options` say: the tolerances; and for the gradient samples per batch, batches, reference."""
    rows, config = Rows(folder / "tolerance.jsonl"), config_of(folder)
    scores = score(rows, folder, config, options["tolerances"])
    return scores + gradient_errors(rows, folder, config, options["gradient"], say)


def score(rows: Rows, folder: Path, config: Config, tolerances: list[float]) -> list[Row]:
    """Score the best weights on the test samples at each of the tolerances, with the method used to score the run."""
    keys = [{"kind": "score", "rtol": rtol} for rtol in tolerances]
    if missing := rows.missing(keys):
        net = trained(folder, config, "best", eval_batch(config))
        for key in missing:
            at = replace(config, eval=replace(config.eval, solver=SolverChange(rtol=key["rtol"], atol=key["rtol"])))
            build.configure_backends(at, net.device)
            answers: dict[str, Tensor] = {}
            solver, limit = build.solver(eval_solver(at)), config.trainer.limit_batches
            scores = evaluate(net.model, net.loss_fn, net.data.test, solver, limit, build.eval_dtype(at), answers)
            wrong = (answers["predicted"] != answers["label"]).nonzero().flatten().tolist()
            names = ("error", "loss", "nfe_forward", "rejected", "time_s")
            rows.put(key, {**{name: scores[name] for name in names}, "samples": len(answers["label"]), "wrong": wrong})
    return rows.all(keys)


def gradient_errors(
    rows: Rows, folder: Path, config: Config, options: dict[str, Any], say: Callable[[str], None]
) -> list[Row]:
    """Compare the gradients of the run's own settings on the first batches of its training data with the reference."""
    samples, batches, reference = options["samples"], options["batches"], options["reference"]
    keys = [{"kind": "gradient", "samples": samples, "reference": reference, "batch": n} for n in range(batches)]
    if missing := rows.missing(keys):
        check = Gradcheck(trained(folder, config, "best", samples), samples, batches, reference)
        for key in missing:
            row = check.row(config, key["batch"])
            names = ("nfe_forward", "nfe_backward", "error", "error_steps", "failed", "reference_nfe")
            rows.put(key, {name: row[name] for name in names if name in row})
        say(f"  gradient: {batches} batches of {samples} samples beside a reference at {reference:g}")
    return rows.all(keys)
