"""List the runs of this folder, newest first: odenet runs [WORD ...]

Lists the runs in `runs` and `sweeps` with their main test score, function evaluations (forward/backward), status and
age; the status `killed` is that of a run that ended without recording why. Every command takes the name in the first
column as RUN: `odenet eval last`, `odenet report last~1`.

  odenet runs odenet digits    those with all of these words in their name, model, data, status or folder
  odenet runs --paths          only their folders"""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from odenet_cli.commands import _common
from odenet_cli.rundir import recent_runs, record_or_reason, resume_command, started_s
from odenet_cli.scores import scores_of
from odenet_cli.terminal import columns, on_terminal

SHOWN = 20  # unless all are asked for
STATUS, DROPPED_FIRST = 5, (6, 4, 2)  # columns: the status; age, evaluations and data, where a terminal is narrow
PARSER = _common.Parser(__name__, __doc__)
PARSER.add_argument("words", metavar="WORD", nargs="*", default=[], help="show only runs that match all of these")
PARSER.add_argument("--all", action="store_true", help=f"show more than {SHOWN}")
PARSER.add_argument("--paths", action="store_true", help="print only the folders")


@PARSER.command
def main(request: Namespace) -> int:
    runs = [(number, folder, record_or_reason(folder)) for number, folder in enumerate(recent_runs())]
    shown = [run for run in runs if all(word.lower() in _searched(*run[1:]) for word in request.words)]
    if not shown:
        print(
            "no run in runs/ and sweeps/ of this folder matches."
            if runs
            else "there are no runs in runs/ and sweeps/ of this folder yet."
        )
        return 0
    cut = shown if request.all else shown[:SHOWN]
    if request.paths:
        print("\n".join(str(folder) for _, folder, _ in cut))
        return 0
    rows = [_row(number, record) for number, _, record in cut]
    widths = {column: max(len(row[column]) for row in rows) for column in range(len(rows[0]))}
    for column in DROPPED_FIRST:
        if on_terminal() and sum(widths.values()) + 2 * (len(widths) - 1) > columns():
            del widths[column]
    for row in rows:
        print("  ".join(row[column].ljust(width) for column, width in widths.items()).rstrip())
    if stopped := [row for row in rows if row[STATUS] in ("killed", "interrupted")]:
        kinds = " or ".join(dict.fromkeys(row[STATUS] for row in stopped))
        print(f"To continue a run that was {kinds}: {resume_command(stopped[0][0])}")
    if len(shown) > len(cut):
        print(f"{len(shown) - len(cut)} more: --all")
    return 0


def _searched(folder: Path, record: Mapping[str, Any]) -> str:
    """Return the text in which the words are searched."""
    data = record.get("data") or {}
    parts = (record.get("name"), data.get("used"), record.get("status"), folder, *(record.get("overrides") or []))
    return " ".join(map(str, parts)).lower()


def _row(number: int, record: Mapping[str, Any]) -> list[str]:
    """Return RUN, name, data, main score, function evaluations, status and age."""
    final, data = record.get("final") or {}, record.get("data") or {}
    scores = [f"{score.title} {score.text(final[score.name])}" for score in scores_of(final)[:1]]
    evaluations = [f"{final[key]:.0f}" for key in ("nfe_forward", "nfe_backward") if final.get("nfe_forward")]
    return [
        "last" if number == 0 else f"last~{number}",
        str(record.get("name") or "?"),
        str(data.get("used") or "?"),
        *(scores or ["-"]),
        "/".join(evaluations) or "-",
        str(record.get("status") or "?"),
        _age(started_s(record)),
    ]


def _age(started: float | None) -> str:
    """Return how long ago a run was started, in its largest unit."""
    if started is None:
        return "?"
    seconds = time.time() - started
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
