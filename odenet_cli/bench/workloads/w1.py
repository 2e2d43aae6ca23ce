"""The training step of the MNIST ODE-Net: forward, backward and optimiser, at the start and after 90 steps.

Peers solve the field as their users write it, with the time concatenated as a channel of every convolution; the weights
are the same. Some rows have torchdiffeq solve our field, so that the field's own share of the speed is seen.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from odenet_cli.bench import mnist
from odenet_cli.bench.measure import Row, compare, ran
from odenet_cli.bench.peers import OURS, odenet, solver
from odenet_cli.bench.subject import Counter, Subject, Training, counted, flat_gradient
from odenet_cli.bench.table import Table, number, power, speed_table
from odenet_cli.bench.workloads import Settings
from odenet_cli.ode import Adaptive


class Step(Training):
    """A training step. Gradients are compared in an order that does not depend on how the field is written."""

    def outcome(self, made: Tensor) -> dict[str, Tensor]:
        parts = []
        for module in self.network.modules():
            own = dict(module.named_parameters(recurse=False))
            time = own.pop("time_weight", None)
            if time is not None:
                parts.append(torch.cat([w.grad for w in (time, own.pop("weight"))], 1).flatten())  # type: ignore[misc]
            parts += [flat_gradient([parameter]) for parameter in own.values()]
        return {"loss": made.detach(), "gradient": torch.cat(parts)}


@dataclass(frozen=True, kw_only=True)
class Workload:
    """`bound` is the relative distance of loss and gradient from the exact ones, at `fine`, that is an agreement.

    A tolerance of 1e-3 is coarse for the first gradients, most of all where it is absolute in the backward solve.
    """

    width: int = 64
    batch: int = 128
    trained: int = 90
    tolerance: float = 1e-3
    fine: float = 1e-6
    repeats: int = 7
    bound: float = 0.5

    def run(self, settings: Settings) -> list[Table]:
        solve = Adaptive(method="dopri5", rtol=self.tolerance, atol=self.tolerance)
        network = mnist.network(self.width, solve).to(settings.device)
        *before, batch = islice(mnist.batches(self.batch, settings.device), self.trained + 1)
        start = self.table("at the start", network, batch, settings)
        optimizer = mnist.sgd(network)
        for x, label in before:
            loss = F.cross_entropy(network(x), label)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        return [start, self.table(f"after {self.trained} steps", network, batch, settings)]

    def table(self, when: str, network: Any, batch: mnist.Batch, settings: Settings) -> Table:
        rows, times = compare(
            self.subjects(settings, network, batch),
            self.exact(network, batch),
            self.bound,
            settings.repeats or self.repeats,
            settings.device,
            mnist.parts(network, batch),
        )
        floor = mnist.Floor.measured(times)

        def least(row: Row) -> float | None:
            return floor.step(row.cost) if row.cost and row.subject.startswith(OURS) else None

        title = f"MNIST ODE-Net {when}: width {self.width}, batch {self.batch}, dopri5 at {power(self.tolerance)}"
        notes = [
            "Error: the larger of the relative distances of loss and gradient from those of bosh3 at "
            f"{power(self.fine)} in float64.",
            f"Floor: stem and head, {number(floor.outer)} ms, and every evaluation of the field, {number(floor.field)} "
            f"ms, and vector-Jacobian product, {number(floor.vjp)} ms, run on their own.",
        ]
        return speed_table(title, rows, notes, least)

    def exact(self, network: Any, batch: mnist.Batch) -> dict[str, Tensor]:
        """By bosh3: at the kinks of ReLUs a low order errs less than a high one of as many evaluations."""
        fine, network = (batch[0].double(), batch[1]), copy.deepcopy(network).double()
        return ran(self.work(OURS, "replay", network, fine, method="bosh3", tolerance=self.fine))

    def subjects(self, settings: Settings, network: Any, batch: mnist.Batch) -> list[Subject]:
        modes = {
            "torchdiffeq": ["odeint_adjoint", "odeint"],
            "torchode": ["AutoDiffAdjoint", "AutoDiffAdjoint one instance", "JointBacksolveAdjoint"],
            "torchdyn": ["adjoint", "autograd"],
            OURS: ["replay", "backprop", "adjoint", odenet.IMAGES, "reversible"],
        }
        modes[OURS] += odenet.compiled("replay", "backprop")
        present = [library for library in modes if library in (*settings.peers, OURS)]
        chosen = [(library, mode, "") for library in present for mode in modes[library]]
        if "torchdiffeq" in present:
            chosen += [("torchdiffeq", mode, "our field") for mode in modes["torchdiffeq"]]

        def subject(library: str, mode: str, note: str) -> Subject:
            ours = library == OURS or bool(note)
            return Subject(
                library=library,
                mode=mode,
                note=note,
                work=lambda m, c: self.work(library, m, network, batch, c, ours=ours),
            )

        return [subject(*one) for one in chosen]

    def work(
        self,
        library: str,
        mode: str,
        network: Any,
        batch: mnist.Batch,
        counter: Counter | None = None,
        ours: bool = True,
        method: str = "dopri5",
        tolerance: float | None = None,
    ) -> Step:
        tolerance = tolerance or self.tolerance
        stem, field, head = copy.deepcopy([network.stem, network.flow.field, network.head])
        field = field if ours else mnist.ConcatField(field)
        ts = [0.0, 1.0]
        solve = solver(library, mode, counted(field, counter), ts, method=method, rtol=tolerance, atol=tolerance)
        whole = nn.ModuleList((stem, field, head))

        def loss() -> Tensor:
            return F.cross_entropy(head(solve(stem(batch[0]))), batch[1])

        return Step(whole, loss, mnist.sgd(whole))
