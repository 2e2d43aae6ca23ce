"""Draw the training of a classifier, and a few misclassified images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy
from matplotlib.figure import Figure

from odenet_cli.report import curves, style
from odenet_cli.report.runs import Run

COLUMNS = 5


def draw(arrays: dict[str, Any], run: Run) -> dict[str, Figure]:
    """Draw `training`, the learning curves and function evaluations, and `misread` where an image was."""
    figures = curves.while_training(run)
    if len(arrays["images"]):
        figures["misread"] = misread(arrays, (run.record.get("data") or {}).get("classes") or ())
    return figures


@style.styled
def misread(arrays: dict[str, Any], names: Sequence[str] = ()) -> Figure:
    """Draw images, each with its label and what it was taken for, by the `names` of the classes if they have some."""
    count, (height, width, *colours) = len(arrays["images"]), arrays["images"].shape[1:]
    rows, gap, head = -(-count // COLUMNS), width // 7, int(height * (0.68 if names else 0.4))
    figure, ((axes,),) = style.panel_grid(1, 1, rows * (0.95 if names else 0.8), 0.25, style.COLUMN)
    # One image of them all: a panel for each, with the axes that it hides, takes four times as long to draw.
    sheet = numpy.full((rows * (head + height), COLUMNS * (width + gap), *colours), 1.0 if colours else 0.0)
    for n, (image, label, predicted) in enumerate(zip(arrays["images"], arrays["label"], arrays["predicted"])):
        top, left = n // COLUMNS * (head + height) + head, n % COLUMNS * (width + gap) + gap // 2
        # Of bytes colours are what they are; grey levels, and standardised colours, from the least to the largest.
        low, high = (0, 255) if colours and image.dtype.kind == "u" else (float(image.min()), float(image.max()))
        sheet[top : top + height, left : left + width] = (image - low) / max(high - low, 1e-9)
        named = f"{names[label]:.12},\nas {names[predicted]:.12}" if names else f"{label}, read as {predicted}"
        axes.text(left + width / 2 - 0.5, top - height / 15, named, ha="center", va="bottom", fontsize=6.5)
    axes.imshow(sheet, cmap="Greys", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    first = f"the first {count} of " if count < arrays["misread"] else ""
    figure.suptitle(f"{first}{arrays['misread']} misread of {arrays['samples']:,} test images", fontsize=7.5)
    return figure
