"""Make one run, from its config to its finished folder."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import numpy
import torch

from odenet_cli import data as datasets
from odenet_cli.config.resolve import eval_batch, eval_solver
from odenet_cli.config.saved import save
from odenet_cli.config.schema import Config
from odenet_cli.errors import Interrupted, RequestError, RunFailed
from odenet_cli.files import write
from odenet_cli.lock import locked
from odenet_cli.metrics import check_metrics, read_metrics
from odenet_cli.ode import PrecisionWarning, SolveError
from odenet_cli.rundir import holds_run, read_record, short, write_record
from odenet_cli.tasks import optional, task
from odenet_cli.terminal import say, tell
from odenet_cli.training import budget, build, checkpoint, generators, least_squares, record
from odenet_cli.training.banner import banner
from odenet_cli.training.costs import account
from odenet_cli.training.ending import tell_end
from odenet_cli.training.evaluate import scoring
from odenet_cli.training.failure import explain
from odenet_cli.training.identity import check_same_data, check_same_run, other_run
from odenet_cli.training.log import Logbook
from odenet_cli.training.loop import fit, score
from odenet_cli.training.optim import optimizer
from odenet_cli.training.progress import Progress
from odenet_cli.training.resume import CheckpointWriter, begin_from_checkpoint, best_weights, restore
from odenet_cli.training.session import Session
from odenet_cli.training.signals import Stop

log = logging.getLogger("odenet")


def run(
    config: Config,
    folder: Path,
    command: str,
    overrides: list[str],
    data_record: dict[str, Any] | None = None,
    job: int = 0,
    tied: bool = True,
    draw: Callable[[Path], list[Path]] | None = None,
) -> dict[str, Any]:
    """Train `config` in `folder`, and return the final metrics. A run that was stopped there is continued.

    tied  write `atol: ${.rtol}` to `config.yaml`
    draw  draws the figures of the run in a folder, and returns their files

    Raises `RunFailed` and `Interrupted`, with `run.json` saying why; `RequestError` leaves the folder's run as it was.
    """
    warnings.filterwarnings("ignore", r".*\.rtol=.* is below the resolution", PrecisionWarning)  # the request says so
    with locked(folder), Stop() as stop:
        new, before = not holds_run(folder), read_record(folder)
        longer = check_same_run(folder, config)
        if new:
            save(config, folder, tied)
        where = build.choose_device(config, job)
        session = assemble(config, where, before.get("data"))
        check_same_data(before.get("data") or {}, session.data.record, folder)
        state, final = find_start(session, folder, before, longer)
        if final is not None:
            say_finished(session, folder)
            return final

        for line in banner(session, folder):
            tell(line)
        if not new:  # only now, so that the run that is here keeps its own where it does not go on
            save(config, folder, tied)
        entry = record.opening(session, command, overrides, data_record, before, longer)
        write_record(folder, entry)
        try:
            final, images = train(session, folder, state, stop, draw)
            entry |= calibrated(session)
        except BaseException as error:
            status, reason, raised = explain(error, session, folder)
            log.info("stopped", exc_info=error)
            entry |= {"status": status, "reason": reason, "failed": session.failed, "finished": record.now()}
            with contextlib.suppress(OSError):  # on a full disk even this may fail; what is raised says it too
                write_record(folder, entry)
            raise raised from error
        cost = account(session, read_metrics(folder), final["nfe_test"])
        write_record(folder, entry | {"status": "done", "final": final, "cost": cost, "finished": record.now()})
        tell_end(session, final, folder, images)
        if stop.name:  # too late for this run, but a sweep stops here
            raise Interrupted(f"{stop.name} arrived when the run was nearly finished", stop.code)
        return final


def say_finished(session: Session, folder: Path) -> None:
    """Print that the run is finished, and the command that trains further; the last line ends with the folder."""
    trainer = session.config.trainer
    words = [] if trainer.max_steps is None else ["trainer.max_steps=null"]
    if session.end == session.total:  # its full length, so that one is to be longer too
        key = "steps" if trainer.steps else "epochs"
        words.append(f"trainer.{key}={2 * (getattr(trainer, key) or 1)}")
    say(f"This run is finished. To train longer:\n  odenet train resume={quote(short(folder))} {' '.join(words)}")
    say(f"already finished, nothing to do | {short(folder)}")


def find_start(
    session: Session, folder: Path, before: dict[str, Any], longer: dict[str, str]
) -> tuple[checkpoint.Content | None, dict[str, Any] | None]:
    """Restore the session of the run in `folder`; return its checkpoint, if any, and its final metrics if it is done.

    before, longer  its `run.json`, and the settings `trainer.*` that differ from those that it had
    """
    path = folder / "checkpoints" / "last.pt"
    state, trouble = checkpoint.latest(path, partial(restore, session))
    if before.get("status") == "done":
        final = before.get("final") or {}
        step = session.step if state is not None else final.get("step", 0)
        if final and step >= session.end:
            if longer and not (step == session.end and longer.keys() == {"trainer.max_steps"}):
                raise other_run(folder, longer)
            return state, dict(final)
        if state is None:
            raise RequestError(
                f"the run in {folder} is finished, and its checkpoints are gone: {path} does not exist.\n"
                "  Restore it, or start a new run in another folder."
            )
    if state is not None or (folder / "metrics.jsonl").is_dir():
        check_metrics(folder, 0 if state is None else state["metrics_bytes"])
    if trouble:
        log.warning("%s\n  Continuing from the checkpoint before it.", trouble)
        # Out of the way: the next write would put it in the place of the sound one.
        path.replace(path.with_name("damaged-last.pt"))
    if state is None:
        begin_from_checkpoint(session.model, session.config)
    return state, None


def train(
    session: Session,
    folder: Path,
    state: dict[str, Any] | None,
    stop: Stop,
    draw: Callable[[Path], list[Path]] | None,
) -> tuple[dict[str, Any], list[Path]]:
    """Train to the end, score the best weights on the test split; return the run's numbers and the images drawn."""
    logbook = Logbook(folder, session.config, 0 if state is None else state["metrics_bytes"])
    progress = Progress(
        session.end,
        session.step,
        session.per_epoch,
        lambda: stop.name is not None,
        validates=bool(session.data.valid.size),
        converges=hasattr(session.optimizer, "converged"),
    )
    try:
        if state is None and least_squares.searches(session.config):
            progress.phase("searching for initial values")
            origin = least_squares.search_start(session.model, session.data, session.config)
            if origin is not None:
                tell(f"start:    initial values from {origin}")
        fit(session, logbook, CheckpointWriter(folder / "checkpoints", logbook), stop, progress)
        progress.total = session.end  # of a fit, known now
        session.model.load_state_dict(best_weights(session, folder))
        predictions: dict[str, torch.Tensor] = {}
        progress.phase("scoring the test data")
        scores = score(session, "test", predictions, progress.over)
        entry = {"step": session.step, "epoch": session.epoch, "split": "test", **scores}
        logbook.write(entry)
        progress.record(entry)
        progress.phase("checking the scores")
        scores = close(session, scores)
        save_predictions(folder, predictions)
        progress.phase("computing the figures")
        save_figure_data(folder, session, predictions)
        progress.phase("drawing the figures")
        images = draw_figures(folder, draw)
        logbook.board.add_images(images, session.step)
    finally:
        session.predicted_s = progress.predicted_s
        progress.close()
        logbook.close()
    return record.final(session, scores, folder), images


