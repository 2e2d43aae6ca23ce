"""Plan an item: its cells, each an ordinary run found by the hash of its config.

`conf/experiment/NAME.yaml` says under `reproduce.NAME` what there is to run:

    presets  name -> {about, seeds, words, rows, and values for the {braces} in overrides}; `words` are overrides of all
             cells, `rows` those of the preset for single rows, which the page tells
    parts    name -> {rows: {name -> overrides}, words, …}; a comma list in an override is one cell for each value

and of a part

    seeded   every seed of the preset, instead of seed 0 alone; `seeds` names others
    alone    its cells are timed: they run one after the other when all others are done
    presets  those that have this part; left out, all have it
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from odenet_cli.config.check import leaves
from odenet_cli.config.presets import conf_dir, options, written
from odenet_cli.config.resolve import complete
from odenet_cli.config.schema import INCIDENTAL, Config, find_field, key_of
from odenet_cli.errors import RequestError
from odenet_cli.registry import require, require_alike
from odenet_cli.reproduce import kept_cells
from odenet_cli.request.compose import Composer, to_config
from odenet_cli.request.data import data_key, on_gpu, resolve_runs
from odenet_cli.request.hydra_errors import translate_hydra_errors
from odenet_cli.request.overrides import parse, quote_override
from odenet_cli.request.trust import check_composed

CELLS = Path("runs/cells")
RHYTHM = "trainer.log_every"  # not in the hash of a cell
# Keys that came later, with the value that every cell before them had: they are left out of the hash.
ADDED_KEYS = {"optim.schedule": "steps"}


@dataclass
class ReproduceRequest:
    """Hold the arguments of `odenet reproduce`.

    seeds      how many; None means as many as the preset has
    jobs       how many runs side by side
    overwrite  a partial page may take the place of a fuller or committed one
    overrides  the user's own, for all runs
    """

    items: list[str] = field(default_factory=list)
    preset: str = "quick"
    seeds: int | None = None
    rows: list[str] = field(default_factory=list)
    jobs: int = 1
    out: Path = Path("results")
    dry_run: bool = False
    keep: bool = False
    overwrite: bool = False
    redraw: bool = False
    overrides: list[str] = field(default_factory=list)

    @property
    def uses_launcher(self) -> bool:
        return any(key_of(word).startswith(("hydra/launcher", "hydra.launcher")) for word in self.overrides)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Hold one run of an item.

    overrides  of `odenet train`
    varied     those of them that differ between the cells of the row
    folder     `runs/cells/<hash of its config>`
    alone      it is timed, so nothing runs beside it
    """

    part: str
    row: str
    seed: int
    overrides: tuple[str, ...]
    config: Config
    folder: Path
    varied: tuple[str, ...] = ()
    alone: bool = False

    @property
    def kept(self) -> bool:
        return kept_cells.is_kept(self.folder)

    @property
    def title(self) -> str:
        """Return the name of the cell in messages: row, varied overrides, seed."""
        return ", ".join([self.row, *(word for word in self.overrides if word in self.varied), f"seed {self.seed}"])


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Hold the runs that one preset of an item asks for.

    about         the preset, in words
    seeds         how many were asked for
    preset_seeds  how many the preset has
    rows          which of the item's rows these are, by the shorter list; empty: all
    changes       the user's overrides that change what is computed
    settings      the rest of the experiment's section: what to measure, what to expect
    """

    item: str
    preset: str
    about: str
    seeds: int
    preset_seeds: int
    rows: str
    changes: tuple[str, ...]
    cells: tuple[Cell, ...]
    settings: dict[str, Any]

    @property
    def expected(self) -> dict[str, list[float | None]]:
        """Return fact -> [low, high] of this preset."""
        expect = self.settings.get("expect", {})
        return {**expect.get("all", {}), **expect.get(self.preset, {})}

    @property
    def by_folder(self) -> dict[Path, Cell]:
        """Return the cells by their folders; a cell that stands in two parts has one."""
        return {cell.folder: cell for cell in self.cells}


def rows_text(rows: Sequence[str], others: Sequence[str]) -> str:
    """Return which rows were asked for, as the shorter of what is there and what is left out; empty for all."""
    if not rows or not others:
        return ""
    return f"only {', '.join(rows)}" if len(rows) <= len(others) else f"without {', '.join(others)}"


@functools.cache
def experiments() -> tuple[str, ...]:
    """Return the names of the items: experiments whose YAML has a section of their own under `reproduce`."""
    contents = {name: OmegaConf.load(conf_dir() / "experiment" / f"{name}.yaml") for name in options("experiment")}
    return tuple(n for n, content in contents.items() if OmegaConf.select(content, f"reproduce.{n}") is not None)


def plan(item: str, preset: str, seeds: int | None, rows: Sequence[str], overrides: Sequence[str]) -> Plan:
    """Return the plan of `item` in a preset.

    seeds      how many; None means as many as the preset has
    rows       only these, spelled in any case and with or without hyphens; none means all
    overrides  the user's own, for all cells, in the place of the experiment's
    """
    require("item", item, experiments())
    composer = Composer(parse(overrides))
    settings = _settings(item, composer)
    presets, parts = settings.pop("presets"), settings.pop("parts")
    values = dict(presets[require("--preset", preset, presets)])
    parts = {name: part for name, part in parts.items() if preset in part.get("presets", presets)}
    preset_seeds, common, about = values.pop("seeds"), values.pop("words"), values.pop("about")
    all_rows = dict.fromkeys(row for part in parts.values() for row in part["rows"])
    rows = [require_alike("--rows", row, all_rows) for row in rows]
    if not any(part.get("seeded") for part in parts.values()):
        seeds = preset_seeds = 1

    users = {key_of(word) for word in overrides}
    of_row = {row: [word for word in own if key_of(word) not in users] for row, own in values.pop("rows", {}).items()}
    for row, own in of_row.items():
        about += f"; {row} with {' '.join(own)}" if own and row in (rows or all_rows) else ""
    cells: list[Cell] = []
    for name, part in parts.items():
        for seed in part.get("seeds") or range((seeds or preset_seeds) if part.get("seeded") else 1):
            for row in (row for row in part["rows"] if row in (rows or all_rows)):
                # Of two overrides of a key the later one counts: a row's own before its part's, the user's before all.
                layers = [*common, *of_row.get(row, ()), *part.get("words", ()), *part["rows"][row]]
                last = {key_of(word): word.format_map(values) for word in layers}
                # Where a part says how often a record is written, its page has the numbers of single records.
                typed = [word for word in overrides if not (key_of(word) == RHYTHM and RHYTHM in last)]
                words = [word for key, word in last.items() if key not in map(key_of, typed)]
                words = [f"experiment={item}", *words, f"seed={seed}", *typed]
                cells += _cells(composer, words, part=name, row=row, seed=seed, alone=part.get("alone", False))
    return Plan(
        item=item,
        preset=preset,
        about=about,
        seeds=seeds or preset_seeds,
        preset_seeds=preset_seeds,
        rows=rows_text(rows, [row for row in all_rows if row not in rows]),
        changes=tuple(word for word in overrides if not is_incidental(word)),
        cells=tuple(cells),
        settings=settings,
    )


def check_cells(cells: Sequence[Cell]) -> dict[Path, dict[str, Any]]:
    """Check what needs torch or the disk, and return the record of each cell's data by its folder.

    Also puts what a launcher's jobs need into ODENET_REQUEST.
    """
    resolved = resolve_runs({cell.folder: cell.config for cell in cells})
    os.environ["ODENET_REQUEST"] = json.dumps({"command": "odenet reproduce", **resolved})
    keys = {cell.folder: data_key(complete(cell.config, on_gpu(cell.config)).data) for cell in cells}
    return {folder: resolved["data"][key] for folder, key in keys.items() if key in resolved["data"]}


def is_incidental(override: str) -> bool:
    """Return whether an override does not change the results of a run."""
    return key_of(override) in INCIDENTAL or is_for_hydra(override)


def is_for_hydra(override: str) -> bool:
    return key_of(override).startswith(("hydra.", "hydra/"))


def _settings(item: str, composer: Composer) -> dict[str, Any]:
    """Return the section `reproduce` of an experiment, composed by Hydra, so that one may build on another."""
    with composer.translate_errors():
        for_hydra = [*filter(is_for_hydra, composer.overrides)]
        words = [f"experiment={item}", *for_hydra]
        cfg = composer.compose(words) if for_hydra else composer.point(words)
        content: Any = OmegaConf.to_container(cfg.reproduce[item], resolve=True)
    return {str(key): value for key, value in content.items()}


def _cells(composer: Composer, overrides: list[str], **place: Any) -> list[Cell]:
    """Return the cells of a row: one for each combination of the values in its overrides."""
    composer.overrides = [quote_override(word) for word in overrides if not is_for_hydra(word)]
    with composer.translate_errors():
        points = composer.split(composer.overrides)
    varied = tuple(word for point in points for word in point if not all(word in other for other in points))
    cells = []
    for point in points:
        with translate_hydra_errors(point, functools.partial(composer.keys, point)):
            cfg = composer.point(point)
            check_composed(cfg)
            config = to_config(cfg)
        if config.data["name"] == "auto":
            raise RequestError("data=auto cannot be reproduced: name a data set, or leave it to the preset.")
        folder = CELLS / digest(complete(config, on_gpu(config)))
        cells.append(Cell(**place, varied=varied, overrides=tuple(point), config=config, folder=folder))
    return cells


def digest(config: Config) -> str:
    """Return a run's hash: that of its complete config without names, places, device and logging.

    A key that is null, or has its value in `ADDED_KEYS`, is left out, so that a new key changes no hash. A number is
    written in the type of its key, so that 1 and 1.0 are the same.
    """
    presets = {group: written(group, getattr(config, group)["name"]) for group in ("model", "data")}
    content = {
        key: _in_type_of_key(key, value, presets)
        for key, value in leaves(config)
        if key not in INCIDENTAL and value is not None and ADDED_KEYS.get(key) != value
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _in_type_of_key(key: str, value: Any, presets: dict[str, dict[str, Any]]) -> Any:
    """Return a number in the type of its key: of the schema or, for options of model and data, of their preset.

    An option whose preset is an int or null may be any number, and is an int where it has no fraction.
    """
    group, _, name = key.partition(".")
    if type(value) not in (int, float):
        return value
    if group in presets:
        preset = presets[group].get(name, "")
        is_float, is_any = isinstance(preset, float), preset is None or type(preset) is int
    else:
        known = find_field(key)
        is_float, is_any = bool(known and known[1] in (float, float | None)), False
    if is_float:
        return value + 0.0  # 0.0 for -0.0
    return int(value) if is_any and value == value // 1 else value
