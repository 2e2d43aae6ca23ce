"""A request is checked whole before Hydra starts: every point of it, its folders, its data.

Hydra makes the run folder before the job begins, so what is wrong has to be found here; nothing is left behind then.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from dataclasses import dataclass, field
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from odenet_cli.config.check import tolerance_warnings
from odenet_cli.config.resolve import complete
from odenet_cli.config.saved import read_saved
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError
from odenet_cli.request.compose import Composer, told, typed
from odenet_cli.request.cores import share_cores
from odenet_cli.request.data import auto_of, goes_on, on_gpu, settle
from odenet_cli.request.folders import check_run_folder, check_sweep_folder
from odenet_cli.request.hydra_errors import explained
from odenet_cli.request.overrides import parse, quote, words
from odenet_cli.request.places import PIN, filled, refers, runs_in
from odenet_cli.request.points import differing
from odenet_cli.request.resume import resumed
from odenet_cli.request.trust import guard, guard_inside, guard_target
from odenet_cli.rundir import holds_run
from odenet_cli.training.identity import identity

MOST_NAMES = 100_000  # bytes; Linux takes variables of 128 KiB
LONGEST, DEEPEST = 255, 3_800  # bytes; Linux takes paths of 4,095, and a run has folders of its own

__all__ = ["Job", "Request", "compose", "prepare"]


@dataclass
class Job:
    """One run of a request: what was said for it, where it goes, what it will do."""

    overrides: list[str]
    folder: Path
    config: Config


@dataclass
class Request:
    """A checked request.

    argv    what Hydra is started with
    sweep   several jobs, below `folder`
    names   of the jobs' folders, where they are not those that Hydra would give them
    """

    argv: list[str]
    sweep: bool = False
    folder: Path | None = None
    jobs: list[Job] = field(default_factory=list)
    names: list[str] = field(default_factory=list)


def compose(overrides: list[str]) -> Config:
    """The checked configuration of `odenet train <overrides>`, what the data set's recipe fills in still open."""
    composer = Composer(parse(overrides))
    with explained(composer.overrides, composer.keys):
        return typed(composer.compose(composer.overrides))


def prepare(argv: list[str]) -> Request:
    """Check `odenet train <argv>`; Hydra's own questions (`--cfg`, `--info`, …) pass."""
    args = parse(argv)
    if args.help or args.hydra_help or args.cfg or args.info or args.shell_completion:
        composer = Composer(args)
        with explained(composer.overrides, composer.keys):
            guard(composer.compose(composer.overrides, RunMode.MULTIRUN))  # Hydra sets up its log for some of these
        return Request(argv=words(args, args.overrides))
    if args.run and args.multirun:
        raise RequestError("--run and --multirun exclude each other.")
    args = resumed(args)
    if os.environ.get("ODENET_DATA"):  # a job may be in another folder
        os.environ["ODENET_DATA"] = os.path.abspath(os.path.expanduser(os.environ["ODENET_DATA"]))

    if args.config_dir and args.config_name == "config" and holds_run(Path(args.config_dir)):
        read_saved(Path(args.config_dir))  # one that is damaged is refused by its name

    composer = Composer(args)
    with explained(composer.overrides, composer.keys):
        master, sweep = composer.master()
    guard(master)
    request = _sweep(composer, master) if sweep else _run(composer, master)
    request.argv = words(args, [*args.overrides, *request.argv])

    for job in request.jobs:
        guard_target(job.config, args.overrides)
    for path in {job.config.checkpoint for job in request.jobs if not goes_on(job.folder, job.config)} - {None}:
        if not os.path.exists(str(path)):
            raise RequestError(f"checkpoint={path}: there is no such file. A run keeps its own in RUN/checkpoints/.")
    for warning in dict.fromkeys(warning for job in request.jobs for warning in tolerance_warnings(job.config)):
        print(f"warning: {warning}", file=sys.stderr)
    settled = settle({job.folder: job.config for job in request.jobs})
    os.environ["ODENET_REQUEST"] = json.dumps(
        {"command": "odenet train " + shlex.join(argv), "folders": request.names, **settled}
    )
    share_cores(master, len(request.jobs))
    HydraConfig.instance().cfg = None
    return request


