"""Write tables as Markdown for people and as JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from odenet_cli.bench.measure import Row
from odenet_cli.markdown import MISSING, markdown_table, three_digits


@dataclass(kw_only=True)
class Table:
    """Hold cells as text, and the numbers behind them.

    notes  lines under the table
    """

    title: str
    columns: list[str]
    cells: list[list[str]]
    records: list[dict[str, Any]]
    notes: list[str] = field(default_factory=list)


def speed_table(
    title: str, rows: Sequence[Row], notes: Sequence[str] = (), floor: Callable[[Row], float | None] | None = None
) -> Table:
    """Return times and their ratios to the first row with a time; with `floor`, also a lower bound in ms."""
    base = next((row for row in rows if row.ms), None)
    columns = ["subject", "median ms", "ratio", "NFE forward", "NFE backward", "error"]
    columns += ["floor ms", "time / floor"] if floor else []
    cells, records = [], []
    for row in rows:
        ratio = base.ms / row.ms if base and base.ms and row.ms else None
        floor_ms = floor(row) if floor else None
        over = row.ms / floor_ms if row.ms and floor_ms else None
        forward, backward = (row.cost.nfe_forward, row.cost.nfe_backward) if row.cost else (None, None)
        numbers = [number(row.ms), number(ratio), number(forward), number(backward), small(row.error)]
        numbers += [number(floor_ms), number(over)] if floor else []
        cells.append([row.subject, *(["failed"] if row.failed else numbers)])
        error = row.error if row.error is not None and math.isfinite(row.error) else None  # JSON has no NaN
        derived = {"ms": row.ms, "ratio": ratio, "error": error, "floor_ms": floor_ms}
        records.append({**dataclasses.asdict(row), **derived})
    first = [f"Ratio: the time of {base.subject} over the row's, so that more is faster."] if base else []
    failed = [f"Failed: {row.subject}: {row.failed}" for row in rows if row.failed]
    unsteady = ", ".join(row.subject for row in rows if row.unsteady)
    last = [f"Unsteady, as on a busy machine: {unsteady}."] if unsteady else []
    return Table(title=title, columns=columns, cells=cells, records=records, notes=[*first, *notes, *failed, *last])


def number(value: float | None) -> str:
    """Format a count, or a measured number with three digits."""
    return str(value) if isinstance(value, int) else three_digits(value)


def small(value: float | None) -> str:
    """Format an error: 1.2e-05."""
    return MISSING if value is None else f"{value:.1e}"


def power(value: float) -> str:
    """Format a tolerance: 1e-5."""
    return f"{value:.0e}".replace("e-0", "e-")


def markdown(table: Table) -> str:
    """Return a heading, the table with aligned columns, and the notes."""
    count = len(table.columns)
    rows = [[*row, *[""] * (count - len(row))] for row in table.cells]
    notes = ["", *table.notes] if table.notes else []
    return "\n".join([f"### {table.title}", "", markdown_table(table.columns, rows, left=1), *notes])


def files(name: str, heading: str, facts: Mapping[str, str], tables: Sequence[Table]) -> dict[str, str]:
    """Return the file names `name.md` and `name.json` with the text of each."""
    content = {"workload": heading, "made": dict(facts), "tables": [dataclasses.asdict(table) for table in tables]}
    page = "\n\n".join([f"# {heading}", opening(facts), *map(markdown, tables)])
    return {f"{name}.md": page + "\n", f"{name}.json": json.dumps(content, indent=1, ensure_ascii=False) + "\n"}


def opening(facts: Mapping[str, str]) -> str:
    return "\n".join(f"- {key}: {value}" for key, value in facts.items())
