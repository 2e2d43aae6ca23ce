"""Data sets generated completely from their own seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from odenet_cli.data.common.checks import check_least, memory_lacking
from odenet_cli.data.common.splits import BatchSpec, Data, data_record, epoch_seed, sha256_of, split_rows, tensor_data
from odenet_cli.errors import RequestError


@dataclass(frozen=True, kw_only=True)
class Synthetic:
    """Hold the options of a data set with `count` training samples, and further held-out samples.

    Subclasses define `draw()`, all samples in the order of the splits, and name a sample in `unit`.
    """

    unit: ClassVar[str]
    shape: ClassVar[tuple[int, ...]]
    task: ClassVar[str]
    classes: ClassVar = 0

    count: int
    validation: int
    test: int
    seed: int = 0

    def __post_init__(self) -> None:
        for key, least in (("count", 1), ("validation", 0), ("test", 1)):
            check_least(key, getattr(self, key), least, f" {self.unit}")
        if self.seed < 0:
            raise RequestError(f"data.seed={self.seed} must be 0 or more.")
        if lacking := memory_lacking(sum(self.sizes.values()) * self.bytes_per_sample):
            key = max(("count", "validation", "test"), key=lambda key: getattr(self, key))
            raise RequestError(f"data.{key}={getattr(self, key)}: this many {self.unit} {lacking}.")

    @property
    def bytes_per_sample(self) -> float:
        """Bytes needed per sample while it is drawn."""
        raise NotImplementedError

    @property
    def sizes(self) -> dict[str, int]:
        return {"train": self.count, "valid": self.validation, "test": self.test}

    def draw(self, count: int, generator: torch.Generator) -> Any:
        """Draw `count` samples, rows of a batch, on the CPU, so that they are the same for every device."""
        raise NotImplementedError

    def rows(self) -> Any:
        """Return all samples."""
        return self.draw(sum(self.sizes.values()), torch.Generator().manual_seed(epoch_seed(self.seed, 0)))

    def prepare(self) -> dict[str, Any]:
        return self._record(self.rows())

    def load(self, spec: BatchSpec) -> Data:
        rows = self.rows()
        splits = split_rows(rows, list(self.sizes.values()))
        return tensor_data(splits, spec, shape=self.shape, task=self.task, record=self._record(rows))

    def _record(self, rows: Any) -> dict[str, Any]:
        return data_record(self, self.sizes, sha256=sha256_of(rows))
