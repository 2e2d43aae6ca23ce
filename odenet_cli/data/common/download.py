"""Download files with a time limit: whole files under their final names, or nothing."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from odenet_cli.errors import RequestError
from odenet_cli.files import write

SOCKET_S = 10.0  # one connection or one read
STALL_S = 20.0  # without another byte, before giving up


class Unavailable(RequestError):
    """The data are not on disk, and could not or must not be downloaded."""


def reason(error: Exception) -> str:
    """Return a short description of an exception."""
    cause = getattr(error, "reason", None)  # urllib wraps the original exception
    if isinstance(cause, Exception):
        return reason(cause)
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def download(resources: list[tuple[str, str]], mirrors: list[str], folder: Path, files: list[str]) -> None:
    """Download and unpack each (file name, md5), and put `files`, found anywhere in it, into `folder`.

    Raise OSError, leaving nothing behind, if no mirror has one of them or none answers in time.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder, ignore_cleanup_errors=True) as stage:
            _run_in_time(resources, mirrors, Path(stage))
            for name in files:
                write(folder / name, next(Path(stage).rglob(name)).read_bytes())
    finally:
        with contextlib.suppress(OSError):  # stops at the first folder that is not empty
            for path in created:
                path.rmdir()


def fetch(resources: Iterable[tuple[str, str]], mirrors: Iterable[str], folder: Path, stop: threading.Event) -> None:
    """Download and unpack each file from the first mirror that has it; if none does, OSError names all mirrors."""
    from torchvision.datasets.utils import download_and_extract_archive, download_url

    for name, md5 in resources:
        failures = []
        for mirror in mirrors:
            if stop.is_set():
                return
            try:
                get = download_and_extract_archive if name.endswith((".gz", ".zip")) else download_url
                get(f"{mirror}{name}", folder, filename=name, md5=md5)
                break
            except (OSError, RuntimeError, http.client.HTTPException) as error:
                failures.append(f"{urlsplit(mirror).netloc}: {reason(error)}")
        else:
            raise OSError("; ".join(failures))


def _run_in_time(resources: Iterable[tuple[str, str]], mirrors: Iterable[str], folder: Path) -> None:
    """Run `fetch` as long as `folder` grows.

    It runs in a thread, because neither a name lookup nor trying a host's addresses one by one obeys a timeout. After
    the deadline `stop` is set and its folder removed.
    """
    stop, failures = threading.Event(), list[BaseException]()

    def guarded() -> None:
        try:
            fetch(resources, mirrors, folder, stop)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded, name="odenet-download", daemon=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SOCKET_S)
    try:
        thread.start()
        size, grown = 0, time.monotonic()
        while thread.is_alive():
            thread.join(0.05)
            size_before, size = size, _size(folder)
            if size > size_before:
                grown = time.monotonic()
            elif time.monotonic() - grown > STALL_S:
                raise OSError(f"no answer for {STALL_S:g} s")
    finally:
        stop.set()
        socket.setdefaulttimeout(before)
    if failures:
        raise failures[0]


def _size(folder: Path) -> int:
    """Return the number of bytes in `folder`, to which a thread is writing."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        return sum(entry.stat().st_size for entry in entries)
    return 0
