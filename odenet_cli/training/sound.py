"""Is a checkpoint of use? Its kinds, its numbers, its shapes, and the config it was made with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from torch import Tensor

from odenet_cli.config.saved import default_options
from odenet_cli.config.schema import INCIDENTAL, Config
from odenet_cli.errors import RequestError
from odenet_cli.training.checkpoint import OtherConfig
from odenet_cli.training.failure import broken
from odenet_cli.training.same import settings

WEIGHTS: dict[str, Any] = {"config": dict, "model": dict, "step": int, "epoch": int}  # in every checkpoint
STEP: dict[str, Any] = {**WEIGHTS, "optimizer": dict, "generator": Tensor, "position": int}
LAST: dict[str, Any] = {
    **STEP,
    **{"validated": int, "best": dict | None, "elapsed_s": int | float, "window": dict, "metrics_bytes": int},
}
FAILED_STEP: dict[str, Any] = {**STEP, "good": tuple | None, "split": str, "batch": list}

FREE = INCIDENTAL | {"checkpoint", "trainer", "eval"}  # what may change while a run goes on


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
    best = state["best"] if "best" in kinds else None
    if best is not None:
        _sound_best(state, best)
    name = broken({"model": state["model"], "optimizer": state["optimizer"] if "validated" in kinds else None})
    if name is not None:
        raise RequestError(f"{where(state)} is not sound: {name} is NaN or infinite.")


def _sound_best(state: Mapping[str, Any], best: Mapping[str, Any]) -> None:
    """Of a run without validation it has a step and an epoch alone."""
    if not {"step", "epoch", "loss"} <= best.keys() and best.keys() != {"step", "epoch"}:
        raise RequestError(f"{where(state)} is not sound: best lacks its step, epoch or loss.")
    for key in ("step", "epoch", "loss", "error"):
        if not isinstance(best.get(key, 0), (int, float)):
            raise RequestError(f"{where(state)} is not sound: {key} of best is no number.")


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


def fits(mine: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Refuse a checkpoint whose weights have other names or shapes than a model's, `mine`."""
    with fitting(state, "the model"):
        _match("the model", mine, state["model"])


def _match(what: str, mine: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    for name in [*mine, *(name for name in other if name not in mine)]:
        if name not in mine or name not in other:
            raise ValueError(f"{name} is {'missing' if name in mine else f'not in {what}'}")
        if not isinstance(other[name], Tensor) or other[name].shape != mine[name].shape:
            found = tuple(other[name].shape) if isinstance(other[name], Tensor) else type(other[name]).__name__
            raise ValueError(f"{name} is {found}, and {tuple(mine[name].shape)} in {what}")


def fingerprint(config: Config) -> dict[str, Any]:
    """Return what a checkpoint keeps of the config: all keys but where it runs, how long, and how it is scored."""
    return {**dict(settings(asdict(config), FREE)), "trainer.batch_size": config.trainer.batch_size}


def agree(config: Config, state: Mapping[str, Any], keys: tuple[str, ...] = ("",), free: tuple[str, ...] = ()) -> None:
    """Refuse a checkpoint that another config made, naming the keys that differ: those that start with one of `keys`,
    but for those that are `free`. An option that an older version did not know had its default."""
    mine = fingerprint(config)
    known = settings(default_options(asdict(config)), FREE)
    other = {**{key: value for key, value in known if key in mine}, **state["config"]}
    differ = [
        f"{key}: {other.get(key)} in the checkpoint, {mine.get(key)} here"
        for key in sorted(mine.keys() | other.keys())
        if key.startswith(keys) and key not in free and key not in FREE and mine.get(key) != other.get(key)
    ]
    if differ:
        listing = "\n  ".join(differ[:8])
        raise OtherConfig(
            f"the config does not agree with {where(state)}:\n  {listing}\n  Set these back, or start a new run."
        )
