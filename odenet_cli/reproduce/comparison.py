"""Numbers that were committed beside those that were computed again: equal, different, or not to be checked here."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from odenet_cli.report.table import markdown_table

EQUAL, DIFFERS, UNCHECKED = "equal", "differs", "cannot be checked here"
TIMES = {"step_ms", "epoch_s", "time_s", "peak_mib"}  # of a machine and its other work; peak_mib of a GPU's allocator
ULPS = 1e-9  # relative: of sums, logarithms and square roots of the same numbers by another library of mathematics


class Check(NamedTuple):
    """One number of a cell: as it was committed, as it is here, and what that means."""

    what: str
    committed: Any
    here: Any
    verdict: str
    why: str = ""


def close_to(a: Any, b: Any, relative: float) -> bool:
    """Tell whether two values are equal; floats to a relative error."""
    if isinstance(a, float) and isinstance(b, (int, float)):
        return a == b or math.isclose(a, b, rel_tol=relative)
    return bool(a == b)


@dataclass
class Tally:
    """How many numbers of a kind are equal, differ, and cannot be checked; the differences in words."""

    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    differences: list[str] = field(default_factory=list)

    def add(self, what: str, verdict: str, count: int = 1) -> None:
        self.counts.setdefault(what, {})
        self.counts[what][verdict] = self.counts[what].get(verdict, 0) + count

    def compare(self, file: str, key: str, committed: Any, here: Any) -> None:
        """Count two values of a report, and note where they are not the same."""
        equal = close_to(committed, here, ULPS)
        self.add(f"{file}, from the records", EQUAL if equal else DIFFERS)
        if not equal:
            self.differences.append(f"{file}: {key}: {committed} committed, {here} by the records")

    def note(self, where: str, check: Check) -> str:
        """Count a check, and return it in words."""
        self.add(check.what, check.verdict)
        why = f" ({check.why})" if check.why else ""
        if check.verdict == DIFFERS:
            self.differences.append(f"{where}: {check.what}: {check.committed} committed, {check.here} here{why}")
        return f"{check.what} {shown(check.here)} {check.verdict}{why}"

    def table(self) -> str:
        """Return the counts as a table."""
        verdicts = (EQUAL, DIFFERS, UNCHECKED)
        rows = [[what, *(str(counts.get(one, "")) for one in verdicts)] for what, counts in self.counts.items()]
        return markdown_table(["", *verdicts], rows, left=1)


def shown(value: Any) -> str:
    """A value in a sentence."""
    return f"{value:.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value or "")
