"""How a run goes on from its checkpoints, and what it begins from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from odenet_cli import data as datasets
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError, RunFailed
from odenet_cli.training import build, checkpoint, generators
from odenet_cli.training.loop import Session, Window
from odenet_cli.training.sound import LAST, WEIGHTS, agree, fits, fitting, sound, where


def restore(session: Session, state: dict[str, Any]) -> None:
    """Put a session where the checkpoint `state` left it; one of no use is refused, and another may be tried."""
    sound(state, LAST)
    agree(session.config, state)
    take(session.model, session.optimizer, state)
    with fitting(state, "the generators"):
        generators.restore(state, session.device)
    session.step, session.epoch, session.validated = state["step"], state["epoch"], state["validated"]
    session.position = min(state["position"], session.per_epoch)
    session.best, session.elapsed_s = state["best"], state["elapsed_s"]
    with fitting(state, "the window"):
        session.window = Window.restored(state["window"], session.device)


def take(model: nn.Module, optimizer: Optimizer | None, state: Mapping[str, Any]) -> None:
    """Give the weights in `state` to the model, and what the optimiser kept to `optimizer`."""
    fits(model.state_dict(), state)
    with fitting(state, "the model"):
        model.load_state_dict(state["model"])
    if optimizer is None:
        return
    with fitting(state, "the optimiser"):
        for group in state["optimizer"]["param_groups"]:
            if lacking := optimizer.defaults.keys() - group.keys():
                raise ValueError(f"{', '.join(sorted(lacking))} is missing")
        optimizer.load_state_dict(state["optimizer"])
        if state["step"] and not any(optimizer.state.values()) and _keeps(optimizer):
            raise ValueError(f"it has nothing of the {state['step']} steps before")
        for weight, values in optimizer.state.items():
            for name, value in values.items():
                if isinstance(value, Tensor) and value.dim() and value.shape != weight.shape:
                    raise ValueError(f"{name} is {tuple(value.shape)}, of a weight {tuple(weight.shape)}")


def _keeps(optimizer: Optimizer) -> bool:
    """Does it keep anything between steps? Plain gradient descent does not."""
    return not isinstance(optimizer, torch.optim.SGD) or any(group["momentum"] for group in optimizer.param_groups)


def weights_of(config: Config, path: Path) -> dict[str, Any]:
    """The weights in the checkpoint at `path`, of the same model, to start a new run from."""
    state = checkpoint.load(path)
    sound(state, WEIGHTS)
    agree(config, state, ("model.", "dtype"))
    fits(shapes(config), state)
    weights: dict[str, Any] = state["model"]
    return weights


def shapes(config: Config, known: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """The weights of the model without their numbers; it is built without memory.

    known  the record of the data it was trained on
    """
    cpu = torch.device("cpu")
    drawn = generators.packed(generators.states(cpu))  # to build a model seeds them
    with torch.device("meta"):
        network = build.model(config, *datasets.shape(*config.source(), known))
    generators.restore(drawn, cpu)
    weights: dict[str, Tensor] = network.state_dict()
    return weights


def best_weights(session: Session, folder: Path) -> dict[str, Any]:
    """The weights that were best on validation; the present ones where there was none."""
    mine = session.model.state_dict()
    if not session.data.valid.size:
        return mine
    step = (session.best or {})["step"]

    def usable(state: Mapping[str, Any]) -> None:
        sound(state, WEIGHTS)
        if state["step"] != step:
            raise RequestError(f"{where(state)} has those of step {state['step']}.")
        fits(mine, state)

    try:
        state, _ = checkpoint.latest(folder / "checkpoints" / "best.pt", usable)
        if state is None:
            raise RequestError("there is no best.pt.")
    except RequestError as error:
        raise RunFailed(f"the weights of step {step}, the best on validation, are lost: {error}") from error
    weights: dict[str, Any] = state["model"]
    return weights
