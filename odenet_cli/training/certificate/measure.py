"""Compare the gradient of a loss, as training computes it, with the exact gradient of its own steps, and both with
finite differences of the loss.

    own      the run's solver and gradient, in the run's dtype
    exact    the same steps in float64, by plain autograd
    L(θ±εr)  the loss at the same steps, without autograd

A wrong backward solve makes the first two differ. Anything that misleads autograd itself, such as a detach or a tensor
changed without its knowledge, makes them differ from the third. The network, the generators and the run are unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from odenet_cli.models import solvers
from odenet_cli.ode import Solver
from odenet_cli.ode.gradient.backprop import Backprop
from odenet_cli.training.certificate.probe import distance, look
from odenet_cli.training.exact_gradient.model_contexts import Objective
from odenet_cli.training.exact_gradient.reference_gradient import (
    Differences,
    Gradient,
    compute_gradient,
    finite_differences,
    gradient_of_steps,
    judged_by_differences,
    record_steps,
)
from odenet_cli.training.exact_gradient.step_replay import replaying_solver

SAMPLES = 8
WARNING, ALARM = 0.1, 0.5
SUSPICIOUS = 0.02  # error by finite differences above which more directions are used
DIRECTIONS = 4
CURED = 1 / 3  # remaining share of the error below which a trial has found the cause
MAX_NAMES = 3
REPEATED = 1e-5  # relative difference of two evaluations at one point
MAX_FIELD_ERROR = 3e-5  # of a field's value in the run's dtype; float32 stays well below
MISSED_SHARE = 1e-4  # of the gradient's norm, above which a gradient that is exactly zero is missing
TENSOR_SHARE = 0.1  # of the gradient's norm: the least denominator of a tensor's relative error


class Cause(NamedTuple):
    """Hold a cause: its kind, one word, and a sentence with the evidence and what to do."""

    kind: str
    text: str


class NotCertified(Exception):
    """A network whose gradient cannot be checked, with the reason."""


def first_samples(batch: Any) -> Any:
    """Return the first samples of a batch; items without one row per sample are unchanged."""
    size = len(batch[0])
    return tuple(
        part[:SAMPLES] if isinstance(part, Tensor) and part.dim() and len(part) == size else part for part in batch
    )


def own_solver(model: nn.Module) -> Solver:
    """Return the solver of the training, not compiled, which changes only the rounding."""
    found: list[Any] = [module.solver for module in solvers(model)]
    if any(solver != found[0] for solver in found):
        raise NotCertified("its modules have solvers with different settings")
    gradient = found[0].gradient
    if getattr(getattr(gradient, "solver", None), "compile", False):
        gradient = replace(gradient, solver=replace(gradient.solver, compile=False))
    solver: Solver = replace(found[0], compile=False, gradient=gradient)
    return solver


class Check:
    """Hold a loss on a few samples, its gradient, and the gradients to compare it with.

    own, exact  see above; if the network draws other random numbers in float64, `own` is computed in float64 too
    looks       inspections of the fields in the run's dtype
    """

    def __init__(self, objective: Objective, solver: Solver, seed: int = 0) -> None:
        self.objective, self.model, self.solver, self.seed = objective, objective.model, solver, seed
        self.dtype = self.own_dtype = next(parameter.dtype for parameter in self.model.parameters())
        self.looks = look(objective, solver)
        if not self.repeats and isinstance(solver.gradient_method, Backprop):
            raise NotCertified("its field has a different value at each evaluation, so that no step can be repeated")
        self.own, self.recording = compute_gradient(objective, solver), record_steps(objective, solver)
        self.exact = self.exact_by()
        if self.own.random_state != self.exact.random_state and self.dtype != torch.float64:
            self.own_dtype = torch.float64
            with objective.in_dtype(torch.float64) as fine:
                self.own, self.recording = compute_gradient(fine, solver), record_steps(fine, solver)
            self.exact = self.exact_by()

    def exact_by(self, change: Callable[[Any], Any] = lambda plain: plain) -> Gradient:
        """Return the exact gradient of the recorded steps, by plain autograd as modified by `change`."""
        return gradient_of_steps(self.objective, self.solver, self.recording, change)

    def own_by(self, solver: Solver, dtype: torch.dtype | None = None) -> Gradient:
        """Return the gradient by another solver, in the dtype of `own` or another one."""
        with self.objective.in_dtype(dtype or self.own_dtype) as objective:
            return compute_gradient(objective, solver)

    @cached_property
    def coarse(self) -> frozenset[torch.dtype]:
        """The dtypes below the state's in which fields computed."""
        return frozenset().union(*(each.coarse for each in self.looks))

    @cached_property
    def repeats(self) -> bool:
        """Whether every field has the same value when evaluated again."""
        return all(each.repeated <= REPEATED for each in self.looks)

    @cached_property
    def field_error(self) -> float:
        """The largest relative error of a field's value in the run's dtype, at the start of a solve; 0 for fields that
        draw random numbers, which differ in float64."""
        if self.dtype == torch.float64:
            return 0.0
        with self.objective.in_dtype(torch.float64) as objective:
            fine = look(objective, self.solver, self.looks)
        # Only the first component: a log-density may also depend on noise that is drawn before the solve.
        pairs = [(a.value[:1], b.value[:1]) for a, b in zip(self.looks, fine) if not a.random]
        return max((distance(a, b) for a, b in pairs), default=0.0)

    @cached_property
    def off_exact(self) -> float:
        """‖own - exact‖ / ‖exact‖, or relative to ‖own‖ if `exact` is zero."""
        size = self.exact.norm() or self.own.norm()
        return (self.own - self.exact).norm() / size if size else 0.0

    @cached_property
    def differences(self) -> tuple[float, float]:
        """The errors of `own` and of `exact` by finite differences of the loss, relative to the gradient.

        0 if these cannot resolve it, or a field computes too coarsely for them or does not repeat its values.
        """
        if self.coarse or not self.repeats:
            return 0.0, 0.0
        errors = self.errors_along([self.seed])
        if errors[1] > SUSPICIOUS:
            errors = self.errors_along(range(self.seed, self.seed + DIRECTIONS))
        return errors if errors[1] <= WARNING or self.smooth(self.exact.parts) else (0.0, 0.0)

    def smooth(self, tensors: Iterable[str]) -> bool:
        """Return whether finite differences are reliable for the gradient of these tensors."""
        parts = {name: self.exact.parts[name] for name in tensors}
        seeds = range(self.seed, self.seed + DIRECTIONS)
        return judged_by_differences(self.objective, parts, self._again, seeds)

    def errors_along(self, seeds: Sequence[int], tensors: Iterable[str] | None = None) -> tuple[float, float]:
        """Return the errors of `own` and of `exact` by finite differences, over these tensors, or all for None."""
        differences = self.differences_along(seeds, self.exact.parts if tensors is None else tensors)
        size = self.exact.norm() or max(map(abs, differences.slopes)) or 1.0
        own, exact = (error if error > 10 * differences.rounding else 0.0 for error in differences.errors)
        return own / size, exact / size

    def _again(self) -> Solver:
        """Return a solver that takes the recorded steps once."""
        return replaying_solver(self.solver, self.recording)

    def differences_along(self, seeds: Sequence[int], tensors: Iterable[str]) -> Differences:
        """Compare `own` and `exact` with finite differences, over these tensors."""
        names = list(tensors)
        parts = [{name: gradient.parts[name] for name in names} for gradient in (self.own, self.exact)]
        return finite_differences(self.objective, parts, self._again, seeds)

    @cached_property
    def misled(self) -> bool:
        """Whether autograd itself is wrong: finite differences of the loss do not confirm the exact gradient."""
        return self.differences[1] > WARNING

    @cached_property
    def unseen(self) -> list[str]:
        """The tensors on which the loss depends without a path for autograd."""
        if self.coarse or not self.repeats or not self.exact.norm():
            return []
        names = [name for name, part in self.exact.parts.items() if not part.any()]
        # All at once, since there are seldom any, and the loss rarely depends on them.
        if not names or self.errors_along([self.seed], names)[1] <= SUSPICIOUS or not self.smooth(names):
            return []
        return [name for name in names if self.errors_along([self.seed], [name])[1] > SUSPICIOUS / 2]

    @property
    def error(self) -> float:
        """The relative error of `own` over all parameters, from the exact gradient unless that is wrong itself."""
        return self.differences[0] if self.misled else self.off_exact

    @cached_property
    def by_tensor(self) -> dict[str, float]:
        """The error of each tensor of `own`, relative to the exact one or, if that is small, to a part of the whole."""
        whole = TENSOR_SHARE * self.exact.norm()
        return {
            name: float((part - self.exact.parts[name]).norm())
            / (max(float(self.exact.parts[name].norm()), whole) or 1)
            for name, part in self.own.parts.items()
        }

    @cached_property
    def missing(self) -> list[str]:
        """The tensors whose gradient is exactly zero but should not be."""
        least = MISSED_SHARE * self.exact.norm()
        return [
            name
            for name, part in self.own.parts.items()
            if not part.any() and float(self.exact.parts[name].norm()) > least
        ]

    def backprop(self) -> Gradient:
        """Return the gradient by autograd through the solve, in the dtype of `own`."""
        return self.own_by(replace(self.solver, gradient="backprop"))

    def error_by(self, gradient: Any) -> float:
        """Return the error of another gradient method, relative to the same exact gradient."""
        other = self.own_by(replace(self.solver, gradient=gradient))
        return (other - self.exact).norm() / (self.exact.norm() or 1.0)

    def right(self, gradient: Gradient) -> bool:
        """Return whether this gradient is without most of the error."""
        return (gradient - self.exact).norm() < CURED * (self.own - self.exact).norm()

    def cures(self, parts: dict[str, Tensor | None]) -> bool:
        """Return whether replacing these tensors' gradients (None: by the exact ones) removes most of the error."""
        repaired = {name: self.exact.parts[name] if part is None else part for name, part in parts.items()}
        return self.right(replace(self.own, parts={**self.own.parts, **repaired}))


def named(names: list[str]) -> str:
    """Return the first few names, and the number of the others."""
    return ", ".join(names[:MAX_NAMES]) + f" and {len(names) - MAX_NAMES} more" * (len(names) > MAX_NAMES)


def percent(value: float) -> str:
    """Return a fraction as a percentage with two digits."""
    return f"{100 * value:.2g} %"
