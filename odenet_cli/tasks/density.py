"""Density matching: a flow learns to sample from a density known up to its constant (figure 4 of the paper)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from odenet_cli.tasks.common import flow_figures
from odenet_cli.tasks.common.scores import Deviation, Score

NEEDS = ("generate",)
Batch = tuple[Tensor, Any]


def loss(model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor | Score]]:
    """Return E_q[log q(x) + U(x) + C(x)] for x = flow(noise), by reparametrisation; batch = (noise (B, D), target).

    kl       KL(q‖p): the loss minus its lower bound, -log Z of the target
    kl_sd    standard deviation over samples of their contributions to it
    outside  fraction of samples in the wall, beyond |x_i| = 4
    """
    noise, target = batch
    x, log_q = model.generate(noise)
    per_sample = log_q + target(x)
    total, detached = per_sample.mean(), per_sample.detach()
    outside = (x.detach().abs() > target.edge).any(1).to(x.dtype).mean()
    sd = detached.std(correction=0) if model.training else Deviation.of(detached)
    return total, {"kl": total.detach() - target.floor, "kl_sd": sd, "outside": outside}


def figure_data(model: Any, data: Any, per_sample: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return densities, samples and particles of the flow, and the target's density."""
    target = data.test.distribution
    arrays = flow_figures.snapshots(model, ((-target.edge, target.edge),) * 2)
    grid = flow_figures.grid_points(arrays["x"], arrays["y"])
    density = torch.exp(-target(grid.reshape(-1, 2))) / target.normalizer
    return {**arrays, "target": density.reshape(grid.shape[:2])}


def sanity_check(model: Any, data: Any, scores: dict[str, Any], count: int) -> tuple[dict[str, float], str | None]:
    """Return the standard error of the KL of `count` samples; a KL three standard errors below 0 cannot be true."""
    error = scores["kl_sd"] / math.sqrt(count)
    if scores["kl"] >= -3 * error:
        return {"kl_se": error}, None
    return {"kl_se": error}, (
        f"KL(q‖p) is {scores['kl']:.4f} with a standard error of {error:.4f}, and cannot be below 0: the log-density "
        "of the flow is wrong. Score more accurately (eval.solver.rtol, eval.dtype=float64)."
    )
