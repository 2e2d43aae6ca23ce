"""Data sets of a user's own samples (x, y): images or vectors, classes or numbers to predict.

Inputs and values are measured in units: vectors and real-valued images have mean 0 and standard deviation 1 over the
training samples (images per channel), bytes of images are fractions of 255, and so are errors of a regression in
standard deviations of y. The units belong to the run (`run.json` has them), as do the classes: other data that it is
scored on are measured by them.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from odenet_cli.data.common.images import ImageSplit, check_augmentations
from odenet_cli.data.common.samples import LAYOUTS
from odenet_cli.data.common.splits import EPOCH_BATCHES, BatchSpec, Data
from odenet_cli.data.common.understood import BYTES, Found, Understood, standardised, understand
from odenet_cli.errors import RequestError

TASKS = ("classify", "regression")
KEYS = ("task", "input", "outputs", "classes", "x_mean", "x_sd", "y_mean", "y_sd")  # of the record


@dataclass(frozen=True)
class Target:
    """Hold what the values of a regression are measured in: mean and standard deviation of each of K."""

    mean: tuple[float, ...]
    sd: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class LabelledSource:
    """Hold the options that all such sets share.

    task              classify or regression; None: as y has it
    layout            of images with four axes: chw or hwc; None: as the number of channels tells
    augment           crop, flip: random crops and mirror images of the training images
    crop              padding of the random crop in pixels; None: an eighth of the smaller side
    validation, test  shares of the training samples held out where the data have no such split
    """

    tasks: ClassVar[tuple[str, ...]] = TASKS
    UNITS: ClassVar = KEYS
    used: ClassVar[str]

    task: str | None = None
    layout: str | None = None
    augment: list[str] | None = None
    crop: int | None = None
    validation: float = 0.1
    test: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "augment", tuple(self.augment or ()))  # hashable, so that data are read once
        for key, value, choices in (
            ("task", self.task, TASKS),
            ("layout", self.layout, LAYOUTS),
        ):
            if value not in (None, *choices):
                raise RequestError(f"data.{key}={value} is not known. There are: {', '.join(choices)}.")
        check_augmentations(self.augment or ())
        if self.crop is not None and self.crop < 1:
            raise RequestError(f"data.crop={self.crop} must be at least 1 pixel of padding; for none see data.augment.")
        if self.crop is not None and "crop" not in (self.augment or ()):
            raise RequestError(f"data.crop={self.crop} needs data.augment=[crop].")
        for key, least in (("validation", 0.0), ("test", 1e-9)):
            if not least <= getattr(self, key) <= 0.9:
                raise RequestError(f"data.{key}={getattr(self, key)} is out of range; it is a share, up to 0.9.")

    def find(self, by_run: bool) -> Found:
        """Read the samples; raise RequestError with all faults.

        by_run  they are for a trained network: x alone will do, to be predicted
        """
        raise NotImplementedError

    def state(self) -> Hashable:
        """Return what changes where the data do."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.prepare()["input"])

    @property
    def classes(self) -> int:
        return int(self.prepare()["outputs"])

    @property
    def task_set(self) -> str:
        """The task that the data set."""
        return str(self.prepare()["task"])

    def prepare(self) -> dict[str, Any]:
        return dict(self.understand(None).record)

    def load(self, spec: BatchSpec) -> Data:
        return self.load_as(spec, None)

    def in_units_of(self, record: Mapping[str, Any]) -> LabelledInUnits:
        """Return these data with the classes and in the units of the run that `record` is of."""
        return LabelledInUnits(self, {key: record[key] for key in KEYS})

    def understand(self, run: Mapping[str, Any] | None) -> Understood:
        """Return the samples as the run `run` sees them, or a new one; read once for as long as they are unchanged."""
        with torch.device("cpu"):  # also where a model is being built on the meta device
            return understand(self, self.state(), None if run is None else json.dumps(run))

    def load_as(self, spec: BatchSpec, run: Mapping[str, Any] | None) -> Data:
        """Return the data on the device."""
        x, y, _, record = self.understand(run)
        units = {**record, **(run or {})}
        regression = units["task"] == "regression"
        if x.dtype != torch.uint8 or units["x_sd"] != BYTES:
            x = standardised(x, units["x_mean"], units["x_sd"]).to(spec.dtype)
        if regression:
            y = standardised(y, units["y_mean"], units["y_sd"]).to(spec.dtype)
        ends = [record["sizes"]["train"], record["sizes"]["train"] + record["sizes"]["valid"]]
        train, valid, test = zip(*(part.to(spec.device).tensor_split(ends) for part in (x, y)))
        target = Target(tuple(units["y_mean"]), tuple(units["y_sd"])) if regression else None
        how: dict[str, Any] = {"dtype": spec.dtype, "distribution": target}
        return Data(
            train=ImageSplit(
                rows=train,
                batch_size=max(1, min(spec.batch_size, len(train[0]))),
                train=True,
                seed=spec.seed,
                crop=self.padding(x.shape[1:]),
                flip="flip" in self.augmented,
                least=EPOCH_BATCHES,
                **how,
            ),
            valid=ImageSplit(rows=valid, batch_size=spec.eval_batch_size, **how),
            test=ImageSplit(rows=test, batch_size=spec.eval_batch_size, **how),
            shape=tuple(units["input"]),
            classes=units["outputs"],
            task=units["task"],
            record=dict(record),
        )

    @property
    def augmented(self) -> tuple[str, ...]:
        return tuple(self.augment or ())

    def padding(self, shape: tuple[int, ...]) -> int:
        """Return the padding of the random crop for inputs of this shape, in pixels."""
        return 0 if "crop" not in self.augmented else self.crop or max(1, min(shape[1:]) // 8)


@dataclass(frozen=True)
class LabelledInUnits:
    """Hold samples as the run sees them that was trained in the units, and on the classes, of this record."""

    source: LabelledSource
    run: dict[str, Any]

    def __post_init__(self) -> None:
        """Raise RequestError for what no run writes into its record."""
        run = self.run
        numbers = [*run["input"], run["outputs"], *(x for key in KEYS[4:] for x in run[key])]
        if run["task"] not in TASKS or not all(type(x) in (int, float) for x in numbers):
            raise RequestError("run.json: task, shapes or units of its data are damaged. Put back what was there.")

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.run["input"])

    @property
    def classes(self) -> int:
        return int(self.run["outputs"])

    @property
    def task_set(self) -> str:
        return str(self.run["task"])

    def load(self, spec: BatchSpec) -> Data:
        return self.source.load_as(spec, self.run)

    def samples(self) -> tuple[Tensor, Tensor]:
        """Return where each sample of the splits, one behind the other, stands in the data, (N,), and y as it is."""
        understood = self.source.understand(self.run)
        return understood.row, understood.y
