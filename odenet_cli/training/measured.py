"""What defaults are decided by: measurements kept in `measured.json`, which `scripts/bench/defaults.py` writes.

compile   ms of a step of a few workloads, plain and compiled, and the seconds that compilation takes
backward  of images: the evaluations of backward solves, and how far the gradient is from the equation's, beside the
          exact gradient of the forward steps (replay)
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("measured.json")


@cache
def measurements() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return content


def steps_to_earn(gradient: str, convolves: bool) -> float:
    """Return how many optimiser steps earn back the time of compilation; infinite where compiled ones are no faster.

    A gradient that was not measured is taken to gain what the others do.
    """
    compiled = measurements()["compile"]
    rows = [row for row in compiled["rows"] if row["convolves"] is convolves]
    own = [row for row in rows if row["gradient"] == gradient] or rows
    gain_ms = statistics.median(row["plain_ms"] - row["compiled_ms"] for row in own)
    return 1e3 * compiled["compilation_s"] / gain_ms if gain_ms > 0 else math.inf


def cheapest_backward(rows: Iterable[Mapping[str, Any]]) -> tuple[str, float]:
    """Return (method, rtol) of the backward solve that evaluates least, of those whose gradient is, at all weights, no
    further from the equation's than the exact gradient of the forward steps: the forward solve errs by as much."""
    by_solve: dict[tuple[str, float], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_solve.setdefault((row["method"], row["rtol"]), []).append(row)
    enough = {key: same for key, same in by_solve.items() if all(row["error"] <= row["replay_error"] for row in same)}
    return min(enough, key=lambda key: sum(row["nfe_backward"] for row in enough[key]))
