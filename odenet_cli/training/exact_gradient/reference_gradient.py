"""Compute the gradient of a loss by a given solver, and reference gradients for comparison.

`compute_gradient`         as training computes it, in the dtype of the model
`gradient_of_steps`        exact for the steps of a solve: the same steps again in float64, by plain autograd
`gradient_of_equation`     of the differential equation: dopri5 at a tight tolerance in float64, by plain autograd
`finite_difference_error`  checks `gradient_of_steps` without autograd
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from odenet_cli.errors import RunFailed
from odenet_cli.models import solvers
from odenet_cli.ode import Adaptive, SolveError, Solver, Stats, tally
from odenet_cli.ode.gradient.reversible import Reversible
from odenet_cli.ode.multistep.nordsieck import Multistep
from odenet_cli.training import device, generators
from odenet_cli.training.evaluate import solved_by
from odenet_cli.training.exact_gradient.model_contexts import Objective, frozen, repeatable, without_hooks
from odenet_cli.training.exact_gradient.step_replay import Recording, recording_solver, replaying_solver
from odenet_cli.training.memory import SavedMeter

DIRECTIONS = 4  # of finite differences
RELATIVE_SHIFT = 1e-8  # of the parameters in a finite difference with the same steps
LONG_SHIFT = 1e-3  # over which a discontinuous loss has its average number of jumps
LOSS_ROUNDING = 1e-14  # of a loss in float64, relative
REPLAY_CHECK_RTOL = 1e-3  # at which replay is first compared with plain autograd
MAX_REPLAY_ERROR = 1e-6
NO_MEMORY = "there is not enough memory to store what autograd needs without evaluating fields again"


@dataclass
class Gradient:
    """Hold the gradient of a loss by parameter name, in float64, and the `cost` of its solves.

    random_state  a fingerprint of the random generators after the loss
    """

    loss: float
    parts: dict[str, Tensor]
    cost: Stats
    random_state: str = ""

    def norm(self, include: Callable[[str], bool] = bool) -> float:
        """Return the 2-norm over the parameters whose names `include` accepts; by default over all."""
        return math.sqrt(sum(part.square().sum().item() for name, part in self.parts.items() if include(name)))

    def error(self, exact: Gradient, include: Callable[[str], bool] = bool) -> float:
        """Return ‖g - g_exact‖ / ‖g_exact‖; NaN if the exact gradient is zero."""
        size = exact.norm(include)
        return (self - exact).norm(include) / size if size else math.nan

    def __sub__(self, other: Gradient) -> Gradient:
        return replace(self, parts={name: part - other.parts[name] for name, part in self.parts.items()})


class NoExactGradient(RunFailed):
    """Signal a network whose graph does not fit into memory, and whose fields do not repeat their values."""


def compute_gradient(objective: Objective, solver: Solver | None) -> Gradient:
    """Return the gradient of a loss as solved by `solver`, with the same random numbers at each call.

    Hooks of the parameters are disabled: what they do to the gradient, such as clipping, is not part of it.
    """
    model = objective.model
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    with tally() as solves, solved_by(model, solver), repeatable(model), without_hooks(parameters.values()):
        loss, _ = objective.loss_fn(model, objective.batch)
        random_state = generators.fingerprint(loss.device)
        parts = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    double = {
        name: torch.zeros_like(parameter, dtype=torch.float64) if part is None else part.double()
        for (name, parameter), part in zip(parameters.items(), parts)
    }
    return Gradient(loss.item(), double, sum(solves, start=Stats()), random_state)


def record_steps(objective: Objective, solver: Solver) -> Recording:
    """Return the decisions of `solver` in the solves of a loss, in the model's own dtype."""
    recording = Recording()
    with frozen(objective.model):
        objective(recording_solver(solver, recording))
    return recording


def gradient_of_steps(
    objective: Objective,
    solver: Solver,
    recording: Recording,
    change: Callable[[Any], Any] = lambda gradient: gradient,
) -> Gradient:
    """Return the exact gradient of the recorded steps, in float64.

    By plain autograd, which evaluates nothing again; if its graph does not fit into memory, by replay.

    change  returns the gradient method to use in place of plain autograd
    """
    plain = replaying_solver(solver, recording)
    plain = replace(plain, gradient=change(plain.gradient))
    if isinstance(solver.gradient_method, Reversible) or isinstance(solver.formulas, Multistep):
        return _in_float64(objective, plain, None)
    return _in_float64(objective, plain, replaying_solver(solver, recording, "replay"))


def gradient_of_equation(objective: Objective, tolerance: float) -> Gradient:
    """Return the gradient of the differential equation, approximated by dopri5 at `tolerance` in float64.

    By plain autograd; if its graph does not fit into memory, by replay, which evaluates the fields again.
    """
    plain, replay = _dopri5(tolerance)
    try:
        return _in_float64(objective, plain, replay, max(tolerance, REPLAY_CHECK_RTOL))
    except SolveError as error:
        raise RunFailed(
            f"the reference solve failed at reference={tolerance:g}; choose another tolerance. {error}"
        ) from error


def finite_difference_error(
    objective: Objective, solver: Callable[[], Solver], exact: Gradient, relative_shift: float = RELATIVE_SHIFT
) -> float:
    """Return the error of `exact`, a gradient g, by finite differences of the loss L, each value from a new `solver`.

    For a direction r of independent normal numbers, (g · r - (L(θ + ε r) - L(θ - ε r)) / 2ε) / ‖g‖ has the standard
    deviation ‖g - ∇L‖ / ‖g‖; its root mean square over a few directions is returned. L is computed without autograd, so
    this is the only check that detects a detach or a wrong backward pass in the network.
    """
    errors = finite_differences(objective, [exact.parts], solver, relative_shift=relative_shift).errors
    return errors[0] / exact.norm() if exact.norm() else math.nan


