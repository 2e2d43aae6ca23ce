"""What a solve cost. The right-hand side counts; models and fields never do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace

Tallies = tuple["list[Stats]", ...]

# A context variable, so that each thread and each asyncio task collects its own solves.
open_tallies: ContextVar[Tallies] = ContextVar("tallies", default=())


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

    @property
    def nfe(self) -> int:
        """All evaluations, those of the backward pass included."""
        return self.nfe_forward + self.nfe_backward

    # A sum is another object: later backward passes add to the parts, not to it.
    def __add__(self, other: Stats) -> Stats:
        return replace(self).add(other)

    def add(self, other: Stats) -> Stats:
        """Add the cost of another solve to this one's, which whoever holds it sees."""
        for f in fields(self):
            setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))
        return self

    @classmethod
    def begin(cls) -> Stats:
        """Return fresh counters, seen by every open `tally`."""
        # Into every open tally: an inner one hides no solve from the one around it.
        stats = cls()
        for solves in open_tallies.get():
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
    open_tallies.set((*open_tallies.get(), solves))
    try:
        yield solves
    finally:
        # By identity: two tallies without a solve are equal lists.
        open_tallies.set(tuple(tally for tally in open_tallies.get() if tally is not solves))


@contextmanager
def collect_into(tallies: Tallies) -> Iterator[None]:
    """Let `tallies` collect the solves begun inside, on any thread: autograd has its own for backward passes."""
    # A thread of autograd's has no tallies of its own. What it had before is put back all the same: it may be reused.
    before = open_tallies.get()
    open_tallies.set(tallies)
    try:
        yield
    finally:
        open_tallies.set(before)
