"""Infer the parameters' errors of a least-squares fit: intervals, undetermined combinations, and forecasts.

The covariance is σ² (JᵀJ)⁻¹ with σ² from the residuals and n - p degrees of freedom (Seber & Wild, "Nonlinear
Regression", 1989, section 2.1.2; Bates & Watts, "Nonlinear Regression Analysis", 1988, section 2.3), J with respect to
the free vector of the fit. Intervals are those of Student's t in the free vector, transformed back, so that the
interval of a positive parameter is positive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from scipy.special import stdtrit  # the quantile of scipy.stats.t, without its second of import
from torch import Tensor

UNDETERMINED = 1e-6  # of a singular value of the scaled J, relative to the largest: J is accurate to about 1e-9
TIED = 0.98  # correlation above which two parameters are hardly distinguishable
SHARE = 0.1  # least share of a direction for a parameter to be named in it
LEVEL = 0.95


class Inference(NamedTuple):
    """Hold the estimates and errors of the p numbers of a free vector.

    covariance    (p, p) of the free vector, in the determined directions
    correlation   (p, p)
    determined    (p,) whether the data determine each number
    combinations  the numbers in each undetermined direction
    bounds        (p,) the bound at which a number is held as if fixed; NaN: none
    variance      of a residual, in units of sigma²
    freedom       degrees of freedom, n - p
    residuals     (n,) in units of sigma
    """

    covariance: Tensor
    correlation: Tensor
    determined: Tensor
    combinations: list[list[int]]
    bounds: Tensor
    variance: float
    freedom: int
    residuals: Tensor

    def quantile(self, share: float) -> float:
        """Return the quantile of Student's t."""
        return float(stdtrit(self.freedom, share))

    def listed(self, order: Sequence[int]) -> Inference:
        """Return the same with the numbers of the free vector in another order, for a reader."""
        place = {n: at for at, n in enumerate(order)}
        return self._replace(
            covariance=self.covariance[order][:, order],
            correlation=self.correlation[order][:, order],
            determined=self.determined[order],
            combinations=[sorted(place[n] for n in members) for members in self.combinations],
            bounds=self.bounds[order],
        )


def infer(model: Any, problem: Any) -> Inference:
    """Return the inference at the minimum of a fit."""
    r, whole = model.linearise(problem)
    bounds = model.bounds_reached(problem).where(whole.norm(dim=0) == 0, torch.nan)
    inside = bounds.isnan().nonzero().flatten()
    jacobian, total = whole[:, inside], whole.shape[1]
    n, p = jacobian.shape
    size = jacobian.norm(dim=0)
    unit = size.where(size > 0, 1.0)
    _, singular, axes = torch.linalg.svd(jacobian / unit, full_matrices=False)
    known = singular > UNDETERMINED * singular[0]
    variance = float(r @ r) / (n - p)
    root = (axes[known].T / singular[known]) / unit[:, None]
    covariance, determined = whole.new_zeros(total, total), torch.zeros(total, dtype=torch.bool)
    covariance[inside[:, None], inside] = variance * root @ root.T
    determined[inside] = (axes[~known].square().sum(0) <= UNDETERMINED) & (size > 0)
    errors = covariance.diagonal().sqrt()
    correlation = covariance / errors[:, None].clamp_min(1e-300) / errors.clamp_min(1e-300)
    combinations = [inside[axis.square() > SHARE].tolist() for axis in axes[~known]]
    return Inference(covariance, correlation, determined, combinations, bounds, variance, n - p, r)


