"""Diagnose a run: the solve in which it failed, or the solves of a batch of its training data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch

from odenet_cli import models
from odenet_cli.analysis.rerun import Failure, approach
from odenet_cli.analysis.trained import trained
from odenet_cli.config.schema import Config
from odenet_cli.errors import RunFailed, first_line
from odenet_cli.metrics import read_metrics
from odenet_cli.ode import DenseSolution, Report, Solution, SolveError, Solver, StepLimit, doctor
from odenet_cli.ode.diagnosis import in_words
from odenet_cli.rundir import read_record
from odenet_cli.training import build
from odenet_cli.training.evaluate import converted
from odenet_cli.training.session import Session

Change = Callable[[Config, dict[str, Any]], Config]
DIVERGED = 10.0  # times an earlier loss, or times 1 if that is smaller, since losses near 0 may well vary


class Call(NamedTuple):
    """Hold the arguments of one solve."""

    solver: Solver
    field: Any
    y0: Any
    ts: Any
    args: Sequence[Any] = ()


@dataclass
class Calls:
    """Hold the arguments and outputs of the last 16 solves, and the solve that failed."""

    made: list[Call] = field(default_factory=list)
    states: list[Sequence[torch.Tensor]] = field(default_factory=list)
    failed: Call | None = None

    def watch(self, model: torch.nn.Module) -> None:
        for module in models.solvers(model):
            module.solver = self.watching(module.solver)

    def watching(self, solver: Solver) -> Solver:
        """Return the same solver, which records its calls here."""
        kind: Any = type("Watched", (Watched, type(solver)), {"calls": self})  # on the class, so that copies share it
        watched: Solver = kind(**{key.name: getattr(solver, key.name) for key in fields(kind)})
        return watched


class Watched:
    """Record each call of a solver before it is made, and the one that raises."""

    calls: Calls

    def __call__(self, field: Any, y0: Any, ts: Any, args: Any = (), parameters: Any = ()) -> Solution:
        with self.noted(Call(self, field, y0, ts, args)):  # type: ignore[arg-type]
            solution: Solution = super().__call__(field, y0, ts, args, parameters)  # type: ignore[misc]
        parts = (solution.y,) if isinstance(solution.y, torch.Tensor) else solution.y
        self.calls.states = [*self.calls.states[-15:], [part.detach() for part in parts]]
        return solution

    def dense(self, field: Any, y0: Any, ts: Any, args: Any = ()) -> DenseSolution:
        with self.noted(Call(self, field, y0, ts, args)):  # type: ignore[arg-type]
            return super().dense(field, y0, ts, args)  # type: ignore[misc, no-any-return]

    @contextmanager
    def noted(self, call: Call) -> Iterator[None]:
        """Record a call that is made inside, and whether it fails."""
        self.calls.made = [*self.calls.made[-15:], call]
        try:
            yield
        except SolveError:
            self.calls.failed = call
            raise


class Diagnosis(NamedTuple):
    """Hold what is wrong with a run, the keys that mend it, and the result of trying them on the run, as text."""

    report: Report
    keys: Mapping[str, Any] = {}
    outcome: str = ""


def examine(folder: Path, run: Config, say: Callable[[str], None], change: Change) -> Diagnosis:
    """Return what is wrong with the run in `folder`.

    change  returns a config with these keys set, as `odenet rerun` does
    """
    record = read_record(folder)
    if record.get("failed") is None and not str(record.get("reason")).startswith("the run diverged"):
        return of_training_data(folder, run, say)
    losses = [line["loss"] for line in read_metrics(folder) if line["split"] == "train"]
    calls = Calls()

    def prepare(session: Session) -> None:
        calls.watch(session.model)
        session.scorer = session.scorer and calls.watching(session.scorer)

    try:
        failure = approach(folder, run, run, say)
        words = failure.repeat(run, prepare)
    except RunFailed as error:
        say(f"It fails again: {first_line(error)}")
        if not isinstance(error.__cause__, SolveError) or (losses and has_diverged((0, min(losses)), (0, losses[-1]))):
            return of_divergence(folder, run, losses, say)
        return of_solve(failure, error.__cause__, calls, losses, say, change)
    return Diagnosis(Report(kind="sound", reason=f"what failed was repeated. {words.rstrip('.')}"))


def of_training_data(folder: Path, run: Config, say: Callable[[str], None]) -> Diagnosis:
    """Return what is wrong with the solves of the first batch of the training data, at the run's best weights."""
    size, calls = run.trainer.batch_size or 1, Calls()
    net = trained(folder, run, "best", size)
    calls.watch(net.model.train())
    batch = converted(next(islice(net.data.train.unshuffled(size).epoch(0), 1)), build.dtype(run))
    say(f"{folder}: {net.weights}, the first {len(batch[0])} training samples of {run.data['name']}.")
    try:
        net.loss_fn(net.model, batch)[0].backward()  # type: ignore[no-untyped-call]
    except SolveError as error:
        if calls.failed is None:
            return Diagnosis(Report(kind="unknown", reason=f"the backward solve fails: {first_line(error)}"))
    if not calls.made:
        return Diagnosis(Report(kind="sound", reason=f"model={run.model['name']} solves no equation"))
    reports = [doctor(*call) for call in calls.made]
    return Diagnosis(next((report for report in reports if report.kind != "sound"), reports[0]))


