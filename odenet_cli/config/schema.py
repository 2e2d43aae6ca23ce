"""Typed configuration of a run: its keys, their defaults and ranges, and one line of help for each.

Hydra composes `conf/` onto `Config`, so that unknown keys and wrong types are refused. `check` reads the ranges, and
`odenet help KEY` the help, from the metadata of the fields.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, get_type_hints

# Keys that change nothing of what a run computes: names, places, the device, the log and its rhythm.
DATA_PLACES = ("data.path", "data.root")  # what lies there is identified by its SHA-256
INCIDENTAL = frozenset(("name", "device", "resume", *DATA_PLACES, "data.download"))
INCIDENTAL |= {"logger", "trainer.log_every", "trainer.checkpoint_every", "trainer.certify"}
PATHS = (*DATA_PLACES, "checkpoint")  # relative to the folder of the command, and saved absolute

# Name code to run, `package.module:Class`: the command line alone may.
CODE_KEYS = ("model.target", "model.field", "data.target")

STEP_CONTROL = ("controller", "first_step", "min_step", "max_step", "jumps")
"""Options of the step control, which only adaptive methods have."""

DTYPES = ("float32", "float64")
CONTROLLERS = ("I", "PI", "PID")


def option(
    default: Any,
    help: str,
    *,
    low: float | None = None,
    above: float | None = None,
    below: float | None = None,
    choices: tuple[str, ...] = (),
    unit: str = "",
) -> Any:
    """Return a dataclass field with its range: `low` ≤ value, `above` < value < `below`, one of `choices`."""
    metadata = {"help": help, "low": low, "above": above, "below": below, "choices": choices, "unit": unit}
    if default in (list, dict):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class SolverChange:
    """Hold changes of another solver's settings; null means unchanged."""

    method: str | None = option(None, "the method, a name of conf/solver")
    rtol: float | None = option(None, "relative tolerance of an adaptive method", above=0)
    atol: float | None = option(None, "absolute tolerance of an adaptive method; follows rtol unless set", above=0)
    steps: int | None = option(None, "steps of a fixed method between two output times", low=1)
    max_steps: int | None = option(None, "attempted steps after which a solve is given up", low=1)
    controller: str | None = option(None, "how step sizes follow the error; null: I", choices=CONTROLLERS)
    first_step: float | None = option(
        None, "length of the first step; null: chosen, at one function evaluation", above=0, unit="time"
    )
    min_step: float | None = option(None, "shortest step; null: no bound", low=0, unit="time")
    max_step: float | None = option(None, "longest step; null: no bound", above=0, unit="time")
    jumps: list[float] | None = option(None, "times at which the vector field jumps: a step ends at each", unit="time")


@dataclass
class SolverConfig(SolverChange):
    """Hold the settings of the forward solve: a tolerance for an adaptive method, a number of steps for a fixed one."""

    method: str = option("dopri5", "the method, a name of conf/solver")
    max_steps: int = option(10_000, "attempted steps after which a solve is given up", low=1)
    budget: int | None = option(
        None,
        "mean function evaluations of the forward solves of a training step: rtol, where it begins, is steered to it; "
        "null: it stays",
        low=1,
    )

    def record(self) -> dict[str, Any]:
        """Return what a table's row says of the solver; of the step control and the budget only what is set."""
        optional = (*STEP_CONTROL, "budget")
        return {key: value for key, value in vars(self).items() if value is not None or key not in optional}


@dataclass
class GradientConfig:
    """Hold how gradients pass a solve; `solver` is the backward solve of a method that has one."""

    method: str = option("adjoint", "how gradients pass a solve, a name of conf/gradient")
    norm: str = option(
        "relative",
        "error norm of the adjoint: relative to the incoming gradient, the paper's (absolute), or without the "
        "parameters' gradient (seminorm)",
        choices=("relative", "absolute", "seminorm"),
    )
    control_parameters: bool = option(False, "let the parameters' gradient take part in the adjoint's error control")
    coupling: float = option(0.999, "λ of the reversible pair (y, z)", above=0, below=1)
    solver: SolverChange = field(default_factory=SolverChange)


@dataclass
class OptimConfig:
    """Hold the optimiser and its learning rate over the run; a null `lr` comes from the data set's recipe."""

    name: str = option("sgd", "the optimiser, a name of conf/optim")
    lr: float | None = option(None, "learning rate; null: from the data set's recipe", above=0)
    momentum: float | None = option(None, "momentum of sgd and rmsprop", low=0, below=1)
    weight_decay: float = option(0.0, "weight decay", low=0)
    schedule: str = option(
        "steps",
        "learning rate over the run: times `decay` at each of the `milestones`, down to 0 (cosine), or up to `lr` and "
        "down (onecycle)",
        choices=("steps", "cosine", "onecycle"),
    )
    warmup: float | None = option(
        None,
        "part of the run over which the learning rate rises to `lr`; null: 0, of onecycle 0.3",
        low=0,
        below=1,
        unit="fraction of the run",
    )
    milestones: list[float] = option(
        list,
        "where schedule=steps multiplies the learning rate by `decay`",
        above=0,
        below=1,
        unit="fractions of the run",
    )
    decay: float = option(0.1, "factor at each of the milestones", above=0)
    clip: float | None = option(
        None, "gradients of a larger norm, over all parameters, are scaled down to it; null: never", above=0
    )

    @property
    def least_squares(self) -> bool:
        """Whether a step solves a least-squares problem (`training/least_squares.py`), and follows no gradient."""
        return self.name == "lm"


