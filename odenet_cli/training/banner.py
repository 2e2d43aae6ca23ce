"""Describe a run before it starts: the network, its data, how it is solved and trained, and where."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from odenet_cli import threads
from odenet_cli.config.resolve import eval_solver, gradient_solver
from odenet_cli.config.schema import Config, OptimConfig, SolverConfig
from odenet_cli.markdown import counted
from odenet_cli.models import solvers
from odenet_cli.rundir import short
from odenet_cli.terminal import INDENT, MAX_COLUMNS, columns, labelled
from odenet_cli.training import device
from odenet_cli.training.session import Session


def banner(session: Session, folder: Path) -> list[str]:
    """Return the lines, of at most 80 columns; only the folder is never broken."""
    config, data = session.config, session.data.record
    parameters = sum(parameter.numel() for parameter in session.model.parameters())
    name, field = config.model.get("target") or config.model["name"], config.model.get("field")
    about = getattr(session.model, "about", "")  # what its stem makes of an input
    stem = f", {about}" if isinstance(about, str) and about else ""
    sizes = ["train drawn anew"] if "train" not in data["sizes"] else []
    sizes += [f"{size:,} {split}" for split, size in data["sizes"].items()]
    if session.data.task == "fit":
        sizes = fitted_parts(session)
    lines = {
        "model": f"{name}{f' with field {field}' if field else ''}, {parameters:,} parameters{stem}",
        "data": f"{data['used']}: {', '.join(sizes)}{'; '.join(['', *data.get('about', ())])}",
    }
    if solvers(session.model):
        lines["solver"] = solver_line(session)
        if not config.optim.least_squares:
            lines["gradient"] = gradient_line(config)
    wait = f", wait policy {threads.wait_policy()}" if session.device.type == "cpu" else ""
    lines |= {"recipe": recipe_line(session), "device": f"{device.describe(session.device)}{wait}"}
    if session.step:
        lines["resumed"] = f"after step {session.step} of {session.end}"
    width = min(columns(), MAX_COLUMNS)
    rows = [*lines.items()]
    rows[2:2] = [("" if n else "table", text) for n, text in enumerate(data.get("table", ()))]
    return [
        *(line for label, text in rows for line in labelled(label, text, width)),
        f"{'folder:':<{INDENT}}{short(folder)}",
    ]


def fitted_parts(session: Session) -> list[str]:
    """Return how much of the series is used for a fit, and which state each column measures."""
    model: Any = session.model
    count, held_out = session.data.record["sizes"]["train"], session.config.data.get("test") or 0.0
    share = f"the first {100 * (1 - held_out):.3g} %" if held_out else "all"
    columns = zip(session.data.record["columns"][2:], model.columns.tolist())
    return [
        f"{count:,} series, {share} of {'it' if count == 1 else 'each' if held_out else 'them'} used for the fit",
        *(f"{name} measures {model.states[k]}" for name, k in columns if name.lower() != model.states[k].lower()),
    ]


def describe_solver(solver: SolverConfig) -> str:
    """Return the method with its tolerance, or its number of steps."""
    if solver.rtol is None:
        return f"{solver.method}, {counted(solver.steps or 0, 'step')}"
    atol = f", atol {solver.atol:g}" if solver.atol != solver.rtol else ""
    return f"{solver.method}, rtol {solver.rtol:g}{atol}"


def solver_line(session: Session) -> str:
    """Return the solver of training, and that of scoring where it is another."""
    own, scoring = session.config.solver, eval_solver(session.config)
    compiled = any(getattr(module.solver, "compile", False) for module in solvers(session.model))
    beside = f"; scored with {describe_solver(scoring)}" if scoring != own else ""
    return f"{describe_solver(own)}{', compiled' if compiled else ''}{beside}"


def gradient_line(config: Config) -> str:
    """Return how gradients pass a solve; of the adjoint also its error norm and its backward solve."""
    if config.gradient.method != "adjoint":
        return config.gradient.method
    backward = gradient_solver(config)
    solved = f", backward with {describe_solver(backward)}" if backward != config.solver else ""
    return f"adjoint, {config.gradient.norm} norm{solved}"


def recipe_line(session: Session) -> str:
    """Return the length of the run, its batches, and the optimiser with its learning rate: the values in effect."""
    trainer, optim = session.config.trainer, session.config.optim
    if optim.least_squares:
        whole = "" if optim.lr == 1 else f", {optim.lr:g} of each"
        return f"Levenberg-Marquardt, at most {counted(session.total, 'step')}{whole}"
    epochs = f"{counted(trainer.epochs or 0, 'epoch')} of {counted(session.per_epoch, 'step')}"
    length = counted(session.total, "step") if trainer.steps else epochs
    stop = f", stopped after {session.end:,}" if session.end < session.total else ""
    return f"{length}{stop}, batches of {trainer.batch_size}; {optim.name}, learning rate {optim.lr:g}{schedule(optim)}"


def schedule(optim: OptimConfig) -> str:
    """Return how the learning rate changes over the run."""
    warmup = 0.3 if optim.schedule == "onecycle" and optim.warmup is None else optim.warmup
    rising = f", rising over the first {100 * warmup:g} %" if warmup else ""
    if optim.schedule != "steps":
        return f"{rising}, {optim.schedule}"
    places = ", ".join(f"{part:.3g}" for part in optim.milestones)
    return rising + (f", times {optim.decay:g} at {places} of the run" if places else "")
