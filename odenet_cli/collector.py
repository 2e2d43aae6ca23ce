"""Tune Python's cycle collector, which would otherwise scan again and again what a command imports and keeps."""

from __future__ import annotations

import gc

_usual: tuple[int, int, int] | None = None


def relax() -> None:
    """Collect rarely while a command starts: torch brings half a million objects that stay (0.5 s of every start)."""
    global _usual
    _usual = gc.get_threshold()
    gc.set_threshold(100_000, 50, 1000)


def resume() -> None:
    """Collect as usual again, all but what is there by now; before a network computes, whose cycles may hold memory."""
    global _usual
    if _usual is not None:
        gc.freeze()
        gc.set_threshold(*_usual)
        _usual = None


def end() -> None:
    """Leave what is there to the system, as the process ends: to take modules apart first would take 0.6 s."""
    gc.freeze()
