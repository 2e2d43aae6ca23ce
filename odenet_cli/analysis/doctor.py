"""What is wrong with a run: the solve in which it failed, or those of a batch of its training data."""

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
from odenet_cli.errors import RunFailed
from odenet_cli.ode import Adaptive, DenseSolution, Fixed, Report, Solution, SolveError, Solver, StepLimit, doctor
from odenet_cli.ode.diagnosis import in_words
from odenet_cli.rundir import read_metrics, read_record
from odenet_cli.training import build
from odenet_cli.training.evaluate import converted
from odenet_cli.training.session import Session

Change = Callable[[Config, dict[str, Any]], Config]
DIVERGED = 10.0  # a loss so many times one before, or 1 where that is smaller: losses near 0 may well vary


class Call(NamedTuple):
    """Hold the arguments of one solve."""

    solver: Solver
    field: Any
    y0: Any
    ts: Any
    args: Sequence[Any] = ()


@dataclass
class Calls:
    """Hold the solves that were made since, the last 16, their outputs, and the one that failed."""

    made: list[Call] = field(default_factory=list)
    states: list[Sequence[torch.Tensor]] = field(default_factory=list)
    failed: Call | None = None

    def __deepcopy__(self, memo: Any) -> Calls:
        return self  # of a model that is copied to be scored in another dtype, too

    def watch(self, model: torch.nn.Module) -> None:
        """Let the solvers of a network note their calls here."""
        for module in models.solvers(model):
            module.solver = self.watching(module.solver)

    def watching(self, solver: Solver) -> Solver:
        """Return the same solver, which notes its calls here."""
        kind = WatchedAdaptive if isinstance(solver, Adaptive) else WatchedFixed
        return kind(**{key.name: getattr(solver, key.name) for key in fields(type(solver))}, calls=self)


class Watched:
    """Note each call of a solver before it is made, and which one raises."""

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
        """Note a call that is made inside, and whether it fails."""
        self.calls.made = [*self.calls.made[-15:], call]
        try:
