"""Compute a committed table again from the kept weights: odenet verify table1 [--preset day]

Computes the numbers of results/ITEM/PRESET.* again from the cells in results/cells, and says which are equal, which
differ, and which cannot be checked here (times). No network is trained to its end, and nothing is written to results/
or runs/, unless --retrain asks for it.

  odenet verify table1 --preset day                      minutes on two cores
  odenet verify table1 --preset day --retrain 5bd2a77d   train one cell again as well, in runs/retrained

From the weights: test and validation error, parameters, function evaluations, memory saved for a backward pass. From
the first steps, taken again: those of cells that only measure steps. From the records: means, intervals, verdicts.
Figures are not compared.

Equal is the same number, or one that rounding on another CPU explains; what rounding can do is measured where a number
is not the same. Predictions may differ of digits whose two largest logits are nearer than 8 times the error of float32;
evaluations as they do for a tolerance changed by 0.1 %, and by one step of one batch. Of a GPU the rounding is that of
TF32. A cell trained again on the same machine and versions has the same bits; on others its test error may differ as
those of two networks that err independently: by 1.96 times the root of their wrong answers.

Exit code 1 where a number differs, 2 where a kept file is damaged or there is nothing to verify."""

from __future__ import annotations

import shlex
import tempfile
import time
from argparse import Namespace
from pathlib import Path

from odenet_cli.commands import _common, reproduce
from odenet_cli.config.presets import options
from odenet_cli.errors import RequestError

MAX_LISTED = 20  # differences

PARSER = _common.Parser(__name__, __doc__)
PARSER.add_argument("items", metavar="ITEM", nargs="+", help="the table or figure")
PARSER.add_argument("--preset", metavar="NAME", default="quick", help="quick, cpu, day or paper")
PARSER.add_argument("--retrain", metavar="HASH", help="the cell whose hash begins so; any: a random one")
PARSER.add_argument("--data.root", metavar="FOLDER", help="where the data are")
PARSER.add_argument("--device", metavar="cpu", help="where to compute; left out: the kind of device that trained")
PARSER.offers = lambda: options("experiment")


@PARSER.command
def main(request: Namespace) -> int:
    """Verify one item."""
    from odenet_cli.reproduce.plan import experiments

    reproduce.check_items(request.items, experiments(), "verified")
    if len(request.items) != 1:
        raise RequestError(f"say one item: {', '.join(experiments())}.")
    places = {key: value for key in ("data.root", "device") if (value := getattr(request, key)) is not None}

    from odenet_cli.reproduce import verification

    page = verification.load_page(request.items[0], request.preset)
    made_by = reproduce.parse(shlex.split(page["json"]["source"]["command"])[2:])
    planned = verification.plan_page(request.items[0], request.preset, page, made_by)
    chosen = verification.choose_cell(planned, request.retrain) if request.retrain else None

    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="odenet-verify-") as scratch:
        copies = verification.unpack(planned, Path(scratch))
        title = f"{planned.item}, {planned.preset} preset"
        print(f"{title}: {len(copies)} kept cells, every file as its SHA-256 says", flush=True)
        tally = verification.verify_records(planned, page, copies)
        for folder, copy in copies.items():
            verification.verify_cell(planned.by_folder[folder], copy, places, tally)
        verification.verify_measurement(planned, copies, tally)
    print(f"\n{tally.table()}\n\n{time.perf_counter() - started:.0f} s", flush=True)
    if chosen is not None:
        verification.retrain(chosen, places, tally)
    for line in tally.differences[:MAX_LISTED]:
        print(f"differs: {line}")
    if len(tally.differences) > MAX_LISTED:
        print(f"and {len(tally.differences) - MAX_LISTED} more")
    return int(bool(tally.differences))
