"""An experiment as `odenet reproduce` sees it: its cells, each an ordinary run found by the hash of its config.

What there is to run stands in `conf/experiment/NAME.yaml` under `reproduce`:

    presets  name -> {about, seeds, words, rows, and values for the {braces} in the words of rows}; `rows` has words of
             the preset for single rows, which the report tells
    parts    name -> {rows: {name -> words}, words, …}; a comma list in a word is one cell for each value

and of a part

    seeded   every seed of the preset, instead of seed 0 alone; `seeds` names others
    alone    its cells are timed: one after the other, when all others are done
    presets  those that have this part; all, where it is left out
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

from omegaconf import OmegaConf

from odenet_cli.config.check import leaves
from odenet_cli.config.presets import conf_dir, options, written
from odenet_cli.config.resolve import complete
from odenet_cli.config.schema import INCIDENTAL, Config
from odenet_cli.errors import RequestError
from odenet_cli.registry import require
from odenet_cli.reproduce import kept_cells
from odenet_cli.request.compose import Composer, to_config
from odenet_cli.request.data import data_key, on_gpu, resolve_runs
from odenet_cli.request.hydra_errors import translate_hydra_errors
from odenet_cli.request.overrides import parse, quote_override
from odenet_cli.request.trust import check_composed

CELLS = Path("runs/cells")
# Keys that came later, with the value that every cell before them had.
ADDED = {"optim.schedule": "steps"}


@dataclass
class Request:
    """What was asked for. `words` are for all runs."""

    items: list[str] = field(default_factory=list)
    preset: str = "quick"
    seeds: int | None = None
    rows: list[str] = field(default_factory=list)
    jobs: int = 1
    out: Path = Path("results")
    dry: bool = False
    keep: bool = False
    words: list[str] = field(default_factory=list)

    @property
    def launcher(self) -> bool:
        return any(word.startswith(("hydra/launcher", "hydra.launcher")) for word in self.words)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of an experiment.

    words   what `odenet train` is told
    folder  `runs/cells/<hash of its config>`
    alone   it is timed, so nothing runs beside it
    """

    part: str
    row: str
    seed: int
    words: tuple[str, ...]
    config: Config
    folder: Path

    @property
    def kept(self) -> bool:
        """Is it kept with the results?"""
        return kept_cells.is_kept(self.folder)

    @property
    def title(self) -> str:
        """What a table of cells calls it."""
        swept = [word for word in self.words if word in self.varied]
        return ", ".join([self.row, *swept, f"seed {self.seed}"])

    varied: tuple[str, ...] = ()
    alone: bool = False


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
    read = {name: OmegaConf.load(conf_dir() / "experiment" / f"{name}.yaml") for name in options("experiment")}
    return [name for name, content in read.items() if OmegaConf.select(content, f"reproduce.{name}") is not None]


def plan(item: str, preset: str, seeds: int | None, rows: Sequence[str], said: Sequence[str]) -> Plan:
    """The cells of `item`. `said` are the user's own words, for all cells; `rows` keeps only these."""
    require("item", item, experiments())
    composer = Composer(parse(said))
    section = _section(item, composer)
    presets, parts = section.pop("presets"), section.pop("parts")
    chosen = dict(presets[require("--preset", preset, presets)])
    parts = {name: part for name, part in parts.items() if preset in part.get("presets", presets)}
    whole, words, about = chosen.pop("seeds"), chosen.pop("words"), chosen.pop("about")
    single: dict[str, list[str]] = chosen.pop("rows", {})
    known = dict.fromkeys(name for part in parts.values() for name in part["rows"])
    for name in rows:
        require("--rows", name, known)

    if not any(part.get("seeded") for part in parts.values()):
        seeds = whole = 1
    changes, ours = [word for word in said if not incidental(word)], {key_said(word) for word in said}
    single = {row: [word for word in own if key_said(word) not in ours] for row, own in single.items()}
    about += "".join(f"; {row} with {' '.join(own)}" for row, own in single.items() if own and row in (rows or known))
    cells: list[Cell] = []
    for part, content in parts.items():
        for seed in content.get("seeds") or range((seeds or whole) if content.get("seeded") else 1):
            for row, own in content["rows"].items():
                if not rows or row in rows:
                    told = [*words, *single.get(row, ()), *content.get("words", ()), *own]
                    last = {key_said(word): word.format_map(chosen) for word in told}  # a row's own word counts
                    told = [word for key, word in last.items() if key not in ours]
                    told = [f"experiment={item}", *told, f"seed={seed}", *said]
                    cells += _cells(composer, part, row, seed, told, content.get("alone", False))
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
    found = resolve_runs({cell.folder: cell.config for cell in cells})
    os.environ["ODENET_REQUEST"] = json.dumps({"command": "odenet reproduce", **found})  # for a launcher's jobs
    keys = {cell.folder: data_key(complete(cell.config, on_gpu(cell.config)).data) for cell in cells}
    return {folder: found["data"][key] for folder, key in keys.items() if key in found["data"]}


