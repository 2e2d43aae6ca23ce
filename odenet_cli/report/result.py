"""Hold the results of an item, and write them to files: results/ITEM/PRESET.*"""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure

from odenet_cli.files import write_output
from odenet_cli.markdown import MISSING, markdown_table
from odenet_cli.report import style
from odenet_cli.report.export import csv_text
from odenet_cli.report.provenance import Provenance, data_of
from odenet_cli.report.runs import Run
from odenet_cli.report.text import bullets, seeds_text

NO_FIGURE = "There is no figure: not enough of its cells are done."

Facts = dict[str, float | None]  # identifier -> value


class Entry(NamedTuple):
    """Hold a cell of an experiment and its run; `measured` are the rows of what was measured on its network."""

    part: str
    row: str
    run: Run
    measured: Sequence[dict[str, Any]] = ()

    def measurements(self, kind: str) -> list[dict[str, Any]]:
        return [row for row in self.measured if row["kind"] == kind]


@dataclass(kw_only=True)
class Result:
    """Hold tables and figures of one item.

    title    and `labels` are those of the item's module
    verdict  the conclusion in two sentences, which stands first
    body     Markdown; a figure stands where it says `![name]`
    rows     one for each line of the CSV
    figures  name -> figure; None where there are too few runs for it
    films    name -> maker of a moving figure below a line of text; it becomes a GIF
    seeds    name -> the seeds that a figure or film shows, in words; left out, those of all finished runs
    facts    the numbers that the experiment's `expect` refers to, by identifier: `name` or `name/argument/argument`
    labels   name of a fact -> its label, with a `{}` for each argument
    """

    body: list[str]
    rows: list[dict[str, Any]] = field(default_factory=list)
    figures: dict[str, Figure | None] = field(default_factory=dict)
    films: dict[str, Callable[[str], FuncAnimation]] = field(default_factory=dict)
    seeds: dict[str, str] = field(default_factory=dict)
    facts: Facts = field(default_factory=dict)
    verdict: str = ""
    title: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)

    def label(self, fact: str) -> str:
        """Return the label of a fact in reports."""
        name, *arguments = fact.split("/")
        return self.labels[name].format(*arguments)


@dataclass(frozen=True, kw_only=True)
class About:
    """Hold which preset the result is of, and how far it is complete.

    partial  what is missing or was changed, in words
    missing  the cells that are not done, and why
    """

    item: str
    preset: str
    text: str
    partial: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


class Check(NamedTuple):
    """Hold an expectation, a range in which None is no bound, and what was measured."""

    what: str
    low: float | None
    high: float | None
    measured: float | None

    @property
    def hit(self) -> bool:
        low = -math.inf if self.low is None else self.low
        high = math.inf if self.high is None else self.high
        return self.measured is not None and low <= self.measured <= high

    @property
    def outcome(self) -> str:
        return "as expected" if self.hit else "MISS" if self.measured is not None else "not measured"

    @property
    def cells(self) -> list[str]:
        if self.low is not None and self.high is not None:
            bounds = f"{self.low:g} to {self.high:g}"
        else:
            bounds = f"at least {self.low:g}" if self.low is not None else f"at most {self.high:g}"
        return [self.what, bounds, MISSING if self.measured is None else f"{self.measured:.4g}", self.outcome]


