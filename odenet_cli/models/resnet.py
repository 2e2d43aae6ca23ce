"""The residual network of table 1, and its controls: fewer blocks, none, or one set of weights for all."""

from __future__ import annotations

from torch import Tensor, nn

from odenet_cli.models.common import blocks as parts


class ResNet(nn.Module):
    """x (B, C, H, W) or (B, D) -> logits, or values, (B, classes): stem, `blocks` residual blocks, head.

    tied  all blocks share one set of weights
    """

    def __init__(self, shape: tuple[int, ...], classes: int, *, stem: str, width: int, blocks: int, tied: bool) -> None:
        super().__init__()
        if blocks < 0:
            raise ValueError(f"model.blocks={blocks} must be 0 or more.")
        self.about = parts.describe_stem(stem, shape, width)
        self.stem = parts.stem(stem, shape, width)
        self.repeats = blocks if tied else 1
        block = parts.DenseBlock if len(shape) == 1 else parts.ResidualBlock
        self.blocks = nn.Sequential(*(block(width) for _ in range(min(blocks, 1) if tied else blocks)))
        self.head = parts.head(width, classes, len(shape))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        # Tied: the same block repeatedly, as an ODE block evaluates its field.
        for _ in range(self.repeats):
            x = self.blocks(x)
        return self.head(x)


MODEL = ResNet
