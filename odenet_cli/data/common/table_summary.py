"""Summarise a table in a few lines for the user."""

from __future__ import annotations

import torch

from odenet_cli.data.common.table_cells import brief
from odenet_cli.data.common.table_dates import length, moment
from odenet_cli.data.common.table_series import Table
from odenet_cli.data.common.units import median, moments

MAX_COLUMNS = 12  # of values that are described one by one
FILLED_BY = {"linear": "linearly", "hermite": "linearly", "step": "with the last before"}


def summary(table: Table, columns: list[str], left_out: list[str], kind: str) -> list[str]:
    """Describe series, times, gaps, mean ± sd, unit and missing cells of each column, and omitted columns.

    kind  of interpolation between the rows of controls
    """
    numbers, counts = table.numbers, table.numbers.counts
    low, high = int(counts.min()), int(counts.max())
    points = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    name = f" ({table.header[0]})" if table.header[0] in table.cells.names else ""
    lines = [f"{len(counts):,} series{name} of {points} points, {len(numbers.times):,} in all"]
    gaps = numbers.times.diff()[(numbers.places > 0)[1:]]
    first, last = (moment(float(t), table.dates, table.zone) for t in (numbers.times.min(), numbers.times.max()))
    usual, longest = (length(gap, table.dates) for gap in (median(gaps), float(gaps.max())))
    lines.append(f"{table.header[1]}: {first} to {last}, gaps {usual} (median), {longest} (longest)")
    for name in columns[:MAX_COLUMNS]:
        x = numbers.values[:, [table.columns.index(name)]]
        mean, sd = (float(part[0]) for part in moments(x)) if not x.isnan().all() else (float("nan"),) * 2
        absent = int(torch.isnan(x).sum())
        missing = f", {absent:,} cell{'s' * (absent > 1)} missing ({100 * absent / len(x):.2g} %)" if absent else ""
        lines.append(f"{table.cells.describe(name, mean, sd)}{missing}")
    if len(columns) > MAX_COLUMNS:
        lines.append(f"and {len(columns) - MAX_COLUMNS} more columns")
    lines += _controls(table, kind) if table.controls else []
    constant = [name for name in left_out if name not in table.left_out]
    for names, why in ((table.left_out, "not numeric"), (constant, "constant")):
        if names:
            lines.append(f"ignored, {why}: {brief(', '.join(names))}")
    return [*lines, *table.cells.notes, *table.notes]


def _controls(table: Table, kind: str) -> list[str]:
    """Describe mean ± sd, unit and filled cells of each control, and its last time."""
    controls = table.controls
    assert controls is not None
    mean, sd = moments(controls.numbers.values)
    lines = list[str]()
    for n, name in enumerate(controls.columns[:MAX_COLUMNS]):
        text = table.cells.describe(name, float(mean[n]), float(sd[n]))
        if n >= len(controls.columns) - controls.static:
            lines.append(f"{text}, static")
            continue
        filled = f", {controls.filled[n]:,} missing cells filled ({FILLED_BY[kind]})" if controls.filled[n] else ""
        known_to = moment(float(controls.ends[:, n].max()), table.dates, table.zone)
        lines.append(f"{text}, control ({kind}){filled}, to {known_to}")
    if len(controls.columns) > MAX_COLUMNS:
        lines.append(f"and {len(controls.columns) - MAX_COLUMNS} more controls")
    return lines
