"""Collect the errors in data, and report them together: the number of each kind, the first one, and the remedy."""

from __future__ import annotations

from collections.abc import Sequence

from odenet_cli.errors import RequestError

MAX_KINDS = 9  # that are reported; an error has at most 12 lines


class Faults:
    """Collect faults of the data at `where`, a file, a folder or a class."""

    def __init__(self, where: object) -> None:
        self.where, self.kinds = where, list[tuple[int, str]]()

    def add(self, text: str, remedy: str, count: int = 1) -> None:
        """Add a kind of fault that occurs `count` times; `remedy` names the option or action that mends it."""
        self.kinds.append((count, f"{text}. {remedy}"))

    def raise_all(self) -> None:
        """Raise RequestError if there were any."""
        if len(self.kinds) == 1:
            raise RequestError(f"{self.where}: {self.kinds[0][1]}")
        if self.kinds:
            raise RequestError(tell(self.where, self.kinds))


def tell(where: object, kinds: Sequence[tuple[int, str]]) -> str:
    """Return the message for several kinds of faults, with the number and description of each."""
    total, more = sum(count for count, _ in kinds), len(kinds) - MAX_KINDS
    lines = [f"{where} has {total:,} errors of {len(kinds)} kinds.", *(f"  {text}" for _, text in kinds[:MAX_KINDS])]
    return "\n".join([*lines, f"  and {more} more kinds"] if more > 0 else lines)


def few(words: Sequence[object], most: int = 3, count: int | None = None) -> str:
    """Return the first of the words, and the number of the others, of `count` in all."""
    more = (len(words) if count is None else count) - most
    return ", ".join(map(str, words[:most])) + (f" and {more:,} more" if more > 0 else "")
