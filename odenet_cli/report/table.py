"""Format a comparison as a Markdown table."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from odenet_cli.errors import RequestError
from odenet_cli.markdown import MISSING, fitting_columns, markdown_table, mean_count, three_digits
from odenet_cli.registry import nearest
from odenet_cli.report.compare import PRESETS, Comparison, Group
from odenet_cli.report.provenance import MAX_LISTED, Provenance
from odenet_cli.report.statistics import Spread, over_seeds
from odenet_cli.report.text import bullets, config_sentence, config_value, seed_range
from odenet_cli.scores import ERROR, Score, scores_among, scores_of
from odenet_cli.streams import wrapped

Cell = Callable[[Group], str]


def columns(comparison: Comparison) -> dict[str, Cell]:
    """Return title -> text of a group, for each column; what matters most stands first."""
    cells: dict[str, Cell] = {"#": lambda group: str(1 + comparison.groups.index(group))}
    cells |= {key: partial(lambda key, group: config_value(group.values[key]), key) for key in comparison.keys}
    cells["runs (seeds)"] = runs_and_seeds
    if not all(run.done for run in comparison.runs):
        cells["status"] = status
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
    if any(group.mean("nfe_forward") for group in comparison.groups):
        cells["NFE forward"] = lambda group: mean_count(group.mean("nfe_forward") or None)
        cells["NFE backward"] = _nfe_backward
    if comparison.has("gradient_error"):
        # As small as rounding, so two significant digits.
        cells["gradient error"] = lambda g: MISSING if (e := g.mean("gradient_error")) is None else f"{e:.2g}"
    cells["saved MiB"] = lambda group: three_digits(group.mean("saved_mib"))
    if comparison.has("peak_mib"):
        cells["peak MiB"] = lambda group: three_digits(group.mean("peak_mib"))
    cells["s / epoch"] = lambda group: three_digits(seconds.mean if (seconds := epoch_s(group)) else None)
    cells["parameters"] = parameters
    cells["status"] = status
    return cells


def several_seeds(comparison: Comparison, name: str) -> bool:
    """Return whether any group has this number of two seeds or more."""
    spreads = [group.spread(name) for group in comparison.groups]
    return any(spread is not None and spread.sd is not None for spread in spreads)


def _score(group: Group, score: Score) -> str:
    """Return the score of those runs of the group whose task it belongs to."""
    runs = [run for run in group.done if score in scores_of(run.final)]
    spread = over_seeds([(run.seed, run.value(score.name)) for run in runs], score.name)
    return plus_minus(spread, score.places, score.factor, score.form)


def plus_minus(spread: Spread | None, places: int, factor: float = 1, form: str = "f") -> str:
    """Return mean ± standard deviation; one seed has no deviation."""
    if spread is None:
        return MISSING
    sd = "" if spread.sd is None else f" ± {factor * spread.sd:.{places}{form}}"
    return f"{factor * spread.mean:.{places}{form}}{sd}"


def interval(spread: Spread | None, places: int, factor: float = 1) -> str:
    """Return the 95 % interval of the mean."""
    if spread is None or spread.low is None or spread.high is None:
        return MISSING
    return f"{factor * spread.low:.{places}f} to {factor * spread.high:.{places}f}"


def odenet_versions(group: Group) -> set[str]:
    """Return the versions of odenet that made the runs of which the means are."""
    return {str((run.record.get("versions") or {}).get("odenet", "unknown")) for run in group.done}


def epoch_s(group: Group) -> Spread | None:
    """Return the spread of the seconds of an epoch; None for runs of several machines, whose mean is of none."""
    return group.spread("epoch_s") if len({run.record.get("device") for run in group.done}) == 1 else None


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


def comparison_text(
    comparison: Comparison,
    provenance: Provenance,
    width: int | None = None,
    picked: Sequence[str] = (),
    every_folder: bool = False,
) -> str:
    """Return what all runs share, the table, its notes, its folders, the runs that are not done, and the provenance.

    width   the columns of the terminal, which the table fits; None: it has no end
    picked  show only the columns of these names
    """
    cells = columns(comparison)
    if width is not None:
        cells = {"#": cells["#"]} | _one_score(comparison, cells) | cells
    rows = [[cell(group) for cell in cells.values()] for group in comparison.groups]
    shared = {"In common": comparison.common, "Where a run has it": comparison.partial}
    parts = [f"{head}: {text}" for head, setting in shared.items() if (text := config_sentence(setting))]
    if rows:
        words = [*comparison.keys, "#", "runs (seeds)", "test score"]
        shown = _picked(list(cells), picked) if picked else _fitting(list(cells), rows, width)
        head = [title for place, title in enumerate(cells) if place in shown]
        body = [[row[place] for place in shown] for row in rows]
        parts += [markdown_table(head, body, left=sum(title in words for title in head))]
        if left_out := [title for title in cells if title not in head and not picked]:
            parts += [
                f"Left out, as the terminal has {width} columns: {', '.join(left_out)} (--all, or --columns A,B)."
            ]
        parts += _notes(comparison, provenance)
        parts += _folders(comparison, every_folder)
    undone = [
        f"{run.folder}: {run.status}: {run.reason or 'no reason given'}" for run in comparison.runs if not run.done
    ]
    parts += ["Not done, and in no mean:", bullets(undone)] if undone else []
    if width is not None:  # a terminal would break words; lists, of folders and commands to copy, are its own to break
        parts = [part if part.startswith(("|", "- ")) else wrapped(part, width) for part in parts]
    return "\n\n".join([*parts, bullets(provenance.lines())])


def _one_score(comparison: Comparison, cells: dict[str, Cell]) -> dict[str, Cell]:
    """Return a column with the main score of each group's own task, where the groups have several."""
    scores = [scores_of(run.final)[:1] for group in comparison.groups for run in group.done]
    titles = list(dict.fromkeys(f"test {score.title}" for (score,) in filter(None, scores)))

    def cell(group: Group) -> str:
        texts = ((title.removeprefix("test "), cells[title](group)) for title in titles)
        return next((f"{title} {text}" for title, text in texts if text != MISSING), MISSING)

    return {"test score": cell} if len(titles) > 1 else {}


