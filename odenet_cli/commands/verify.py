"""Recompute a committed table, or check a run against other libraries: odenet verify ITEM|RUN

ITEM: computes the numbers of results/ITEM/PRESET.* again from the cells in results/cells, and lists which are equal,
which differ, and which cannot be checked (times). Trains nothing and writes nothing to results/ or runs/, unless
--retrain is given.

  odenet verify table1 --preset day                      minutes on two cores
  odenet verify table1 --preset day --retrain 5bd2a77d   also train one cell again, in runs/retrained

Test and validation errors, parameters, function evaluations and the memory saved for a backward pass are computed from
the weights. For cells that only measure steps, the first steps (at most 20) are taken again. Means, intervals and
verdicts are computed from the records. Figures are not compared. On a CPU several cells are computed at once, with one
process and one thread per core; OMP_NUM_THREADS sets the number of threads per process.

Two numbers are equal if they are the same, or if rounding on another CPU explains the difference; the effect of
rounding is measured wherever a number is not the same. Predictions may differ for digits whose two largest logits are
closer than 8 times the error of float32; function evaluations may differ as they do when the tolerance changes by
0.1 %, and by one step in one batch. For results from a GPU the rounding of TF32 is used. A cell that is trained again
has the same bits on the same machine with the same threads and versions; elsewhere its test error may differ as that of
two networks with independent errors: by 1.96 times the square root of the number of wrong answers.

RUN: other libraries solve the run's own vector field on its first training samples, with its best weights: at the run's
tolerance, and at a tight one in float64. States and gradients are printed beside ours, each as its difference from a
much finer solve. Libraries without gradients for a torch field (scipy, diffrax) evaluate the loss along a few
directions of the parameters instead, and the finite differences are compared with our finest gradient.

  odenet verify last against=torchdiffeq,scipy           default: all that are installed

Exit code 1 if a number differs; for a RUN, if our result at the tight tolerance is farther than threshold=0.01 from the
finer solve, or a requested library is not installed. Exit code 2 if a kept file is damaged or there is nothing to
verify."""

from __future__ import annotations

import shlex
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from odenet_cli.bench import peers
from odenet_cli.commands import _common, reproduce
from odenet_cli.commands._common import describe_solver
from odenet_cli.config.presets import options
from odenet_cli.errors import RequestError
from odenet_cli.registry import nearest, require
from odenet_cli.rundir import holds_run, named_run
from odenet_cli.terminal import Table, say, say_text
from odenet_cli.training.progress import Parts

MAX_LISTED = 20  # differences
PLACES = ("data.root", "device")
SCIPY = "scipy"
SCIPY_TRAIT = "solves in NumPy, always in float64: states and loss only"
LIBRARIES = [*peers.peers(), SCIPY]

PARSER = _common.Parser(__name__, __doc__, keys=[key for key in _common.RUN_KEYS if key not in PLACES])
PARSER.add_argument("words", metavar="ITEM|RUN", nargs="+", help="a table or figure; or the folder of a run, or last")
PARSER.add_argument("--preset", metavar="NAME", default="quick", help="quick, cpu, day or paper")
PARSER.add_argument("--retrain", metavar="HASH", help="train the cell whose hash begins like this; any: a random one")
add = PARSER.add_argument
add("--data.root", metavar="FOLDER", help="where the data are")
add("--device", metavar="cpu", help="where to compute; default: the kind of device it was trained on")
add(
    "--against",
    metavar="A,B",
    type=_common.several(str),
    help=f"RUN: {', '.join(LIBRARIES)}",
)
add("--samples", metavar="N", type=_common.whole(1), default=8, help="RUN: number of samples; default: 8")
add("--tight", metavar="TOL", type=_common.positive, default=1e-6, help="RUN: the tight tolerance; default: 1e-6")
add(
    "--reference",
    metavar="TOL",
    type=_common.positive,
    default=1e-9,
    help="RUN: tolerance of the finer solve; default: 1e-9",
)
add(
    "--threshold",
    metavar="X",
    type=_common.positive,
    default=0.01,
    help="RUN: largest difference; default: 0.01",
)
PARSER.offers = lambda: [*options("experiment"), "last"]
COLUMNS = (("NFE", 6), ("back", 6), ("state max", 9), ("state", 8), ("gradient", 8))


@PARSER.command
def main(request: Namespace) -> int:
    targets = [word for word in request.words if "=" not in word]
    places = {key: value for key in PLACES if (value := getattr(request, key)) is not None}
    if len(targets) != 1:
        raise RequestError(f"Give one item or one run: {', '.join([*experiments(), 'last'])}.")
    overrides = PARSER.read_overrides([word for word in request.words if "=" in word])
    if (name := targets[0]) in experiments():
        if request.against is not None or overrides:
            raise RequestError(f"{next(iter(overrides), 'against')}= only applies to a RUN, and {name} is an item.")
        return verify_item(request, name, places)
    if not holds_run(folder := named_run(name)):
        near = nearest(name, experiments())
        raise RequestError(
            f"{name} cannot be verified: it is neither an item nor the folder of a run.{near}\n"
            f"  There are: {', '.join(experiments())}, and what `odenet runs` lists."
        )
    return verify_run(request, folder, {**overrides, **{key: [value] for key, value in places.items()}})


