"""Log each kind of warning of a model once per run."""

from __future__ import annotations

import logging
from typing import Any

log = logging.getLogger("odenet")


class WarnOnce:
    """Log each kind of warning once. Each model has its own, so that jobs of a sweep in one process are separate."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def __call__(self, text: str, *values: object) -> None:
        """Log `text`, which identifies the kind of warning, with `values` inserted."""
        if text not in self._said:
            self._said.add(text)
            log.warning(text, *values)

    def __deepcopy__(self, memo: dict[int, Any]) -> WarnOnce:
        return self  # scoring copies the model every time
