"""One run, from its config to its finished folder."""

from __future__ import annotations

import logging
import math
import os
import platform
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

import odenet_cli
from odenet_cli import data as datasets
from odenet_cli.config import Config, eval_solver
from odenet_cli.errors import Interrupted, RequestError, RunFailed
from odenet_cli.tasks import task
from odenet_cli.training import build, checkpoint, device
from odenet_cli.training.evaluate import evaluate
from odenet_cli.training.folder import locked, read_record, write_record
from odenet_cli.training.log import Logbook
from odenet_cli.training.loop import Session, Window, diverged, fit
from odenet_cli.training.optim import optimizer
from odenet_cli.training.progress import Progress, duration, number, percent
from odenet_cli.training.signals import Stop

log = logging.getLogger("odenet")


def check(config: Config) -> None:
    """Refuse a config that no model, solver or device fits; builds the model without memory, reads no data."""
    device.choose(config.device)
    name, options = _data(config)
    datasets.check(name, options)
    with torch.device("meta"):
        build.model(config, *datasets.shape(name))


def run(
    config: Config,
    folder: Path,
    command: str,
    overrides: list[str],
    data_record: dict[str, Any] | None = None,
    job: int = 0,
) -> dict[str, Any]:
    """Train as `config` says, in `folder`, and return the final metrics. A run that was stopped there goes on.

    Raises `RunFailed` and `Interrupted`, with `run.json` saying why; `RequestError` leaves the folder's run as it was.
    """
    with locked(folder), Stop() as stop:
        record = read_record(folder)
        where = device.choose(config.device, job)
        device.settle(where, config.deterministic, build.tightest(config))
        session = _session(config, where)
        last = folder / "checkpoints" / "last.pt"
        state, trouble = checkpoint.latest(last)
        if state is not None:
            _restore(session, state)
        if trouble:
            log.warning("%s\n  Going on from the checkpoint before it.", trouble)
            # Out of the way: the next write would put it in the place of the sound one.
            last.replace(last.with_name("damaged-last.pt"))
        if record.get("status") == "done" and session.step >= session.end:
            return dict(record["final"])
        if state is None and config.checkpoint is not None:
            session.model.load_state_dict(_weights(session, Path(config.checkpoint)))

        record = _opening_record(session, command, overrides, data_record, record)
        write_record(folder, record)
        try:
            final = _train(session, folder, state, stop)
        except BaseException as error:
            kind, reason, raised = _explained(error, session, folder)
            log.info("stopped", exc_info=error)
            write_record(folder, record | {"status": kind, "reason": reason, "finished": _now()})
            raise raised from error
        write_record(folder, record | {"status": "done", "final": final, "finished": _now()})
        print(_last_line(final, folder), flush=True)
        if stop.name:  # too late for this run, but a sweep stops here
            raise Interrupted(f"{stop.name} came when the run was all but finished", stop.code)
        return final


def _session(config: Config, where: torch.device) -> Session:
    name, options = _data(config)
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
    )
    model = build.model(config, data.shape, data.classes).to(where)
    scorer = build.solver(eval_solver(config))
    return Session(
        config, model, task(data.task), data, optimizer(config.optim, model.parameters(), where), where, scorer
    )


def _train(session: Session, folder: Path, state: dict[str, Any] | None, stop: Stop) -> dict[str, Any]:
    logbook = Logbook(folder, session.config, 0 if state is None else state["metrics_bytes"], session.step)
    keep = Keeper(folder / "checkpoints", logbook)
    show = Progress(session.end, session.step, session.per_epoch)
    try:
        fit(session, logbook, keep, stop, show)
        session.model.load_state_dict(_best_weights(session, folder))
        limit = session.config.trainer.limit_batches
        scores = evaluate(session.model, session.loss_fn, session.data.test, session.scorer, limit)
        if not math.isfinite(scores["loss"]):
            raise diverged(session, scores["loss"])
        at = {"step": session.step, "epoch": session.epoch, "split": "test"}
        logbook.write({**at, **scores})
        show.record({**at, **scores})
    finally:
        show.close()
        logbook.close()
    return _final(session, scores, folder)


