"""How every figure looks: size, type, colours, legend, and how it is written. The same bytes from the same numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import matplotlib as mpl
from matplotlib.animation import FuncAnimation, PillowWriter
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.colors import ListedColormap, to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from odenet_cli.files import write_output
from odenet_cli.report.runs import number

WIDTH = 6.75  # inches: the text width of two columns
HEIGHT = 1.95  # of a row of panels
DPI = 220
FRAMES, FILM_DPI = 15, 110  # of a film: a second, and dots an inch

# Okabe & Ito (2008), without the yellow that white paper swallows.
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#4D4D4D")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY, PALE, DARK = "#6E6E6E", "#BBBBBB", "#222222"
SHADES = ListedColormap([mpl.colormaps["viridis"](0.8 * part / 255) for part in range(256)])  # no faint yellow

Look = dict[str, Any]  # arguments of a line

RC: dict[Any, Any] = {
    "figure.constrained_layout.use": True,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],  # comes with matplotlib: the same glyphs everywhere
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.titlesize": 7.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": "#333333",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.5,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "lines.linewidth": 1.1,
    "lines.markersize": 3.6,
    "legend.fontsize": 6.5,
    "legend.title_fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.8,
    "legend.columnspacing": 1.4,
    "errorbar.capsize": 1.8,
    "axes.formatter.useoffset": False,
    "mathtext.fontset": "dejavusans",
    "svg.hashsalt": "odenet",
    "svg.fonttype": "path",
}

Draw = TypeVar("Draw", bound=Callable[..., Any])


def styled(draw: Draw) -> Draw:
    """A function that draws in this style, whatever the user's own settings are."""

    @wraps(draw)
    def wrapped(*args: Any, **options: Any) -> Any:
        with mpl.rc_context():
            mpl.rcdefaults()
            mpl.rcParams.update(RC)
            return draw(*args, **options)

    return cast(Draw, wrapped)


@styled
def save(figure: Figure, path: Path, about: str = "") -> list[Path]:
    """Write `path`.svg and `path`.png; `about` says in their metadata where the numbers come from."""
    told = {"Description": about} if about else {}
    files = [path.with_name(f"{path.name}.{kind}") for kind in ("svg", "png")]
    write_output(files[0], lambda file: figure.savefig(file, metadata={"Date": None, **told}))
    write_output(files[1], lambda file: figure.savefig(file, dpi=DPI, metadata=told))
    return files


@styled
def save_film(film: FuncAnimation, path: Path) -> Path:
    """Write `path`.gif, which plays without end."""
    file = path.with_name(f"{path.name}.gif")
    return write_output(file, lambda path: film.save(path, writer=PillowWriter(fps=FRAMES), dpi=FILM_DPI))


def mixed(color: str, share: float) -> str:
    """A colour with white: `share` 1 is the colour itself."""
    red, green, blue = (share * part + 1 - share for part in to_rgb(color))
    return to_hex((red, green, blue))


def looks(values: Sequence[Mapping[str, Any]]) -> list[Look]:
    """Colour and dashes of each group: shades for a key of three numbers or more, dashes for the rest; or the cycle."""
    keys = list(values[0]) if values else []
    columns = {key: [value[key] for value in values] for key in keys}
    numeric = [
        key for key in keys if len(set(columns[key])) > 2 and all(number(value) is not None for value in columns[key])
    ]
    if numeric:
        shaded = max(numeric, key=lambda key: len(set(columns[key])))
        order = sorted(set(columns[shaded]))
        others = [tuple(value[key] for key in keys if key != shaded) for value in values]
        kinds = list(dict.fromkeys(others))
        if len(kinds) <= len(DASHES):
            parts = [order.index(value) / (len(order) - 1) for value in columns[shaded]]
            return [{"color": SHADES(p), "linestyle": DASHES[kinds.index(o)]} for p, o in zip(parts, others)]
    turns = [divmod(place, len(CYCLE)) for place in range(len(values))]
    return [{"color": CYCLE[place], "linestyle": DASHES[turn % len(DASHES)]} for turn, place in turns]


def grid(count: int, columns: int, height: float, more: float = 0.0, **shared: Any) -> tuple[Figure, Any]:
    """A figure as high as its rows, and so much `more`, and its panels (rows, columns), of which `count` are used."""
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, rows * height + more))
    panels = figure.subplots(rows, columns, squeeze=False, **shared)
    for axes in panels.flat[count:]:
        axes.set_axis_off()
    return figure, panels


def packed(figure: Figure) -> None:
    """Lay the panels out with hardly a gap between them."""
    layout: Any = figure.get_layout_engine()
    layout.set(w_pad=0.015, h_pad=0.015, wspace=0, hspace=0)


def point(axes: Axes, at: tuple[float, float], bars: tuple[float, float], **look: Any) -> None:
    """A mark with bars, where they have a length."""
    across, up = bars
    axes.errorbar(*at, xerr=across or None, yerr=up or None, markersize=4.5, elinewidth=0.8, **look)


def colorbar(figure: Figure, panels: Any, shades: ScalarMappable, label: str, **options: Any) -> Colorbar:
    """What the shades mean, beside these panels."""
    bar = figure.colorbar(shades, ax=panels, label=label, **options)
    bar.outline.set_linewidth(0.5)
    return bar


def handle(label: str, **look: Any) -> Line2D:
    """An entry of a legend."""
    return Line2D([], [], label=label, **look)


def legend(figure: Figure, handles: Sequence[Line2D], title: str = "") -> None:
    """Below the panels, never over data; the figure grows by its height."""
    widest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, min(len(handles), int(WIDTH * 14.5 / (widest + 7)), 6))
    rows = math.ceil(len(handles) / columns) + bool(title)
    figure.set_figheight(figure.get_figheight() + 0.16 * rows + 0.12)
    figure.legend(handles=handles, title=title or None, loc="outside lower center", ncols=columns)