def close(session: Session, scores: dict[str, Any]) -> dict[str, Any]:
    """Return the test scores with the task's additions; raise `RunFailed` if they cannot be true."""
    test, limit = session.data.test, session.config.trainer.limit_batches
    count = test.size if limit is None else min(test.size, limit * test.batch_size)
    more, complaint = ask_task(session, "sanity_check", scores, count) or ({}, None)
    if complaint is not None:
        raise RunFailed(complaint)
    return {**scores, **more}


def ask_task(session: Session, part: str, *arguments: Any) -> Any:
    """Call an optional function of the task on the network as it is scored; return None if the task has none."""
    function = optional(session.data.task, part)
    if function is None:
        return None
    with session.counting(), scoring(session.model, session.scorer, session.precision) as net:
        return function(net, session.data, *arguments)


def calibrated(session: Session) -> dict[str, Any]:
    """Return settings of predictions from held-out samples, for `run.json`; nothing if draws fail."""
    try:
        band = ask_task(session, "calibrate")
    except SolveError as error:  # of a draw far out; the run is whole without
        log.warning("The band of predictions is not calibrated: %s", error)
        return {}
    return {} if band is None else {"band": band}


def save_figure_data(folder: Path, session: Session, per_sample: dict[str, torch.Tensor]) -> None:
    """Write the arrays for the run's figures to `figures/<task>.npz`; `odenet_cli.report.pictures` draws them."""
    arrays = ask_task(session, "figure_data", per_sample)
    if arrays is not None:
        (folder / "figures").mkdir(exist_ok=True)
        path = folder / "figures" / f"{session.data.task}.npz"
        write_npz(path, {name: array.detach().cpu().numpy() for name, array in arrays.items()})


def draw_figures(folder: Path, draw: Callable[[Path], list[Path]] | None) -> list[Path]:
    """Draw the figures of the run in `folder`, and return those that are images; a failure is only logged."""
    try:
        return [path for path in draw(folder) if path.suffix == ".png"] if draw is not None else []
    except Exception as error:
        log.warning("The figures were not drawn: %s", error)
        log.info("the figures were not drawn", exc_info=error)
        return []


def save_predictions(folder: Path, predictions: dict[str, torch.Tensor]) -> None:
    """Write predictions and targets of all test samples to `predictions.npz`: classes (N,), or values.

    They allow a paired comparison of two networks (McNemar's test), which error rates do not.
    """
    if predictions:
        arrays = {name: values.cpu().numpy() for name, values in predictions.items()}
        for name, values in arrays.items():
            if values.dtype.kind == "i":  # classes, which fit into a byte each
                arrays[name] = values.astype(numpy.min_scalar_type(values.max()))
        write_npz(folder / "predictions.npz", arrays)


def write_npz(path: Path, arrays: dict[str, Any]) -> None:
    file = io.BytesIO()
    numpy.savez_compressed(file, **arrays)
    write(path, file.getvalue())


def assemble(config: Config, where: torch.device, data_record: dict[str, Any] | None = None) -> Session:
    """Return the session of `config` at its start.

    data_record  of the data with which a continued run began; everything is measured in its units
    """
    name, options = config.source()
    batch = config.trainer.batch_size
    assert batch is not None
    data = datasets.load(
        name,
        options,
        batch_size=batch,
        eval_batch_size=eval_batch(config),
        seed=config.seed,
        device=where,
        dtype=build.dtype(config),
        run=data_record,
    )
    generators.seed(config.seed)
    model = build.model(config, data.shape, data.classes).to(where)
    if config.optim.least_squares:
        least_squares.start(model, data)
    return Session(
        config,
        model,
        task(data.task),
        data,
        optimizer(config.optim, model, where),
        where,
        build.solver(eval_solver(config)),
        budget=budget.of_config(config),
        check_every_step=where.type == "cpu",
    )
