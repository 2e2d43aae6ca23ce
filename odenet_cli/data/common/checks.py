"""Check options that several data sets have."""

from __future__ import annotations

import os
from collections.abc import Sequence

from odenet_cli.errors import RequestError

GIB = 2**30


def check_choice(key: str, value: object, choices: Sequence[str]) -> None:
    """Raise RequestError unless `data.key` is null or one of the choices."""
    if value not in (None, *choices):
        raise RequestError(f"data.{key}={value} is not known. Available: {', '.join(choices)}.")


def check_share(key: str, value: float, least: float = 0.0, most: float = 0.9) -> None:
    """Raise RequestError unless `data.key` is a share that leaves samples on both sides."""
    if not least <= value <= most:
        raise RequestError(f"data.{key}={value} is out of range: it must be a share of at most {most}.")


def check_range(key: str, value: float, low: float, high: float, unit: str = "") -> None:
    """Raise RequestError unless `data.key` lies between `low` and `high`."""
    if not low <= value <= high:
        raise RequestError(f"data.{key}={value} is out of range: it must be {low:,} to {high:,}{unit}.")


def check_least(key: str, value: float | None, least: float, unit: str = "") -> None:
    """Raise RequestError if `data.key` is less than `least`."""
    if value is not None and value < least:
        raise RequestError(f"data.{key}={value} must be at least {least}{unit}.")


def memory_lacking(needed: float) -> str | None:
    """Return the needed and the available memory as text, if so many bytes do not fit; else None."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed <= memory:
        return None
    return f"need {needed / GIB:,.0f} GiB, and {memory / GIB:,.0f} GiB of memory are available"
