"""Least squares: a parametric ODE is fitted to observed series; parameters, their errors, and residuals."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from odenet_cli.data.common.table_cells import natural
from odenet_cli.data.observations import Observations
from odenet_cli.tasks.common import inference
from odenet_cli.tasks.common.scores import Score

NEEDS = ("linearise",)
SHOWN = 20  # parameters in a record of training
SERIES, FINE = 8, 300  # of the figure
FAR = 0.01  # relative offset above which a fit has not converged
LEVELS = (0.05, 0.95)


def loss(model: Any, batch: tuple[Tensor, ...]) -> tuple[Tensor, dict[str, Tensor | Score]]:
    """Return the fraction of the observations' variance not explained by the path, and further metrics.

    In training its gradient is that of the linearised problem, which the optimiser solves.
    """
    problem = Observations(*batch)
    if not model.training:
        r = model.residuals(problem)
        left = (r * model.weights(problem)).square().sum()
        extra = {"r2": 1 - left}
        held = _held_out(model, problem)
        return left, extra if held is None else {**extra, "r2_held_out": held}
    r, jacobian = model.linearise(problem)
    model.problem = problem
    weight = model.weights(problem)
    left = (r * weight).square().sum()
    gradient = 2 * jacobian.T @ (r * weight.square()) / model.slopes(problem)
    shared = {f"parameter/{name}": x for name, x in zip(model.names[:SHOWN], model.natural())}
    return left + ((numbers := _leaves(model)) - numbers.detach()) @ gradient, shared


def _held_out(model: Any, problem: Observations) -> Tensor | None:
    """Return R² of the held-out observations; None if there are none."""
    held = problem.held_out[..., None] & ~problem.values.isnan()
    if not bool(held.any()):
        return None
    with torch.no_grad():
        path = model.paths(problem, *model.split_free(problem, model.get_free(problem)[None]))[0]
    miss = ((model.compared(path[..., model.columns]) - model.compared(problem.values)) / model.deviation)[held]
    return 1 - miss.square().mean()


def _leaves(model: Any) -> Tensor:
    """Return the fitted numbers as one vector with its graph, in the order of the free vector."""
    theta = torch.cat([weight.flatten() for weight in model.field.parameters()])
    return torch.cat((theta[model.free], model.initial[:, model.free_states].flatten()))


def sanity_check(model: Any, data: Any, scores: dict[str, Any], count: int) -> tuple[dict[str, Any], str | None]:
    """Return the estimates with their errors, and warnings about the errors."""
    problem = Observations(*next(iter(data.test.epoch(0))))
    columns, found = data.record["columns"][2:], inference.infer(model, problem)
    names, order = model.free_names(data.record["series"]), model.listing(data.record["series"], natural)
    estimates = inference.estimates(model, problem, found, names)
    found, names = found.listed(order), [names[n] for n in order]
    follow = inference.autocorrelations(model, problem, found.residuals, columns)
    per_column = len(found.residuals) / len(columns)
    offset = model.offset(problem)
    far = (
        []
        if offset is None or offset < FAR
        else [f"the fit has not converged (offset {offset:.2g}): raise trainer.steps."]
    )
    sigma = (found.variance**0.5 * model.sigma).tolist()
    return {
        "estimates": {name: estimates[name] for name in names},
        "correlation": found.correlation.tolist() if len(names) <= 50 else None,
        "sigma": dict(zip(columns, sigma)),
        "observations": len(found.residuals),
        "degrees_of_freedom": found.freedom,
        "offset": offset,
        "autocorrelation": follow,
        "warnings": far + inference.warnings(found, names, follow, int(per_column)),
    }, None


@torch.no_grad()
def figure_data(model: Any, data: Any, per_sample: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a few series, first by name: the observations, the path between them, the 90 % band of observations."""
    problem = Observations(*next(iter(data.test.epoch(0))))
    found = inference.infer(model, problem)
    share = torch.linspace(0, 1, FINE, dtype=problem.times.dtype, device=problem.times.device)
    at = problem._replace(times=share.expand(len(problem.series), FINE))
    _, band = inference.forecast(model, problem, found, at, (LEVELS[0], 0.5, LEVELS[1]))
    begins, lasts = problem.begins[:, None], problem.lasts[:, None]
    names = data.record["series"]
    shown = torch.tensor(sorted(range(len(names)), key=lambda n: natural(names[n]))[:SERIES])
    return {
        "series": shown,
        "times": (begins + lasts * problem.times)[shown],
        "values": problem.values[shown],
        "held_out": problem.held_out[shown],
        "fine": (begins + lasts * share)[shown],
        "band": band[:, shown],
    }
