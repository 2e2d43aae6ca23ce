"""Check a whole configuration: the ranges in the schema's fields, and the rules across keys.

A configuration is checked where it enters (composed, loaded or altered), and trusted afterwards.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from odenet_cli.config.presets import adaptive, options, preset, written
from odenet_cli.config.resolve import eval_config, eval_solver, gradient_solver
from odenet_cli.config.schema import STEP_CONTROL, Config, GradientConfig, OptimConfig, SolverConfig, find_field
from odenet_cli.errors import HasNoMeaning, RequestError
from odenet_cli.precision import check_tolerance
from odenet_cli.registry import describe_type, has_type, nearest, require

MAX_NAME_BYTES = 240  # a file system takes 255, and the time precedes the name
MAX_LAYERS = 10_000  # blocks or layers
RECIPE: dict[str, Any] = {  # what a data set may recommend, and the key that each value is for
    "batch_size": "trainer.batch_size",
    "steps": "trainer.steps",
    "epochs": {"gpu": "trainer.epochs", "cpu": "trainer.epochs"},
    "lr": "optim.lr",
    "rtol": "solver.rtol",
    "direction": "model.direction",
    "gradient": {"method": "gradient.solver.method", "rtol": "gradient.solver.rtol"},
    "eval": {
        **{name: f"eval.solver.{name}" for name in ("method", "rtol", "atol", "steps", "max_steps")},
        "dtype": "eval.dtype",
    },
}


def check_code_given(config: Config, given: Container[str], way: str = "{0}") -> None:
    """Raise RequestError unless each key that names the user's own code is `given` again: no file may name code.

    way  how to give the missing words, {0} as text or {1} as a list
    """
    missing = [f"{key}={target}" for key, target in config.named_code().items() if key not in given]
    if missing:
        raise RequestError(
            "this run uses a class of your own, and no file may name code to run.\n"
            f"  Give it again: {way.format(' '.join(missing), missing)}"
        )


def check(config: Config) -> Config:
    """Return `config`; raise RequestError, with key, value, allowed values and a remedy, if no run could use it."""
    for key, value in leaves(config):
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestError(f"{key}={value} is not a finite number.")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise RequestError(f"{key}={value} is out of range: it must be below 2^63.")
    _check_fields(config)
    for group in ("model", "data"):
        _check_group(group, getattr(config, group))
    if config.model["name"] == "fit" and "path" not in config.data:
        raise RequestError("model=fit needs a table: set data=table data.path=FILE.")
    _check_texts(config)
    _check_gradient(config.gradient)
    for key, solver, dtype in _solvers(config):
        check_solver(key, solver, dtype)
    _check_optim(config.optim)
    if config.device == "mps":
        _check_mps(config)
    if config.trainer.epochs is not None and config.trainer.steps is not None:
        raise RequestError(
            f"trainer.epochs={config.trainer.epochs} and trainer.steps={config.trainer.steps} both set how long to "
            "train; set one of them to null. To stop early use trainer.max_steps."
        )
    return config


def warnings(config: Config) -> list[str]:
    """Return a warning for each tolerance below the resolution of its dtype, and for what the schedule does not use."""
    texts = [
        _check_tolerance(key, solver, dtype)
        for key, solver, dtype in _solvers(config)
        if key == "solver" or solver != config.solver
    ]
    return [text for text in (*texts, _unused_of_schedule(config)) if text]


def _unused_of_schedule(config: Config) -> str | None:
    """Return a warning for milestones, or a decay, of one's own where the learning rate has no use for them.

    No refusal: in a sweep over schedules they are for some of its jobs.
    """
    optim = config.optim
    if optim.schedule == "steps" and optim.milestones:
        return None
    unused = ("decay",) if optim.schedule == "steps" else ("milestones", "decay")
    presets = preset("optim", optim.name), preset("model", config.model["name"]).get("optim", {})
    given = {
        f"optim.{key}": value
        for key in unused
        if (value := getattr(optim, key)) not in ([], *(of_preset.get(key) for of_preset in presets))
    }
    beside = "a schedule without milestones" if optim.schedule == "steps" else f"optim.schedule={optim.schedule}"
    return str(HasNoMeaning(given, f"has no meaning for {beside}", " and is not used.")) if given else None


def _solvers(config: Config) -> Iterator[tuple[str, SolverConfig, str]]:
    """Yield key, settings and dtype of the solvers that train, go backward and score."""
    yield "solver", config.solver, config.dtype
    yield "gradient.solver", gradient_solver(config), config.dtype
    yield "eval.solver", eval_solver(config), eval_config(config).dtype or config.dtype


def leaves(value: Any, key: str = "", lists: bool = True) -> Iterator[tuple[str, Any]]:
    """Yield (full key, value) of everything below `value`: dataclasses, dictionaries and, unless a list is one value,
    `lists`."""
    if is_dataclass(value):
        items: Any = ((item.name, getattr(value, item.name)) for item in fields(value))
    elif isinstance(value, dict):
        items = value.items()
    elif lists and isinstance(value, (list, tuple)):
        items = enumerate(value)
    else:
        yield key, value
        return
    for name, inner in items:
        yield from leaves(inner, f"{key}.{name}" if key else str(name), lists)


def _check_fields(section: Any, prefix: str = "") -> None:
    """Refuse keys that `+key=value` added to a section without such options, and values out of range."""
    known = {item.name: item.metadata for item in fields(section)}
    for name, value in vars(section).items():
        key = f"{prefix}{name}"
        if name not in known:
            raise RequestError(
                f"{key} is not a key of the configuration.{nearest(name, known)}\n"
                f"  Available: {', '.join(prefix + other for other in known)}."
            )
        if is_dataclass(value):
            _check_fields(value, f"{key}.")
        else:
            _check_range(key, value, known[name])


def _check_range(key: str, value: Any, metadata: Any) -> None:
    if value is None:
        return
    if metadata["choices"]:
        require(key, value, metadata["choices"])
    low, above, below = (metadata[name] for name in ("low", "above", "below"))
    for number in value if isinstance(value, list) else [value]:
        if isinstance(number, (int, float)) and not (
            (low is None or number >= low) and (above is None or number > above) and (below is None or number < below)
        ):
            raise RequestError(
                f"{key}={value} is out of range: it must be {describe_range(metadata)}.\n  {key}: {metadata['help']}."
            )


def describe_range(metadata: Any) -> str:
    """Return the range of a field in words; empty if it has none."""
    low, above, below = (metadata[name] for name in ("low", "above", "below"))
    if below is not None:
        return f"between {above} and {below}" if low is None else f"in [{low}, {below})"
    if above is not None:
        return f"above {above}"
    return "" if low is None else f"{low} or more"


def _check_group(group: str, section: dict[str, Any]) -> None:
    """Refuse a model or data set without a name, or with values where its preset has sections, or the reverse."""
    name = section.get("name")
    if not isinstance(name, str):
        raise RequestError(f"{group}.name is missing; choose a preset: {group}={'|'.join(options(group))}.")
    like = written(group, name)
    _check_section(group, section, {**like, "recipe": RECIPE} if group == "data" else like)
    for key in ("blocks", "layers"):
        if group == "model" and name != "custom" and isinstance(count := section.get(key), int) and count > MAX_LAYERS:
            raise RequestError(f"model.{key}={count} is out of range: it must be {MAX_LAYERS:,} or less.")


def _check_section(key: str, section: dict[str, Any], like: dict[str, Any]) -> None:
    """Compare a section with `like`: for each key a section or any value; below `recipe` a key of the schema."""
    if key.startswith("data.recipe"):  # what else stands in a model or a data set is checked by its class
        for name in section:
            require(key, name, like)
    for name in filter(like.__contains__, section):
        full, value, known = f"{key}.{name}", section[name], like[name]
        if isinstance(known, dict):
            if not isinstance(value, dict | None):
                keys = ", ".join(f"{full}.{inner}" for inner in known)
                raise RequestError(
                    f"{full}={value} is not allowed: {full} is a section; set its keys instead.\n  Available: {keys}."
                )
            _check_section(full, value or {}, known)
        elif isinstance(value, dict):
            raise RequestError(f"{full}={value} is not allowed: {full} is a single value, not a section.")
        elif full.startswith("data.recipe.") and (found := find_field(known)):
            field, hint = found
            if not has_type(value, hint):
                raise RequestError(f"{full}={value} is not {describe_type(hint)}.")
            _check_range(full, value, field.metadata)


def _check_texts(config: Config) -> None:
    name = config.name
    if not name or name in (".", "..") or re.search(r"[/\\\x00-\x1f\x7f]", name) or len(name.encode()) > MAX_NAME_BYTES:
        raise RequestError(
            f"name={name!r} cannot be part of a folder's name: 1 to {MAX_NAME_BYTES} bytes, no slash, no line break.\n"
            "  Choose where runs go with hydra.run.dir=FOLDER."
        )
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?|mps", config.device):
        raise RequestError(f"device={config.device} is not known. Available: auto, cpu, cuda, cuda:N, mps.")
    if not config.resume or "\n" in config.resume:
        raise RequestError(f"resume={config.resume!r} must be none, auto or the folder of a run.")


def _check_mps(config: Config) -> None:
    """Refuse what Apple's GPUs lack: float64, and with it compiled steps, whose times are float64 on the device."""
    for key, value in (("dtype", config.dtype), ("eval.dtype", eval_config(config).dtype)):
        if value == "float64":
            implied = key == "eval.dtype" and config.eval.dtype is None
            source = f" (the recipe of data={config.data['name']})" if implied else ""
            raise RequestError(
                f"{key}=float64{source} cannot be used with device=mps, which has no float64. Use {key}=float32, or "
                "device=cpu."
            )
    if config.compile in ("true", "loop"):
        raise RequestError(f"compile={config.compile} needs float64 on the device; with device=mps use compile=false.")


