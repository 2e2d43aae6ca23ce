"""Keep standard output and standard error from failing: output that cannot be written is dropped.

The disk may be full, the reader or the terminal gone, or the encoding may lack é or ×.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import re
import select
import shutil
import sys
import textwrap
from functools import partial
from typing import Any

_REPLACED: list[io.TextIOWrapper] = []  # kept: one that is collected closes its descriptor


class Sink(io.FileIO):
    """Drop what cannot be written.

    lost  why the first write failed, None where all were made
    """

    lost: OSError | None = None

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write all or part of `data`; return how much is dealt with."""
        try:
            while (written := super().write(data)) is None:  # it was set not to wait, and is full
                select.select([], [self], [])
            return written
        except OSError as error:
            self.lost = self.lost or error
            return len(data)


def secure() -> None:
    """Put a `Sink` behind both streams; lead one that was closed (`>&-`) to nowhere.

    The next file to be opened would take the place of a closed one: its descriptor is the lowest that is free.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is not io.TextIOWrapper or sink(stream):  # a notebook, or a test, has put its own there
            continue
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
        raw: Any = Sink(stream.fileno(), "w", closefd=False)
        buffer = io.BufferedWriter(raw)
        line = stream.line_buffering or name == "stderr" or stream.isatty()
        _REPLACED.append(stream)
        setattr(
            sys, name, io.TextIOWrapper(buffer, stream.encoding, "backslashreplace", None, line, stream.write_through)
        )


def sink(stream: object) -> Sink | None:
    """Return the `Sink` behind `stream`, None where there is none."""
    raw = getattr(getattr(stream, "buffer", None), "raw", None)
    return raw if isinstance(raw, Sink) else None


def hanging(head: str, text: str) -> str:
    """Return `text` behind `head`, wrapped at the terminal's width (`COLUMNS`; else 80), its lines below each other."""
    width = max(shutil.get_terminal_size().columns, len(head) + 20)
    return (
        textwrap.fill(
            text, width, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False
        ).rstrip()
        or head.rstrip()
    )


def wrapped(line: str, width: int = 0) -> str:
    """Return a line wrapped at `width`, else the terminal's, below its indentation, or behind a first gap in it.

    A gap is two spaces. What is before it stays whole; what is behind it and does not fit gets lines of its own. No
    word is broken: it may be a path, or a command's option.
    """
    width = width or shutil.get_terminal_size().columns
    fill = partial(textwrap.fill, width=width, break_long_words=False, break_on_hyphens=False)
    head, text = re.fullmatch(r"( *(?:\S+(?: \S+)*? {2,}(?=\S))?)(.*)", line, re.DOTALL).groups()  # type: ignore[union-attr]
    if len(line) > width and len(head) > width // 2:
        indent = " " * (len(head) - len(head.lstrip()) + 4)
        return f"{head.rstrip()}\n{fill(text, initial_indent=indent, subsequent_indent=indent)}"
    return fill(text, initial_indent=head, subsequent_indent=" " * len(head)) or line


def wrapped_text(text: str) -> str:
    """Return the lines of a text wrapped; a command stays in one line, to be copied."""
    return "\n".join(line if re.search(r"(?<!`)\bodenet \w", line) else wrapped(line) for line in text.splitlines())


class Wrapped(logging.Formatter):
    """Wrap Hydra's lines about a sweep between words, on a terminal."""

    stream = "stdout"

    def format(self, record: logging.LogRecord) -> str:
        text, stream = super().format(record).replace("\t#", "#", 1), getattr(sys, self.stream)
        return wrapped_text(text) if stream is not None and stream.isatty() else text


class WrappedWarning(Wrapped):
    """Wrap warnings between words, on a terminal."""

    stream = "stderr"


def unprinted() -> OSError | None:
    """Return why some of standard output was lost; None if nothing was, or if its reader has ended (`| head`)."""
    end = sink(sys.stdout)
    sys.stdout.flush()
    return None if end is None or end.lost is None or end.lost.errno == errno.EPIPE else end.lost


def forget_lost_output() -> None:
    """Forget that some of standard output was lost: files hold all of it."""
    sys.stdout.flush()
    end = sink(sys.stdout)
    if end is not None:
        end.lost = None
