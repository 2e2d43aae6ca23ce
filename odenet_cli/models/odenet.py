"""The ODE network of table 1 (Chen et al. 2018): one field, solved from t = 0 to t = 1, instead of residual blocks.

With the adjoint gradient it is the paper's ODE-Net, with backpropagation its RK-Net.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odenet_cli.models.common import blocks
from odenet_cli.models.common.own_field import check_no_options, own_field
from odenet_cli.ode import Solver


class ODENet(nn.Module):
    """x (B, C, H, W) or (B, D) -> logits, or values, (B, classes): stem, ODE block, head.

    The field is convolutional for images and dense for vectors.

    augment            number of channels of zeros appended to the state (Dupont et al. 2019)
    field, field_args  a user's own vector field, and its options
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        solver: Solver,
        *,
        stem: str,
        width: int,
        augment: int,
        field: str | None = None,
        field_args: Any = None,
    ) -> None:
        super().__init__()
        if augment < 0:
            raise ValueError(f"model.augment={augment} must be 0 or more channels.")
        self.about = blocks.describe_stem(stem, shape, width)
        self.stem = blocks.stem(stem, shape, width)
        self.augment = augment
        self.flow = blocks.ODEBlock(self._field(shape, width + augment, field, field_args), solver)
        self.head = blocks.head(width + augment, classes, len(shape))

    def _field(self, shape: tuple[int, ...], channels: int, own: str | None, options: Any) -> nn.Module:
        """Return the field of the block: the user's `own`, for states as the stem returns them, or the paper's."""
        if own is None:
            check_no_options(options)
            return (blocks.DenseField if len(shape) == 1 else blocks.ConvField)(channels)
        # Call the stem itself, so that no rule about its sizes is written twice.
        with torch.no_grad():
            size = self.stem(torch.zeros(1, *shape)).shape[2:]
        return own_field(own, options, (channels, *size))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        # With further channels paths may cross in the first ones, which paths of an ODE cannot (Dupont et al.).
        if self.augment:
            x = F.pad(x, (0, 0) * (x.dim() - 2) + (0, self.augment))
        return self.head(self.flow(x))


MODEL = ODENet