def of_solve(
    failure: Failure,
    error: SolveError,
    calls: Calls,
    losses: Sequence[float],
    say: Callable[[str], None],
    change: Change,
) -> Diagnosis:
    """Return what is wrong with a solve that fails again, and try the remedy on the step or the scoring that failed."""
    prefix = "solver." if failure.split == "train" else "eval.solver."
    if calls.failed is None:
        kind = "step_limit" if isinstance(error, StepLimit) else "unknown"
        report = Report(kind=kind, reason=f"the forward solve passes, but {first_line(error)}")
        keys: dict[str, Any] = {"gradient.method": "replay"}
    else:
        report = doctor(*calls.failed)
        if report.kind == "optimiser":
            return of_divergence(failure.folder, failure.run, losses, say, report)
        keys = report.settings(prefix)
    if not keys:
        return Diagnosis(report)
    before, sessions = failure.session.last_finite_loss, list[Session]()
    try:
        outcome = failure.repeat(change(failure.run, keys), sessions.append)
    except RunFailed as again:
        return Diagnosis(report, keys, f"It fails there too: {first_line(again)}")
    after = sessions[0].last_finite_loss
    if before and after and has_diverged(before, after):
        say(f"With {' '.join(in_words(keys))} the loss is {after[1]:.6g}, after {before[1]:.6g} at step {before[0]}.")
        return of_divergence(failure.folder, failure.run, [before[1], after[1]], say)
    return Diagnosis(report, keys, outcome)


def has_diverged(before: tuple[int, float] | None, after: tuple[int, float] | None) -> bool:
    """Return whether a loss, (step, value), has grown so much since an earlier one that the optimiser is the cause."""
    return bool(before and after and after[1] > DIVERGED * max(abs(before[1]), 1.0))


def of_divergence(
    folder: Path, run: Config, losses: Sequence[float], say: Callable[[str], None], report: Report | None = None
) -> Diagnosis:
    """Return the diagnosis of a diverged optimiser, after trying smaller learning rates from the last checkpoint on."""
    assert run.optim.lr is not None
    if report is None:
        evidence = {"learning rate": run.optim.lr, **({"last losses": tuple(losses[-3:])} if losses else {})}
        reason = "loss, gradient or weights grew out of all bounds: the solver is not the cause"
        report = Report(kind="optimiser", reason=reason, evidence=evidence)
    for divisor in (10, 100, 1000):
        rate = float(f"{run.optim.lr / divisor:.3g}")
        try:
            again = approach(folder, run, run, say, replace(run.optim, lr=rate))
            if again.session.failed is None:
                before, outcome = again.session.last_finite_loss, again.repeat(again.run)
                if not has_diverged(before, again.session.last_finite_loss):
                    return Diagnosis(report, {"optim.lr": rate}, outcome)
        except RunFailed as error:
            say(f"It fails with optim.lr={rate:g} too: {first_line(error)}")
    return Diagnosis(report)