def _fitting(titles: Sequence[str], rows: Sequence[Sequence[str]], width: int | None) -> list[int]:
    """Return the places of the columns that fit into `width`: first the number and the main score, then the names of
    models, data and solvers."""
    main = next((place for place, title in enumerate(titles) if title.startswith("test ")), 0)
    names = [place for place, title in enumerate(titles) if title.rpartition(".")[2] in PRESETS]
    return fitting_columns(titles, rows, width, first=(0, main, *names))


def _picked(titles: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return the places of the number of the row, and of the columns in whose titles any of the names occurs."""
    for name in names:
        if not any(name.lower() in title.lower() for title in titles):
            known = f"\n  Available: {', '.join(titles[1:])}."
            raise RequestError(f"--columns {name} is no column here.{nearest(name, titles)}{known}")
    return [
        place for place, title in enumerate(titles) if not place or any(name.lower() in title.lower() for name in names)
    ]


def _folders(comparison: Comparison, every: bool) -> list[str]:
    """Return the folders of each row, below the one that holds all of them; of many the first ones, unless `every`."""
    base = _common_folder([run.folder for group in comparison.groups for run in group.runs])
    lines = []
    for number, group in enumerate(comparison.groups, 1):
        shown = group.runs if every else group.runs[:MAX_LISTED]
        names = ", ".join(str(run.folder.relative_to(base) if base else run.folder) for run in shown)
        left = len(group.runs) - len(shown)
        lines.append(f"{number}: {names}" + f" and {left} more" * bool(left))
    return [f"Folders of the rows{f', in {base}' if base else ''}:", bullets(lines)]


def _common_folder(folders: Sequence[Path]) -> Path | None:
    """Return the folder above all of several; None where there is none, or one run alone."""
    try:
        base = Path(os.path.commonpath([folder.parent for folder in folders]))
    except ValueError:  # absolute ones beside relative ones
        return None
    return base if len(folders) > 1 and base.name else None


def _notes(comparison: Comparison, provenance: Provenance) -> list[str]:
    """Return how to read the table."""
    notes = []
    if several_seeds(comparison, "loss"):
        notes.append("±: standard deviation over seeds; interval: of the mean, by Student's t.")
    if comparison.mixed:
        notes.append(f"Rows are means over {', '.join(comparison.mixed)} too: `by=` does not separate them.")
    if rows := [str(number) for number, group in enumerate(comparison.groups, 1) if len(odenet_versions(group)) > 1]:
        versions = sorted({version for group in comparison.groups for version in odenet_versions(group)})
        many = "s" * (len(rows) > 1)
        notes.append(f"Row{many} {', '.join(rows)}: means over versions {', '.join(versions)} of odenet.")
    if any(len({run.seed for run in group.done}) < len(group.done) for group in comparison.groups):
        notes.append("Runs of one seed count as one, with their mean.")
    if told := [text for number, group in enumerate(comparison.groups, 1) if (text := _times(number, group))]:
        notes.append(f"Seconds of training, predicted from the first steps and measured: {'; '.join(told)}.")
    if len(provenance.machines) > 1:
        notes.append("Times come from several machines and do not compare; a row of several has none.")
    return notes


def _times(number: int, group: Group) -> str:
    """Return the row's number with the mean seconds predicted and measured; nothing where no run was predicted."""
    costs = [(run.record.get("cost") or {}).get("seconds") or {} for run in group.done]
    pairs = [(each["predicted"], each["measured"]) for each in costs if each.get("predicted")]
    if not pairs:
        return ""
    predicted, measured = (sum(column) / len(pairs) for column in zip(*pairs))
    return f"row {number}: {predicted:.0f} and {measured:.0f}"
