"""Least-squares fits (`optim=lm`, `model=fit`): a Levenberg-Marquardt step per optimiser step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from odenet_cli import data as datasets
from odenet_cli.config.schema import Config
from odenet_cli.models.common.levenberg_marquardt import DAMPING, marquardt_step, relative_offset
from odenet_cli.ode import SolveError

TOLERANCE = 1e-6  # of the relative offset
# Or of a step near the minimum that lowers the sum of squares so little that the solver may hide what the next would.
NEAR, SETTLED = 1e-3, 1e-9
# A step of a logarithm: a factor of 1,100, of which slopes foretell nothing, and at which a field may take any time.
LEAP = 7.0


class LevenbergMarquardt(Optimizer):
    """Fit a model that has `linearise(problem) -> residuals (n,), Jacobian (n, p)` and a free vector, as `model=fit`.

    problem    the batch of the step, which the loss has left in `model.problem`
    damping, converged, …  are in the parameter group, so that a checkpoint has them: a run that goes on
               makes the steps that it would have made. `known`: the last step has computed what the next begins with
    """

    def __init__(self, model: Any, lr: float) -> None:
        self.model = model
        state = {"damping": DAMPING, "converged": False, "offset": math.inf, "settled": False, "known": False}
        super().__init__([*model.parameters()], {"lr": lr, **state})

    @property
    def converged(self) -> bool:
        """Whether the fit has converged."""
        return bool(self.param_groups[0]["converged"])

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take a step, or find that the fit has converged; its standard deviations may then call for another."""
        group, model, problem = self.param_groups[0], self.model, self.model.problem
        r, jacobian = model.linearise(problem)
        u, before = model.get_free(problem), [weight.clone() for weight in model.parameters()]
        bounded = model.has_bounds(len(problem.series))

        def evaluate(moved: Tensor) -> Tensor | None:
            if bool(((moved - u).abs() > LEAP)[bounded].any()):
                return None
            model.set_free(problem, moved)
            try:
                tried, slopes = model.linearise(problem)
            except SolveError:
                return None
            return tried if bool(slopes.isfinite().all()) else None

        group["offset"] = relative_offset(r, jacobian)
        taken = False
        exact = model.is_exact(problem, r)
        if not exact and group["offset"] > TOLERANCE and not group["settled"]:
            step = marquardt_step(u, r, jacobian, evaluate, group["damping"], group["lr"])
            taken = step.taken
            group["damping"] = step.damping if taken else DAMPING
            fall = float(r @ r - step.residuals @ step.residuals)
            group["settled"] = taken and group["offset"] < NEAR and fall < SETTLED * float(r @ r)
        if not taken:
            group["settled"] = False
            for weight, value in zip(model.parameters(), before):
                weight.copy_(value)
            group["converged"] = exact or not model.reweigh(problem, r)
        group["known"] = taken


def start(model: Any, data: datasets.Data) -> None:
    """Initialise a fit from its data; a checkpoint overwrites this later."""
    model.start_from(_problem(data.test), data.record["columns"][2:])


def searches(config: Config) -> bool:
    """Return whether a new run of this config begins with a search for initial values."""
    return config.optim.least_squares and config.checkpoint is None and config.model["starts"] > 1


def search_start(model: Any, data: datasets.Data, config: Config) -> str | None:
    """Search the initial values of a new fit; return the origin of those found, None where the given ones stay."""
    if not searches(config):
        return None
    origin: str | None = model.search_start(_problem(data.test), config.seed)
    return origin


def go_on(optimizer: Optimizer, data: datasets.Data) -> None:
    """Compute again the results of the step before a checkpoint; these evaluations are counted in that step."""
    assert isinstance(optimizer, LevenbergMarquardt)
    if optimizer.param_groups[0]["known"]:
        optimizer.model.linearise(_problem(data.train))


def _problem(split: datasets.Split) -> Any:
    """Return the only batch of a split."""
    from odenet_cli.data.observations import Observations  # and polars, which no other run needs

    return Observations(*next(iter(split.epoch(0))))
