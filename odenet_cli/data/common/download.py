"""Downloads with a timeout: whole files under their final names, or nothing there at all."""

from __future__ import annotations

import contextlib
import http.client
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from odenet_cli.errors import RequestError
from odenet_cli.files import write

SOCKET_S = 10.0  # one connection or one read


class Unavailable(RequestError):
    """The data are not on disk, and could not or must not be downloaded."""


def reason(error: Exception) -> str:
    """Return the few words of an exception that say what happened."""
    cause = getattr(error, "reason", None)  # urllib wraps what it met
    if isinstance(cause, Exception):
        return reason(cause)
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def download(resources: Sequence[tuple[str, str]], mirrors: Sequence[str], folder: Path, files: Sequence[str]) -> None:
    """Fetch and unpack each (file name, md5), and put `files`, wherever they are in it, into `folder`.

    Raise OSError, with nothing left behind, when no mirror has one of them or none answers in time.
    """
    created, before = [path for path in (folder, *folder.parents) if not path.exists()], socket.getdefaulttimeout()
    folder.mkdir(parents=True, exist_ok=True)
    socket.setdefaulttimeout(SOCKET_S)
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder) as stage:
            for name, md5 in resources:
                fetch(name, md5, mirrors, Path(stage))
            for name in files:
                write(folder / name, next(Path(stage).rglob(name)).read_bytes())
    finally:
        socket.setdefaulttimeout(before)
        with contextlib.suppress(OSError):  # stops at the first folder that holds something
            for path in created:
                path.rmdir()


def fetch(name: str, md5: str, mirrors: Sequence[str], folder: Path) -> None:
    """Fetch and unpack a file from the first mirror that has it; OSError names every mirror when none does."""
    from torchvision.datasets.utils import download_and_extract_archive, download_url

    get, failures = download_and_extract_archive if name.endswith((".gz", ".zip")) else download_url, []
    for mirror in mirrors:
        host = urlsplit(mirror).netloc
        try:
            get(f"{mirror}{name}", folder, filename=name, md5=md5)
            return
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            failures.append(f"{host}: {reason(error)}")
    raise OSError("; ".join(failures))
