"""One run, from its config to its finished folder."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import nn

from odenet_cli import data as datasets
from odenet_cli.config.resolve import eval_solver
from odenet_cli.config.saved import save
from odenet_cli.config.schema import Config
from odenet_cli.errors import Interrupted, RequestError, RunFailed
from odenet_cli.files import write
from odenet_cli.models.cnf import ContinuousFlow
from odenet_cli.ode import PrecisionWarning
from odenet_cli.rundir import check_metrics, holds_run, locked, read_record, write_record
from odenet_cli.tasks import figure_data, missing_method, sanity_check, task
from odenet_cli.training import build, checkpoint, device, generators
from odenet_cli.training.evaluate import scoring
from odenet_cli.training.keeper import FAILED, Keeper
from odenet_cli.training.log import Logbook
from odenet_cli.training.loop import Session, fit, score
from odenet_cli.training.optim import optimizer
from odenet_cli.training.progress import Progress, say
from odenet_cli.training.record import explained, final, last_line, now, opening
from odenet_cli.training.same import another, same_data, same_run
from odenet_cli.training.signals import Stop
from odenet_cli.training.state import best_weights, restore, weights_of

log = logging.getLogger("odenet")

FLOW = "Choose a flow, model=cnf or model=planar, or data for this model; a field of your own is model=custom."
REMEDY = {
    "forward": "Choose a model that answers with classes, such as model=odenet or model=resnet, or data for this one.",
    "log_prob": FLOW,
    "generate": FLOW,
    "forecast": "Choose a model of series: model=latent_ode, rnn or rnn_dt, or data for this one.",
    "intensity": "Choose a model of events, model=latent_poisson, or data for this one.",
}


def check(config: Config) -> None:
    """Refuse a config that no model, solver or device fits; builds the model without memory, reads no data."""
    device.choose(config.device)
    name, options = config.source()
    datasets.check(name, options)
    shape = datasets.shape(name, options)
    network = build.sized(config, *shape)
    missing = missing_method(datasets.task(name), network)
    if missing:
        raise RequestError(
            f"model={config.model['name']} and data={name} do not go together: the task is {datasets.task(name)}, and "
            f"the model has no {missing}.\n  {REMEDY.get(missing, 'Choose another model, or data for this one.')}"
        )
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise RequestError(f"model={config.model['name']} has no parameters, so there is nothing to train.")
    if config.model["name"] == "custom" and (isinstance(network, ContinuousFlow) or datasets.task(name) == "classify"):
        _check_own(network, *shape)


def _check_own(network: nn.Module, shape: tuple[int, ...], classes: int) -> None:
    """Refuse a network of one's own whose answer has not the shape that its task takes, or whose field's slope has not
    that of its state; asked on tensors without memory."""
    x = torch.empty(2, *shape, device="meta", dtype=next(network.parameters()).dtype)
    try:
        with torch.no_grad():
            if isinstance(network, ContinuousFlow):
                expected, what = x.shape, "the field gave {}; a slope has the shape of z"
                answer = network.eval().field(torch.empty((), device="meta", dtype=x.dtype), x)
            else:
                expected, what = torch.Size((2, classes)), f"it gave {{}}; scores of the classes are {(2, classes)}"
                answer = network.eval()(x)
    except (Exception, SystemExit):  # of an operation that does not do without, or its own: the first step will tell
        return
    if getattr(answer, "shape", None) != expected:
        given = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
        called = f"(t, z {tuple(x.shape)})" if isinstance(network, ContinuousFlow) else f"(x {tuple(x.shape)})"
        raise RequestError(f"model.target: called with {called}, {what.format(given)}.")


def run(
    config: Config,
    folder: Path,
    command: str,
    overrides: list[str],
    data_record: dict[str, Any] | None = None,
    job: int = 0,
    tied: bool = True,
) -> dict[str, Any]:
    """Train as `config` says, in `folder`, and return the final metrics. A run that was stopped there goes on.

    tied  `config.yaml` says `atol: ${.rtol}`

    Raises `RunFailed` and `Interrupted`, with `run.json` saying why; `RequestError` leaves the folder's run as it was.
    """
    warnings.filterwarnings("ignore", r".*\.rtol=.* is below the resolution", PrecisionWarning)  # the request says so
    with locked(folder), Stop() as stop:
        new, record = not holds_run(folder), read_record(folder)
        longer = same_run(folder, config)
        if new:
            save(config, folder, tied)
        where = device.choose(config.device, job)
        device.settle(where, config.deterministic, build.tightest(config))
        session = assemble(config, where, record.get("data"))
        same_data(record.get("data") or {}, session.data.record, folder)
        last = folder / "checkpoints" / "last.pt"
        state, trouble = checkpoint.latest(last, partial(restore, session))
        if record.get("status") == "done":
            there = record.get("final") or {}
            step = session.step if state is not None else there.get("step", 0)
            if there and step >= session.end:
                if longer and not (step == session.end and longer.keys() == {"trainer.max_steps"}):
                    raise another(folder, longer)
                return dict(there)
            if state is None:
                raise RequestError(
                    f"the run in {folder} is finished, and its checkpoints are gone: there is no {last} to go on from."
                    "\n  Put it back, or start a new run in another folder."
                )
        if state is not None or (folder / "metrics.jsonl").is_dir():
            check_metrics(folder, 0 if state is None else state["metrics_bytes"])
        if trouble:
            log.warning("%s\n  Going on from the checkpoint before it.", trouble)
            # Out of the way: the next write would put it in the place of the sound one.
            last.replace(last.with_name("damaged-last.pt"))
        if state is None and config.checkpoint is not None:
            session.model.load_state_dict(weights_of(config, Path(config.checkpoint)))

        say(device.banner(where))
        if not new:  # only now, so that the run that is here keeps its own where it does not go on
            save(config, folder, tied)
        record = opening(session, command, overrides, data_record, record)
        write_record(folder, record)
        (folder / "checkpoints" / FAILED).unlink(missing_ok=True)  # an attempt before this one
        try:
            numbers = _train(session, folder, state, stop)
        except BaseException as error:
            kind, reason, raised = explained(error, session, folder)
            log.info("stopped", exc_info=error)
            with contextlib.suppress(OSError):  # on a full disk even this may fail; what is raised says it too
                write_record(folder, record | {"status": kind, "reason": reason, "finished": now()})
            raise raised from error
        write_record(folder, record | {"status": "done", "final": numbers, "finished": now()})
        say(last_line(numbers, folder))
        if stop.name:  # too late for this run, but a sweep stops here
            raise Interrupted(f"{stop.name} came when the run was all but finished", stop.code)
        return numbers


def close(session: Session, scores: dict[str, Any]) -> dict[str, Any]:
    """The test scores and what the task has to add to them; `RunFailed` where they cannot be true."""
    say = sanity_check(session.data.task)
    if say is None:
        return scores
    test, limit = session.data.test, session.config.trainer.limit_batches
    count = test.size if limit is None else min(test.size, limit * test.batch_size)
    with scoring(session.model, session.scorer, session.precision) as net:
        more, complaint = say(net, session.data, scores, count)
    if complaint is not None:
        raise RunFailed(complaint)
    return {**scores, **more}


def keep_sketch(folder: Path, session: Session) -> None:
    """What the run's figures are drawn from, as `figures/<task>.npz`; `odenet_cli.report.pictures` draws them."""
    draft = figure_data(session.data.task)
    if draft is not None:
        with scoring(session.model, session.scorer, session.precision) as net:
            arrays = draft(net, session.data)
        (folder / "figures").mkdir(exist_ok=True)
        path = folder / "figures" / f"{session.data.task}.npz"
        numpy.savez_compressed(path, **{name: array.detach().cpu().numpy() for name, array in arrays.items()})  # type: ignore[arg-type]


