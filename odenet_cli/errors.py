"""What can go wrong with a request or a run, and the exit code each becomes."""

from __future__ import annotations

import contextlib
import errno
import itertools
from collections.abc import Iterator
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class OdenetError(Exception):
    """An error that is reported in a few plain lines. `code` is the process's exit code."""

    code = 1


class RequestError(OdenetError):
    """The request, its data or its checkpoint is wrong; nothing was started."""

    code = 2


class RunFailed(OdenetError):
    """A run that started could not finish: it diverged, met the step limit, or ran out of memory."""

    code = 1


class Interrupted(BaseException):
    """A run stopped on a signal, its checkpoint kept. Not an `Exception`: it must stop a whole sweep.

    code  130 for SIGINT, 143 for SIGTERM
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type, tuple[str, int]]:  # jobs in other processes send it home
        return type(self), (str(self), self.code)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Around what writes to `path`: an error of the operating system that names no file names this one."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def told(error: BaseException) -> str:
    """Return what `error` says to a user, whatever it is."""
    return str(error) if isinstance(error, OdenetError) else described(error) or _named(error)


def described(error: BaseException) -> str | None:
    """Return in words what went wrong outside of this program: with the memory, the user's own code, the system.

    None for anything else, which is a bug.
    """
    if exhausted(error):
        return f"out of memory: {_named(error).splitlines()[0]}"
    if full(error):
        return f"{no_space(error)}\n  Make room, and start it again."
    own = place(error)
    if own:
        return f"{_named(error)}\n  {own}"
    if isinstance(error, OSError) and error.strerror:
        paths = [str(path) for path in (error.filename, error.filename2) if path is not None]
        return f"{' and '.join(paths) or type(error).__name__}: {error.strerror}."
    return None


def place(error: BaseException) -> str:
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


def exhausted(error: BaseException) -> bool:
    """Is there no memory left? torch on a CPU, and who loads a library, say so in words alone."""
    words = ("can't allocate memory", "Cannot allocate memory", "std::bad_alloc", "failed to map segment")
    return isinstance(error, MemoryError) or (
        isinstance(error, (RuntimeError, OSError, ImportError))
        and (type(error).__name__ == "OutOfMemoryError" or any(word in str(error) for word in words))
    )


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def full(error: BaseException) -> bool:
    """Is a disk, a quota or a limit on the size of files exhausted?"""
    return isinstance(error, OSError) and error.errno in FULL


def no_space(error: BaseException) -> str:
    """`full` in words."""
    assert isinstance(error, OSError)
    where = f" for {error.filename}" if error.filename else ""
    return f"no space left{where} ({error.strerror})."
