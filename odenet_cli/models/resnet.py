"""The residual network of table 1, and its controls: fewer blocks, none, or one set of weights for all."""

from __future__ import annotations

from torch import Tensor, nn

from odenet_cli.models.common.blocks import ResidualBlock, head
from odenet_cli.models.common.blocks import stem as downsample


class ResNet(nn.Module):
    """x (B, C, H, W) -> logits (B, classes): stem, `blocks` residual blocks, head.

    tied  all blocks share one set of weights
    """

    def __init__(self, shape: tuple[int, ...], classes: int, *, stem: str, width: int, blocks: int, tied: bool) -> None:
        super().__init__()
        if blocks < 0:
            raise ValueError(f"model.blocks={blocks} must be 0 or more.")
        self.stem = downsample(stem, shape[0], width)
        self.repeats = blocks if tied else 1
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(min(blocks, 1) if tied else blocks)))
        self.head = head(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(self.repeats):
            x = self.blocks(x)
        return self.head(x)


MODEL = ResNet
