"""Table 1 of Chen et al. 2018: seven networks compared, and memory and time by depth and tolerance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from odenet_cli.markdown import MISSING, join_words, markdown_table, mean_count, three_digits
from odenet_cli.report import style
from odenet_cli.report.compare import Group
from odenet_cli.report.items import _significance
from odenet_cli.report.result import Entry, Facts, Result, csv_row
from odenet_cli.report.statistics import Pair, fit_line, grouped, mcnemar
from odenet_cli.report.table import interval, parameters, plus_minus, runs_and_seeds
from odenet_cli.report.text import bullets, compact, seeds_text

TITLE = "Table 1, MLP, ResNets, RK-Net and ODE-Net"
LABELS = {
    "test_error": "test error of {} (%)",
    "memory_growth": "saved memory of ODE-Net, largest over smallest, minus 1 (%)",
    "memory_r2": "R² of {}'s saved memory against {}",
    "time_r2": "R² of {}'s time against {}",
}
NUMBERS = ("error", "valid_error", "parameters", "saved_mib", "peak_mib", "epoch_s", "nfe_forward", "nfe_backward")
ABOUT = (
    "±: standard deviation over seeds; interval: 95 %, of the mean, by Student's t, as far as it lies within 0 and "
    "100 %. Saved: what autograd holds for the backward pass at its peak. NFE: function evaluations of a training "
    "step, a mean over the last epoch, forward / backward; RK-Net evaluates nothing again backward. The test error is "
    "that of the weights with the smallest error on the validation digits. Seconds an epoch: {times}."
)
ALONE = "the median step of a few hundred with nothing else on the machine, times the steps of an epoch"
SHARED = "of the trainings themselves, which may have shared the machine"
SCALING = (
    "One training step of each network, by depth and by tolerance (1e-1 to 1e-6). L: residual blocks; L~: field "
    "evaluations forward, for RK-Net those of the accepted steps, whose graph it keeps. ODE-Net: the adjoint, its "
    "tolerance relative to the incoming gradient or absolute as in the paper (figure 3 shows what these gradients are "
    "worth); replay: the exact gradient of the steps, from one state kept a step. Lines on the left are least squares."
)
LOOKS: dict[str, style.Look] = {  # of the networks whose steps are measured by depth
    "ResNet": {"color": style.CYCLE[6], "marker": "s"},
    "RK-Net": {"color": style.CYCLE[1], "marker": "^"},
    "ODE-Net (replay)": {"color": style.CYCLE[2], "marker": "v"},
    "ODE-Net (absolute norm)": {"color": style.CYCLE[5], "marker": "D"},
    "ODE-Net": {"color": style.CYCLE[0], "marker": "o"},
}

Groups = Mapping[str, Group]
Seconds = Mapping[str, float | None]  # row -> seconds an epoch
Paper = Mapping[str, Mapping[str, Any]]  # row -> the paper's numbers
Steps = list[dict[str, Any]]  # measured training steps of a network, by depth


def result(entries: Sequence[Entry], rest: dict[str, Any]) -> Result:
    """Return the report; `rest["paper"]` holds the paper's numbers, of MNIST, `rest["notes"]` the free choices."""
    groups, times = by_row(entries, "compare"), by_row(entries, "times")
    alone = bool(times) and all(group.done for group in times.values())
    on_mnist = {run.config.get("data.name") for group in groups.values() for run in group.done} == {"mnist"}
    paper = rest["paper"] if on_mnist else {}
    seconds = {row: epoch_s(group, times.get(row) if alone else None) for row, group in groups.items()}
    pairs, steps = mcnemar({row: group.runs for row, group in groups.items()}), by_depth(entries)
    body = [table(groups, paper, seconds), _significance.paragraph(pairs, groups)]
    body += [ABOUT.format(times=ALONE if alone else SHARED), "## Details", details(groups)]
    body += [*_significance.details(pairs), *candidates(by_row(entries, "recipe")), bullets(rest["notes"])]
    if any(steps.values()):
        body += ["## Memory and time of a step", SCALING, "![scaling]", steps_table(steps)]
    # Elsewhere a test error would be that of a few steps, or of a candidate for the recipe, chosen without test digits.
    numbers = {entry.part: NUMBERS[entry.part != "compare" :] for entry in entries}
    return Result(
        body=body,
        rows=[csv_row(entry, numbers[entry.part]) | (measured_step(entry) or {}) for entry in entries],
        figures={"scaling": draw(steps)},
        seeds={"scaling": seeds_text(e.run.seed for e in entries if e.part == "scaling" and e.run.done)},
        facts=facts(groups, steps),
        verdict=verdict({row: groups[row] for row in rest["paper"] if row in groups}, paper, seconds, pairs),
    )


