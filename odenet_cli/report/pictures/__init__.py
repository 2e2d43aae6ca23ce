"""The figures of one run, one task a module: what training left in `figures/<task>.npz`, drawn.

A module has `draw(arrays, run) -> {name: Figure}`; its name is the task's.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy

from odenet_cli import registry
from odenet_cli.report import style
from odenet_cli.report.runs import read


def write(folder: Path) -> list[Path]:
    """Draw the figures of the run in `folder` beside the arrays they are made from; returns the files."""
    written: list[Path] = []
    run = read(folder)
    for name in registry.names(__name__):
        path = folder / "figures" / f"{name}.npz"
        if path.exists():
            with numpy.load(path) as arrays:
                figures = importlib.import_module(f"{__name__}.{name}").draw(dict(arrays), run)
            for title, figure in figures.items():
                written += style.save(figure, path.with_name(title), str(run.record.get("command") or ""))
    return written
