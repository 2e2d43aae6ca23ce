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

    method: str | None = option(None, "solver method: a name in conf/solver")
    rtol: float | None = option(None, "relative tolerance of an adaptive method", above=0)
    atol: float | None = option(None, "absolute tolerance of an adaptive method; follows rtol unless set", above=0)
    steps: int | None = option(None, "number of steps of a fixed-step method between two output times", low=1)
    max_steps: int | None = option(None, "largest number of attempted steps in a solve", low=1)
    controller: str | None = option(None, "step-size controller; null: I", choices=CONTROLLERS)
    first_step: float | None = option(
        None, "length of the first step; null: estimated, with one function evaluation", above=0, unit="time"
    )
    min_step: float | None = option(None, "smallest step size; null: no limit", low=0, unit="time")
    max_step: float | None = option(None, "largest step size; null: no limit", above=0, unit="time")
    jumps: list[float] | None = option(
        None, "times at which the vector field is discontinuous; a step ends at each of them", unit="time"
    )


@dataclass
class SolverConfig(SolverChange):
    """Hold the settings of the forward solve: a tolerance for an adaptive method, a number of steps for a fixed one."""

    method: str = option("dopri5", "solver method: a name in conf/solver")
    max_steps: int = option(10_000, "largest number of attempted steps in a solve", low=1)
    budget: int | None = option(
        None,
        "target for the mean number of forward function evaluations in a training step; rtol is then its starting "
        "value and is adapted; null: rtol is constant",
        low=1,
    )

    def record(self) -> dict[str, Any]:
        """Return what a table's row says of the solver; of the step control and the budget only what is set."""
        optional = (*STEP_CONTROL, "budget")
        return {key: value for key, value in vars(self).items() if value is not None or key not in optional}


@dataclass
class GradientConfig:
    """Hold how gradients pass a solve; `solver` is the backward solve of a method that has one."""

    method: str = option("adjoint", "method for gradients through a solve: a name in conf/gradient")
    norm: str = option(
        "relative",
        "error norm of the adjoint: relative to the incoming gradient, absolute (as in the paper), or seminorm "
        "(without the parameters' gradient)",
        choices=("relative", "absolute", "seminorm"),
    )
    control_parameters: bool = option(False, "include the parameters' gradient in the adjoint's error control")
    coupling: float = option(0.999, "coupling λ of the reversible pair (y, z)", above=0, below=1)
    solver: SolverChange = field(default_factory=SolverChange)


@dataclass
class OptimConfig:
    """Hold the optimiser and its learning rate over the run; a null `lr` comes from the data set's recipe."""

    name: str = option("sgd", "optimiser: a name in conf/optim")
    lr: float | None = option(None, "learning rate; null: from the data set's recipe", above=0)
    momentum: float | None = option(None, "momentum of sgd and rmsprop", low=0, below=1)
    weight_decay: float = option(0.0, "weight decay", low=0)
    schedule: str = option(
        "steps",
        "learning-rate schedule: multiply by `decay` at each of the `milestones` (steps), fall to 0 (cosine), or "
        "rise to `lr` and fall (onecycle)",
        choices=("steps", "cosine", "onecycle"),
    )
    warmup: float | None = option(
        None,
        "part of the run in which the learning rate rises to `lr`; null: 0, or 0.3 with onecycle",
        low=0,
        below=1,
        unit="fraction of the run",
    )
    milestones: list[float] = option(
        list,
        "points of the run at which schedule=steps multiplies the learning rate by `decay`",
        above=0,
        below=1,
        unit="fractions of the run",
    )
    decay: float = option(0.1, "factor of the learning rate at each of the milestones", above=0)
    clip: float | None = option(
        None, "largest norm of the gradient over all parameters, which is scaled down to it; null: no limit", above=0
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
        "length of the run in steps instead of `epochs`; an epoch of generated data is 100 steps",
        low=1,
        unit="optimiser steps",
    )
    max_steps: int | None = option(
        None, "stop after this many steps, with the schedule of the full length", low=1, unit="optimiser steps"
    )
    batch_size: int | None = option(
        None, "samples in a training step; null: from the data set's recipe", low=1, unit="samples"
    )
    log_every: int = option(50, "interval between log records", low=1, unit="optimiser steps")
    checkpoint_every: int = option(200, "interval between checkpoints", low=1, unit="optimiser steps")
    certify: int | None = option(
        500,
        "interval between checks of the gradient against the exact gradient of the same steps, in at most 1 % of the "
        "run time; the last step is checked too; 0 or null: never",
        low=0,
        unit="optimiser steps",
    )
    limit_batches: int | None = option(
        None, "largest number of batches in each epoch and each evaluation; null: no limit", low=1, unit="batches"
    )


@dataclass
class EvalConfig:
    """Hold how a model is scored; null comes from the data set's recipe, and else is *as in training*."""

    solver: SolverChange = field(default_factory=SolverChange)
    batch_size: int | None = option(
        None, "samples in a batch; null: as in training, but at least 200", low=1, unit="samples"
    )
    dtype: str | None = option(
        None, "dtype for evaluation; null: from the data set's recipe, or as in training", choices=DTYPES
    )


@dataclass
class Config:
    """Hold one run. `model` and `data` hold the arguments of what `name` names; their presets list them all."""

    name: str = option(
        "${hydra:runtime.choices.model}-${solver.method}", "name of the run, used in the name of its folder"
    )
    seed: int = option(0, "seed of the initial weights, the order of batches and augmentation", low=0)
    dtype: str = option("float32", "dtype of weights, states and data", choices=DTYPES)
    device: str = option("auto", "device: auto, cpu, cuda, cuda:N, mps (Apple's GPU, float32 only)")
    deterministic: bool = option(False, "use deterministic algorithms only, for bit-identical results on a GPU too")
    compile: str = option(
        "auto",
        "compile solves: never (false), always (true), only forward solves without a gradient, as one loop (loop), "
        "or where it pays (auto)",
        choices=("auto", "true", "false", "loop"),
    )
    logger: str = option(
        "tensorboard",
        "logger of the run; metrics.jsonl is always written",
        choices=("tensorboard", "wandb", "none"),
    )
    resume: str = option("none", "continue a run: none, auto (the run in hydra.run.dir), or the folder of a run")
    checkpoint: str | None = option(None, "checkpoint with the initial weights of a new run")
    solver: SolverConfig = field(default_factory=SolverConfig)
    gradient: GradientConfig = field(default_factory=GradientConfig)
    model: dict[str, Any] = option(dict, "model: its name and the options of its preset in conf/model")
    data: dict[str, Any] = option(dict, "data set: its name and the options of its preset in conf/data")
    optim: OptimConfig = field(default_factory=OptimConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    reproduce: dict[str, Any] = option(dict, "settings of `odenet reproduce`; not used by runs")

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
