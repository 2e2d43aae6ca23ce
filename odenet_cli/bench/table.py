"""Tables: Markdown for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from odenet_cli.bench.measure import Row

NONE = "–"


@dataclass(kw_only=True)
class Table:
    """Cells as text, and the numbers behind them.

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
    """Times and their ratios to the first row that has one; with `floor`, the least the row's work takes, in ms."""
    base = next((row for row in rows if row.ms), None)
    columns = ["subject", "median ms", "ratio", "NFE forward", "NFE backward", "error"]
    columns += ["floor ms", "time / floor"] if floor else []
    cells, records = [], []
    for row in rows:
        ratio = base.ms / row.ms if base and base.ms and row.ms else None
        least = floor(row) if floor else None
        over = row.ms / least if row.ms and least else None
        forward, backward = (row.cost.nfe_forward, row.cost.nfe_backward) if row.cost else (None, None)
        numbers = [number(row.ms), number(ratio), number(forward), number(backward), small(row.error)]
        numbers += [number(least), number(over)] if floor else []
        cells.append([row.subject, *([f"failed: {row.failed}"] if row.failed else numbers)])
        error = row.error if row.error is not None and math.isfinite(row.error) else None  # JSON has no NaN
        found = {"ms": row.ms, "ratio": ratio, "error": error, "floor_ms": least}
        records.append({**dataclasses.asdict(row), **found})
    first = [f"Ratio: the time of {base.subject} over the row's, so that more is faster."] if base else []
    unsteady = ", ".join(row.subject for row in rows if row.unsteady)
    last = [f"Unsteady, as on a busy machine: {unsteady}."] if unsteady else []
    return Table(title=title, columns=columns, cells=cells, records=records, notes=[*first, *notes, *last])


def number(value: float | None) -> str:
    """Three digits; all of them in front of the point."""
    if value is None:
        return NONE
    if isinstance(value, int):
        return str(value)
    digits = next((digits for bound, digits in ((100, 0), (10, 1), (1, 2)) if abs(value) >= bound), 3)
    return f"{value:.{digits}f}"


def small(value: float | None) -> str:
    """An error."""
    return NONE if value is None else f"{value:.1e}"


def power(value: float) -> str:
    """A tolerance: 1e-5."""
    return f"{value:.0e}".replace("e-0", "e-")


def markdown(table: Table) -> str:
    """A heading, the table with aligned columns, the notes."""
    width = len(table.columns)
    lines = [table.columns, *([*row, *[""] * (width - len(row))] for row in table.cells)]
    # What spills out of its column, a failure, does not widen it for all.
    wide = [max(len(line[i]) for line in lines if i == 0 or not line[i].startswith("failed")) for i in range(width)]

    def text(line: Sequence[str]) -> str:
        return "| " + " | ".join([line[0].ljust(wide[0]), *(c.rjust(w) for c, w in zip(line[1:], wide[1:]))]) + " |"

    rule = "|" + "|".join(["-" * (wide[0] + 2), *("-" * (w + 1) + ":" for w in wide[1:])]) + "|"
    body = [text(lines[0]), rule, *map(text, lines[1:])]
    return "\n".join([f"### {table.title}", "", *body, *(["", *table.notes] if table.notes else [])])


def files(name: str, heading: str, facts: Mapping[str, str], tables: Sequence[Table]) -> dict[str, str]:
    """`name.md` and `name.json`, and the text of each."""
    content = {"workload": heading, "made": dict(facts), "tables": [dataclasses.asdict(table) for table in tables]}
    numbers = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return {f"{name}.md": page(heading, facts, tables), f"{name}.json": numbers}


def page(heading: str, facts: Mapping[str, str], tables: Sequence[Table]) -> str:
    """The file for people."""
    return "\n\n".join([f"# {heading}", opening(facts), *map(markdown, tables)]) + "\n"


def opening(facts: Mapping[str, str]) -> str:
    """Where and how it was measured."""
    return "\n".join(f"- {key}: {value}" for key, value in facts.items())
