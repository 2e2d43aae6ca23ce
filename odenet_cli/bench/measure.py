"""Agreement, counts, and times: all subjects in turn, again and again, in one process."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median, quantiles

import torch
from torch import Tensor

from odenet_cli.bench.subject import Subject, Work
from odenet_cli.ode import Stats

LEAST_S = 0.02  # what is shorter is run several times within one measurement


@dataclass(kw_only=True)
class Row:
    """What was found about one subject.

    error   the largest relative distance of a result from the reference, in the 2-norm
    failed  why there are no times
    """

    subject: str
    times_ms: list[float] = field(default_factory=list)
    cost: Stats | None = None
    error: float | None = None
    failed: str | None = None

    @property
    def ms(self) -> float | None:
        return median(self.times_ms) if self.times_ms and not self.failed else None

    @property
    def unsteady(self) -> bool:
        """The middle half of the times spans more than a fifth of their median."""
        if self.ms is None or len(self.times_ms) < 2:
            return False
        low, _, high = quantiles(self.times_ms, method="inclusive")
        return high - low > 0.2 * self.ms


def compare(
    subjects: list[Subject],
    reference: Mapping[str, Tensor],
    bound: float,
    repeats: int,
    device: torch.device,
    beside: Mapping[str, Work] | None = None,
) -> tuple[list[Row], dict[str, list[float]]]:
    """A row for each subject, and the milliseconds of what is timed `beside` them.

    A subject farther than `bound` from the reference, or one that raises, fails alone.
    """
    rows, works = [], dict(beside or {})
    for subject in subjects:
        row = Row(subject=subject.name)
        rows.append(row)
        try:
            work = subject.work(subject.mode, None)
            row.error = distance(ran(work), reference)
            if not row.error <= bound:
                raise ArithmeticError(f"it is off by {row.error:.1e}, more than {bound:g}; not timed")
            row.cost = subject.cost()
            works[row.subject] = work
        except Exception as error:
            row.failed = one_line(error)
    times, failures = interleaved(works, repeats, device)
    for row in rows:
        row.times_ms = times.get(row.subject, [])
        row.failed = row.failed or failures.get(row.subject)
    return rows, {name: times[name] for name in beside or {}}


def ran(work: Work) -> dict[str, Tensor]:
    """Run once, and what came of it."""
    work.reset()
    made = work.forward()
    work.backward(made)
    return work.outcome(made)


def distance(found: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> float:
    """The largest relative distance in the 2-norm; NaN if anything is NaN."""
    gaps = []
    for name, right in reference.items():
        right = right.detach().cpu().double()
        gaps.append(float((found[name].detach().cpu().double() - right).norm() / right.norm()))
    return next((gap for gap in gaps if gap != gap), max(gaps, default=math.nan))


def interleaved(
    works: Mapping[str, Work], repeats: int, device: torch.device
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Milliseconds of each work, `repeats` of them, and what failed. The first run of each is not counted."""
    times: dict[str, list[float]] = {name: [] for name in works}
    calls, failures = dict.fromkeys(works, 1), {}
    gc.freeze()  # what is there already need not be looked through between the turns
    for turn in range(repeats + 1):
        gc.collect()
        names = [name for name in works if name not in failures]
        start = turn % max(1, len(names))  # nobody always follows the same neighbour
        for name in names[start:] + names[:start]:
            try:
                spent = timed(works[name], calls[name], device)
            except Exception as error:
                failures[name] = one_line(error)
                continue
            if turn:
                times[name].append(1e3 * spent)
            elif works[name].repeatable:
                calls[name] = max(1, min(100, math.ceil(LEAST_S / spent)))
    gc.unfreeze()
    return times, failures


def timed(work: Work, calls: int, device: torch.device) -> float:
    """Seconds of one run, the mean of `calls`."""
    work.reset()
    synchronise(device)
    start = time.perf_counter()
    for _ in range(calls):
        work.backward(work.forward())
    synchronise(device)
    return (time.perf_counter() - start) / calls


def synchronise(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def one_line(error: BaseException) -> str:
    """An error for a cell of a table."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:117] + '…' if len(text) > 118 else text}"
