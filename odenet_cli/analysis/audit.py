"""Test whether a trained network still is an ordinary differential equation, or depends on the steps of its training.

Ott, Katiyar, Hennig & Tiemann, "ResNet after all: neural ODEs and their numerical solution" (2020): a network trained
with coarse steps can rely on their errors, and is then less accurate with a finer solver, closer to the equation.

A network is not an ODE any more if a finer solver than that of its training loses more than 0.2 points of accuracy,
and McNemar's exact test on the same samples gives p < 0.01.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from odenet_cli.analysis.trained import Trained
from odenet_cli.config.resolve import changed
from odenet_cli.config.schema import SolverChange, SolverConfig
from odenet_cli.errors import RequestError
from odenet_cli.ode import SolveError, Stats, method, tally
from odenet_cli.precision import EPS
from odenet_cli.scores import mcnemar_p
from odenet_cli.training import build
from odenet_cli.training.evaluate import Over, mean_cost, solved_by, unwatched

MIN_SAMPLES = 1_000
MAX_LOSS, SIGNIFICANT = 0.002, 0.01
FIXED, STEPS = ("euler", "midpoint", "rk4"), (1, 2, 4, 8, 16)
ADAPTIVE, TOLERANCES = ("dopri5",), (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


def solvers_to_try(
    own: SolverConfig, dtype: str, tolerances: Sequence[float] = (), steps: Sequence[int] = ()
) -> list[SolverConfig]:
    """Return the solvers to compare with `own`, that of the training; other settings of its method are among them.

    If no tolerances or steps are given, finer ones than those of `own` are added to the usual ones, as far as `dtype`
    resolves them.
    """
    fixed, adaptive, ratio = [*FIXED], [*ADAPTIVE], 1.0
    usual_tolerances, usual_steps = {*TOLERANCES}, {*STEPS}
    if own.steps is not None:
        fixed.append(own.method)
        usual_steps |= {own.steps, 2 * own.steps, 4 * own.steps}
    elif own.rtol is not None and own.atol is not None:
        adaptive.append(own.method)
        ratio = own.atol / own.rtol
        tighter = [float(f"{own.rtol / factor:g}") for factor in (10, 100)]  # 1e-06, not 1.0000000000000002e-06
        usual_tolerances |= {own.rtol, *(rtol for rtol in tighter if rtol >= EPS[dtype])}
    changes = [
        SolverChange(method=method, steps=count)
        for method in dict.fromkeys(fixed)
        for count in (dict.fromkeys(steps) or sorted(usual_steps))
    ]
    changes += [
        SolverChange(method=method, rtol=rtol, atol=rtol * ratio)
        for method in dict.fromkeys(adaptive)
        for rtol in (dict.fromkeys(tolerances) or sorted(usual_tolerances, reverse=True))
    ]
    solvers = [changed(own, change) for change in changes]
    return [s for s in solvers if (s.method, s.rtol, s.steps) != (own.method, own.rtol, own.steps)]


class Audit:
    """Hold a trained network, its samples, and its predictions with `own`, the solver of its training.

    The samples are those of the test or, if these are fewer than 1,000, all samples, in batches of `batch_size`.

    over      iterates over the batches, given their number, and may show the progress
    baseline  the record of `own`
    """

    def __init__(self, run: Trained, own: SolverConfig, batch_size: int, over: Over = unwatched) -> None:
        if run.data.task != "classify":
            raise RequestError(
                f"the task of this run is {run.data.task}, not classification: there are no right answers to count.\n"
                "  Name a run that classifies, such as one of data=mnist or data=digits."
            )
        splits = dict(reversed(run.splits(batch_size).items()))  # the test first
        if run.data.test.size >= MIN_SAMPLES:
            splits = {"test": run.data.test}
        self.samples = {name: split.size for name, split in splits.items() if split.size}
        if (count := sum(self.samples.values())) < MIN_SAMPLES:
            raise RequestError(f"this run has {count} samples in total; an audit needs at least {MIN_SAMPLES:,}.")
        self.batches = [batch for split in splits.values() for batch in split.epoch(0)]
        self.model, self.over = run.model.eval(), over
        self.correct, record = self.answers(own)
        self.baseline = {**record, "lost": 0, "gained": 0, "p": 1.0, "finer": False}

    def row(self, solver: SolverConfig) -> dict[str, Any]:
        """Return the record of `solver`, compared with the baseline sample by sample, or the reason why it `failed`."""
        try:
            correct, record = self.answers(solver)
        except SolveError as error:
            return {**solver.record(), "finer": False, "failed": str(error)}
        lost, gained = int((self.correct & ~correct).sum()), int((correct & ~self.correct).sum())
        p = mcnemar_p(lost, gained)
        return {**record, "lost": lost, "gained": gained, "p": p, "finer": is_finer(record, self.baseline)}

    @torch.no_grad()
    def answers(self, solver: SolverConfig) -> tuple[Tensor, dict[str, Any]]:
        """Return which samples are classified correctly, (N,), and a record. The network sees each sample once."""
        outputs, cost = [], Stats()
        with solved_by(self.model, build.solver(solver)):
            for x, _ in self.over(self.batches, len(self.batches)):
                with tally() as solves:
                    outputs.append(self.model(x))
                cost = sum(solves, start=cost)
        logits, labels = torch.cat(outputs), torch.cat([label for _, label in self.batches])
        correct = logits.argmax(1) == labels
        scores = {
            "loss": F.cross_entropy(logits.cpu().double(), labels.cpu()).item(),
            "error": (~correct).cpu().double().mean().item(),
        }
        order = getattr(method(solver.method), "order", None)
        return correct, {**solver.record(), "order": order, **scores, **mean_cost(cost, len(self.batches))}

    def about(self, data: str) -> str:
        """Return a description of the samples, and of what so few cannot resolve."""
        count = sum(self.samples.values())
        text = f"{count:,} samples of {data}: " + " + ".join(f"{size:,} {name}" for name, size in self.samples.items())
        if len(self.samples) > 1:
            text += f" together, as the test split alone has fewer than {MIN_SAMPLES:,}"
        if (loss := least_significant_loss(count)) > MAX_LOSS:
            text += f"\nwith so few samples, a loss below {100 * loss:.2f} points is never significant"
        return text


def is_finer(row: dict[str, Any], own: dict[str, Any]) -> bool:
    """Return whether the solver of `row` is finer than `own`: it has a tighter tolerance or, if one of the two has no
    tolerance, it takes more steps with a method of the same or a higher order."""
    if row["rtol"] is not None and own["rtol"] is not None:
        return bool(row["rtol"] < own["rtol"])
    if row["order"] is None or own["order"] is None:  # a multistep method has many
        return False
    return bool(row["accepted"] > own["accepted"] and row["order"] >= own["order"])


def least_significant_loss(count: int) -> float:
    """Return the smallest significant loss, as a fraction of `count` samples, if no sample is gained."""
    return next(lost for lost in range(1, 100) if mcnemar_p(lost, 0) < SIGNIFICANT) / count


def conclude(rows: Sequence[dict[str, Any]]) -> tuple[str, dict[str, Any] | None]:
    """Return `ode`, `not an ode`, or `open` if no finer solver was tried; and the row of the worst finer solver. The
    first row is that of the solver of the training."""
    finer = [row for row in rows if row["finer"]]
    worse = [row for row in finer if row["p"] < SIGNIFICANT and row["error"] - rows[0]["error"] > MAX_LOSS]
    worst = max(worse or finer, key=lambda row: row["error"], default=None)
    return "not an ode" if worse else "ode" if finer else "open", worst
