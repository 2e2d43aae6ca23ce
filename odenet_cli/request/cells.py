"""An experiment as `odenet reproduce` sees it: its cells, each an ordinary run found by the hash of its config.

What there is to run stands in `conf/experiment/NAME.yaml` under `reproduce`:

    presets  name -> {about, seeds, words, and values for the {braces} in the words of rows}
    parts    name -> {rows: {name -> words}, words, seeded}; a comma list in a word is one cell for each value
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from odenet_cli.config import INCIDENTAL, Config, complete
from odenet_cli.errors import RequestError
from odenet_cli.presets import options
from odenet_cli.ranges import leaves
from odenet_cli.registry import require
from odenet_cli.request.arguments import parse
from odenet_cli.request.compose import Composer, typed
from odenet_cli.request.explain import explained
from odenet_cli.request.guard import guard
from odenet_cli.request.settle import key_of, on_gpu, settle

CELLS = Path("runs/cells")


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of an experiment.

    words   what `odenet train` is told
    folder  `runs/cells/<hash of its config>`
    """

    part: str
    row: str
    seed: int
    words: tuple[str, ...]
    config: Config
    folder: Path

    @property
    def title(self) -> str:
        """What a table of cells calls it."""
        swept = [word for word in self.words if word in self.varied]
        return ", ".join([self.row, *swept, f"seed {self.seed}"])

    varied: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What one preset of an experiment asks for.

    about    of the preset, in words
    seeds    that were asked for, and `whole`, those the preset has
    changes  the user's own words that change what is computed
    rest     what else the experiment's YAML says: what to measure, what to expect
    """

    item: str
    preset: str
    about: str
    seeds: int
    whole: int
    changes: tuple[str, ...]
    cells: tuple[Cell, ...]
    rest: dict[str, Any]


def experiments() -> list[str]:
    """The experiments that can be reproduced: those whose YAML has a section of their own under `reproduce`."""
    return [name for name in options("experiment") if name in _section(name)]


def plan(item: str, preset: str, seeds: int | None, rows: Sequence[str], said: Sequence[str]) -> Plan:
    """The cells of `item`. `said` are the user's own words, for all cells; `rows` keeps only these."""
    require("item", item, experiments())
    section = dict(_section(item)[item])
    presets, parts = section.pop("presets"), section.pop("parts")
    chosen = dict(presets[require("--preset", preset, presets)])
    whole, words, about = chosen.pop("seeds"), chosen.pop("words"), chosen.pop("about")
    known = [name for part in parts.values() for name in part["rows"]]
    for name in rows:
        require("--rows", name, known)

    changes = [word for word in said if not incidental(word)]
    cells: list[Cell] = []
    for part, content in parts.items():
        for seed in range((seeds or whole) if content.get("seeded") else 1):
            for row, own in content["rows"].items():
                if not rows or row in rows:
                    told = [*words, *content.get("words", ()), *[word.format_map(chosen) for word in own]]
                    told += [f"seed={seed}", *said]
                    cells += _cells(part, row, seed, [f"experiment={item}", *told])
    return Plan(
        item=item,
        preset=preset,
        about=about,
        seeds=seeds or whole,
        whole=whole,
        changes=tuple(changes),
        cells=tuple(cells),
        rest=section,
    )


def settled_cells(cells: Sequence[Cell]) -> dict[Path, dict[str, Any]]:
    """Check what only torch and the disk can tell; the record of each cell's data, by its folder."""
    found = settle({cell.folder: cell.config for cell in cells})
    os.environ["ODENET_REQUEST"] = json.dumps({"command": "odenet reproduce", **found})  # for a launcher's jobs
    keys = {cell.folder: key_of(complete(cell.config, on_gpu(cell.config)).data) for cell in cells}
    return {folder: found["data"][key] for folder, key in keys.items() if key in found["data"]}


def incidental(word: str) -> bool:
    """Does this word leave what a run computes as it is?"""
    key = word.lstrip("+~").partition("=")[0]
    return key in INCIDENTAL or key.startswith(("hydra.", "hydra/"))


def digest(config: Config) -> str:
    """The hash of what a run computes: its complete config without names, places, device and the rhythm of the log."""
    values = {key: value for key, value in leaves(asdict(config)) if key not in INCIDENTAL}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _section(item: str) -> dict[str, Any]:
    """The `reproduce` of an experiment, composed by Hydra, so that one experiment may build on another."""
    composer = Composer(parse([f"experiment={item}"]))
    with explained(composer.overrides, composer.keys):
        cfg = composer.compose(composer.overrides)
        found = OmegaConf.to_container(cfg.reproduce, resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def _cells(part: str, row: str, seed: int, words: list[str]) -> list[Cell]:
    """The cells of a row: one for each combination of the values in its words."""
    composer = Composer(parse(words))
    composer.multirun = True
    with explained(composer.overrides, composer.keys):
        master, _ = composer.master()
        points = composer.points(master)
    varied = tuple(word for point in points for word in point if not all(word in other for other in points))
    cells = []
    for point in points:
        with explained(point, composer.keys):
            cfg = composer.compose(point)
            guard(cfg)
            config = typed(cfg)
        if config.data["name"] == "auto":
            raise RequestError("data=auto cannot be reproduced: say which data, or leave it to the preset.")
        folder = CELLS / digest(complete(config, on_gpu(config)))
        cells.append(
            Cell(part=part, row=row, seed=seed, words=tuple(point), config=config, folder=folder, varied=varied)
        )
    return cells
