"""What figure 5 shows: both flows on their way from noise to data, as a strip of moments and as a film."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.animation import FuncAnimation
from matplotlib.figure import Figure

from odenet_cli.report import flows, style
from odenet_cli.report.flows import Choices
from odenet_cli.report.pictures import _flow, likelihood

FLOWS = {"CNF 64": style.CYCLE[0], "planar 64": style.CYCLE[1]}
HOLD = 12  # frames at noise, and at data

Drawn = dict[tuple[str, str], dict[str, Any]]  # (data, flow) -> arrays


def gathered(found: Choices) -> Drawn:
    """What the strips and the film are made of."""
    keys = [(data, flow) for data in flows.targets(found) for flow in FLOWS]
    return {key: read[1] for key in keys if (read := flows.arrays(found.get(key), "likelihood"))}


@style.styled
def strip(drawn: Drawn, data: str) -> Figure | None:
    """Densities and samples of both flows on the way from noise, and the target."""
    mine = {flow: drawn[data, flow] for flow in FLOWS if (data, flow) in drawn}
    if not mine:
        return None
    columns = max(len(arrays["times"]) for arrays in mine.values()) + 1
    figure = Figure(figsize=(style.WIDTH, style.WIDTH / columns * 2 * len(mine) + 0.2))
    style.packed(figure)
    panels = figure.subplots(2 * len(mine), columns, squeeze=False)
    for place, (flow, arrays) in enumerate(mine.items()):
        _flow.way(dict(zip(_flow.KINDS, panels[2 * place :])), arrays, likelihood.target(arrays), flow)
    _flow.moments(panels[0], next(iter(mine.values())))
    return figure


@style.styled
def film(drawn: Drawn, targets: Sequence[str]) -> FuncAnimation:
    """The particles of both flows, a row for each target, there and back."""
    side = 1.7
    figure = Figure(figsize=(side * (len(FLOWS) + 1), side * len(targets) + 0.3))
    panels = figure.subplots(len(targets), len(FLOWS) + 1, squeeze=False)
    dots, moments = [], 0
    for axes in panels.flat:
        axes.set_axis_off()
    for line, data in zip(panels, targets):
        for axes, (flow, color) in zip(line, FLOWS.items()):
            if (arrays := drawn.get((data, flow))) is None:
                continue
            for panel in (axes, line[-1]):
                panel.set_axis_on()
                _flow.framed(panel, arrays)
            ways, moments = arrays["paths"], len(arrays["paths"])
            dots.append((axes.scatter(*ways[0].T, s=2.5, color=color, linewidths=0), ways))
            axes.set_title(flow, loc="center")
            points = arrays["target_samples"][: ways.shape[1]]
            line[-1].scatter(*points.T, s=2.5, color=style.GREY, linewidths=0)
            line[-1].set_title(data, loc="center", fontweight="bold")
    there = list(range(moments))
    order = [0] * HOLD + there + [moments - 1] * HOLD + there[::-1]

    def draw(frame: int) -> list[Any]:
        for scatter, ways in dots:
            scatter.set_offsets(ways[min(frame, len(ways) - 1)])
        return [scatter for scatter, _ in dots]

    return FuncAnimation(figure, draw, frames=order, cache_frame_data=False)
