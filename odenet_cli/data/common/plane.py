"""Generated points in the plane: endless batches for training, and fixed samples for scoring."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from odenet_cli.data.common.splits import EPOCH_BATCHES, BatchSpec, Data, TensorSplit, data_record, epoch_seed

VALID, TEST = 2_048, 10_000  # points for scoring


@dataclass(frozen=True, kw_only=True)
class PlaneSource:
    """A data set with batches `(x (B, 2), source)`: points, and the density from which they are drawn or the target."""

    shape: ClassVar = (2,)
    classes: ClassVar = 0
    task: ClassVar[str]

    def draw(self, n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
        """Draw n points, (n, 2), on the generator's device."""
        raise NotImplementedError

    def prepare(self) -> dict[str, Any]:
        return data_record(self, {"valid": VALID, "test": TEST})

    def load(self, spec: BatchSpec) -> Data:
        """Return the data; the points for scoring are the same for all seeds and devices."""

        def fixed(n: int, number: int) -> TensorSplit:
            generator = torch.Generator().manual_seed(epoch_seed(0, -number))
            x = self.draw(n, generator, spec.dtype).to(spec.device)
            return TensorSplit(rows=(x,), batch_size=spec.eval_batch_size, distribution=self)

        return Data(
            train=FreshBatches(source=self, spec=spec),
            valid=fixed(VALID, 1),
            test=fixed(TEST, 2),
            shape=self.shape,
            classes=self.classes,
            task=self.task,
            record=self.prepare(),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class FreshBatches:
    """Draw every batch anew on the device; an epoch is `EPOCH_BATCHES` of them."""

    source: PlaneSource
    spec: BatchSpec

    @property
    def size(self) -> int:
        return EPOCH_BATCHES * self.spec.batch_size

    def __len__(self) -> int:
        return EPOCH_BATCHES

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, PlaneSource]]:
        for batch in range(number * EPOCH_BATCHES + start, (number + 1) * EPOCH_BATCHES):
            generator = torch.Generator(self.spec.device).manual_seed(epoch_seed(self.spec.seed, batch))
            yield self.source.draw(self.spec.batch_size, generator, self.spec.dtype), self.source

    def unshuffled(self, batch_size: int) -> TensorSplit:
        """Return the first epoch as a fixed sample."""
        x = torch.cat([x for x, _ in self.epoch(0)])
        return TensorSplit(rows=(x,), batch_size=batch_size, distribution=self.source)
