"""Density matching: a flow learns to sample from a density known up to its constant (figure 4 of the paper)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from odenet_cli.tasks.common import flow_figures
from odenet_cli.tasks.common.scores import Deviation, Score

NEEDS = ("generate",)
Batch = tuple[Tensor, Any]


def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor | Score]]:
    """E_q[log q(x) + U(x) + C(x)] for x = the flow of `batch = (noise (B, D), target)`, by reparametrisation.

    kl       KL(q‖p): the loss above its floor, -log Z of the target
    kl_sd    standard deviation of a sample's share in it
    outside  share of samples that have run into the wall, beyond |x_i| = 4
    """
    noise, target = batch
    x, log_q = model.generate(noise)  # type: ignore[operator]
    each = log_q + target(x)
    total = each.mean()
    seen = each.detach()
    outside = (x.detach().abs() > target.edge).any(1).to(x.dtype).mean()
    spread = seen.std(correction=0) if model.training else Deviation.of(seen)
    return total, {"kl": total.detach() - target.floor, "kl_sd": spread, "outside": outside}


def figure_data(model: nn.Module, data: Any) -> dict[str, Tensor]:
    """Densities, samples and particles of the flow, and the target's density."""
    target = data.test.distribution
    drawn = flow_figures.snapshots(model, ((-target.edge, target.edge),) * 2)
    density = torch.exp(-target(flow_figures.points(drawn["x"], drawn["y"]).reshape(-1, 2))) / target.z
    return {**drawn, "target": density.reshape(len(drawn["y"]), -1)}


def sanity_check(
    model: nn.Module, data: Any, scores: dict[str, Any], count: int
) -> tuple[dict[str, float], str | None]:
    """The standard error of the KL of `count` samples; one that lies three of them below zero cannot be true."""
    error = scores["kl_sd"] / math.sqrt(count)
    if scores["kl"] >= -3 * error:
        return {"kl_se": error}, None
    return {"kl_se": error}, (
        f"KL(q‖p) is {scores['kl']:.4f} with a standard error of {error:.4f}, and cannot be below 0: the log-density "
        "of the flow is wrong. Score more accurately (eval.solver.rtol, eval.dtype=float64)."
    )
