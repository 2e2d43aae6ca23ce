"""The training loop: one for every model."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from odenet_cli.errors import Interrupted
from odenet_cli.ode import Stats, tally
from odenet_cli.training.certificate.schedule import certify_when_due
from odenet_cli.training.evaluate import Over, evaluate, unwatched
from odenet_cli.training.failure import check_gradients, check_loss, diverged, failing_in
from odenet_cli.training.memory import PeakMeter, SavedMeter
from odenet_cli.training.session import Session, Window
from odenet_cli.training.signals import Stop


def fit(session: Session, log: Any, checkpoints: Any, stop: Stop, progress: Any) -> None:
    """Train until `session.end`, and validate after every epoch.

    log, checkpoints, progress  a `Logbook`, a `CheckpointWriter` and a `Progress`, or what stands in for them
    """
    session.started = time.perf_counter() - session.elapsed_s
    # A run that was stopped between an epoch's last step and its validation continues with the validation.
    while session.step < session.end or session.validated < session.step:
        if not session.position:
            session.epoch_began_s = time.perf_counter() - session.started
        train_epoch(session, log, checkpoints, stop, progress)
        spent_s = time.perf_counter() - session.started
        validate(session, log, checkpoints, progress, epoch_s=spent_s - session.epoch_began_s)
        session.elapsed_s = time.perf_counter() - session.started
        # After the validation, which draws random numbers in some tasks and must not be repeated.
        checkpoints.last(session)


def train_epoch(session: Session, log: Any, checkpoints: Any, stop: Stop, progress: Any) -> None:
    """Train on the remaining batches of the epoch."""
    trainer = session.config.trainer
    session.model.train()
    for batch in session.batches():
        session.window.open()
        rate = session.set_learning_rate()
        values, solves = make_step(session, batch)

        session.position += 1
        session.elapsed_s = time.perf_counter() - session.started
        session.window.add(values, solves)
        if session.budget is not None:
            session.budget.add(sum(stats.nfe_forward for stats in solves))
        progress.step(session.step)
        epoch_done = session.position == session.per_epoch
        if session.step % trainer.log_every == 0 or epoch_done or session.step == session.end:
            record_window(session, log, progress, rate)
        # A signal ends the run here, after everything of the step was written.
        if stop.name or session.step % trainer.checkpoint_every == 0:
            # On a GPU the loss is not checked yet, and weights after a NaN must not replace the last good ones.
            check_loss(session, values["loss"], session.step)
            checkpoints.last(session)
        # After the last step of an epoch the file has position == per_epoch; the epoch is counted on resuming.
        if stop.name:
            raise Interrupted(f"{stop.name} after step {session.step} of {session.end}", stop.code)

    if session.position == session.per_epoch:
        session.epoch, session.position = session.epoch + 1, 0


def make_step(session: Session, batch: Any) -> tuple[dict[str, Tensor], list[Stats]]:
    """Make one optimiser step; return loss and metrics of `batch` before it, () each, and the costs of its solves."""
    # A failure in here leaves the weights unchanged, so the step can be repeated.
    with failing_in(session, "train"):
        values, solves = loss_and_gradients(session, batch)
    certify_when_due(session, batch)
    with tally() as tried:  # least squares evaluates a step before taking it; other optimisers solve nothing
        session.optimizer.step()
    session.step += 1
    return values, solves + tried


def loss_and_gradients(session: Session, batch: Any) -> tuple[dict[str, Tensor], list[Stats]]:
    """Return loss and metrics of `batch`, () each, and the costs of its solves; leave the gradients in the parameters.

    The weights stay as they are.
    """
    session.steer()
    # The tally stays open through the backward pass, which evaluates the vector field too.
    with tally() as solves, measured_memory(session):
        loss, extra = session.loss_fn(session.model, batch)
        if session.check_every_step:
            check_loss(session, loss, session.step + 1)
        # None, not zero: the backward pass then writes gradients instead of adding to them.
        session.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
    if session.check_every_step:
        check_gradients(session)
    if session.config.optim.clip is not None:
        nn.utils.clip_grad_norm_(session.model.parameters(), session.config.optim.clip)
    return {"loss": loss, **extra}, solves


@contextlib.contextmanager
def measured_memory(session: Session) -> Iterator[None]:
    """Measure memory in the first step of a window only, since the hooks cost time."""
    if session.window.steps:
        yield
        return
    with (
        SavedMeter([*session.model.parameters(), *session.model.buffers()]) as saved,
        PeakMeter(session.device) as peak,
    ):
        yield
    session.window.saved_mib, session.window.peak_mib = saved.peak_mib, peak.peak_mib


def record_window(session: Session, log: Any, progress: Any, rate: float) -> None:
    """Log the means since the last record, and start a new window."""
    # An epoch's last step counts as its end.
    epoch = session.epoch + (session.position == session.per_epoch)
    record = {"step": session.step, "epoch": epoch, "split": "train", "lr": rate, **session.window.means()}
    if session.budget is not None:
        record["rtol"] = session.budget.rtol
    # On a GPU these losses are checked only here, since steps do not wait for the device.
    check_loss(session, record["loss"], session.step)
    log.write(record)
    progress.record(record)
    session.window = Window()


def validate(session: Session, log: Any, checkpoints: Any, progress: Any, epoch_s: float) -> None:
    """Score the validation split and keep the weights if they are the best so far.

    Without a validation split the last weights count as the best.
    """
    session.validated, at = session.step, {"step": session.step, "epoch": session.epoch}
    if not session.data.valid.size:
        session.best = at
        return
    record = {**at, "split": "valid", **score(session, "valid", over=progress.over), "epoch_s": epoch_s}
    log.write(record)
    progress.record(record)
    criterion = "error" if "error" in record else "loss"
    best = session.best
    # A tie in error goes to the smaller loss.
    if best is None or (record[criterion], record["loss"]) < (best[criterion], best["loss"]):
        session.best = {name: value for name, value in record.items() if not name.endswith("_s")}
        checkpoints.best(session)


def score(
    session: Session, split: str, per_sample: dict[str, Tensor] | None = None, over: Over = unwatched
) -> dict[str, Any]:
    """Return the scores of the present weights on `split`; raise `RunFailed` if the loss is NaN or infinite."""
    samples, limit = getattr(session.data, split), session.config.trainer.limit_batches
    session.steer()
    with failing_in(session, split):
        scores = evaluate(
            session.model, session.loss_fn, samples, session.scorer, limit, session.precision, per_sample, over
        )
        if not math.isfinite(scores["loss"]):
            raise diverged(session, scores["loss"], session.step)
    return scores
