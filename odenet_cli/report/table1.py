"""Table 1 of Chen et al. 2018: seven networks side by side, and what memory and time cost by depth and tolerance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from odenet_cli.report import _table1
from odenet_cli.report.groups import Group
from odenet_cli.report.result import Entry, Result, row_of
from odenet_cli.report.table import aligned, backward, interval, parameters, plus_minus, runs
from odenet_cli.report.words import NONE, bullets, count, digits

NUMBERS = ("error", "valid_error", "parameters", "saved_mib", "peak_mib", "epoch_s", "nfe_forward", "nfe_backward")
ABOUT = (
    "±: standard deviation over seeds; interval: 95 %, of the mean, by Student's t. Saved: what autograd holds for the "
    "backward pass at its peak. NFE: field evaluations of a training step at the end of training. The test error is "
    "that of the weights with the smallest error on the validation digits."
)


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """`rest["paper"]` holds the paper's own numbers, `rest["notes"]` the free choices."""
    compared = [entry for entry in entries if entry.part == "compare"]
    names = dict.fromkeys(entry.row for entry in compared)
    groups = {name: Group(values={}, runs=[entry.run for entry in compared if entry.row == name]) for name in names}
    scaled = _table1.by_depth(entries)
    facts: dict[str, float | None] = {}
    for row, group in groups.items():
        error = group.mean("error")
        facts[f"test error of {row} (%)"] = None if error is None else 100 * error
    facts |= _table1.facts(scaled)
    body = [table(groups, rest["paper"]), ABOUT, bullets(rest["notes"])]
    if any(scaled.values()):
        body += ["## Memory and time of a step", _table1.ABOUT, "![scaling]", _table1.table(scaled)]
    rows = [row_of(entry, NUMBERS) | (_table1.step(entry) or {}) for entry in entries]
    return Result(
        title="Table 1, MLP, ResNets, RK-Net and ODE-Net",
        body=body,
        rows=rows,
        figures={"scaling": _table1.draw(scaled)},
        facts=facts,
    )


def table(groups: dict[str, Group], paper: dict[str, dict[str, Any]]) -> str:
    """The seven rows, the paper's numbers beside them."""
    on_gpu = any(group.spread("peak_mib") for group in groups.values())
    head = ["", "test error %", "95 % interval", "paper", "parameters", "paper", "saved MiB", *["peak MiB"] * on_gpu]
    head += ["paper", "s / epoch", "paper", "NFE forward", "NFE backward", "runs (seeds)"]
    rows = []
    for row, group in groups.items():
        quoted = {name: str(value) for name, value in paper.get(row, {}).items()}
        cells = [row, plus_minus(group.spread("error"), 2, 100), interval(group.spread("error"), 2, 100)]
        cells += [quoted.get("error", NONE), parameters(group), quoted.get("parameters", NONE)]
        cells += [digits(group.mean("saved_mib")), *[digits(group.mean("peak_mib"))] * on_gpu]
        cells += [quoted.get("memory", NONE), digits(group.mean("epoch_s")), quoted.get("time", NONE)]
        cells += [count(group.mean("nfe_forward") or None), backward(group), runs(group) if group.done else "not done"]
        rows.append(cells)
    return aligned(head, rows, left=1)