class Differences(NamedTuple):
    """Hold the errors of gradients by finite differences of a loss, as root mean squares over a few directions.

    slopes    the finite difference in each direction
    rounding  their possible error by the rounding of the loss
    """

    errors: list[float]
    slopes: list[float]
    rounding: float


def finite_differences(
    objective: Objective,
    gradients: Sequence[Mapping[str, Tensor]],
    solver: Callable[[], Solver],
    seeds: Sequence[int] = range(DIRECTIONS),
    relative_shift: float = RELATIVE_SHIFT,
) -> Differences:
    """Compare directional derivatives of a loss by `gradients` with finite differences, in a random direction of their
    parameters for each seed. Each value of the loss is computed by a new `solver`, in float64 and without autograd."""
    with objective.in_dtype(torch.float64) as fine, frozen(fine.model):
        weights = {name: weight for name, weight in fine.model.named_parameters() if name in gradients[0]}
        own = {name: weight.data for name, weight in weights.items()}
        count = sum(weight.numel() for weight in weights.values())
        rms = math.sqrt(sum(weight.square().sum().item() for weight in weights.values()) / max(1, count))
        shift = relative_shift * (rms or 1.0)

        def loss(direction: dict[str, Tensor], distance: float) -> float:
            try:
                for name, weight in weights.items():
                    weight.data = own[name].add(direction[name], alpha=distance)
                return fine(solver()).item()
            finally:
                for name, weight in weights.items():
                    weight.data = own[name]

        slopes, by_gradients, rounding = [], [], 0.0
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            direction = {
                name: torch.randn(weight.shape, generator=generator, dtype=torch.float64).to(weight.device)
                for name, weight in weights.items()
            }
            above, below = loss(direction, shift), loss(direction, -shift)
            slopes.append((above - below) / (2 * shift))
            rounding = max(rounding, LOSS_ROUNDING * abs(above) / shift)
            by_gradients.append([sum(float((g[name] * direction[name]).sum()) for name in weights) for g in gradients])
    squares = [[(x - slope) ** 2 for x, slope in zip(column, slopes)] for column in zip(*by_gradients)]
    return Differences([math.sqrt(sum(row) / len(row)) for row in squares], slopes, rounding)


def judged_by_differences(
    objective: Objective,
    gradient: Mapping[str, Tensor],
    solver: Callable[[], Solver],
    seeds: Sequence[int] = range(DIRECTIONS),
) -> bool:
    """Return whether finite differences over long and short distances agree in their error of a gradient.

    Between the jumps of a rounding operation, to which a straight-through estimator deliberately assigns a gradient,
    the loss has another slope than across them.
    """
    short, long = (
        finite_differences(objective, [gradient], solver, seeds, shift) for shift in (RELATIVE_SHIFT, LONG_SHIFT)
    )
    # They must differ by less than a third of the error.
    return math.dist(short.slopes, long.slopes) / math.sqrt(len(seeds)) <= short.errors[0] / 3


def _in_float64(
    objective: Objective, plain: Solver, replay: Solver | None, check_rtol: float = REPLAY_CHECK_RTOL
) -> Gradient:
    """Return the gradient by the solver `plain` or, if its graph does not fit into memory, by `replay`.

    Replay evaluates the fields again. Raise `NoExactGradient` if they then have other values, that is if the two differ
    at a loose tolerance, at which both fit into memory.
    """
    with objective.in_dtype(torch.float64) as fine:
        try:
            with MemoryLimit(fine.model):
                return compute_gradient(fine, plain)
        except OverLimit:
            if replay is None:
                raise NoExactGradient(f"{NO_MEMORY}, and its steps cannot be repeated one by one") from None
        try:
            loose = [compute_gradient(fine, solver) for solver in _dopri5(check_rtol)]
        except SolveError as error:
            raise NoExactGradient(f"{NO_MEMORY}: {error}") from error
        if not (difference := loose[1].error(loose[0])) <= MAX_REPLAY_ERROR:
            raise NoExactGradient(
                f"{NO_MEMORY}, and evaluated again they are not the same (gradients differ by {difference:.1e})"
            )
        return compute_gradient(fine, replay)


def _dopri5(tolerance: float) -> tuple[Solver, Solver]:
    """Return dopri5 at a tolerance, with plain autograd and with replay."""
    plain = Adaptive(method="dopri5", rtol=tolerance, atol=tolerance, gradient="backprop", max_steps=1_000_000)
    return plain, replace(plain, gradient="replay")


class OverLimit(Exception):
    """Signal that autograd was about to save more than `MemoryLimit` allows."""


class MemoryLimit(SavedMeter):
    """Let autograd save at most half of the free memory for the backward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__([*model.parameters(), *model.buffers()])
        self.limit = device.free_memory(next(model.parameters()).device) // 2

    def _pack(self, tensor: Tensor) -> Any:
        held = super()._pack(tensor)
        if self._now > self.limit:
            raise OverLimit
        return held


def field_parameters(model: nn.Module) -> frozenset[str]:
    """Return the names of the vector fields' parameters: those of `field` of each module that holds a solver, or of
    the whole module if it has no `field`."""
    fields = [getattr(holder, "field", holder) for holder in solvers(model)]
    inside = {id(parameter) for field in fields if isinstance(field, nn.Module) for parameter in field.parameters()}
    return frozenset(name for name, parameter in model.named_parameters() if id(parameter) in inside)
