"""What can go wrong with a request or a run, and the exit code each becomes."""

from __future__ import annotations

import errno

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


def full(error: BaseException) -> bool:
    """Is a disk, a quota or a limit on the size of files exhausted?"""
    return isinstance(error, OSError) and error.errno in FULL


def no_space(error: BaseException) -> str:
    """`full` in words."""
    assert isinstance(error, OSError)
    where = f" for {error.filename}" if error.filename else ""
    return f"no space left{where} ({error.strerror})."
