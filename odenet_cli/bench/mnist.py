"""The MNIST ODE-Net measured by `w1` and `train`: fixed initial weights, batches of digits, and its separate parts."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odenet_cli import data, models
from odenet_cli.bench.work import Work, training
from odenet_cli.ode import Solver, Stats

Batch = tuple[Any, ...]


def network(width: int, solver: Solver) -> Any:
    """Return the model `odenet` with the stem of three convolutions, always with the same weights."""
    torch.manual_seed(0)
    options = {"stem": "conv", "width": width, "augment": 0}
    return models.model("odenet", options, shape=(1, 28, 28), classes=10, solver=solver)


def batches(size: int, device: torch.device) -> Iterator[Batch]:
    """Return training batches of digits, epoch after epoch."""
    spec: dict[str, Any] = {
        "batch_size": size,
        "eval_batch_size": size,
        "seed": 0,
        "device": device,
        "dtype": torch.float32,
    }
    digits = data.load("digits", {}, **spec).train
    return (batch for epoch in count() for batch in digits.epoch(epoch))


def sgd(network: nn.Module) -> torch.optim.Optimizer:
    """Return SGD at learning rate 0.1 and momentum 0.9, as in the paper's experiment."""
    return torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)


class ConcatField(nn.Module):
    """A ConvField whose convolutions act on the concatenation of time and state."""

    def __init__(self, field: Any) -> None:
        super().__init__()
        self.norm1, self.norm2, self.norm3 = (copy.deepcopy(norm) for norm in (field.norm1, field.norm2, field.norm3))
        self.conv1, self.conv2 = plain_conv(field.conv1), plain_conv(field.conv2)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        time = torch.ones_like(x[:, :1]) * t.reshape(-1, 1, 1, 1)
        x = self.conv1(torch.cat((time, F.relu(self.norm1(x))), 1))
        return self.norm3(self.conv2(torch.cat((time, F.relu(self.norm2(x))), 1)))


def plain_conv(ours: Any) -> nn.Conv2d:
    """Return a convolution of [t, x] with the weights of a TimeConv2d."""
    weight = torch.cat((ours.time_weight, ours.weight), 1).detach()
    conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1, device=weight.device, dtype=weight.dtype)
    conv.load_state_dict({"weight": weight, "bias": ours.bias.detach()})
    return conv


def parts(network: Any, x: Tensor, label: Tensor) -> dict[str, Work]:
    """Return as work: stem and head forward and backward, one evaluation of the field, and one with its VJP."""
    network = copy.deepcopy(network)
    stem, field, head = network.stem, network.flow.field, network.head
    features = stem(x).detach()
    t, cotangent = features.new_tensor(0.5), torch.randn_like(features)
    inputs = [features.clone().requires_grad_(), *field.parameters()]
    return {
        "outer": training(nn.ModuleList((stem, head)), lambda: F.cross_entropy(head(stem(x)), label)),
        "field": Work(forward=torch.no_grad()(lambda: field(t, features))),
        "vjp": Work(forward=lambda: torch.autograd.grad(field(t, inputs[0]), inputs, cotangent)),
    }


@dataclass(frozen=True)
class Floor:
    """A lower bound on the time of a step, in milliseconds: its parts, measured separately, times their numbers.

    outer  stem and head, forward and backward      field  one evaluation      vjp  one vector-Jacobian product
    """

    outer: float
    field: float
    vjp: float

    @classmethod
    def from_times(cls, times: dict[str, list[float]]) -> Floor:
        outer, field, with_vjp = (median(times[name]) for name in ("outer", "field", "vjp"))
        return cls(outer, field, with_vjp - field)

    def forward(self, cost: Stats) -> float:
        return cost.nfe_forward * self.field

    def backward(self, cost: Stats) -> float:
        return cost.nfe_backward * self.field + cost.vjps * self.vjp

    def step(self, cost: Stats) -> float:
        return self.outer + self.forward(cost) + self.backward(cost)
