"""What a run's checkpoints hold, and how it goes on from them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from odenet_cli.config import Config
from odenet_cli.errors import RequestError, RunFailed
from odenet_cli.training import checkpoint, generators
from odenet_cli.training.failure import broken, circumstances
from odenet_cli.training.log import Logbook
from odenet_cli.training.loop import Session, Window

FAILED = "failed.pt"


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
    agree(session.config, state, "this run's own checkpoint")
    session.model.load_state_dict(state["model"])
    session.optimizer.load_state_dict(state["optimizer"])
    generators.restore(state, session.device)
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
    agree(config, state, str(path), ("model.", "dtype"))
    weights: dict[str, Any] = state["model"]
    return weights


def best_weights(session: Session, folder: Path) -> dict[str, Any]:
    """The weights that were best on validation; the present ones where there was none."""
    if not session.data.valid.size:
        return session.model.state_dict()
    state, trouble = checkpoint.latest(folder / "checkpoints" / "best.pt")
    step = (session.best or {})["step"]
    if state is None or state["step"] != step:
        raise RunFailed(f"the weights of step {step}, the best on validation, are lost: {trouble or 'no best.pt'}.")
    weights: dict[str, Any] = state["model"]
    return weights
