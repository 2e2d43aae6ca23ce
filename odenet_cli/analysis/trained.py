"""Load a finished run: its network with the weights of a checkpoint, and its data."""

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
from odenet_cli.config.schema import CODE_KEYS, Config
from odenet_cli.data import Data, Split
from odenet_cli.errors import RequestError
from odenet_cli.rundir import WEIGHTS as WEIGHTS_FILE
from odenet_cli.rundir import read_record
from odenet_cli.tasks import Loss, task
from odenet_cli.training import build, checkpoint, weights
from odenet_cli.training.resume import begin_from_checkpoint, validate, weight_shapes

WEIGHT_KEYS = ("model.", "data.", "dtype", "seed", "solver.")  # keys on which the weights depend
# Files in a run's folder that are not replaced atomically.
APPENDED = ("eval.jsonl", "gradcheck.jsonl", "verify.jsonl", ".audit.json.part", ".tune.json.part")

log = logging.getLogger("odenet")


class Trained(NamedTuple):
    """Hold a finished run; `splits(batch_size)` are its samples, with those of training unshuffled.

    weights     which weights the model has, as text
    step        their optimiser step
    other_data  the data are not those of its training
    """

    model: nn.Module
    loss_fn: Loss
    data: Data
    device: torch.device
    weights: str
    step: int
    other_data: bool = False

    def splits(self, batch_size: int) -> dict[str, Split]:
        return {"train": self.data.train.unshuffled(batch_size), "valid": self.data.valid, "test": self.data.test}


def trained(folder: Path, config: Config, which: str, batch_size: int, predicted: bool = False) -> Trained:
    """Load the run in `folder` with its `best` or `last` weights, and its held-out data in batches of `batch_size`.

    predicted  only predictions are needed, so all samples may lack y
    """
    for name in APPENDED:
        check_file(folder / name)
    state, trained_on = weights_of_run(folder, config, which), known_data(folder)
    where = build.choose_device(config)
    name, options = config.source()
    settings: dict[str, Any] = {"batch_size": 1, "eval_batch_size": batch_size, "seed": config.seed}
    data = datasets.load(name, options, **settings, device=where, dtype=build.dtype(config), run=trained_on)
    if not (predicted or any(data.record["sizes"].values())):
        raise RequestError(f"{data.record['root']} has no y to compare with. For predictions: odenet predict.")
    other_data = report_other_data(folder, trained_on, data.record)
    model = build.model(config, data.shape, data.classes).to(where)
    model.load_state_dict(state["model"])
    about = f"{weights.which(state)} weights, step {state['step']}"
    return Trained(model, task(data.task), data, where, about, state["step"], other_data)


def report_other_data(folder: Path, known: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Return whether the data of `record` differ from the `known` ones of the run; then say so, and what was read."""
    if not differ(known, record):
        return False
    read = "".join(f"\n  {line}" for line in record.get("table", ()))
    log.warning(
        "%s was trained on other data of this name; the following results are for the present data.%s", folder, read
    )
    return True


def starting_state(config: Config, net: Trained) -> dict[str, Any]:
    """Return the initial weights of the training of a run, on the device of its network."""
    with torch.random.fork_rng(devices=[]):  # building a network seeds torch's generator
        model = build.model(config, net.data.shape, net.data.classes)
    begin_from_checkpoint(model, config)
    state: dict[str, Any] = model.to(net.device).state_dict()
    return state


def weights_of_run(folder: Path, config: Config, which: str) -> checkpoint.Content:
    """Return the `best` or `last` weights of the run in `folder`, as a checkpoint of the model of `config`.

    Without validation there are no best weights, and the last are taken. If a checkpoint is damaged, unusable or
    missing, the one before it is taken. A kept cell has `model.safetensors` instead of checkpoints.
    """
    run, own_shapes = load(folder), weight_shapes(config, known_data(folder))

    def check(state: checkpoint.Content) -> None:
        # The user names their own class again, whose module may have changed.
        validate(state, run, own_shapes, prefixes=WEIGHT_KEYS, free=CODE_KEYS)

    path = folder / "checkpoints" / f"{which}.pt"
    state, trouble = checkpoint.latest(path, check)
    if state is None and which == "best":
        path = path.with_name("last.pt")
        state, trouble = checkpoint.latest(path, check)
    kept = folder / WEIGHTS_FILE
    if state is None and kept.is_file():
        state = weights.load(kept, run)
        check(state)
        if which == "last" and weights.which(state) != "last":
            raise RequestError(
                f"{kept} contains the weights that were scored, not the last ones: take the best, the default."
            )
    if state is None:
        state = checkpoint.load(path)  # raises, naming what is missing
    if trouble:
        log.warning("%s\n  Using the checkpoint before it.", trouble)
    return state


def known_data(folder: Path) -> dict[str, Any]:
    """Return the record of the training data of the run in `folder`, whose units apply to all data that it sees.

    If the run stored no units, they are those of its own file, provided that it is unchanged.
    """
    run, record = load(folder), read_record(folder).get("data") or {}
    name, options = run.source()
    if not datasets.lacks_units(name, record):
        return record
    own = datasets.prepare(name, options)
    if record.get("sha256") not in (None, own["sha256"]):
        raise RequestError(
            f"{folder / 'run.json'} does not say in which units the run was trained, and {own['root']}, from which "
            "they could be computed, has changed.\n  Restore one of the two."
        )
    return {**own, **record}


def differ(known: Mapping[str, Any], record: Mapping[str, Any]) -> bool:
    """Return whether two records are of different data, regardless of the order of a table's rows and columns."""
    key = "content" if "content" in known else "sha256"
    return known.get(key) is not None and known[key] != record.get(key)


def check_file(path: Path) -> None:
    """Raise if `path`, a file to be written, is a link or no regular file."""
    try:
        regular = stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not regular:
        kind = f"a symbolic link to {path.readlink()}" if path.is_symlink() else "not a regular file"
        raise RequestError(f"{path} is {kind}, and would be overwritten.\n  Move it away, or replace it with a file.")


def needs_float64(command: str, config: Config) -> None:
    """Raise if the device lacks float64, which `command` needs."""
    if config.device == "mps":
        raise RequestError(f"odenet {command} computes in float64, which device=mps does not support. Add device=cpu.")


def solving_network(folder: Path, config: Config) -> nn.Module:
    """Return the network of the run in `folder`, on the meta device; raise if it solves no ODE. Reads no data."""
    with torch.device("meta"):
        network = build.model(config, *datasets.shape(*config.source(), known_data(folder)))
    if not models.solvers(network):
        raise RequestError(
            f"{folder} is a run of model={config.model['name']}, which has no solver: there is nothing to check.\n"
            "  Name a run of a model that solves an ODE, such as model=odenet or model=rknet."
        )
    return network


def needs_solver(folder: Path, config: Config) -> None:
    """Raise unless the gradients of the network of the run in `folder` go through a solve."""
    if hasattr(solving_network(folder, config), "linearise"):
        raise RequestError(
            f"{folder} is a run of model=fit, which has no gradient through a solve to check.\n"
            "  Its paths at other tolerances: odenet eval RUN eval.solver.rtol=1e-6,1e-10."
        )
