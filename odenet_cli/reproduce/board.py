"""How far a reproduction is: cells done, running and left, and the time to go; read from the runs' own files."""

from __future__ import annotations

import statistics
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from odenet_cli.reproduce.plan import Cell
from odenet_cli.rundir import is_locked, latest_metrics, record_or_reason
from odenet_cli.training.progress import duration, number, percent, score_text

STATES = ("done", "running", "failed", "left")
EVERY_S = 1.0


class Board:
    """The cells of a reproduction, `at_once` of them side by side. A live table on a terminal, plain lines elsewhere.

    state  folder -> one of STATES
    took   folder -> seconds, of cells that are done
    """

    def __init__(self, cells: Sequence[Cell], at_once: int) -> None:
        self.cells = {cell.folder: cell for cell in cells}
        self.at_once = at_once
        self.state: dict[Path, str] = dict.fromkeys(self.cells, "left")
        self.took: dict[Path, float] = {}
        self.began: dict[Path, float] = {}
        self.looked = 0.0
        self.live: Any = None
        for folder in self.cells:
            if self._is_done(folder):
                self._done(folder, record_or_reason(folder))
        before = self.count("done")
        said = f"{before} done before, {len(self.cells) - before} to run" if before else f"{len(self.cells)} to run"
        print(f"{len(self.cells)} cell{'s' * (len(self.cells) != 1)}: {said}", flush=True)

    def __enter__(self) -> Board:
        if sys.stdout.isatty() and self.count("left"):
            from rich.live import Live

            self.live = Live(self._table(), auto_refresh=False)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live is not None:
            self.live.update(self._table(), refresh=True)
            self.live.stop()

    def count(self, state: str) -> int:
        return sum(one == state for one in self.state.values())

    def look(self, running: set[Path]) -> None:
        """Note what has changed; `running` are the cells that have a process now."""
        now = time.monotonic()
        for folder in running - self.began.keys():
            self.began[folder], self.state[folder] = now, "running"
        ended = [folder for folder in self.began if self.state[folder] == "running" and folder not in running]
        ended += [folder for folder in self.state if self.state[folder] == "left" and self._is_done(folder)]
        for folder in ended:
            record = record_or_reason(folder)
            if record.get("status") == "done":
                self._done(folder, record, now - self.began[folder] if folder in self.began else None)
            elif is_locked(folder):  # by another process, which was a moment earlier
                del self.began[folder]
                self.state[folder] = "left"
                continue
            else:
                self.state[folder] = "failed"
            if self.live is None:
                print(
                    f"[{self.count('done')}/{len(self.cells)}] {self._ended(folder, record)}{self._rest()}", flush=True
                )
        if self.live is not None and (ended or now - self.looked > EVERY_S):
            self.looked = now
            self.live.update(self._table(), refresh=True)

    def to_go_s(self) -> float | None:
        """Seconds to go: a cell takes what others of its row took, or of its part, or all; None where none is done."""
        if not self.took:
            return None
        known: dict[tuple[str, ...], list[float]] = {}
        for folder, took in self.took.items():
            for kin in self._kin(folder):
                known.setdefault(kin, []).append(took)
        rest, now = [], time.monotonic()
        for folder, state in self.state.items():
            if state in ("running", "left"):
                expected = next(statistics.fmean(known[kin]) for kin in self._kin(folder) if kin in known)
                spent = now - self.began[folder] if state == "running" else 0.0
                rest.append(max(0.0, expected - spent))
        return max(sum(rest) / self.at_once, max(rest, default=0.0))  # the last one has nobody beside it

    def _kin(self, folder: Path) -> tuple[tuple[str, ...], ...]:
        """Who a cell is like, the nearest first."""
        cell = self.cells[folder]
        return (cell.part, cell.row), (cell.part,), ()

    @staticmethod
    def _is_done(folder: Path) -> bool:
        return record_or_reason(folder).get("status") == "done"

    def _done(self, folder: Path, record: dict[str, Any], took: float | None = None) -> None:
        self.state[folder] = "done"
        trained = (record.get("final") or {}).get("time_s") or 0.0  # over all its starts
        self.took[folder] = max(trained, took or 0.0)

    def _ended(self, folder: Path, record: dict[str, Any]) -> str:
        title = self.cells[folder].title
        if self.state[folder] == "failed":
            return f"{title}: failed" + (f", {record['reason']}".partition("\n")[0] if record.get("reason") else "")
        final = record["final"]
        nfe = f", NFE {number(final['nfe_forward'])}/{number(final['nfe_backward'])}" if final["nfe_forward"] else ""
        return f"{title}: {score_text(final)}{nfe}, {duration(self.took[folder])}"

    def _rest(self) -> str:
        left, seconds = self.count("left") + self.count("running"), self.to_go_s()
        return f"   {left} left, about {duration(seconds)}" if left and seconds is not None else ""

    def _table(self) -> Any:
        from rich.table import Table

        table = Table(box=None, pad_edge=False)
        for head in ("", *STATES, "a cell", "now"):
            table.add_column(head, justify="left" if head in ("", "now") else "right")
        rows = dict.fromkeys((cell.part, cell.row) for cell in self.cells.values())
        for key in rows:
            mine = [folder for folder, cell in self.cells.items() if (cell.part, cell.row) == key]
            counts = Counter(self.state[folder] for folder in mine)
            took = [self.took[folder] for folder in mine if folder in self.took]
            now = "\n".join(self._now(folder) for folder in mine if self.state[folder] == "running")
            cells = [str(counts[state] or "") for state in STATES]
            table.add_row(": ".join(key), *cells, duration(statistics.fmean(took)) if took else "", now)
        seconds = self.to_go_s()
        to_go = f"about {duration(seconds)} to go" if seconds else ""
        sums = [str(self.count(state) or "") for state in STATES]
        table.add_row(f"all {len(self.cells)}", *sums, "", to_go, style="bold")
        return table

    def _now(self, folder: Path) -> str:
        """Where a running cell is, by the last line of its log."""
        title = self.cells[folder].title.partition(", ")[2]
        last = latest_metrics(folder)
        if last is None:
            return f"{title}: starting"
        error = f", error {percent(last['error'])}" if "error" in last else ""
        return f"{title}: step {last['step']}{error}"
