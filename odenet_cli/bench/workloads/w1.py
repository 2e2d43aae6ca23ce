"""The training step of the MNIST ODE-Net: forward, backward and optimiser, at the start and after 90 steps.

Peers solve the field as their users write it, with the time concatenated as a channel of every convolution; the weights
are the same. In some rows torchdiffeq solves our field, which shows the field's own share of the speed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odenet_cli.bench import mnist
from odenet_cli.bench.peers import OURS, Solve, odenet
from odenet_cli.bench.table import number, power
from odenet_cli.bench.work import Work, training
from odenet_cli.bench.workload import Floor, GradientWorkload, Modes, Problem
from odenet_cli.ode import Adaptive

OUR_FIELD = ", our field"


def gradient(network: nn.Module) -> Tensor:
    """Return the gradient in an order independent of the form of the field."""
    parts = []
    for module in network.modules():
        grads = {name: p.grad for name, p in module.named_parameters(recurse=False)}
        if "time_weight" in grads:
            time, rest = grads.pop("time_weight"), grads.pop("weight")
            parts.append(torch.cat((time, rest), 1).flatten())  # type: ignore[arg-type]
        parts += [grad.flatten() for grad in grads.values() if grad is not None]
    return torch.cat(parts)


@dataclass(frozen=True, kw_only=True)
class Workload(GradientWorkload):
    """Train a network of `width` channels; the second table is after `trained` steps.

    The reference uses bosh3: at the kinks of ReLUs a method of low order has smaller errors than one of high order with
    as many evaluations. A tolerance of 1e-3 is coarse for the first gradients, especially where it is absolute in the
    backward solve.
    """

    fine_method = "bosh3"

    width: int = 64
    batch: int = 128
    trained: int = 90
    tolerance: float = 1e-3
    fine: float = 1e-6
    repeats: int = 7
    bound: float = 0.5

    def tables(self, device: torch.device) -> Iterator[tuple[str, Modes, Problem]]:
        network = mnist.network(self.width, Adaptive(method="dopri5", rtol=self.tolerance, atol=self.tolerance))
        network = network.to(device)
        *before, batch = islice(mnist.batches(self.batch, device), self.trained + 1)
        size = f"width {self.width}, batch {self.batch}, dopri5 at {power(self.tolerance)}"
        yield f"MNIST ODE-Net at the start: {size}", self.modes(), (network, *batch)
        optimizer = mnist.sgd(network)
        for x, label in before:
            loss = F.cross_entropy(network(x), label)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        yield f"MNIST ODE-Net after {self.trained} steps: {size}", self.modes(), (network, *batch)

    def modes(self) -> Modes:
        ours = ["replay", "backprop", "adjoint", odenet.IMAGES, "reversible", *odenet.compiled("replay", "backprop")]
        return [
            ("torchdiffeq", ["odeint_adjoint", "odeint"]),
            ("torchode", ["AutoDiffAdjoint", "AutoDiffAdjoint one instance", "JointBacksolveAdjoint"]),
            ("torchdyn", ["adjoint", "autograd"]),
            (OURS, ours),
            ("torchdiffeq", [f"odeint_adjoint{OUR_FIELD}", f"odeint{OUR_FIELD}"]),
        ]

    def beside(self, problem: Problem) -> Mapping[str, Work]:
        return mnist.parts(*problem)

    def explain(self, times: dict[str, list[float]]) -> tuple[list[str], Floor]:
        floor = mnist.Floor.from_times(times)
        notes = [
            "Error: the larger of the relative distances of loss and gradient from those of bosh3 at "
            f"{power(self.fine)} in float64.",
            f"Floor: stem and head, {number(floor.outer)} ms, and every evaluation of the field, {number(floor.field)} "
            f"ms, and vector-Jacobian product, {number(floor.vjp)} ms, run on their own.",
        ]
        return notes, lambda row: floor.step(row.cost) if row.cost and row.subject.startswith(OURS) else None

    def field(self, module: Any, library: str, mode: str) -> nn.Module:
        if library != OURS and not mode.endswith(OUR_FIELD):
            module.flow.field = mnist.ConcatField(module.flow.field)
        return module.flow.field

    def loss(self, module: Any, solve: Solve, library: str, *tensors: Tensor) -> Tensor:
        x, label = tensors
        return F.cross_entropy(module.head(solve(module.stem(x))), label)

    def training(self, module: Any, loss: Callable[[], Tensor]) -> Work:
        return training(module, loss, mnist.sgd(module), gradient)
