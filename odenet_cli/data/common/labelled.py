"""Data sets of a user's own samples (x, y): images or vectors, with classes or numbers to predict.

Vectors and real-valued images are standardised over the training samples (images per channel); bytes of images are
fractions of 255; errors of a regression are in standard deviations of y. These units and the classes belong to the run
(`run.json` has them): other data that it is scored on are measured in them.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch

from odenet_cli.data.common.images import AUGMENTATIONS, ImageSplit
from odenet_cli.data.common.own import OwnData
from odenet_cli.data.common.samples import LAYOUTS
from odenet_cli.data.common.splits import EPOCH_BATCHES, BatchSpec, Data, split_rows, tensor_data
from odenet_cli.data.common.understood import BYTES, KEYS, Found, Understood, standardised, understand
from odenet_cli.errors import RequestError

TASKS = ("classify", "regression")


@dataclass(frozen=True)
class Target:
    """Hold the units of the K values of a regression: mean and standard deviation of each."""

    mean: tuple[float, ...]
    sd: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class LabelledSource(OwnData):
    """Hold the options shared by all such sets."""

    tasks: ClassVar[tuple[str, ...]] = TASKS
    UNITS: ClassVar[tuple[str, ...]] = KEYS
    LISTS: ClassVar[tuple[str, ...]] = ("augment",)
    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {"task": TASKS, "layout": LAYOUTS, "augment": AUGMENTATIONS}

    task: str | None = None
    layout: str | None = None
    augment: list[str] | None = None
    crop: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.crop is not None and self.crop < 1:
            raise RequestError(
                f"data.crop={self.crop} must be at least 1 pixel of padding; to turn it off, see data.augment."
            )
        if self.crop is not None and "crop" not in self.augmented:
            raise RequestError(f"data.crop={self.crop} needs data.augment=[crop].")

    def find(self) -> Found:
        """Read the samples; raise RequestError with all faults. Data for a run may lack y, to be predicted."""
        raise NotImplementedError

    def state(self) -> Hashable:
        """Return a value that changes if the data do."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.known["input"])

    @property
    def classes(self) -> int:
        return int(self.known["outputs"])

    @property
    def task_set(self) -> str:
        """The task determined by the data."""
        return str(self.known["task"])

    @property
    def known(self) -> dict[str, Any]:
        """The record that describes the task: the run's, or that of the data."""
        return self.run or self.prepare()

    def check_record(self, record: Mapping[str, Any]) -> None:
        numbers = [*record["input"], record["outputs"], *(x for key in KEYS[4:] for x in record[key])]
        if record["task"] not in TASKS or not all(type(x) in (int, float) for x in numbers):
            raise RequestError("run.json: task, shapes or units of its data are damaged. Restore what the run wrote.")

    def understand(self) -> Understood:
        """Return the samples as the given or a new run sees them; read only once while they are unchanged."""
        with torch.device("cpu"):  # even if a model is being built on the meta device
            return understand(self, self.state())

    def prepare(self) -> dict[str, Any]:
        return dict(self.understand().record)

    def load(self, spec: BatchSpec) -> Data:
        x, y, _, record, _ = self.understand()
        target = None
        if x.dtype != torch.uint8 or record["x_sd"] != BYTES:
            x = standardised(x, record["x_mean"], record["x_sd"])
        if record["task"] == "regression":
            y = standardised(y, record["y_mean"], record["y_sd"])
            target = Target(tuple(record["y_mean"]), tuple(record["y_sd"]))
        return tensor_data(
            split_rows((x, y), [*record["sizes"].values(), record.get("unlabelled", 0)]),
            spec,
            kind=partial(ImageSplit, dtype=spec.dtype),
            shape=tuple(record["input"]),
            classes=record["outputs"],
            task=record["task"],
            record=dict(record),
            distribution=target,
            crop=self.padding(x.shape[1:]),
            flip="flip" in self.augmented,
            least=EPOCH_BATCHES,
        )

    @property
    def augmented(self) -> tuple[str, ...]:
        return tuple(self.augment or ())

    def padding(self, shape: tuple[int, ...]) -> int:
        """Return the padding of the random crop for inputs of this shape, in pixels."""
        return 0 if "crop" not in self.augmented else self.crop or max(1, min(shape[1:]) // 8)
