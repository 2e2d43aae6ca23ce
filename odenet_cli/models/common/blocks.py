"""Parts that the networks of table 1 share: stems, residual blocks, the ODE field and its block, the head."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odenet_cli.ode import Solver

STEMS = ("conv", "res")


def group_norm(channels: int) -> nn.GroupNorm:
    """Return GroupNorm(min(32, C), C); where 32 does not divide C, the largest number of groups that does."""
    groups = next(g for g in range(min(32, channels), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


def stem(kind: str, channels: int, width: int) -> nn.Sequential:
    """Return the downsampling layers (B, C, 28, 28) -> (B, width, 6, 6) of kind `conv`, (B, width, 7, 7) of `res`."""
    if kind not in STEMS:
        raise ValueError(f"model.stem={kind} is not known. There are: {', '.join(STEMS)}.")
    if width < 1:
        raise ValueError(f"model.width={width} must be at least 1 channel.")
    first = nn.Conv2d(channels, width, 3)
    if kind == "res":
        return nn.Sequential(first, ResidualBlock(width, stride=2), ResidualBlock(width, stride=2))
    halve = [[group_norm(width), nn.ReLU(), nn.Conv2d(width, width, 4, stride=2, padding=1)] for _ in range(2)]
    return nn.Sequential(first, *halve[0], *halve[1])


def head(width: int, classes: int) -> nn.Sequential:
    """Return the classifier (B, width, H, W) -> logits (B, classes)."""
    return nn.Sequential(group_norm(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


class ResidualBlock(nn.Module):
    """Pre-activation residual block (He et al. 2016): x + conv(relu(norm(conv(relu(norm(x)))))).

    x (B, C, H, W) -> (B, C, H/stride, W/stride); with a stride the shortcut is a 1×1 convolution
    """

    def __init__(self, width: int, stride: int = 1) -> None:
        super().__init__()
        self.norm1, self.norm2 = group_norm(width), group_norm(width)
        self.conv1 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(width, width, 1, stride=stride, bias=False) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(h)
        return shortcut + self.conv2(F.relu(self.norm2(self.conv1(h))))


class TimeConv2d(nn.Module):
    """Convolve [t, x], the time a channel of its own, with 3×3 kernels: x (B, C, H, W) -> (B, C', H, W).

    The time channel is the same for all samples, so its convolution is a map of C' × H × W numbers that is added like
    a bias: the same sum as convolving the concatenation, without making it.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.time_weight = nn.Parameter(torch.empty(outputs, 1, 3, 3))
        self.bias = nn.Parameter(torch.empty(outputs))
        bound = 1 / math.sqrt(9 * (inputs + 1))  # torch's own rule for a convolution of inputs + 1 channels
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        time = F.conv2d(t.expand(1, 1, *x.shape[2:]), self.time_weight, self.bias, padding=1)
        return F.conv2d(x, self.weight, padding=1).add_(time)


class ConvField(nn.Module):
    """dx/dt = norm(conv([t, relu(norm(conv([t, relu(norm(x))])))])), the field of the MNIST ODE-Net."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = group_norm(width), group_norm(width), group_norm(width)
        self.conv1, self.conv2 = TimeConv2d(width, width), TimeConv2d(width, width)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        x = self.conv1(t, F.relu(self.norm1(x)))
        return self.norm3(self.conv2(t, F.relu(self.norm2(x))))


class ODEBlock(nn.Module):
    """Flow a feature map along a learned field from t = 0 to t = 1.

    x (B, *S) -> y (B, *S)
    """

    def __init__(self, field: nn.Module, solver: Solver) -> None:
        super().__init__()
        self.field, self.solver = field, solver
        # Not a buffer: the host reads the times, which on a GPU would wait for the queue.
        self.ts = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.solver(self.field, x, self.ts).y
