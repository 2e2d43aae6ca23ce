"""Draw how a classifier was trained, and a few images that it reads as something else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from odenet_cli.report import curves, style
from odenet_cli.report.compare import compare
from odenet_cli.report.runs import Run

COLUMNS = 5


def draw(arrays: dict[str, Any], run: Run) -> dict[str, Figure]:
    """Draw `training`, the learning curves and function evaluations, and `misread` where an image was."""
    names = (run.record.get("data") or {}).get("classes") or ()
    training = curves.training(compare([run]), curves.WHILE_TRAINING, narrow=True)
    figures = {
        "training": training,
        "misread": misread(arrays, names) if len(arrays["images"]) else None,
    }
    return {name: figure for name, figure in figures.items() if figure is not None}


@style.styled
def misread(arrays: dict[str, Any], names: Sequence[str] = ()) -> Figure:
    """Draw images, each with its label and what it was taken for, by the `names` of the classes if they have some."""
    count = len(arrays["images"])
    rows = -(-count // COLUMNS)
    figure = Figure(figsize=(style.COLUMN, (0.95 if names else 0.8) * rows + 0.25))
    panels = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
    for axes in panels:
        axes.set_axis_off()
    for axes, image, label, predicted in zip(panels, arrays["images"], arrays["label"], arrays["predicted"]):
        if image.dtype.kind == "f":  # standardised: colours are numbers in [0, 1]
            image = (image - image.min()) / max(float(image.max() - image.min()), 1e-9)
        axes.imshow(image, cmap="Greys", interpolation="nearest")
        named = f"{names[label]:.12},\nas {names[predicted]:.12}" if names else f"{label}, read as {predicted}"
        axes.set_title(named, loc="center", fontsize=6.5, pad=2)
    first = f"the first {count} of " if count < arrays["misread"] else ""
    figure.suptitle(f"{first}{arrays['misread']} misread of {arrays['samples']:,} test images", fontsize=7.5)
    return figure
