"""The step that a run failed in, once more; nothing is written.

It begins from `checkpoints/failed.pt`, which has the weights before it and its batch. A run that found out later, as on
a GPU or where the update broke the weights, has none: then the steps since the latest checkpoint are looked at, each.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odenet_cli.analysis.trained import known_data
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError, RunFailed
from odenet_cli.ode import Stats
from odenet_cli.registry import require
from odenet_cli.rundir import read_record
from odenet_cli.training import build, checkpoint, device, generators
from odenet_cli.training.evaluate import converted
from odenet_cli.training.failure import WHERE, broken, circumstances, repeatable
from odenet_cli.training.keeper import FAILED
from odenet_cli.training.loop import Session, score, slopes
from odenet_cli.training.optim import learning_rate
from odenet_cli.training.progress import number
from odenet_cli.training.run import assemble
from odenet_cli.training.sound import FAILED_STEP, agree, fitting, sound
from odenet_cli.training.state import restore, take, weights_of


class Nowhere:
    """Keeps no failed step."""

    def failed(self, *_: Any) -> None:
        pass


def repeat(folder: Path, run: Config, config: Config, say: Callable[[str], None]) -> str:
    """Repeat what the run in `folder` failed in under `config`: its own, `run`, or a change of it.

    Raises `RunFailed` where it fails again; what came of it in words where not.
    """
    path, record = folder / "checkpoints" / FAILED, read_record(folder)
    kept = checkpoint.load(path) if path.exists() else None
    if kept is not None:
        sound(kept, FAILED_STEP)
        agree(run, kept)
    if kept is None and not str(record.get("reason")).startswith("the run diverged"):
        status = record.get("status", "not begun")
        reason = f": {str(record['reason']).partition(chr(10))[0]}" if record.get("reason") else ""
        raise RequestError(
            f"{folder} has no failed step to repeat: there is no {path}.\n  The run is {status}{reason}\n"
            "  One is kept where a loss, a gradient or a solve fails."
        )
    where = device.choose(config.device)
    device.settle(where, config.deterministic, build.tightest(config))
    session = assemble(config, where, known_data(folder))
    session.watch = True
    if kept is None:
        return _since_checkpoint(session, folder, run, say)

    take(session.model, session.optimizer, kept)
    session.step, session.epoch, session.position = kept["step"], kept["epoch"], kept["position"]
    session.good = kept["good"]
    split = require("split", kept["split"], WHERE)
    step = session.step + 1 if split == "train" else session.step
    say(f"{folder}: {WHERE[split]} {step} again, in epoch {session.epoch}, with the weights that it had.")
    if split != "train":
        scores = score(session, Nowhere(), split)
        return f"It passes: {split} loss {scores['loss']:.6g}."
    with fitting(kept, "the data"):
        dealt = next(iter(session.data.train.epoch(session.epoch, session.position)))
        for old, new in zip(dealt, kept["batch"], strict=True):
            if new is not None and new.shape[1:] != old.shape[1:]:
                raise ValueError(f"its batch has {tuple(new.shape)} where {tuple(old.shape)} is dealt")
    batch = tuple(old if new is None else new.to(where) for old, new in zip(dealt, kept["batch"]))
    batch = converted(batch, build.dtype(config))
    if not all(torch.equal(old, new) for old, new in zip(dealt, batch) if isinstance(old, Tensor)) and config == run:
        say("The data deal another batch here than the one that was kept; the kept one is taken.")
    generators.restore(kept, where)
    return _step(session, batch)


def _step(session: Session, batch: Any) -> str:
    session.model.train()
    for group in session.optimizer.param_groups:
        group["lr"] = learning_rate(session.config.optim, session.step, session.total)
    with repeatable(session, Nowhere(), batch=batch):
        values, solves = slopes(session, batch)
    session.optimizer.step()
    session.step, session.position = session.step + 1, session.position + 1
    name = broken(session.model.state_dict())
    if name is not None:
        raise RunFailed(f"the update of step {session.step} makes {name} NaN or infinite, at {circumstances(session)}.")
    cost = sum(solves, start=Stats())
    nfe = f", {number(cost.nfe_forward)} evaluations forward, {number(cost.nfe_backward)} backward" if solves else ""
    return f"It passes: loss {values['loss'].item():.6g}{nfe}."


def _since_checkpoint(session: Session, folder: Path, run: Config, say: Callable[[str], None]) -> str:
    """All steps after the latest checkpoint, to the one that fails; a run notices before the next checkpoint."""
    session.config, changed = run, session.config
    state, trouble = checkpoint.latest(folder / "checkpoints" / "last.pt", partial(restore, session))
    session.config = changed
    if state is None and run.checkpoint is not None:
        session.model.load_state_dict(weights_of(run, Path(run.checkpoint)))
    if trouble:
        say(f"{trouble}\n  Taking the checkpoint before it.")
    say(f"{folder}: the steps after step {session.step}, the latest checkpoint, again; the failed one was not kept.")
    end = min(session.end, session.step + run.trainer.checkpoint_every * (2 if trouble else 1))
    said = "It passes: no step was left."
    while session.step < end:
        if session.position == session.per_epoch:
            session.epoch, session.position = session.epoch + 1, 0
        for batch in session.data.train.epoch(session.epoch, session.position):
            said = _step(session, batch)
            if session.step == end or session.position == session.per_epoch:
                break
    return said
