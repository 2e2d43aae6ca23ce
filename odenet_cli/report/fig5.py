"""Figure 5 of Chen et al. 2018: a continuous flow and a planar one fitted to two circles and two moons."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from odenet_cli.report import style
from odenet_cli.report.fig4 import Chosen, chosen
from odenet_cli.report.pictures import _flow
from odenet_cli.report.result import Entry, Result, row_of
from odenet_cli.report.table import aligned, parameters, plus_minus, runs
from odenet_cli.report.words import digits, plain

NUMBERS = ("nll", "nll_se", "gap", "round_trip", "valid_loss", "parameters", "time_s", "step", "nfe_forward")


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """`rest["notes"]` holds the free choices."""
    best = chosen(entries)
    figures = {name: strip(best, name) for name in ("circles", "moons")}
    body = [f"![{name}]" for name in figures] + [table(best), "\n".join(f"- {line}" for line in rest["notes"])]
    rows = [row_of(e, NUMBERS) | {n: e.run.config.get(n) for n in ("data.name", "optim.lr")} for e in entries]
    gap = {key: group.mean("gap") for key, group in best.items()}
    facts = {f"NLL of CNF 64 above the entropy on {name} (nat)": gap.get((name, "CNF 64")) for name in figures}
    ours, theirs = gap.get(("moons", "CNF 64")), gap.get(("moons", "planar 64"))
    above = None if ours is None or theirs is None else theirs - ours
    facts["NLL of planar 64 above that of CNF 64 on moons (nat)"] = above
    title = "Figure 5, CNF and planar flow by maximum likelihood"
    return Result(title=title, body=body, rows=rows, figures=figures, facts=facts)


def table(best: Chosen) -> str:
    head = [
        "data",
        "flow",
        "NLL, nat",
        "entropy",
        "above it",
        "round trip",
        "lr",
        "parameters",
        "train s",
        "runs (seeds)",
    ]
    rows = []
    for (data, row), group in best.items():
        nll, gap = group.mean("nll"), group.mean("gap")
        entropy = "–" if nll is None or gap is None else f"{nll - gap:.4f}"
        trip = group.mean("round_trip")
        cells = [data, row, plus_minus(group.spread("nll"), 4), entropy, plus_minus(group.spread("gap"), 4)]
        cells += ["–" if trip is None else f"{trip:.1e}", plain(group.values["lr"]), parameters(group)]
        rows.append([*cells, digits(group.mean("time_s")), runs(group)])
    return aligned(head, rows, left=2)


@style.styled
def strip(best: Chosen, data: str) -> Figure | None:
    """Density and samples of both flows on the way from noise, and the target."""
    drawn = {}
    for row in ("CNF 64", "planar 64"):
        group = best.get((data, row))
        path = group.done[0].folder / "figures" / "likelihood.npz" if group and group.done else None
        if path is not None and path.exists():
            with np.load(path) as file:
                drawn[row] = dict(file)
    if not drawn:
        return None
    columns = max(len(arrays["times"]) for arrays in drawn.values()) + 1
    side = style.WIDTH / columns
    figure = Figure(figsize=(style.WIDTH, side * 2 * len(drawn) + 0.3))
    panels = figure.subplots(2 * len(drawn), columns, squeeze=False)
    for place, (row, arrays) in enumerate(drawn.items()):
        for kind, line in zip(("density", "samples"), panels[2 * place :]):
            for axes, time, density, points in zip(line, arrays["times"], arrays["density"], arrays["particles"]):
                _flow.framed(axes, arrays)
                if kind == "density":
                    _flow.density(axes, arrays, density)
                else:
                    _flow.samples(axes, arrays, points)
                if not place and kind == "density":
                    axes.set_title(f"{100 * time:.0f} %", loc="center")
            _flow.framed(line[-1], arrays)
            _flow.samples(line[-1], arrays, arrays["target_samples"])
            line[0].set_ylabel(f"{row}: {kind}")
    panels[0][-1].set_title("target", loc="center", fontweight="bold")
    return figure
