"""Figure 4 of Chen et al. 2018: planar flows against continuous ones, matched to energies in the plane."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from odenet_cli.report import style
from odenet_cli.report.groups import Group
from odenet_cli.report.pictures import _flow
from odenet_cli.report.result import Entry, Result, row_of
from odenet_cli.report.runs import Run
from odenet_cli.report.table import aligned, parameters, plus_minus, runs
from odenet_cli.report.words import count, digits, plain

NUMBERS = ("kl", "kl_se", "outside", "valid_loss", "parameters", "time_s", "step", "nfe_forward")
COLORS = {"planar": style.CYCLE[1], "CNF": style.CYCLE[0]}
Chosen = dict[tuple[str, str], Group]  # (energy, row) -> the runs of the chosen learning rate


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """`rest["notes"]` holds the free choices."""
    best = chosen(entries)
    body = ["![densities]", "Densities of the chosen runs; each row has the colours of its target.", "![loss]"]
    body += [table(best), "\n".join(f"- {line}" for line in rest["notes"])]
    rows = [row_of(e, NUMBERS) | {n: e.run.config.get(n) for n in ("data.name", "optim.lr")} for e in entries]
    figures = {"densities": densities(best), "loss": loss(best)} if best else {}
    return Result(
        title="Figure 4, planar flows against CNF",
        body=body,
        rows=rows,
        figures=figures,
        facts=found(best, entries),
    )


def chosen(entries: Sequence[Entry]) -> Chosen:
    """Of each energy and flow the learning rate with the smallest validation loss, a mean over seeds."""
    rates: dict[tuple[str, str], dict[float, list[Run]]] = {}
    for entry in entries:
        if entry.run.done and entry.run.value("valid_loss") is not None:
            of = rates.setdefault((str(entry.run.config["data.name"]), entry.row), {})
            of.setdefault(entry.run.config["optim.lr"], []).append(entry.run)
    made = {}
    for key, by_rate in rates.items():
        most = max(map(len, by_rate.values()))  # a rate at which a seed failed is no choice
        whole = {rate: Group(values={"lr": rate}, runs=same) for rate, same in by_rate.items() if len(same) == most}
        made[key] = min(whole.values(), key=lambda group: group.mean("valid_loss") or 0.0)
    return made


def found(best: Chosen, entries: Sequence[Entry]) -> dict[str, float | None]:
    kl = {key: group.mean("kl") for key, group in best.items()}
    pairs = [(kl.get((energy, "CNF 32")), kl.get((energy, "planar 32"))) for energy in dict.fromkeys(e for e, _ in kl)]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    scores = [(e.run.value("kl"), e.run.value("kl_se")) for e in entries if e.run.done]
    return {
        "energies on which CNF 32 is below planar 32": float(sum(a < b for a, b in known)) if known else None,
        "KL of CNF 32 on u1 (nat)": kl.get(("u1", "CNF 32")),
        "smallest KL in standard errors": min((k / s for k, s in scores if k is not None and s), default=None),
    }


def table(best: Chosen) -> str:
    head = ["energy", "flow", "KL above the floor, nat", "outside %", "lr", "parameters", "updates", "train s"]
    rows = []
    for (energy, row), group in best.items():
        cells = [energy, row, plus_minus(group.spread("kl"), 4), plus_minus(group.spread("outside"), 2, 100)]
        cells += [plain(group.values["lr"]), parameters(group), count(group.mean("step")), digits(group.mean("time_s"))]
        rows.append([*cells, runs(group)])
    return aligned([*head, "runs (seeds)"], rows, left=2)


@style.styled
def densities(best: Chosen) -> Figure | None:
    """A row for each energy: target, planar, CNF."""
    energies, names = list(dict.fromkeys(e for e, _ in best)), list(dict.fromkeys(r for _, r in best))
    side = style.WIDTH / (len(names) + 1)
    figure = Figure(figsize=(style.WIDTH, (side + 0.14) * len(energies)))
    panels = figure.subplots(len(energies), len(names) + 1, squeeze=False)
    for line, energy in zip(panels, energies):
        top = None
        for axes, name in zip(line[1:], names):
            axes.set_axis_off()
            group = best.get((energy, name))
            run = sorted(group.done, key=lambda r: r.value("kl") or 0.0)[(len(group.done) - 1) // 2] if group else None
            if run is None or not (path := run.folder / "figures" / "density.npz").exists():
                continue
            with np.load(path) as file:
                arrays = dict(file)
            axes.set_axis_on()
            extent = (arrays["x"][0], arrays["x"][-1], arrays["y"][0], arrays["y"][-1])
            top = float(arrays["target"].max())
            for ax, values in ((line[0], arrays["target"]), (axes, arrays["density"][-1])):
                _flow.framed(ax, arrays)
                ax.imshow(values, origin="lower", extent=extent, cmap=_flow.DENSITY, vmin=0, vmax=top)
            axes.set_title(f"{name}: {run.value('kl') or math.nan:.2f} nat", loc="center", fontsize=6.5)
        line[0].set_title(f"{energy.upper()}, target", loc="center", fontweight="bold")
    return figure


@style.styled
def loss(best: Chosen) -> Figure | None:
    """KL against K or M, parameters, time and target evaluations; a row for each energy."""
    energies = list(dict.fromkeys(e for e, _ in best))
    figure = Figure(figsize=(style.WIDTH, 1.6 * len(energies)))
    panels = figure.subplots(len(energies), 4, squeeze=False, sharey="row", sharex="col")
    for line, energy in zip(panels, energies):
        for kind, color in COLORS.items():
            groups = [(int(r.split()[1]), g) for (e, r), g in best.items() if e == energy and r.startswith(kind)]
            kl = [g.mean("kl") for _, g in groups]
            across = [
                [units for units, _ in groups],
                [g.mean("parameters") for _, g in groups],
                [g.mean("time_s") for _, g in groups],
                [
                    statistics.fmean((r.value("step") or 0) * r.config["trainer.batch_size"] for r in g.done)
                    for _, g in groups
                ],
            ]
            for axes, x in zip(line, across):
                axes.plot(x, kl, "o-", color=color, label=kind)
                axes.set(xscale="log", yscale="log")
                axes.xaxis.set_minor_formatter(NullFormatter())
        line[0].set_ylabel(f"{energy.upper()}: KL (nat)")
    for axes, label in zip(panels[-1], ("K or M", "parameters", "training time, s", "target evaluations")):
        axes.set_xlabel(label)
    panels[0][0].legend()
    return figure
