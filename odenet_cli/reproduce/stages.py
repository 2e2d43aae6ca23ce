"""The stages of `odenet reproduce`: run the cells that are missing, measure on their networks, write the files."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from odenet_cli.config.resolve import complete
from odenet_cli.errors import RequestError, message_of
from odenet_cli.report import result as results
from odenet_cli.report.provenance import Provenance
from odenet_cli.report.runs import Run, read_run
from odenet_cli.reproduce import kept_cells, launcher
from odenet_cli.reproduce.board import Board
from odenet_cli.reproduce.plan import Plan, Request
from odenet_cli.reproduce.processes import Job, done, launch
from odenet_cli.request.data import on_gpu
from odenet_cli.rundir import holds_run, locked, record_or_reason
from odenet_cli.training.device import gpu_count
from odenet_cli.training.identity import check_same_run, other_run

SIDE_BY_SIDE = {"hydra/launcher=joblib", "hydra/launcher=submitit_local"}


def keep(plan: Plan) -> int:
    """Keep the cells that are done in `results/cells`; say which are not."""
    cells = {cell.folder: cell for cell in plan.cells}
    outcomes = {folder: _keep(folder) for folder in cells}
    written = sum(outcome is True for outcome in outcomes.values())
    size = sum(kept_cells.size(kept_cells.FOLDER / folder.name) for folder, cell in cells.items() if cell.kept)
    print(
        f"{plan.item}, {plan.preset} preset: {said_kept(plan)}, {size / 1e6:.1f} MB in {kept_cells.FOLDER}; "
        f"{written} new"
    )
    for folder, outcome in outcomes.items():
        if isinstance(outcome, str):
            print(f"  left out: {cells[folder].title}: {outcome}")
    return 0


def _keep(folder: Path) -> bool | str:
    """Was the cell written, or, in words, why not?"""
    try:
        return kept_cells.keep(folder)
    except RequestError as error:
        return str(error)


def take_kept(plans: Sequence[Plan]) -> None:
    """Make finished runs of the kept cells of which there is no run here."""
    for folder in dict.fromkeys(cell.folder for plan in plans for cell in plan.cells):
        if kept_cells.is_kept(folder) and not holds_run(folder):
            kept_cells.unpack(folder)


def needs_data(plan: Plan) -> bool:
    """Tell whether anything of an item is still to be computed; a cell that is kept and not measured on is read."""
    return "measure" in plan.rest or not all(cell.kept for cell in plan.cells)


def said_kept(plan: Plan) -> str:
    """Return how many cells of a plan are kept, in words."""
    folders = {cell.folder: cell.kept for cell in plan.cells}
    return f"kept: {sum(folders.values())} of {len(folders)}"


def reproduce(plan: Plan, request: Request, command: str, train_job: Callable[[DictConfig], None]) -> int:
    """One item: its cells, what is measured on them, its files."""
    print(f"{plan.item}, {plan.preset} preset: {plan.about}")
    if any(cell.kept for cell in plan.cells):
        print(f"{said_kept(plan)}, in {kept_cells.FOLDER}")
    failed = _run(plan, request, train_job)
    measured = _measured(plan, failed)
    files = _written(plan, request, failed, measured, command)
    print(f"\n{len(files)} files in {files[0].parent}: {', '.join(path.name for path in files)}")
    by_folder = {cell.folder: cell for cell in plan.cells}
    for folder, why in failed.items():
        print(f"{by_folder[folder].title}: {why}\n  {folder}, {folder}.log")
    return 1 if failed else 0


def _run(plan: Plan, request: Request, train_job: Callable[[DictConfig], None]) -> dict[Path, str]:
    """Run the cells that are missing; returns what the failed ones say."""
    jobs = {cell.folder: Job(cell.folder, cell.words) for cell in plan.cells}
    timed = {cell.folder: jobs.pop(cell.folder) for cell in plan.cells if cell.alone and cell.folder in jobs}
    with Board(plan.cells, request.jobs) as board:
        if not request.launcher:
            failed = launch(list(jobs.values()), request.jobs, gpus(request), board.look)
            return failed | launch(list(timed.values()), 1, 0, board.look)
        # A queue gives each job a place of its own; what a launcher starts on this machine would run side by side.
        here = not SIDE_BY_SIDE.isdisjoint(request.words)
        handed = [*jobs.values(), *([] if here else timed.values())]
        launcher.launch(train_job, [job for job in handed if not done(job.folder)], request.words, board.look)
        failed = {job.folder: _reason(job) for job in handed if not done(job.folder)}
        return failed | (launch(list(timed.values()), 1, 0, board.look) if here else {})


def gpus(request: Request) -> int:
    """Those to share out among the runs: none where one runs at a time, or where it was said which to use."""
    named = any(word.startswith("device=") and word not in ("device=auto", "device=cuda") for word in request.words)
    return 0 if named or request.jobs == 1 else gpu_count()


def check_data(plan: Plan, records: dict[Path, Any]) -> None:
    """Refuse cells that are done, but as another run, or on other data under the same name."""
    for cell in plan.cells:
        if done(cell.folder) and (longer := check_same_run(cell.folder, complete(cell.config, on_gpu(cell.config)))):
            raise other_run(cell.folder, longer)
        used = (record_or_reason(cell.folder).get("data") or {}).get("sha256")
        now = (records.get(cell.folder) or {}).get("sha256")
        if used and now and used != now:
            raise RequestError(
                f"{cell.folder} ({cell.title}) was run on other data under the same name, by their SHA-256: "
                f"{used}, and now {now}.\n"
                "  Name the data it had by data.root, or move the folder away to run it again."
            )


def _measured(plan: Plan, failed: dict[Path, str]) -> dict[Path, list[dict[str, Any]]]:
    """What the experiment measures on its trained networks; rows that a run's folder holds already are kept.

    A network on which that cannot be done joins the `failed`.
    """
    if "measure" not in plan.rest:
        return {}
    measured, found = measurement(plan), {}
    for folder in measured.folders:
        if folder not in failed:
            print(f"{measured.name} on {folder}", flush=True)
            try:
                with locked(folder):
                    found[folder] = measured.measure(folder, measured.options, print)
            except Exception as error:
                failed[folder] = message_of(error)
    return found


class Measurement(NamedTuple):
    """What an item measures on its networks: by which function, with which options, on which cells.

    again  options that `odenet verify` measures again with, so that it takes minutes; None: it measures nothing
    """

    name: str
    measure: Callable[..., list[dict[str, Any]]]
    options: dict[str, Any]
    folders: list[Path]
    again: dict[str, Any] | None


def measurement(plan: Plan) -> Measurement:
    """Return what the `measure` of an experiment asks for in this preset."""
    setting = plan.rest["measure"]
    module = importlib.import_module(f"odenet_cli.analysis.measures.{setting['name']}")
    options, again = {**setting["options"], **setting.get(plan.preset, {})}, setting.get("verify")
    folders = dict.fromkeys(cell.folder for cell in plan.cells if cell.seed in setting.get("seeds", (cell.seed,)))
    less = None if again is None else {**options, **again}
    return Measurement(setting["name"], module.measure, options, list(folders), less)


def _written(
    plan: Plan, request: Request, failed: dict[Path, str], measured: dict[Path, list[dict[str, Any]]], command: str
) -> list[Path]:
    """The report's files; its Markdown also goes to the terminal."""
    page = report(plan, {cell.folder: cell.folder for cell in plan.cells}, request.rows, failed, measured, command)
    print("\n" + results.texts(*page)["md"], flush=True)
    return results.write(request.out / plan.item, *page)


