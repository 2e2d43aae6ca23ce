"""Tiny runs in this process, and what they left behind."""

from runs_kit import _one_thread, _quick, checkpoint_of, metrics, same_bits, tiny, train  # noqa: F401
