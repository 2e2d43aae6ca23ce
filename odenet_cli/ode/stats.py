"""What a solve cost. The solver counts; models and fields never do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

_open: list[list[Stats]] = []


@dataclass
class Stats:
    """Cost of one solve; the backward pass adds its share to the same object when it runs.

    nfe_forward   evaluations of the field in the forward solve, rejected steps included
    nfe_backward  evaluations in the backward pass; 0 if it evaluates nothing anew (`backprop`)
    vjps          vector-Jacobian products of the field
    accepted, rejected  steps of the forward solve
    """

    nfe_forward: int = 0
    nfe_backward: int = 0
    vjps: int = 0
    accepted: int = 0
    rejected: int = 0

    def __add__(self, other: Stats) -> Stats:
        return Stats(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @classmethod
    def begin(cls) -> Stats:
        """Fresh counters, seen by every open `tally`."""
        stats = cls()
        for solves in _open:
            solves.append(stats)
        return stats


@contextmanager
def tally() -> Iterator[list[Stats]]:
    """Collect the `Stats` of all solves begun inside, in order; their backward passes are included once they have run.

    >>> with tally() as solves:
    ...     loss(model, batch).backward()
    >>> sum(solves, start=Stats()).nfe_backward
    """
    solves: list[Stats] = []
    _open.append(solves)
    try:
        yield solves
    finally:
        # By identity: two tallies without a solve are equal lists.
        _open[:] = [other for other in _open if other is not solves]
