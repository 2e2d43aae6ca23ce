"""Draw the results of `odenet bench`: speed beside other libraries, and work against precision."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from odenet_cli.errors import RequestError
from odenet_cli.report import scales, style
from odenet_cli.report.provenance import distinct
from odenet_cli.report.statistics import grouped

COLORS = {  # the first word of a subject -> its colour
    **{"odenet": style.CYCLE[0], "torchdiffeq": style.CYCLE[6], "torchode": style.CYCLE[2]},
    **{"torchdyn": style.CYCLE[3], "diffrax": style.CYCLE[4], "diffrax,": style.CYCLE[4]},
}
SOLVERS = {  # of the panels on precision
    **{"odenet dopri5": style.DASHES[0], "odenet tsit5": style.DASHES[1], "odenet dopri8": style.DASHES[2]},
    **{"odenet adams": style.DASHES[3], "torchdiffeq dopri5": style.DASHES[0], "torchode dopri5": style.DASHES[0]},
    **{"torchdyn dopri5": style.DASHES[0], "diffrax dopri5": style.DASHES[0]},
}
LINE_HEIGHT, PRECISION_HEIGHT = 0.115, 1.9  # inches, of a subject and of the panels on precision


class Page(NamedTuple):
    """Hold one JSON file of `odenet bench`: its tables, and how they were made."""

    tables: list[dict[str, Any]]
    made: dict[str, str]


def read(folder: Path) -> dict[str, dict[str, Page]]:
    """Return the pages in `folder`: kind of device -> workload -> page; raise RequestError where there are none."""
    devices: dict[str, dict[str, Page]] = {}
    for path in sorted(folder.glob("*-*.json")):
        workload, _, device = path.stem.rpartition("-")
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            devices.setdefault(device, {})[workload] = Page(content["tables"], content["made"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RequestError(f"{path} is not a page of odenet bench: {type(error).__name__}: {error}.") from error
    if not devices:
        raise RequestError(f"{folder} holds no page of odenet bench; odenet bench --out {folder} writes them.")
    return devices


@style.styled
def draw(pages: Mapping[str, Page]) -> Figure:
    """Draw a panel for each table of times, two in a row, and below them one for each problem of `precision`."""
    timed = [table for page in pages.values() for table in page.tables if _ratios(table)]
    problems = [table for table in pages["precision"].tables if _points(table)] if "precision" in pages else []
    rows = [timed[first : first + 2] for first in range(0, len(timed), 2)]
    heights = [LINE_HEIGHT * max(len(_ratios(table)) for table in row) + 0.5 for row in rows]
    heights += [PRECISION_HEIGHT] * bool(problems)
    figure = Figure(figsize=(style.WIDTH, sum(heights)))
    bands = figure.subfigures(len(heights), 1, squeeze=False, height_ratios=heights)[:, 0]
    for band, row in zip(bands, rows):
        for axes, table in zip(band.subplots(1, 2), row):
            speed_panel(axes, table)
    for place, (axes, table) in enumerate(zip(bands[-1].subplots(1, 4), problems) if problems else ()):
        precision_panel(axes, table, first=not place)
    if problems:
        looks = [(name, {"color": COLORS[name.split()[0]], "linestyle": dashes}) for name, dashes in SOLVERS.items()]
        style.legend(figure, looks, "precision")
    style.head(figure, made_of(pages))
    return figure


def made_of(pages: Mapping[str, Page]) -> str:
    """Return machine, commit and date of the measurements."""
    parts = [distinct(page.made.get(name) for page in pages.values()) for name in ("processor", "commit", "date")]
    processors, commits, dates = parts
    days = sorted({date.split()[0] for date in dates})
    commit = ", ".join(commit[:8] for commit in commits)
    return f"odenet bench: {'; '.join(processors)}; commit {commit}; {' to '.join(dict.fromkeys((days[0], days[-1])))}"


def _ratios(table: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the records that were timed beside others, or failed to be."""
    return [record for record in table["records"] if "ratio" in record]


def _points(table: Mapping[str, Any]) -> dict[str, list[tuple[int, float]]]:
    """Return evaluations and error of each solver that is drawn, by falling tolerance."""
    solved = [r for r in table["records"] if r.get("subject") in SOLVERS and r.get("error") and r.get("nfe")]
    return grouped((record["subject"], (record["nfe"], record["error"])) for record in solved)


def speed_panel(axes: Axes, table: Mapping[str, Any]) -> None:
    """Draw how many times as fast as the first subject each one is: the median, and the middle half of its times."""
    records = _ratios(table)
    base = next((record["ms"] for record in records if record["ms"]), None)
    for height, record in zip(range(len(records), 0, -1), records):
        if not base or not record["ms"]:
            axes.annotate("failed", (1, height), color=style.GREY, fontsize=5.5, va="center")
            continue
        color, ratio = COLORS.get(record["subject"].split()[0], style.GREY), base / record["ms"]
        low, high = numpy.percentile(record["times_ms"], [25, 75])
        axes.plot([1, ratio], [height, height], color=style.tint(color, 0.35), linewidth=2.2, solid_capstyle="butt")
        axes.plot([base / high, base / low], [height, height], color=color, linewidth=0.8)
        axes.plot(ratio, height, "o", color=color, markersize=3)
    axes.set(xscale="log", ylim=(0.4, len(records) + 0.6))
    axes.set_yticks(range(len(records), 0, -1), [record["subject"] for record in records], fontsize=5.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(False, axis="y")
    axes.axvline(1, color=style.GREY, linewidth=0.6)
    scales.log_ticks(axes.xaxis, [base / record["ms"] for record in records if base and record["ms"]], 30)
    scales.compact_labels(axes.xaxis)
    axes.set_title(table["title"].partition(": " if ": " in table["title"] else ", ")[0])
    axes.set_xlabel(f"times as fast as {records[0]['subject']}", fontsize=6)


def precision_panel(axes: Axes, table: Mapping[str, Any], first: bool) -> None:
    """Draw the error at the end against the evaluations of the field, a mark for each tolerance."""
    for name, points in _points(table).items():
        color = COLORS[name.split()[0]]
        own = name.startswith("odenet")
        look: style.Look = {"color": color, "linestyle": SOLVERS[name], "zorder": 2 + own}
        axes.plot(*zip(*points), marker=".", markersize=2.5, linewidth=1.1 if own else 0.7, **look)
    axes.set(xscale="log", yscale="log", xlabel="evaluations (NFE)")
    scales.decade_ticks(axes.yaxis)
    scales.decade_ticks(axes.xaxis)
    axes.set_title(table["title"].partition(",")[0], fontsize=6)
    if first:
        axes.set_ylabel("relative error")


def write(folder: Path) -> Iterator[Path]:
    """Draw the pages in `folder`, a figure for each kind of device, and yield the files."""
    for device, pages in read(folder).items():
        command = f"odenet bench --draw {folder}"
        yield from style.save(draw(pages), folder / f"speed-{device}", f"{command}\n{made_of(pages)}")
