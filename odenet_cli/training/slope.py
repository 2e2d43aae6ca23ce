"""The gradient of a loss as one solver makes it, and the exact ones it can be held against."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from odenet_cli.errors import RunFailed
from odenet_cli.models import solvers
from odenet_cli.ode import Adaptive, SolveError, Solver, Stats, tally
from odenet_cli.ode.multistep import Multistep
from odenet_cli.tasks import Loss
from odenet_cli.training.evaluate import converted, solved_by
from odenet_cli.training.retrace import noting, retracing


@dataclass
class Slope:
    """The gradient of a loss, by the parameters' names, in float64; `cost` of its solves."""

    loss: float
    parts: dict[str, Tensor]
    cost: Stats

    def norm(self, of: Callable[[str], bool] = bool) -> float:
        """Over the parameters whose names `of` is true of; by default over all."""
        return math.sqrt(sum(part.square().sum().item() for name, part in self.parts.items() if of(name)))

    def error(self, exact: Slope, of: Callable[[str], bool] = bool) -> float:
        """‖g - g_exact‖ / ‖g_exact‖; NaN where the exact gradient is zero."""
        off = replace(self, parts={name: part - exact.parts[name] for name, part in self.parts.items()})
        size = exact.norm(of)
        return off.norm(of) / size if size else math.nan


def slope(model: nn.Module, loss_fn: Loss, batch: Any, solver: Solver) -> Slope:
    """The gradient of the loss on `batch` when `solver` solves."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    with tally() as solves, solved_by(model, solver), same_draws():
        loss, _ = loss_fn(model, batch)
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    parts = {
        name: torch.zeros_like(parameter, dtype=torch.float64) if part is None else part.double()
        for (name, parameter), part in zip(named.items(), found)
    }
    return Slope(loss.item(), parts, sum(solves, start=Stats()))


@contextlib.contextmanager
def same_draws() -> Iterator[None]:
    """Random numbers of the model, such as Hutchinson's, are the same in all gradients that are compared."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def of_steps(model: nn.Module, double: nn.Module, loss_fn: Loss, batch: Any, solver: Solver) -> Slope:
    """The exact gradient of the steps that `solver` takes in `model`: plain autograd through them in `double`, the same
    network in float64.

    A multistep formula leans on the steps before, and cannot be taken again alone: autograd sees it in `model` then.
    """
    if isinstance(solver.formulas, Multistep):
        return slope(model, loss_fn, batch, replace(solver, gradient="backprop"))
    noted = noting(solver)
    with solved_by(model, noted), same_draws():
        loss_fn(model, batch)
    return slope(double, loss_fn, doubled(batch), retracing(noted))


def of_equation(double: nn.Module, loss_fn: Loss, batch: Any, tolerance: float) -> Slope:
    """The gradient of the differential equation itself, as near as dopri5 comes to it at `tolerance` in float64."""
    tight = Adaptive(method="dopri5", rtol=tolerance, atol=tolerance, gradient="replay", max_steps=1_000_000)
    try:
        return slope(double, loss_fn, doubled(batch), tight)
    except SolveError as error:
        raise RunFailed(f"there is no reference at reference={tolerance:g}; choose another. {error}") from error


def doubled(batch: Any) -> Any:
    """The same numbers in float64."""
    return converted(batch, torch.float64)


def fields_of(model: nn.Module) -> frozenset[str]:
    """The names of the parameters of the fields: of the `field` of all that holds a solver, or of the whole of it."""
    held = [getattr(holder, "field", holder) for holder in solvers(model)]
    inside = {id(parameter) for one in held if isinstance(one, nn.Module) for parameter in one.parameters()}
    return frozenset(name for name, parameter in model.named_parameters() if id(parameter) in inside)
