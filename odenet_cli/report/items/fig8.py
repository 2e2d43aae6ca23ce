"""Figures 8 to 10 of Chen et al. 2018: spirals reconstructed and extrapolated, and the latent space behind them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from odenet_cli.report import spirals
from odenet_cli.report.items._fig8 import Rows, compared, latents, variations
from odenet_cli.report.result import Entry, Result, row_of
from odenet_cli.report.spirals import ODE, Choices
from odenet_cli.report.table import aligned
from odenet_cli.report.text import NONE, bullets

NAMES = ("series", "turns", "rmse_window_clean", "rmse_further_clean")
PATHS = (
    "Figure 8, a and b: test trajectories of which {fewest} of 100 points were observed; reconstruction inside the "
    "window and extrapolation after it, the true path in grey. Above each its RMSE after the window against the true "
    "path. A path that leaves the frame is cut. "
    "Inside the window, what the RNNs show are predictions of the next observation from those before it."
)
LATENT = (
    "Figure 8c: z(t) inside the window for {count} test trajectories, in pairs of latent dimensions, by the direction "
    "in which the spiral turns; a dot where it begins."
)
VARIED = (
    "Figure 9: paths decoded while dimension {dimension} of z0 goes through the middle 95 % of its values on the test "
    "trajectories, all others at their mean; colour is time, from the start of the window to twice its length."
)
POINTS = "Figure 10: the latent ODE by the number of points observed, on the same trajectories."


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """`entries` are networks of table 2 with what was measured on them; those at the chosen settings are drawn."""
    _, choices = spirals.sorted_out(entry for entry in entries if entry.run.done and entry.measured)
    drawn = {key: choice.entries[0] for key, choice in choices.items()}
    title = "Figures 8 to 10, spirals reconstructed, extrapolated and varied"
    if not drawn:
        return Result(title=title, body=["Nothing could be measured: no network is trained."], rows=[])

    fewest = min(size for _, size in drawn)
    few = {row: entry.of("path") for (row, size), entry in drawn.items() if size == fewest}
    many = {size: entry.of("path") for (row, size), entry in sorted(drawn.items()) if row == ODE}
    ours = drawn.get((ODE, fewest))
    latent, varied = (ours.of(kind) if ours else [] for kind in ("latent", "varied"))
    dimension = turning(varied)
    figures: dict[str, Figure | None] = {
        "spirals": compared(few, letters(few)),
        "latent": latents(latent) if latent else None,
        "varied": variations([row for row in varied if row["dimension"] == dimension]) if varied else None,
        "points": compared({f"{size} points": rows for size, rows in many.items()}) if many else None,
    }
    body = ["![spirals]", PATHS.format(fewest=fewest), "![latent]", LATENT.format(count=len(latent)), "![varied]"]
    body += [VARIED.format(dimension=dimension), "![points]", POINTS, table(drawn, choices), bullets(rest["notes"])]
    rows = [
        {**row_of(entry, ()), "observed": size, **{name: one[name] for name in NAMES}}
        for (_, size), entry in drawn.items()
        for one in entry.of("path")
    ]
    return Result(title=title, body=body, rows=rows, figures=figures, facts=facts(few, varied, dimension))


def letters(rows: Mapping[str, Rows]) -> dict[str, str]:
    """The paper's panels; it has none for other models."""
    return {name: {ODE: "8a  ", "RNN": "8b  "}.get(name, "") for name in rows}


def turning(varied: Rows) -> int | None:
    """The dimension that changes the direction of turning most."""
    spans: dict[int, list[float]] = {}
    for row in varied:
        spans.setdefault(row["dimension"], []).append(row["turns"])
    # Both directions are to be well on their side: what counts is how far the lesser of them is.
    return max(spans, key=lambda one: (min(max(spans[one]), -min(spans[one])), max(spans[one])), default=None)


def facts(few: Mapping[str, Rows], varied: Rows, dimension: int | None) -> dict[str, float | None]:
    errors = {row: statistics.fmean(one["rmse_further_clean"] for one in rows) for row, rows in few.items() if rows}
    ours, theirs = errors.get(ODE), errors.get("RNN")
    turned = [row["turns"] for row in varied if row["dimension"] == dimension]
    return {
        "trajectories drawn": float(max(map(len, few.values()), default=0)),
        "mean error of the trajectories drawn, latent ODE over RNN": ours / theirs if ours and theirs else None,
        "spirals turn from one direction to the other along the varied dimension (1: yes)": float(
            min(turned) < -0.5 and max(turned) > 0.5
        )
        if turned
        else None,
    }


def table(drawn: Mapping[tuple[str, int], Entry], choices: Choices) -> str:
    """The errors of what is drawn."""
    rows = []
    for (row, size), entry in drawn.items():
        errors = [f"{one['rmse_further_clean']:.3f}" for one in entry.of("path")]
        mean = statistics.fmean(one["rmse_further_clean"] for one in entry.of("path")) if errors else None
        rows.append([row, str(size), *errors, f"{mean:.3f}" if mean else NONE, choices[row, size].setting])
    count = max(len(row) for row in rows) - 4
    head = ["RMSE after the window", "points", *(f"trajectory {n + 1}" for n in range(count)), "mean", "setting"]
    return aligned(head, [row for row in rows if len(row) == len(head)], left=1)
