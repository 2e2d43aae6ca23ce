"""Each of the jobs that a launcher starts on this machine gets its part of the cores."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from omegaconf import DictConfig

from odenet_cli import threads


def share_cores(cfg: DictConfig, jobs: int) -> None:
    """Give each of the `jobs` that `cfg`'s launcher starts here its part of the cores, unless OMP_NUM_THREADS is set.

    What a queue starts elsewhere has the cores of its allocation.
    """
    launcher = cfg.hydra.launcher
    kind = str(launcher.get("_target_")).rpartition(".")[2]
    at_once = {"JoblibLauncher": launcher.get("n_jobs"), "LocalLauncher": jobs}.get(kind) or 1
    at_once = min(jobs, at_once if at_once > 0 else max(1, threads.cores() + 1 + at_once))
    if at_once > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads.share(at_once)))


@contextmanager
def shared_cores(cfg: DictConfig, jobs: int) -> Iterator[None]:
    """`share_cores` for these jobs alone: what runs after them has all the cores again."""
    before = os.environ.get("OMP_NUM_THREADS")
    share_cores(cfg, jobs)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("OMP_NUM_THREADS", None)
