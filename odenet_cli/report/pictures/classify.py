"""Draw the training of a classifier, and a few misclassified images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

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
    count = len(arrays["images"])
    figure, panels = style.panel_grid(count, COLUMNS, 0.95 if names else 0.8, 0.25, style.COLUMN)
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, image, label, predicted in zip(panels.flat, arrays["images"], arrays["label"], arrays["predicted"]):
        if image.dtype.kind == "f":  # standardised: colours are numbers in [0, 1]
            image = (image - image.min()) / max(float(image.max() - image.min()), 1e-9)
        axes.imshow(image, cmap="Greys", interpolation="nearest")
        named = f"{names[label]:.12},\nas {names[predicted]:.12}" if names else f"{label}, read as {predicted}"
        # Above the image, whatever is there: else matplotlib measures the axes of each, which are off, eight times.
        axes.set_title(named, loc="center", fontsize=6.5, pad=2, y=1)
    first = f"the first {count} of " if count < arrays["misread"] else ""
    figure.suptitle(f"{first}{arrays['misread']} misread of {arrays['samples']:,} test images", fontsize=7.5)
    return figure
