"""Steer the tolerance, step by step, so that training keeps to a budget of function evaluations (`solver.budget`).

The number N of evaluations of a method whose error falls as h^p grows as rtol^(-1/p). So log rtol is changed by p times
the deviation N / wish - 1: by all of it after the first step, by a smaller fraction after each of the next, and by a
fifth from the fifth step on. Since N comes in whole solver steps, a single deviation cannot vanish; so a sum of the
deviations, with a memory of about fifty steps, is added too, and the mean over the run meets the wish. Together they
form a controller with a double pole, which recovers from a deviation within about ten steps without overshoot. If a
step takes exactly the wished number, rtol does not change.

All this depends only on the counts of past steps, so a resumed run steers as it would have.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn

from odenet_cli.config.resolve import eval_config
from odenet_cli.config.schema import Config, SolverConfig
from odenet_cli.errors import RequestError
from odenet_cli.metrics import read_metrics
from odenet_cli.models import solvers
from odenet_cli.ode import Adaptive, Solver, Tableau, method
from odenet_cli.ode.multistep.nordsieck import Multistep
from odenet_cli.precision import EPS

GAIN = 0.2  # of a step's deviation; the gain of the sum is a quarter of its square, for a double pole
MEMORY = 0.98  # decay of the sum per step, so that a deviation that cannot be corrected does not accumulate
LOOSEST = 10.0
ADAMS_ORDER = 5  # assumed for a method of variable order
MAX_EXPONENT = 20.0  # of a change of the tolerance


@dataclass
class Budget:
    """Steer the tolerance of a run's solves.

    wish   mean evaluations of the forward solves of a step
    ratio  atol / rtol
    order  p, of the error estimate
    scores whether networks are scored at this tolerance too
    debt   the decaying sum of N / wish - 1; constant while rtol is at an end of its range
    """

    wish: int
    rtol: float
    ratio: float
    order: int
    tightest: float
    scores: bool = False
    debt: float = 0.0
    steps: int = 0
    evaluations: int = 0

    @property
    def mean(self) -> float:
        """The mean evaluations of a step so far."""
        return self.evaluations / max(1, self.steps)

    def steer(self, solver: Solver) -> Solver:
        """Return a solver with the tolerance of the next step."""
        if not isinstance(solver, Adaptive):
            return solver
        return replace(solver, rtol=self.rtol, atol=self.rtol * self.ratio)

    def add(self, evaluations: int) -> None:
        """Take note of the evaluations of a step, and choose the tolerance of the next."""
        self.steps, self.evaluations = self.steps + 1, self.evaluations + evaluations
        off = evaluations / self.wish - 1
        debt = MEMORY * self.debt + off
        if not off:  # where fewer cannot be had, a debt alone would loosen the tolerance for nothing
            self.debt = debt
            return
        gain = max(GAIN, 1 / self.steps)
        factor = self.order * (gain * math.log1p(off) + GAIN**2 / 4 * debt)
        rtol = self.rtol * math.exp(min(MAX_EXPONENT, max(-MAX_EXPONENT, factor)))
        self.rtol = min(LOOSEST, max(self.tightest, rtol))
        if self.rtol == rtol:  # at an end of the range the sum would grow without an effect, and take as long to shrink
            self.debt = debt

    def state(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("rtol", "debt", "steps", "evaluations")}

    def restore(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def outcome(self) -> str:
        """Return a line about the mean that was reached."""
        text = f"solver.budget={self.wish}: {self.mean:.1f} evaluations per step, rtol {self.rtol:.3g} at the end"
        if abs(self.mean - self.wish) <= 1:
            return text
        end = {LOOSEST: "the loosest allowed", self.tightest: "the tightest for its dtype"}.get(self.rtol)
        return f"{text}; not within 1 of the target, {end or 'the run is too short'}"


def of_config(config: Config) -> Budget | None:
    """Return the `Budget` of a run; None if `solver.budget` is not set."""
    solver = config.solver
    if solver.budget is None or solver.rtol is None or solver.atol is None:
        return None
    formulas = method(solver.method)
    order = formulas.embedded_order + 1 if isinstance(formulas, Tableau) else ADAMS_ORDER
    scorer = eval_config(config).solver
    as_trained = scorer.rtol is None and scorer.atol is None and scorer.method in (None, solver.method)
    return Budget(solver.budget, solver.rtol, solver.atol / solver.rtol, order, 10 * EPS[config.dtype], as_trained)


def at_its_end(folder: Path, config: Config) -> Config:
    """Return the config of the run in `folder` with the tolerance that its budget has steered it to."""
    solver = config.solver
    records = read_metrics(folder) if solver.budget is not None else []
    rtol = next((record["rtol"] for record in reversed(records) if "rtol" in record), None)
    if rtol is None or solver.rtol is None or solver.atol is None:
        return config
    return replace(config, solver=replace(solver, rtol=rtol, atol=rtol * (solver.atol / solver.rtol)))


def least_evaluations(config: SolverConfig) -> int:
    """Return the fewest evaluations of a solve: those of one step, and one to choose its length."""
    formulas = method(config.method)
    # Adams' first step is a prediction and a correction.
    least = 2 if isinstance(formulas, Multistep) else formulas.stages
    return (least if isinstance(least, int) else len(least)) + (config.first_step is None)


def check(config: Config, network: nn.Module) -> None:
    """Raise `RequestError` if the network cannot keep to `solver.budget`: it solves nothing, or one step takes more."""
    wish, count = config.solver.budget, len(solvers(network))
    if wish is None:
        return
    if not count:
        raise RequestError(f"solver.budget={wish}: model={config.model['name']} has no solver. Leave it out.")
    least = least_evaluations(config.solver) * (2 if config.gradient.method == "reversible" else 1)
    if wish < least:
        raise RequestError(
            f"solver.budget={wish} is less than the {least} evaluations of a single step of {config.solver.method} and "
            f"the choice of its length.\n  Raise it, or use another method: bosh3 takes "
            f"{least_evaluations(replace(config.solver, method='bosh3'))}, heun_euler "
            f"{least_evaluations(replace(config.solver, method='heun_euler'))}."
        )
