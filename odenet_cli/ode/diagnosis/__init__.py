"""Find out what is wrong with a solve by measurement, and try a cure on the same problem.

>>> report = doctor(solver, field, y0, ts)
>>> report.kind, report.cure
('step_limit', {'max_steps': 120})
>>> print(report)
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode.diagnosis.causes import (
    blow_up,
    jump,
    noise,
    nonfinite,
    optimiser,
    resolution,
    scale,
    step_limit,
    stiff,
    tolerance,
)
from odenet_cli.ode.diagnosis.finding import Cure, Finding, TracedSolve
from odenet_cli.ode.diagnosis.trace import Case, OverBudget, observe, relative_error
from odenet_cli.ode.field.random_state import Draws
from odenet_cli.ode.solver import Solver
from odenet_cli.ode.state import Field
from odenet_cli.ode.transforms import in_plain_mode

# In this order, since non-finite weights or a noisy field look like many of the other causes too.
CAUSES = (optimiser, noise, resolution, tolerance, stiff, blow_up, nonfinite, jump, scale, step_limit)
KINDS = ("sound", *(cause.__name__.rpartition(".")[2] for cause in CAUSES), "unknown")
MAX_ROUNDS = 8  # declaring a jump may reveal the next one
MAX_TRIAL = 60_000  # evaluations of a trial, some seconds on a CPU


@dataclass(frozen=True, kw_only=True)
class Report:
    """Hold what is wrong with a solve.

    kind      one of `KINDS`
    reason    in a sentence
    evidence  measured numbers
    cure      what to change: settings of the solver; `dtype`, `ts`; or a change of the field, in words
    tried     the same problem with the cure: number of evaluations `nfe`, and `error` relative to a solve a hundred
              times as accurate; None if no cure succeeded or none can be tried
    failure   why the solve failed; None if it did not
    time_s    seconds of the diagnosis, without the solve itself and the trials
    """

    kind: str
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)
    cure: dict[str, Any] = field(default_factory=dict)
    tried: dict[str, float] | None = None
    failure: str | None = None
    time_s: float = 0.0

    def settings(self, prefix: str = "solver.") -> dict[str, Any]:
        """Return the cure as command-line keys with their values; empty if no key can set it."""
        values = {key: list(value) if isinstance(value, tuple) else value for key, value in self.cure.items()}
        named = {"dtype": prefix.removesuffix("solver.") + "dtype", "gradient": "gradient.method"}
        # Scoring has no gradient.
        unnamed = ("ts", "field", *(("gradient",) if prefix != "solver." else ()))
        # "ts" and "field" are the problem's, not settings.
        return {named.get(key, prefix + key): values[key] for key in values if key not in unnamed}

    def __str__(self) -> str:
        if self.kind == "sound":
            return f"Nothing is wrong: {self.reason}."
        numbers = ", ".join(f"{key} {_number(value)}" for key, value in self.evidence.items())
        lines = [f"{self.kind}: {self.reason}", *([f"  evidence  {numbers}"] if numbers else [])]
        what = [
            *in_words(self.settings()),
            *([f"ts up to {_number(self.cure['ts'][-1])}"] if "ts" in self.cure else []),
        ]
        what += [self.cure["field"]] if "field" in self.cure else []
        if what:
            lines.append(f"  cure      {', '.join(what)}")
        if self.tried is not None:
            lines.append(f"  tried     {self.tried['nfe']:,} evaluations, error {_number(self.tried['error'])}")
        elif what:
            lines.append("  tried     not proven: it could not be tried here, or it is too expensive to try")
        return "\n".join(lines)


def in_words(settings: Mapping[str, Any]) -> list[str]:
    """Return keys and values as overrides, `key=value`."""
    return [f"{key}={str(value).replace(' ', '')}" for key, value in settings.items()]


def _number(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return ", ".join(map(_number, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@in_plain_mode
@torch.no_grad()
def doctor(
    solver: Solver,
    field: Field,
    y0: Tensor | Sequence[Tensor],
    ts: Tensor | Sequence[float],
    args: Sequence[Any] = (),
) -> Report:
    """Return what is wrong with the forward solve `solver(field, y0, ts, args)`, and a cure.

    The solve is made once and traced; the field is then evaluated further, and cures are tried by solving again, all
    without gradients. The states of random generators are restored. Errors of the field pass through.
    """
    parts = [y0] if isinstance(y0, Tensor) else y0
    if any(part.is_complex() or not part.numel() for part in parts):
        raise ValueError("y0 must contain real numbers: complex or empty states cannot be examined.")
    case = Case(solver, field, y0, ts, args)
    # The diagnosis must not change the random numbers that the caller draws next.
    draws = Draws(case.reads().generators)
    states = draws.states()
    try:
        return _examine(case)
    finally:
        draws.restore(states)


def _examine(case: Case) -> Report:
    # `solving` sums the seconds of solves, which do not count as diagnosis.
    started, solving = time.perf_counter(), 0.0
    trace = observe(case)
    solving += time.perf_counter() - started
    solve = TracedSolve(case, trace)
    # Stop at the first cause that is found, since each costs evaluations.
    findings = (cause.find(solve) for cause in CAUSES)
    finding = next((found for found in findings if found is not None), None)
    failure = None if trace.error is None else str(trace.error)
    took = f"{trace.accepted} accepted and {trace.rejected} rejected steps, {trace.nfe:,} evaluations"
    if finding is None:
        finding = Finding("unknown", "the solve failed, and shows none of the known causes")
        if failure is None:
            finding = Finding("sound", took)
    began = time.perf_counter()
    cure, tried = _first_that_works(case, finding)
    solving += time.perf_counter() - began
    if tried is None and finding.budget is not None:
        # A solve that is only slow counts as sound if no cure is cheaper.
        text = f"{took}; it is mildly {finding.kind}, and no setting that was tried costs less"
        finding, cure = Finding("sound", text), {}
    return Report(
        kind=finding.kind,
        reason=finding.reason,
        evidence=finding.evidence,
        cure=cure,
        tried=tried,
        failure=failure,
        time_s=time.perf_counter() - started - solving,
    )


def _first_that_works(case: Case, finding: Finding) -> tuple[Cure, dict[str, float] | None]:
    """Return the first cure that solves the problem, and its cost; if there is none, the first cure and None."""
    # A cure that is not enough is extended in several rounds, before the next one is tried.
    for cure in finding.cures:
        if not finding.repair and set(cure) == {"field"}:
            continue  # a change of the field that cannot be made here
        best: tuple[Cure, dict[str, float]] | None = None
        longer: Cure | None = cure
        for _ in range(MAX_ROUNDS):
            if longer is None:
                break
            cure = longer
            tried, longer = _attempt(case, cure, finding)
            best = best if tried is None else (cure, tried)
        if best is not None:
            return best
    first = finding.cures[0] if finding.cures else {}
    # If the settings failed, only the change of the field remains.
    return ({"field": first["field"]} if "field" in first else first), None


def _attempt(case: Case, cure: Cure, finding: Finding) -> tuple[dict[str, float] | None, Cure | None]:
    """Return the cost of the problem with a cure, None if it failed; and an extended cure to try, if there is one."""
    with case.under(cure, finding.repair) as treated:
        try:
            trace = observe(treated, finding.budget or MAX_TRIAL)
        except (OverBudget, RuntimeError, TypeError, ValueError):
            return None, None
        # The cure may be incomplete: after one jump there may be another one.
        longer = finding.extend(cure, TracedSolve(treated, trace))
        # If the cure can be extended, the problem is not fully cured, even if it was solved.
        if trace.error is not None or longer is not None:
            return None, longer
        # Reaching the end is not enough: compare with a solution a hundred times as accurate.
        try:
            exact = observe(treated.tighter(), 3 * MAX_TRIAL)
            error = math.nan if exact.error is not None else relative_error(trace, exact, finding.by_column)
        except OverBudget:
            error = math.nan
        return {"nfe": trace.nfe, "error": error}, None
