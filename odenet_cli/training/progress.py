"""Show the progress of a run; `train.log` has the same lines.

On a terminal one live line shows the fields that fit; elsewhere plain lines are printed after every epoch.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from odenet_cli.markdown import mean_count
from odenet_cli.terminal import MAX_COLUMNS, clock, columns, duration, on_terminal, percent, say

QUIET_S = 10.0
REFRESH_S, SILENCE_S = 0.2, 60.0  # of a command's progress: on a terminal, elsewhere
WARM_UP_STEPS, TIMED_STEPS = 5, 10  # the first steps pay for warming up
BAR_COLUMNS = 8, 20  # at least, at most
UNBROKEN = 10_000  # columns in which rich breaks no row that passes a live line: the terminal does
# Fields of the live line, the least important first. The loss and the time to go stay at any width.
DROPPED_FIRST = ("epoch", "error", "score", "step_ms", "nfe", "step")

log = logging.getLogger("odenet")


def fitting(fields: dict[str, str], width: int) -> str:
    """Return the fields in one line of at most `width` columns, without the least important where they do not fit."""
    fields = dict(fields)
    for name in DROPPED_FIRST:
        if len("  ".join(fields.values())) <= width:
            break
        fields.pop(name, None)
    return "  ".join(fields.values())


def with_bar(line: str, total: float, done: float, width: int) -> Any:
    """Return a line for rich in `width` columns, after a bar if there is room for one."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    text, left = Text(line, no_wrap=True, overflow="crop"), width - len(line) - 2
    if left < BAR_COLUMNS[0]:
        return text
    grid = Table.grid(padding=(0, 2))
    grid.add_row(ProgressBar(total, done, width=min(left, BAR_COLUMNS[1])), text)
    return grid


