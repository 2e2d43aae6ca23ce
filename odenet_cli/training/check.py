"""Refuse a config that does not fit its model, solver or device, before data are read. Models are built on "meta"."""

from __future__ import annotations

import inspect
import logging
import math
from functools import cache
from typing import Any

import torch
from torch import nn

from odenet_cli import data as datasets
from odenet_cli import models
from odenet_cli.config.presets import model_words, options, written
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError
from odenet_cli.models.cnf import ContinuousFlow
from odenet_cli.tasks import missing_method
from odenet_cli.training import budget, build, device

GIB = 2**30

log = logging.getLogger("odenet")


def check(config: Config) -> None:
    """Raise `RequestError` if the device, the data's options, the model and the task cannot be combined."""
    device.choose(config.device)
    name, given = config.source()
    datasets.check(name, given)
    check_task(config)
    shape = datasets.shape(name, given)
    network = build_without_memory(config, *shape)
    budget.check(config, network)
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise RequestError(f"{model_words(config)} has no parameters, so there is nothing to train.")
    if config.optim.least_squares != hasattr(network, "linearise"):
        raise RequestError(
            f"optim={config.optim.name} and {model_words(config)} cannot be combined: optim=lm "
            "is for model=fit, and model=fit for it alone."
        )
    if config.optim.least_squares and config.solver.budget is not None:
        raise RequestError("solver.budget has no meaning for model=fit, whose tolerance has to stay; leave it out.")
    of_images = datasets.tasks(name)[0] == "classify"
    if config.model["name"] == "custom" and (isinstance(network, ContinuousFlow) or of_images):
        check_custom(network, *shape)


def check_task(config: Config) -> None:
    """Raise `RequestError` if the model has not every method that the data's task calls."""
    model, (data, given) = config.model["name"], config.source()
    task = datasets.task(data, given)
    missing = missing_method(task, models.network_class(model, config.model, flow=task in build.FLOWS))
    if missing:
        fitting = ", ".join(models_for(task))
        target = config.model.get("target")
        words = f"model.target={target}" if target else model_words(config)
        raise RequestError(
            f"{words} and data={data} cannot be combined: the task is {task}, and the model has no {missing}.\n"
            f"  For these data use model={fitting}, or a class of your own (model=custom) that has it.\n"
            "  Which data fit which models: odenet list pairs"
        )
    _check_controls(config)


def _check_controls(config: Config) -> None:
    """Raise `RequestError` if the data have controls and a class of the user's own does not take them."""
    stated = [f"data.{key}" for key in ("controls", "static") if config.data.get(key)]
    if stated and config.model["name"] == "custom":
        kind: Any = models.network_class("custom", config.model)
        if "control" not in inspect.signature(kind.forecast).parameters:
            raise RequestError(
                f"model.target={config.model['target']} and {stated[0]} cannot be combined: its method `forecast` has "
                "no argument control=None, a pair of tensors (odenet_cli/data/common/series.py)."
            )


def models_for(task: str) -> list[str]:
    """Return the presets of models that have every method the task calls."""
    named = {preset: written("model", preset)["name"] for preset in options("model")}
    kinds = {preset: models.network_class(name, {}) for preset, name in named.items() if name != "custom"}
    return [preset for preset, kind in kinds.items() if missing_method(task, kind) is None]


def build_without_memory(config: Config, shape: tuple[int, ...], classes: int) -> nn.Module:
    """Return the network on the meta device; raise `RequestError` if it, or a batch, does not fit into memory."""
    name = config.model["name"]
    try:
        with torch.device("meta"):
            network = build.model(config, shape, classes)
    except (RuntimeError, OverflowError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise RequestError(f"model={name} cannot be built with these options model.*: {reason}") from error
    total, itemsize = device.memory(config.device), build.dtype(config).itemsize
    weights = sum(parameter.numel() for parameter in network.parameters()) * itemsize
    batch = (config.trainer.batch_size or 0) * math.prod(shape) * itemsize
    numbers = {key: value for key, value in config.model.items() if type(value) is int}
    sizes = ", ".join(f"model.{key}={value}" for key, value in numbers.items())
    for what, needed, remedy in (
        (f"model={name} with its gradient", 2 * weights, f"Make the model smaller: {sizes}."),
        ("a batch of trainer.batch_size", batch, f"Make it smaller: trainer.batch_size={config.trainer.batch_size}."),
    ):
        if needed > total:
            raise RequestError(
                f"{what} needs {needed / GIB:,.0f} GiB, and {total / GIB:,.0f} GiB of memory are available.\n  {remedy}"
            )
    check_compiler(config, network)
    return network


def check_compiler(config: Config, network: nn.Module) -> None:
    """Raise `RequestError` if `compile=true` finds nothing to compile with; say that `auto` does without."""
    modules = models.solvers(network)
    pays = config.compile == "auto" and any(build.compiling_pays(config, module) for module in modules)
    if pays and build.missing_compiler():
        _warn_eager()
    # Kernels of a GPU are Triton's; the loop is C++ on any device.
    on_cpu = config.compile == "true" and device.kind(config.device) == "cpu"
    if modules and (config.compile == "loop" or on_cpu) and build.missing_compiler():
        raise RequestError(f"compile={config.compile} needs {build.missing_compiler()},\n  or use compile=false.")


@cache
def _warn_eager() -> None:
    log.warning(
        "compile=auto compiles nothing, although this run is long enough to gain from it: it needs "
        f"{build.missing_compiler()}."
    )


def check_custom(network: nn.Module, shape: tuple[int, ...], classes: int) -> None:
    """Raise `RequestError` if a user's network, or the field of a flow, gives a tensor of the wrong shape."""
    x = torch.empty(2, *shape, device="meta", dtype=next(network.parameters()).dtype)
    try:
        with torch.no_grad():
            if isinstance(network, ContinuousFlow):
                expected, what = x.shape, "the field returned {}; a derivative has the shape of z"
                answer = network.eval().field(torch.empty((), device="meta", dtype=x.dtype), x)
            else:
                expected, what = (
                    torch.Size((2, classes)),
                    f"it returned {{}}; the scores of the classes must be {(2, classes)}",
                )
                answer = network.eval()(x)
    except (Exception, SystemExit):  # an operation without a meta kernel, or a bug: the first step will show it
        return
    if getattr(answer, "shape", None) != expected:
        given = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
        called = f"(t, z {tuple(x.shape)})" if isinstance(network, ContinuousFlow) else f"(x {tuple(x.shape)})"
        raise RequestError(f"model.target: called with {called}, {what.format(given)}.")
