"""What a solve cost. The right-hand side counts; models and fields never do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields

Tallies = tuple["list[Stats]", ...]

# A context variable, so that each thread and each asyncio task collects its own solves.
_open: ContextVar[Tallies] = ContextVar("tallies", default=())  # each thread has its own


@dataclass
class Stats:
    """Hold the cost of one solve; the backward pass adds its share to the same object when it runs.

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

    # A sum is another object: later backward passes add to the parts, not to it.
    def __add__(self, other: Stats) -> Stats:
        return Stats(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @classmethod
    def begin(cls) -> Stats:
        """Return fresh counters, seen by every open `tally`."""
        # Into every open tally: an inner one hides no solve from the one around it.
        stats = cls()
        for solves in _open.get():
            solves.append(stats)
        return stats


@contextmanager
def tally() -> Iterator[list[Stats]]:
    """Collect the `Stats` of all solves begun inside, in order; their backward passes are included once they have run.

    Those of this thread, or asyncio task; solves begun inside a backward pass count where the outer one does.

    >>> with tally() as solves:
    ...     loss(model, batch).backward()
    >>> sum(solves, start=Stats()).nfe_backward
    """
    solves: list[Stats] = []
    _open.set((*_open.get(), solves))
    try:
        yield solves
    finally:
        # By identity: two tallies without a solve are equal lists.
        _open.set(tuple(tally for tally in _open.get() if tally is not solves))


def open_tallies() -> Tallies:
    """Return what collects the solves that are begun now."""
    return _open.get()


@contextmanager
def collect_into(tallies: Tallies) -> Iterator[None]:
    """Let `tallies` collect what is begun inside, on whatever thread: autograd goes backward in threads of its own."""
    # A thread of autograd's has no tallies of its own. What it had before is put back all the same: it may be reused.
    before = _open.get()
    _open.set(tallies)
    try:
        yield
    finally:
        _open.set(before)
