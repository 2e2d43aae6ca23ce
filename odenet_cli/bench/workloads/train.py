"""Where a training step of the MNIST ODE-Net spends its time.

The step of `odenet train` is split into parts; each ends when the device has finished it. Only our solver is measured.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

import torch
import torch.nn.functional as F

from odenet_cli.bench import mnist
from odenet_cli.bench.measure import synchronize, time_run
from odenet_cli.bench.peers import odenet
from odenet_cli.bench.table import Table, number, power
from odenet_cli.bench.workloads import Settings
from odenet_cli.ode import Stats, tally

PARTS = ("data", "stem and head", "forward solve", "backward solve", "optimiser", "logging")
DATA, OUTER, FORWARD, BACKWARD, OPTIMISER, LOGGING = PARTS


class Clock:
    """Hold the milliseconds of each part, one number per step."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.since = device, 0.0
        self.times: dict[str, list[float]] = {part: [] for part in PARTS}

    def start(self) -> None:
        for part in PARTS:
            self.times[part].append(0.0)
        synchronize(self.device)
        self.since = time.perf_counter()

    def stop(self, part: str) -> None:
        """Assign the time since the last stop to `part`."""
        synchronize(self.device)
        now = time.perf_counter()
        self.times[part][-1] += 1e3 * (now - self.since)
        self.since = now

    def ms(self, part: str) -> float:
        """Return the time per step: the mean for the log, since one step writes for many, else the median."""
        return (mean if part == LOGGING else median)(self.times[part])


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Measure training steps; `repeats` is their number."""

    width: int = 64
    batch: int = 128
    tolerance: float = 1e-3
    repeats: int = 50
    gradients: tuple[str, ...] = (odenet.IMAGES, "replay", "backprop")

    def run(self, settings: Settings) -> list[Table]:
        # On a CPU compiling gains nothing for a convolutional field.
        compiled = odenet.compiled("replay", "backprop") if settings.device.type == "cuda" else []
        return [self.table(mode, settings) for mode in (*self.gradients, *compiled)]

    def table(self, mode: str, settings: Settings) -> Table:
        solver = odenet.adaptive(mode, method="dopri5", rtol=self.tolerance, atol=self.tolerance)
        network = mnist.network(self.width, solver).to(settings.device)
        batches, optimizer = mnist.batches(self.batch, settings.device), mnist.sgd(network)
        self.step(0, network, batches, optimizer, Clock(settings.device), settings)
        clock, steps = Clock(settings.device), settings.repeats or self.repeats
        parts = mnist.parts(network, *next(batches))
        costs, times = [], {name: list[float]() for name in parts}
        for i in range(1, steps + 1):
            settings.note(f"gradient={mode}: step {i} of {steps}")
            costs.append(self.step(i, network, batches, optimizer, clock, settings))
            for name, part in parts.items():
                times[name].append(1e3 * time_run(part, 1, settings.device))
        size = f"width {self.width}, batch {self.batch}, dopri5 at {power(self.tolerance)}"
        title = f"gradient={mode}: {size}, {steps} steps"
        return parts_table(title, clock, costs, mnist.Floor.from_times(times), logged=settings.log is not None)

    def step(
        self,
        number: int,
        network: Any,
        batches: Iterator[mnist.Batch],
        optimizer: torch.optim.Optimizer,
        clock: Clock,
        settings: Settings,
    ) -> Stats:
        """Make one step and return the cost of its solve. The backward pass is split at both ends of the solve."""
        clock.start()
        x, label = next(batches)
        clock.stop(DATA)
        with tally() as solves:
            features = network.stem(x)
            clock.stop(OUTER)
            z0 = features.detach().requires_grad_()
            z1 = network.flow(z0)
            clock.stop(FORWARD)
            end = z1.detach().requires_grad_()
            logits = network.head(end)
            loss = F.cross_entropy(logits, label)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            clock.stop(OUTER)
            z1.backward(end.grad)
            clock.stop(BACKWARD)
            features.backward(z0.grad)
            clock.stop(OUTER)
        optimizer.step()
        clock.stop(OPTIMISER)
        if settings.log:
            error = (logits.argmax(1) != label).float().mean()
            settings.log(number, {"loss": loss, "error": error}, solves)
        clock.stop(LOGGING)
        return sum(solves, start=Stats())


def parts_table(title: str, clock: Clock, costs: list[Stats], floor: mnist.Floor, logged: bool) -> Table:
    """Return a row for each part with its lower bound, and their sum."""
    cost = Stats(*(sum(values) / len(costs) for values in zip(*(vars(cost).values() for cost in costs))))
    floors = dict.fromkeys(PARTS, 0.0)
    floors |= {OUTER: floor.outer, FORWARD: floor.forward(cost), BACKWARD: floor.backward(cost)}
    times = {part: clock.ms(part) for part in PARTS if logged or part != LOGGING}
    rows = [(part, ms, floors[part]) for part, ms in times.items()]
    rows.append(("step", sum(times.values()), sum(floors.values())))
    cells = [[name, number(ms), number(low) if low else "", number(ms / low) if low else ""] for name, ms, low in rows]
    records: list[dict[str, Any]] = [{"part": name, "ms": ms, "floor_ms": low} for name, ms, low in rows]
    records.append({"part": "all", "times_ms": clock.times, "cost": vars(cost)})
    notes = [
        f"A step: {cost.nfe_forward:.1f} evaluations forward, {cost.nfe_backward:.1f} backward, "
        f"{cost.vjps:.1f} vector-Jacobian products.",
        f"Floor: {number(floor.field)} ms an evaluation and {number(floor.vjp)} ms a product, run on their own.",
    ]
    columns = ["part", "ms", "floor ms", "time / floor"]
    return Table(title=title, columns=columns, cells=cells, records=records, notes=notes)
