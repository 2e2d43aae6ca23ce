"""The estimates of a least-squares fit, as one reads them at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping
from textwrap import wrap
from typing import Any

from odenet_cli.training.progress import INDENT, MAX_COLUMNS, labelled

SHOWN = 30  # estimates


def estimate_lines(final: Mapping[str, Any]) -> list[str]:
    """Return the estimates of a fit as a table, with its warnings; nothing for other runs."""
    estimates = final.get("estimates") or {}
    if not estimates:
        return []
    width = max(map(len, estimates)) + 2
    lines = [f"{'':<{width}}{'estimate':>12}{'error':>12}    95 % interval"]
    for name, row in [*estimates.items()][:SHOWN]:
        known = row["error"] is not None
        error, span = (
            (f"{row['error']:.4g}", f"[{row['low']:.5g}, {row['high']:.5g}]") if known else ("-", "undetermined")
        )
        lines.append(f"{name:<{width}}{row['value']:>12.6g}{error:>12}    {span}")
    if len(estimates) > SHOWN:
        lines.append(f"and {len(estimates) - SHOWN} more in run.json")
    sigma = ", ".join(f"{name} {value:.4g}" for name, value in final["sigma"].items())
    lines += labelled("sigma", f"{sigma}; {final['degrees_of_freedom']:,} degrees of freedom", MAX_COLUMNS)
    indent = " " * INDENT
    warnings = [
        wrap(text, MAX_COLUMNS, initial_indent="warning:  ", subsequent_indent=indent) for text in final["warnings"]
    ]
    return lines + [line for words in warnings for line in words]