def check_solver(key: str, solver: SolverConfig, dtype: str) -> None:
    """Refuse a solver whose settings do not fit its kind (adaptive, fixed steps), or a tolerance far below `dtype`."""
    kind_is_adaptive = adaptive(solver.method, f"{key}.method")
    control = {f"{key}.{name}": value for name in STEP_CONTROL if (value := getattr(solver, name)) is not None}
    if control and not kind_is_adaptive:
        raise HasNoMeaning(control, f"has no meaning for {solver.method}, which takes fixed steps")
    if solver.max_step is not None and (solver.min_step or 0) > solver.max_step:
        raise RequestError(f"{key}.min_step={solver.min_step:g} is above {key}.max_step={solver.max_step:g}.")
    if not kind_is_adaptive:
        if solver.budget is not None:
            raise HasNoMeaning(
                {f"{key}.budget": solver.budget},
                f"needs an adaptive method, and {solver.method} takes fixed steps",
                f". Set {key}.steps, or choose an adaptive method such as dopri5.",
            )
        if solver.rtol is not None or solver.atol is not None:
            raise _wrong_kind(key, solver, f"takes fixed steps, {key}.steps, and has no rtol or atol")
        if solver.steps is None:
            raise RequestError(
                f"{key}.steps is missing: {solver.method} takes fixed steps. Set their number, for example "
                f"{key}.steps=10."
            )
        return
    if solver.steps is not None:
        raise _wrong_kind(
            key, solver, f"chooses its steps from the tolerance {key}.rtol and has no fixed number of steps"
        )
    for name in ("rtol", "atol"):
        if getattr(solver, name) is None:
            raise RequestError(
                f"{key}.{name} is missing: {solver.method} needs a tolerance. Set one, for example {key}.{name}=1e-3."
            )
    _check_tolerance(key, solver, dtype)


