"""What a module of `report/` makes of an experiment's runs, and the files it becomes: results/ITEM/PRESET.*"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure

from odenet_cli.files import write_output
from odenet_cli.report import style
from odenet_cli.report.export import sheet
from odenet_cli.report.provenance import Source
from odenet_cli.report.provenance import data as data_of
from odenet_cli.report.runs import Run
from odenet_cli.report.table import aligned
from odenet_cli.report.text import NONE, bullets

NO_FIGURE = "There is no figure: not enough of its cells are done."


class Entry(NamedTuple):
    """A cell of an experiment and its run; `measured` are the rows of what was measured on its network."""

    part: str
    row: str
    run: Run
    measured: Sequence[dict[str, Any]] = ()

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The rows of one kind."""
        return [row for row in self.measured if row["kind"] == kind]


@dataclass(kw_only=True)
class Result:
    """Tables and figures of one experiment.

    verdict  what follows, in two sentences: the first that is read
    body     Markdown; a figure stands where it says `![name]`
    rows     one for each line of the CSV
    figures  name -> figure; None where there are too few runs for it
    films    name -> what makes a moving figure, which becomes a GIF
    facts    what was found, in numbers: what the experiment expects is held against them
    """

    title: str
    body: list[str]
    rows: list[dict[str, Any]]
    figures: dict[str, Figure | None] = field(default_factory=dict)
    films: dict[str, Callable[[], FuncAnimation]] = field(default_factory=dict)
    facts: dict[str, float | None] = field(default_factory=dict)
    verdict: str = ""


@dataclass(frozen=True, kw_only=True)
class About:
    """Which preset the result is of, and how far it is whole.

    partial  what is missing or was changed, in words
    missing  the cells that are not done, and why
    """

    item: str
    preset: str
    text: str
    partial: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


def judged(facts: Mapping[str, float | None], expected: Mapping[str, Sequence[float | None]]) -> list[dict[str, Any]]:
    """Each expectation, `name: [low, high]`, and whether what was found is within; null is no bound."""
    found = []
    for name, (low, high) in expected.items():
        value = facts.get(name)
        hit = value is not None and (low is None or value >= low) and (high is None or value <= high)
        found.append({"what": name, "low": low, "high": high, "measured": value, "hit": hit})
    return found


def markdown(result: Result, about: About, checks: Sequence[dict[str, Any]], made: Source) -> str:
    """The whole report: title, tables, figures, expected beside measured, and where the numbers come from."""
    whole = f" ({'; '.join(about.partial)})" if about.partial else ""
    parts = [f"# {result.title}: {about.preset} preset{whole}", *[f"**{result.verdict}**"] * bool(result.verdict)]
    parts += [f"{about.text[:1].upper()}{about.text[1:]}."]
    for text in result.body:
        name = text[2:-1] if text.startswith("![") and text.endswith("]") else None
        if name is None:
            parts.append(text)
        elif name in result.films:
            parts.append(f"![{name}]({about.preset}-{name}.gif)")
        else:
            drawn = result.figures.get(name) is not None
            parts.append(f"![{name}]({about.preset}-{name}.svg)" if drawn else NO_FIGURE)
    if checks:
        rows = [[c["what"], bounds(c["low"], c["high"]), value(c["measured"]), verdict(c)] for c in checks]
        parts += ["## Expected and measured", aligned(["", "expected", "measured", ""], rows, left=1)]
    if about.missing:
        parts += ["## Not done, and in no number above", bullets(about.missing)]
    return "\n\n".join([*parts, bullets(made.lines())]) + "\n"


def bounds(low: float | None, high: float | None) -> str:
    """An expectation in words."""
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    return f"at least {low:g}" if low is not None else f"at most {high:g}"


def value(found: float | None) -> str:
    return NONE if found is None else f"{found:.4g}"


def verdict(check: Mapping[str, Any]) -> str:
    return "as expected" if check["hit"] else "MISS" if check["measured"] is not None else "not measured"


def as_csv(rows: Sequence[Mapping[str, Any]], made: Source) -> str:
    """The rows, every one with the command that made the file."""
    columns = dict.fromkeys(key for row in rows for key in row)
    return sheet([*columns, "command"], ({**row, "command": made.command} for row in rows))


def texts(result: Result, about: About, checks: Sequence[dict[str, Any]], made: Source) -> dict[str, str]:
    """Return the texts of a result by their endings: md, csv, json."""
    whole = {
        "title": result.title,
        "verdict": result.verdict,
        **asdict(about),
        "source": asdict(made),
        "expected": checks,
    }
    whole |= {"facts": result.facts, "rows": result.rows}
    return {
        "md": markdown(result, about, checks, made),
        "csv": as_csv(result.rows, made),
        "json": json.dumps(whole, indent=1, ensure_ascii=False) + "\n",
    }


def write(folder: Path, result: Result, about: About, checks: Sequence[dict[str, Any]], made: Source) -> list[Path]:
    """`PRESET.md`, `.csv`, `.json`, every figure as SVG and PNG, every film as GIF; each replaced in one move."""
    folder.mkdir(parents=True, exist_ok=True)
    ours = texts(result, about, checks, made)
    written = [write_output(folder / f"{about.preset}.{kind}", text) for kind, text in ours.items()]
    for name, figure in result.figures.items():
        if figure is not None:
            written += style.save(figure, folder / f"{about.preset}-{name}", made.text())
    for name, film in result.films.items():
        written.append(style.save_film(film(), folder / f"{about.preset}-{name}"))
    return written


def row_of(entry: Entry, names: Sequence[str]) -> dict[str, Any]:
    """A line of a CSV: which cell it is, the numbers `names` of its run, and where they come from."""
    run = entry.run
    found = {name: run.value(name) for name in names}
    base = {"part": entry.part, "row": entry.row, "seed": run.seed, "status": run.status}
    record = run.record
    machine = {"machine": record.get("device"), "commit": record.get("git"), "data": data_of(run)}
    return {**base, **found, **machine, "cell": run.folder.name}
