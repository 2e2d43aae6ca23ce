"""The figures of a comparison, as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from odenet_cli.report import curves, style, sweep
from odenet_cli.report.groups import Comparison
from odenet_cli.report.provenance import Source


def write(folder: Path, comparison: Comparison, made: Source, axes: Sequence[str]) -> list[Path]:
    """`training`, and for every key in `axes` `against-<key>` and `nfe-<key>`, as SVG and PNG."""
    figures = {"training": curves.training(comparison)}
    for key in axes:
        figures[f"against-{key}"] = sweep.sweep(comparison, key)
        figures[f"nfe-{key}"] = sweep.tradeoff(comparison, key)
    written = []
    for name, figure in figures.items():
        if figure is not None:
            written += style.save(figure, folder / name, made.text())
    return written
