"""Measure agreement, counts, and times: all subjects in turn, repeatedly, in one process."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median

import numpy
import torch
from torch import Tensor

from odenet_cli.bench.work import Subject, Work
from odenet_cli.ode import Stats

MIN_CALL_S = 0.02  # shorter work is run several times within one measurement


@dataclass(kw_only=True)
class Row:
    """Hold the measurements of one subject.

    error   the largest relative distance of a result from the reference, in the 2-norm
    failed  reason why there are no times
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
        """Whether the middle half of the times spans more than a fifth of their median."""
        if self.ms is None:
            return False
        low, high = numpy.percentile(self.times_ms, [25, 75])
        return bool(high - low > 0.2 * self.ms)


def compare(
    subjects: list[Subject],
    reference: Mapping[str, Tensor],
    bound: float,
    repeats: int,
    device: torch.device,
    beside: Mapping[str, Work] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[list[Row], dict[str, list[float]]]:
    """Return a row for each subject, and the milliseconds of the work timed `beside` them.

    A subject farther than `bound` from the reference, or one that raises, fails alone. `note` receives the progress.
    """
    rows, works = [], dict(beside or {})
    for subject in subjects:
        row = Row(subject=subject.name)
        rows.append(row)
        note(f"checking {subject.name}")
        try:
            work = subject.work(subject.mode, None)
            row.error = distance(work.run(), reference)
            if not row.error <= bound:
                raise ArithmeticError(f"it is off by {row.error:.1e}, more than {bound:g}; not timed")
            row.cost = subject.cost()
            works[row.subject] = work
        except Exception as error:
            row.failed = one_line(error)
    times, failures = interleave(works, repeats, device, note)
    for row in rows:
        row.times_ms = times.get(row.subject, [])
        row.failed = row.failed or failures.get(row.subject)
    return rows, {name: times[name] for name in beside or {}}


def distance(outcome: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> float:
    """Return the largest relative distance in the 2-norm; NaN if anything is NaN."""
    gaps = []
    for name, exact in reference.items():
        exact = exact.detach().cpu().double()
        gaps.append(float((outcome[name].detach().cpu().double() - exact).norm() / exact.norm()))
    return math.nan if any(map(math.isnan, gaps)) else max(gaps, default=math.nan)


def interleave(
    works: Mapping[str, Work],
    repeats: int,
    device: torch.device,
    note: Callable[[str], None] = lambda text: None,
) -> tuple[dict[str, list[float]], dict[str, str]]:
    """Return `repeats` times in milliseconds for each work, and the failures. The first round warms up."""
    times: dict[str, list[float]] = {name: [] for name in works}
    calls, failures = dict.fromkeys(works, 1), {}
    gc.freeze()  # collections between the rounds need not visit existing objects
    for round_number in range(repeats + 1):
        gc.collect()
        names = [name for name in works if name not in failures]
        first = round_number % max(1, len(names))  # so that no work always follows the same other one
        for name in names[first:] + names[:first]:
            note(f"round {round_number} of {repeats}, {name}")
            try:
                seconds = time_run(works[name], calls[name], device)
            except Exception as error:
                failures[name] = one_line(error)
                continue
            if round_number:
                times[name].append(1e3 * seconds)
            elif works[name].repeatable:
                calls[name] = max(1, min(100, math.ceil(MIN_CALL_S / seconds)))
    gc.unfreeze()
    return times, failures


def time_run(work: Work, calls: int, device: torch.device) -> float:
    """Return the seconds of one run, as the mean over `calls`."""
    work.reset()
    synchronize(device)
    start = time.perf_counter()
    for _ in range(calls):
        work.backward(work.forward())
    synchronize(device)
    return (time.perf_counter() - start) / calls


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def one_line(error: BaseException) -> str:
    """Return an error as one line, for a cell of a table."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:117] + '…' if len(text) > 118 else text}"
