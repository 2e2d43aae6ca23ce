"""Rebuild a table or figure of the paper: odenet reproduce table1 [--preset quick|cpu|day|paper]

Makes the runs that are missing, and writes results/ITEM/PRESET.md, .csv, .json and the figures as SVG and PNG. ITEM is
one of {items}, or all.

  odenet reproduce table1                           quick: minutes on a CPU, not meant to be quoted
  odenet reproduce table1 --preset cpu --seeds 1    real data on a CPU, hours
  odenet reproduce table1 --preset paper --jobs 4   a run on each of four GPUs
  odenet reproduce table1 --preset paper hydra/launcher=submitit_slurm hydra.launcher.gpus_per_node=1

A page with fewer seeds or rows, or with failed cells, is partial: if a fuller page or a committed one exists for the
preset, the partial page is written to runs/partial/ITEM instead.

Overrides key=value apply to all runs. Those that change results are named in the title of the page; these do not:

  data.root=FOLDER device=cpu trainer.log_every=10
  hydra/launcher=joblib|submitit_local|submitit_slurm hydra.launcher.*   distribute the runs with a Hydra launcher

Every cell is an ordinary run, in runs/cells/ under the hash of its config. Finished cells, and those in results/cells,
never run again: you can stop the command at any time and start it again. Exit code 1 if a run failed; the others are
finished first."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from odenet_cli import streams
from odenet_cli.commands import _common
from odenet_cli.commands.report import make_folder
from odenet_cli.config.presets import options
from odenet_cli.errors import RequestError
from odenet_cli.markdown import counted
from odenet_cli.registry import nearest

if TYPE_CHECKING:
    from odenet_cli.reproduce.plan import Plan, ReproduceRequest

MAX_COUNT = 1_000  # seeds, or runs side by side
RESERVED = ("seed=", "experiment=", "hydra.run.", "hydra.sweep.", "resume=")  # what the plan says of each run
PARSER = _common.Parser(__name__, __doc__.format(items=", ".join(options("experiment"))))
add, number = PARSER.add_argument, _common.whole(1, MAX_COUNT)
add("words", metavar="ITEM", nargs="+", help="what to rebuild, and key=value for all runs")
add(
    "--preset",
    metavar="NAME",
    default="quick",
    help="quick, cpu or paper; table1 and fig3 also have day",
)
add("--seeds", metavar="N", type=number, help="use seeds 0 to N-1; default: those of the preset")
add("--rows", metavar="A,B", type=_common.several(str), default=[], help="only these rows")
add("--jobs", metavar="N", type=number, default=1, help="runs side by side, each on its own GPU")
add("--out", metavar="DIR", type=_common.path, default=Path("results"), help="write to DIR/ITEM, not to results/ITEM")
add("--overwrite", action="store_true", help="let a partial page replace a fuller or committed one")
add("--redraw", action="store_true", help="run nothing; write the committed page again from its own numbers")
add("--dry-run", action="store_true", help="list the runs without starting them")
add("--keep", action="store_true", help="run nothing; copy the finished runs to results/cells, with their SHA-256")
PARSER.offers = lambda: options("experiment")


@PARSER.command
def main(words: Namespace) -> int:
    """Plan every item, then run, measure and write one after the other."""
    from odenet_cli.reproduce.plan import CELLS, check_cells, plan

    request = to_request(words)
    plans = [plan(item, request.preset, request.seeds, request.rows, request.overrides) for item in request.items]
    if request.dry_run:
        print("\n".join(line for planned in plans for line in describe(planned, request.jobs)))
        return 0
    if request.redraw:
        from odenet_cli.reproduce.redraw import redraw

        for planned in plans:
            print(*redraw(planned, request.out), sep="\n")
        return 0
    from odenet_cli.commands import train
    from odenet_cli.reproduce.stages import check_finished, keep, needs_data, reproduce, unpack_kept

    if request.keep:
        for planned in plans:
            keep(planned)
        return 0
    unpack_kept(cell for planned in plans for cell in planned.cells)
    make_folder(CELLS, "folder of the runs ")
    data_records = check_cells([cell for planned in plans if needs_data(planned) for cell in planned.cells])
    for planned in plans:
        check_finished(planned, data_records)
        make_folder(request.out / planned.item)
    command = shlex.join(["odenet", "reproduce", *words.argv])
    code = max(reproduce(planned, request, command, train.job) for planned in plans)
    streams.forget_lost_output()
    return code


def describe(plan: Plan, at_once: int) -> list[str]:
    """Return a line for each cell: whether it is done, and the command that runs it."""
    from odenet_cli.rundir import record_or_reason

    many = counted(len(plan.cells), "cell") + (f", {at_once} at a time" if at_once > 1 else "")
    lines = [f"{plan.item}, {plan.preset} preset: {many}: {plan.about}"]
    for cell in plan.cells:
        status = record_or_reason(cell.folder).get("status") or ("kept" if cell.kept else "missing")
        words = [*cell.overrides, f"hydra.run.dir={cell.folder}", "resume=auto"]
        lines.append(f"  {status:<8} odenet train {shlex.join(words)}")
    return lines


def parse(argv: Sequence[str]) -> ReproduceRequest:
    """Parse the words of a command line."""
    return to_request(PARSER.parse(argv))


def to_request(words: Namespace) -> ReproduceRequest:
    """Return what was asked for; raise `RequestError` for a word that means nothing."""
    from odenet_cli.reproduce.plan import ReproduceRequest, experiments

    arguments = {name: value for name, value in vars(words).items() if name not in ("argv", "words")}
    items, overrides = ([word for word in words.words if ("=" in word) is pair] for pair in (False, True))
    known = [*experiments(), "all"]
    for item in (item for item in items if item not in known):
        raise RequestError(f"{item} cannot be reproduced.{nearest(item, known)}\n  Available: {', '.join(known)}.")
    request = ReproduceRequest(items=list(experiments()) if "all" in items else items, overrides=overrides, **arguments)
    if not items:
        raise RequestError(f"ITEM is missing. Available: {', '.join(known)}.")
    if request.rows and len(request.items) > 1:
        raise RequestError(
            f"--rows applies to a single item, and {len(request.items)} are given: {', '.join(request.items)}."
        )
    if request.uses_launcher and request.jobs > 1:
        raise RequestError(
            "--jobs and hydra/launcher cannot be used together; with a launcher, set hydra.launcher.n_jobs."
        )
    for word in overrides:
        if word.lstrip("+").startswith(RESERVED):
            raise RequestError(f"{word} cannot be set: `odenet reproduce` sets it. Choose seeds with --seeds N.")
    return request
