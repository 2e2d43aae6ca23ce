"""Write, validate and restore the contents of checkpoints, so that a run continues bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from odenet_cli import data as datasets
from odenet_cli.config.check import leaves
from odenet_cli.config.saved import default_options
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError, RunFailed
from odenet_cli.models.common.latent import LatentVAE
from odenet_cli.training import build, checkpoint, generators, least_squares
from odenet_cli.training.checkpoint import Content, OtherConfig
from odenet_cli.training.failure import check_finite, first_nonfinite
from odenet_cli.training.identity import listed, sets_weights
from odenet_cli.training.log import Logbook
from odenet_cli.training.session import Certificates, Session, Window

# The keys of every checkpoint, and those of `last.pt`, with their types.
WEIGHTS: dict[str, Any] = {"config": dict, "model": dict, "step": int, "epoch": int}
LAST: dict[str, Any] = {
    **WEIGHTS,
    **{"optimizer": dict, "generator": Tensor, "position": int, "validated": int, "best": dict | None},
    **{"elapsed_s": int | float, "window": dict, "metrics_bytes": int},
}


class CheckpointWriter:
    """Write the checkpoints `last.pt` and `best.pt`; raise `Diverged` instead if a number is NaN or infinite."""

    def __init__(self, folder: Path, logbook: Logbook) -> None:
        self.folder, self.logbook = folder, logbook

    def last(self, session: Session) -> None:
        """Write everything that a run needs to continue bit for bit."""
        weights, optimizer = self._weights(session), session.optimizer.state_dict()
        check_finite(session, optimizer, "the optimiser's state ")
        content = {
            **weights,
            "optimizer": optimizer,
            **generators.state(session.device),
            "position": session.position,
            "validated": session.validated,
            "best": session.best,
            "elapsed_s": session.elapsed_s,
            "epoch_began_s": session.epoch_began_s,
            "window": session.window.state(),
            "certificates": vars(session.certificates),
            "metrics_bytes": self.logbook.flush(),
            **({} if session.budget is None else {"budget": session.budget.state()}),
        }
        checkpoint.save(self.folder / "last.pt", content)

    def best(self, session: Session) -> None:
        """Write the best weights on validation so far."""
        checkpoint.save(self.folder / "best.pt", self._weights(session))

    def _weights(self, session: Session) -> dict[str, Any]:
        weights = session.model.state_dict()
        check_finite(session, weights)
        config = fingerprint(session.config)
        return {"config": config, "model": weights, "step": session.step, "epoch": session.epoch}


def restore(session: Session, state: Content) -> None:
    """Restore a session from the checkpoint `state`; raise `RequestError` if it does not belong to this run."""
    validate(state, session.config, session.model.state_dict(), LAST)
    try:
        session.model.load_state_dict(state["model"])
        session.optimizer.load_state_dict(state["optimizer"])
        generators.restore(state, session.device)
        session.window = Window.restored(state["window"], session.device)
        session.certificates = Certificates(**state.get("certificates", {}))  # there were none before
    except Exception as error:  # of another version of torch, perhaps
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise RequestError(f"{state.path} does not fit this run: {reason}") from error
    session.step, session.epoch, session.validated = state["step"], state["epoch"], state["validated"]
    session.position = min(state["position"], session.per_epoch)  # trainer.limit_batches may be smaller now
    session.best, session.elapsed_s = state["best"], state["elapsed_s"]
    session.epoch_began_s = state.get("epoch_began_s", session.elapsed_s)  # an older version did not keep it
    if session.budget is not None:
        session.budget.restore(state["budget"])
    if session.config.optim.least_squares:
        least_squares.go_on(session.optimizer, session.data)


def validate(
    state: Content,
    config: Config,
    shapes: Mapping[str, Tensor],
    types: Mapping[str, Any] = WEIGHTS,
    prefixes: tuple[str, ...] = ("",),
    free: Sequence[str] = (),
) -> None:
    """Raise `RequestError` naming the file if a checkpoint, whose digest is right, is of no use here.

    types     keys that it must have, and their types
    shapes    the model's weights: the same names and shapes, and every number finite
    prefixes  the config's keys that must agree, by how they begin, but for those that are `free`
    """
    for key, kind in types.items():
        if key not in state or not isinstance(state[key], kind):
            reason = f"is a {type(state[key]).__name__}" if key in state else "is missing"
            raise RequestError(f"{state.path} is not valid: {key} {reason}.")
    name = first_nonfinite({"model": state["model"], "optimizer": state["optimizer"] if types is LAST else None})
    if name is not None:
        raise RequestError(f"{state.path} is not valid: {name} is NaN or infinite.")
    check_config(state, config, prefixes, free)
    weights = state["model"]
    for name in [*shapes, *(name for name in weights if name not in shapes)]:
        if name not in shapes or name not in weights:
            reason = "missing" if name in shapes else "not in the model"
            raise RequestError(f"{state.path} does not fit the model: {name} is {reason}.")
        if weights[name].shape != shapes[name].shape:
            theirs, ours = tuple(weights[name].shape), tuple(shapes[name].shape)
            raise RequestError(f"{state.path} does not fit the model: {name} is {theirs}, and {ours} in the model.")


def check_config(state: Content, config: Config, prefixes: tuple[str, ...], free: Sequence[str]) -> None:
    """Raise `OtherConfig` naming the keys in which the config that made a checkpoint differs."""
    ours = fingerprint(config)
    # An option that an older version did not know had its default.
    known = leaves(default_options(asdict(config)), lists=False)
    theirs = {**{key: value for key, value in known if key in ours}, **state["config"]}
    differing = {
        key: f"{theirs.get(key)} in the checkpoint, {ours.get(key)} here"
        for key in sorted(ours.keys() | theirs.keys())
        if key.startswith(prefixes) and key not in free and sets_weights(key) and ours.get(key) != theirs.get(key)
    }
    if differing:
        raise OtherConfig(
            f"the config does not agree with {state.path}:{listed(differing)}\n"
            "  Restore these values, or start a new run."
        )


def fingerprint(config: Config) -> dict[str, Any]:
    """Return the config that a checkpoint keeps: all keys except places, length and scoring."""
    return {key: value for key, value in leaves(config, lists=False) if sets_weights(key)}


def starting_weights(config: Config, path: Path) -> dict[str, Any]:
    """Return the weights in the checkpoint at `path`, of the same model, to start a new run from."""
    state = checkpoint.load(path)
    validate(state, config, weight_shapes(config), prefixes=("model.", "dtype"))
    weights: dict[str, Any] = state["model"]
    return weights


def begin_from_checkpoint(model: nn.Module, config: Config) -> None:
    """Load the weights of `checkpoint`, if given, into the model of a new run.

    What a latent ODE counts, by which the weight of its KL divergence rises, is of the training before.
    """
    if config.checkpoint is not None:
        model.load_state_dict(starting_weights(config, Path(config.checkpoint)))
        for module in model.modules():
            if isinstance(module, LatentVAE):
                module.updates.zero_()


def weight_shapes(config: Config, data_record: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    """Return the weights of the model without their numbers; it is built without memory.

    data_record  the record of the data it was trained on
    """
    cpu = torch.device("cpu")
    drawn = generators.state(cpu)  # building a model seeds them
    with torch.device("meta"):
        network = build.model(config, *datasets.shape(*config.source(), data_record))
    generators.restore(drawn, cpu)
    weights: dict[str, Tensor] = network.state_dict()
    return weights


def best_weights(session: Session, folder: Path) -> dict[str, Any]:
    """Return the weights that were best on validation; the present ones if there was no validation."""
    present = session.model.state_dict()
    if not session.data.valid.size:
        return present
    step = (session.best or {})["step"]

    def check(state: Content) -> None:
        validate(state, session.config, present)
        if state["step"] != step:
            raise RequestError(f"{state.path} has those of step {state['step']}.")

    try:
        state, _ = checkpoint.latest(folder / "checkpoints" / "best.pt", check)
        if state is None:
            raise RequestError("best.pt does not exist.")
    except RequestError as error:
        raise RunFailed(f"the weights of step {step}, the best on validation, are lost: {error}") from error
    weights: dict[str, Any] = state["model"]
    return weights
