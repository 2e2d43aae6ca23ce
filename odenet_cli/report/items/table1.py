"""Table 1 of Chen et al. 2018: seven networks side by side, and what memory and time cost by depth and tolerance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from odenet_cli.report.groups import Group
from odenet_cli.report.items import _table1, _verdicts
from odenet_cli.report.mcnemar import pairs
from odenet_cli.report.result import Entry, Result, row_of
from odenet_cli.report.spread import over_seeds
from odenet_cli.report.table import aligned, interval, parameters, plus_minus, runs
from odenet_cli.report.text import NONE, bullets, count, digits, listed

NUMBERS = ("error", "valid_error", "parameters", "saved_mib", "peak_mib", "epoch_s", "nfe_forward", "nfe_backward")
ABOUT = (
    "±: standard deviation over seeds; interval: 95 %, of the mean, by Student's t, as far as it lies within 0 and "
    "100 %. Saved: what autograd holds for the backward pass at its peak. NFE: function evaluations of a training step "
    "at the end of training, forward / backward; RK-Net evaluates nothing again backward. The test error is that of "
    "the weights with the smallest error on the validation digits. Seconds an epoch: {times}."
)
ALONE = "the median step of a few hundred with nothing else on the machine, times the steps of an epoch"
SHARED = "of the trainings themselves, which may have shared the machine"

Groups = Mapping[str, Group]


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """`rest["paper"]` holds the paper's own numbers, which are of MNIST, `rest["notes"]` the free choices."""
    groups, times = by_row(entries, "compare"), by_row(entries, "times")
    alone = bool(times) and all(group.done for group in times.values())
    on_mnist = {run.config.get("data.name") for group in groups.values() for run in group.done} == {"mnist"}
    paper = rest["paper"] if on_mnist else {}
    seconds = {row: epoch_s(group, times.get(row) if alone else None) for row, group in groups.items()}
    told, scaled = pairs({row: group.runs for row, group in groups.items()}), _table1.by_depth(entries)
    facts: dict[str, float | None] = {}
    for row, group in groups.items():
        error = group.mean("error")
        facts[f"test error of {row} (%)"] = None if error is None else 100 * error
    facts |= _table1.facts(scaled)
    body = [table(groups, paper, seconds), _verdicts.line(told, groups), ABOUT.format(times=ALONE if alone else SHARED)]
    body += ["## Details", details(groups), *_verdicts.details(told), *candidates(by_row(entries, "recipe"))]
    body += [bullets(rest["notes"])]
    if any(scaled.values()):
        body += ["## Memory and time of a step", _table1.ABOUT, "![scaling]", _table1.table(scaled)]
    # Elsewhere a test error would be that of a few steps, or of a candidate for the recipe, chosen without test digits.
    numbers = {entry.part: NUMBERS[entry.part != "compare" :] for entry in entries}
    rows = [row_of(entry, numbers[entry.part]) | (_table1.step(entry) or {}) for entry in entries]
    return Result(
        title="Table 1, MLP, ResNets, RK-Net and ODE-Net",
        body=body,
        rows=rows,
        figures={"scaling": _table1.draw(scaled)},
        facts=facts,
        verdict=verdict({row: groups[row] for row in rest["paper"] if row in groups}, paper, seconds, told),
    )


def by_row(entries: Sequence[Entry], part: str) -> dict[str, Group]:
    """Return the cells of one part, by row."""
    mine = [entry for entry in entries if entry.part == part]
    names = dict.fromkeys(entry.row for entry in mine)
    return {name: Group(values={}, runs=[entry.run for entry in mine if entry.row == name]) for name in names}


def epoch_s(group: Group, alone: Group | None) -> float | None:
    """Return the seconds of an epoch: of the steps that were timed alone where there are any, else of the training."""
    steps = next((run.per_epoch for run in group.done if run.per_epoch), None)
    timed = over_seeds([(run.seed, run.step_ms) for run in alone.done], "step_ms") if alone else None
    return timed.mean / 1000 * steps if timed and steps else group.mean("epoch_s")


