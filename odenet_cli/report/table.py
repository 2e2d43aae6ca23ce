"""The table of a comparison, for people: Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from odenet_cli.report.groups import Comparison, Group
from odenet_cli.report.provenance import Source
from odenet_cli.report.runs import Run
from odenet_cli.report.scores import ERROR, Score, among, judged
from odenet_cli.report.spread import Spread, over_seeds
from odenet_cli.report.text import NONE, bullets, count, digits, sentence, series, word

Cell = Callable[[Group], str]


def columns(comparison: Comparison) -> dict[str, Cell]:
    """Title -> what stands below it."""
    shown: dict[str, Cell] = {key: partial(_value, key=key) for key in comparison.keys}
    shown["runs (seeds)"] = runs
    if comparison.has("error"):
        shown["test error %"] = lambda group: plus_minus(group.spread("error"), 2, 100)
        if several(comparison, "error"):
            shown["95 % interval"] = lambda group: interval(group.spread("error"), 2, 100)
    done = [run for group in comparison.groups for run in group.done]
    for score in among(map(_final, done)):
        if score != ERROR:
            shown[f"test {score.title}"] = partial(_score, score=score)
    if any(run.value("error") is None and run.value("loss") != run.value("nll") for run in done):
        shown["test loss"] = lambda group: plus_minus(group.spread("loss"), 4)
        if several(comparison, "loss"):
            shown["95 % interval of the loss"] = lambda group: interval(group.spread("loss"), 4)
    shown["parameters"] = parameters
    if comparison.solving:
        shown["NFE forward"] = lambda group: count(group.mean("nfe_forward") or None)
        shown["NFE backward"] = backward
    shown["saved MiB"] = lambda group: digits(group.mean("saved_mib"))
    if comparison.has("peak_mib"):
        shown["peak MiB"] = lambda group: digits(group.mean("peak_mib"))
    shown["s / epoch"] = lambda group: digits(group.mean("epoch_s"))
    shown["status"] = status
    return shown


def several(comparison: Comparison, name: str) -> bool:
    """Has any group this number of two seeds or more?"""
    return any(found.sd is not None for group in comparison.groups if (found := group.spread(name)))


def _value(group: Group, key: str) -> str:
    return word(group.values[key])


def _final(run: Run) -> dict[str, Any]:
    return run.record.get("final") or {}


def _score(group: Group, score: Score) -> str:
    """Of those of its runs that it judges."""
    mine = [run for run in group.done if score in judged(_final(run))]
    found = over_seeds([(run.seed, run.value(score.name)) for run in mine], score.name)
    return plus_minus(found, score.places, score.factor)


def plus_minus(found: Spread | None, places: int, factor: float = 1) -> str:
    """Mean ± standard deviation; of one seed there is no deviation."""
    if found is None:
        return NONE
    sd = "" if found.sd is None else f" ± {factor * found.sd:.{places}f}"
    return f"{factor * found.mean:.{places}f}{sd}"


def interval(found: Spread | None, places: int, factor: float = 1) -> str:
    """The 95 % interval of the mean."""
    if found is None or found.low is None or found.high is None:
        return NONE
    return f"{factor * found.low:.{places}f} to {factor * found.high:.{places}f}"


def runs(group: Group) -> str:
    """How many runs the means are of, and their seeds."""
    return f"{len(group.done)} ({series(run.seed for run in group.done)})" if group.done else "0"


def parameters(group: Group) -> str:
    """One number, or a range where `by` mixes networks."""
    found = sorted({value for run in group.runs if (value := run.value("parameters")) is not None})
    return " to ".join(f"{value:,.0f}" for value in dict.fromkeys((found[0], found[-1]))) if found else NONE


def backward(group: Group) -> str:
    """Evaluations of the way back; backprop evaluates nothing again."""
    if not group.mean("nfe_forward"):
        return NONE
    kept = all(run.config.get("gradient.method") == "backprop" for run in group.done)
    return "0 (no re-evaluation)" if kept else count(group.mean("nfe_backward"))


def status(group: Group) -> str:
    """done, or how many ended how."""
    kinds = Counter(run.status for run in group.runs)
    return "done" if set(kinds) == {"done"} else ", ".join(f"{n} {kind}" for kind, n in kinds.items())


def markdown(comparison: Comparison, made: Source) -> str:
    """What all runs share, the table, its notes, the runs that are not done, and where the numbers come from."""
    shown = columns(comparison)
    rows = [[cell(group) for cell in shown.values()] for group in comparison.groups]
    parts = [f"In common: {sentence(comparison.common)}"] if comparison.common else []
    parts += [aligned(list(shown), rows, left=len(comparison.keys) + 1)] if rows else []
    parts += notes(comparison, made)
    stopped = [
        f"{run.folder}: {run.status}: {run.reason or 'no reason given'}" for run in comparison.runs if not run.done
    ]
    parts += ["Not done, and in no mean:", bullets(stopped)] if stopped else []
    return "\n\n".join([*parts, bullets(made.lines())])


def notes(comparison: Comparison, made: Source) -> list[str]:
    """How to read the table."""
    found = []
    if several(comparison, "loss"):
        found.append("±: standard deviation over seeds; interval: of the mean, by Student's t.")
    if comparison.mixed:
        found.append(f"Rows are means over {', '.join(comparison.mixed)} too: `by=` leaves that open.")
    if any(len({run.seed for run in group.done}) < len(group.done) for group in comparison.groups):
        found.append("Runs of one seed count as one, with their mean.")
    if len(made.machines) > 1:
        found.append("Times come from several machines and do not compare.")
    return found


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A Markdown table; the first `left` columns and the last hold words, the others numbers."""
    head, *rows = [[cell.replace("|", r"\|") for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    words = [place < left or place == len(head) - 1 for place in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [c.ljust(w) if plain else c.rjust(w) for c, w, plain in zip(cells, widths, words)]
        return "| " + " | ".join(padded) + " |"

    rule = "|".join("-" * (w + 2) if plain else "-" * (w + 1) + ":" for w, plain in zip(widths, words))
    return "\n".join([line(head), f"|{rule}|", *map(line, rows)])
