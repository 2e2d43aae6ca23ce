"""Show the progress of a reproduction: finished, running, failed and remaining cells, and the remaining time.

On a terminal it is a table, redrawn every second, with a line for each row of the item: the states of its cells, the
time per cell, and the steps of the running ones. Elsewhere a line is printed when a cell ends. Everything is read from
the runs' own files, so cells that another process runs are included.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from odenet_cli.errors import first_line
from odenet_cli.lock import is_locked
from odenet_cli.markdown import counted, mean_count
from odenet_cli.metrics import latest_metrics
from odenet_cli.reproduce.plan import Cell
from odenet_cli.rundir import record_or_reason
from odenet_cli.terminal import duration, percent
from odenet_cli.training.ending import score_text

STATES = ("done", "running", "failed", "left")
REDRAW_S = 1.0


class Board:
    """Follow the cells of a reproduction, `at_once` of them side by side.

    state      folder -> one of STATES
    seconds    folder -> time of training, of cells that are done
    started_s  folder -> when a cell began to run under this process
    """

    def __init__(self, cells: Sequence[Cell], at_once: int) -> None:
        self.cells = {cell.folder: cell for cell in cells}
        self.at_once = at_once
        self.state: dict[Path, str] = dict.fromkeys(self.cells, "left")
        self.seconds: dict[Path, float] = {}
        self.started_s: dict[Path, float] = {}
        self.drawn_s = 0.0
        self.live: Any = None
        for folder in self.cells:
            if (record := record_or_reason(folder)).get("status") == "done":
                self._set_done(folder, record)
        before = self.count("done")
        text = f"{before} already done, {len(self.cells) - before} to run" if before else f"{len(self.cells)} to run"
        print(f"{counted(len(self.cells), 'cell')}: {text}", flush=True)

    def __enter__(self) -> Board:
        if sys.stdout.isatty() and self.count("left"):
            from rich.live import Live

            self.live = Live(self.table(), auto_refresh=False)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.update(self.table(), refresh=True)
            self.live.stop()

    def count(self, state: str) -> int:
        return Counter(self.state.values())[state]

    def update(self, running: set[Path]) -> None:
        """Read what has changed; `running` are the cells that have a process now."""
        now = time.monotonic()
        for folder in running - self.started_s.keys():
            self.started_s[folder], self.state[folder] = now, "running"
        ended = False
        for folder, state in self.state.items():
            if folder in running or state not in ("running", "left"):
                continue
            record = record_or_reason(folder)
            if record.get("status") == "done":
                self._set_done(folder, record, now - self.started_s.get(folder, now))
            elif state == "left":
                continue
            elif is_locked(folder):  # another process took it a moment earlier
                del self.started_s[folder]
                self.state[folder] = "left"
                continue
            else:
                self.state[folder] = "failed"
            ended = True
            if self.live is None:
                line = f"[{self.count('done')}/{len(self.cells)}] {self._describe_end(folder, record)}"
                print(line + self._describe_rest(), flush=True)
        if self.live is not None and (ended or now - self.drawn_s > REDRAW_S):
            self.drawn_s = now
            self.live.update(self.table(), refresh=True)

    def remaining_s(self) -> float | None:
        """Return the seconds to go, or None where no cell is done.

        A cell is expected to take the mean of the cells of its row, else of its part, else of all.
        """
        if not self.seconds:
            return None
        rest, now = [], time.monotonic()
        for folder, state in self.state.items():
            if state in ("running", "left"):
                spent = now - self.started_s[folder] if state == "running" else 0.0
                rest.append(max(0.0, self._expected_s(self.cells[folder]) - spent))
        return max(sum(rest) / self.at_once, max(rest, default=0.0))  # the last cell has none beside it

    def _expected_s(self, cell: Cell) -> float:
        known = [(self.cells[folder], seconds) for folder, seconds in self.seconds.items()]
        of_part = [(other.row, seconds) for other, seconds in known if other.part == cell.part]
        of_row = [seconds for row, seconds in of_part if row == cell.row]
        return statistics.fmean(of_row or [seconds for _, seconds in of_part or known])

    def _set_done(self, folder: Path, record: dict[str, Any], seconds: float = 0.0) -> None:
        self.state[folder] = "done"
        trained = (record.get("final") or {}).get("time_s") or 0.0  # over all starts of a run that was stopped
        self.seconds[folder] = max(trained, seconds)

    def _describe_end(self, folder: Path, record: dict[str, Any]) -> str:
        title = self.cells[folder].title
        if self.state[folder] == "failed":
            return f"{title}: failed" + (f", {first_line(record['reason'])}" if record.get("reason") else "")
        final = record["final"]
        nfe = (
            f", NFE {mean_count(final['nfe_forward'])}/{mean_count(final['nfe_backward'])}"
            if final["nfe_forward"]
            else ""
        )
        return f"{title}: {score_text(final)}{nfe}, {duration(self.seconds[folder])}"

    def _describe_rest(self) -> str:
        left, seconds = self.count("left") + self.count("running"), self.remaining_s()
        return f"   {left} left, about {duration(seconds)}" if left and seconds is not None else ""

    def table(self) -> Any:
        """Return the table for a terminal: a line for each row of the item, and the sums."""
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for head in ("", *STATES, "a cell", "now"):
            table.add_column(head, justify="left" if head in ("", "now") else "right")
        for key in dict.fromkeys((cell.part, cell.row) for cell in self.cells.values()):
            folders = [folder for folder, cell in self.cells.items() if (cell.part, cell.row) == key]
            counts = Counter(self.state[folder] for folder in folders)
            seconds = [self.seconds[folder] for folder in folders if folder in self.seconds]
            now = "\n".join(self._describe_step(folder) for folder in folders if self.state[folder] == "running")
            cells = [str(counts[state] or "") for state in STATES]
            table.add_row(": ".join(key), *cells, duration(statistics.fmean(seconds)) if seconds else "", now)
        remaining = self.remaining_s()
        sums = [str(self.count(state) or "") for state in STATES]
        to_go = f"about {duration(remaining)} to go" if remaining else ""
        table.add_row(f"all {len(self.cells)}", *sums, "", to_go, style="bold")
        return table

    def _describe_step(self, folder: Path) -> str:
        """Return where a running cell is, from the last line of its log."""
        title = self.cells[folder].title.partition(", ")[2]
        last = latest_metrics(folder)
        if last is None:
            return f"{title}: starting"
        error = f", error {percent(last['error'])}" if "error" in last else ""
        return f"{title}: step {last['step']}{error}"
