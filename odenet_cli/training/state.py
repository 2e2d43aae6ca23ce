"""What a run's checkpoints hold, and how it goes on from them."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from odenet_cli import data as datasets
from odenet_cli.config import Config
from odenet_cli.errors import RequestError, RunFailed
from odenet_cli.training import build, checkpoint, generators
from odenet_cli.training.failure import broken, circumstances
from odenet_cli.training.log import Logbook
from odenet_cli.training.loop import Session, Window

FAILED = "failed.pt"
WEIGHTS: dict[str, Any] = {"config": dict, "model": dict, "step": int, "epoch": int}  # in every checkpoint
STEP: dict[str, Any] = {**WEIGHTS, "optimizer": dict, "generator": Tensor, "position": int}
LAST: dict[str, Any] = {
    **STEP,
    **{"validated": int, "best": dict | None, "elapsed_s": int | float, "window": dict, "metrics_bytes": int},
}
FAILED_STEP: dict[str, Any] = {**STEP, "good": tuple | None, "split": str, "batch": list}


class Keeper:
    """Writes the checkpoints `last.pt` and `best.pt`, and where a run fails `failed.pt`."""

    def __init__(self, folder: Path, logbook: Logbook) -> None:
        self.folder, self.logbook = folder, logbook

    def last(self, session: Session) -> None:
        """Everything a run needs to go on to the same bits."""
        content = {
            **self._weights(session),
            "optimizer": self._sound(session, session.optimizer.state_dict(), "the optimiser's state "),
            **generators.packed(generators.states(session.device)),
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

    def failed(self, session: Session, split: str, batch: Any, before: tuple[Any, ...]) -> None:
        """The step that could not be made, or the scoring of `split`: as it was `before`, weights, batch and all."""
        content = {
            **self._weights(session),
            "optimizer": session.optimizer.state_dict(),
            **generators.packed(before),
            "position": session.position,
            "good": session.good,
            "split": split,
            "batch": [part if isinstance(part, torch.Tensor) else None for part in batch],
        }
        (self.folder / FAILED).unlink(missing_ok=True)  # only the latest is of use
        checkpoint.save(self.folder / FAILED, content)

    def _weights(self, session: Session) -> dict[str, Any]:
        weights = self._sound(session, session.model.state_dict())
        config = fingerprint(session.config)
        return {"config": config, "model": weights, "step": session.step, "epoch": session.epoch}

    @staticmethod
    def _sound(session: Session, state: dict[str, Any], what: str = "") -> dict[str, Any]:
        name = broken(state)
        if name is not None:
            raise RunFailed(
                f"the run diverged: {what}{name} is NaN or infinite after step {session.step}, "
                f"at {circumstances(session)}.\n  Lower optim.lr."
            )
        return state


FREE = ("name", "device", "resume", "checkpoint", "trainer", "eval", "data.root", "data.download")


def fingerprint(config: Config) -> dict[str, Any]:
    """What must not change while a run goes on: all keys but where it runs, how long, and how often it reports."""
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


def restore(session: Session, state: dict[str, Any]) -> None:
    """Put a session where the checkpoint `state` left it."""
    sound(state, LAST)
    agree(session.config, state, "this run's own checkpoint")
    best = state["best"]
    if best is not None and not {"step", "epoch", "loss"} <= best.keys() and best.keys() != {"step", "epoch"}:
        raise RequestError(f"{where(state)} is not sound: best lacks its step, epoch or loss.")
    for key in ("step", "epoch", "loss", "error"):
        if not isinstance((best or {}).get(key, 0), (int, float)):
            raise RequestError(f"{where(state)} is not sound: {key} of best is no number.")
    take(session.model, session.optimizer, state)
    with fitting(state, "the generators"):
        generators.restore(state, session.device)
    session.step, session.epoch, session.validated = state["step"], state["epoch"], state["validated"]
    session.position = min(state["position"], session.per_epoch)
    session.best, session.elapsed_s = best, state["elapsed_s"]
    with fitting(state, "the window"):
        session.window = Window.restored(state["window"], session.device)


def where(state: Mapping[str, Any]) -> str:
    """The file that a checkpoint's content came from."""
    return str(getattr(state, "path", "the checkpoint"))


