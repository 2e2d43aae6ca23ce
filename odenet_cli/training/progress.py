"""What one sees while a run trains: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, TextIO

QUIET_S = 10.0


def percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.1f}"


def duration(seconds: float) -> str:
    """1:02:03, or 2:03, or 3.1 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d} min"


def say(line: str, stream: TextIO | None = None) -> None:
    """Print at once."""
    print(line, file=stream, flush=True)


class Progress:
    """Loss, error, evaluations, step time and time to go, for a run of `total` steps of which `done` are made."""

    def __init__(self, total: int, done: int, per_epoch: int) -> None:
        self.total, self.first, self.per_epoch = total, done, per_epoch
        self.marked = self.printed = time.perf_counter()
        self.step_s = 0.0
        self.train = self.scored = ""
        self.bar: Any = None
        if sys.stdout is not None and sys.stdout.isatty():  # it was closed where it is None
            from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bar

            columns = (BarColumn(bar_width=20), MofNCompleteColumn(), TextColumn("eta"), TimeRemainingColumn())
            self.bar = Bar(*columns, TextColumn("{task.description}"))
            self.job = self.bar.add_task("", total=total, completed=done)
            self.bar.start()

    def step(self, done: int) -> None:
        """After every step; touches no tensor."""
        if self.bar is not None:
            self.bar.update(self.job, completed=done)
        elif done == self.first + 5:  # the first steps pay for warming up
            self.marked = time.perf_counter()
        elif done == self.first + 15 < self.total:
            self.step_s = (time.perf_counter() - self.marked) / 10
            self._say(f"{self.total - self.first} steps, {self.per_epoch} an epoch: about {self._left(done)}")

    def record(self, record: dict[str, Any]) -> None:
        """After every record of the log. An epoch's last record of training waits for the score that follows it."""
        error = f"  error {percent(record['error'])}" if "error" in record else ""
        if record["split"] == "train":
            nfe = f"  NFE {number(record['nfe_forward'])}/{number(record['nfe_backward'])}"
            nfe = nfe if record["nfe_forward"] else ""
            self.train = f"  loss {record['loss']:.4f}{error}{nfe}  {record['step_ms']:.0f} ms/step"
            self.step_s = record["step_ms"] / 1e3
            due = record["step"] % self.per_epoch and time.perf_counter() - self.printed > QUIET_S
            line = self.train
        else:
            self.scored = f"  {record['split']}{error or '  loss ' + format(record['loss'], '.4f')}"
            line, due = (self.train if record["split"] == "valid" else "") + self.scored, True
        if self.bar is not None:
            self.bar.update(self.job, description=f"epoch {record['epoch']}{self.train}{self.scored}")
        elif due:
            done = record["step"]
            eta = f"  eta {self._left(done)}" if done < self.total and self.step_s else ""
            self._say(f"epoch {record['epoch']}  step {done}/{self.total}{line}{eta}")

    def close(self) -> None:
        if self.bar is not None:
            self.bar.stop()

    def _left(self, done: int) -> str:
        return duration(self.step_s * (self.total - done))

    def _say(self, line: str) -> None:
        self.printed = time.perf_counter()
        say(line)
