"""Complete a configuration: the only place that says what a key implies.

A data set's recipe fills in values that are null, a method brings its preset, and an rtol sets the atol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from odenet_cli.config.presets import adaptive, preset
from odenet_cli.config.schema import STEP_CONTROL, Config, EvalConfig, GradientConfig, SolverChange, SolverConfig


def tied(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes of solvers, keys such as `rtol` or `eval.solver.rtol`, in which an rtol without atol sets both."""
    atols = {key.removesuffix("rtol") + "atol": x for key, x in changes.items() if key.rpartition(".")[2] == "rtol"}
    return {**changes, **atols, **changes}  # in this order: a value of a wrong type is that of the rtol


def changed(solver: SolverConfig, change: SolverChange, key: str = "solver", keep: bool = False) -> SolverConfig:
    """Return `solver` with `change`: another method brings its own preset, an rtol without atol sets both.

    keep  another method of the same kind keeps the tolerance, or the number of steps

    What is known of the vector field (its jumps, the steps that suit it) passes from one adaptive method to another;
    how steps follow the error (the controller) does not.
    """
    start = {item.name: getattr(solver, item.name) for item in fields(solver)}
    if change.method is not None and change.method != solver.method:
        own = preset("solver", change.method, f"{key}.method")
        same_kind = adaptive(change.method) == (solver.rtol is not None)
        kept = {name: start[name] for name in own if name != "method"} if keep and same_kind else {}
        if adaptive(change.method):
            kept |= {name: start[name] for name in STEP_CONTROL if name != "controller"}
        start = {"max_steps": solver.max_steps, **own, **kept}
    given = {item.name: value for item in fields(change) if (value := getattr(change, item.name)) is not None}
    return SolverConfig(**{**start, **tied(given)})


def eval_config(config: Config) -> EvalConfig:
    """Return how the model is scored: `eval`, with null values taken from the data set's recipe, key by key.

    A method takes from the recipe only what it uses: no tolerance if its steps are fixed. `steps` alone, where training
    has fixed steps, means training's method.
    """
    own, recipe = config.eval.solver, (config.data.get("recipe") or {}).get("eval") or {}
    if not recipe:
        return config.eval
    values = {item.name: recipe.get(item.name) for item in fields(SolverChange)}
    if own.method is not None or (own.steps is not None and config.solver.steps is not None):
        values["method"] = None
    method = own.method or values["method"] or config.solver.method
    unused = {"steps"} if adaptive(method, "eval.solver.method") else {"rtol", "atol"}
    unused |= {"atol"} if own.rtol is not None else set()
    filled = {key: value for key, value in values.items() if key not in unused and getattr(own, key) is None}
    return replace(config.eval, solver=replace(own, **filled), dtype=config.eval.dtype or recipe.get("dtype"))


def eval_solver(config: Config) -> SolverConfig:
    """Return the solver that scores the model: training's, with the changes of `eval_config`."""
    return changed(config.solver, eval_config(config).solver, "eval.solver")


def eval_batch(config: Config) -> int:
    return config.eval.batch_size or max(config.trainer.batch_size or 0, 200)


def gradient_solver(config: Config) -> SolverConfig:
    """Return the solver of the backward solve: the forward's, with the changes of `gradient.solver`."""
    return changed(config.solver, config.gradient.solver, "gradient.solver", keep=True)


def complete(config: Config, gpu: bool, data: str | None = None) -> Config:
    """Return the config with null values in `trainer`, `optim`, `gradient.solver` and `eval` taken from the recipe.

    data  what `data=auto` was resolved to; its own preset is used, with the options that `auto` passes on
    """
    options = dict(config.data)
    if options["name"] == "auto" and data is not None:
        own = preset("data", data)
        passed = {key: value for key, value in options.items() if key in own and key != "name" and value is not None}
        options = {**own, **passed}
    recipe = options.pop("recipe", None) or {}

    trainer, optim = config.trainer, config.optim
    if trainer.epochs is None and trainer.steps is None:
        epochs = (recipe.get("epochs") or {}).get("gpu" if gpu else "cpu")
        trainer = replace(trainer, epochs=epochs, steps=recipe.get("steps") if epochs is None else None)
    if trainer.batch_size is None:
        trainer = replace(trainer, batch_size=recipe.get("batch_size"))
    if optim.lr is None:
        optim = replace(optim, lr=recipe.get("lr"))
    if optim.schedule != "steps":  # a preset's milestones have no meaning then
        optim = replace(optim, milestones=[])
    return replace(
        config,
        data=options,
        trainer=trainer,
        optim=optim,
        gradient=_gradient(config, recipe.get("gradient") or {}),
        eval=eval_config(replace(config, data={**options, "recipe": recipe})),
    )


def _gradient(config: Config, recipe: dict[str, Any]) -> GradientConfig:
    """Return `gradient`, with the recipe's backward solve for an adjoint in the relative norm that sets none."""
    gradient = config.gradient
    relative = gradient.method == "adjoint" and gradient.norm == "relative"
    if not recipe or not relative or gradient.solver != SolverChange() or config.solver.rtol is None:
        return gradient
    # A backward tolerance below the forward's would cost evaluations and gain nothing.
    rtol = max(recipe.get("rtol") or 0.0, config.solver.rtol)
    return replace(gradient, solver=SolverChange(method=recipe.get("method"), rtol=rtol))
