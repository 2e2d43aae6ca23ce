"""The gradient of a loss as one solver makes it, and what it can be held against."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from odenet_cli.analysis.borrowed import frozen, in_dtype, repeatable
from odenet_cli.analysis.step_replay import Decisions, recording, retracing
from odenet_cli.errors import RunFailed
from odenet_cli.models import solvers
from odenet_cli.ode import Adaptive, SolveError, Solver, Stats, tally
from odenet_cli.ode.gradient.reversible import Reversible
from odenet_cli.ode.multistep.nordsieck import Multistep
from odenet_cli.tasks import Loss
from odenet_cli.training import device, generators
from odenet_cli.training.evaluate import converted, solved_by
from odenet_cli.training.memory import SavedMeter

DIRECTIONS = 4  # of finite differences
SHIFT = 1e-8  # how far they go, relative to the parameters
LOOSE = 1e-3  # the tolerance at which replay is tried before it is relied on
TRUSTED = 1e-6
FULL = "there is not the memory to keep what autograd needs, unless fields are evaluated again"


@dataclass
class Slope:
    """The gradient of a loss, by the parameters' names, in float64; `cost` of its solves.

    drawn  a fingerprint of the random generators after the loss
    """

    loss: float
    parts: dict[str, Tensor]
    cost: Stats
    drawn: int = 0

    def norm(self, of: Callable[[str], bool] = bool) -> float:
        """Over the parameters whose names `of` is true of; by default over all."""
        return math.sqrt(sum(part.square().sum().item() for name, part in self.parts.items() if of(name)))

    def error(self, exact: Slope, of: Callable[[str], bool] = bool) -> float:
        """‖g - g_exact‖ / ‖g_exact‖; NaN where the exact gradient is zero."""
        off = replace(self, parts={name: part - exact.parts[name] for name, part in self.parts.items()})
        size = exact.norm(of)
        return off.norm(of) / size if size else math.nan


def slope(model: nn.Module, loss_fn: Loss, batch: Any, solver: Solver | None) -> Slope:
    """The gradient of the loss on `batch` when `solver` solves."""
    named = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    with tally() as solves, solved_by(model, solver), repeatable(model):
        loss, _ = loss_fn(model, batch)
        drawn = generators.fingerprint(loss.device)
        found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    parts = {
        name: torch.zeros_like(parameter, dtype=torch.float64) if part is None else part.double()
        for (name, parameter), part in zip(named.items(), found)
    }
    return Slope(loss.item(), parts, sum(solves, start=Stats()), drawn)


def of_steps(model: nn.Module, loss_fn: Loss, batch: Any, solver: Solver, decisions: Decisions) -> Slope:
    """The exact gradient of the steps that `decisions` are of, in float64.

    By plain autograd, where nothing is evaluated again; without room for its graph by replay, as in `of_equation`.
    """
    batch = converted(batch, torch.float64)
    with in_dtype(model, torch.float64):
        try:
            with Room(model):
                return slope(model, loss_fn, batch, retracing(solver, decisions))
        except NoRoom:
            if isinstance(solver.gradient_method, Reversible) or isinstance(solver.formulas, Multistep):
                raise Untrusted(f"{FULL}, and its steps cannot be taken again one by one") from None
            _check_replay(model, loss_fn, batch, LOOSE)
            return slope(model, loss_fn, batch, retracing(solver, decisions, "replay"))


def decided(model: nn.Module, loss_fn: Loss, batch: Any, solver: Solver) -> Decisions:
    """What `solver` decides in the solves of a loss."""
    made = Decisions()
    with frozen(model), solved_by(model, recording(solver, made)), repeatable(model):
        loss_fn(model, batch)
    return made


def difference(
    model: nn.Module, loss_fn: Loss, batch: Any, solver: Solver, decisions: Decisions, exact: Slope
) -> float:
    """The error of `exact`, the gradient of the steps that `decisions` are of, by finite differences of the loss.

    (g · r - (L(θ + ε r) - L(θ - ε r)) / 2ε) / ‖g‖ for a normal direction r has the error ‖g - ∇L‖ / ‖g‖ as its standard
    deviation; here the root mean square of a few. No autograd plays a part in L.
    """
    off, size = 0.0, exact.norm()
    with in_dtype(model, torch.float64), frozen(model):
        batch = converted(batch, torch.float64)
        weights = {name: weight for name, weight in model.named_parameters() if name in exact.parts}
        count = sum(weight.numel() for weight in weights.values())
        scale = math.sqrt(sum(weight.square().sum().item() for weight in weights.values()) / max(1, count)) or 1.0

        def loss(shift: float, direction: dict[str, Tensor]) -> float:
            for name, weight in weights.items():
                weight.data.add_(direction[name], alpha=shift)
            with solved_by(model, retracing(solver, decisions)), repeatable(model):
                value, _ = loss_fn(model, batch)
            for name, weight in weights.items():
                weight.data.sub_(direction[name], alpha=shift)
            return float(value)

        for n in range(DIRECTIONS):
            draw = torch.Generator().manual_seed(n)
            direction = {
                name: torch.randn(weight.shape, generator=draw, dtype=torch.float64).to(weight.device)
                for name, weight in weights.items()
            }
            shift = SHIFT * scale
            change = (loss(shift, direction) - loss(-shift, direction)) / (2 * shift)
            along = sum(float((exact.parts[name] * direction[name]).sum()) for name in weights)
            off += (along - change) ** 2 / DIRECTIONS
    return math.sqrt(off) / size if size else math.nan


def of_equation(model: nn.Module, loss_fn: Loss, batch: Any, tolerance: float) -> Slope:
    """The gradient of the differential equation itself, as near as dopri5 comes to it at `tolerance` in float64.

    By plain autograd where its graph finds room in memory; else by replay, which evaluates the fields again, and which
    is held against plain autograd at a loose tolerance first.
    """
    batch = converted(batch, torch.float64)
    with in_dtype(model, torch.float64):
        try:
            with Room(model):
                return _by_dopri5(model, loss_fn, batch, tolerance, "backprop")
        except NoRoom:
            _check_replay(model, loss_fn, batch, max(tolerance, LOOSE))
            return _by_dopri5(model, loss_fn, batch, tolerance, "replay")
        except SolveError as error:
            raise RunFailed(f"there is no reference at reference={tolerance:g}; choose another. {error}") from error


def _by_dopri5(model: nn.Module, loss_fn: Loss, batch: Any, tolerance: float, gradient: str) -> Slope:
    solver = Adaptive(method="dopri5", rtol=tolerance, atol=tolerance, gradient=gradient, max_steps=1_000_000)
    return slope(model, loss_fn, batch, solver)


def _check_replay(model: nn.Module, loss_fn: Loss, batch: Any, tolerance: float) -> None:
    """Raise `Untrusted` if the gradient by replay is not that of plain autograd: then the fields have changed."""
    try:
        kept, again = (_by_dopri5(model, loss_fn, batch, tolerance, name) for name in ("backprop", "replay"))
    except SolveError as error:
        raise Untrusted(f"{FULL}: {error}") from error
    if not (off := again.error(kept)) <= TRUSTED:
        raise Untrusted(f"{FULL}, and then they are not the same (gradients differ by {off:.1e})")


class Untrusted(RunFailed):
    """A network whose fields cannot be evaluated again, and of which too much would have to be kept."""


class NoRoom(Exception):
    """Autograd was about to hold more than there is room for."""


class Room(SavedMeter):
    """Let autograd hold half of the memory that is free for backward, and no more."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__([*model.parameters(), *model.buffers()])
        self.room = device.free_memory(next(model.parameters()).device) // 2

    def _pack(self, tensor: Tensor) -> Any:
        held = super()._pack(tensor)
        if self._now > self.room:
            raise NoRoom
        return held


def fields_of(model: nn.Module) -> frozenset[str]:
    """The names of the parameters of the fields: of the `field` of all that holds a solver, or of the whole of it."""
    held = [getattr(holder, "field", holder) for holder in solvers(model)]
    inside = {id(parameter) for one in held if isinstance(one, nn.Module) for parameter in one.parameters()}
    return frozenset(name for name, parameter in model.named_parameters() if id(parameter) in inside)
