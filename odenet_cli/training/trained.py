"""A run that was made: its network with the weights of a checkpoint, and its data."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from odenet_cli import data as datasets
from odenet_cli import models
from odenet_cli.config import Config
from odenet_cli.data import Data
from odenet_cli.errors import RequestError
from odenet_cli.tasks import Loss, task
from odenet_cli.training import build, checkpoint, device


class Trained(NamedTuple):
    """What a run leaves behind.

    weights  which ones the model has, in words
    step     the optimiser step they are from
    """

    model: nn.Module
    loss_fn: Loss
    data: Data
    device: torch.device
    weights: str
    step: int


def trained(folder: Path, config: Config, which: str, batch: int) -> Trained:
    """The run in `folder` with its `best` or `last` weights, its splits dealt in batches of `batch`.

    Where there was no validation there is no best; the last weights are taken then.
    """
    path = folder / "checkpoints" / f"{which}.pt"
    if which == "best" and not path.exists():
        path = path.with_name("last.pt")
    state = checkpoint.load(path)
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
    )
    model = build.model(config, data.shape, data.classes).to(where)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        raise RequestError(f"{path} does not fit the model of {folder / 'config.yaml'}: {error}") from error
    return Trained(model, task(data.task), data, where, f"{path.stem} weights, step {state['step']}", state["step"])


def needs_solver(folder: Path, config: Config) -> None:
    """Refuse the run in `folder` if its network solves nothing; builds it without memory, reads no data."""
    with torch.device("meta"):
        network = build.model(config, *datasets.shape(*config.source()))
    if not models.solvers(network):
        raise RequestError(
            f"{folder} is a run of model={config.model['name']}, which has no solver: there is nothing to check.\n"
            "  Name a run of a model that solves an ODE, such as model=odenet or model=rknet."
        )


def eval_batch(config: Config) -> int:
    """The batch size of scoring."""
    return config.eval.batch_size or max(config.trainer.batch_size or 0, 200)
