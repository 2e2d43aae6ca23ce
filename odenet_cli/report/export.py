"""Write a comparison to files: the table as Markdown, and as CSV and JSON without rounding, and its figures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from odenet_cli.files import write_output
from odenet_cli.report.compare import Comparison
from odenet_cli.report.provenance import Provenance, data_of, distinct
from odenet_cli.report.table import comparison_text, epoch_s, status
from odenet_cli.report.text import config_value
from odenet_cli.scores import SCORE_NAMES

COUNTS = ("parameters", "nfe_forward", "nfe_backward", "nfe_test")
MEASURES = (*SCORE_NAMES, "loss", *COUNTS, "gradient_error", "saved_mib", "peak_mib", "epoch_s")
SPREAD = ("mean", "sd", "low", "high")
UNITS = {
    **{"error": "fraction of the test samples", "rate_error": "fraction of the integral of the rate"},
    **{"kl": "nat", "nll": "nat", "gap": "nat; of events, nat an event"},
    **{"rmse": "of a regression, the data's own units"},
    **{"epoch_s": "seconds of training per epoch, median of a run's epochs"},
}
RECORD_KEYS = ("name", "command", "git", "device", "versions", "data", "started", "finished", "final")


def group_records(comparison: Comparison) -> list[dict[str, Any]]:
    records = []
    for group in comparison.groups:
        every = {name: group.spread(name) for name in MEASURES} | {"epoch_s": epoch_s(group)}
        spreads = {name: spread._asdict() for name, spread in every.items() if spread}
        seeds = sorted({run.seed for run in group.done})
        base = {"runs": len(group.done), "seeds": seeds, "status": status(group), "measures": spreads}
        records.append({"values": group.values, **base, "folders": [str(run.folder) for run in group.runs]})
    return records


def as_json(comparison: Comparison, provenance: Provenance) -> str:
    """Return the groups, the runs one by one, what they share, and where they come from."""
    runs = [
        {
            **{"folder": str(run.folder), "status": run.status, "reason": run.reason, "seed": run.config.get("seed")},
            **{name: run.record.get(name) for name in RECORD_KEYS},
            **{name: run.value(name) for name in ("parameters", "epoch_s")},
        }
        for run in comparison.runs
    ]
    content: dict[str, Any] = {"source": asdict(provenance), "units": UNITS, "keys": comparison.keys}
    content |= {
        "mixed": comparison.mixed,
        "common": comparison.common,
        "partial": comparison.partial,
        "groups": group_records(comparison),
    }
    return json.dumps({**content, "runs": runs}, indent=1, ensure_ascii=False)


def as_csv(comparison: Comparison, provenance: Provenance) -> str:
    """Return one row a group: its keys, the spread of every measure, and where the numbers come from."""
    measures = [name for name in MEASURES if comparison.has(name)]
    rows = []
    for group, record in zip(comparison.groups, group_records(comparison)):
        row = {key: config_value(v) if isinstance(v, (bool, tuple)) else v for key, v in group.values.items()}
        row |= {"runs": record["runs"], "seeds": " ".join(map(str, record["seeds"])), "status": record["status"]}
        row |= {f"{name}_{part}": record["measures"].get(name, {}).get(part) for name in measures for part in SPREAD}
        origins = [(run.record.get("git"), run.record.get("device"), data_of(run)) for run in group.runs]
        row |= {name: "; ".join(distinct(each)) for name, each in zip(("commit", "machine", "data"), zip(*origins))}
        rows.append({**row, "command": provenance.command})
    return csv_text(list(rows[0]) if rows else [], rows)


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def write_table(folder: Path, comparison: Comparison, provenance: Provenance) -> list[Path]:
    texts = {"md": comparison_text(comparison, provenance) + "\n", "csv": as_csv(comparison, provenance)}
    texts["json"] = as_json(comparison, provenance) + "\n"
    return [write_output(folder / f"table.{kind}", text) for kind, text in texts.items()]


def write_figures(folder: Path, comparison: Comparison, provenance: Provenance, axes: Sequence[str]) -> list[Path]:
    """Write `training`, and for every key in `axes` `against-<key>` and `nfe-<key>`, as SVG and PNG."""
    from odenet_cli.report import curves, style, sweep

    figures = {"training": curves.training(comparison)}
    for key in axes:
        figures[f"against-{key}"] = sweep.sweep(comparison, key)
        figures[f"nfe-{key}"] = sweep.tradeoff(comparison, key)
    files = []
    for name, figure in figures.items():
        if figure is not None:
            files += style.save(figure, folder / name, provenance.text())
    return files
