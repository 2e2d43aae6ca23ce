"""Train a model; -m sweeps: odenet train model=odenet solver=dopri5 data=digits"""

from __future__ import annotations

import io
import logging
import os
import sys
import threading
from contextlib import ExitStack, redirect_stdout, suppress
from pathlib import Path
from shlex import join, quote

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from odenet_cli import streams
from odenet_cli.commands import _completion
from odenet_cli.config.presets import conf_dir
from odenet_cli.config.resolve import eval_solver
from odenet_cli.config.schema import Config, key_of
from odenet_cli.errors import Interrupted, RequestError, is_disk_full, message_of
from odenet_cli.files import write
from odenet_cli.lock import locked
from odenet_cli.request.compose import CONFIG_NAME, VERSION_BASE, register
from odenet_cli.request.data import finished, resolve_job
from odenet_cli.request.folders import check_run_folder, check_sweep_folder, remove_run, restore_on_refusal
from odenet_cli.request.job import TrainRequest, prepare
from odenet_cli.rundir import FAILED, holds_run, recent_runs, record_or_reason, short, write_record
from odenet_cli.terminal import INDENT, on_terminal, say, say_text

log = logging.getLogger("odenet")

# A job must not raise: Hydra would print a traceback, and a sweep would stop. What a single run raised waits here.
_raised: list[Exception] = []

register()  # also where a launcher imports this module in another process


def main(argv: list[str]) -> int:
    """Check the whole request, then hand it to Hydra."""
    if argv and argv[0] in ("-sc", "--shell-completion"):
        return _completion.main(argv)
    request = prepare(argv)
    if not {"-h", "--help"}.isdisjoint(argv):
        with redirect_stdout(io.StringIO()) as text:
            code = start(request)
        print("\n".join(map(streams.wrapped, text.getvalue().splitlines())))
        return code
    if request.folder is None or not request.jobs:
        return start(request)
    if request.dry_run:
        from odenet_cli.commands import _dry_run

        return _dry_run.show(request)
    quiet()
    with ExitStack() as held:
        try:
            new = held.enter_context(locked(request.folder, "hydra.sweep.dir" if request.sweep else "hydra.run.dir"))
        except OSError as error:
            if request.folder.exists() or is_disk_full(error):
                raise
            raise RequestError(
                f"{request.folder} cannot be created: {error.strerror}. Choose another folder."
            ) from error
        return _run_all(request, request.folder, new, argv)


def _run_all(request: TrainRequest, folder: Path, new: bool, argv: list[str]) -> int:
    """Run the jobs through Hydra in the `folder` that is locked; if it is `new`, a refusal removes it."""
    if not new:  # another process may have written there since it was checked
        check = check_sweep_folder if request.sweep else check_run_folder
        check(folder, request.jobs[0].config.resume)
    code, jobs = 0, [job.folder for job in request.jobs]
    for job_folder in jobs:
        (job_folder / FAILED).unlink(missing_ok=True)  # of a command that was killed
    try:
        with restore_on_refusal(jobs):
            start(request)
        if _raised:
            raise _raised.pop()
    except Interrupted as stop:
        if not request.sweep:
            raise
        words = [word for word in argv if key_of(word) not in ("resume", "hydra.sweep.dir")]
        again = join(["odenet", "train", *words, f"hydra.sweep.dir={short(folder)}", "resume=auto"])
        raise Interrupted(stop.reason, stop.code, f"continue the sweep with:\n  {again}") from stop
    except RequestError:
        if new and not (request.sweep and any(map(record_or_reason, jobs))):
            remove_run(folder, jobs)
        raise
    finally:
        if request.sweep and folder.exists():
            code = _finish(request)
    streams.forget_lost_output()
    return code


def quiet() -> None:
    """Keep what the log's file or TensorBoard's thread cannot write from printing a traceback; the run says why."""
    logging.raiseExceptions = False
    threading.excepthook = lambda failure: log.info("a thread failed", exc_info=failure.exc_value)