def by_row(entries: Sequence[Entry], part: str) -> dict[str, Group]:
    runs = grouped((entry.row, entry.run) for entry in entries if entry.part == part)
    return {row: Group(runs=same) for row, same in runs.items()}


def facts(groups: Groups, steps: Mapping[str, Steps]) -> Facts:
    """Return the errors, and what the paper's O(1), O(L) and O(L~) are when measured."""
    errors = {row: group.mean("error") for row, group in groups.items()}
    numbers: Facts = {f"test_error/{row}": None if e is None else 100 * e for row, e in errors.items()}
    saved = [step["saved_mib"] for step in steps["ODE-Net"]]
    numbers["memory_growth"] = 100 * (max(saved) / min(saved) - 1) if len(saved) > 1 else None
    for name in LOOKS:
        for fact, measure in (("memory_r2", "saved_mib"), ("time_r2", "step_ms")):
            if measure == "step_ms" or not name.startswith("ODE-Net"):
                line = fit_line((step["depth"], step[measure]) for step in steps[name])
                numbers[f"{fact}/{name}/{depth_symbol(name)}"] = line.r2 if line else None
    return numbers


def epoch_s(group: Group, alone: Group | None) -> float | None:
    """Return the seconds of an epoch: of the steps that were timed alone where there are any, else of the training."""
    steps = next((run.steps_per_epoch for run in group.done if run.steps_per_epoch), None)
    timed = alone.mean("step_ms") if alone else None
    return timed / 1000 * steps if timed and steps else group.mean("epoch_s")


def table(groups: Groups, paper: Paper, seconds: Seconds) -> str:
    """Return the seven rows, the paper's numbers in the cells of ours."""
    head = ["", "test error %", "95 % interval", "parameters", "saved MiB", "s / epoch", "NFE", "runs (seeds)"]
    rows = []
    for row, group in groups.items():
        error, forward = group.spread("error"), group.mean("nfe_forward")
        ours = {"error": plus_minus(error, 2, 100), "interval": interval(error, 2, 100)}
        ours |= {"parameters": parameters(group), "memory": three_digits(group.mean("saved_mib"))}
        ours |= {"time": three_digits(seconds[row])}
        quoted = paper.get(row, {})
        cells = [f"{cell} (paper {quoted[name]})" if name in quoted else cell for name, cell in ours.items()]
        cells += [f"{mean_count(forward)} / {mean_count(group.mean('nfe_backward'))}" if forward else MISSING]
        rows.append([row, *cells, runs_and_seeds(group) if group.done else "not done"])
    return markdown_table(head, rows, left=1)


def details(groups: Groups) -> str:
    """Return the results of each seed, and the validation numbers that chose its weights."""
    on_gpu = any(group.spread("peak_mib") for group in groups.values())
    head = ["", "test errors %, by seed", "validation error %", *["peak MiB"] * on_gpu, "best epoch", "of epochs"]
    rows = []
    for row, group in groups.items():
        errors = [f"{100 * error:.2f}" for run in group.done if (error := run.value("error")) is not None]
        cells = [row, ", ".join(errors) or MISSING, plus_minus(group.spread("valid_error"), 2, 100)]
        cells += [three_digits(group.mean("peak_mib"))] * on_gpu
        rows.append([*cells, mean_count(group.mean("best_epoch")), mean_count(group.mean("epoch"))])
    return markdown_table(head, rows, left=2)


def candidates(groups: Groups) -> list[str]:
    """Return the candidates for the recipe; empty if the preset has none."""
    rows = [
        [row, plus_minus(error, 2, 100), three_digits(group.mean("valid_loss")), runs_and_seeds(group)]
        for row, group in groups.items()
        if (error := group.spread("valid_error"))
    ]
    head = ["candidate for the recipe", "validation error %", "validation loss", "runs (seeds)"]
    return [markdown_table(head, rows, left=1)] if rows else []


def verdict(groups: Groups, paper: Paper, seconds: Seconds, pairs: Sequence[Pair]) -> str:
    """Return what the paper's rows came to, in two sentences: errors; and which differ, at what cost."""
    done = {row: (group, error) for row, group in groups.items() if (error := group.mean("error")) is not None}
    if not done:
        return ""
    errors = [f"{100 * error:.2f}" for _, error in done.values()]
    seeds = {len({run.seed for run in group.done}) for group, _ in done.values()}
    count = f"{min(seeds)} to {max(seeds)}" if len(seeds) > 1 else f"{max(seeds)}"
    quoted = [str(paper[row]["error"]) for row in done if "error" in paper.get(row, {})]
    of_paper = f" (paper: {join_words(quoted)} %)" if len(quoted) == len(done) else ""
    mean = "mean " * (max(seeds) > 1)
    have = f"have {mean}test errors" if len(done) > 1 else f"has a {mean}test error"
    first = f"{join_words(list(done))} {have} of {join_words(errors)} %, {count} seed{'s' * (count != '1')}{of_paper}."
    second = _significance.sentence(pairs, [row for row in done if row != "MLP"])
    return f"{first} {second}{cost({row: group for row, (group, _) in done.items()}, seconds)}."