def verify_item(request: Namespace, item: str, places: dict[str, str]) -> int:
    from odenet_cli.reproduce import verification

    page = verification.load_page(item, request.preset)
    made_by = reproduce.parse(shlex.split(page["json"]["source"]["command"])[2:])
    planned = verification.plan_page(item, request.preset, page, made_by)
    chosen = verification.choose_cell(planned, request.retrain) if request.retrain else None

    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="odenet-verify-") as scratch:
        copies = verification.unpack(planned, Path(scratch))
        title = f"{planned.item}, {planned.preset} preset"
        say_text(f"{title}: {len(copies)} kept cells; all SHA-256 sums agree")
        tally = verification.verify_records(planned, page, copies)
        verification.verify_cells(planned, copies, places, tally)
        verification.verify_measurement(planned, copies, tally)
    print(f"\n{tally.table()}\n\n{time.perf_counter() - started:.0f} s", flush=True)
    if chosen is not None:
        verification.retrain(chosen, places, tally)
    for line in tally.differences[:MAX_LISTED]:
        say_text(f"differs: {line}")
    if len(tally.differences) > MAX_LISTED:
        print(f"and {len(tally.differences) - MAX_LISTED} more")
    return int(bool(tally.differences))


def experiments() -> list[str]:
    from odenet_cli.reproduce import plan

    return list(plan.experiments())


def verify_run(request: Namespace, folder: Path, overrides: _common.Overrides) -> int:
    """Solve a run's equation with other libraries, and print their states and gradients beside ours."""
    from odenet_cli.analysis.gradcheck import solver_of
    from odenet_cli.analysis.trained import needs_float64, needs_solver, trained
    from odenet_cli.analysis.witnesses import Comparison
    from odenet_cli.config.saved import load
    from odenet_cli.training.budget import at_its_end

    run = _common.locate_data(folder, at_its_end(folder, load(folder)), overrides)
    config = _common.overridden(run, overrides)
    needs_float64("verify", config)
    needs_solver(folder, config)
    witnesses, absent = find_witnesses(request.against)
    names = ["odenet", *(witness.name for witness in witnesses)]
    tight = f"{request.tight:g} in float64"
    headings = {
        f"as trained: {describe_solver(config.solver)}, gradient={config.gradient.method}, {config.dtype}": None,
        f"at {tight}, gradient={config.gradient.method}": request.tight,
    }
    ours: dict[str, Any] = {}
    with _common.journal(folder / "verify.jsonl") as append, Parts(1 + len(headings) * len(names)) as parts:
        parts.begin("reference")
        net = trained(folder, config, "best", request.samples)
        say_text(f"{folder}: {net.weights}, {request.samples} training samples of {config.data['name']}")
        comparison = Comparison(net, solver_of(config), request.samples, request.reference)
        nfe = comparison.exact.cost.nfe_forward
        say_text(f"reference: odenet, dopri5 at {request.reference:g} in float64, {nfe:,} function evaluations forward")
        for heading, tolerance in headings.items():
            say(f"\n{heading}")
            table = Table([("solver", max(map(len, names))), *COLUMNS])
            parts.begin(names[0])
            for number, row in enumerate(comparison.rows(witnesses, tolerance), 1):
                table.row(row.solver, *cells(row))
                record = row.record(tolerance)
                append(record)
                ours = record if number == 1 else ours
                if number < len(names):
                    parts.begin(names[number])
    return conclude(request, ours, tight, witnesses, absent)


def conclude(
    request: Namespace, ours: dict[str, Any], tight: str, witnesses: Sequence[Any], absent: dict[str, str]
) -> int:
    """Print notes on the libraries, and the verdict on ours; return the exit code."""
    say("")
    for library in dict.fromkeys(witness.name.partition(" ")[0] for witness in witnesses):
        say_text(f"{library}  {SCIPY_TRAIT if library == SCIPY else peers.library(library).TRAIT}")
    for library, reason in absent.items():
        say(f"{library} {reason}. Install it: {peers.library(library).INSTALL}")
    passed = max(ours["state"], ours["gradient"]) <= request.threshold
    say_text(
        f"{'agreed' if passed else 'not agreed'}: at {tight} ours differs from the reference by {ours['state']:.1e} in "
        f"the states and {ours['gradient']:.1e} in the gradient, {'within' if passed else 'above'} "
        f"threshold={request.threshold:g}"
    )
    missing = any(library in (request.against or ()) for library in absent)
    return int(not passed or missing)


def find_witnesses(against: Sequence[str] | None) -> tuple[list[Any], dict[str, str]]:
    """Return the witnesses that are asked for and here, and why others are not."""
    from odenet_cli.analysis.witnesses import Witness, scipy_solve

    witnesses, absent = [], {}
    for library in against or LIBRARIES:
        require("against", library, LIBRARIES)
        if library == SCIPY:
            witnesses.append(Witness(SCIPY, scipy_solve, differentiates=False))
        elif reason := peers.missing(library):
            absent[library] = reason
        else:
            for mode in peers.library(library).MODES:
                name = f"{library} {mode.removesuffix(' one instance')}".strip()
                witnesses.append(Witness(name, partial(peers.witness, library, mode), differentiates=bool(mode)))
    return witnesses, absent


def cells(row: Any) -> list[str]:
    if row.failed:
        return [f"failed: {row.failed}"]
    numbers = [f"{row.state_max:.1e}", f"{row.state:.1e}", "-" if row.gradient is None else f"{row.gradient:.1e}"]
    return [str(row.cost.nfe_forward), str(row.cost.nfe_backward), *numbers]