class Keeper:
    """Writes the checkpoints `last.pt` and `best.pt`."""

    def __init__(self, folder: Path, logbook: Logbook) -> None:
        self.folder, self.logbook = folder, logbook

    def last(self, session: Session) -> None:
        """Everything a run needs to go on to the same bits."""
        content = {
            **self._weights(session),
            "optimizer": session.optimizer.state_dict(),
            "generator": torch.get_rng_state(),
            "position": session.position,
            "validated": session.validated,
            "best": session.best,
            "elapsed_s": session.elapsed_s,
            "window": session.window.state(),
            "metrics_bytes": self.logbook.flush(),
        }
        checkpoint.save(self.folder / "last.pt", content)

    def best(self, session: Session) -> None:
        checkpoint.save(self.folder / "best.pt", self._weights(session))

    def _weights(self, session: Session) -> dict[str, Any]:
        weights = session.model.state_dict()
        broken = [name for name, value in weights.items() if not torch.isfinite(value).all()]
        if broken:
            raise RunFailed(
                f"the run diverged: {broken[0]} is NaN or infinite after step {session.step}.\n  Lower optim.lr."
            )
        config = fingerprint(session.config)
        return {"config": config, "model": weights, "step": session.step, "epoch": session.epoch}


FREE = ("name", "device", "resume", "checkpoint", "trainer", "eval", "data.root", "data.download")


def fingerprint(config: Config) -> dict[str, Any]:
    """What must not change while a run goes on: all keys but where it runs, how long, and how often it reports."""
    import dataclasses

    flat: dict[str, Any] = {}

    def walk(prefix: str, thing: Any) -> None:
        if prefix in FREE:
            return
        if isinstance(thing, dict):
            for key, value in thing.items():
                walk(f"{prefix}.{key}" if prefix else key, value)
        else:
            flat[prefix] = thing

    walk("", dataclasses.asdict(config))
    flat["trainer.batch_size"] = config.trainer.batch_size
    return flat


def _restore(session: Session, state: dict[str, Any]) -> None:
    agree(session.config, state, "this run's own checkpoint")
    session.model.load_state_dict(state["model"])
    session.optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["generator"])
    session.step, session.epoch, session.validated = state["step"], state["epoch"], state["validated"]
    session.position = min(state["position"], session.per_epoch)
    session.best, session.elapsed_s = state["best"], state["elapsed_s"]
    session.window = Window.restored(state["window"], session.device)


def agree(config: Config, state: dict[str, Any], whose: str, keys: tuple[str, ...] = ("",)) -> None:
    """Refuse a checkpoint that another config made, naming the keys (of those that start with `keys`) that differ."""
    mine, other = fingerprint(config), state["config"]
    differ = [
        f"{key}: {other.get(key)} in the checkpoint, {mine.get(key)} here"
        for key in sorted(mine.keys() | other.keys())
        if key.startswith(keys) and mine.get(key) != other.get(key)
    ]
    if differ:
        listing = "\n  ".join(differ[:8])
        raise RequestError(
            f"the config does not agree with {whose}:\n  {listing}\n  Set these back, or start a new run."
        )


def _weights(session: Session, path: Path) -> dict[str, Any]:
    state = checkpoint.load(path)
    agree(session.config, state, str(path), ("model.", "dtype"))
    weights: dict[str, Any] = state["model"]
    return weights


def _best_weights(session: Session, folder: Path) -> dict[str, Any]:
    if not session.data.valid.size:
        return session.model.state_dict()
    state, trouble = checkpoint.latest(folder / "checkpoints" / "best.pt")
    step = (session.best or {})["step"]
    if state is None or state["step"] != step:
        raise RunFailed(f"the weights of step {step}, the best on validation, are lost: {trouble or 'no best.pt'}.")
    weights: dict[str, Any] = state["model"]
    return weights