def cost(groups: Groups, seconds: Seconds) -> str:
    """Return what ODE-Net takes beside ResNet-6, as the end of a sentence."""
    rows = ("ODE-Net", "ResNet-6")
    if not set(rows) <= groups.keys():
        return ""
    costs = {"saved memory": [groups[row].mean("saved_mib") for row in rows], "epoch": [seconds[row] for row in rows]}
    known = [f"{name} is {ode / res:.2g} times" for name, (ode, res) in costs.items() if ode and res]
    return f"; ODE-Net's {' and its '.join(known)} that of ResNet-6" if known else ""


# Memory and time of a training step, by depth and by tolerance.


def by_depth(entries: Sequence[Entry]) -> dict[str, Steps]:
    measured = [(entry.row, step) for entry in entries if (step := measured_step(entry))]
    return {
        name: sorted((step for row, step in measured if row == name), key=lambda step: step["depth"]) for name in LOOKS
    }


def measured_step(entry: Entry) -> dict[str, Any] | None:
    """Return depth, memory and time of a training step of a finished cell of the scaling; None for other cells."""
    run, train = entry.run, entry.run.records("train")
    if entry.part != "scaling" or not run.done or len(train) < 2:
        return None
    last = train[-1]
    depth = {"ResNet": run.config.get("model.blocks"), "RK-Net": last["vjps"]}.get(entry.row, last["nfe_forward"])
    return {
        "depth": depth,
        "rtol": None if entry.row == "ResNet" else run.config.get("solver.rtol"),
        "saved_mib": last["saved_mib"],
        "peak_mib": last["peak_mib"],
        "step_ms": run.step_ms,
        "nfe_forward": last["nfe_forward"],
        "nfe_backward": last["nfe_backward"],
    }


def depth_symbol(name: str) -> str:
    """Return the paper's symbol for the depth of this network."""
    return "L" if name == "ResNet" else "L~"


def steps_table(steps: Mapping[str, Steps]) -> str:
    rows = []
    for name, measured in steps.items():
        unit = "blocks" if name == "ResNet" else "evaluations"
        for step in measured:
            tolerance = "" if step["rtol"] is None else compact(step["rtol"])
            nfe = f"{step['nfe_forward']} / {step['nfe_backward']}" if step["nfe_forward"] else MISSING
            cells = [f"{depth_symbol(name)} = {step['depth']} {unit}", tolerance, nfe]
            rows.append([name, *cells, three_digits(step["saved_mib"]), three_digits(step["step_ms"])])
    return markdown_table(["", "depth", "rtol", "NFE forward / backward", "saved MiB", "ms / step"], rows, left=2)


@style.styled
def draw(steps: Mapping[str, Steps]) -> Figure | None:
    """Draw memory and time of a step against L or L~."""
    steps = {name: measured for name, measured in steps.items() if len(measured) > 1}
    if not steps:
        return None
    figure, ((memory, time),) = style.panel_grid(2, 2, style.HEIGHT + 0.5)
    for name, measured in steps.items():
        look, depths = LOOKS[name], [step["depth"] for step in measured]
        saved, seconds = [step["saved_mib"] for step in measured], [step["step_ms"] / 1000 for step in measured]
        memory.plot(depths, saved, **look, linestyle="", zorder=3)
        if line := fit_line(zip(depths, saved)):
            ends = [0, max(depths)]
            memory.plot(ends, [line.at(depth) for depth in ends], color=look["color"], linewidth=0.9)
        time.plot(depths, seconds, **look, linewidth=0.9)
    memory.set(title="saved for backward (MiB)", xlim=(0, None), ylim=(0, None))
    time.set(title="time of a step (s)", xscale="log", yscale="log")
    for axes in (memory, time):
        axes.set_xlabel("L: blocks, or L~: evaluations of the field, forward")
    entries = [(memory_label(name, each), LOOKS[name] | {"linewidth": 0.9}) for name, each in steps.items()]
    style.legend(figure, entries, "memory")
    return figure


def memory_label(name: str, measured: Steps) -> str:
    """Return a line of the legend: how the memory grows."""
    saved = [step["saved_mib"] for step in measured]
    if max(saved) < 1.05 * min(saved):
        return f"{name}: flat"
    line = fit_line((step["depth"], step["saved_mib"]) for step in measured)
    unit = "a block" if name == "ResNet" else "an evaluation"
    return f"{name}: {line.slope:.2g} MiB {unit}, R² = {line.r2:.4f}" if line else name
