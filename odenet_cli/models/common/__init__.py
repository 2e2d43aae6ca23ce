"""Shared parts of models; here checks of options, which messages name by their keys on the command line."""

from __future__ import annotations

from collections.abc import Collection


def check_counts(**options: int) -> None:
    """Raise ValueError for a count below 1, naming its option."""
    for name, value in options.items():
        if value < 1:
            raise ValueError(f"model.{name}={value} must be at least 1.")


def check_choice(name: str, value: str, known: Collection[str]) -> None:
    """Raise ValueError if the value of an option is not one of those `known`."""
    if value not in known:
        raise ValueError(f"model.{name}={value} is not known. Available: {', '.join(known)}.")
