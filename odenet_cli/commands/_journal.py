"""What a command keeps in a run's folder beside what it prints; a folder that takes nothing costs the file alone."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any


class Journal:
    """A file in a run's folder, while it is open; at the end, said once, why what was printed could not be kept.

    >>> with Journal(RUN / "eval.jsonl") as journal:
    ...     journal.add({"loss": 0.1})
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost: OSError | None = None

    def add(self, record: dict[str, Any]) -> None:
        """Append a line of JSON."""
        from odenet_cli.files import append_json

        self.keep(append_json, record)

    def keep(self, write: Callable[[Path, Any], None], content: Any) -> None:
        """Have `write` put `content` into the file."""
        try:
            write(self.path, content)
        except OSError as error:
            self.lost = self.lost or error

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.lost is not None:
            why = self.lost.strerror or self.lost
            print(f"warning: {self.path} was not written: {why}. What is printed is kept nowhere.", file=sys.stderr)
