"""Give all figures one style (size, colours, legend), and write them with identical bytes for identical numbers.

Fonts, lines and axes are set in `odenet.mplstyle` beside this file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.style import context
from matplotlib.text import Text

from odenet_cli.files import write_output
from odenet_cli.report.runs import finite

WIDTH = 6.75  # inches: the text width of two columns
HEIGHT = 1.95  # inches, of a row of panels
COLUMN, COLUMN_HEIGHT = 3.2, 1.35  # the same for one column of text
DPI = 220
FRAMES_PER_S, FILM_DPI = 15, 110

# Okabe & Ito (2008), without the yellow that is hard to see on white paper.
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY, PALE, DARK = "#6E6E6E", "#BBBBBB", "#222222"
SHADES = ListedColormap(mpl.colormaps["viridis"](0.8 * numpy.arange(256) / 255))  # no faint yellow

Look = dict[str, Any]  # arguments of a line
DOT: Look = {"marker": "o", "linestyle": "none", "markersize": 3}  # in a legend
RC: Any = mpl.rc_params_from_file(Path(__file__).with_name("odenet.mplstyle"), use_default_template=False)

styled = context(RC, after_reset=True)  # a decorator: the function draws so, whatever the user's own settings are


@styled
def head(figure: Figure, text: str) -> Text:
    """Write a line above the panels, what the figure is of, and return it; the figure grows by its height."""
    figure.set_figheight(figure.get_figheight() + 0.15)
    return figure.suptitle(text, x=0.005, ha="left", fontsize=6, color=GREY)


@styled
def save(figure: Figure, path: Path, description: str = "") -> list[Path]:
    """Write `path`.svg and `path`.png; `description` goes into their metadata."""
    metadata = {"Description": description} if description else {}
    options: dict[str, dict[str, Any]] = {
        "svg": {"metadata": {"Date": None, **metadata}},
        "png": {"metadata": metadata, "dpi": DPI},
    }
    return [
        write_output(path.with_name(f"{path.name}.{kind}"), partial(figure.savefig, **own))
        for kind, own in options.items()
    ]


@styled
def save_film(film: FuncAnimation, path: Path) -> Path:
    """Write `path`.gif, which plays without end."""
    write = partial(film.save, writer=PillowWriter(fps=FRAMES_PER_S), dpi=FILM_DPI)
    return write_output(path.with_name(f"{path.name}.gif"), write)


def tint(color: str, share: float) -> str:
    """Return a colour mixed with white; `share` 1 is the colour itself."""
    red, green, blue = (share * part + 1 - share for part in to_rgb(color))
    return to_hex((red, green, blue))


def group_looks(values: Sequence[Mapping[str, Any]]) -> list[Look]:
    """Return colour and dashes of each group: shades for a key of three numbers or more and dashes for the other keys;
    without such a key, or with too many others, the cycle of colours."""
    keys = list(values[0]) if values else []
    columns = {key: [value[key] for value in values] for key in keys}
    numeric = [key for key, column in columns.items() if len(set(column)) > 2 and None not in map(finite, column)]
    if numeric:
        shaded = max(numeric, key=lambda key: len(set(columns[key])))
        order = sorted(set(columns[shaded]))
        others = [tuple(value[key] for key in keys if key != shaded) for value in values]
        kinds = list(dict.fromkeys(others))
        if len(kinds) <= len(DASHES):
            parts = [order.index(value) / (len(order) - 1) for value in columns[shaded]]
            return [{"color": SHADES(p), "linestyle": DASHES[kinds.index(o)]} for p, o in zip(parts, others)]
    turns = [divmod(index, len(CYCLE)) for index in range(len(values))]
    return [{"color": CYCLE[place], "linestyle": DASHES[turn % len(DASHES)]} for turn, place in turns]


def panel_grid(
    count: int, columns: int, height: float, extra: float = 0.0, width: float = WIDTH, **shared: Any
) -> tuple[Figure, Any]:
    """Return a figure with rows of `height` inches, and its panels (rows, columns), of which `count` are shown."""
    rows = -(-count // columns)
    figure = Figure(figsize=(width, rows * height + extra))
    panels = figure.subplots(rows, columns, squeeze=False, **shared)
    for axes in panels.flat[count:]:
        axes.set_axis_off()
    return figure, panels


def remove_gaps(figure: Figure) -> None:
    """Pack the panels with hardly a gap between them."""
    layout: Any = figure.get_layout_engine()
    layout.set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)


def point(axes: Axes, at: tuple[float, float], bars: tuple[float, float], **look: Any) -> None:
    """Draw a mark at (x, y) with error bars (x, y) where these are not 0."""
    across, up = bars
    axes.errorbar(*at, xerr=across or None, yerr=up or None, markersize=4.5, elinewidth=0.8, **look)


def colorbar(figure: Figure, panels: Any, shades: ScalarMappable, label: str, **options: Any) -> Colorbar:
    bar = figure.colorbar(shades, ax=panels, label=label, **options)
    bar.outline.set_linewidth(0.5)
    return bar


def plain(name: str) -> str:
    """Return a name from a user's file as it is: a dollar sign begins no formula."""
    return name.replace("$", r"\$")


def legend(figure: Figure, entries: Iterable[tuple[str, Look]], title: str = "") -> None:
    """Draw the legend of (label, look) below the panels, never over data; the figure grows by its height."""
    handles = [Line2D([], [], **{"label": label, **look}) for label, look in entries]
    widest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), int(WIDTH * 14.5 / (widest + 7)), 6))
    rows = math.ceil(len(handles) / columns) + bool(title)
    figure.set_figheight(figure.get_figheight() + 0.16 * rows + 0.12)
    figure.legend(handles=handles, title=title or None, loc="outside lower center", ncols=columns)
