"""The table of a comparison, for programs: CSV and JSON, nothing rounded."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from odenet_cli.files import write_output
from odenet_cli.report.groups import Comparison
from odenet_cli.report.provenance import Source, data, distinct
from odenet_cli.report.scores import NAMES
from odenet_cli.report.table import markdown, status
from odenet_cli.report.text import word

COUNTS = ("parameters", "nfe_forward", "nfe_backward", "nfe_test")
MEASURES = (*NAMES, "loss", *COUNTS, "saved_mib", "peak_mib", "epoch_s")
SPREAD = ("mean", "sd", "low", "high")
UNITS = {
    **{"error": "fraction of the test samples", "rate_error": "fraction of the integral of the rate"},
    **{"kl": "nat", "nll": "nat", "gap": "nat; of events, nat an event"},
    **{"epoch_s": "seconds of training per epoch, median of a run's epochs"},
}
TAKEN = ("name", "command", "git", "device", "versions", "data", "started", "finished", "final")  # of a run's record


def records(comparison: Comparison) -> list[dict[str, Any]]:
    """The groups as plain values, nothing rounded."""
    found = []
    for group in comparison.groups:
        spreads = {name: spread._asdict() for name in MEASURES if (spread := group.spread(name))}
        seeds = sorted({run.seed for run in group.done})
        base = {"runs": len(group.done), "seeds": seeds, "status": status(group), "measures": spreads}
        found.append({"values": group.values, **base, "folders": [str(run.folder) for run in group.runs]})
    return found


def as_json(comparison: Comparison, made: Source) -> str:
    """Everything: the groups, the runs one by one, what they share, and where they come from."""
    runs = [
        {
            **{"folder": str(run.folder), "status": run.status, "reason": run.reason, "seed": run.config.get("seed")},
            **{name: run.record.get(name) for name in TAKEN},
            **{name: run.value(name) for name in ("parameters", "epoch_s")},
        }
        for run in comparison.runs
    ]
    whole: dict[str, Any] = {"source": asdict(made), "units": UNITS, "keys": comparison.keys, "mixed": comparison.mixed}
    whole |= {"common": comparison.common, "groups": records(comparison), "runs": runs}
    return json.dumps(whole, indent=1, ensure_ascii=False)


def as_csv(comparison: Comparison, made: Source) -> str:
    """One row a group: its keys, the spread of every measure, and where the numbers come from."""
    measures = [name for name in MEASURES if comparison.has(name)]
    rows = []
    for group, record in zip(comparison.groups, records(comparison)):
        row = {key: _cell(value) for key, value in group.values.items()}
        row |= {"runs": record["runs"], "seeds": " ".join(map(str, record["seeds"])), "status": record["status"]}
        row |= {f"{name}_{part}": record["measures"].get(name, {}).get(part) for name in measures for part in SPREAD}
        row |= {"commit": _each(run.record.get("git") for run in group.runs)}
        row |= {"machine": _each(run.record.get("device") for run in group.runs)}
        rows.append({**row, "data": _each(map(data, group.runs)), "command": made.command})
    return sheet(list(rows[0]) if rows else [], rows)


def sheet(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """CSV with a head."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _cell(value: Any) -> Any:
    return word(value) if isinstance(value, (bool, tuple)) else value


def _each(values: Iterable[Any]) -> str:
    return "; ".join(distinct(values))


def write(folder: Path, comparison: Comparison, made: Source) -> list[Path]:
    """`folder/table.md`, `.csv` and `.json`."""
    texts = {"md": markdown(comparison, made) + "\n", "csv": as_csv(comparison, made)}
    texts["json"] = as_json(comparison, made) + "\n"
    return [write_output(folder / f"table.{kind}", text) for kind, text in texts.items()]
