"""What table 2 and figures 8 to 10 share: models of spirals by the number of points observed, each at the setting that
validation chose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from odenet_cli.report import selection, validation
from odenet_cli.report.result import Entry
from odenet_cli.report.runs import Run
from odenet_cli.report.selection import Choice
from odenet_cli.report.text import plain

ODE, FURTHER, VALID = "latent ODE", "rmse_further_clean", "rmse_further_noisy"
Cells = Mapping[tuple[str, int], Sequence[Entry]]  # (model, points) -> all its cells
Choices = Mapping[tuple[str, int], Choice]


def sorted_out(entries: Iterable[Entry]) -> tuple[Cells, Choices]:
    """The cells of each model and number of points, and those of them to show."""
    return selection.sorted_out(entries, lambda entry: (entry.row, points(entry.run)), valid, setting)


def points(run: Run) -> int:
    return int(run.config["data.observed"])


def valid(run: Run) -> float | None:
    return validation.at_best(run, VALID)


def setting(run: Run) -> str:
    """The learning rate and, where it is not 1, the weight of the divergence."""
    weight = float(run.config.get("model.kl", 1))
    return selection.rate(run) if weight == 1 else f"{selection.rate(run)} · {plain(weight)} KL"
