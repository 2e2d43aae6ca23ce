"""Classification."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

NEEDS = ("forward",)
Batch = tuple[Tensor, Tensor]


def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean cross-entropy of `batch = (x (B, *S), label (B,))`, and the share of wrong answers beside it."""
    x, label = batch
    logits = model(x)
    return F.cross_entropy(logits, label), {"error": (logits.argmax(1) != label).float().mean()}
