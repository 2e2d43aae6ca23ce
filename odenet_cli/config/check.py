"""The ranges of a request, key by key: what the types cannot say. No torch, no Hydra."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

from odenet_cli.config.presets import adaptive, options, preset, written
from odenet_cli.errors import RequestError
from odenet_cli.precision import check_tolerance
from odenet_cli.registry import nearest, require

if TYPE_CHECKING:
    from odenet_cli.config.schema import Config, GradientConfig, OptimConfig, SolverConfig

DTYPES = ("float32", "float64")
NORMS = ("relative", "absolute", "seminorm")
CONTROLLERS = ("I", "PI", "PID")
COMPILE = ("auto", "true", "false", "loop")
SCHEDULES = ("steps", "cosine", "onecycle")
LONGEST = 240  # bytes of a name; a file system takes 255, and the time goes before it
DEEPEST = 10_000  # blocks or layers
RECIPE: dict[str, Any] = {  # what a data set may say of a run, and of which kind each key is
    "batch_size": int,
    "steps": int,
    "epochs": {"gpu": int, "cpu": int},
    "lr": float,
    "rtol": float,
    "gradient": {"method": str, "rtol": float},
    "eval": {"method": str, "rtol": float, "atol": float, "steps": int, "max_steps": int, "dtype": str},
    "direction": str,
}
KINDS: dict[type, str] = {int: "a whole number", float: "a number", str: "a word"}


def check(config: Config) -> None:
    """Refuse what no run could use: a `RequestError` with key, value, what is allowed and the way out."""
    from odenet_cli.config.schema import eval_config, eval_solver, gradient_solver

    _check_names(config)
    _check_sections(config)
    for key, value in leaves(config):
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestError(f"{key}={value} is not a finite number.")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise RequestError(f"{key}={value} is out of range: it must be below 2^63.")
    for key in ("blocks", "layers"):
        if config.model.get("name") != "custom" and isinstance(count := config.model.get(key), int) and count > DEEPEST:
            raise RequestError(f"model.{key}={count} is out of range: it must be {DEEPEST:,} or less.")
    _check_words(config)
    _check_solver("solver", config.solver, config.dtype)
    _check_gradient(config.gradient)
    _check_solver("gradient.solver", gradient_solver(config), config.dtype)
    scored = eval_config(config).dtype or config.dtype
    require("eval.dtype", scored, DTYPES)
    _check_solver("eval.solver", eval_solver(config), scored)
    _check_optim(config.optim)
    _check_trainer(config)


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """(full key, value) of everything below `value`: dataclasses, dictionaries and lists."""
    if is_dataclass(value):
        items: Any = ((f.name, getattr(value, f.name)) for f in fields(value))
    elif isinstance(value, dict):
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        yield key, value
        return
    for name, item in items:
        yield from leaves(item, f"{key}.{name}" if key else str(name))


def _check_names(section: Any, key: str = "") -> None:
    """Refuse what `+key=value` added to a section that has no such key."""
    known = [f.name for f in fields(section)]
    for name, value in vars(section).items():
        if name not in known:
            raise RequestError(
                f"{key}{name} is not a key of the configuration.{nearest(name, known)}\n"
                f"  There are: {', '.join(key + other for other in known)}."
            )
        if is_dataclass(value):
            _check_names(value, f"{key}{name}.")


def _check_sections(config: Config) -> None:
    """Refuse a value where a preset of the model or the data has a section, and a section where it has a value."""
    for group in ("model", "data"):
        said = getattr(config, group)
        like = written(group, said["name"]) if isinstance(said.get("name"), str) else {}
        _check_section(group, said, {**like, "recipe": RECIPE} if group == "data" else like)


def _check_section(key: str, section: dict[str, Any], like: dict[str, Any]) -> None:
    """`like` has, for each key, a section or a kind; anything else is a value of any kind."""
    for name in filter(like.__contains__, section):
        full, value, known = f"{key}.{name}", section[name], like[name]
        if isinstance(known, dict):
            if not isinstance(value, dict | None):
                keys = ", ".join(f"{full}.{inner}" for inner in known)
                raise RequestError(f"{full}={value} does not fit: {full} is a section with keys of its own.\n  {keys}")
            _check_section(full, value or {}, known)
        elif isinstance(value, dict):
            raise RequestError(f"{full}={value} does not fit: {full} is one value, not a section.")
        elif isinstance(known, type) and type(value) not in (known, int if known is float else known, type(None)):
            raise RequestError(f"{full}={value} is not {KINDS[known]}.")


def at_least(key: str, value: float | None, low: float) -> None:
    """Refuse a `value` below `low`; null is for others to judge."""
    if value is not None and value < low:
        raise RequestError(f"{key}={value} is out of range: it must be {low} or more.")


def positive(key: str, value: float | None, remedy: str = "") -> None:
    """Refuse a `value` that is not above zero."""
    if value is not None and value <= 0:
        raise RequestError(f"{key}={value} is out of range: it must be above 0.{remedy}")


def _check_words(config: Config) -> None:
    name = config.name
    if not name or name in (".", "..") or re.search(r"[/\\\x00-\x1f\x7f]", name) or len(name.encode()) > LONGEST:
        raise RequestError(
            f"name={name!r} cannot be part of a folder's name: 1 to {LONGEST} bytes, no slash, no line break.\n"
            "  Say where runs go with hydra.run.dir=FOLDER."
        )
    at_least("seed", config.seed, 0)
    require("dtype", config.dtype, DTYPES)
    require("compile", config.compile, COMPILE)
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", config.device):
        raise RequestError(f"device={config.device} is not known. There are: auto, cpu, cuda, cuda:N.")
    if not config.resume or "\n" in config.resume:
        raise RequestError(f"resume={config.resume!r} must be none, auto or the folder of a run.")
    for group in ("model", "data"):
        if not isinstance(getattr(config, group).get("name"), str):
            raise RequestError(f"{group}.name is missing; choose a preset: {group}={'|'.join(options(group))}.")


def _check_solver(key: str, solver: SolverConfig, dtype: str) -> None:
    at_least(f"{key}.max_steps", solver.max_steps, 1)
    _check_step_control(key, solver)
    if not adaptive(solver.method, f"{key}.method"):
        if solver.rtol is not None or solver.atol is not None:
            raise RequestError(_wrong_kind(key, solver, "takes fixed steps, so it has no rtol or atol"))
        if solver.steps is None:
            raise RequestError(f"{key}.steps is missing: {solver.method} takes fixed steps. Add {key}.steps=10.")
        return at_least(f"{key}.steps", solver.steps, 1)
    if solver.steps is not None:
        raise RequestError(_wrong_kind(key, solver, "chooses its own steps, so it has no steps"))
    for name, value in (("rtol", solver.rtol), ("atol", solver.atol)):
        if value is None:
            raise RequestError(f"{key}.{name} is missing: {solver.method} needs a tolerance. Add {key}.{name}=1e-3.")
        positive(f"{key}.{name}", value, " Usual are 1e-1 to 1e-9.")
    assert solver.rtol is not None
    try:
        check_tolerance(f"{key}.rtol", solver.rtol, dtype, "eval.dtype" if key == "eval.solver" else "dtype")
    except ValueError as error:
        raise RequestError(str(error)) from error
    return None


def _check_step_control(key: str, solver: SolverConfig) -> None:
    from odenet_cli.config.schema import STEP_CONTROL

    said = [f"{key}.{name}={getattr(solver, name)}" for name in STEP_CONTROL if getattr(solver, name) is not None]
    if said and not adaptive(solver.method, f"{key}.method"):
        raise RequestError(
            f"{', '.join(said)} has no meaning for {solver.method}, which takes fixed steps; leave it out."
        )
    if solver.controller is not None:
        require(f"{key}.controller", solver.controller, CONTROLLERS)
    positive(f"{key}.first_step", solver.first_step)
    positive(f"{key}.max_step", solver.max_step)
    at_least(f"{key}.min_step", solver.min_step, 0)
    if solver.max_step is not None and (solver.min_step or 0) > solver.max_step:
        raise RequestError(f"{key}.min_step={solver.min_step:g} is above {key}.max_step={solver.max_step:g}.")


def _wrong_kind(key: str, solver: SolverConfig, reason: str) -> str:
    """The message for `rtol` with a fixed method or `steps` with an adaptive one, with a complete remedy."""
    own = preset("solver", solver.method)
    nulls = [name for name in ("rtol", "atol", "steps") if getattr(solver, name) is not None and name not in own]
    given = ", ".join(f"{key}.{name}={getattr(solver, name):g}" for name in nulls)
    if key == "solver":
        ways = f"choose the preset solver={solver.method} and leave out {', '.join(f'{key}.{n}' for n in nulls)}"
        missing = [f"{key}.{n}={own[n]:g}" for n in own if n != "method" and getattr(solver, n) is None]
        ways += "; for a saved config add " + " ".join([*(f"{key}.{n}=null" for n in nulls), *missing])
    else:
        ways = f"leave it out, or choose {key}.method="
        kind = not adaptive(solver.method)
        ways += "|".join(name for name in options("solver") if adaptive(name) is kind)
    return f"{given} does not fit {solver.method}: it {reason}.\n  Way out: {ways}."


def _check_gradient(gradient: GradientConfig) -> None:
    listed = preset("gradient", gradient.method, "gradient.method")
    require("gradient.norm", gradient.norm, NORMS)
    if not 0 < gradient.coupling < 1:
        raise RequestError(f"gradient.coupling={gradient.coupling} is out of range: it must lie between 0 and 1.")
    unused = [key for key, value in leaves(gradient.solver, "solver") if value is not None]
    unused += [
        option.name
        for option in fields(gradient)
        if option.name not in ("method", "solver") and getattr(gradient, option.name) != option.default
    ]
    for key in unused:
        if key.split(".")[0] not in listed:
            raise RequestError(f"gradient.{key} has no meaning for gradient={gradient.method}; leave it out.")


def _check_optim(optim: OptimConfig) -> None:
    require("optim.name", optim.name, options("optim"))
    positive("optim.lr", optim.lr)
    at_least("optim.weight_decay", optim.weight_decay, 0)
    if optim.momentum is not None:
        if "momentum" not in preset("optim", optim.name):
            raise RequestError(f"optim.momentum={optim.momentum} has no meaning for optim={optim.name}; leave it out.")
        if not 0 <= optim.momentum < 1:
            raise RequestError(f"optim.momentum={optim.momentum} is out of range: it must be in [0, 1).")
    require("optim.schedule", optim.schedule, SCHEDULES)
    if optim.warmup is not None and not 0 <= optim.warmup < 1:
        raise RequestError(f"optim.warmup={optim.warmup} is out of range: it is a fraction of the run, in [0, 1).")
    positive("optim.decay", optim.decay)
    positive("optim.clip", optim.clip)
    if any(not 0 < m < 1 for m in optim.milestones) or sorted(optim.milestones) != list(optim.milestones):
        raise RequestError(
            f"optim.milestones={optim.milestones} must be rising fractions of the run, each between 0 and 1."
        )


def _check_trainer(config: Config) -> None:
    trainer = config.trainer
    for key, value in leaves(trainer, "trainer"):
        at_least(key, value, 1)
    at_least("eval.batch_size", config.eval.batch_size, 1)
    if trainer.epochs is not None and trainer.steps is not None:
        raise RequestError(
            f"trainer.epochs={trainer.epochs} and trainer.steps={trainer.steps} both say how long to train; "
            "set one of them to null. To stop early use trainer.max_steps."
        )
