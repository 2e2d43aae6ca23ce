"""Warn once per run of what a model notices while it computes."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("odenet")


class WarnOnce:
    """Warn of each kind of thing once. A model holds one, so that each job of a sweep in one process has its own."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, text: str, *values: object) -> None:
        """Log `text`, which is the same for things of a kind, with `values` in it."""
        if text not in self._said:
            self._said.add(text)
            log.warning(text, *values)

    def __deepcopy__(self, memo: dict[int, Any]) -> WarnOnce:
        return self  # scoring copies the model, each time anew