def table(groups: Groups, paper: Mapping[str, Mapping[str, Any]], seconds: Mapping[str, float | None]) -> str:
    """Return the seven rows, the paper's numbers in the cells of ours."""
    head = ["", "test error %", "95 % interval", "parameters", "saved MiB", "s / epoch", "NFE", "runs (seeds)"]
    rows = []
    for row, group in groups.items():

        def beside(ours: str, name: str, quoted: Mapping[str, Any] = paper.get(row, {})) -> str:
            return f"{ours} (paper {quoted[name]})" if name in quoted else ours

        error, forward = group.spread("error"), group.mean("nfe_forward")
        cells = [row, beside(plus_minus(error, 2, 100), "error"), interval(error, 2, 100)]
        cells += [beside(parameters(group), "parameters"), beside(digits(group.mean("saved_mib")), "memory")]
        cells += [beside(digits(seconds[row]), "time")]
        cells += [f"{count(forward)} / {count(group.mean('nfe_backward'))}" if forward else NONE]
        rows.append([*cells, runs(group) if group.done else "not done"])
    return aligned(head, rows, left=1)


def details(groups: Groups) -> str:
    """Return what each seed reached, and what it was chosen by."""
    on_gpu = any(group.spread("peak_mib") for group in groups.values())
    head = ["", "test errors %, by seed", "validation error %", *["peak MiB"] * on_gpu, "best epoch", "of epochs"]
    rows = []
    for row, group in groups.items():
        errors = [f"{100 * error:.2f}" for run in group.done if (error := run.value("error")) is not None]
        cells = [row, ", ".join(errors) or NONE, plus_minus(group.spread("valid_error"), 2, 100)]
        cells += [digits(group.mean("peak_mib"))] * on_gpu
        rows.append([*cells, count(group.mean("best_epoch")), count(group.mean("epoch"))])
    return aligned(head, rows, left=2)


def candidates(groups: Groups) -> list[str]:
    """Return what the recipe was chosen from; nothing where the preset has no candidates."""
    done = {row: group for row, group in groups.items() if group.spread("valid_error")}
    rows = [
        [row, plus_minus(group.spread("valid_error"), 2, 100), digits(group.mean("valid_loss")), runs(group)]
        for row, group in done.items()
    ]
    head = ["candidate for the recipe", "validation error %", "validation loss", "runs (seeds)"]
    return [aligned(head, rows, left=1)] if rows else []


def verdict(
    groups: Groups, paper: Mapping[str, Mapping[str, Any]], seconds: Mapping[str, float | None], told: _verdicts.Pairs
) -> str:
    """Return what the paper's rows came to, in two sentences: errors; and which differ, at what cost."""
    done = {row: group for row, group in groups.items() if group.mean("error") is not None}
    if not done:
        return ""
    errors = [f"{100 * (group.mean('error') or 0):.2f}" for group in done.values()]
    seeds = {len({run.seed for run in group.done}) for group in done.values()}
    over = f"{min(seeds)} to {max(seeds)}" if len(seeds) > 1 else f"{max(seeds)}"
    quoted = [str(paper[row]["error"]) for row in done if "error" in paper.get(row, {})]
    compared = f" (paper: {listed(quoted)} %)" if len(quoted) == len(done) else ""
    mean = "mean " * (max(seeds) > 1)
    have = f"have {mean}test errors" if len(done) > 1 else f"has a {mean}test error"
    first = f"{listed(list(done))} {have} of {listed(errors)} %, {over} seed{'s' * (over != '1')}{compared}."
    return f"{first} {_verdicts.sentence(told, [row for row in done if row != 'MLP'])}{cost(done, seconds)}."


def cost(groups: Groups, seconds: Mapping[str, float | None]) -> str:
    """Return what ODE-Net takes beside ResNet-6, as the end of a sentence."""
    if not {"ODE-Net", "ResNet-6"} <= groups.keys():
        return ""
    memory = [groups[row].mean("saved_mib") for row in ("ODE-Net", "ResNet-6")]
    time = [seconds[row] for row in ("ODE-Net", "ResNet-6")]
    known = [
        f"{name} is {ours / theirs:.2g} times"
        for name, (ours, theirs) in {"saved memory": memory, "epoch": time}.items()
        if ours and theirs
    ]
    return f"; ODE-Net's {' and its '.join(known)} that of ResNet-6" if known else ""
