"""Save and restore all random generators that a run may draw from: those of torch, Python and NumPy."""

from __future__ import annotations

import hashlib
import pickle
import random
from typing import Any

import numpy
import torch


def seed(number: int) -> None:
    """Seed those of Python and NumPy; `build.model` seeds torch's."""
    random.seed(number)
    numpy.random.seed(number % 2**32)  # noqa: NPY002 - the global one is what a user's network draws from


def state(device: torch.device) -> dict[str, Any]:
    """Return the states of all of them as tensors and plain values, for a checkpoint."""
    _, words, gauss = random.getstate()
    drawn: Any = numpy.random.get_state()  # noqa: NPY002
    _, keys, *place = drawn
    others = {
        "cuda": None,
        **_of_gpu(device),
        "python": {"words": torch.tensor(words), "gauss": gauss},
        "numpy": {"keys": torch.from_numpy(keys.astype("int64")), "place": [float(number) for number in place]},
    }
    return {"generator": torch.get_rng_state(), "generators": others}


def _of_gpu(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the state of the GPU's generator under `cuda` or `mps`; of a CPU nothing."""
    gpu = device.type in ("cuda", "mps")
    return {device.type: torch.get_device_module(device).get_rng_state(device)} if gpu else {}


def fingerprint(device: torch.device) -> str:
    """Return a text that is another one as soon as any of them has been drawn from."""
    gpu = [state.numpy() for state in _of_gpu(device).values()]
    states = torch.get_rng_state().numpy(), gpu, random.getstate(), numpy.random.get_state()  # noqa: NPY002
    return hashlib.sha256(pickle.dumps(states)).hexdigest()


def restore(state: dict[str, Any], device: torch.device) -> None:
    """Put every generator where the checkpoint `state` has it."""
    torch.set_rng_state(state["generator"])
    others = state.get("generators", {})  # a checkpoint may be from before they were kept
    if others.get(device.type) is not None:
        torch.get_device_module(device).set_rng_state(others[device.type], device)
    if "python" in others:
        random.setstate((3, tuple(others["python"]["words"].tolist()), others["python"]["gauss"]))
    if "numpy" in others:
        place, drawn, cached = others["numpy"]["place"]
        keys = others["numpy"]["keys"].numpy().astype("uint32")
        numpy.random.set_state(("MT19937", keys, int(place), int(drawn), cached))  # noqa: NPY002
