"""Everything a user may write: the typed schema of a request and its ranges. No torch, no Hydra.

Hydra composes `conf/` onto `Config`, so that unknown keys and wrong types are refused; making the object
(`OmegaConf.to_object`) checks the rest.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from odenet_cli import files
from odenet_cli.config import upgrade
from odenet_cli.config.check import check, leaves
from odenet_cli.config.plain_yaml import look_through
from odenet_cli.config.presets import adaptive, preset
from odenet_cli.errors import RequestError
from odenet_cli.precision import check_tolerance

# What does not change what a run computes: names, places, the device, the rhythm of the log.
DATA_PLACES = ("data.path", "data.root")  # what lies there is told by its SHA-256
INCIDENTAL = frozenset(
    ("name", "device", "resume", *DATA_PLACES, "data.download", "trainer.log_every", "trainer.checkpoint_every")
)
PATHS = (*DATA_PLACES, "checkpoint")  # taken from the folder of the command, and saved absolute


STEP_CONTROL = ("controller", "first_step", "min_step", "max_step", "jumps")
"""What an adaptive method may be told of its steps."""


@dataclass
class SolverConfig:
    """The forward solve: `rtol` and `atol` for an adaptive method, `steps` per output interval for a fixed one.

    controller            I, PI or PID: how step sizes follow the error; null: I
    first_step            length of the first step; null: chosen, at the cost of one function evaluation
    min_step, max_step    bounds for the length of a step, in units of time; null: none
    jumps                 times at which the vector field jumps: a step ends at each
    """

    method: str = "dopri5"
    rtol: float | None = None
    atol: float | None = None
    steps: int | None = None
    max_steps: int = 10_000
    controller: str | None = None
    first_step: float | None = None
    min_step: float | None = None
    max_step: float | None = None
    jumps: list[float] | None = None

    def record(self) -> dict[str, Any]:
        """Return what a table's row says of the solver: of its step control what is set."""
        return {key: value for key, value in vars(self).items() if value is not None or key not in STEP_CONTROL}


@dataclass
class SolverChange:
    """What differs from another solver; null is *as there*."""

    method: str | None = None
    rtol: float | None = None
    atol: float | None = None
    steps: int | None = None
    max_steps: int | None = None
    controller: str | None = None
    first_step: float | None = None
    min_step: float | None = None
    max_step: float | None = None
    jumps: list[float] | None = None


@dataclass
class GradientConfig:
    """How gradients pass a solve; `solver` is the backward solve of a method that has one."""

    method: str = "adjoint"
    norm: str = "relative"
    control_parameters: bool = False
    coupling: float = 0.999
    solver: SolverChange = field(default_factory=SolverChange)


@dataclass
class OptimConfig:
    """The optimiser and its learning rate over the run; `lr` null is the data set's recipe.

    schedule    steps: times `decay` at each of the `milestones` | cosine: down to 0 | onecycle: up to `lr` and down
    milestones  of schedule=steps: fractions of the run, in (0, 1)
    warmup      the fraction of the run over which the rate rises to `lr`; null: 0, of onecycle 0.3
    clip        a gradient of a larger norm, over all parameters, is scaled down to it; null never
    """

    name: str = "sgd"
    lr: float | None = None
    momentum: float | None = None
    weight_decay: float = 0.0
    schedule: str = "steps"
    warmup: float | None = None
    milestones: list[float] = field(default_factory=list)
    decay: float = 0.1
    clip: float | None = None


@dataclass
class TrainerConfig:
    """Length and rhythm of a run, in optimiser steps; null `epochs` and `batch_size` are the data set's recipe.

    steps          the length of the run, instead of `epochs`: for generated data, whose epoch is 100 steps
    max_steps      stop early after this many, the schedule unchanged
    limit_batches  use only so many batches of each epoch and of each evaluation
    """

    epochs: int | None = None
    steps: int | None = None
    max_steps: int | None = None
    batch_size: int | None = None
    log_every: int = 50
    checkpoint_every: int = 200
    limit_batches: int | None = None


@dataclass
class EvalConfig:
    """How a model is scored; null is the data set's recipe, and what that leaves open is *as in training*."""

    solver: SolverChange = field(default_factory=SolverChange)
    batch_size: int | None = None
    dtype: str | None = None


