"""Maximum likelihood: a flow learns the density that given points come from (figure 5 of the paper)."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn

from odenet_cli.tasks.common import flow_figures
from odenet_cli.tasks.common.scores import Deviation, Score

NEEDS = ("log_prob",)
Batch = tuple[Tensor, Any]


def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor | Score]]:
    """Mean of -log p(x) over `batch = (x (B, D), distribution)`, in nat.

    nll     the same
    nll_sd  standard deviation of a sample's share in it
    gap     what it lies above the entropy of the distribution, where that is known: KL(p‖q)
    """
    x, distribution = batch
    each = -model.log_prob(x)  # type: ignore[operator]
    total, seen = each.mean(), each.detach()
    nll, spread = seen.mean(), seen.std(correction=0) if model.training else Deviation.of(seen)
    entropy = getattr(distribution, "entropy", None)
    return total, {"nll": nll, "nll_sd": spread, **({} if entropy is None else {"gap": nll - entropy})}


def figure_data(model: nn.Module, data: Any) -> dict[str, Tensor]:
    """Densities, samples and particles of the flow, samples of the data, and their density where it is known."""
    x, distribution = data.test.x, data.test.distribution
    low, high = x.amin(0), x.amax(0)
    middle, reach = 0.5 * (low + high), 0.6 * (high - low).max().clamp(min=1e-3)
    frame = [(float(m - reach), float(m + reach)) for m in middle]
    drawn = {**flow_figures.snapshots(model, frame), "target_samples": x[: flow_figures.SAMPLES]}
    if callable(getattr(distribution, "density", None)):
        drawn["target"] = distribution.density(flow_figures.points(drawn["x"], drawn["y"]).reshape(-1, 2)).reshape(
            len(drawn["y"]), -1
        )
    return drawn


def sanity_check(
    model: nn.Module, data: Any, scores: dict[str, Any], count: int
) -> tuple[dict[str, float], str | None]:
    """The standard error over `count` points, and how far points come back; an NLL below the entropy is not true."""
    found = {"nll_se": scores["nll_sd"] / math.sqrt(count)}
    returned = flow_figures.round_trip(model, data.test.x[: flow_figures.SAMPLES])
    if returned is not None:
        found["round_trip"] = returned
    if scores.get("gap", 0.0) >= -3 * found["nll_se"]:
        return found, None
    return found, (
        f"the test NLL lies {-scores['gap']:.4f} nat below the entropy of the data, with a standard error of "
        f"{found['nll_se']:.4f}: the likelihood is wrong. Score more accurately (eval.solver.rtol, eval.dtype=float64)."
    )