def _run(composer: Composer, cfg: DictConfig) -> Request:
    """A single run; its folder is fixed now, so that Hydra uses the one that was checked."""
    with explained(composer.overrides, composer.keys):
        config = typed(cfg)
        guard_inside(cfg, "hydra.output_subdir")
        folder = _folder(cfg, config, "hydra.run.dir")
    _reachable("hydra.run.dir", folder)
    check_run_folder(folder, config.resume)
    pin = f"hydra.run.dir={quote(str(folder))}"
    return Request(argv=[pin], sweep=False, folder=folder, jobs=[Job(told(cfg, "task"), folder, config)])


def _sweep(composer: Composer, master: DictConfig) -> Request:
    """A sweep; its folder is fixed now, and its jobs' folders are named after the keys that differ."""
    with explained(composer.overrides, composer.keys):
        config = typed(master) if refers(master, "hydra.sweep.dir") else None
        folder = _folder(master, config, "hydra.sweep.dir")
    _reachable("hydra.sweep.dir", folder)
    with explained(composer.overrides, composer.keys):
        points = composer.points(master)
    swept = differing(points)
    said = {override.partition("=")[0] for point in points for override in point}
    same = ",".join(quote(key.lstrip("+~")) for key in sorted(said - {*swept}))
    pins = [f"hydra.sweep.dir={quote(str(folder))}", f"hydra.job.config.override_dirname.exclude_keys=[{same}]"]

    jobs, plain = [], []
    for number, point in enumerate(points):
        with explained(point, composer.keys):
            cfg = composer.job(master, [*pins, *point], number)
            guard(cfg)
            guard_inside(cfg, "hydra.sweep.subdir", "hydra.output_subdir")
            config = typed(cfg)
            plain.append(folder / str(OmegaConf.select(cfg, "hydra.sweep.subdir")))
            jobs.append(Job(point, folder / _folder(cfg, config, "hydra.sweep.subdir"), config))
        _reachable("hydra.sweep.subdir", jobs[-1].folder)
    resume = jobs[0].config.resume
    if resume not in ("none", "auto"):
        raise RequestError(f"resume={resume} goes on with one run; a sweep goes on by resume=auto and hydra.sweep.dir.")
    check_sweep_folder(folder, resume)
    if resume == "auto":
        there = runs_in(folder)
        auto = next((run.data["name"] for run in there.values()), None)
        known = {identity(run): place for place, run in there.items()}
        for job in jobs:
            wholes = (complete(job.config, gpu, data=auto) for gpu in (False, True))
            job.folder = next((known[one] for one in map(identity, wholes) if one in known), job.folder)
    if len({job.folder for job in jobs}) < len(jobs):
        raise RequestError("hydra.sweep.subdir gives several jobs the same folder; put ${hydra.job.num} into it.")
    if (own := [job.folder for job in jobs]) != plain:  # Hydra is told them one by one
        return Request(argv=[*pins, PIN], sweep=True, folder=folder, jobs=jobs, names=_names(folder, own))
    return Request(argv=pins, sweep=True, folder=folder, jobs=jobs)


def _names(folder: Path, jobs: list[Path]) -> list[str]:
    """The folders of a sweep's jobs below its own, as they go through the environment."""
    names = [str(job.relative_to(folder)) for job in jobs]
    if sum(map(len, names)) > MOST_NAMES:
        raise RequestError(
            f"hydra.sweep.dir={folder}: {len(names):,} jobs whose folders are not in order are too many at once.\n"
            "  Go on with the very command that the sweep began with, or choose another folder."
        )
    return names


def _folder(cfg: DictConfig, config: Config | None, key: str) -> Path:
    """The folder that `key` names, resolved: what is left of an interpolation would be resolved once more."""
    if config is not None and refers(cfg, key):
        cfg = filled(cfg, config, complete(config, on_gpu(config), data=auto_of(config)))
    name = str(OmegaConf.select(cfg, key))
    if "${" in name or re.search(r"[\x00-\x1f\x7f]", name):
        raise RequestError(f"{key}={name!r} cannot be a folder: no ${{ and no line break.")
    return Path(name)


def _reachable(key: str, folder: Path) -> None:
    """Refuse a folder whose name, or that of a file in it, would be longer than a file system takes."""
    whole = folder.absolute()
    if len(os.fsencode(whole)) > DEEPEST or any(len(os.fsencode(part)) > LONGEST for part in whole.parts):
        raise RequestError(
            f"{key}={folder} cannot be made: a name takes at most {LONGEST} bytes, a whole path here {DEEPEST:,}."
        )