def report(
    plan: Plan,
    folders: Mapping[Path, Path],
    rows: Sequence[str],
    failed: Mapping[Path, str],
    measured: Mapping[Path, list[dict[str, Any]]],
    command: str,
) -> tuple[results.Result, results.About, list[results.Check], Provenance]:
    """Return what an item's report says: the result, what it is about, what was expected, where it comes from.

    folders  where the run of each cell is
    rows     those that were asked for; none for all
    failed   the cells that are not done, and why
    """
    entries = []
    for cell in plan.cells:
        run = Run(folder=cell.folder, status="failed") if cell.folder in failed else read_run(folders[cell.folder])
        entries.append(results.Entry(cell.part, cell.row, run, measured.get(cell.folder, [])))
    made = results.result_of(plan.item, entries, plan.rest)

    partial = [f"partial: {plan.seeds} of {plan.whole} seeds"] if plan.seeds < plan.whole else []
    partial += [f"partial: only {', '.join(rows)}"] if rows else []
    partial += [f"partial: {len(failed)} of {len(plan.cells)} cells not done"] if failed else []
    partial += [f"changed: {' '.join(plan.changes)}"] if plan.changes else []
    by_folder = {cell.folder: cell for cell in plan.cells}
    about = results.About(
        item=plan.item,
        preset=plan.preset,
        text=f"{plan.about}; {plan.seeds} seed{'s' * (plan.seeds != 1)}",
        partial=tuple(partial),
        missing=tuple(f"{by_folder[folder].title}: {why}" for folder, why in failed.items()),
    )
    expect = plan.rest.get("expect", {})
    checks = results.check_expectations(made, {**expect.get("all", {}), **expect.get(plan.preset, {})})
    return made, about, checks, Provenance.of(command, [entry.run for entry in entries if entry.run.record])


def _reason(job: Job) -> str:

    record = record_or_reason(job.folder)
    return str(record.get("reason") or record.get("status") or "not started").partition("\n")[0]
