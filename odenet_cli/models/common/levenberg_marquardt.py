"""The Levenberg-Marquardt method for least squares (Marquardt 1963; damping by Nielsen 1999)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

Evaluate = Callable[[Tensor], Tensor | None]

DAMPING = 1e-3  # initial damping, relative to the squared norms of J's columns
MIN_DAMPING, MAX_DAMPING = 1e-14, 1e14
MAX_TRIALS = 20  # dampings tried per step
ROUNDING = 1e-13  # smallest relative decrease of the sum of squares that is more than rounding


class Step(NamedTuple):
    """Hold the outcome of a step: the parameters u (p,), their residuals (n,), and the damping of the next step.

    taken  whether the sum of squares fell; if not, u and the residuals are unchanged
    """

    u: Tensor
    residuals: Tensor
    damping: float
    taken: bool


def marquardt_step(
    u: Tensor, r: Tensor, jacobian: Tensor, evaluate: Evaluate, damping: float, length: float = 1.0
) -> Step:
    """Increase the damping until a step lowers r·r, and return this step; `length` is the fraction of it that is taken.

    u (p,), r (n,) = evaluate(u), jacobian (n, p). A step with missing residuals, or residuals that are not finite, is
    too long.
    """
    # Damping relative to J's columns makes the step independent of the units of the parameters.
    scale, growth = jacobian.norm(dim=0).clamp_min(1e-12 * float(jacobian.norm()) + 1e-300), 2.0
    for _ in range(MAX_TRIALS):
        # Solve a least-squares problem, since the normal equations would square the condition number.
        whole = torch.cat((jacobian, math.sqrt(damping) * scale.diag()))
        delta = length * torch.linalg.lstsq(whole, torch.cat((-r, torch.zeros_like(u))), driver="gelsd").solution
        # The decrease predicted by the linear model; if it is within rounding, the minimum has been reached.
        fall = float(r @ r - (r + jacobian @ delta).square().sum())
        if fall <= ROUNDING * float(r @ r):
            break
        tried = evaluate(u + delta)
        if tried is not None and bool(tried.isfinite().all()) and tried @ tried < r @ r:
            # Nielsen: the better the linear model has predicted the decrease, the less damping for the next step.
            gain = float(r @ r - tried @ tried) / fall
            damping *= max(1 / 3, 1 - (2 * min(gain, 1.0) - 1) ** 3)
            return Step(u + delta, tried, max(damping, MIN_DAMPING), True)
        damping, growth = min(damping * growth, MAX_DAMPING), 2 * growth
    return Step(u, r, damping, False)


def relative_offset(r: Tensor, jacobian: Tensor) -> float:
    """Return the ratio of r along to r across the tangent plane, per degree of freedom (Bates & Watts 1981).

    It is zero at the minimum; below 0.001 the distance from the minimum is negligible beside the parameters' errors.
    """
    n, p = jacobian.shape
    # An orthonormal basis of the tangent plane, from normalised columns, without directions that they hardly span.
    q, size, _ = torch.linalg.svd(jacobian / jacobian.norm(dim=0).clamp_min(1e-300), full_matrices=False)
    along = q[:, size > 1e-9 * size[0]].T @ r
    across = float(r @ r - along @ along)
    if n <= p or across <= 1e-24 * float(r @ r):
        return math.inf
    return math.sqrt(float(along @ along) / p) / math.sqrt(across / (n - p))
