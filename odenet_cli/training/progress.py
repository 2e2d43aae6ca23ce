"""What one sees while a run trains and at its end: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, TextIO

QUIET_S = 10.0


def percent(value: float) -> str:
    """Return a fraction as 12.34 %."""
    return f"{100 * value:.2f} %"


def number(value: float) -> str:
    """Return a mean of counts, without a digit where it is whole."""
    return f"{value:.0f}" if value == int(value) else f"{value:.1f}"


def duration(seconds: float) -> str:
    """Return 1:02:03, or 2:03 min, or 3.1 s."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d} min"


def say(line: str, stream: TextIO | None = None) -> None:
    """Print at once."""
    print(line, file=stream, flush=True)


class Progress:
    """Show loss, error, function evaluations and time to go of a run of `total` steps, `done` of them made."""

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
        """Move the bar, or estimate the time to go; called after every step, touches no tensor."""
        if self.bar is not None:
            self.bar.update(self.job, completed=done)
        elif done == self.first + 5:  # the first steps pay for warming up
            self.marked = time.perf_counter()
        elif done == self.first + 15 < self.total:
            self.step_s = (time.perf_counter() - self.marked) / 10
            self._say(f"{self.total - self.first} steps, {self.per_epoch} an epoch: about {self._left(done)}")

    def record(self, record: dict[str, Any]) -> None:
        """Show a record of the log. An epoch's last record of training waits for the score that follows it."""
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
        """Close the bar."""
        if self.bar is not None:
            self.bar.stop()

    def _left(self, done: int) -> str:
        return duration(self.step_s * (self.total - done))

    def _say(self, line: str) -> None:
        self.printed = time.perf_counter()
        say(line)


def last_line(final: dict[str, Any], folder: Path) -> str:
    """Return what the terminal shows at the end of a run."""
    nfe = f"NFE {number(final['nfe_forward'])} forward, {number(final['nfe_backward'])} backward"
    nfe = nfe if final["nfe_forward"] else "no solver"
    peak = f", {final['peak_mib']:.0f} MiB peak" if final["peak_mib"] is not None else ""
    memory = f"{final['saved_mib']:.1f} MiB saved for backward{peak}"
    relative = os.path.relpath(folder)
    place = str(folder) if relative.startswith("..") else relative
    return f"{score_text(final)} | {nfe} | {memory} | {duration(final['time_s'])} | {place}"


def score_text(final: dict[str, Any]) -> str:
    """Return the test score in words: the error of a classifier, else the loss and the other metrics of the task."""
    if "error" in final:
        return f"test error {percent(final['error'])}"
    names = [name for name in list(final)[: list(final).index("nfe_forward")] if not name.endswith(("_sd", "_se"))]
    if any(final[name] == final["loss"] for name in names if name != "loss"):
        names.remove("loss")  # it is there under its own name
    return "test " + ", ".join(f"{name} {final[name]:.4g}" for name in names)