@dataclass
class Config:
    """One run. `model` and `data` hold the arguments of what `name` names; their presets list them all.

    compile    of the solves: true, false, loop (forward solves without a gradient as one loop), or auto: where it pays
    reproduce  of an experiment, what `odenet reproduce` makes of it; no run has a use for it
    """

    name: str = "${hydra:runtime.choices.model}-${solver.method}"
    seed: int = 0
    dtype: str = "float32"
    device: str = "auto"
    deterministic: bool = False
    compile: str = "auto"
    resume: str = "none"
    checkpoint: str | None = None
    solver: SolverConfig = field(default_factory=SolverConfig)
    gradient: GradientConfig = field(default_factory=GradientConfig)
    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    reproduce: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.compile = self.compile.lower()  # `true` on the command line is a truth value, and comes as "True"
        check(self)

    def source(self) -> tuple[str, dict[str, Any]]:
        """The data set's name and its options."""
        return self.data["name"], {key: value for key, value in self.data.items() if key not in ("name", "recipe")}

    def warnings(self) -> list[str]:
        """Requests that are allowed and unlikely to do what was hoped for."""
        solvers = {"solver": self.solver, "gradient.solver": gradient_solver(self), "eval.solver": eval_solver(self)}
        scored = eval_config(self).dtype or self.dtype
        dtypes = {"eval.solver": ("eval.dtype", scored)}
        made = []
        for key, solver in solvers.items():
            wider, dtype = dtypes.get(key, ("dtype", self.dtype))
            if solver.rtol is not None and (key == "solver" or solver != self.solver):
                made.append(check_tolerance(f"{key}.rtol", solver.rtol, dtype, wider))
        return [text for text in made if text]


def eval_config(config: Config) -> EvalConfig:
    """How the model is scored: `eval`, and key by key what is null there from the data set's recipe.

    A method takes of the recipe what it has a use for: no tolerance where its steps are fixed. `steps` alone, where
    training has a use for them, mean training's method.
    """
    said, recipe = config.eval.solver, (config.data.get("recipe") or {}).get("eval") or {}
    if not recipe:
        return config.eval
    own = {f.name: recipe.get(f.name) for f in fields(SolverChange)}
    if said.method is not None or (said.steps is not None and config.solver.steps is not None):
        own["method"] = None
    method = said.method or own["method"] or config.solver.method
    unfit = {"steps"} if adaptive(method, "eval.solver.method") else {"rtol", "atol"}
    unfit |= {"atol"} if said.rtol is not None else set()
    filled = {key: value for key, value in own.items() if key not in unfit and getattr(said, key) is None}
    return replace(config.eval, solver=replace(said, **filled), dtype=config.eval.dtype or recipe.get("dtype"))


def eval_solver(config: Config) -> SolverConfig:
    """The solver that scores the model: training's, with the changes of `eval_config`."""
    return changed(config.solver, eval_config(config).solver, "eval.solver")


def gradient_solver(config: Config) -> SolverConfig:
    """The solver of the backward solve: the forward's, with the changes of `gradient.solver`."""
    return changed(config.solver, config.gradient.solver, "gradient.solver", keep=True)


def changed(solver: SolverConfig, change: SolverChange, key: str = "solver", keep: bool = False) -> SolverConfig:
    """`solver` with `change`: another method brings its own preset, an rtol without atol sets both.

    keep  another method of the same kind keeps the tolerance, or the steps

    What is known of the vector field (its jumps, the steps that fit it) goes from one adaptive method to another; how
    steps follow the error does not.
    """
    start = {f.name: getattr(solver, f.name) for f in fields(solver)}
    if change.method is not None and change.method != solver.method:
        own = preset("solver", change.method, f"{key}.method")
        alike = adaptive(change.method) == (solver.rtol is not None)
        kept = {name: start[name] for name in own if name != "method"} if keep and alike else {}
        if adaptive(change.method):
            kept |= {name: start[name] for name in STEP_CONTROL if name != "controller"}
        start = {"max_steps": solver.max_steps, **own, **kept}
    given = {f.name: getattr(change, f.name) for f in fields(change) if getattr(change, f.name) is not None}
    if "rtol" in given:
        given.setdefault("atol", given["rtol"])
    return SolverConfig(**{**start, **given})


