"""Data that are drawn, not read: batches for training without end, and fixed samples to score with.

A batch is `(x (B, D), distribution)`: the numbers, and the density that they are drawn from or to be mapped to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from odenet_cli.data.common.images import BatchSpec, Data, epoch_seed

EPOCH = 100  # batches
VALID, TEST = 2_048, 10_000

Draw = Callable[[int, torch.Generator, torch.dtype], Tensor]
Batch = tuple[Tensor, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class FixedSample:
    """A fixed sample, x (N, D), dealt whole and in order."""

    x: Tensor
    distribution: Any
    batch_size: int

    @property
    def size(self) -> int:
        return len(self.x)

    def __len__(self) -> int:
        return -(-self.size // self.batch_size)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start, start + 1, …`; every epoch is the same."""
        for first in range(start * self.batch_size, self.size, self.batch_size):
            yield self.x[first : first + self.batch_size], self.distribution

    def unshuffled(self, batch_size: int) -> FixedSample:
        """The same sample in batches of another size."""
        return FixedSample(x=self.x, distribution=self.distribution, batch_size=batch_size)


@dataclass(frozen=True, kw_only=True, eq=False)
class Stream:
    """Fresh batches, drawn on the device; an epoch is 100 of them."""

    draw: Draw
    distribution: Any
    spec: BatchSpec

    @property
    def size(self) -> int:
        return EPOCH * self.spec.batch_size

    def __len__(self) -> int:
        return EPOCH

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Batches `start, start + 1, …` of epoch `number`: a pure function of (seed, number, position)."""
        if not 0 <= start <= EPOCH:
            raise ValueError(f"batch {start} of an epoch of {EPOCH}")
        for position in range(start, EPOCH):
            yield self._batch(number * EPOCH + position), self.distribution

    def unshuffled(self, batch_size: int) -> FixedSample:
        """The first epoch as a fixed sample."""
        return FixedSample(
            x=torch.cat([x for x, _ in self.epoch(0)]), distribution=self.distribution, batch_size=batch_size
        )

    def _batch(self, number: int) -> Tensor:
        generator = torch.Generator(self.spec.device).manual_seed(epoch_seed(self.spec.seed, number))
        return self.draw(self.spec.batch_size, generator, self.spec.dtype)


def record(name: str) -> dict[str, Any]:
    """What `prepare` returns for data that are drawn: there is nothing to find or to verify."""
    return {"used": name, "sha256": None, "root": None, "sizes": {"valid": VALID, "test": TEST}, "warning": None}


def generated(name: str, task: str, draw: Draw, distribution: Any, spec: BatchSpec) -> Data:
    """The data of a task in two dimensions; the samples to score with are the same for all seeds and devices."""

    def held(n: int, number: int) -> FixedSample:
        generator = torch.Generator().manual_seed(epoch_seed(0, -number))
        return FixedSample(
            x=draw(n, generator, spec.dtype).to(spec.device), distribution=distribution, batch_size=spec.eval_batch_size
        )

    return Data(
        train=Stream(draw=draw, distribution=distribution, spec=spec),
        valid=held(VALID, 1),
        test=held(TEST, 2),
        shape=(2,),
        classes=0,
        task=task,
        record=record(name),
    )