def estimates(model: Any, problem: Any, inference: Inference, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return value, standard error and 95 % interval of each number; None if the data do not determine it."""
    u, errors = model.get_free(problem), inference.covariance.diagonal().sqrt()
    reach = inference.quantile((1 + LEVEL) / 2) * errors
    values, low, high = (natural(model, problem, x) for x in (u, u - reach, u + reach))
    # The same as from derivatives by the parameters themselves, since the Gauss-Newton matrix transforms accordingly.
    natural_errors = (errors * model.slopes(problem)).tolist()
    rows = zip(names, values.tolist(), natural_errors, low.tolist(), high.tolist(), inference.determined.tolist())
    found = {
        name: {
            "value": value,
            **({"error": e, "low": a, "high": b} if known else dict.fromkeys(("error", "low", "high"))),
        }
        for name, value, e, a, b, known in rows
    }
    for n, bound in enumerate(inference.bounds.tolist()):
        if not math.isnan(bound):
            found[names[n]] |= {"value": bound, "bound": bound}
    return found


def natural(model: Any, problem: Any, u: Tensor) -> Tensor:
    """Return the numbers of a free vector in their own units."""
    theta, initial = model.split_free(problem, u[None])
    return torch.cat((theta[0, model.free], initial[0][:, model.free_states].flatten()))


def warnings(inference: Inference, names: Sequence[str], autocorrelation: dict[str, float], count: int) -> list[str]:
    """Return warnings about the validity of the errors."""
    lines = [
        f"{name} is at its bound {bound:g}; the values and errors of the others hold for this value. If it may lie "
        f"beyond, set '+model.bounds.{name.partition('(')[0]}=[LOW,HIGH]', null for an open side."
        for name, bound in zip(names, inference.bounds.tolist())
        if not math.isnan(bound)
    ]
    for members in inference.combinations:
        listed = ", ".join(names[n] for n in members)
        if len(members) == 1:
            lines.append(f"the data do not determine {listed}: they hardly depend on it.")
        else:
            lines.append(f"the data do not determine {listed}: other values fit equally well.")
    tied = [
        (abs(value), names[i], names[j], value)
        for i, row in enumerate(inference.correlation.tolist())
        for j, value in enumerate(row[:i])
        if abs(value) > TIED and bool(inference.determined[i] & inference.determined[j])
    ]
    for _, first, second, value in sorted(tied, reverse=True)[:3]:
        lines.append(f"{second} and {first} can hardly be distinguished: their correlation is {value:.3f}.")
    for column, value in autocorrelation.items():
        if value > 2 / math.sqrt(count):
            factor = math.sqrt((1 + value) / (1 - value)) if value < 1 else math.inf
            lines.append(
                f"residuals of {column} are correlated in time ({value:.2f}): the model is incomplete, or the errors "
                f"are too small, by about {factor:.1f} times."
            )
    return lines


def autocorrelations(model: Any, problem: Any, r: Tensor, columns: Sequence[str]) -> dict[str, float]:
    """Return for each column the correlation of residuals with their predecessors in the same series."""
    fitted = model.fitted(problem)
    whole = torch.full(fitted.shape, torch.nan, dtype=r.dtype, device=r.device)
    whole[fitted] = r
    result = {}
    for c, name in enumerate(columns):
        rows = [row[~row.isnan()] for row in whole[..., c]]
        squares = sum(float(row @ row) for row in rows)
        result[name] = sum(float(row[1:] @ row[:-1]) for row in rows) / squares if squares else 0.0
    return result


def forecast(model: Any, problem: Any, inference: Inference, at: Any, levels: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return mean (S, M, C) and quantiles (L, S, M, C) of future observations at the times of `at`.

    The variance is the sum of that of the path due to its parameters (the delta method) and that of an observation.

    at  the `problem` with other times (S, M), as fractions of each series' duration
    """
    path, derivatives = model.sensitivities(at)
    centre, p = model.compared(path[..., model.columns]), int(model.free.sum())
    own, series = derivatives.shape[-1] - p, len(problem.series)
    variances = []
    for n in range(series):
        place = torch.cat((torch.arange(p), p + n * own + torch.arange(own)))
        covariance = inference.covariance[place][:, place]
        variances.append(((derivatives[n] @ covariance) * derivatives[n]).sum(-1))
    observation = inference.variance * model.sigma.square()
    spread = (torch.stack(variances) + observation).sqrt()
    quantiles = torch.stack([centre + inference.quantile(level) * spread for level in levels])
    if model.noise == "log":
        return (centre + spread.square() / 2).exp(), quantiles.exp()
    return centre, quantiles