def key_said(word: str) -> str:
    """The key of an override."""
    return word.lstrip("+~").partition("=")[0]


def incidental(word: str) -> bool:
    """Does this word leave what a run computes as it is?"""
    key = key_said(word)
    return key in INCIDENTAL or _hydras(word)


def digest(config: Config) -> str:
    """The hash of what a run computes: its complete config without names, places, device and the rhythm of the log.

    What is null, or as in `ADDED`, is left out, so that a key that is new makes no cell another one. A number is
    written as its key is: 1 and 1.0 are the same.
    """
    kinds = {**dict(_kinds(Config)), **_kinds_written(config)}
    values = {key: value for key, value in leaves(asdict(config)) if key not in INCIDENTAL and value is not None}
    spelled = {key: _spelled(value, kinds.get(key)) for key, value in values.items() if ADDED.get(key) != value}
    return hashlib.sha256(json.dumps(spelled, sort_keys=True).encode()).hexdigest()[:16]


def _kinds(schema: type[Any], key: str = "") -> Iterator[tuple[str, type]]:
    """The keys of a schema that are real numbers."""
    hints = get_type_hints(schema)
    for entry in fields(schema):
        hint = hints[entry.name]
        if is_dataclass(hint):
            yield from _kinds(hint, f"{key}{entry.name}.")  # type: ignore[arg-type]
        elif hint in (float, float | None):
            yield f"{key}{entry.name}", float


def _kinds_written(config: Config) -> dict[str, type]:
    """How the presets of the model and of the data write their numbers: `1.0`, or `1`, as what is null there."""
    presets = {group: written(group, getattr(config, group)["name"]) for group in ("model", "data")}
    return {
        f"{group}.{key}": float if isinstance(value, float) else int
        for group, preset in presets.items()
        for key, value in preset.items()
        if value is None or type(value) in (int, float)
    }


def _spelled(value: Any, kind: type | None) -> Any:
    """A number of the kind, if it is one; 1.5 has no other spelling, and what is no number stays."""
    if kind is None or type(value) not in (int, float):
        return value
    if kind is float:
        return value + 0.0  # not -0.0
    return int(value) if value == value // 1 else value


def _section(item: str, composer: Composer) -> dict[str, Any]:
    """The `reproduce` of an experiment, composed by Hydra, so that one experiment may build on another."""
    with composer.translate_errors():
        cfg = composer.compose([f"experiment={item}", *filter(_hydras, composer.overrides)])
        found = OmegaConf.to_container(cfg.reproduce[item], resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


def _hydras(word: str) -> bool:
    """Is this word for Hydra, not for a run?"""
    return key_said(word).startswith(("hydra.", "hydra/"))


def _cells(composer: Composer, part: str, row: str, seed: int, words: list[str], alone: bool) -> list[Cell]:
    """The cells of a row: one for each combination of the values in its words."""
    words = composer.overrides = [quote_override(word) for word in words if not _hydras(word)]
    with translate_hydra_errors(words, composer.keys):
        points = composer.split(words)
    varied = tuple(word for point in points for word in point if not all(word in other for other in points))
    cells = []
    for point in points:
        with translate_hydra_errors(point, composer.keys):
            cfg = composer.point(point)
            check_composed(cfg)
            config = to_config(cfg)
        if config.data["name"] == "auto":
            raise RequestError("data=auto cannot be reproduced: say which data, or leave it to the preset.")
        folder = CELLS / digest(complete(config, on_gpu(config)))
        known: dict[str, Any] = {"part": part, "row": row, "seed": seed, "varied": varied, "alone": alone}
        cells.append(Cell(**known, words=tuple(point), config=config, folder=folder))
    return cells