def start(request: TrainRequest) -> int:
    """Start the jobs, or Hydra's own main function where it only prints; Hydra's errors come back as ours."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # it raises, and cli.main explains
    try:
        with request.composer.translate_errors():
            if request.run is not None:
                request.run(job)
            else:
                sys.argv = [sys.argv[0], *request.argv]
                hydra.main(version_base=VERSION_BASE, config_path=str(conf_dir()), config_name=CONFIG_NAME)(job)()
    except SystemExit as stop:
        if stop.code in (0, None):
            return 0
        raise RequestError("Hydra failed; see the message above.") from stop
    return 0


def job(cfg: DictConfig) -> None:
    """Make one run, in the folder Hydra made for it."""
    streams.secure()  # in a launcher's process nobody did
    here = HydraConfig.get()
    folder, sweep = Path(here.runtime.output_dir), here.mode == RunMode.MULTIRUN
    try:
        with locked(folder):
            _run(cfg, folder, list(here.overrides.task), int(here.job.num) if sweep else None)
    except Exception as error:
        log.info("the run failed", exc_info=True)
        if sweep:
            with suppress(OSError):  # on a full disk the summary cannot be written either
                write(folder / FAILED, message_of(error))
            say(f"#{here.job.num} failed: {message_of(error)}", sys.stderr)
        else:
            _raised.append(error)


def _run(cfg: DictConfig, folder: Path, overrides: list[str], number: int | None) -> None:
    """Train, as job `number` of a sweep if it is one; a job that is done already is left as it is."""
    from odenet_cli.training.run import run

    known = record_or_reason(folder)
    try:
        config, data_record, command = resolve_job(cfg, folder)
        if number is not None and config.resume == "auto" and finished(folder, config, data_record):
            say_text(f"#{number}: already finished: {short(folder)}")
            return
        tied = OmegaConf.is_interpolation(cfg.solver, "atol")
        final = run(config, folder, command, overrides, data_record, job=number or 0, tied=tied, draw=_draw)
        if record_or_reason(folder) == known:
            return  # it had ended before
        if number is None and on_terminal():
            _say_next(config, folder, solved=bool(final["nfe_forward"]))
    except Exception as error:
        _record_failure(folder, error)
        raise


def _draw(folder: Path) -> list[Path]:
    from odenet_cli.report import pictures

    return pictures.write(folder)


def _say_next(config: Config, folder: Path, solved: bool) -> None:
    """Print two commands that show more of a run."""
    from odenet_cli import data
    from odenet_cli.training.build import FLOWS

    recent = recent_runs()
    last = bool(recent) and recent[0].resolve() == folder.resolve()
    name, runs = ("last", "runs") if last else (quote(short(folder)),) * 2
    commands = {
        f"odenet sample {name}": data.tasks(config.data["name"])[0] in FLOWS,
        f"odenet predict {name} out=forecast.csv": config.data["name"] in ("observations", "table", "csv"),
        f"odenet predict {name} out=answers.csv": config.data["name"] in ("arrays", "features", "images"),
        f"odenet eval {name} eval.solver.rtol=1e-1,1e-3,1e-6": solved and eval_solver(config).rtol is not None,
        f"odenet report {runs}": True,
        "odenet runs": True,
    }
    for label, command in zip(("next:", ""), (command for command, useful in commands.items() if useful)):
        say(f"{label:<{INDENT}}{command}")


def _record_failure(folder: Path, error: Exception) -> None:
    """Write to `run.json` that the run failed, also where it failed too early to do so itself."""
    record = record_or_reason(folder)
    if record.get("status") == "failed" or (isinstance(error, RequestError) and holds_run(folder)):
        return  # a refused request leaves the run that is here as it was
    with suppress(OSError):  # on a full disk; what was raised says it too
        write_record(folder, {**record, "status": "failed", "reason": message_of(error)})


def _finish(request: TrainRequest) -> int:
    """Write the summary of a sweep; return its exit code."""
    from odenet_cli.commands._summary import summarise  # and what reports need: a single run does without

    assert request.folder is not None
    jobs = [(job.overrides, job.folder) for job in request.jobs]
    failed = {}
    for _, folder in jobs:
        if (folder / FAILED).is_file():
            failed[folder] = (folder / FAILED).read_text(encoding="utf-8")
            (folder / FAILED).unlink()
    return 1 if summarise(request.folder, jobs, failed) else 0
