"""Hold everything that one run trains with, and its present state."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from odenet_cli.config.schema import Config
from odenet_cli.models import solvers
from odenet_cli.ode import Solver, Stats, tally
from odenet_cli.tasks import Loss
from odenet_cli.training.budget import Budget
from odenet_cli.training.build import eval_dtype
from odenet_cli.training.evaluate import mean_cost
from odenet_cli.training.optim import learning_rate


@dataclass
class Window:
    """Hold the sums since the last training record; they stay on the device until they are read.

    time_s          seconds of training before a resume
    opened          start of the first step of the window, or of the first after a resume; None: not started
    gradient_error  the largest of the window's certificates, if any
    nfe_certify     function evaluations of the certificates, abandoned ones included
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    cost: Stats = field(default_factory=Stats)
    steps: int = 0
    saved_mib: float = 0.0
    peak_mib: float | None = None
    time_s: float = 0.0
    opened: float | None = None
    gradient_error: float | None = None
    nfe_certify: int = 0

    def open(self) -> None:
        """Start the clock at the first step: time between windows, for validation, is not training's."""
        self.opened = self.opened or time.perf_counter()

    def spent(self) -> float:
        """Return the seconds since the first step."""
        return self.time_s + (time.perf_counter() - self.opened if self.opened else 0.0)

    def add(self, values: dict[str, Tensor], solves: list[Stats]) -> None:
        """Add the loss and metrics of a step, () each, and the cost of its solves."""
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value.detach() if name in self.sums else value.detach().clone()
        self.cost, self.steps = sum(solves, start=self.cost), self.steps + 1

    def means(self) -> dict[str, Any]:
        """Return the means per step; reading them waits for the device."""
        certified = {"gradient_error": self.gradient_error, "nfe_certify": self.nfe_certify or None}
        return {
            **{name: total.item() / self.steps for name, total in self.sums.items()},
            **mean_cost(self.cost, self.steps),
            "step_ms": 1e3 * self.spent() / self.steps,
            "peak_mib": self.peak_mib,
            "saved_mib": self.saved_mib,
            **{name: value for name, value in certified.items() if value is not None},
        }

    def state(self) -> dict[str, Any]:
        """Return the window as tensors and plain values, for a checkpoint."""
        state = {name: value for name, value in vars(self).items() if name != "opened"}
        return {**state, "cost": vars(self.cost), "time_s": self.spent()}

    @classmethod
    def restored(cls, state: dict[str, Any], device: torch.device) -> Window:
        """Return the window from its `state()`."""
        sums = {name: value.to(device) for name, value in state["sums"].items()}
        return cls(**{**state, "sums": sums, "cost": Stats(**state["cost"])})


@dataclass
class Certificates:
    """Hold the results and costs of the certificates, the checks of the gradient during a run.

    made        number of certificates
    error       the largest relative error
    cause       likely cause of the last warning
    time_s      seconds of all, and `latest_s` of the last one
    told        (level, kind) of every warning given
    impossible  why the run can have none
    """

    made: int = 0
    error: float | None = None
    cause: str | None = None
    nfe: int = 0
    time_s: float = 0.0
    latest_s: float = 0.0
    told: list[tuple[str, str]] = field(default_factory=list)
    impossible: str | None = None


@dataclass
class Session:
    """Hold everything that one run trains with, and its present state.

    step, epoch, position  optimiser steps made, epochs finished, batches of this epoch seen
    validated              the step of the latest validation
    best                   {step, epoch, loss, …}: the record of the best validation so far
    check_every_step       check every loss and gradient before the update; not on a GPU, where this would synchronise
    last_finite_loss       step and value of the last loss that was checked
    elapsed_s              seconds of training and validation over all starts of the run, counted from `started`
    epoch_began_s          elapsed_s at the start of this epoch
    predicted_s            the total, predicted from the first steps
    budget                 steers the tolerance, if there is a `solver.budget`
    nfe_other              evaluations outside of training, certificates and scores: sanity checks, figures, bands, FLOP
    failed                 {split, step} of the optimiser step, or the scoring of a split, that raised an error
    """

    config: Config
    model: nn.Module
    loss_fn: Loss
    data: Any
    optimizer: Optimizer
    device: torch.device
    scorer: Solver | None
    step: int = 0
    epoch: int = 0
    position: int = 0
    validated: int = 0
    best: dict[str, Any] | None = None
    started: float = 0.0
    elapsed_s: float = 0.0
    epoch_began_s: float = 0.0
    predicted_s: float | None = None
    check_every_step: bool = True
    last_finite_loss: tuple[int, float] | None = None
    budget: Budget | None = None
    failed: dict[str, Any] | None = None
    window: Window = field(default_factory=Window)
    certificates: Certificates = field(default_factory=Certificates)
    nfe_other: int = 0

    @property
    def precision(self) -> torch.dtype:
        return eval_dtype(self.config)

    @property
    def per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return min(len(self.data.train), self.config.trainer.limit_batches or len(self.data.train))

    @property
    def total(self) -> int:
        """The length of the run in steps; the learning-rate schedule covers it."""
        return self.config.trainer.steps or (self.config.trainer.epochs or 0) * self.per_epoch

    @property
    def end(self) -> int:
        """The step to stop at; a least-squares fit ends where it has converged."""
        if getattr(self.optimizer, "converged", False):
            return self.step
        return min(self.total, self.config.trainer.max_steps or self.total)

    @contextlib.contextmanager
    def counting(self) -> Iterator[None]:
        """Count the evaluations of solves inside as `nfe_other`."""
        with tally() as solves:
            try:
                yield
            finally:
                self.nfe_other += sum(solves, start=Stats()).nfe

    def steer(self) -> None:
        """Set the next step's tolerance in the network's solvers, and in the scorer if it scores as in training."""
        if self.budget is not None:
            for module in solvers(self.model):
                module.solver = self.budget.steer(module.solver)
            if self.budget.scores and self.scorer is not None:
                self.scorer = self.budget.steer(self.scorer)

    def batches(self) -> Iterator[Any]:
        """Yield the remaining batches of this epoch, at most up to the end of the run.

        The order is a pure function of seed, epoch and position, so a resumed run gets the same batches.
        """
        left = max(0, min(self.per_epoch - self.position, self.end - self.step))
        return islice(self.data.train.epoch(self.epoch, self.position), left)

    def set_learning_rate(self) -> float:
        """Give the optimiser the learning rate of the next step, and return it."""
        rate = learning_rate(self.config.optim, self.step, self.total)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        return rate
