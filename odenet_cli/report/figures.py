"""The figures of a comparison, as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from odenet_cli.report import against, curves, style
from odenet_cli.report.groups import Comparison
from odenet_cli.report.source import Source


def write(folder: Path, comparison: Comparison, made: Source, axes: Sequence[str]) -> list[Path]:
    """`training`, and for every key in `axes` `against-<key>` and `nfe-<key>`, as SVG and PNG."""
    figures = {"training": curves.training(comparison)}
    for key in axes:
        figures[f"against-{key}"] = against.sweep(comparison, key)
        figures[f"nfe-{key}"] = against.tradeoff(comparison, key)
    written = []
    for name, figure in figures.items():
        if figure is not None:
            written += style.save(figure, folder / name, made.text())
    return written
