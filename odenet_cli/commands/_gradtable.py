"""The table of `odenet gradcheck`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from typing import Any

from odenet_cli.commands._points import spelled
from odenet_cli.config import Config, gradient_solver
from odenet_cli.presets import preset

HEADS = ("gradient", "backward", "forward")
NUMBERS = {  # of a record: the head of the column, its width
    "batch": ("batch", 8),
    "loss": ("loss", 9),
    "gradient_norm": ("norm", 9),
    "error_steps": ("steps", 9),
    "error_steps_field": ("field", 9),
    "error": ("reference", 11),
    "error_field": ("field", 9),
    "nfe_forward": ("NFE", 5),
    "nfe_backward": ("back", 6),
}


def beginnings(names: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """How the rows begin: first the head's, then one for each of `names`."""
    widths = [max(map(len, column)) for column in zip(HEADS, *names)]
    return ("  ".join(map(str.ljust, row, widths)) for row in (HEADS, *names))


def head() -> str:
    """The heads of the numbers."""
    return "".join(f"{name:>{width}}" for name, width in NUMBERS.values())


def described(config: Config) -> tuple[str, str, str]:
    """The gradient, its own solve where it has one, and the forward solve."""
    gradient, known = config.gradient, preset("gradient", config.gradient.method)
    options = [str(getattr(gradient, key)) for key in ("norm", "coupling") if key in known]
    options += ["parameters controlled"] * gradient.control_parameters
    backward = spelled(gradient_solver(config)) if "solver" in known else "-"
    return " ".join([gradient.method, *options]), backward, spelled(config.solver)


def cells(record: dict[str, Any]) -> str:
    """The numbers of one row."""
    if "failed" in record:
        return f"{record['batch']:>8}  failed: {record['failed']}"
    made = {key: record.get(key, "") for key in NUMBERS}
    shown = {key: f"{value:.1e}" if isinstance(value, float) else str(value) for key, value in made.items()}
    return "".join(f"{shown[key]:>{width}}" for key, (_, width) in NUMBERS.items()).rstrip()


def median(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The row of medians; NaN where one of the errors is, or is missing."""
    found = {key: [record.get(key, math.nan) for record in records] for key in NUMBERS if key.startswith("error")}
    middle = {key: math.nan if any(map(math.isnan, row)) else statistics.median(row) for key, row in found.items()}
    return {"batch": "median", **middle}


def verdict(errors: Sequence[float], passed: int, threshold: float) -> str:
    """The last line, from the median errors against the reference, `passed` of which are at most `threshold`."""
    outcome = "passed" if passed == len(errors) else "failed"
    if len(errors) > 1:
        return (
            f"{outcome}: {passed} of {len(errors)} have a median error of at most {threshold:g} against the reference"
        )
    limit = "at most" if passed else "not at most"
    return f"{outcome}: the median error against the reference is {errors[0]:.1e}, {limit} threshold={threshold:g}"
