"""Data sets of a user's own samples (x, y): images or vectors, classes or numbers to predict.

Inputs and values are measured in units: vectors and real-valued images have mean 0 and standard deviation 1 over the
training samples (images per channel), bytes of images are fractions of 255, and so are errors of a regression in
standard deviations of y. The units belong to the run (`run.json` has them), as do the classes: other data that it is
scored on are measured by them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from odenet_cli.data.common.faults import Faults
from odenet_cli.data.common.images import ImageSplit, check_augmentations
from odenet_cli.data.common.samples import (
    LAYOUTS,
    MAX_NAMED,
    Part,
    check_forms,
    check_labels,
    choose_task,
    hold_out,
    inputs,
    targets,
)
from odenet_cli.data.common.splits import EPOCH_BATCHES, BatchSpec, Data, data_record
from odenet_cli.data.common.units import constant
from odenet_cli.errors import RequestError

TASKS = ("classify", "regression")
KEYS = ("task", "input", "outputs", "classes", "x_mean", "x_sd", "y_mean", "y_sd")  # of the record
BYTES = [255.0]  # what images of bytes are measured in


class Found(NamedTuple):
    """Hold what a source has read.

    where    the file, folder or class, for messages
    sha256   of it
    notes    what was passed over
    """

    parts: list[Part]
    where: str
    sha256: Any
    notes: list[str]


class Understood(NamedTuple):
    """Hold all samples, those to train on first, and the record of the data; `row` (N,) is where each stood."""

    x: Tensor
    y: Tensor
    row: Tensor
    record: dict[str, Any]


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
            return _understand(self, self.state(), None if run is None else json.dumps(run))

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


def standardised(x: Tensor, mean: Sequence[float], sd: Sequence[float]) -> Tensor:
    """Return (x - mean) / sd, of vectors (N, D) by feature, of images (N, C, H, W) by channel."""
    by_axis = (1, -1, *(1,) * (x.dim() - 2))
    x = x if x.is_floating_point() else x.float()
    return (x - x.new_tensor(mean).view(by_axis)) / x.new_tensor(sd).view(by_axis)


@functools.lru_cache(maxsize=2)
def _understand(source: LabelledSource, state: Hashable, run_json: str | None) -> Understood:
    """Read, check and arrange the samples; `state` tells when they have changed."""
    run = None if run_json is None else json.loads(run_json)
    found = source.find(run is not None)
    faults, parts = Faults(found.where), found.parts
    layout = check_forms(parts, source.layout, faults)
    faults.raise_all()  # what follows counts on it
    x = inputs(parts, layout, faults)
    task = run["task"] if run else choose_task(parts, source.task, faults)
    known = run["classes"] if run else []
    faults.raise_all()
    if run is not None and parts[0].y is None:
        y, classes = _unknown(len(x), run), known
    else:
        y, classes = targets(parts, task, known, faults)
    faults.raise_all()
    outputs = y.shape[1] if task == "regression" else len(classes) or int(y.max()) + 1
    if run is None and task == "classify":
        check_labels(y[: len(parts[0].x)], classes or outputs, parts[0].y_name, faults)

    order, sizes = hold_out(parts, {"valid": source.validation, "test": source.test})
    fitted_on = slice(0, sizes["train"])
    if not bool((order == torch.arange(len(order))).all()):
        x, y = x[order], y[order]
    if run is None:
        units = {"task": task, "input": [*x.shape[1:]], "outputs": outputs, "classes": classes}
        notes = _fit_units(units, x[fitted_on], y[fitted_on], parts[0], faults)
    else:
        units, notes = run, []
        _check_known(x, y, run, parts[0], faults)
    _check_images(source, x, faults)
    if not run and not sizes["train"]:
        faults.add(
            f"{len(x)} samples leave none to train on",
            f"Bring more, or hold out fewer: data.validation={source.validation:g} data.test={source.test:g}",
        )
    faults.raise_all()
    warning = "\n".join(f"{found.where}: {note}" for note in (*found.notes, *notes)) or None
    more = {"about": _about(units, x), **units, **({"unlabelled": True} if parts[0].y is None else {})}
    record = data_record(source.used, sizes, sha256=found.sha256, root=found.where, warning=warning)
    return Understood(x, y, order, {**record, **more})


def _unknown(count: int, run: Mapping[str, Any]) -> Tensor:
    """Return what stands for y where there is none: NaN, or a label that no class has."""
    if run["task"] == "regression":
        return torch.full((count, run["outputs"]), torch.nan, dtype=torch.float64)
    return torch.full((count,), -1)


def _fit_units(units: dict[str, Any], x: Tensor, y: Tensor, part: Part, faults: Faults) -> list[str]:
    """Add to `units` what the training samples x and y are measured in; return what is to be said of them."""
    notes: list[str] = []
    units |= {"x_mean": [0.0], "x_sd": BYTES, "y_mean": [], "y_sd": []}
    if x.dtype != torch.uint8 and len(x):
        flat = x.movedim(1, -1).reshape(-1, x.shape[1]).double()
        mean, sd, same = flat.mean(0), flat.std(0, unbiased=False), constant(flat)
        if not bool((mean.isfinite() & sd.isfinite()).all()):
            faults.add(f"{part.x_name} holds numbers too large to be squared", "Rescale them")
        if bool(same.any()):
            count, which = int(same.sum()), same.nonzero().flatten().tolist()
            few = ", ".join(map(str, which[:MAX_NAMED])) + " …" * (count > MAX_NAMED)
            notes.append(f"{count:,} of {len(same):,} inputs are constant in training and say nothing: {few}.")
        units |= {"x_mean": mean.tolist(), "x_sd": sd.where(~same, 1.0).tolist()}
    if units["task"] == "regression" and len(y):
        same = constant(y)
        if bool(same.any()):
            faults.add(f"{part.y_name} is constant ({float(y[0, same][0]):g}) in training", "Leave it out of y")
        units |= {"y_mean": y.mean(0).tolist(), "y_sd": y.std(0, unbiased=False).tolist()}
    return notes


def _about(units: Mapping[str, Any], x: Tensor) -> list[str]:
    """Return in words what x and y are: x 3×32×32 bytes; 10 classes."""
    shape = "×".join(map(str, units["input"]))
    kind = " bytes" if x.dtype == torch.uint8 else " numbers" * (len(units["input"]) == 1)
    count = units["outputs"]
    what = f"{count} classes" if units["task"] == "classify" else f"{count} value{'s' * (count != 1)} to predict"
    return [f"x {shape}{kind}", what]


def _check_known(x: Tensor, y: Tensor, run: Mapping[str, Any], part: Part, faults: Faults) -> None:
    """Add what other data have that a run does not know: another shape, other classes."""
    if [*x.shape[1:]] != run["input"]:
        faults.add(
            f"{part.x_name} has samples {tuple(x.shape[1:])}, and the run was trained on {tuple(run['input'])}",
            "Bring it to that shape",
        )
    count = run["outputs"]
    if run["task"] == "regression" and y.shape[1] != count:
        faults.add(f"{part.y_name} has {y.shape[1]} values a sample, and the run predicts {count}", "Bring as many")
    if run["task"] == "classify" and int((y >= count).sum()):
        odd = y[y >= count]
        faults.add(
            f"{part.y_name} holds {len(odd):,} labels beyond the {count} classes of the run, first {int(odd[0])}",
            "Take these samples out",
            len(odd),
        )


def _check_images(source: LabelledSource, x: Tensor, faults: Faults) -> None:
    """Add what augmentation asks of inputs that are no images, and a crop beyond them."""
    if source.augmented and x.dim() != 4:
        faults.add(f"data.augment=[{','.join(source.augmented)}] is for images, and x are vectors", "Leave it out")
    elif source.crop is not None and source.crop >= min(x.shape[2:]):
        faults.add(f"data.crop={source.crop} is as wide as the images of {tuple(x.shape[2:])}", "Choose a smaller one")
