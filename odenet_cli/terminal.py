"""Format what a command prints: numbers in words, and lines that fit the terminal; `train.log` has some of them too."""

from __future__ import annotations

import logging
import re
import shutil
import sys
from collections.abc import Sequence
from typing import TextIO

from odenet_cli.streams import wrapped

MAX_COLUMNS = 80  # of plain lines
INDENT = 10  # of the text behind a label

log = logging.getLogger("odenet")


def percent(value: float) -> str:
    """Return a fraction as 12.34 %."""
    return f"{100 * value:.2f} %"


def duration(seconds: float) -> str:
    """Return 1:02:03, or 2:03 min, or 3.1 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    return clock(seconds) + " min" * (round(seconds) < 3600)


def clock(seconds: float) -> str:
    """Return 1:02:03 or 2:03, as short as a live line needs it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def say(line: str, stream: TextIO | None = None) -> None:
    print(line, file=stream, flush=True)


def say_text(text: str) -> None:
    """Print sentences, on a terminal broken between words."""
    say("\n".join(wrapped(line, columns()) for line in text.splitlines()) if on_terminal() else text)


def tell(line: str) -> None:
    """Print a line at once, on a terminal broken between words, and write it to `train.log`."""
    say_text(line)
    log.info("%s", line)


def on_terminal() -> bool:
    """Return whether standard output is a terminal; it is None where it was closed."""
    return sys.stdout is not None and sys.stdout.isatty()


def columns() -> int:
    """Return the width of the terminal, or that of plain lines."""
    return shutil.get_terminal_size().columns if on_terminal() else MAX_COLUMNS


def packed(parts: list[str], separator: str, width: int) -> list[str]:
    """Return lines of at most `width` columns, each of as many parts as fit; no part is broken."""
    lines: list[str] = []
    for part in parts:
        joined = f"{lines[-1]}{separator}{part}" if lines else part
        lines[-1:] = [joined] if len(joined) <= width or not lines else [lines[-1], part]
    return lines


def labelled(label: str, text: str, width: int) -> list[str]:
    """Return `label: text` as lines of at most `width` columns, broken after commas, the text in one column."""
    lines = packed(re.split(r"(?<=[,;]) ", text), " ", width - INDENT)
    return [f"{label + ':' if label and number == 0 else '':<{INDENT}}{line}" for number, line in enumerate(lines)]


class Table:
    """Print a table row by row, as the rows are computed; the widths of its columns are given in advance.

    On a terminal that is narrower the words stand in a line of their own, above the rows of numbers that they share.

    heads  name and width of each column
    left   how many of them, from the first, hold words
    """

    def __init__(self, heads: Sequence[tuple[str, int]], left: int = 1) -> None:
        self.widths, self.left = [width for _, width in heads], left
        self.width = columns() if on_terminal() else sys.maxsize
        numbers = self.widths[left:]
        self.folded = sum(self.widths) + 2 * (len(heads) - 1) > self.width
        self.gap = " " if self.folded and sum(numbers) + 2 * len(numbers) > self.width else "  "
        self.words: list[str] | None = None
        self.row(*(head for head, _ in heads))

    def row(self, *cells: str) -> None:
        """Print a row; cells beyond the columns are notes. Where it does not fit it is broken between cells."""
        widths = [*self.widths, *(0 for _ in cells)]
        padded = [c.ljust(w) if n < self.left else c.rjust(w) for n, (c, w) in enumerate(zip(cells, widths))]
        if self.folded and padded[: self.left] != self.words:
            self.words = padded[: self.left]
            say("  ".join(self.words).rstrip())
        shown = ["", *padded[self.left :]] if self.folded else padded
        while len(shown) > 1 and not shown[-1].strip():
            shown.pop()
        say("\n".join(line.rstrip() for line in packed(shown, self.gap, self.width)))
