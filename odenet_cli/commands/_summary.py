"""The end of a sweep: `summary.json`, `summary.md`, and the same table on the terminal. Read from the jobs' files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from odenet_cli.request.folders import run_record
from odenet_cli.training.progress import say

COLUMNS: dict[str, tuple[str, Callable[[float], str]]] = {
    "error": ("error %", lambda value: f"{100 * value:.2f}"),
    "nfe_forward": ("NFE forward", lambda value: f"{value:.1f}"),
    "nfe_backward": ("NFE backward", lambda value: f"{value:.1f}"),
    "saved_mib": ("saved MiB", lambda value: f"{value:.1f}"),
    "time_s": ("time s", lambda value: f"{value:.1f}"),
}


def summarise(folder: Path, jobs: list[tuple[list[str], Path]], swept: list[str]) -> int:
    """Write and print what became of the `jobs` (overrides, folder); returns how many are not done."""
    records = [_outcome(overrides, where, folder) for overrides, where in jobs]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_text(json.dumps({"jobs": records}, indent=2) + "\n", encoding="utf-8")
    table = markdown(records, swept)
    (folder / "summary.md").write_text(table + "\n", encoding="utf-8")

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
    """The swept keys beside the final metrics that any of the runs has."""
    shown = {key: column for key, column in COLUMNS.items() if any(key in record["final"] for record in records)}
    head = ["job", *(key.lstrip("+") for key in swept), *(title for title, _ in shown.values()), "status"]
    rows = [head, ["---"] * len(head)]
    for number, record in enumerate(records):
        said = dict(override.partition("=")[::2] for override in record["overrides"])
        final = record["final"]
        cells = [
            form(final[key]) if isinstance(final.get(key), (int, float)) else "" for key, (_, form) in shown.items()
        ]
        rows.append([str(number), *(said.get(key, "") for key in swept), *cells, record["status"]])
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    return "\n".join("| " + " | ".join(_pad(cell, width) for cell, width in zip(row, widths)) + " |" for row in rows)


def _pad(cell: str, width: int) -> str:
    return "-" * width if cell == "---" else cell.ljust(width)
