"""Where a training step of the MNIST ODE-Net spends its time.

The step of `odenet train`, taken apart by hand; each part ends when the device has finished it. Only ours is measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import mean, median
from typing import Any

import torch
import torch.nn.functional as F

from odenet_cli.bench import mnist
from odenet_cli.bench.measure import synchronise, timed
from odenet_cli.bench.peers import odenet
from odenet_cli.bench.table import Table, number, power
from odenet_cli.bench.workloads import Settings
from odenet_cli.ode import Stats, tally

DATA, OUTER, FORWARD, BACKWARD, OPTIMISER, LOGGING = PARTS = (
    "data",
    "stem and head",
    "forward solve",
    "backward solve",
    "optimiser",
    "logging",
)


@dataclass
class Clock:
    """Milliseconds of each part, one number a step."""

    device: torch.device
    spent: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})
    since: float = 0.0

    def start(self) -> None:
        for part in PARTS:
            self.spent[part].append(0.0)
        synchronise(self.device)
        self.since = time.perf_counter()

    def stop(self, part: str) -> None:
        """What has passed since the last stop was spent on `part`."""
        synchronise(self.device)
        now = time.perf_counter()
        self.spent[part][-1] += 1e3 * (now - self.since)
        self.since = now

    def ms(self, part: str) -> float:
        """A step's share: of the log the mean, since one step writes for many, else the median."""
        return (mean if part == LOGGING else median)(self.spent[part])


@dataclass(frozen=True, kw_only=True)
class Workload:
    """`repeats` is a number of training steps."""

    width: int = 64
    batch: int = 128
    tolerance: float = 1e-3
    repeats: int = 50
    gradients: tuple[str, ...] = (odenet.IMAGES, "replay", "backprop")

    def run(self, settings: Settings) -> list[Table]:
        # On a CPU nothing is gained for a field of convolutions.
        faster = odenet.compiled("replay", "backprop") if settings.device.type == "cuda" else []
        return [self.table(mode, settings) for mode in (*self.gradients, *faster)]

    def table(self, mode: str, settings: Settings) -> Table:
        solve = odenet.made(mode, method="dopri5", rtol=self.tolerance, atol=self.tolerance)
        network = mnist.network(self.width, solve).to(settings.device)
        batches, optimizer = mnist.batches(self.batch, settings.device), mnist.sgd(network)
        self.step(0, network, batches, optimizer, Clock(settings.device), settings)
        clock, steps = Clock(settings.device), settings.repeats or self.repeats
        alone = mnist.parts(network, next(batches))
        costs, times = [], {name: list[float]() for name in alone}
        for i in range(1, steps + 1):
            costs.append(self.step(i, network, batches, optimizer, clock, settings))
            for name, part in alone.items():
                times[name].append(1e3 * timed(part, 1, settings.device))
        title = (
            f"gradient={mode}: width {self.width}, batch {self.batch}, dopri5 at {power(self.tolerance)}, {steps} steps"
        )
        return parted(title, clock, costs, mnist.Floor.measured(times), logged=settings.log is not None)

    def step(
        self,
        number: int,
        network: Any,
        batches: Iterator[mnist.Batch],
        optimizer: torch.optim.Optimizer,
        clock: Clock,
        settings: Settings,
    ) -> Stats:
        """One step, and the cost of its solve. The backward pass is cut at both ends of the solve."""
        clock.start()
        x, label = next(batches)
        clock.stop(DATA)
        with tally() as solves:
            features = network.stem(x)
            clock.stop(OUTER)
            start = features.detach().requires_grad_()
            flowed = network.flow(start)
            clock.stop(FORWARD)
            end = flowed.detach().requires_grad_()
            logits = network.head(end)
            loss = F.cross_entropy(logits, label)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            clock.stop(OUTER)
            flowed.backward(end.grad)
            clock.stop(BACKWARD)
            features.backward(start.grad)
            clock.stop(OUTER)
        optimizer.step()
        clock.stop(OPTIMISER)
        if settings.log:
            error = (logits.argmax(1) != label).float().mean()
            settings.log(number, {"loss": loss, "error": error}, solves)
        clock.stop(LOGGING)
        return sum(solves, start=Stats())


def parted(title: str, clock: Clock, costs: list[Stats], floor: mnist.Floor, logged: bool) -> Table:
    """A row a part beside the least it could take, and their sum."""
    cost = [sum(values) / len(costs) for values in zip(*(vars(one).values() for one in costs))]
    mean_cost = Stats(*cost)
    least = dict.fromkeys(PARTS, 0.0)
    least |= {OUTER: floor.outer, FORWARD: floor.forward(mean_cost), BACKWARD: floor.backward(mean_cost)}
    spent = {part: clock.ms(part) for part in PARTS if logged or part != LOGGING}
    total, bottom = sum(spent.values()), sum(least.values())
    rows = [*((part, ms, least[part]) for part, ms in spent.items()), ("step", total, bottom)]
    cells = [[name, number(ms), number(low) if low else "", number(ms / low) if low else ""] for name, ms, low in rows]
    records: list[dict[str, Any]] = [{"part": name, "ms": ms, "floor_ms": low} for name, ms, low in rows]
    records.append({"part": "all", "times_ms": clock.spent, "cost": vars(mean_cost)})
    notes = [
        f"A step: {mean_cost.nfe_forward:.1f} evaluations forward, {mean_cost.nfe_backward:.1f} backward, "
        f"{mean_cost.vjps:.1f} vector-Jacobian products.",
        f"Floor: {number(floor.field)} ms an evaluation and {number(floor.vjp)} ms a product, run on their own.",
    ]
    return Table(
        title=title, columns=["part", "ms", "floor ms", "time / floor"], cells=cells, records=records, notes=notes
    )
