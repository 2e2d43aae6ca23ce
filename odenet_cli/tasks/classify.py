"""Classification: mean cross-entropy, and the share of wrong answers."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from odenet_cli.tasks.common.scores import PerSample, Score

NEEDS = ("forward",)
Batch = tuple[Tensor, Tensor]


def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor | Score]]:
    """Return the mean cross-entropy of `batch = (x (B, *S), label (B,))`, and the share of wrong answers beside it.

    Outside of training also the `predicted` class and the `label` of every sample.
    """
    x, label = batch
    logits = model(x)
    predicted = logits.argmax(1)
    extra: dict[str, Tensor | Score] = {"error": (predicted != label).float().mean()}
    if not model.training:
        extra |= {"predicted": PerSample((predicted,)), "label": PerSample((label,))}
    return F.cross_entropy(logits, label), extra