@dataclass
class TrainerConfig:
    """Hold the length and rhythm of a run; null `epochs` and `batch_size` come from the data set's recipe."""

    epochs: int | None = option(None, "length of the run; null: from the data set's recipe", low=1, unit="epochs")
    steps: int | None = option(
        None,
        "length of the run, instead of `epochs`: for generated data, whose epoch is 100 steps",
        low=1,
        unit="optimiser steps",
    )
    max_steps: int | None = option(
        None, "stop early after this many, the schedule unchanged", low=1, unit="optimiser steps"
    )
    batch_size: int | None = option(None, "samples a step; null: from the data set's recipe", low=1, unit="samples")
    log_every: int = option(50, "interval between two records of the log", low=1, unit="optimiser steps")
    checkpoint_every: int = option(200, "interval between two checkpoints", low=1, unit="optimiser steps")
    certify: int | None = option(
        500,
        "interval between two checks of the gradient against the exact one of its own steps, in at most 1 % of the "
        "time; the last step has one too; 0 or null: never",
        low=0,
        unit="optimiser steps",
    )
    limit_batches: int | None = option(
        None, "use only so many batches of each epoch and of each evaluation; null: all", low=1, unit="batches"
    )


@dataclass
class EvalConfig:
    """Hold how a model is scored; null comes from the data set's recipe, and else is *as in training*."""

    solver: SolverChange = field(default_factory=SolverChange)
    batch_size: int | None = option(None, "samples a batch; null: as in training, 200 at least", low=1, unit="samples")
    dtype: str | None = option(
        None, "dtype used for evaluation; null: from the recipe, else as in training", choices=DTYPES
    )


@dataclass
class Config:
    """Hold one run. `model` and `data` hold the arguments of what `name` names; their presets list them all."""

    name: str = option("${hydra:runtime.choices.model}-${solver.method}", "name of the run, part of its folder's name")
    seed: int = option(0, "seed of weights, order of batches and augmentation", low=0)
    dtype: str = option("float32", "dtype of weights, states and data", choices=DTYPES)
    device: str = option("auto", "where the run computes: auto, cpu, cuda, cuda:N, mps (Apple's GPU, float32 only)")
    deterministic: bool = option(False, "use deterministic algorithms only: the same bits every time on a GPU too")
    compile: str = option(
        "auto",
        "compile solves: never, always, forward solves without a gradient as one loop (loop), or where it pays (auto)",
        choices=("auto", "true", "false", "loop"),
    )
    logger: str = option(
        "tensorboard",
        "where one looks at the run while it trains; metrics.jsonl is written always",
        choices=("tensorboard", "wandb", "none"),
    )
    resume: str = option("none", "go on with a run: none, auto (the one in hydra.run.dir), or the folder of a run")
    checkpoint: str | None = option(None, "checkpoint whose weights a new run begins with")
    solver: SolverConfig = field(default_factory=SolverConfig)
    gradient: GradientConfig = field(default_factory=GradientConfig)
    model: dict[str, Any] = option(dict, "the model: its name, and the options of its preset in conf/model")
    data: dict[str, Any] = option(dict, "the data set: its name, and the options of its preset in conf/data")
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    reproduce: dict[str, Any] = option(dict, "what `odenet reproduce` makes of an experiment; no run uses it")

    def __post_init__(self) -> None:
        self.compile = self.compile.lower()  # `compile=true` is read as a truth value and arrives here as "True"

    def source(self) -> tuple[str, dict[str, Any]]:
        return self.data["name"], {key: value for key, value in self.data.items() if key not in ("name", "recipe")}

    def named_code(self) -> dict[str, str]:
        """Return the keys that name the user's own code, and their values."""
        places = ((key, *key.split(".")) for key in CODE_KEYS)
        named = {key: getattr(self, group).get(name) for key, group, name in places}
        # A field without a colon is one of the model's.
        return {key: str(x) for key, x in named.items() if x is not None and (key != "model.field" or ":" in str(x))}


@functools.cache
def find_field(key: str) -> tuple[dataclasses.Field[Any], Any] | None:
    """Return the field of a full key (`solver.rtol`) and its type; None if the schema has no such key."""
    section: Any = Config
    *parents, name = key.split(".")
    for parent in parents:
        section = get_type_hints(section).get(parent) if dataclasses.is_dataclass(section) else None
    if not dataclasses.is_dataclass(section):
        return None
    known = {item.name: item for item in dataclasses.fields(section)}
    return (known[name], get_type_hints(section)[name]) if name in known else None


def key_of(word: str) -> str:
    """Return the key of an override, `key=value`, with a sign before it or without."""
    return word.lstrip("+~").partition("=")[0]


def schema_keys(section: Any = Config, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (full key, meaning) of everything in a section of the schema."""
    for item in dataclasses.fields(section):
        if dataclasses.is_dataclass(item.default_factory):
            yield from schema_keys(item.default_factory, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, item.metadata["help"]
