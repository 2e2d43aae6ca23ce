"""The jobs of a reproduction, handed to one of Hydra's launchers."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from odenet_cli.reproduce.processes import Job
from odenet_cli.request.compose import Composer
from odenet_cli.request.folders import restore_on_refusal
from odenet_cli.request.job import shared_cores
from odenet_cli.request.overrides import parse
from odenet_cli.request.trust import check_composed
from odenet_cli.rundir import is_locked

log = logging.getLogger("odenet")


def launch(
    task: Callable[[DictConfig], Any], jobs: Sequence[Job], words: list[str], look: Callable[[set[Path]], None]
) -> None:
    """Have the launcher chosen by `words` do `task` for every job; `look(running)` is called meanwhile."""
    if not jobs:
        return
    ours = [word for word in words if word.startswith(("hydra/", "hydra."))]
    pins = ["hydra.job.config.override_dirname.exclude_keys=[]", f"hydra.sweep.dir={jobs[0].folder.parent}"]
    composer = Composer(parse(["--multirun", *ours, *pins]))
    with composer.translate_errors():
        master, _ = composer.master()
        check_composed(master)
        launcher = composer.launcher(task, master)
    points = [
        [*(word for word in one.words if word not in ours), f"hydra.sweep.subdir={one.folder.name}", "resume=auto"]
        for one in jobs
    ]
    folders = [one.folder for one in jobs]
    with watched(folders, look), restore_on_refusal(folders), shared_cores(master, len(jobs)):
        try:
            launcher.launch(points, initial_job_idx=0)
        except Exception as error:  # a job's process was killed; what the others did stands in their folders
            log.info("the launcher failed", exc_info=True)
            print(f"the launcher stopped: {type(error).__name__}: {str(error).strip()[:500]}", file=sys.stderr)


@contextmanager
def watched(folders: Sequence[Path], look: Callable[[set[Path]], None]) -> Iterator[None]:
    """Call `look` every second with those of the runs that are under way."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            look({folder for folder in folders if is_locked(folder)})

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look(set())
