"""Show a comparison to people, as a Markdown table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from odenet_cli.report.compare import Comparison, Group
from odenet_cli.report.provenance import Provenance
from odenet_cli.report.statistics import Spread, over_seeds
from odenet_cli.report.text import (
    MISSING,
    bullets,
    config_sentence,
    config_value,
    mean_count,
    seed_range,
    three_digits,
)
from odenet_cli.scores import ERROR, Score, scores_among, scores_of

Cell = Callable[[Group], str]


def columns(comparison: Comparison) -> dict[str, Cell]:
    """Return title -> text of a group, for each column."""
    cells: dict[str, Cell] = {key: partial(_value, key=key) for key in comparison.keys}
    cells["runs (seeds)"] = runs_and_seeds
    if comparison.has("error"):
        cells["test error %"] = lambda group: plus_minus(group.spread("error"), 2, 100)
        if several_seeds(comparison, "error"):
            cells["95 % interval"] = lambda group: interval(group.spread("error"), 2, 100)
    done = [run for group in comparison.groups for run in group.done]
    for score in scores_among(run.final for run in done):
        if score != ERROR:
            cells[f"test {score.title}"] = partial(_score, score=score)
    if any(run.value("error") is None and run.value("loss") != run.value("nll") for run in done):
        cells["test loss"] = lambda group: plus_minus(group.spread("loss"), 4)
        if several_seeds(comparison, "loss"):
            cells["95 % interval of the loss"] = lambda group: interval(group.spread("loss"), 4)
    cells["parameters"] = parameters
    if any(group.mean("nfe_forward") for group in comparison.groups):
        cells["NFE forward"] = lambda group: mean_count(group.mean("nfe_forward") or None)
        cells["NFE backward"] = _nfe_backward
    cells["saved MiB"] = lambda group: three_digits(group.mean("saved_mib"))
    if comparison.has("peak_mib"):
        cells["peak MiB"] = lambda group: three_digits(group.mean("peak_mib"))
    cells["s / epoch"] = lambda group: three_digits(group.mean("epoch_s"))
    cells["status"] = status
    return cells


def several_seeds(comparison: Comparison, name: str) -> bool:
    """Return whether any group has this number of two seeds or more."""
    spreads = [group.spread(name) for group in comparison.groups]
    return any(spread is not None and spread.sd is not None for spread in spreads)


def _value(group: Group, key: str) -> str:
    return config_value(group.values[key])


def _score(group: Group, score: Score) -> str:
    """Return the score of those runs of the group whose task it belongs to."""
    runs = [run for run in group.done if score in scores_of(run.final)]
    return plus_minus(over_seeds([(run.seed, run.value(score.name)) for run in runs], score.name), *score[2:])


def plus_minus(spread: Spread | None, places: int, factor: float = 1) -> str:
    """Return mean ± standard deviation; one seed has no deviation."""
    if spread is None:
        return MISSING
    sd = "" if spread.sd is None else f" ± {factor * spread.sd:.{places}f}"
    return f"{factor * spread.mean:.{places}f}{sd}"


def interval(spread: Spread | None, places: int, factor: float = 1) -> str:
    """Return the 95 % interval of the mean."""
    if spread is None or spread.low is None or spread.high is None:
        return MISSING
    return f"{factor * spread.low:.{places}f} to {factor * spread.high:.{places}f}"


def runs_and_seeds(group: Group) -> str:
    """Return how many runs the means are of, and their seeds."""
    return f"{len(group.done)} ({seed_range(run.seed for run in group.done)})" if group.done else "0"


def parameters(group: Group) -> str:
    """Return one number, or a range where `by` mixes networks."""
    counts = sorted({value for run in group.runs if (value := run.value("parameters")) is not None})
    return " to ".join(f"{n:,.0f}" for n in dict.fromkeys((counts[0], counts[-1]))) if counts else MISSING


def _nfe_backward(group: Group) -> str:
    if not group.mean("nfe_forward"):
        return MISSING
    backprop = all(run.config.get("gradient.method") == "backprop" for run in group.done)
    return "0 (no re-evaluation)" if backprop else mean_count(group.mean("nfe_backward"))


def status(group: Group) -> str:
    """Return "done", or how many runs ended how."""
    counts = Counter(run.status for run in group.runs)
    return "done" if set(counts) == {"done"} else ", ".join(f"{n} {kind}" for kind, n in counts.items())


def comparison_text(comparison: Comparison, provenance: Provenance) -> str:
    """Return what all runs share, the table, its notes, the runs that are not done, and where the numbers come from."""
    cells = columns(comparison)
    rows = [[cell(group) for cell in cells.values()] for group in comparison.groups]
    parts = [f"In common: {config_sentence(comparison.common)}"] if comparison.common else []
    parts += [markdown_table(list(cells), rows, left=len(comparison.keys) + 1)] if rows else []
    parts += _notes(comparison, provenance)
    undone = [
        f"{run.folder}: {run.status}: {run.reason or 'no reason given'}" for run in comparison.runs if not run.done
    ]
    parts += ["Not done, and in no mean:", bullets(undone)] if undone else []
    return "\n\n".join([*parts, bullets(provenance.lines())])


def _notes(comparison: Comparison, provenance: Provenance) -> list[str]:
    """Return how to read the table."""
    notes = []
    if several_seeds(comparison, "loss"):
        notes.append("±: standard deviation over seeds; interval: of the mean, by Student's t.")
    if comparison.mixed:
        notes.append(f"Rows are means over {', '.join(comparison.mixed)} too: `by=` leaves that open.")
    if any(len({run.seed for run in group.done}) < len(group.done) for group in comparison.groups):
        notes.append("Runs of one seed count as one, with their mean.")
    if len(provenance.machines) > 1:
        notes.append("Times come from several machines and do not compare.")
    return notes


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """Return an aligned Markdown table; the first `left` columns and the last hold words, the others numbers."""
    head, *rows = [[cell.replace("|", r"\|") for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    is_text = [column < left or column == len(head) - 1 for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [cell.ljust(w) if text else cell.rjust(w) for cell, w, text in zip(cells, widths, is_text)]
        return "| " + " | ".join(padded) + " |"

    rule = "|".join("-" * (w + 2) if text else "-" * (w + 1) + ":" for w, text in zip(widths, is_text))
    return "\n".join([line(head), f"|{rule}|", *map(line, rows)])
