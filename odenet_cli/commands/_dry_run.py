"""`odenet train --dry-run`: every value in effect and where it comes from, the folder and the cost; nothing is made."""

from __future__ import annotations

from collections.abc import Mapping

from odenet_cli.commands.help import spell
from odenet_cli.config.check import leaves
from odenet_cli.config.presets import written
from odenet_cli.config.schema import Config
from odenet_cli.markdown import counted, mean_count
from odenet_cli.request.data import complete_for
from odenet_cli.request.job import TrainRequest
from odenet_cli.request.origins import values_and_origins
from odenet_cli.rundir import short
from odenet_cli.streams import hanging
from odenet_cli.terminal import columns, duration, say
from odenet_cli.training.build import solves

MAX_LISTED = 20  # jobs of a sweep
MIN_VALUE = 11  # columns: tensorboard


def show(request: TrainRequest) -> int:
    assert request.folder is not None
    configs = [complete_for(job.config, job.folder, request.data["auto"]) for job in request.jobs]
    rows = values(request, configs)
    say(table(rows))
    say(hanging("not set: ", ", ".join(key for key, (text, _) in rows.items() if text == "null")) + "\n")
    lines = {"folder": short(request.folder)}
    if "solver.method" not in rows:
        lines["solver"] = "none: this model does not solve an ODE; solver.* and gradient.* have no effect"
    if request.data["missing"]:
        lines["data"] = f"{request.data['missing']} A run would try to download them."
    asked = request.jobs[0].config.data
    if asked["name"] == "auto" and request.data["auto"] == "digits" and str(asked.get("download")).lower() != "false":
        lines["data"] = "digits, unless the run can download MNIST (a dry run does not try)"
    if request.sweep:
        names = [str(job.folder.relative_to(request.folder)) for job in request.jobs[:MAX_LISTED]]
        lines["jobs"] = f"{len(request.jobs)}: {', '.join([*names, *['…'] * (len(request.jobs) > MAX_LISTED)])}"
        lines["cost"] = "not estimated for a sweep"
    elif request.data["missing"] or configs[0].resume == "auto":
        lines["cost"] = (
            f"not estimated: {'the data are missing' if request.data['missing'] else 'this continues a run'}"
        )
    else:
        lines |= cost(configs[0])
    for label, text in lines.items():
        say(hanging(f"{label:<12}", text))
    say("Nothing was written.")
    return 0


def values(request: TrainRequest, configs: list[Config]) -> dict[str, tuple[str, str]]:
    """Return key -> (value as text, where it comes from); where the jobs of a sweep differ, the values of all."""
    composer, overrides = request.composer, request.jobs[0].overrides
    with composer.translate_errors():
        first = values_and_origins(composer, overrides, composer.compose(overrides), configs[0])
    others = [dict(leaves(config, lists=False)) for config in configs[1:]]
    first |= {key: (None, "other jobs") for other in others for key in other if key not in first}
    result, solving = {}, any(map(solves, configs))
    used = {key for config in configs for key in written("gradient", config.gradient.method)}
    for key, (value, origin) in first.items():
        if key.startswith("gradient.") and key.split(".")[1] not in used:
            continue  # an option of another gradient
        if not solving and key.startswith(("solver.", "gradient.", "eval.solver.")):
            continue
        texts = [spell(value), *(spell(other[key]) for other in others if other.get(key) is not None)]
        result[key] = " | ".join(dict.fromkeys(texts)), origin
    return result


def table(rows: Mapping[str, tuple[str, str]]) -> str:
    """Return what is set as a table as wide as the terminal; where that would cut words, value and origin in a row."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    shown = {key: row for key, row in rows.items() if row[0] != "null"}
    keys, origins = max(map(len, shown)), max(len(origin) for _, origin in shown.values())
    if keys + MIN_VALUE + origins + 4 > columns():
        return "\n".join(hanging(f"{key:<{keys}} ", f"{text}  {origin}") for key, (text, origin) in shown.items())
    content = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    content.add_column("key", no_wrap=True, min_width=keys)
    content.add_column("value", overflow="fold")
    content.add_column("from", no_wrap=True)
    for key, (text, origin) in shown.items():
        content.add_row(key, text, origin)
    console = Console(width=columns(), highlight=False, markup=False, color_system=None)
    with console.capture() as capture:
        console.print(content)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())


def cost(config: Config) -> dict[str, str]:
    from odenet_cli.training.estimate import first_steps

    session, step = first_steps(config)
    made = f"in {counted(session.step, 'step')} made now, in memory, not compiled"
    fits = config.optim.least_squares
    converged = fits and session.optimizer.converged  # type: ignore[attr-defined]
    lines = {
        "parameters": f"{sum(parameter.numel() for parameter in session.model.parameters()):,}",
        "steps": f"{session.end:,}, {session.per_epoch:,} per epoch, of {config.trainer.batch_size} samples",
        "measured": made,
    }
    if fits:
        most = f"at most {session.end:,}; a fit ends when it has converged"
        lines["steps"] = f"{session.end:,}, after which it has converged" if converged else most
    if step["nfe_forward"]:
        lines["NFE"] = (
            f"{mean_count(step['nfe_forward'])} forward, {mean_count(step['nfe_backward'])} backward per step"
        )
    training = duration(session.end * step["step_ms"] / 1e3)
    about = "at most" if fits and not converged else "about"
    rest = "the search for initial values and scoring come" if fits else "scoring comes"
    return lines | {
        "memory": f"{step['saved_mib']:.1f} MiB saved for backward",
        "time": f"{about} {training} of training, {step['step_ms']:.0f} ms per step; {rest} on top",
    }
