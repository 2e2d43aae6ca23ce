"""The table of `odenet gradcheck`."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from odenet_cli.commands._points import spelled
from odenet_cli.config.presets import preset
from odenet_cli.config.resolve import gradient_solver
from odenet_cli.config.schema import Config

# Gradients that are exact for the steps they take, and how many times the rounding of the loss they may be off: the way
# back of reversible steps magnifies it.
EXACT = {"backprop": 1.0, "replay": 1.0, "reversible": 100.0}
ROUNDING = {"float32": 1e-4, "float64": 1e-8}
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


@dataclass(frozen=True)
class Limits:
    """The largest errors that pass.

    threshold   of the median gradient, against the reference
    rounding    of any gradient that is exact for its steps, against these; None: by the precision
    difference  of autograd on any batch, against finite differences of the loss
    """

    threshold: float
    rounding: float | None
    difference: float


def judged(records: Sequence[dict[str, Any]], limits: Limits) -> tuple[str, bool]:
    """How a gradient fares, in words, and whether that is well; from its records of all batches."""
    if any("failed" in record for record in records):
        error = median(records)["error"]
        return (
            f"the median error against the reference is {error:.1e}, not at most threshold={limits.threshold:g}",
            False,
        )
    for record in records:
        if not record["error_difference"] <= limits.difference:
            return (
                f"autograd is off finite differences of the loss by {record['error_difference']:.1e}, not at most "
                f"difference={limits.difference:g}. Look for a detach, or for a backward of one's own",
                False,
            )
        most = (limits.rounding or ROUNDING[record["precision"]]) * EXACT.get(record["gradient"], math.inf)
        if not record["error_steps"] <= most and record["gradient"] in EXACT:
            return (
                f"the error against its own steps is {record['error_steps']:.1e}, not at most rounding={most:g}. "
                "The field is not the same in the backward pass",
                False,
            )
    against = "its own steps" if "no_reference" in records[0] else "the reference"
    middle = median(records)["error_steps" if "no_reference" in records[0] else "error"]
    passed = middle <= limits.threshold
    limit = "at most" if passed else "not at most"
    return f"the median error against {against} is {middle:.1e}, {limit} threshold={limits.threshold:g}", passed


def notes(records: Sequence[dict[str, Any]], outcome: tuple[str, bool], alone: bool) -> Iterator[str]:
    """What the table does not show of a gradient; why it failed, unless it stands `alone` and the verdict says so."""
    reasons = [record["no_reference"] for record in records if "no_reference" in record]
    if reasons:
        yield f"no reference: {reasons[0]}"
    again = [record["error_float32"] for record in records if "error_float32" in record]
    if again:
        yield f"in float64; in float32 it is {max(again, key=abs):.1e} off its own steps"
    words, well = outcome
    if not (alone or well or "the reference" in words):
        yield f"failed: {words}"


def verdict(outcomes: Sequence[tuple[str, bool]], threshold: float) -> str:
    """The last line, from how the gradients fared."""
    passed = sum(well for _, well in outcomes)
    outcome = "passed" if passed == len(outcomes) else "failed"
    if len(outcomes) == 1:
        return f"{outcome}: {outcomes[0][0]}"
    if any(not well and "the reference" not in words for words, well in outcomes):
        return f"{outcome}: {passed} of {len(outcomes)}"
    return f"{outcome}: {passed} of {len(outcomes)} have a median error of at most {threshold:g} against the reference"
