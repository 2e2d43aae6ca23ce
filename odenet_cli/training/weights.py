"""Read and write a run's weights as a `safetensors` file, under the names of the state dict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError

import odenet_cli
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError
from odenet_cli.files import write
from odenet_cli.training.checkpoint import Content, digest
from odenet_cli.training.resume import fingerprint


def save(path: Path, state: Content, config: Config, config_hash: str) -> None:
    """Write the model of a checkpoint to `path` in one move; the same weights give the same bytes.

    Metadata (all text): format, odenet (version), model, config (hash), weights (best or last), step, epoch, and the
    SHA-256 over names, shapes and numbers.
    """
    model = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in sorted(state["model"].items())}
    about = {
        "config": config_hash,
        "format": "pt",
        "model": str(config.model["name"]),
        "odenet": odenet_cli.__version__,
        "weights": which(state),
        "step": str(state["step"]),
        "epoch": str(state["epoch"]),
    }
    about["sha256"] = digest([dict(sorted(about.items())), model])
    write(path, _in_order(safetensors.torch.save(model, about)))


def load(path: Path, config: Config) -> Content:
    """Return the weights in `path` of a run of `config`, as a checkpoint holds them; refused by name if damaged."""
    try:
        data = path.read_bytes()
        model = dict(sorted(safetensors.torch.load(data).items()))
        about = dict(sorted(_header(data)["__metadata__"].items()))
        sha256 = about.pop("sha256")
        content = {"step": int(about["step"]), "epoch": int(about["epoch"]), "weights": about["weights"]}
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}.") from error
    except (SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:  # a header of another kind
        raise RequestError(f"{path} does not contain weights of odenet: {str(error).partition(chr(10))[0]}") from error
    if digest([about, model]) != sha256:
        raise RequestError(f"{path} is damaged: the SHA-256 of its weights differs from the saved one.")
    return Content({"config": fingerprint(config), "model": model, **content}, path)


def which(state: Content) -> str:
    """Return which weights a checkpoint has: best, last, or the best ones before these (previous-best)."""
    return str(state.get("weights") or state.path.stem)


def _header(data: bytes) -> dict[str, Any]:
    """Return the header of the format: 8 bytes of its length, then JSON."""
    size = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    return header


def _in_order(data: bytes) -> bytes:
    """Return the same file with its metadata sorted; the library writes them in a random order."""
    size, header = int.from_bytes(data[:8], "little"), _header(data)
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return data[:8] + text.ljust(size) + data[8 + size :]
