"""From a config to its parts."""

from __future__ import annotations

import dataclasses
import logging
import math
import sysconfig
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import nn

from odenet_cli import data as datasets
from odenet_cli import models
from odenet_cli.config.resolve import eval_solver, gradient_solver
from odenet_cli.config.schema import STEP_CONTROL, Config, SolverConfig
from odenet_cli.errors import RequestError
from odenet_cli.ode import Adaptive, Fixed, Solver
from odenet_cli.ode.gradient import Gradient
from odenet_cli.ode.gradient import gradient as make_gradient
from odenet_cli.ode.gradient import options as gradient_options
from odenet_cli.training import device

GIB = 2**30
FLOWS = ("density", "likelihood")  # tasks of flows
LONG = 5_000  # optimiser steps

log = logging.getLogger("odenet")


def solver(config: SolverConfig, gradient: str | Gradient = "backprop") -> Solver:
    """An adaptive solver where there is a tolerance, else one of fixed steps."""
    try:
        if config.rtol is not None and config.atol is not None:
            return Adaptive(
                method=config.method,
                rtol=config.rtol,
                atol=config.atol,
                max_steps=config.max_steps,
                gradient=gradient,
                **{name: value for name in STEP_CONTROL if (value := getattr(config, name)) is not None},
            )
        if config.steps is not None:
            return Fixed(method=config.method, steps=config.steps, gradient=gradient)
    except ValueError as error:
        raise RequestError(str(error)) from error
    raise RequestError(f"solver.method={config.method} needs solver.rtol and solver.atol, or solver.steps.")


def gradient(config: Config) -> Gradient:
    """The gradient of `gradient.method`, with those of the keys `gradient.*` that are its options."""
    known = gradient_options(config.gradient.method)
    given: dict[str, Any] = {
        field.name: getattr(config.gradient, field.name)
        for field in dataclasses.fields(config.gradient)
        if field.name in known and field.name != "solver"
    }
    if "solver" in known and gradient_solver(config) != config.solver:
        given["solver"] = solver(gradient_solver(config))
    try:
        return make_gradient(config.gradient.method, **given)
    except ValueError as error:
        raise RequestError(str(error)) from error


def model(config: Config, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network, initialised from `seed`, in `dtype`, on the CPU."""
    options = {key: value for key, value in config.model.items() if key != "name"}
    torch.manual_seed(config.seed)
    made = models.model(
        config.model["name"],
        options,
        shape=shape,
        classes=classes,
        solver=solver(config.solver, gradient(config)),
        flow=datasets.task(config.data["name"]) in FLOWS,
    )
    return compiled(config, made.to(dtype(config)))


def sized(config: Config, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network without its numbers; a `RequestError` where those, or a batch, would not fit into memory, or where
    there is no compiler for `compile`."""
    name = config.model["name"]
    try:
        with torch.device("meta"):
            network = model(config, shape, classes)
    except (RuntimeError, OverflowError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RequestError(f"model={name} cannot be built with these model.*: {reason}") from error
    there, each = device.memory(config.device), dtype(config).itemsize
    weights = sum(parameter.numel() for parameter in network.parameters()) * each
    batch = (config.trainer.batch_size or 0) * math.prod(shape) * each
    for what, needed in ((f"model={name} with its gradient", 2 * weights), ("a batch of trainer.batch_size", batch)):
        if needed > there:
            raise RequestError(
                f"{what} needs {needed / GIB:,.0f} GiB, and there are {there / GIB:,.0f} GiB of memory.\n"
                f"  Make {'it' if what.startswith('a') else 'the model'} smaller: {_sizes(config, what)}."
            )
    _check_compiler(config, network)
    return network


def _sizes(config: Config, what: str) -> str:
    """What of the config is large."""
    if what.startswith("a"):
        return f"trainer.batch_size={config.trainer.batch_size}"
    numbers = {key: value for key, value in config.model.items() if type(value) is int}
    return ", ".join(f"model.{key}={value}" for key, value in numbers.items())


def compiled(config: Config, network: nn.Module) -> nn.Module:
    """The network with its solves compiled, where `compile` says so or, with `auto`, where it pays and can be done."""
    ways: dict[str, bool | str] = {"true": True, "loop": "loop"}
    for module in models.solvers(network):
        way = ways.get(config.compile, False)
        if config.compile == "auto":
            way = pays(config, module) and lacking() is None
        if way:
            module.solver = _with(module.solver, way)
    return network


def pays(config: Config, module: nn.Module) -> bool:
    """Does `compile=auto` mean to compile this module's solves? Fields without convolutions on a CPU, in runs long
    enough to earn back a minute of compilation."""
    methods = (config.solver.method, gradient_solver(config).method)
    able = config.gradient.method != "reversible" and "adams" not in methods
    convolves = any(weight.dim() > 2 for weight in module.parameters())
    return steps(config) >= LONG and able and not convolves and device.choose(config.device).type == "cpu"


def steps(config: Config) -> int:
    """The optimiser steps to be made, as far as a config tells: an epoch of images, which it does not, counts none."""
    from odenet_cli.data.common.batches import EPOCH

    trainer, length = config.trainer, config.trainer.steps
    if length is None:
        dealt = datasets.task(config.data["name"]) != "classify"
        length = (trainer.epochs or 0) * min(EPOCH, trainer.limit_batches or EPOCH) if dealt else 0
    return min(length, trainer.max_steps or length)


@cache
def lacking() -> str | None:
    """What `torch.compile` needs on a CPU and does not find here, and what to do about it; None: it finds all."""
    with torch.device("cpu"):  # also where a model is being built on the meta device
        from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except (exc.InvalidCxxCompiler, OSError):
        return "a C++ compiler, and torch finds none here. Install g++, or name another in CXX"
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        return f"the headers of Python, and there is no {header}. Install them (python3-dev, python3-devel)"
    return None


def _check_compiler(config: Config, network: nn.Module) -> None:
    """Refuse `compile=true` where there is nothing to compile with, and say that `auto` does without."""
    solving = models.solvers(network)
    if config.compile == "auto" and any(pays(config, module) for module in solving) and lacking():
        _say_eager()
    # Kernels of a GPU are Triton's; the loop is C++ on any device.
    needed = config.compile == "loop" or (config.compile == "true" and device.choose(config.device).type == "cpu")
    if solving and needed and lacking():
        raise RequestError(f"compile={config.compile} needs {lacking()},\n  or use compile=false.")


@cache
def _say_eager() -> None:
    log.warning(f"compile=auto compiles nothing, though so long a run would gain: it needs {lacking()}.")


def _with(solver: Solver, way: bool | str) -> Solver:
    """`solver`, and the backward solver of its adjoint, compiled."""
    gradient = solver.gradient
    try:
        if getattr(gradient, "solver", None) is not None:
            gradient = dataclasses.replace(gradient, solver=dataclasses.replace(gradient.solver, compile=way))  # type: ignore[type-var, union-attr]
        return dataclasses.replace(solver, compile=way, gradient=gradient)
    except ValueError as error:
        raise RequestError(str(error)) from error


def dtype(config: Config) -> torch.dtype:
    return {"float32": torch.float32, "float64": torch.float64}[config.dtype]


def eval_dtype(config: Config) -> torch.dtype:
    """Of scoring."""
    return {"float32": torch.float32, "float64": torch.float64}[config.eval.dtype or config.dtype]


def tightest(config: Config) -> float | None:
    """The smallest tolerance any solve of the run has."""
    solvers = (config.solver, gradient_solver(config), eval_solver(config))
    return min((tol for one in solvers for tol in (one.rtol, one.atol) if tol is not None), default=None)
