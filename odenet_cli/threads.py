"""Set the number of threads and how they wait for each other, before torch is imported."""

from __future__ import annotations

import contextlib
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path

WAIT = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


def wait_passively() -> None:
    """Let the threads of OpenMP, which is not loaded yet, sleep between two operations, unless the user chose.

    They would spin on their cores for 3 ms: as fast as can be where nothing else runs, and several times slower where
    anything does. GNU's, which torch has on Linux, spin for some 20 µs before they sleep. Without that, small steps
    take twice the time on a quiet machine; with it, no more than if they spun on.
    """
    if not any(name in os.environ for name in WAIT):
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "2000"}


def wait_policy() -> str:
    """Return how the threads wait: `passive`, `active`, or the setting that says it."""
    chosen = next((name for name in WAIT if name in os.environ), None)
    if chosen is None:
        return "default"
    return os.environ[chosen].lower() if chosen == WAIT[0] else f"{chosen}={os.environ[chosen]}"


def chosen() -> int | None:
    """Return the number of threads that OMP_NUM_THREADS asks for, None where it says nothing."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if re.fullmatch("[1-9][0-9]{0,4}", first) else None


def share(at_once: int) -> int:
    """Return the threads of each of `at_once` runs that compute side by side."""
    return max(1, cores() // at_once)


def cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use: those it is bound to, and no more than its control groups grant."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min([bound, *(max(1, math.ceil(quota)) for quota in _quotas(root))])


def _quotas(root: Path) -> Iterator[float]:
    """Yield the cores that each control group of this process, and each one around it, grants (cgroups(7), v1, v2)."""
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            inner = Path(path.lstrip("/"))
            for group in (inner, *inner.parents):
                with contextlib.suppress(OSError, ValueError):
                    folder = root / "sys/fs/cgroup" / controllers / group
                    if controllers:
                        quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
                    else:
                        quota, period = (folder / "cpu.max").read_text().split()
                    if int(quota) > 0:  # "max", or -1, is no limit
                        yield int(quota) / int(period)
