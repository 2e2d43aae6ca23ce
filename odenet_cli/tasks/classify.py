"""Classification: mean cross-entropy, and the share of wrong answers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odenet_cli.tasks.common.scores import PerSample, Score

NEEDS = ("forward",)
SHOWN = 10  # images of the figure
Batch = tuple[Tensor, Tensor]


def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor | Score]]:
    """Return the mean cross-entropy of `batch = (x (B, *S), label (B,))`, and the error rate.

    Outside of training also the `predicted` class and the `label` of every sample.
    """
    x, label = batch
    logits = model(x)
    predicted = logits.argmax(1)
    extra: dict[str, Tensor | Score] = {"error": (predicted != label).float().mean()}
    if not model.training:
        extra |= {"predicted": PerSample((predicted,)), "label": PerSample((label,))}
    return F.cross_entropy(logits, label), extra


def figure_data(model: nn.Module, data: Any, per_sample: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the first misclassified test images, their number and that of all samples, and their classes.

    Images are (n, H, W), or (n, H, W, 3) with three channels; there are none for vectors.
    """
    predicted, label = per_sample["predicted"], per_sample["label"]
    wrong = (predicted != label).nonzero().flatten()
    few, x = wrong[:SHOWN], data.test.rows[0]
    images = x[few.to(x.device)] if x.dim() == 4 else x[:0]
    images = images.movedim(1, -1) if images.shape[1] == 3 else images[:, 0] if x.dim() == 4 else images
    return {
        "images": images,
        "predicted": predicted[few],
        "label": label[few],
        "misread": torch.tensor(len(wrong)),
        "samples": torch.tensor(len(label)),
    }
