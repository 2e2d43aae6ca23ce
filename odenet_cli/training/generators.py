"""The states of every random generator that a run may draw from: torch's, and those a network of the user's may use."""

from __future__ import annotations

import random
from typing import Any

import numpy
import torch


def seed(number: int) -> None:
    """Start those that building the model does not start."""
    random.seed(number)
    numpy.random.seed(number % 2**32)  # noqa: NPY002 - the global one is what a user's network draws from


def states(device: torch.device, whole: bool = True) -> tuple[Any, ...]:
    """All of them as they are now; not `whole` leaves out what only networks of a user's may draw from, and is cheap
    enough for every step."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    others = (random.getstate(), numpy.random.get_state()) if whole else ()  # noqa: NPY002
    return torch.get_rng_state(), cuda, *others


def fingerprint(device: torch.device) -> int:
    """Return a number that is another one as soon as any of them has been drawn from."""
    cpu, cuda, words, (kind, keys, *place) = states(device)
    numbers = [part.numpy().tobytes() for part in (cpu, cuda) if part is not None]
    return hash((*numbers, words, kind, keys.tobytes(), *place))


def packed(found: tuple[Any, ...]) -> dict[str, Any]:
    """`states` as tensors and plain values, for a checkpoint."""
    cpu, cuda, *others = found
    kept: dict[str, Any] = {"cuda": cuda}
    if others:
        (_, words, gauss), (_, keys, *place) = others
        kept["python"] = {"words": torch.tensor(words), "gauss": gauss}
        kept["numpy"] = {"keys": torch.from_numpy(keys.astype("int64")), "place": [float(number) for number in place]}
    return {"generator": cpu, "generators": kept}


def restore(state: dict[str, Any], device: torch.device) -> None:
    """Put every generator where the checkpoint `state` has it."""
    torch.set_rng_state(state["generator"])
    kept = state.get("generators", {})  # a checkpoint may be from before they were kept
    if kept.get("cuda") is not None and device.type == "cuda":
        torch.cuda.set_rng_state(kept["cuda"], device)
    if "python" in kept:
        random.setstate((3, tuple(kept["python"]["words"].tolist()), kept["python"]["gauss"]))
    if "numpy" in kept:
        place, drawn, cached = kept["numpy"]["place"]
        keys = kept["numpy"]["keys"].numpy().astype("uint32")
        numpy.random.set_state(("MT19937", keys, int(place), int(drawn), cached))  # noqa: NPY002
