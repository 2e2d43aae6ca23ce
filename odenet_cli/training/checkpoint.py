"""Read and write checkpoint files: tensors and plain values with their SHA-256, written atomically."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from odenet_cli.errors import RequestError, is_out_of_memory
from odenet_cli.files import sync, write

FORMAT = 1


class OtherConfig(RequestError):
    """Raised for a checkpoint that may be sound, and that another config made."""


class Unreadable(RequestError):
    """Raised for a file without permission to read it; it may be sound."""


class Content(dict[str, Any]):
    """Hold what a checkpoint contains, and the `path` it was read from."""

    def __init__(self, content: Mapping[str, Any], path: Path) -> None:
        super().__init__(content)
        self.path = path


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write `path` in one move; the one before is kept as `previous-<name>`."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "sha256": digest(content), "content": dict(content)}, buffer)
    path.parent.mkdir(exist_ok=True)
    write(path, buffer.getbuffer(), previous=previous(path))
    sync(path.parent.parent)  # the folder of checkpoints may be new itself


def previous(path: Path) -> Path:
    return path.with_name(f"previous-{path.name}")


def load(path: Path) -> Content:
    """Return the content of `path`, verified; raise `RequestError` saying what is wrong. No code in the file runs."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):  # a pipe or a device has no end
            raise ValueError(f"it is {'a folder' if stat.S_ISDIR(mode) else 'a device or a pipe'}, not a file")
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RequestError(f"{path} does not exist.") from error
    except pickle.UnpicklingError as error:  # torch's own message recommends to load it unsafely
        raise RequestError(
            f"{path} is not a valid checkpoint: it contains more than tensors and plain values."
        ) from error
    except PermissionError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise RequestError(f"{path} is not a valid checkpoint: {reason}") from error
    keys = {"format", "sha256", "content"}
    if not (isinstance(payload, dict) and keys <= payload.keys() and isinstance(payload["content"], dict)):
        raise RequestError(f"{path} is not a checkpoint of odenet.")
    if type(payload["format"]) is not int or payload["format"] != FORMAT:
        raise RequestError(f"{path} has checkpoint format {payload['format']!s:.40}; this version reads {FORMAT}.")
    try:
        intact = digest(payload["content"]) == payload["sha256"]
    except Exception:  # a sparse tensor, a list in itself: nothing that was saved here
        intact = False
    if not intact:
        raise RequestError(f"{path} is damaged: the SHA-256 of its content differs from the saved one.")
    return Content(payload["content"], path)


def latest(path: Path, take: Callable[[Content], None] | None = None) -> tuple[Content | None, str | None]:
    """Return the content of `path` or, where it is missing, damaged or refused by `take`, of the one before.

    The second value says what was wrong with the first, if anything. Both are None where there is no checkpoint.
    """
    errors: list[RequestError] = []
    for candidate in (path, previous(path)):
        if not candidate.exists():
            continue
        try:
            content = load(candidate)
            if take is not None:
                take(content)
        except Unreadable:
            raise
        except RequestError as error:
            errors.append(error)
        else:
            return content, str(errors[0]) if errors else None
    if not errors:
        return None, None
    other = next((error for error in errors if isinstance(error, OtherConfig)), None)
    raise other or RequestError(f"{errors[0]}\n  There is no valid checkpoint to continue from.")


def digest(content: Any) -> str:
    """Return the SHA-256 over keys, types and bytes, the same wherever and however the content is stored."""
    sha = hashlib.sha256()
    _update(sha, content)
    return sha.hexdigest()


def _update(sha: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        plain = value.detach().cpu().contiguous()
        sha.update(f"tensor {plain.dtype} {tuple(plain.shape)}".encode())
        sha.update(plain.reshape(-1).view(torch.uint8).numpy())
    elif isinstance(value, Mapping):
        sha.update(f"mapping {len(value)}".encode())
        for key, part in value.items():
            sha.update(repr(key).encode())
            _update(sha, part)
    elif isinstance(value, (list, tuple)):
        sha.update(f"sequence {len(value)}".encode())
        for part in value:
            _update(sha, part)
    else:
        sha.update(f"{type(value).__name__} {value!r}".encode())