def sound(state: Mapping[str, Any], kinds: Mapping[str, Any]) -> None:
    """Refuse a checkpoint, by name, without these keys, or with something of another kind or NaN under one of them."""
    for key, kind in kinds.items():
        if key not in state:
            raise RequestError(f"{where(state)} is not sound: {key} is missing.")
        value = state[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise RequestError(f"{where(state)} is not sound: {key} is a {type(value).__name__}.")
        if isinstance(value, (int, float)) and not value >= 0:
            raise RequestError(f"{where(state)} is not sound: {key} is {value}.")
    if not all(isinstance(key, str) and _plain(value) for key, value in state["config"].items()):
        raise RequestError(f"{where(state)} is not sound: its config is not one of plain values.")
    name = broken({"model": state["model"], "optimizer": state["optimizer"] if "validated" in kinds else None})
    if name is not None:
        raise RequestError(f"{where(state)} is not sound: {name} is NaN or infinite.")


def _plain(value: Any) -> bool:
    if isinstance(value, (list, tuple, dict)):
        return all(map(_plain, value.values() if isinstance(value, dict) else value))
    return value is None or isinstance(value, (str, int, float))


@contextlib.contextmanager
def fitting(state: Mapping[str, Any], what: str) -> Iterator[None]:
    """Around what is made of a checkpoint's content: a part that is of no use is refused by the file's name."""
    try:
        yield
    except Exception as error:  # a part of another kind may raise whatever it likes
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        reason = " ".join(str(error).split())[:300]
        raise RequestError(f"{where(state)} does not fit {what}: {kind}{reason}.") from error


def take(model: nn.Module, optimizer: Optimizer | None, state: Mapping[str, Any]) -> None:
    """Give the weights in `state` to the model, and what the optimiser kept to `optimizer`."""
    with fitting(state, "the model"):
        _match("the model", model.state_dict(), state["model"])
        model.load_state_dict(state["model"])
    if optimizer is None:
        return
    with fitting(state, "the optimiser"):
        fresh = optimizer.state_dict()["param_groups"]
        for mine, other in zip(fresh, state["optimizer"]["param_groups"], strict=True):
            if lacking := mine.keys() - other.keys():
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


def _match(what: str, mine: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Names and shapes must be the same."""
    for name in [*mine, *(name for name in other if name not in mine)]:
        if name not in mine or name not in other:
            raise ValueError(f"{name} is {'missing' if name in mine else f'not in {what}'}")
        if not isinstance(other[name], Tensor) or other[name].shape != mine[name].shape:
            found = tuple(other[name].shape) if isinstance(other[name], Tensor) else type(other[name]).__name__
            raise ValueError(f"{name} is {found}, and {tuple(mine[name].shape)} in {what}")


def agree(
    config: Config,
    state: Mapping[str, Any],
    whose: str,
    keys: tuple[str, ...] = ("",),
    free: tuple[str, ...] = (),
) -> None:
    """Refuse a checkpoint that another config made, naming the keys that differ: those that start with one of `keys`,
    but for those that are `free`."""
    mine, other = fingerprint(config), state["config"]
    differ = [
        f"{key}: {other.get(key)} in the checkpoint, {mine.get(key)} here"
        for key in sorted(mine.keys() | other.keys())
        if key.startswith(keys) and key not in free and mine.get(key) != other.get(key)
    ]
    if differ:
        listing = "\n  ".join(differ[:8])
        raise RequestError(
            f"the config does not agree with {whose}:\n  {listing}\n  Set these back, or start a new run."
        )


def same_data(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Refuse to go on with a run on other data than it began with; both are records of a data set."""
    known, found = before.get("sha256"), now.get("sha256")
    if known is not None and known != found:
        names = [name for name in known if known[name] != (found or {}).get(name)] if isinstance(known, dict) else []
        raise RequestError(
            f"the data are not those that the run in {folder} began with: the SHA-256 of "
            f"{', '.join(names) or now.get('used')} differs.\n  Put them back, or start a new run."
        )


def weights_of(config: Config, path: Path) -> dict[str, Any]:
    """The weights in the checkpoint at `path`, of the same model, to start a new run from."""
    state = checkpoint.load(path)
    sound(state, WEIGHTS)
    agree(config, state, str(path), ("model.", "dtype"))
    weights: dict[str, Any] = state["model"]
    cpu = torch.device("cpu")
    drawn = generators.packed(generators.states(cpu))  # to build a model seeds them
    with torch.device("meta"):
        network = build.model(config, *datasets.shape(*config.source()))
    generators.restore(drawn, cpu)
    with fitting(state, "the model"):
        _match("the model", network.state_dict(), weights)
    return weights


def best_weights(session: Session, folder: Path) -> dict[str, Any]:
    """The weights that were best on validation; the present ones where there was none."""
    if not session.data.valid.size:
        return session.model.state_dict()
    state, trouble = checkpoint.latest(folder / "checkpoints" / "best.pt")
    step = (session.best or {})["step"]
    if state is None or state["step"] != step:
        raise RunFailed(f"the weights of step {step}, the best on validation, are lost: {trouble or 'no best.pt'}.")
    sound(state, WEIGHTS)
    weights: dict[str, Any] = state["model"]
    return weights