class Progress:
    """Show loss, error, function evaluations and time to go of a run of `total` steps, `done` of them made.

    stopping   whether a signal has come, which the run acts on where it can
    validates  whether a score follows an epoch
    converges  whether the run may end before `total`, so that nothing foretells its time
    """

    def __init__(
        self,
        total: int,
        done: int,
        per_epoch: int,
        stopping: Callable[[], bool] = lambda: False,
        validates: bool = True,
        converges: bool = False,
    ) -> None:
        self.stopping, self.validates, self.converges = stopping, validates, converges
        self.total, self.first, self.done, self.per_epoch = total, done, done, per_epoch
        self.marked = self.printed = time.perf_counter()
        self.step_s = self.validation_s = 0.0
        self.predicted_s: float | None = None  # of a run seen from its beginning
        self.doing = ""
        self.train: dict[str, str] = {}  # fields of the latest record of training, and of the latest score
        self.scored: dict[str, str] = {}
        self.live: Any = None
        if on_terminal():
            from rich.live import Live

            self.live = Live(get_renderable=self._live_line)
            self.live.start()

    def step(self, done: int) -> None:
        """Note a step that was made, and estimate the time to go; called after every step, touches no tensor."""
        self.done, made = done, done - self.first
        if made == WARM_UP_STEPS:
            self.marked = time.perf_counter()
        elif made > WARM_UP_STEPS and not self.train:
            self.step_s = (time.perf_counter() - self.marked) / (made - WARM_UP_STEPS)
        if made == WARM_UP_STEPS + TIMED_STEPS and done < self.total and not self.converges:
            self.step_s = (time.perf_counter() - self.marked) / TIMED_STEPS
            left = duration(self.step_s * (self.total - done))
            self.predicted_s = None if self.first else self.step_s * self.total
            self._say(f"{self.total - self.first} steps, {self.per_epoch} per epoch: about {left} of training")
        self.doing = "validating" if self.validates and (done % self.per_epoch == 0 or done == self.total) else ""

    def phase(self, name: str) -> None:
        """Show on a terminal what is done outside of training."""
        self.doing = name
        self._refresh()

    def over(self, items: Iterable[Any], count: int) -> Iterator[Any]:
        """Yield the `count` items of a phase, and show how many are done."""
        name = self.doing
        for number, item in enumerate(items, 1):
            yield item
            self.doing = f"{name} {number}/{count}".strip()

    def record(self, record: dict[str, Any]) -> None:
        """Show a record of the log. An epoch's last record of training waits for the score that follows it."""
        at = {"epoch": f"epoch {record['epoch']}", "step": f"step {record['step']}/{self.total}"}
        loss = f"loss {record['loss']:.4f}"
        error = f"error {percent(record['error'])}" if "error" in record else ""
        if record["split"] == "train":
            nfe = f"NFE {mean_count(record['nfe_forward'])}/{mean_count(record['nfe_backward'])}"
            fields = {"loss": loss, "error": error, "nfe": nfe if record["nfe_forward"] else ""}
            fields["step_ms"] = f"{record['step_ms']:.0f} ms/step"
            self.train = {name: text for name, text in fields.items() if text}
            self.step_s = record["step_ms"] / 1e3
            scored = self.validates and record["step"] % self.per_epoch == 0
            due = not scored and time.perf_counter() - self.printed > QUIET_S
            line = at | self.train
        else:
            self.scored, self.doing, due = {"score": f"{record['split']}  {error or loss}"}, "", True
            self.validation_s = record.get("time_s", 0.0)
            line = at | (self.train if record["split"] == "valid" else {}) | self.scored
        if due:
            self._say("  ".join((line | self._eta(record["step"])).values()))
        self._refresh()

    def close(self) -> None:
        """Leave the live line as it is."""
        self.doing = ""
        if self.live is not None:
            self.live.stop()

    def _refresh(self) -> None:
        if self.live is not None:
            self.live.refresh()

    def _eta(self, done: int) -> dict[str, str]:
        steps = self.total - done
        left_s = self.step_s * steps + self.validation_s * math.ceil(steps / self.per_epoch)
        known = steps > 0 and self.step_s and not self.converges
        return {"eta": f"eta {clock(left_s)}"} if known else {}

    def _live_line(self) -> Any:
        epoch = max(1, -(-self.done // self.per_epoch))  # the one that is being trained
        at = {"epoch": f"epoch {epoch}", "step": f"step {self.done}/{self.total}"}
        end = {"eta": self.doing} if self.doing else self._eta(self.done)
        if self.stopping():
            end = {"eta": f"{self.doing or 'stopping'}; Ctrl-C again stops at once"}
        width = columns() - 1  # some terminals wrap a line that is full
        return with_bar(fitting(at | self.train | self.scored | end, width), self.total, self.done, width)

    def _say(self, line: str) -> None:
        self.printed = time.perf_counter()
        if self.live is None:  # the live line says it on a terminal
            say(line)
        log.info("%s", line)


class Parts:
    """Show, on standard error, which of the `total` parts of a command is being computed.

    On a terminal that is a live line below what is printed, gone at the end; elsewhere a line after a silent minute.
    """

    def __init__(self, total: int) -> None:
        self.total, self.begun, self.done = total, 0, 0.0
        self.name, self.detail = "loading", ""
        self.started = self.shown = time.perf_counter()
        self.live: Any = None
        self.width = MAX_COLUMNS

    def __enter__(self) -> Parts:
        if sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            self.width = Console(stderr=True).width - 1  # some terminals wrap a line that is full
            self.live = Live(
                get_renderable=self._live_line,
                console=Console(stderr=True, width=UNBROKEN),
                auto_refresh=False,  # a thread that draws it would take time from what is measured
                transient=True,
                redirect_stdout=on_terminal(),
            )
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.stop()

    def begin(self, name: str) -> None:
        """Note that the next part begins."""
        self.done, self.begun = self.begun, self.begun + 1
        self.name, self.detail = name, ""
        self._show(at_once=True)

    def over(self, items: Iterable[Any], count: int) -> Iterator[Any]:
        """Yield the `count` items of this part, and show the progress."""
        for number, item in enumerate(items, 1):
            yield item
            if self.begun:  # else it is something that comes before all parts
                self.done = self.begun - 1 + number / count
                self._show()

    def note(self, text: str) -> None:
        """Show the progress of a part of unknown length."""
        self.detail = text
        self._show()

    def line(self) -> str:
        """Return how many parts are begun, the time to go, and the name of this one."""
        left = (time.perf_counter() - self.started) / self.done * (self.total - self.done) if self.done else 0
        fields = [f"{self.begun}/{self.total}", f"eta {clock(left)}" if left else "", self.name, self.detail]
        return "  ".join(filter(None, fields))

    def _show(self, at_once: bool = False) -> None:
        now = time.perf_counter()
        if self.live is not None and (at_once or now - self.shown > REFRESH_S):
            self.shown = now
            self.live.refresh()
        elif self.live is None and now - self.shown > SILENCE_S:
            self.shown = now
            say(self.line(), sys.stderr)

    def _live_line(self) -> Any:
        return with_bar(self.line()[: self.width], self.total, self.done, self.width)
