"""The end of a sweep: `summary.json`, `summary.md`, and the same table on the terminal. Read from the jobs' files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from odenet_cli.errors import first_line
from odenet_cli.files import write, write_json
from odenet_cli.markdown import fitting_columns, markdown_table
from odenet_cli.request.overrides import differing_keys
from odenet_cli.rundir import record_or_reason, runs_below
from odenet_cli.scores import Score, scores_among, scores_of
from odenet_cli.terminal import columns, on_terminal, say, say_text

COSTS = (
    Score("NFE forward", "nfe_forward", 1),
    Score("NFE backward", "nfe_backward", 1),
    Score("saved MiB", "saved_mib", 1),
    Score("time s", "time_s", 1),
)


def summarise(folder: Path, jobs: list[tuple[list[str], Path]], failed: Mapping[Path, str] | None = None) -> int:
    """Write and print what became of the `jobs` (overrides, folder) and of those that the sweep had before; return how
    many of the `jobs` are not done. Those that `failed`, and why, are not, whatever run their folders hold."""
    own = [run for _, run in jobs]
    earlier = [(record_or_reason(run).get("overrides") or [], run) for run in runs_below(folder) if run not in own]
    records = [_outcome(overrides, run, folder, failed or {}) for overrides, run in (*earlier, *jobs)]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "summary.json", {"jobs": records})
    swept = differing_keys(record["overrides"] for record in records)
    write(folder / "summary.md", markdown(records, swept) + "\n")

    undone = [record for record in records if record["status"] != "done"]
    say(f"\n{markdown(records, swept, columns() if on_terminal() else None)}\n")
    for record in undone:
        say_text(": ".join(filter(None, (record["folder"], record["status"], first_line(record["reason"] or "")))))
    say(f"{len(records) - len(undone)} of {len(records)} done; {folder / 'summary.json'}")
    return sum(record["status"] != "done" for record in records[len(earlier) :])


def _outcome(overrides: list[str], run: Path, folder: Path, failed: Mapping[Path, str]) -> dict[str, Any]:
    record = record_or_reason(run)
    if run in failed and record.get("status") == "done":
        record = {"status": "failed", "reason": failed[run]}
    return {
        "overrides": overrides,
        "status": record.get("status", "not started"),
        "reason": record.get("reason"),
        "final": record.get("final") or {},
        "folder": str(run.relative_to(folder)),
    }


def markdown(records: list[dict[str, Any]], swept: list[str], width: int | None = None) -> str:
    """Return a table of the jobs, by the numbers that their folders begin with: the swept keys, the scores that any of
    the runs has, and its costs.

    Of a terminal `width` columns wide the number, the main score, the status and the swept keys come first.
    """
    finals = [record["final"] for record in records]
    shown = [*scores_among(finals), *(cost for cost in COSTS if any(cost.name in final for final in finals))]
    head = ["job", *(key.lstrip("+") for key in swept), *(column.title for column in shown), "status"]
    rows = []
    for record in records:
        values = dict(override.partition("=")[::2] for override in record["overrides"])
        final, job = record["final"], record["folder"].partition("-")[0]
        own = [column for column in (*scores_of(final), *COSTS) if isinstance(final.get(column.name), (int, float))]
        cells = [column.text(final[column.name]) if column in own else "" for column in shown]
        rows.append([job, *(values.get(key, "") for key in swept), *cells, record["status"]])
    main, status = 1 + len(swept), len(head) - 1
    fit = fitting_columns(head, rows, width, first=(0, main, status, *range(1, main)))
    left = sum(place <= len(swept) for place in fit)
    return markdown_table([head[place] for place in fit], [[row[place] for place in fit] for row in rows], left)
