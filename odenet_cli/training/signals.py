"""Stop on request: a signal sets a flag, the loop acts on it after the step it is in."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

from odenet_cli.errors import SIGNAL_CODES


class Stop:
    """Catch SIGINT, SIGTERM, SIGUSR1 and, unless it is ignored, SIGHUP while open; a second SIGINT stops at once."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._before: dict[int, Any] = {}

    @property
    def name(self) -> str | None:
        """The first signal that came: one that follows, such as a scheduler's SIGTERM, only repeats it."""
        return next(iter(self._names), None)

    @property
    def code(self) -> int:
        return SIGNAL_CODES[self.name or "SIGTERM"]

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            for name in SIGNAL_CODES:
                number = getattr(signal, name)
                if name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN:  # which is how nohup asks
                    continue
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and "SIGINT" in self._names:
            raise KeyboardInterrupt
        self._names.append(signal.Signals(number).name)
