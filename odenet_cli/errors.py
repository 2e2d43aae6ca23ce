"""Errors of a request or a run with their exit codes, and the texts for other errors."""

from __future__ import annotations

import contextlib
import errno
import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

SIGNAL_CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGUSR1": 143, "SIGHUP": 143}  # exit codes
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class OdenetError(Exception):
    """Hold an error that is reported in a few plain lines; `code` is the process's exit code."""

    code = 1


class RequestError(OdenetError):
    """Say that the request, its data or its checkpoint is wrong; nothing was started."""

    code = 2


class HasNoMeaning(RequestError):
    """Say that keys have no meaning beside the others.

    given    key -> value, as they were set
    reason   what follows on their names: has no meaning for rk4
    way_out  what follows on the reason
    """

    def __init__(self, given: Mapping[str, Any], reason: str, way_out: str = "; leave it out.") -> None:
        super().__init__(given, reason, way_out)
        self.given, self.reason, self.way_out = given, reason, way_out

    def __str__(self) -> str:
        return f"{', '.join(f'{key}={value}' for key, value in self.given.items())} {self.reason}{self.way_out}"


class RunFailed(OdenetError):
    """Say that a run that started could not finish: it diverged, met the step limit, or ran out of memory."""


class Interrupted(BaseException):
    """Stop a run on a signal, its checkpoint kept. Not an `Exception`: it must stop a whole sweep.

    reason  the signal, and where it came
    code    130 for SIGINT, 143 for SIGTERM
    way_on  what is kept, and the command that goes on
    """

    def __init__(self, reason: str, code: int, way_on: str = "") -> None:
        super().__init__(reason, code, way_on)  # jobs in other processes send it home, by these
        self.reason, self.code, self.way_on = reason, code, way_on

    def __str__(self) -> str:
        return f"{self.reason}; {self.way_on}" if self.way_on else self.reason


@contextlib.contextmanager
def name_file(path: Path) -> Iterator[None]:
    """Give an error of the operating system that names no file the name of `path`, which is written meanwhile."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def first_line(text: object) -> str:
    """Return the first line of a text, or of the message of an error."""
    return str(text).partition("\n")[0]


def message_of(error: BaseException) -> str:
    """Return the message of any error for a user."""
    return str(error) if isinstance(error, OdenetError) else describe_external(error) or _named(error)


def describe_external(error: BaseException) -> str | None:
    """Return what went wrong outside of this program (memory, disk, the user's code, the system); None for a bug."""
    if is_out_of_memory(error):
        return f"out of memory: {_named(error).splitlines()[0]}"
    if is_disk_full(error):
        return f"{describe_disk_full(error)}\n  Free some space and start again."
    if own := user_frame(error):
        return f"{_named(error)}\n  {own}"
    if isinstance(error, OSError) and error.strerror:
        paths = [str(path) for path in (error.filename, error.filename2) if path is not None]
        return f"{' and '.join(paths) or type(error).__name__}: {error.strerror}."
    return None


def user_frame(error: BaseException) -> str:
    """Return where in the user's own code `error` arose, `file, line N, in function: source`; empty where it did not.

    That is the innermost frame that is below one of ours, and neither ours nor of an installed library.
    """
    import sysconfig
    import traceback

    ours, standard = str(Path(__file__).parent), sysconfig.get_path("stdlib")
    frames = traceback.extract_tb(error.__traceback__)
    for frame in reversed(list(itertools.dropwhile(lambda frame: not frame.filename.startswith(ours), frames))):
        installed = {"site-packages", "dist-packages"} & set(Path(frame.filename).parts)
        if not (installed or frame.filename.startswith((ours, standard, "<"))):
            return f"{frame.filename}, line {frame.lineno}, in {frame.name}: {frame.line}"
    return ""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether memory is exhausted; torch on a CPU, and the loader of libraries, say so only in the message."""
    words = ("can't allocate memory", "Cannot allocate memory", "std::bad_alloc", "failed to map segment")
    return isinstance(error, MemoryError) or (
        isinstance(error, (RuntimeError, OSError, ImportError))
        and (type(error).__name__ == "OutOfMemoryError" or any(word in str(error) for word in words))
    )


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def is_disk_full(error: BaseException) -> bool:
    """Return whether a disk, a quota or a limit on the size of files is exhausted."""
    return isinstance(error, OSError) and error.errno in FULL


def describe_disk_full(error: BaseException) -> str:
    """Return the message for an error of `is_disk_full`."""
    assert isinstance(error, OSError)
    where = f" for {error.filename}" if error.filename else ""
    return f"no space left{where} ({error.strerror})."