def _final(session: Session, scores: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The numbers of the run: the test score of the weights chosen on validation, the cost of training by its log."""
    import json

    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    train = [record for record in map(json.loads, lines) if record["split"] == "train"]
    peaks = [record["peak_mib"] for record in train if record["peak_mib"] is not None]
    best = session.best or {}
    return {
        **{name: value for name, value in scores.items() if name in ("loss", "error")},
        "nfe_forward": train[-1]["nfe_forward"],
        "nfe_backward": train[-1]["nfe_backward"],
        "nfe_test": scores["nfe_forward"],
        "saved_mib": max(record["saved_mib"] for record in train),
        "peak_mib": max(peaks) if peaks else None,
        "step": session.step,
        "epoch": session.epoch,
        "best_epoch": best.get("epoch"),
        "valid_error": best.get("error"),
        "time_s": session.elapsed_s,
    }


def _opening_record(
    session: Session, command: str, overrides: list[str], data_record: dict[str, Any] | None, before: dict[str, Any]
) -> dict[str, Any]:
    return {
        "status": "running",
        "reason": None,
        "final": None,
        "name": session.config.name,
        "command": command,
        "overrides": overrides,
        "parameters": sum(p.numel() for p in session.model.parameters()),
        "data": {**session.data.record, **(data_record or {})},
        "device": device.describe(session.device),
        "threads": torch.get_num_threads(),
        "git": _commit(),
        "versions": {
            "odenet": odenet_cli.__version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
        },
        "started": before.get("started", _now()),
        "resumed": [*before.get("resumed", []), {"at": _now(), "step": session.step}] if before else [],
    }


def _explained(error: BaseException, session: Session, folder: Path) -> tuple[str, str, BaseException]:
    """Status and reason for `run.json`, and what to raise."""
    if isinstance(error, Interrupted):
        again = f"Go on with: odenet train {shlex.quote(f'resume={folder}')}"
        return "interrupted", str(error), Interrupted(f"{error}; the checkpoint is kept. {again}", error.code)
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "stopped at once by a second SIGINT", error
    if isinstance(error, torch.OutOfMemoryError):
        reason = (
            f"out of memory on {session.device} with trainer.batch_size={session.config.trainer.batch_size}. "
            "Use a smaller batch, or gradient=adjoint, which keeps no steps."
        )
        return "failed", reason, RunFailed(reason)
    reason = f"{error}" if isinstance(error, RunFailed) else f"{type(error).__name__}: {error}"
    if isinstance(error, RunFailed) and f"step {session.step}" not in reason:
        raised: BaseException = RunFailed(f"in optimiser step {session.step + 1}: {reason}")
        return "failed", str(raised), raised
    return "failed", reason, error


def _last_line(final: dict[str, Any], folder: Path) -> str:
    score = f"test error {percent(final['error'])}" if "error" in final else f"test loss {final['loss']:.4f}"
    nfe = f"NFE {number(final['nfe_forward'])} forward, {number(final['nfe_backward'])} backward"
    nfe = nfe if final["nfe_forward"] else "no solver"
    peak = f", {final['peak_mib']:.0f} MiB peak" if final["peak_mib"] is not None else ""
    memory = f"{final['saved_mib']:.1f} MiB saved for backward{peak}"
    return f"{score} | {nfe} | {memory} | {duration(final['time_s'])} | {_short(folder)}"


def _short(folder: Path) -> str:
    relative = os.path.relpath(folder)
    return str(folder) if relative.startswith("..") else relative


def _data(config: Config) -> tuple[str, dict[str, Any]]:
    options = {key: value for key, value in config.data.items() if key not in ("name", "recipe")}
    return config.data["name"], options


def _commit() -> str | None:
    """The commit of the source this runs from, with a plus where it was changed; None outside a checkout."""
    root = Path(odenet_cli.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root)]
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10).stdout.strip()
        dirty = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return (head + "+" * bool(dirty.strip())) or None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
