"""Workloads that time libraries: a vector field, a reference, and the modes of each library."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from odenet_cli.bench import peers
from odenet_cli.bench.measure import Row, compare
from odenet_cli.bench.peers import OURS, Solve
from odenet_cli.bench.table import Table, speed_table
from odenet_cli.bench.work import CountedField, Counter, Subject, Work, training
from odenet_cli.bench.workloads import Settings

Modes = Sequence[tuple[str, list[str]]]  # (library, its modes), in the order of the rows
Problem = tuple[Any, ...]  # a module if there is one, and tensors
Floor = Callable[[Row], float | None]


@dataclass(frozen=True, kw_only=True)
class SpeedWorkload:
    """Compare the speed of libraries; subclasses define `tables`, `reference` and `work`.

    tolerance  rtol and atol of every subject
    repeats    number of measurements of each subject
    bound      largest relative distance from the reference that counts as agreement
    """

    error_note: ClassVar[str]

    tolerance: float
    repeats: int
    bound: float

    def tables(self, device: torch.device) -> Iterator[tuple[str, Modes, Problem]]:
        """Yield the title of each table, the modes that it compares, the baseline first, and their problem."""
        raise NotImplementedError

    def reference(self, problem: Problem) -> dict[str, Tensor]:
        """Return the outcome of a far finer solve in float64."""
        raise NotImplementedError

    def work(self, library: str, mode: str, problem: Problem, counter: Counter | None = None) -> Work:
        """Return the work of a library in one of its modes, with its field counted if there is a counter."""
        raise NotImplementedError

    def beside(self, problem: Problem) -> Mapping[str, Work]:
        """Return further work to be timed in turn with the subjects."""
        return {}

    def explain(self, times: dict[str, list[float]]) -> tuple[list[str], Floor | None]:
        """Return the lines under a table, and the lower bound on a row's time, from the times of `beside`."""
        return [self.error_note], None

    def run(self, settings: Settings) -> list[Table]:
        tables = []
        for title, modes, problem in self.tables(settings.device):
            rows, times = compare(
                self.subjects(settings.peers, modes, problem),
                self.reference(problem),
                self.bound,
                settings.repeats or self.repeats,
                settings.device,
                self.beside(problem),
                settings.note,
            )
            tables.append(speed_table(title, rows, *self.explain(times)))
        return tables

    def subjects(self, present: Sequence[str], modes: Modes, problem: Problem) -> list[Subject]:
        """Return a subject for each mode of ours and of the available peers."""

        def subject(library: str, mode: str) -> Subject:
            return Subject(library=library, mode=mode, work=lambda mode, c: self.work(library, mode, problem, c))

        return [subject(library, mode) for library, names in modes if library in (*present, OURS) for mode in names]


@dataclass(frozen=True, kw_only=True)
class GradientWorkload(SpeedWorkload):
    """Compare loss and gradients of a module through a solve; subclasses define `tables`, `field` and `loss`.

    fine  rtol and atol of the reference, by `fine_method`
    """

    error_note = "Error: the larger of the relative distances of loss and gradient from those at 1e-9 in float64."
    fine_method: ClassVar = "dopri5"

    fine: float = 1e-9

    @property
    def ts(self) -> list[float]:
        return [0.0, 1.0]

    def field(self, module: Any, library: str, mode: str) -> nn.Module:
        """Return the vector field of the module in the form required by the library."""
        raise NotImplementedError

    def loss(self, module: Any, solve: Solve, library: str, *tensors: Tensor) -> Tensor:
        raise NotImplementedError

    def training(self, module: Any, loss: Callable[[], Tensor]) -> Work:
        return training(module, loss)

    def work(
        self,
        library: str,
        mode: str,
        problem: Problem,
        counter: Counter | None = None,
        *,
        method: str = "dopri5",
        tolerance: float | None = None,
    ) -> Work:
        module, *tensors = copy.deepcopy(problem)
        field, tolerance = self.field(module, library, mode), tolerance or self.tolerance
        field = CountedField(field, counter) if counter else field
        name = mode.partition(",")[0]
        make = peers.library(library).solver
        solve = make(name, field, self.ts, method=method, rtol=tolerance, atol=tolerance)
        return self.training(module, partial(self.loss, module, solve, library, *tensors))

    def reference(self, problem: Problem) -> dict[str, Tensor]:
        parts = copy.deepcopy(problem)
        exact = tuple(x.double() if isinstance(x, nn.Module) or x.is_floating_point() else x for x in parts)
        return self.work(OURS, "replay", exact, method=self.fine_method, tolerance=self.fine).run()