def keep_predictions(folder: Path, predictions: dict[str, torch.Tensor]) -> None:
    """Write what a classifier answered to every test sample, and the labels, to `predictions.npz`, (N,) each.

    Two networks are compared on the same samples by these (McNemar's test), which their error rates do not allow.
    """
    if predictions:
        arrays = {name: values.cpu().numpy() for name, values in predictions.items()}
        packed = {name: values.astype(numpy.min_scalar_type(values.max())) for name, values in arrays.items()}
        file = io.BytesIO()
        numpy.savez_compressed(file, **packed)  # type: ignore[arg-type]
        write(folder / "predictions.npz", file.getvalue())


def assemble(config: Config, where: torch.device, known: dict[str, Any] | None = None) -> Session:
    """Everything to train `config` with, at its beginning; `known` is the record of the data that it began with."""
    name, options = config.source()
    batch = config.trainer.batch_size
    assert batch is not None
    data = datasets.load(
        name,
        options,
        batch_size=batch,
        eval_batch_size=config.eval.batch_size or max(batch, 200),
        seed=config.seed,
        device=where,
        dtype=build.dtype(config),
        run=known,
    )
    generators.seed(config.seed)
    model = build.model(config, data.shape, data.classes).to(where)
    return Session(
        config,
        model,
        task(data.task),
        data,
        optimizer(config.optim, model.parameters(), where),
        where,
        build.solver(eval_solver(config)),
        watch=where.type == "cpu",
    )


def _train(session: Session, folder: Path, state: dict[str, Any] | None, stop: Stop) -> dict[str, Any]:
    logbook = Logbook(folder, session.config, 0 if state is None else state["metrics_bytes"], session.step)
    keep = Keeper(folder / "checkpoints", logbook)
    show = Progress(session.end, session.step, session.per_epoch)
    try:
        fit(session, logbook, keep, stop, show)
        session.model.load_state_dict(best_weights(session, folder))
        predictions: dict[str, torch.Tensor] = {}
        scores = score(session, keep, "test", predictions)
        at = {"step": session.step, "epoch": session.epoch, "split": "test"}
        logbook.write({**at, **scores})
        show.record({**at, **scores})
        scores = close(session, scores)
        keep_predictions(folder, predictions)
        keep_sketch(folder, session)
    finally:
        show.close()
        logbook.close()
    return final(session, scores, folder)
