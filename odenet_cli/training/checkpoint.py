"""Checkpoints: tensors and plain values in one file that is whole, checked, or not there."""

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

from odenet_cli.errors import RequestError, exhausted
from odenet_cli.files import sync, write

FORMAT = 1


class OtherConfig(RequestError):
    """The checkpoint may be sound; it is the config that is another."""


class Unreadable(RequestError):
    """The system does not hand the file out; it may be sound."""


class Content(dict[str, Any]):
    """What a checkpoint holds, and the `path` it was read from."""

    def __init__(self, content: Mapping[str, Any], path: Path) -> None:
        super().__init__(content)
        self.path = path


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write `path` so that at every moment either the old or the new one is there, whole.

    The one before is kept as `previous-<name>`.
    """
    payload = {"format": FORMAT, "sha256": digest(content), "content": dict(content)}
    buffer = io.BytesIO()
    torch.save(payload, buffer)
    path.parent.mkdir(exist_ok=True)
    write(path, buffer.getbuffer(), previous=previous(path))
    sync(path.parent.parent)  # the folder of checkpoints may be new itself


def previous(path: Path) -> Path:
    """Where the checkpoint before `path` is kept."""
    return path.with_name(f"previous-{path.name}")


def load(path: Path) -> Content:
    """The content of `path`, verified; a `RequestError` says what is wrong with it. Nothing in the file runs."""
    try:
        mode = os.stat(path).st_mode
        if not stat.S_ISREG(mode):  # of a pipe or a device there is no end
            raise ValueError(f"it is {'a folder' if stat.S_ISDIR(mode) else 'a device or a pipe'}, not a file")
        payload = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise RequestError(f"{path} does not exist; there is no checkpoint to read.") from error
    except pickle.UnpicklingError as error:  # torch's own message recommends to load it unsafely
        raise RequestError(f"{path} is not a sound checkpoint: it holds more than tensors and plain values.") from error
    except PermissionError as error:
        raise Unreadable(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:
        if exhausted(error):
            raise
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise RequestError(f"{path} is not a sound checkpoint: {reason}") from error
    if not isinstance(payload, dict) or not {"format", "sha256", "content"} <= payload.keys():
        raise RequestError(f"{path} is not a checkpoint of odenet.")
    form, said, content = payload["format"], payload["sha256"], payload["content"]
    if type(form) is not int or form != FORMAT:
        found = str(form) if isinstance(form, (int, float, str)) else f"a {type(form).__name__}"
        raise RequestError(f"{path} has checkpoint format {found[:40]}; this version reads format {FORMAT}.")
    if not isinstance(content, dict):
        raise RequestError(f"{path} is not a sound checkpoint: its content is a {type(content).__name__}.")
    try:
        sound = isinstance(said, str) and digest(content) == said
    except Exception:  # a tensor without plain bytes, a list in itself: nothing that was saved here
        sound = False
    if not sound:
        raise RequestError(f"{path} is damaged: its content does not have the SHA-256 it was saved with.")
    return Content(content, path)


def latest(path: Path, take: Callable[[Content], None] | None = None) -> tuple[Content | None, str | None]:
    """The content of `path` or, where it is missing, damaged or refused by `take`, of the one before; and what was
    wrong with the first, if anything."""
    wrong: list[RequestError] = []
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
            wrong.append(error)
        else:
            return content, str(wrong[0]) if wrong else None
    if not wrong:
        return None, None
    other = next((error for error in wrong if isinstance(error, OtherConfig)), None)
    raise other or RequestError(f"{wrong[0]}\n  There is no sound checkpoint to go on from.")


def digest(content: Any) -> str:
    """SHA-256 over keys, types and bytes, the same wherever and however the content is stored."""
    sha = hashlib.sha256()
    _feed(sha, content)
    return sha.hexdigest()


def _feed(sha: Any, thing: Any) -> None:
    if isinstance(thing, Tensor):
        plain = thing.detach().cpu().contiguous()
        sha.update(f"tensor {plain.dtype} {tuple(plain.shape)}".encode())
        sha.update(plain.reshape(-1).view(torch.uint8).numpy())
    elif isinstance(thing, Mapping):
        sha.update(f"mapping {len(thing)}".encode())
        for key, value in thing.items():
            sha.update(repr(key).encode())
            _feed(sha, value)
    elif isinstance(thing, (list, tuple)):
        sha.update(f"sequence {len(thing)}".encode())
        for value in thing:
            _feed(sha, value)
    else:
        sha.update(f"{type(thing).__name__} {thing!r}".encode())