def result_of(item: str, entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """Return the result of an item, `items/ITEM.py`, which has a TITLE, the LABELS of its facts, and `result`.

    rest  what the experiment's YAML says for the report: notes, the paper's numbers
    """
    module = importlib.import_module(f"odenet_cli.report.items.{item}")
    result: Result = module.result(entries, rest)
    done = seeds_text(entry.run.seed for entry in entries if entry.run.done)
    seeds = {name: result.seeds.get(name, done) for name in (*result.figures, *result.films)}
    return replace(result, title=module.TITLE, labels=module.LABELS, seeds=seeds)


def check_expectations(result: Result, expected: Mapping[str, Sequence[float | None]]) -> list[Check]:
    """Compare the facts with the experiment's expectations, `identifier: [low, high]`."""
    return [Check(result.label(name), low, high, result.facts.get(name)) for name, (low, high) in expected.items()]


@dataclass(frozen=True, kw_only=True)
class Page:
    """Hold all that is written of an item: results/ITEM/PRESET.*"""

    result: Result
    about: About
    checks: Sequence[Check]
    source: Provenance

    def markdown(self, there: Collection[str] = ()) -> str:
        """Return the report: title, tables, figures, expected beside measured, and where the numbers come from.

        there  names of files that are in the folder already
        """
        result, about = self.result, self.about
        partial = f" ({'; '.join(about.partial)})" if about.partial else ""
        parts = [f"# {result.title}: {about.preset} preset{partial}", *[f"**{result.verdict}**"] * bool(result.verdict)]
        parts += [f"{about.text[:1].upper()}{about.text[1:]}."]
        for text in result.body:
            if text.startswith("![") and text.endswith("]"):
                name = text[2:-1]
                film, figure = (f"{about.preset}-{name}.{kind}" for kind in ("gif", "svg"))
                if name in result.films or film in there:
                    text = f"![{name}]({film})"
                elif result.figures.get(name) is not None or figure in there:
                    text = f"![{name}]({figure})"
                else:
                    text = NO_FIGURE
            parts.append(text)
        if self.checks:
            table = markdown_table(["", "expected", "measured", ""], [check.cells for check in self.checks], left=1)
            parts += ["## Expected and measured", table]
        if about.missing:
            parts += ["## Not done, and in no number above", bullets(about.missing)]
        return "\n\n".join([*parts, bullets(self.source.lines())]) + "\n"

    def texts(self) -> dict[str, str]:
        """Return the texts by their endings: md, csv (every row with the command that made it), json."""
        result, command = self.result, self.source.command
        columns = dict.fromkeys(key for row in result.rows for key in row)
        content = {"title": result.title, "verdict": result.verdict, **asdict(self.about)}
        content |= {"source": asdict(self.source)}
        content |= {"expected": [{**check._asdict(), "hit": check.hit} for check in self.checks]}
        content |= {"facts": {result.label(name): value for name, value in result.facts.items()}, "rows": result.rows}
        return {
            "md": self.markdown(),
            "csv": csv_text([*columns, "command"], ({**row, "command": command} for row in result.rows)),
            "json": json.dumps(content, indent=1, ensure_ascii=False) + "\n",
        }

    def write(self, folder: Path) -> list[Path]:
        """Write `PRESET.md`, `.csv`, `.json`, every figure as SVG and PNG, every film as GIF; each in one move."""
        folder.mkdir(parents=True, exist_ok=True)
        texts = self.texts().items()
        return [write_output(folder / f"{self.about.preset}.{kind}", text) for kind, text in texts] + self.draw(folder)

    def draw(self, folder: Path) -> list[Path]:
        """Write the figures and films; above each stands item, preset and seeds."""
        result, about, files = self.result, self.about, list[Path]()
        partial = " (partial)" if about.partial else ""
        head = f"{result.title.partition(',')[0]}, {about.preset} preset{partial}"
        for name, figure in result.figures.items():
            if figure is not None:
                style.head(figure, f"{head}, {result.seeds[name]}")
                files += style.save(figure, folder / f"{about.preset}-{name}", self.source.text())
        for name, film in result.films.items():
            files.append(style.save_film(film(f"{head}, {result.seeds[name]}"), folder / f"{about.preset}-{name}"))
        return files


def csv_row(entry: Entry, names: Sequence[str] = ()) -> dict[str, Any]:
    """Return a line of a CSV: which cell it is, the numbers `names` of its run, and where they come from."""
    run = entry.run
    origin = {"machine": run.record.get("device"), "commit": run.record.get("git"), "data": data_of(run)}
    return {
        **{"part": entry.part, "row": entry.row, "seed": run.seed, "status": run.status},
        **{name: run.value(name) for name in names},
        **origin,
        "cell": run.folder.name,
    }