def _check_tolerance(key: str, solver: SolverConfig, dtype: str) -> str | None:
    """Return the warning of `check_tolerance`; raise RequestError where it refuses."""
    if solver.rtol is None:
        return None
    try:
        return check_tolerance(f"{key}.rtol", solver.rtol, dtype, "eval.dtype" if key == "eval.solver" else "dtype")
    except ValueError as error:
        raise RequestError(str(error)) from error


def _wrong_kind(key: str, solver: SolverConfig, reason: str) -> HasNoMeaning:
    """Return the error for `rtol` with a fixed method or `steps` with an adaptive one, with a complete remedy."""
    own = preset("solver", solver.method)
    nulls = [name for name in ("rtol", "atol", "steps") if getattr(solver, name) is not None and name not in own]
    given = {f"{key}.{name}": getattr(solver, name) for name in nulls}
    if key == "solver":
        ways = f"choose the preset solver={solver.method} and leave out {', '.join(f'{key}.{n}' for n in nulls)}"
        missing = [f"{key}.{n}={own[n]:g}" for n in own if n != "method" and getattr(solver, n) is None]
        ways += "; for a saved config add " + " ".join([*(f"{key}.{n}=null" for n in nulls), *missing])
    else:
        kind = not adaptive(solver.method)
        ways = f"leave it out, or choose {key}.method="
        ways += "|".join(name for name in options("solver") if adaptive(name) is kind)
    return HasNoMeaning(given, f"cannot be used with {solver.method}: it {reason}", f".\n  Remedy: {ways}.")


def _check_gradient(gradient: GradientConfig) -> None:
    """Refuse an option that the gradient method's preset does not list."""
    listed = preset("gradient", gradient.method, "gradient.method")
    given = {key: value for key, value in leaves(gradient.solver, "solver", lists=False) if value is not None}
    given |= {
        item.name: value
        for item in fields(gradient)
        if item.name not in ("method", "solver") and (value := getattr(gradient, item.name)) != item.default
    }
    unused = {f"gradient.{key}": value for key, value in given.items() if key.split(".")[0] not in listed}
    if unused:
        raise HasNoMeaning(unused, f"has no meaning for gradient={gradient.method}")


def _check_optim(optim: OptimConfig) -> None:
    listed = preset("optim", optim.name, "optim.name")
    unused = {
        f"optim.{item.name}": value
        for item in fields(optim)
        if item.name not in listed and (value := getattr(optim, item.name)) != item.default
    }
    if unused:
        raise HasNoMeaning(unused, f"has no meaning for optim={optim.name}")
    if sorted(optim.milestones) != list(optim.milestones):
        raise RequestError(f"optim.milestones={optim.milestones} must be increasing fractions of the run.")
