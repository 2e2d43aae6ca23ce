"""Build the parts of a run from its config: solver, gradient and model, compiled if that pays."""

from __future__ import annotations

import dataclasses
import inspect
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
from odenet_cli.ode import Adaptive, Fixed, Solver, Tableau, method
from odenet_cli.ode.gradient import Gradient
from odenet_cli.ode.gradient import gradient as make_gradient
from odenet_cli.ode.gradient import options as gradient_options
from odenet_cli.training import device
from odenet_cli.training.measured import steps_to_earn

FLOWS = ("density", "likelihood")  # tasks of flows


def solver(config: SolverConfig, gradient: str | Gradient = "backprop") -> Solver:
    """Return a solver of fixed steps where their number is set, else an adaptive one."""
    try:
        if config.steps is not None:
            return Fixed(method=config.method, steps=config.steps, gradient=gradient)
        assert config.rtol is not None
        assert config.atol is not None
        return Adaptive(
            method=config.method,
            rtol=config.rtol,
            atol=config.atol,
            max_steps=config.max_steps,
            gradient=gradient,
            **{name: value for name in STEP_CONTROL if (value := getattr(config, name)) is not None},
        )
    except ValueError as error:
        raise RequestError(str(error)) from error


def gradient(config: Config) -> Gradient:
    """Return the gradient of `gradient.method`, with those of the keys `gradient.*` that are its options."""
    known = gradient_options(config.gradient.method)
    options: dict[str, Any] = {
        field.name: getattr(config.gradient, field.name)
        for field in dataclasses.fields(config.gradient)
        if field.name in known and field.name != "solver"
    }
    if "solver" in known and gradient_solver(config) != config.solver:
        options["solver"] = solver(gradient_solver(config))
    try:
        return make_gradient(config.gradient.method, **options)
    except ValueError as error:
        raise RequestError(str(error)) from error


def model(config: Config, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return the network, initialised from `seed`, in `dtype`, on the CPU."""
    options = {key: value for key, value in config.model.items() if key != "name"}
    torch.manual_seed(config.seed)
    network = models.model(
        config.model["name"],
        options,
        shape=shape,
        classes=classes,
        solver=solver(config.solver, gradient(config)),
        flow=is_flow(config),
    )
    return compiled(config, network.to(dtype(config)))


def solves(config: Config) -> bool:
    kind = models.network_class(config.model["name"], config.model, is_flow(config))
    return "solver" in inspect.signature(kind).parameters


def is_flow(config: Config) -> bool:
    return datasets.tasks(config.data["name"])[0] in FLOWS


def compiled(config: Config, network: nn.Module) -> nn.Module:
    """Compile the network's solves if `compile` is true or, with `auto`, if it pays and is possible."""
    modes: dict[str, bool | str] = {"true": True, "loop": "loop"}
    for module in models.solvers(network):
        mode = modes.get(config.compile, False)
        if config.compile == "auto":
            mode = compiling_pays(config, module) and missing_compiler() is None
        if mode:
            module.solver = _compiled(module.solver, mode)
    return network


def compiling_pays(config: Config, module: nn.Module) -> bool:
    """Return whether `compile=auto` means this module's solves: on a CPU, in runs that earn back the compilation."""
    methods = (config.solver.method, gradient_solver(config).method)
    possible = config.gradient.method != "reversible" and all(isinstance(method(name), Tableau) for name in methods)
    convolves = any(weight.dim() > 2 for weight in module.parameters())
    return (
        possible
        and planned_steps(config) >= steps_to_earn(config.gradient.method, convolves)
        and device.kind(config.device) == "cpu"
    )


def planned_steps(config: Config) -> int:
    """Return the optimiser steps that a config asks for; epochs of images, whose size it does not say, count 0."""
    from odenet_cli.data.common.splits import EPOCH_BATCHES

    trainer, length = config.trainer, config.trainer.steps
    if length is None:
        generated = datasets.tasks(config.data["name"])[0] != "classify"
        length = (trainer.epochs or 0) * min(EPOCH_BATCHES, trainer.limit_batches or EPOCH_BATCHES) if generated else 0
    return min(length, trainer.max_steps or length)


@cache
def missing_compiler() -> str | None:
    """Return what `torch.compile` lacks on this CPU, and what to do; None if nothing is missing."""
    with torch.device("cpu"):  # also where a model is being built on the meta device
        from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except (exc.InvalidCxxCompiler, OSError):
        return "a C++ compiler, and torch does not find one here. Install g++, or set CXX to another compiler"
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        return f"the Python headers, and {header} does not exist. Install them (python3-dev, python3-devel)"
    return None


def _compiled(solver: Solver, mode: bool | str) -> Solver:
    """Return `solver`, and the backward solver of its adjoint, compiled."""
    gradient = solver.gradient
    try:
        if getattr(gradient, "solver", None) is not None:
            gradient = dataclasses.replace(gradient, solver=dataclasses.replace(gradient.solver, compile=mode))  # type: ignore[type-var, union-attr]
        return dataclasses.replace(solver, compile=mode, gradient=gradient)
    except ValueError as error:
        raise RequestError(str(error)) from error


DTYPES = {"float32": torch.float32, "float64": torch.float64}


def dtype(config: Config) -> torch.dtype:
    return DTYPES[config.dtype]


def eval_dtype(config: Config) -> torch.dtype:
    return DTYPES[config.eval.dtype or config.dtype]


def choose_device(config: Config, job: int = 0) -> torch.device:
    """Return the device that a run of `config` computes on, for a sweep's job that of its number, and set what is
    global to the process for it."""
    where = device.choose(config.device, job)
    configure_backends(config, where)
    return where


def configure_backends(config: Config, where: torch.device) -> None:
    """Set what is global to the process for a run of `config` (see `device.configure_backends`)."""
    device.configure_backends(where, config.deterministic, tightest(config))


def tightest(config: Config) -> float | None:
    """Return the smallest tolerance of any solve of the run; None without one."""
    solvers = (config.solver, gradient_solver(config), eval_solver(config))
    return min((tol for solver in solvers for tol in (solver.rtol, solver.atol) if tol is not None), default=None)