def complete(config: Config, gpu: bool, data: str | None = None) -> Config:
    """The config with nothing left open: what is null in `trainer`, `optim` and `eval`, and the backward solve of an
    adjoint in the relative norm where nothing was said of `gradient.solver`, comes from the data set's recipe.

    data  what `data=auto` was resolved to; its own preset is used, with the options that `auto` passes on
    """
    options = dict(config.data)
    if options["name"] == "auto" and data is not None:
        passed = {key: value for key, value in options.items() if key != "name" and value is not None}
        own = preset("data", data)
        options = {**own, **{key: value for key, value in passed.items() if key in own}}
    recipe = options.pop("recipe", None) or {}

    trainer, optim = config.trainer, config.optim
    if trainer.epochs is None and trainer.steps is None:
        length = (recipe.get("epochs") or {}).get("gpu" if gpu else "cpu")
        trainer = replace(trainer, epochs=length, steps=recipe.get("steps") if length is None else None)
    if trainer.batch_size is None:
        trainer = replace(trainer, batch_size=recipe.get("batch_size"))
    if optim.lr is None:
        optim = replace(optim, lr=recipe.get("lr"))
    if optim.schedule != "steps":  # a preset's milestones have no meaning then
        optim = replace(optim, milestones=[])
    gradient, backward = config.gradient, recipe.get("gradient") or {}
    relative = gradient.method == "adjoint" and gradient.norm == "relative"
    if backward and relative and gradient.solver == SolverChange() and config.solver.rtol is not None:
        rtol = max(backward.get("rtol") or 0.0, config.solver.rtol)
        gradient = replace(gradient, solver=SolverChange(method=backward.get("method"), rtol=rtol))
    scored = eval_config(replace(config, data={**options, "recipe": recipe}))
    return replace(config, data=options, trainer=trainer, optim=optim, gradient=gradient, eval=scored)


def save(config: Config, folder: Path, tied: bool) -> None:
    """Write `folder/config.yaml`, in one move: `odenet train --config-dir folder --config-name config` runs it again,
    typed.

    tied  `atol` follows `rtol`, so that a change of one number is a change of both
    """
    from omegaconf import OmegaConf

    content = OmegaConf.create(OmegaConf.to_container(OmegaConf.structured(replace(config, resume="none"))))
    del content.reproduce
    if tied:
        content.solver.atol = "${.rtol}"
    head = OmegaConf.to_yaml(OmegaConf.create({"defaults": ["schema", "hydra/odenet", "_self_"]}))
    files.write(folder / "config.yaml", head + OmegaConf.to_yaml(content))


def saved(folder: Path) -> dict[str, Any]:
    """Return what `folder/config.yaml` says, resolved, what it lacks of newer options as their defaults; empty if there
    is no such file. One that is damaged is refused by name."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = folder / "config.yaml"
    try:
        if not path.exists():
            return {}
        if not path.is_file():  # to read a pipe would wait for ever
            raise RequestError(f"{path} is no file.")
        look_through(path)
        content = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except OmegaConfBaseException as error:
        raise RequestError(f"{path}: {str(error.msg or error).splitlines()[0]}") from error
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}.") from error
    except RecursionError as error:
        raise RequestError(f"{path} refers to itself without end.") from error
    if not isinstance(content, dict) or not content:
        raise RequestError(f"{path} is damaged: there are no keys in it.\n{upgrade.remedy(path)}")
    content.pop("defaults", None)
    return upgrade.complete({str(key): value for key, value in content.items()}, Config, path)


def load(folder: Path) -> Config:
    """The config of the run in `folder`, typed and checked."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    path = folder / "config.yaml"
    try:
        content = saved(folder)
        content.pop("hydra", None)  # for Hydra, which guards it, where the run goes on
        if not content:
            raise RequestError(f"{folder} is not the folder of a run: there is no {path}.")
        for key, value in leaves(content):
            if "${" in str(value):  # it would be resolved a second time
                raise RequestError(f"{path}: {key} refers to something once more after it was resolved.")
        config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(Config), content))
    except OmegaConfBaseException as error:
        raise RequestError(f"{path}: {str(error.msg or error).splitlines()[0]}") from error
    except RecursionError as error:
        raise RequestError(f"{path} refers to itself without end.") from error
    assert isinstance(config, Config)
    return config
