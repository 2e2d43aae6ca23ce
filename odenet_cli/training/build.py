"""From a config to its parts."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import nn

from odenet_cli import models
from odenet_cli.config import Config, SolverConfig, eval_solver, gradient_solver
from odenet_cli.errors import RequestError
from odenet_cli.ode import Adaptive, Fixed, Solver
from odenet_cli.ode.gradient import Gradient
from odenet_cli.ode.gradient import gradient as make_gradient
from odenet_cli.ode.gradient import options as gradient_options
from odenet_cli.training import device

GIB = 2**30


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
        config.model["name"], options, shape=shape, classes=classes, solver=solver(config.solver, gradient(config))
    )
    return compiled(config, made.to(dtype(config)))


def sized(config: Config, shape: tuple[int, ...], classes: int) -> nn.Module:
    """The network without its numbers; a `RequestError` where those, or a batch, would not fit into memory."""
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
    return network


def _sizes(config: Config, what: str) -> str:
    """What of the config is large."""
    if what.startswith("a"):
        return f"trainer.batch_size={config.trainer.batch_size}"
    numbers = {key: value for key, value in config.model.items() if type(value) is int}
    return ", ".join(f"model.{key}={value}" for key, value in numbers.items())


def compiled(config: Config, network: nn.Module) -> nn.Module:
    """The network with its solves compiled, where `compile` says so or, with `auto`, where it pays: fields without
    convolutions on a CPU, in runs long enough to earn back a minute of compilation."""
    ways: dict[str, bool | str] = {"true": True, "loop": "loop"}
    for module in models.solvers(network):
        way = ways.get(config.compile, False)
        if config.compile == "auto":
            convolves = any(isinstance(part, nn.modules.conv._ConvNd) for part in module.modules())
            able = config.gradient.method != "reversible" and config.solver.method != "adams"
            long = (config.trainer.steps or 0) >= 5_000
            way = able and long and not convolves and not torch.cuda.is_available()
        if way:
            module.solver = _with(module.solver, way)
    return network


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
