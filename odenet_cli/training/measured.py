"""Read the measurements that decide defaults, kept in `measured.json` and made by `scripts/bench/defaults.py`.

compile   ms of a step of a few workloads, plain and compiled, and the seconds of compilation
backward  for images: evaluations of backward solves, and the error of their gradients against that of the equation,
          beside the exact gradient of the forward steps (replay)
"""

from __future__ import annotations

import json
import math
import statistics
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
