"""Maximum likelihood: a flow learns the density that given points come from (figure 5 of the paper)."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from odenet_cli.tasks.common import flow_figures
from odenet_cli.tasks.common.scores import Deviation, Score

NEEDS = ("log_prob",)
Batch = tuple[Tensor, Any]


def loss(model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor | Score]]:
    """Return the mean of -log p(x), in nat, over `batch = (x (B, D), distribution)`.

    nll       the same
    nll_sd    standard deviation over samples of their contributions to it
    nll_data  nll in the units of the data, if they are standardised for the flow
    gap       nll minus the entropy of the distribution, if known: KL(p‖q)
    """
    x, distribution = batch
    per_sample = -model.log_prob(x)
    total, detached = per_sample.mean(), per_sample.detach()
    nll, sd = detached.mean(), detached.std(correction=0) if model.training else Deviation.of(detached)
    scale, entropy = getattr(distribution, "log_scale", None), getattr(distribution, "entropy", None)
    more = {} if scale is None else {"nll_data": nll + scale}
    more |= {} if entropy is None else {"gap": nll - entropy}
    return total, {"nll": nll, "nll_sd": sd, **more}


def figure_data(model: Any, data: Any, per_sample: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return densities, samples and particles of the flow in the plane, samples of the data, and their density if
    known; for a user's points, these and samples of the flow in the data's units, in any dimension."""
    (x,), distribution = data.test.rows, data.test.distribution
    own = flow_figures.beside(model, x, distribution) if hasattr(distribution, "restored") else {}
    if x.shape[1] != 2:
        return own
    low, high = x.amin(0), x.amax(0)
    centre, reach = 0.5 * (low + high), 0.6 * (high - low).max().clamp(min=1e-3)
    frame = [(float(c - reach), float(c + reach)) for c in centre]
    arrays = {**flow_figures.snapshots(model, frame), "target_samples": x[: flow_figures.SAMPLES]}
    if callable(getattr(distribution, "density", None)):
        grid = flow_figures.grid_points(arrays["x"], arrays["y"])
        arrays["target"] = distribution.density(grid.reshape(-1, 2)).reshape(grid.shape[:2])
    return {**arrays, **own}


def sanity_check(model: Any, data: Any, scores: dict[str, Any], count: int) -> tuple[dict[str, float], str | None]:
    """Return the standard error over `count` points and the round-trip error; warn of an NLL below the entropy."""
    numbers = {"nll_se": scores["nll_sd"] / math.sqrt(count)}
    round_trip = flow_figures.round_trip(model, data.test.rows[0][: flow_figures.SAMPLES])
    if round_trip is not None:
        numbers["round_trip"] = round_trip
    if scores.get("gap", 0.0) >= -3 * numbers["nll_se"]:
        return numbers, None
    return numbers, (
        f"the test NLL lies {-scores['gap']:.4f} nat below the entropy of the data, with a standard error of "
        f"{numbers['nll_se']:.4f}: the likelihood is wrong. Score more accurately (eval.solver.rtol, "
        "eval.dtype=float64)."
    )
