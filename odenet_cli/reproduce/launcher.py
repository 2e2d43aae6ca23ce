"""Run the jobs of a reproduction by one of Hydra's launchers, such as joblib or Slurm."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import DictConfig

from odenet_cli.lock import is_locked
from odenet_cli.reproduce.plan import is_for_hydra
from odenet_cli.reproduce.processes import CellProcess
from odenet_cli.request import hydra_internals
from odenet_cli.request.compose import Composer
from odenet_cli.request.folders import restore_on_refusal
from odenet_cli.request.job import shared_cores
from odenet_cli.request.overrides import parse
from odenet_cli.request.trust import check_composed

POLL_S = 1.0
log = logging.getLogger("odenet")


def launch(
    train: Callable[[DictConfig], None],
    jobs: Sequence[CellProcess],
    overrides: Sequence[str],
    update: Callable[[set[Path]], None],
) -> None:
    """Have the launcher that `overrides` chooses call `train` for every job.

    Every second `update(running)` is called, with the folders of the runs under way.
    """
    if not jobs:
        return
    fixed = ["hydra.job.config.override_dirname.exclude_keys=[]", f"hydra.sweep.dir={jobs[0].folder.parent}"]
    composer = Composer(parse(["--multirun", *filter(is_for_hydra, overrides), *fixed]))
    with composer.translate_errors():
        master, _ = composer.master()
        check_composed(master)
        launcher = hydra_internals.make_launcher(composer.loader, train, master)
    points = [[*job.overrides, f"hydra.sweep.subdir={job.folder.name}", "resume=auto"] for job in jobs]
    folders = [job.folder for job in jobs]
    with polling(folders, update), restore_on_refusal(folders), shared_cores(master, len(jobs)):
        try:
            launcher.launch(points, initial_job_idx=0)
        except Exception as error:  # a job's process was killed; how the others ended stands in their folders
            log.info("the launcher failed", exc_info=True)
            print(f"the launcher stopped: {type(error).__name__}: {str(error).strip()[:500]}", file=sys.stderr)


@contextmanager
def polling(folders: Sequence[Path], update: Callable[[set[Path]], None]) -> Iterator[None]:
    """Call `update` from a thread every second with those of the runs that are under way, and at the end with none."""
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(POLL_S):
            update({folder for folder in folders if is_locked(folder)})

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        update(set())
