"""The training loop: one for every model."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from odenet_cli.config.schema import Config
from odenet_cli.errors import Interrupted
from odenet_cli.ode import Solver, Stats, tally
from odenet_cli.tasks import Loss
from odenet_cli.training.build import eval_dtype
from odenet_cli.training.evaluate import evaluate, mean_cost
from odenet_cli.training.failure import check_gradients, check_loss, diverged, repeatable
from odenet_cli.training.log import Logbook
from odenet_cli.training.memory import PeakMeter, SavedMeter
from odenet_cli.training.optim import learning_rate
from odenet_cli.training.progress import Progress
from odenet_cli.training.signals import Stop


@dataclass
class Window:
    """Means since the last record of training. Sums stay on the device until they are read.

    time_s, opened  time spent before a resume, and when the window's first step since then began
    """

    sums: dict[str, Tensor] = field(default_factory=dict)
    cost: Stats = field(default_factory=Stats)
    steps: int = 0
    saved_mib: float = 0.0
    peak_mib: float | None = None
    time_s: float = 0.0
    opened: float | None = None

    def open(self) -> None:
        """Before every step: time between windows, for validation, is not training's."""
        self.opened = self.opened or time.perf_counter()

    def spent(self) -> float:
        return self.time_s + (time.perf_counter() - self.opened if self.opened else 0.0)

    def add(self, values: dict[str, Tensor], solves: list[Stats]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums[name] + value.detach() if name in self.sums else value.detach().clone()
        self.cost, self.steps = sum(solves, start=self.cost), self.steps + 1

    def means(self) -> dict[str, Any]:
        """Reading synchronises with the device."""
        values = {name: total.item() / self.steps for name, total in self.sums.items()}
        return {
            **values,
            **mean_cost(self.cost, self.steps),
            "step_ms": 1e3 * self.spent() / self.steps,
            "peak_mib": self.peak_mib,
            "saved_mib": self.saved_mib,
        }

    def state(self) -> dict[str, Any]:
        known = {"steps": self.steps, "saved_mib": self.saved_mib, "peak_mib": self.peak_mib, "time_s": self.spent()}
        return {"sums": self.sums, "cost": vars(self.cost), **known}

    @classmethod
    def restored(cls, state: dict[str, Any], device: torch.device) -> Window:
        sums = {name: value.to(device) for name, value in state["sums"].items()}
        return cls(**{**state, "sums": sums, "cost": Stats(**state["cost"])})


@dataclass
class Session:
    """Everything one run trains with, and where it stands.

    step, epoch, position  optimiser steps made, epochs finished, batches of this epoch seen
    validated              the step of the latest validation
    best                   {step, epoch, loss, …}: the record of the best validation so far
    watch                  look at every loss and gradient before the weights take it; on a GPU that would wait for it
    good                   the step and the value of the last loss that was looked at and was a number
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
    elapsed_s: float = 0.0
    watch: bool = True
    good: tuple[int, float] | None = None
    window: Window = field(default_factory=Window)

    @property
    def precision(self) -> torch.dtype:
        """Of scoring."""
        return eval_dtype(self.config)

    @property
    def per_epoch(self) -> int:
        return min(len(self.data.train), self.config.trainer.limit_batches or len(self.data.train))

    @property
    def total(self) -> int:
        """The length of the run, which the learning rate follows."""
        return self.config.trainer.steps or (self.config.trainer.epochs or 0) * self.per_epoch

    @property
    def end(self) -> int:
        """The step to stop at."""
        return min(self.total, self.config.trainer.max_steps or self.total)


def fit(run: Session, log: Logbook, keep: Any, stop: Stop, show: Progress) -> None:
    """Train until `run.end`. `keep.last(run)` and `keep.best(run)` write checkpoints, `keep.failed(run, …)` a step that
    failed."""
    trainer = run.config.trainer
    opened = time.perf_counter() - run.elapsed_s
    epoch_opened = time.perf_counter()
    # A run that was stopped between an epoch's last step and its validation goes on with the validation.
    while run.step < run.end or run.validated < run.step:
        run.model.train()
        left = max(0, min(run.per_epoch - run.position, run.end - run.step))
        for batch in islice(run.data.train.epoch(run.epoch, run.position), left):
            run.window.open()
            rate = learning_rate(run.config.optim, run.step, run.total)
            for group in run.optimizer.param_groups:
                group["lr"] = rate

            with repeatable(run, keep, batch=batch):
                values, solves = slopes(run, batch)
            run.optimizer.step()

            run.step, run.position = run.step + 1, run.position + 1
            run.window.add(values, solves)
            run.elapsed_s = time.perf_counter() - opened
            show.step(run.step)
            if run.step % trainer.log_every == 0 or run.position == run.per_epoch or run.step == run.end:
                _record(run, log, show, rate)
            if stop.name or run.step % trainer.checkpoint_every == 0:
                check_loss(run, values["loss"], run.step)
                keep.last(run)
            if stop.name:
                raise Interrupted(f"{stop.name} after step {run.step} of {run.end}", stop.code)

        if run.position == run.per_epoch:
            run.epoch, run.position = run.epoch + 1, 0
        _validate(run, log, keep, show, time.perf_counter() - epoch_opened)
        keep.last(run)
        epoch_opened = time.perf_counter()


def slopes(run: Session, batch: Any) -> tuple[dict[str, Tensor], list[Stats]]:
    """Loss, metrics and gradients of `batch`, and what its solves cost; the weights are as before."""
    with tally() as solves, _measured(run):
        loss, extra = run.loss_fn(run.model, batch)
        if run.watch:
            check_loss(run, loss, run.step + 1)
        run.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
    if run.watch:
        check_gradients(run)
    if run.config.optim.clip is not None:
        nn.utils.clip_grad_norm_(run.model.parameters(), run.config.optim.clip)
    return {"loss": loss, **extra}, solves


@contextlib.contextmanager
def _measured(run: Session) -> Any:
    """Measure memory in the first step of a window; the others run untouched."""
    if run.window.steps:
        yield
        return
    with SavedMeter([*run.model.parameters(), *run.model.buffers()]) as saved, PeakMeter(run.device) as peak:
        yield
    run.window.saved_mib, run.window.peak_mib = saved.peak_mib, peak.peak_mib


def _record(run: Session, log: Logbook, show: Progress, rate: float) -> None:
    record = {"step": run.step, "epoch": _epoch(run), "split": "train", "lr": rate, **run.window.means()}
    if not math.isfinite(record["loss"]):
        raise diverged(run, record["loss"], run.step)
    run.good = run.step, record["loss"]
    log.write(record)
    show.record(record)
    run.window = Window()


def _validate(run: Session, log: Logbook, keep: Any, show: Progress, epoch_s: float) -> None:
    run.validated = run.step
    if not run.data.valid.size:
        run.best = {"step": run.step, "epoch": run.epoch}
        return
    record = {"step": run.step, "epoch": run.epoch, "split": "valid", **score(run, keep, "valid"), "epoch_s": epoch_s}
    log.write(record)
    show.record(record)
    merit = "error" if "error" in record else "loss"
    # A tie in error goes to the smaller loss.
    if run.best is None or (record[merit], record["loss"]) < (run.best[merit], run.best["loss"]):
        run.best = {name: value for name, value in record.items() if not name.endswith("_s")}
        keep.best(run)


def _epoch(run: Session) -> int:
    """Epochs finished: an epoch's last step counts as its end."""
    return run.epoch + (run.position == run.per_epoch)


def score(run: Session, keep: Any, split: str, per_sample: dict[str, Tensor] | None = None) -> dict[str, Any]:
    """The scores of the present weights on `split`; a loss that is no number is a `RunFailed`."""
    with repeatable(run, keep, split):
        samples, limit = getattr(run.data, split), run.config.trainer.limit_batches
        scores = evaluate(run.model, run.loss_fn, samples, run.scorer, limit, run.precision, per_sample)
        if not math.isfinite(scores["loss"]):
            raise diverged(run, scores["loss"], run.step)
    return scores
