"""Check a whole request before Hydra starts: every point of it, its folders, its data.

Hydra makes the run folder before the job begins, so errors have to be found here, where nothing is left behind.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from odenet_cli import threads
from odenet_cli.config.check import warnings
from odenet_cli.config.presets import groups
from odenet_cli.config.resolve import complete
from odenet_cli.config.saved import load, read_saved
from odenet_cli.config.schema import CODE_KEYS, DATA_PLACES, INCIDENTAL, Config, key_of
from odenet_cli.errors import RequestError
from odenet_cli.request import hydra_internals
from odenet_cli.request.compose import Composer, overrides_of, to_config
from odenet_cli.request.data import continues, find_auto, look_up_runs, names_recipe, on_gpu, resolve_runs, with_recipe
from odenet_cli.request.folders import check_run_folder, check_sweep_folder
from odenet_cli.request.hydra_errors import translate_hydra_errors
from odenet_cli.request.overrides import differing_keys, parse, quote
from odenet_cli.request.trust import check_composed, check_inside, check_named_code
from odenet_cli.rundir import holds_run, named_run, record_or_reason, runs_below, where_one_is
from odenet_cli.training.boards import check_installed
from odenet_cli.training.identity import find_moved_data, identity, may_change

MAX_NAME_BYTES, MAX_PATH_BYTES = 255, 3_800  # Linux takes paths of 4,095, and a run has folders of its own
PLACES = sorted(key for key in INCIDENTAL - {"resume"} if not key.startswith("trainer."))


@dataclass
class PlannedRun:
    """Hold one run of a request: its overrides, where it goes, and what it will do.

    The config is as requested, before the data set's recipe is filled in.
    """

    overrides: list[str]
    folder: Path
    config: Config


@dataclass
class TrainRequest:
    """Hold a checked request.

    argv     arguments for Hydra if it only prints; nothing else is set then
    run      starts the jobs, given a function of their configurations
    sweep    whether there are several jobs, below `folder`
    dry_run  only print the request; nothing was downloaded for it
    data     result of `resolve_runs`; for a dry run also `missing` data
    """

    composer: Composer
    argv: list[str] = field(default_factory=list)
    dry_run: bool = False
    data: dict[str, Any] = field(default_factory=dict)
    run: Callable[[Callable[[DictConfig], None]], None] | None = None
    sweep: bool = False
    folder: Path | None = None
    jobs: list[PlannedRun] = field(default_factory=list)


def prepare(argv: list[str]) -> TrainRequest:
    """Check `odenet train <argv>` and return it; if Hydra only prints (`--cfg`, `--info`, …), check the config."""
    args = parse(argv)
    if args.help or args.hydra_help or args.cfg or args.info or args.shell_completion:
        composer = Composer(args)
        with composer.translate_errors():  # Hydra sets up its log for some of these
            check_composed(composer.compose(composer.overrides, RunMode.MULTIRUN))
        return TrainRequest(composer, argv=args.argv)
    if args.run and args.multirun:
        raise RequestError("--run and --multirun cannot be used together.")
    args = expand_resume(args)
    if os.environ.get("ODENET_DATA"):  # a job may be in another folder
        os.environ["ODENET_DATA"] = os.path.abspath(os.path.expanduser(os.environ["ODENET_DATA"]))

    if args.config_dir and args.config_name == "config" and holds_run(Path(args.config_dir)):
        read_saved(Path(args.config_dir))  # one that is damaged is refused by its name
        check_no_preset(args)

    composer = Composer(args)
    with composer.translate_errors():
        master, sweep = composer.master()
    check_composed(master)
    request = _sweep(composer, master) if sweep else _run(composer, master)

    for job in request.jobs:
        check_named_code(job.config, args.overrides)
        check_installed(job.config)
    for path in {job.config.checkpoint for job in request.jobs if not continues(job.folder, job.config)} - {None}:
        if not os.path.exists(str(path)):
            raise RequestError(
                f"checkpoint={path}: this file does not exist. The checkpoints of a run are in RUN/checkpoints/."
            )
    for warning in dict.fromkeys(warning for job in request.jobs for warning in warnings(job.config)):
        print(f"warning: {warning}", file=sys.stderr)
    request.dry_run = args.dry_run
    request.data = (look_up_runs if args.dry_run else resolve_runs)({job.folder: job.config for job in request.jobs})
    os.environ["ODENET_REQUEST"] = json.dumps({"command": "odenet train " + shlex.join(argv), **request.data})
    share_cores(master, len(request.jobs))
    HydraConfig.instance().cfg = None
    return request


def _run(composer: Composer, cfg: DictConfig) -> TrainRequest:
    """Check a single run, and fix its folder, so that it is the one that was checked."""
    with composer.translate_errors():
        config = to_config(cfg)
        check_inside(cfg, "hydra.output_subdir")
        folder = _folder(cfg, config, "hydra.run.dir")
    check_run_folder(folder, config.resume)
    with read_write(cfg.hydra):
        cfg.hydra.mode, cfg.hydra.run.dir = RunMode.RUN, str(folder)
        cfg.hydra.overrides.hydra.append(f"hydra.run.dir={quote(str(folder))}")
    job = PlannedRun(overrides_of(cfg, "task"), folder, config)
    return TrainRequest(composer, run=partial(hydra_internals.run, composer.loader, cfg), folder=folder, jobs=[job])


def _sweep(composer: Composer, master: DictConfig) -> TrainRequest:
    """Check a sweep, and fix its folder and those of its jobs, which are named after the keys that differ."""
    with composer.translate_errors():
        config = to_config(master) if names_recipe(master, "hydra.sweep.dir") else None
        folder = _folder(master, config, "hydra.sweep.dir")
        points = composer.points(master)
    # A sweep that goes on names its new jobs also by what tells them from those that are there.
    earlier = runs_below(folder) if OmegaConf.select(master, "resume") == "auto" else []
    there = [list(record_or_reason(run).get("overrides") or []) for run in earlier]
    keys = {override.partition("=")[0] for point in points for override in point}
    told_apart = {key for key in differing_keys([*points, *there]) if key_of(key) not in INCIDENTAL}
    same = ",".join(quote(key_of(key)) for key in sorted(keys - told_apart))
    with read_write(master.hydra):
        master.hydra.sweep.dir = str(folder)
        master.hydra.overrides.hydra += [
            "hydra.mode=MULTIRUN",
            f"hydra.sweep.dir={quote(str(folder))}",
            f"hydra.job.config.override_dirname.exclude_keys=[{same}]",
        ]

    jobs = []
    for number, point in enumerate(points):
        with translate_hydra_errors(point, partial(composer.keys, point)):
            cfg = composer.job(master, point, number)
            check_composed(cfg)
            check_inside(cfg, "hydra.sweep.subdir", "hydra.output_subdir")
            config = to_config(cfg)
            jobs.append(PlannedRun(point, _folder(cfg, config, "hydra.sweep.subdir", folder), config))
    resume = jobs[0].config.resume
    if resume not in ("none", "auto"):
        raise RequestError(
            f"resume={resume} continues a single run; to continue a sweep, use resume=auto and hydra.sweep.dir."
        )
    check_sweep_folder(folder, resume)
    if resume == "auto":
        _find_job_folders(folder, jobs)
    if len({job.folder for job in jobs}) < len(jobs):
        raise RequestError("hydra.sweep.subdir gives several jobs the same folder; include ${hydra.job.num} in it.")
    places = [f"hydra.sweep.subdir={quote(str(job.folder.relative_to(folder)))}" for job in jobs]
    told = [[*job.overrides, place] for job, place in zip(jobs, places)]
    start = partial(hydra_internals.sweep, composer.loader, master, told)
    return TrainRequest(composer, run=start, sweep=True, folder=folder, jobs=jobs)


def _find_job_folders(folder: Path, jobs: list[PlannedRun]) -> None:
    """Set the folder of each job of a continued sweep to that of its existing run."""
    runs = {}
    for path in runs_below(folder):
        with contextlib.suppress(RequestError):  # it failed before it had a config, or that is damaged: no job's run
            runs[path] = load(path)
    auto = next((run.data["name"] for run in runs.values()), None)
    known = {identity(run): path for path, run in runs.items()}
    for job in jobs:
        identities = (identity(complete(job.config, gpu, data=auto)) for gpu in (False, True))
        job.folder = next((known[key] for key in identities if key in known), job.folder)


def _folder(cfg: DictConfig, config: Config | None, key: str, above: Path | None = None) -> Path:
    """Return the folder that `key` names, in `above`, without interpolations, which Hydra would resolve again. Refuse
    names that are too long for a file system."""
    if config is not None and names_recipe(cfg, key):
        cfg = with_recipe(cfg, config, complete(config, on_gpu(config), data=find_auto(config)))
    name = str(OmegaConf.select(cfg, key))
    if not name:  # as an unset variable of the shell leaves it
        raise RequestError(f"{key}= is empty; leave it out, or use . for the current folder.")
    if "${" in name or re.search(r"[\x00-\x1f\x7f]", name):
        raise RequestError(f"{key}={name!r} cannot be a folder: it must not contain ${{ or a line break.")
    folder = Path(above or "", name)
    whole = folder.absolute()
    if len(os.fsencode(whole)) > MAX_PATH_BYTES or any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in whole.parts):
        raise RequestError(
            f"{key}={folder} cannot be created: a name may have at most {MAX_NAME_BYTES} bytes, and a whole path here "
            f"{MAX_PATH_BYTES:,}."
        )
    return folder


def check_no_preset(args: argparse.Namespace) -> None:
    """Refuse a preset together with the saved config of a run, which would ignore it; suggest an equivalent command."""
    typed = {word: key_of(word) for word in args.overrides}
    presets = set(typed.values()) & {*groups()}
    if not presets:
        return
    record = record_or_reason(Path(args.config_dir))
    # Of a run that went on, or came from a saved config itself, the words do not say all.
    whole = not re.search(r"--config-name|resume=(?!auto)", record.get("command") or "resume=")
    before = {word: key_of(word) for word in record.get("overrides") or [] if whole}
    kept = [
        word
        for word, key in before.items()
        if key not in (*typed.values(), "resume") and key.partition(".")[0] not in presets
    ]
    raise RequestError(
        f"{', '.join(word for word, key in typed.items() if key in presets)} chooses a preset, which the saved "
        "configuration of a run cannot take: it would be ignored.\n"
        f"  With the run's own overrides: odenet train {shlex.join([*kept, *typed])}{'' if whole else ' …'}"
    )


def expand_resume(args: argparse.Namespace) -> argparse.Namespace:
    """Return `resume=RUN` as the request it means: RUN's saved configuration, in RUN, with `resume=auto`."""
    resumes = [override for override in args.overrides if key_of(override) == "resume"]
    with translate_hydra_errors(resumes):
        value = OverridesParser.create().parse_override(resumes[-1]).value() if resumes else None
    if not isinstance(value, str) or value in ("none", "auto", ""):
        return args

    folder = named_run(value)
    if not read_saved(folder):  # one that is damaged is refused by its name
        raise RequestError(
            f"resume={value} is not the folder of a run: {folder / 'config.yaml'} does not exist.\n"
            f"  {where_one_is(folder)}\n"
            "  resume must be none, auto (the run in hydra.run.dir) or a RUN."
        )
    if args.multirun or args.config_name:
        raise RequestError(
            f"resume={value} continues a single run with its saved configuration; leave out -m and --config-name."
        )
    rest = [override for override in args.overrides if override not in resumes]
    for override in rest:
        key = key_of(override)
        if not (may_change(key) or key.startswith("hydra.") or key in CODE_KEYS):  # the file may have moved
            anew = shlex.join(["--config-dir", str(folder), "--config-name", "config", override])
            raise RequestError(
                f"{override} cannot change when a run is continued; only trainer.*, except the batch size, can, and "
                f"{', '.join(PLACES)}.\n"
                f"  As a new run: odenet train {anew}"
            )
    if not any(key_of(override) in DATA_PLACES for override in rest):
        rest += [f"{key}={quote(place)}" for key, place in find_moved_data(folder, load(folder)).items()]
    args.config_dir, args.config_name = str(folder), "config"
    args.overrides = [*rest, "resume=auto", f"hydra.run.dir={quote(str(folder))}"]
    return args


def share_cores(cfg: DictConfig, jobs: int) -> None:
    """Divide the cores among the `jobs` that `cfg`'s launcher runs at once, unless OMP_NUM_THREADS is set.

    Jobs that a queue starts elsewhere use the cores of their allocation.
    """
    launcher = cfg.hydra.launcher
    kind = str(launcher.get("_target_")).rpartition(".")[2]
    at_once = {"JoblibLauncher": launcher.get("n_jobs"), "LocalLauncher": jobs}.get(kind) or 1
    at_once = min(jobs, at_once if at_once > 0 else max(1, threads.cores() + 1 + at_once))
    if at_once > 1:
        os.environ.setdefault("OMP_NUM_THREADS", str(threads.share(at_once)))


@contextlib.contextmanager
def shared_cores(cfg: DictConfig, jobs: int) -> Iterator[None]:
    """Divide the cores among these jobs, and afterwards restore the setting."""
    before = os.environ.get("OMP_NUM_THREADS")
    share_cores(cfg, jobs)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("OMP_NUM_THREADS", None)
