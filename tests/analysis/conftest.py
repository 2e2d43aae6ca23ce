"""Tiny runs in this process, to be looked at."""

from runs_kit import _one_thread, _quick, tiny, train  # noqa: F401
