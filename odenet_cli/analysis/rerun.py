"""Repeat the step or the scoring in which a run failed, without writing anything.

The order of the data and all random numbers are functions of the seed and the checkpoint: training on from `last.pt`
reaches the failed step again, with bitwise the same weights and batch. On a GPU, whose kernels may add in another
order, they are the same up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from odenet_cli.analysis.trained import known_data
from odenet_cli.config.schema import Config, OptimConfig
from odenet_cli.errors import RequestError, first_line
from odenet_cli.ode import Stats
from odenet_cli.registry import require
from odenet_cli.rundir import read_record
from odenet_cli.training import build, checkpoint, generators, least_squares
from odenet_cli.training.evaluate import converted
from odenet_cli.training.failure import WHERE, check_finite
from odenet_cli.training.loop import make_step, score, train_epoch, validate
from odenet_cli.training.resume import begin_from_checkpoint, best_weights, restore
from odenet_cli.training.run import assemble
from odenet_cli.training.session import Session
from odenet_cli.training.signals import Stop


class Quiet:
    """Replace log, checkpoints and progress: write nothing, and keep the generators' states before a step."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.last(session)

    def step(self, done: int) -> None:
        """Keep the states between two steps; raise `RunFailed` if the update broke the weights."""
        check_finite(self.session, self.session.model.state_dict())
        self.states = generators.state(self.session.device)

    def last(self, session: Session) -> None:
        self.states = generators.state(session.device)

    def write(self, record: Any) -> None:
        """Discard a record."""

    best = record = write


@dataclass
class Failure:
    """Hold a run at its failure: before the optimiser step `step`, or before scoring `split` after it."""

    folder: Path
    run: Config
    session: Session
    split: str
    step: int
    states: Any

    def repeat(self, config: Config, prepare: Callable[[Session], object] = lambda session: None) -> str:
        """Repeat under `config` what failed; raise `RunFailed` if it fails again, else return the result as text.

        prepare  is called with the session before
        """
        session = self.session
        if config != self.run:
            session = changed(session, config, known_data(self.folder))
        session.config, session.failed = config, None
        generators.restore(self.states, session.device)
        if self.split == "test":
            session.model.load_state_dict(best_weights(session, self.folder))
        prepare(session)
        if self.split != "train":
            return f"It passes: {self.split} loss {score(session, self.split)['loss']:.6g}."
        if session.step == self.step:
            return "It passes: no steps were left."
        return train_step(session)


def approach(
    folder: Path, run: Config, config: Config, say: Callable[[str], None], optim: OptimConfig | None = None
) -> Failure:
    """Train on from the last checkpoint of the run in `folder` up to its failure, on the device of `config`.

    optim  optimiser settings to use instead of the run's own
    """
    split, step = failed_place(folder)
    where = build.choose_device(config)
    session = assemble(run, where, known_data(folder))
    session.check_every_step = True
    state, trouble = checkpoint.latest(folder / "checkpoints" / "last.pt", partial(restore, session))
    if state is None:
        begin_from_checkpoint(session.model, run)
        least_squares.search_start(session.model, session.data, run)
    if trouble:
        say(f"{trouble}\n  Using the checkpoint before it.")
    if optim is not None:
        run = session.config = replace(run, optim=optim)
    if step is None:  # not recorded by older versions
        step = session.step + run.trainer.checkpoint_every * (2 if trouble else 1)
    step = max(session.step, min(step, session.end))
    say(f"{folder}: continuing from step {session.step}, the latest checkpoint, to {WHERE[split]} {step}.")

    quiet = Quiet(session)
    train_to(session, split, step - (split == "train"), quiet)
    split = session.failed["split"] if session.failed else split  # an earlier failure than the recorded one
    return Failure(folder, run, session, split, step, quiet.states)


def repeat(folder: Path, run: Config, config: Config, say: Callable[[str], None]) -> str:
    """Repeat the failure of the run in `folder` under `config`: its own config, `run`, or a changed one.

    Raises `RunFailed` if it fails again; otherwise returns the result as text.
    """
    return approach(folder, run, config, say).repeat(config)


def failed_place(folder: Path) -> tuple[str, int | None]:
    """Return the split and the step in which the run in `folder` failed; raise `RequestError` if it did not fail."""
    record = read_record(folder)
    place, reason = record.get("failed"), str(record.get("reason"))
    if place is not None:
        return require("split", place["split"], WHERE), place["step"]
    if reason.startswith(("the run diverged", "in optimiser step")):
        return "train", None
    reason = f": {first_line(reason).removesuffix('.')}" if record.get("reason") else ""
    raise RequestError(
        f"{folder} has no failed step to repeat.\n"
        f"  The run is {record.get('status', 'not started')}{reason}.\n"
        "  A step can be repeated if a loss, a gradient or a solve failed."
    )


def train_to(session: Session, split: str, step: int, quiet: Quiet) -> None:
    """Train up to `step`, with the validations on the way, or up to an earlier failure: `session.failed`."""
    session.config = replace(session.config, trainer=replace(session.config.trainer, max_steps=max(1, step)))
    try:
        while session.step < step or session.position == session.per_epoch:
            train_epoch(session, quiet, quiet, Stop(), quiet)
            if session.position == 0 and (split != "valid" or session.step < step):
                validate(session, quiet, quiet, quiet, math.nan)
                quiet.last(session)
    except Exception:
        if session.failed is None:
            raise


def changed(before: Session, config: Config, data_record: dict[str, Any]) -> Session:
    """Return a session under another config, in the state of `before`."""
    session = assemble(config, before.device, data_record)
    session.check_every_step = True
    session.model.load_state_dict(before.model.state_dict())
    session.optimizer.load_state_dict(before.optimizer.state_dict())
    for name in ("step", "epoch", "position", "validated", "best", "last_finite_loss"):
        setattr(session, name, getattr(before, name))
    if config.solver == before.config.solver:
        session.budget = before.budget
    return session


def train_step(session: Session) -> str:
    """Make one optimiser step and return the result as text."""
    session.model.train()
    session.set_learning_rate()
    batch = converted(next(session.batches()), build.dtype(session.config))
    values, solves = make_step(session, batch)
    check_finite(session, session.model.state_dict())
    cost = sum(solves, start=Stats())
    nfe = f", {cost.nfe_forward} evaluations forward, {cost.nfe_backward} backward" if solves else ""
    return f"It passes: loss {values['loss'].item():.6g}{nfe}."
