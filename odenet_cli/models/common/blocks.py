"""Shared parts of the networks of table 1: stems, residual blocks, the ODE field and its block, the head.

They are for images of any size, and for vectors, with dense layers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odenet_cli.models.common import check_choice, check_counts
from odenet_cli.ode import Solver

STEMS = ("conv", "res")
HALVED_FROM = 12  # pixels of the smaller side: MNIST's 26 are halved to 13 and 6, CIFAR's 30 to 15 and 7
UNPADDED_FROM = 5  # a smaller image would lose half of its pixels in the first convolution


def group_norm(channels: int) -> nn.GroupNorm:
    """Return GroupNorm(min(32, C), C), or with the largest number of groups that divides C."""
    groups = next(g for g in range(min(32, channels), 0, -1) if channels % g == 0)
    return nn.GroupNorm(groups, channels)


def stem(kind: str, shape: tuple[int, ...], width: int) -> nn.Sequential:
    """Return the layers between an input of `shape` and the state.

    An image (B, C, H, W) is mapped to (B, width, h, w): a 3×3 convolution, and halvings of kind `conv` or `res` as long
    as the smaller side has `HALVED_FROM` pixels. 28×28 becomes 6×6 (`conv`) or 7×7 (`res`). A vector (B, D) is mapped
    to (B, width) by one linear layer.
    """
    check_choice("stem", kind, STEMS)
    check_counts(width=width)
    if len(shape) == 1:
        return nn.Sequential(nn.Linear(shape[0], width))
    if math.prod(shape[1:]) == 1 and group_norm(width).num_groups == width:
        # A group of one channel then has a single number, its own mean: the output would be the same for all images.
        raise ValueError(
            f"model.width={width}: channels of 1×1 pixels cannot be normalised. Give the images as vectors (N, "
            f"{shape[0]}), or set model.width=64."
        )
    layers: list[nn.Module] = [nn.Conv2d(shape[0], width, 3, padding=_padding(shape))]
    for _ in range(_halvings(shape)):
        if kind == "res":
            layers.append(ResidualBlock(width, stride=2))
        else:
            layers += [group_norm(width), nn.ReLU(), nn.Conv2d(width, width, 4, stride=2, padding=1)]
    return nn.Sequential(*layers)


def describe_stem(kind: str, shape: tuple[int, ...], width: int) -> str:
    """Describe the stem of an input: "conv stem 1×28×28 → 64×6×6"."""
    if len(shape) == 1:
        return f"linear stem {shape[0]} → {width}"
    sides = [side - 2 + 2 * _padding(shape) for side in shape[1:]]
    for _ in range(_halvings(shape)):
        sides = [side // 2 if kind == "conv" else -(-side // 2) for side in sides]
    return f"{kind} stem {'×'.join(map(str, shape))} → {'×'.join(map(str, (width, *sides)))}"


def _padding(shape: tuple[int, ...]) -> int:
    return int(min(shape[1:]) < UNPADDED_FROM)


def _halvings(shape: tuple[int, ...]) -> int:
    """Return how often images of `shape` are halved."""
    # Starting from the size after the first 3×3 convolution.
    side, count = min(shape[1:]) - 2 + 2 * _padding(shape), 0
    while side >= HALVED_FROM:
        side, count = side // 2, count + 1
    return count


def head(width: int, outputs: int, dims: int = 3) -> nn.Sequential:
    """Return the last layers: feature maps (B, width, H, W), or vectors (B, width) if `dims` is 1 -> (B, outputs)."""
    if dims == 1:
        return nn.Sequential(nn.Linear(width, outputs))
    return nn.Sequential(group_norm(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, outputs))


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
        # With a stride the shortcut starts after the first activation, as in He et al.'s pre-activation network.
        h = F.relu(self.norm1(x))
        shortcut = x if self.shortcut is None else self.shortcut(h)
        return shortcut + self.conv2(F.relu(self.norm2(self.conv1(h))))


class DenseBlock(nn.Module):
    """x + W2 tanh(W1 x + b1) + b2 for vectors: one Euler step along a `DenseField`. x (B, C) -> (B, C)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.linear2(torch.tanh(self.linear1(x)))


class TimeConv2d(nn.Module):
    """Convolve [t, x], with time as an additional channel, with 3×3 kernels: x (B, C, H, W) -> (B, C', H, W).

    The time channel is the same for all samples, so its convolution is a map (C', H, W) that is added like a bias: this
    gives the same sum as convolving the concatenation, without creating it.
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
        # In place, since no one else holds the convolution's result and its backward pass does not read it.
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


class DenseField(nn.Module):
    """dx/dt = W2 [t, tanh(W1 [t, x] + b1)] + b2, the field of an ODE-Net on vectors: x (B, C) -> (B, C).

    It grows at most linearly, so no solution diverges in finite time.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(width + 1, width), nn.Linear(width + 1, width)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        x = torch.tanh(_with_time(self.linear1, t, x))
        return _with_time(self.linear2, t, x)


def _with_time(linear: nn.Linear, t: Tensor, x: Tensor) -> Tensor:
    """Return `linear([t, x])`: the term of the time is the same for all samples, and is added like a bias."""
    return torch.addmm(linear.bias + t * linear.weight[:, 0], x, linear.weight[:, 1:].T)


class ODEBlock(nn.Module):
    """Flow a feature map along a learned field from t = 0 to t = 1.

    x (B, *S) -> y (B, *S)
    """

    def __init__(self, field: nn.Module, solver: Solver) -> None:
        super().__init__()
        self.field, self.solver = field, solver
        # Not a buffer, since the host reads the times, and on a GPU would wait for the queue.
        self.ts = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.solver(self.field, x, self.ts).y
