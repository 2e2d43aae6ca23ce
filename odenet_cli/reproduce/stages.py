"""The stages of `odenet reproduce`: run the cells that are missing, measure on their networks, write the page."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from odenet_cli.config.resolve import complete
from odenet_cli.errors import RequestError, first_line, message_of
from odenet_cli.lock import locked
from odenet_cli.markdown import counted
from odenet_cli.report import result as results
from odenet_cli.report.provenance import Provenance
from odenet_cli.report.runs import Run, read_run
from odenet_cli.reproduce import kept_cells, launcher
from odenet_cli.reproduce.board import Board
from odenet_cli.reproduce.destination import destination
from odenet_cli.reproduce.plan import Cell, Plan, ReproduceRequest
from odenet_cli.reproduce.processes import CellProcess, is_done, launch
from odenet_cli.request.data import on_gpu
from odenet_cli.rundir import holds_run, record_or_reason
from odenet_cli.training.device import gpu_count
from odenet_cli.training.identity import check_same_run, other_run

Failed = dict[Path, str]  # folder of a cell -> why it is not done
Measured = dict[Path, list[dict[str, Any]]]  # folder of a cell -> what was measured on its network
ON_THIS_MACHINE = {"hydra/launcher=joblib", "hydra/launcher=submitit_local"}


def keep(plan: Plan) -> None:
    """Keep the cells that are done in `results/cells`; print which are not, and how many were never started."""
    written, not_started, left_out = 0, 0, list[str]()
    for folder, cell in plan.by_folder.items():
        if not holds_run(folder):
            not_started += not cell.kept
            continue
        try:
            written += kept_cells.keep(folder)
        except RequestError as error:
            left_out.append(f"  left out: {cell.title}: {error}")
    kept = [kept_cells.FOLDER / folder.name for folder, cell in plan.by_folder.items() if cell.kept]
    if not_started:
        left_out.append(f"  not started: {not_started}")
    size = f"{sum(map(kept_cells.size_bytes, kept)) / 1e6:.1f} MB in {kept_cells.FOLDER}"
    print(f"{plan.item}, {plan.preset} preset: {count_kept(plan)}, {size}; {written} new", *left_out, sep="\n")


def unpack_kept(cells: Iterable[Cell]) -> None:
    """Make finished runs of the kept cells of which there is no run here."""
    for folder in dict.fromkeys(cell.folder for cell in cells):
        if kept_cells.is_kept(folder) and not holds_run(folder):
            from odenet_cli.reproduce import recompute  # torch and the models, which a plan does without

            kept_cells.unpack(folder)
            recompute.make_arrays(folder)


def needs_data(plan: Plan) -> bool:
    """Return whether anything is still to be computed: a cell that is not kept, or a measurement."""
    return "measure" in plan.settings or not all(cell.kept for cell in plan.cells)


def count_kept(plan: Plan) -> str:
    cells = plan.by_folder.values()
    return f"kept: {sum(cell.kept for cell in cells)} of {len(cells)}"


def check_finished(plan: Plan, data_records: Mapping[Path, Mapping[str, Any]]) -> None:
    """Raise where a finished cell holds another run, or was run on other data of the same name."""
    for cell in plan.cells:
        if is_done(cell.folder) and (longer := check_same_run(cell.folder, complete(cell.config, on_gpu(cell.config)))):
            raise other_run(cell.folder, longer)
        used = (record_or_reason(cell.folder).get("data") or {}).get("sha256")
        now = data_records.get(cell.folder, {}).get("sha256")
        if used and now and used != now:
            raise RequestError(
                f"{cell.folder} ({cell.title}) was run on different data of the same name, by their SHA-256: "
                f"{used}, and now {now}.\n"
                "  Give its data by data.root, or move the folder away to run it again."
            )


def reproduce(plan: Plan, request: ReproduceRequest, command: str, train: Callable[[DictConfig], None]) -> int:
    """Take an item through its stages and return the exit code: 1 where a cell is not done.

    command  as it was typed, for the page
    train    what a launcher of Hydra calls for each run
    """
    print(f"{plan.item}, {plan.preset} preset: {plan.about}")
    if any(cell.kept for cell in plan.cells):
        print(f"{count_kept(plan)}, in {kept_cells.FOLDER}")
    failed = run_cells(plan, request, train)
    measured = measure(plan, failed)

    page = report(plan, {folder: folder for folder in plan.by_folder}, failed, measured, command)
    print("\n" + page.markdown(), flush=True)
    folder, aside = destination(request.out, page.about, page.result.rows, request.overwrite)
    files = page.write(folder)
    print(f"\n{len(files)} files in {folder}: {', '.join(path.name for path in files)}")
    if aside:
        print(aside)
    for folder, reason in failed.items():
        print(f"{plan.by_folder[folder].title}: {reason}\n  {folder}, {folder}.log")
    return 1 if failed else 0


def run_cells(plan: Plan, request: ReproduceRequest, train: Callable[[DictConfig], None]) -> Failed:
    """Run the cells that are missing and return those that failed; the timed ones run last, one at a time."""
    alone = {cell.folder for cell in plan.cells if cell.alone}
    jobs = [CellProcess(folder, cell.overrides) for folder, cell in plan.by_folder.items() if folder not in alone]
    timed = [CellProcess(folder, cell.overrides) for folder, cell in plan.by_folder.items() if folder in alone]
    with Board(plan.cells, request.jobs) as board:
        if not request.uses_launcher:
            failed = launch(jobs, request.jobs, gpus(request), board.update)
            return failed | launch(timed, 1, 0, board.update)
        # A queue gives each job a place of its own; what a launcher starts on this machine would run side by side.
        here = not ON_THIS_MACHINE.isdisjoint(request.overrides)
        handed = jobs if here else jobs + timed
        launcher.launch(train, [job for job in handed if not is_done(job.folder)], request.overrides, board.update)
        records = {job.folder: record_or_reason(job.folder) for job in handed if not is_done(job.folder)}
        reasons = {folder: r.get("reason") or r.get("status") or "not started" for folder, r in records.items()}
        failed = {folder: first_line(reason) for folder, reason in reasons.items()}
        return failed | (launch(timed, 1, 0, board.update) if here else {})


def gpus(request: ReproduceRequest) -> int:
    """Return how many GPUs the runs share: 0 if one runs at a time, or if the user chooses the device."""
    named = any(word.startswith("device=") and word not in ("device=auto", "device=cuda") for word in request.overrides)
    return 0 if named or request.jobs == 1 else gpu_count()


class Measurement(NamedTuple):
    """Hold the measurements of an item on its networks.

    measure         the function `measure(folder, options, say)` of the module `name`, which returns rows
    verify_options  options with which `odenet verify` measures again, in minutes; None: it measures nothing
    """

    name: str
    measure: Callable[..., list[dict[str, Any]]]
    options: dict[str, Any]
    folders: list[Path]
    verify_options: dict[str, Any] | None


def measurement(plan: Plan) -> Measurement:
    """Return what the `measure` of an experiment asks for in this preset; without one there are no folders."""
    if "measure" not in plan.settings:
        return Measurement("", lambda *_: [], {}, [], None)
    setting = plan.settings["measure"]
    module = importlib.import_module(f"odenet_cli.analysis.measures.{setting['name']}")
    options = {**setting["options"], **setting.get(plan.preset, {})}
    folders = dict.fromkeys(cell.folder for cell in plan.cells if cell.seed in setting.get("seeds", (cell.seed,)))
    verify_options = {**options, **setting["verify"]} if setting.get("verify") is not None else None
    return Measurement(setting["name"], module.measure, options, list(folders), verify_options)


def measure(plan: Plan, failed: Failed) -> Measured:
    """Make the experiment's measurements; rows that a run's folder already has are not measured again.

    A network on which that cannot be done joins the `failed`.
    """
    rows, task = Measured(), measurement(plan)
    for folder in task.folders:
        if folder not in failed:
            print(f"{task.name} on {folder}", flush=True)
            try:
                with locked(folder):
                    rows[folder] = task.measure(folder, task.options, print)
            except Exception as error:
                failed[folder] = message_of(error)
    return rows


def report(
    plan: Plan,
    folders: Mapping[Path, Path],
    failed: Mapping[Path, str],
    measured: Mapping[Path, list[dict[str, Any]]],
    command: str,
) -> results.Page:
    """Return the page of an item.

    folders  where the run of each cell is
    failed   the cells that are not done, and why
    """
    entries = []
    for cell in plan.cells:
        run = Run(folder=cell.folder, status="failed") if cell.folder in failed else read_run(folders[cell.folder])
        entries.append(results.Entry(cell.part, cell.row, run, measured.get(cell.folder, [])))
    result = results.result_of(plan.item, entries, plan.settings)

    partial = [f"partial: {plan.seeds} of {plan.preset_seeds} seeds"] if plan.seeds < plan.preset_seeds else []
    partial += [f"partial: {plan.rows}"] if plan.rows else []
    partial += [f"partial: {len(failed)} of {len(plan.cells)} cells not done"] if failed else []
    partial += [f"changed: {' '.join(plan.changes)}"] if plan.changes else []
    about = results.About(
        item=plan.item,
        preset=plan.preset,
        text=f"{plan.about}; {counted(plan.seeds, 'seed')}",
        partial=tuple(partial),
        missing=tuple(f"{plan.by_folder[folder].title}: {reason}" for folder, reason in failed.items()),
    )
    checks = results.check_expectations(result, plan.expected)
    source = Provenance.of(command, [entry.run for entry in entries if entry.run.record])
    return results.Page(result=result, about=about, checks=checks, source=source)
