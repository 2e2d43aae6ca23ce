"""Rebuild a table or figure of the paper: odenet reproduce table1 [--preset quick|cpu|day|paper]"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odenet_cli import streams
from odenet_cli.commands.common import counted
from odenet_cli.errors import RequestError
from odenet_cli.registry import nearest

if TYPE_CHECKING:
    from odenet_cli.reproduce.plan import Request

HELP = """usage: odenet reproduce ITEM [--preset quick|cpu|day|paper] [options] [key=value ...]

Runs what is missing, measures, and writes results/ITEM/PRESET.md, .csv, .json and the figures as SVG and PNG.
ITEM is one of {items}, or all.

  odenet reproduce table1                                    quick: minutes on a CPU, and no result to quote
  odenet reproduce table1 --preset cpu --seeds 1             real data on a CPU, hours
  odenet reproduce table1 --preset paper --jobs 4            a run on each of four GPUs
  odenet reproduce table1 --preset paper hydra/launcher=submitit_slurm hydra.launcher.gpus_per_node=1

  --preset NAME   quick (default), cpu, paper; table1 and fig3 have day, between the last two
  --seeds N       seeds 0 to N-1, instead of as many as the preset has
  --rows A,B      only these rows
  --jobs N        so many runs side by side; each has a GPU of its own where there are several
  --out DIR       write to DIR/ITEM instead of results/ITEM
  --dry-run       list the runs, and run nothing
  --keep          run nothing; keep the runs that are done in results/cells, weights and records with their SHA-256
  hydra/launcher=joblib|submitit_local|submitit_slurm, hydra.launcher.*   spread the runs by a launcher of Hydra
  data.root=FOLDER device=cpu trainer.log_every=10   for all runs; a key that changes results is named in the title

Every run is an ordinary one, in runs/cells/ under the hash of its config. What is done, or kept in results/cells, is
never run again: stop it whenever you like and start it again. Exit code 1 where a run failed; the others are finished
first."""
FLAGS = ("--preset", "--seeds", "--rows", "--jobs", "--out", "--dry-run", "--keep")
MOST = 1_000  # seeds, or runs side by side


def main(argv: list[str]) -> int:
    """Plan every item, then run, measure and write one after the other."""
    from odenet_cli.reproduce.plan import CELLS, experiments, plan, settled_cells

    if not argv or any(word in ("-h", "--help") for word in argv):
        print(HELP.format(items=", ".join(experiments())))
        return 0 if argv else 2
    request = parsed(argv)
    plans = [plan(item, request.preset, request.seeds, request.rows, request.words) for item in request.items]
    if request.dry:
        for one in plans:
            print("\n".join(_listed(one, request.jobs)))
        return 0
    from odenet_cli.commands import train
    from odenet_cli.commands.report import make_folder
    from odenet_cli.reproduce.stages import check_data, keep, needs_data, reproduce, take_kept

    if request.keep:
        return max(keep(one) for one in plans)
    take_kept(plans)
    make_folder(CELLS, "the runs' folder ")
    records = settled_cells([cell for one in plans if needs_data(one) for cell in one.cells])
    for one in plans:
        check_data(one, records)
        make_folder(request.out / one.item)
    command = shlex.join(["odenet", "reproduce", *argv])
    code = max(reproduce(one, request, command, train.job) for one in plans)
    streams.forgive()
    return code


def _listed(plan: Any, at_once: int) -> list[str]:
    """Every cell with the command that runs it, and whether it is done."""
    from odenet_cli.rundir import record_or_reason

    many = f"{len(plan.cells)} cell{'s' * (len(plan.cells) != 1)}" + (f", {at_once} at a time" if at_once > 1 else "")
    lines = [f"{plan.item}, {plan.preset} preset: {many}: {plan.about}"]
    for cell in plan.cells:
        status = record_or_reason(cell.folder).get("status") or ("kept" if cell.kept else "missing")
        words = [*cell.words, f"hydra.run.dir={cell.folder}", "resume=auto"]
        lines.append(f"  {status:<8} odenet train {shlex.join(words)}")
    return lines


def parsed(argv: Sequence[str]) -> Request:
    """The request; a word that means nothing is refused."""
    from odenet_cli.reproduce.plan import Request, experiments

    request, words = Request(), list(argv)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            if "=" in word:
                request.words.append(word)
            else:
                request.items.append(word)
            continue
        flag, equals, value = word.partition("=")
        if flag not in FLAGS:
            raise RequestError(f"{flag} is not an option here.{nearest(flag, FLAGS)}\n  There are: {', '.join(FLAGS)}.")
        if flag in ("--dry-run", "--keep"):
            setattr(request, "dry" if flag == "--dry-run" else "keep", True)
            continue
        value = value if equals else words.pop(0) if words else ""
        if not value:
            raise RequestError(f"{flag} needs a value.")
        if flag in ("--seeds", "--jobs"):
            setattr(request, flag[2:], counted(f"{flag} ", value, MOST))
        elif flag == "--rows":
            request.rows = [row.strip() for row in value.split(",") if row.strip()]
        elif flag == "--out":
            request.out = Path(os.path.expanduser(value))
        else:
            request.preset = value
    known = [*experiments(), "all"]
    for item in request.items:
        if item not in known:
            raise RequestError(f"{item} cannot be reproduced.{nearest(item, known)}\n  There are: {', '.join(known)}.")
    if "all" in request.items:
        request.items = experiments()
    if request.rows and len(request.items) > 1:
        raise RequestError(f"--rows is of one item, and there are {len(request.items)}: {', '.join(request.items)}.")
    if not request.items:
        raise RequestError(f"no item given. There are: {', '.join(known)}.")
    if request.launcher and request.jobs > 1:
        raise RequestError("--jobs and hydra/launcher exclude each other; a launcher has hydra.launcher.n_jobs.")
    for word in request.words:
        if word.lstrip("+").startswith(("seed=", "experiment=", "hydra.run.", "hydra.sweep.", "resume=")):
            raise RequestError(f"{word} is for reproduce to say. Seeds are chosen by --seeds N.")
    return request
