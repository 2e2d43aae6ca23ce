"""Work and precision: evaluations of the field and the error they buy, on four problems in float64.

Nothing is timed, since evaluations do not depend on the machine. The reference is scipy's DOP853 at 1e-13.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import pairwise

import numpy
import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from odenet_cli.bench import peers
from odenet_cli.bench.measure import one_line
from odenet_cli.bench.peers import OURS, diffrax
from odenet_cli.bench.problems import PROBLEMS, Problem
from odenet_cli.bench.table import Table, number, power, small
from odenet_cli.bench.work import Counter, function_field
from odenet_cli.bench.workloads import Settings
from odenet_cli.markdown import MISSING

METHODS = {
    "torchdiffeq": ("odeint", ["dopri5", "dopri8"]),
    "torchode": ("AutoDiffAdjoint", ["dopri5", "tsit5"]),
    "torchdyn": ("odeint", ["dopri5", "tsit5"]),
    "diffrax": ("", ["dopri5", "tsit5", "dopri8"]),
    OURS: ("", ["dopri5", "tsit5", "dopri8", "adams"]),
}


@dataclass(frozen=True, kw_only=True)
class Point:
    """Hold the evaluations and the relative error of a solve, or the reason for its failure."""

    nfe: int = 0
    error: float = math.nan
    failed: str | None = None


Points = dict[str, list[Point]]  # by subject, one point per tolerance


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Compare libraries; `limit` is the largest number of evaluations, `target` the error of the last table."""

    problems: Sequence[Problem] = PROBLEMS
    tolerances: Sequence[float] = tuple(10.0**-digits for digits in range(3, 11))
    limit: int = 200_000
    target: float = 1e-5

    def run(self, settings: Settings) -> list[Table]:
        present = {name: METHODS[name] for name in METHODS if name in (*settings.peers, OURS)}
        points = {
            problem.name: {
                f"{library} {method}": self.points(problem, library, mode, method, settings.note)
                for library, (mode, methods) in present.items()
                for method in methods
            }
            for problem in self.problems
        }
        return [*(self.table(name, by_subject) for name, by_subject in points.items()), self.summary(points)]

    def points(
        self, problem: Problem, library: str, mode: str, method: str, note: Callable[[str], None] = lambda text: None
    ) -> list[Point]:
        """Return a point for each tolerance."""
        note(f"{problem.name}: {library} {method}")
        exact, counter = reference(problem), Counter(self.limit)
        solve_to = end_state(problem, library, mode, method, counter)

        def point(tolerance: float) -> Point:
            counter.calls = 0
            try:
                error = float((solve_to(tolerance) - exact).norm() / exact.norm())
            except Exception as failure:
                return Point(failed=one_line(failure))
            return Point(nfe=counter.calls, error=error, failed=None if math.isfinite(error) else "not finite")

        return [point(tolerance) for tolerance in self.tolerances]

    def table(self, name: str, by_subject: Points) -> Table:
        cells = [
            [subject, *("failed" if p.failed else f"{p.nfe} / {small(p.error)}" for p in points)]
            for subject, points in by_subject.items()
        ]
        records = [
            {"subject": subject, "tolerance": tolerance, **(vars(p) | ({"error": None} if p.failed else {}))}
            for subject, points in by_subject.items()
            for tolerance, p in zip(self.tolerances, points)
        ]
        reasons = dict.fromkeys(
            f"{subject}: {p.failed}" for subject, points in by_subject.items() for p in points if p.failed
        )
        notes = ["Evaluations of the field / relative error at the end.", *(f"Failed: {reason}" for reason in reasons)]
        columns = ["rtol = atol", *(power(tolerance) for tolerance in self.tolerances)]
        return Table(title=name, columns=columns, cells=cells, records=records, notes=notes)

    def summary(self, points: dict[str, Points]) -> Table:
        """Return the evaluations of each subject for the same error, with one column per problem."""
        reached = {
            subject: [evaluations_at(by_subject[subject], self.target) for by_subject in points.values()]
            for subject in next(iter(points.values()))
        }
        cells = [[subject, *map(number, row)] for subject, row in reached.items()]
        records = [{"subject": subject, "evaluations": dict(zip(points, row))} for subject, row in reached.items()]
        notes = [f"Interpolated between the tolerances above; {MISSING} where they do not enclose that error."]
        title = f"Evaluations to a relative error of {power(self.target)}"
        return Table(title=title, columns=["subject", *points], cells=cells, records=records, notes=notes)


def end_state(problem: Problem, library: str, mode: str, method: str, counter: Counter) -> Callable[[float], Tensor]:
    """Return the solve of one library and method, from a tolerance to the final state, with counted evaluations."""
    y0, ts = torch.tensor([problem.start], dtype=torch.float64), [0.0, problem.end]
    if library == "diffrax":
        start = diffrax.array(y0)  # must be first, since it enables float64 in JAX
        solve = diffrax.compiled(function_field(problem.f, library, counter), ts, method)
        return lambda tolerance: diffrax.tensor(solve(start, tolerance, tolerance))
    field, make = function_field(problem.f, library, counter), peers.library(library).solver
    return torch.no_grad()(lambda tol: make(mode, field, ts, method=method, rtol=tol, atol=tol)(y0))


@cache
def reference(problem: Problem) -> Tensor:
    """Return the final state, (1, D)."""
    f = partial(problem.f, numpy)
    solution = solve_ivp(f, (0.0, problem.end), problem.start, method="DOP853", rtol=1e-13, atol=1e-13)
    return torch.from_numpy(solution.y[:, -1]).unsqueeze(0)


def evaluations_at(points: Sequence[Point], target: float) -> int | None:
    """Return the evaluations for an error of `target`, by linear interpolation of logarithms; None if not crossed."""
    solved = [point for point in points if not point.failed and point.error > 0]
    for above, below in pairwise(solved):
        if below.error <= target < above.error:
            share = math.log(above.error / target) / math.log(above.error / below.error)
            return round(above.nfe * math.pow(below.nfe / above.nfe, share))
    return None
