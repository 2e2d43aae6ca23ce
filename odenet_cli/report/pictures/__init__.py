"""Draw the figures of one run from the arrays in `figures/<task>.npz`, one task per module.

A module has `draw(arrays, run) -> {name: Figure}`; its name is the task's.
"""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path

import numpy

from odenet_cli import registry
from odenet_cli.report import style
from odenet_cli.report.runs import read_run


def write(folder: Path) -> list[Path]:
    """Draw the figures of the run in `folder` beside the arrays they are made from, and return the files."""
    files: list[Path] = []
    run = replace(read_run(folder), status="done")  # its record says so once the figures are there
    for name in registry.names(__name__):
        path = folder / "figures" / f"{name}.npz"
        if path.exists():
            with numpy.load(path) as arrays:
                figures = importlib.import_module(f"{__name__}.{name}").draw(dict(arrays), run)
            for title, figure in figures.items():
                files += style.save(figure, path.with_name(title), str(run.record.get("command") or ""))
    return files
