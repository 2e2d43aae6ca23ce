"""`resume=RUN`: the run in that folder, with its saved configuration."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser

from odenet_cli.config.saved import load, read_saved
from odenet_cli.config.schema import DATA_PLACES, INCIDENTAL
from odenet_cli.errors import RequestError
from odenet_cli.request.hydra_errors import explained
from odenet_cli.request.overrides import quote
from odenet_cli.training.identity import find_moved_data

WHERE = sorted(key for key in INCIDENTAL - {"resume"} if not key.startswith("trainer."))
FREE = ("trainer.", "hydra.", "model.target=", *(f"{key}=" for key in WHERE))


def resumed(args: argparse.Namespace) -> argparse.Namespace:
    """`resume=RUN` as the request it stands for: RUN's saved configuration, in RUN, resumed."""
    said = [override for override in args.overrides if override.lstrip("+").partition("=")[0] == "resume"]
    with explained(said):
        value = OverridesParser.create().parse_override(said[-1]).value() if said else None
    if not isinstance(value, str) or value in ("none", "auto", ""):
        return args

    folder = Path(os.path.expanduser(value))
    if not read_saved(folder):  # one that is damaged is refused by its name
        raise RequestError(
            f"resume={value} is not the folder of a run: there is no {folder / 'config.yaml'}.\n"
            "  resume takes none, auto (the run in hydra.run.dir) or the folder of a run."
        )
    if args.multirun or args.config_name:
        raise RequestError(f"resume={value} goes on with one run as it was saved; leave out -m and --config-name.")
    rest = [override for override in args.overrides if override not in said]
    for override in rest:
        if not override.lstrip("+").startswith(FREE):
            raise RequestError(
                f"{override} cannot change while a run goes on; only trainer.* can, and {', '.join(WHERE)}.\n"
                f"  As a new run: odenet train --config-dir {value} --config-name config {override}"
            )
    if not any(override.lstrip("+").partition("=")[0] in DATA_PLACES for override in rest):
        rest += [f"{key}={quote(place)}" for key, place in find_moved_data(folder, load(folder)).items()]
    changes = {
        "config_dir": str(folder),
        "config_name": "config",
        "overrides": [*rest, "resume=auto", f"hydra.run.dir={quote(str(folder))}"],
    }
    return argparse.Namespace(**{**vars(args), **changes})
