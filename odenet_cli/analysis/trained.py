"""A run that was made: its network with the weights of a checkpoint, and its data."""

from __future__ import annotations

import logging
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from odenet_cli import data as datasets
from odenet_cli import models
from odenet_cli.config.saved import load
from odenet_cli.config.schema import Config
from odenet_cli.data import Data
from odenet_cli.errors import RequestError
from odenet_cli.rundir import WEIGHTS as WEIGHTS_FILE
from odenet_cli.rundir import read_record
from odenet_cli.tasks import Loss, task
from odenet_cli.training import build, checkpoint, device, weights
from odenet_cli.training.sound import WEIGHTS, agree, fits, sound
from odenet_cli.training.state import shapes, take

MADE_OF = ("model.", "data.", "dtype", "seed", "solver.")  # what the weights belong to
WRITTEN = ("eval.jsonl", "gradcheck.jsonl", ".audit.json.part")  # into the folder of a run, not in one move

log = logging.getLogger("odenet")


class Trained(NamedTuple):
    """What a run leaves behind.

    weights  which ones the model has, in words
    step     the optimiser step they are from
    other    the data are not those that it was trained on
    """

    model: nn.Module
    loss_fn: Loss
    data: Data
    device: torch.device
    weights: str
    step: int
    other: bool = False


def trained(folder: Path, config: Config, which: str, batch: int) -> Trained:
    """The run in `folder` with its `best` or `last` weights, its splits dealt in batches of `batch`.

    Raises `RequestError` where there are none of use.
    """
    check_written(folder)
    state, known = weights_of_run(folder, config, which), known_data(folder)
    where = device.choose(config.device)
    device.settle(where, config.deterministic, build.tightest(config))
    name, options = config.source()
    data = datasets.load(
        name,
        options,
        batch_size=1,
        eval_batch_size=batch,
        seed=config.seed,
        device=where,
        dtype=build.dtype(config),
        run=known,
    )
    other = different(known, data.record)
    if other:
        log.warning(
            "%s was trained on other data of this name; what follows is about those that are there now.", folder
        )
    model = build.model(config, data.shape, data.classes).to(where)
    take(model, None, state)
    said = f"{weights.which(state)} weights, step {state['step']}"
    return Trained(model, task(data.task), data, where, said, state["step"], other)


def weights_of_run(folder: Path, config: Config, which: str) -> checkpoint.Content:
    """Return the `best` or `last` weights of the run in `folder`, as a checkpoint of the model of `config`.

    Where there was no validation there is no best; the last weights are taken then. A checkpoint that is damaged, of
    no use or missing gives way to the one before it. A kept cell has `model.safetensors` in the place of checkpoints.
    """
    run, mine = load(folder), shapes(config, known_data(folder))

    def usable(state: checkpoint.Content) -> None:
        sound(state, WEIGHTS)
        # The user says a class of their own again, and it may have moved since.
        agree(run, state, MADE_OF, free=("model.target",))
        fits(mine, state)

    path = folder / "checkpoints" / f"{which}.pt"
    state, trouble = checkpoint.latest(path, usable)
    if state is None and which == "best":
        path = path.with_name("last.pt")
        state, trouble = checkpoint.latest(path, usable)
    kept = folder / WEIGHTS_FILE
    if state is None and kept.is_file():
        state = weights.load(kept, run)
        usable(state)
        if which == "last" and weights.which(state) != "last":
            raise RequestError(f"{kept} holds the weights that were scored, not the last ones; leave checkpoint= out.")
    if state is None:
        state = checkpoint.load(path)  # says what is missing
    if trouble:
        log.warning("%s\n  Taking the checkpoint before it.", trouble)
    return state


def known_data(folder: Path) -> dict[str, Any]:
    """Return the record of the data that the run in `folder` was trained on; in its units whatever it sees is measured.

    Where the run kept no units they are those of its own file, as long as that is the same.
    """
    run, record = load(folder), read_record(folder).get("data") or {}
    name, options = run.source()
    if not datasets.lacks_units(name, record):
        return record
    own = datasets.prepare(name, options)
    if record.get("sha256") not in (None, own["sha256"]):
        raise RequestError(
            f"{folder / 'run.json'} does not say in which units the run was trained, and {own['root']}, from which "
            "they could be computed, has changed.\n  Put one of the two back."
        )
    return {**own, **record}


def different(known: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Tell whether two records are of different data; the order of a table's rows and columns makes no difference."""
    key = "content" if "content" in known else "sha256"
    return known.get(key) is not None and known[key] != record.get(key)


def check_written(folder: Path) -> None:
    """Refuse a folder in which something is a link, or no file, that a command would write to."""
    for path in (folder / name for name in WRITTEN):
        check_file(path)


def check_file(path: Path) -> None:
    """Refuse to write to `path` where it is a link or no plain file."""
    try:
        plain = stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not plain:
        what = f"a link to {path.readlink()}" if path.is_symlink() else "no plain file"
        raise RequestError(f"{path} is {what}, and would be written to.\n  Move it away, or put a file in its place.")


def needs_solver(folder: Path, config: Config) -> None:
    """Refuse the run in `folder` if its network solves nothing; builds it without memory, reads no data."""
    with torch.device("meta"):
        network = build.model(config, *datasets.shape(*config.source(), known_data(folder)))
    if not models.solvers(network):
        raise RequestError(
            f"{folder} is a run of model={config.model['name']}, which has no solver: there is nothing to check.\n"
            "  Name a run of a model that solves an ODE, such as model=odenet or model=rknet."
        )


def eval_batch(config: Config) -> int:
    """The batch size of scoring."""
    return config.eval.batch_size or max(config.trainer.batch_size or 0, 200)
