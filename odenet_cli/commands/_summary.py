"""The end of a sweep: `summary.json`, `summary.md`, and the same table on the terminal. Read from the jobs' files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from odenet_cli.report.scores import Score, among, judged
from odenet_cli.report.table import aligned
from odenet_cli.request.folders import run_record
from odenet_cli.training.folder import replace
from odenet_cli.training.progress import say

COSTS = (
    Score("NFE forward", "nfe_forward", 1),
    Score("NFE backward", "nfe_backward", 1),
    Score("saved MiB", "saved_mib", 1),
    Score("time s", "time_s", 1),
)


def summarise(folder: Path, jobs: list[tuple[list[str], Path]], swept: list[str]) -> int:
    """Write and print what became of the `jobs` (overrides, folder); returns how many are not done."""
    records = [_outcome(overrides, where, folder) for overrides, where in jobs]
    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / "summary.json", json.dumps({"jobs": records}, indent=2) + "\n")
    table = markdown(records, swept)
    replace(folder / "summary.md", table + "\n")

    failed = [record for record in records if record["status"] != "done"]
    say(f"\n{table}\n")
    for record in failed:
        reason = str(record["reason"] or "").partition("\n")[0]
        say(f"{record['folder']}: {record['status']}: {reason}")
    say(f"{len(records) - len(failed)} of {len(records)} done; {folder / 'summary.json'}")
    return len(failed)


def _outcome(overrides: list[str], where: Path, folder: Path) -> dict[str, Any]:
    record = run_record(where)
    status = record.get("status", "not started")
    reason = record.get("reason")
    if status == "running":
        status, reason = "failed", "it stopped without a word: killed, or out of memory"
    return {
        "overrides": overrides,
        "status": status,
        "reason": reason,
        "final": record.get("final") or {},
        "folder": str(where.relative_to(folder)),
    }


def markdown(records: list[dict[str, Any]], swept: list[str]) -> str:
    """The swept keys beside what any of the runs is judged by, and the costs that any of them has."""
    finals = [record["final"] for record in records]
    shown = [*among(finals), *(cost for cost in COSTS if any(cost.name in final for final in finals))]
    head = ["job", *(key.lstrip("+") for key in swept), *(column.title for column in shown), "status"]
    rows = []
    for number, record in enumerate(records):
        said = dict(override.partition("=")[::2] for override in record["overrides"])
        final = record["final"]
        mine = [column for column in (*judged(final), *COSTS) if isinstance(final.get(column.name), (int, float))]
        cells = [column.text(final[column.name]) if column in mine else "" for column in shown]
        rows.append([str(number), *(said.get(key, "") for key in swept), *cells, record["status"]])
    return aligned(head, rows, left=1 + len(swept))
