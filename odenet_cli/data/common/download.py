"""Downloads that end: in time, with whole files under their final names, or with nothing there at all."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from odenet_cli.data.common.idx import reason
from odenet_cli.errors import RequestError
from odenet_cli.files import write

SOCKET_S = 10.0  # one connection or one read
STALL_S = 20.0  # no file begun and less than STEP bytes more: there is no network worth waiting for
STEP = 1 << 16
MOST = 1 << 26  # bytes; the four files have 11.6 MB

Resources = Iterable[tuple[str, str]]


class Unavailable(RequestError):
    """The data are not on disk, and could not or must not be downloaded."""


def download(resources: Resources, mirrors: Iterable[str], folder: Path, stop: threading.Event) -> None:
    """Fetch each (file name, md5) from the first mirror that has it; `OSError` naming every mirror when none does."""
    from torchvision.datasets.utils import download_url

    for name, md5 in resources:
        failures = []
        for mirror in mirrors:
            if stop.is_set():
                return
            try:
                download_url(f"{mirror}{name}", folder, filename=name, md5=md5)
                break
            except (OSError, RuntimeError, http.client.HTTPException) as error:
                failures.append(f"{urlsplit(mirror).netloc}: {reason(error)}")
        else:
            raise OSError("; ".join(failures))


def within_time(work: Callable[[threading.Event], None], folder: Path) -> None:
    """Run `work(stop)`, which fills `folder`, for as long as the folder grows.

    A thread, because neither looking up a name nor trying a host's addresses one by one obeys a timeout. When given up
    it finds `stop` set and its folder gone.
    """
    stop, failures = threading.Event(), list[BaseException]()

    def guarded() -> None:
        try:
            work(stop)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded, name="odenet-download", daemon=True)
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SOCKET_S)
    try:
        thread.start()
        reached, moved = (0, 0), time.monotonic()
        while thread.is_alive():
            thread.join(0.05)
            files, size = _amount(folder)
            if size > MOST:
                raise OSError(f"the mirror sent more than {MOST:,} bytes")
            if files > reached[0] or size >= reached[1] + STEP:
                reached, moved = (files, size), time.monotonic()
            elif time.monotonic() - moved > STALL_S:
                raise OSError(f"no answer for {STALL_S:g} s")
    finally:
        stop.set()
        socket.setdefaulttimeout(before)
    if failures:
        raise failures[0]


@contextlib.contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A temporary folder inside `target`, which is made where needed; after a failure no new folder remains."""
    made = [folder for folder in (target, *target.parents) if not folder.exists()]
    target.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=".download-", dir=target))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # stops at the first folder that holds something
            for empty in made:
                empty.rmdir()


def publish(packed: Path, target: Path) -> None:
    """Unpack the gzip file `packed` to `target`, which is whole or not there."""
    write(target, gzip.decompress(packed.read_bytes()))


def _amount(folder: Path) -> tuple[int, int]:
    """Files and bytes in `folder`, which is being written to."""
    sizes = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        sizes = [entry.stat().st_size for entry in entries]
    return len(sizes), sum(sizes)
