"""Read a user's samples, check them, and arrange them in splits, in a run's units and classes or their own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from odenet_cli.data.common.faults import Faults, few
from odenet_cli.data.common.samples import (
    MAX_NAMED,
    Part,
    check_forms,
    check_labels,
    choose_task,
    hold_out,
    inputs,
    targets,
)
from odenet_cli.data.common.splits import data_record
from odenet_cli.data.common.units import MAX_SHIFT, constant, far_alone, say_alone

if TYPE_CHECKING:
    from odenet_cli.data.common.labelled import LabelledSource

KEYS = ("task", "input", "outputs", "classes", "x_mean", "x_sd", "y_mean", "y_sd")  # of the units in the record
BYTES = [255.0]  # unit of images of bytes
Y_DTYPES = {"classify": torch.int64, "regression": torch.float64}


class Found(NamedTuple):
    """Hold the samples read by a source.

    where    the file, folder or class, for messages
    sha256   of the data
    notes    what was skipped
    rows     (N,) index in the data of each sample of the concatenated parts; None: in this order
    more     further items of the record
    place    returns the name of a sample from its index
    names    of the samples in the data, in their order there, if each is a file
    """

    parts: list[Part]
    where: str
    sha256: Any
    notes: list[str]
    rows: Tensor | None = None
    more: Mapping[str, Any] = {}
    place: Callable[[int], str] = "sample number {}".format
    names: Sequence[str] = ()


class Understood(NamedTuple):
    """Hold all samples, training samples first and those without y last, and the record of the data.

    row    (N,) their indices in the data
    names  of the samples in the data, in their order there, if each is a file
    """

    x: Tensor
    y: Tensor
    row: Tensor
    record: dict[str, Any]
    names: Sequence[str] = ()


def standardised(x: Tensor, mean: Sequence[float], sd: Sequence[float]) -> Tensor:
    """Return (x - mean) / sd, per feature of vectors (N, D), per channel of images (N, C, H, W)."""
    by_axis = (1, -1, *(1,) * (x.dim() - 2))
    x = x if x.is_floating_point() else x.float()
    return (x - x.new_tensor(mean).view(by_axis)) / x.new_tensor(sd).view(by_axis)


@functools.lru_cache(maxsize=2)
def understand(source: LabelledSource, state: Hashable) -> Understood:
    """Read, check and arrange the samples; `state` changes with them."""
    found, record = source.find(), source.run
    run = None if record is None else {key: record[key] for key in KEYS}
    faults, parts = Faults(found.where), found.parts
    layout = check_forms(parts, source.layout, faults)
    faults.raise_all()  # required by the following checks
    x = inputs(parts, layout, faults)
    task = run["task"] if run else choose_task(parts, source.task, faults)
    known = run["classes"] if run else []
    faults.raise_all()
    if labelled := [part for part in parts if part.y is not None]:
        y, classes = targets(labelled, task, known, faults)
    else:
        assert run is not None
        y, classes = torch.empty((0, run["outputs"]) if task == "regression" else 0, dtype=Y_DTYPES[task]), known
    faults.raise_all()
    y = _with_unknown(y, parts)
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
            f"{len(x)} samples leave none for training",
            f"Add samples, or hold out fewer: data.validation={source.validation:g} data.test={source.test:g}",
        )
    faults.raise_all()
    row = order if found.rows is None else found.rows[order]
    notes += _say_alone(x, y, row, found)
    if record is not None and found.sha256 != record.get("sha256"):
        notes += _say_shifted(x, record, parts[0])
    warning = "\n".join(f"{found.where}: {note}" for note in (*found.notes, *notes)) or None
    unlabelled = len(x) - sum(sizes.values())
    more = {"about": _about(units, x), **units, **({"unlabelled": unlabelled} if unlabelled else {})}
    record = data_record(source, sizes, sha256=found.sha256, root=found.where, warning=warning)
    return Understood(x, y, row, {**record, **more, **found.more}, found.names)


def _say_alone(x: Tensor, y: Tensor, row: Tensor, found: Found) -> list[str]:
    """Return warnings of single numbers far from all others, in vectors x (N, D) and values y (N, K)."""
    first, said = found.parts[0], list[str]()
    for values, name, columns in ((x, first.x_name, first.columns), (y, first.y_name, ())):
        for n, k, ratio in far_alone(values.double()) if values.dim() == 2 else ():
            title = columns[k] if columns else f"{name}[{k}]" if values.shape[1] > 1 else name
            said.append(f"{found.place(int(row[n]))}: {say_alone(title, float(values[n, k]), ratio)}")
    return said


def _with_unknown(y: Tensor, parts: Sequence[Part]) -> Tensor:
    """Return y of all parts from that of those that have it; unknown ones are NaN, or a label of no class, -1."""
    known = torch.cat([torch.full((len(part.x),), part.y is not None) for part in parts])
    whole = y.new_full((len(known), *y.shape[1:]), torch.nan if y.is_floating_point() else -1)
    whole[known] = y
    return whole


def _fit_units(units: dict[str, Any], x: Tensor, y: Tensor, part: Part, faults: Faults) -> list[str]:
    """Add to `units` those of the training samples x and y; return notes on them."""
    notes: list[str] = []
    units |= {"x_mean": [0.0], "x_sd": BYTES, "y_mean": [], "y_sd": []}
    if x.dtype != torch.uint8 and len(x):
        flat = x.movedim(1, -1).reshape(-1, x.shape[1]).double()
        mean, sd, same = flat.mean(0), flat.std(0, unbiased=False), constant(flat)
        if not bool((mean.isfinite() & sd.isfinite()).all()):
            faults.add(f"{part.x_name} holds numbers too large to be squared", "Rescale them")
        if bool(same.any()):
            which = same.nonzero().flatten().tolist()
            notes.append(
                f"{len(which):,} of {len(same):,} inputs are constant in training and carry no information: "
                f"{few([part.columns[n] for n in which] if part.columns else which, MAX_NAMED)}."
            )
        units |= {"x_mean": mean.tolist(), "x_sd": sd.where(~same, 1.0).tolist()}
    if units["task"] == "regression" and len(y):
        same = constant(y)
        if bool(same.any()):
            faults.add(f"{part.y_name} is constant ({float(y[0, same][0]):g}) in training", "Leave it out of y")
        units |= {"y_mean": y.mean(0).tolist(), "y_sd": y.std(0, unbiased=False).tolist()}
    return notes


def _about(units: Mapping[str, Any], x: Tensor) -> list[str]:
    """Describe x and y: x 3×32×32 bytes; 10 classes."""
    shape = "×".join(map(str, units["input"]))
    kind = " bytes" if x.dtype == torch.uint8 else " numbers" * (len(units["input"]) == 1)
    count = units["outputs"]
    what = f"{count} classes" if units["task"] == "classify" else f"{count} value{'s' * (count != 1)} to predict"
    return [f"x {shape}{kind}", what]


def _check_known(x: Tensor, y: Tensor, run: Mapping[str, Any], part: Part, faults: Faults) -> None:
    """Add as faults what a run does not know of other data: another shape, other classes."""
    if [*x.shape[1:]] != run["input"]:
        faults.add(
            f"{part.x_name} has samples {tuple(x.shape[1:])}, and the run was trained on {tuple(run['input'])}",
            "Bring it into this shape",
        )
    elif run["x_sd"] == BYTES and x.is_floating_point() and x.max() <= 1:
        faults.add(
            f"{part.x_name} holds numbers up to {float(x.max()):g}, and the run was trained on bytes, 0 to 255",
            "Save it in this unit (255 * x)",
        )
    count = run["outputs"]
    if run["task"] == "regression" and y.shape[1] != count:
        faults.add(
            f"{part.y_name} has {y.shape[1]} values a sample, and the run predicts {count}", "Use the same number"
        )
    if run["task"] == "classify" and int((y >= count).sum()):
        odd = y[y >= count]
        faults.add(
            f"{part.y_name} holds {len(odd):,} labels outside the {count} classes of the run, first {int(odd[0])}",
            "Delete these samples",
            len(odd),
        )


def _say_shifted(x: Tensor, run: Mapping[str, Any], part: Part) -> list[str]:
    """Return a warning of inputs whose mean is so far from that of the training samples that the unit may differ.

    Columns of 0 and 1 have no unit.
    """
    if run["x_sd"] == BYTES:
        return []
    flat = x.movedim(1, -1).reshape(-1, x.shape[1]).double()
    here, mean, sd = flat.mean(0), flat.new_tensor(run["x_mean"]), flat.new_tensor(run["x_sd"])
    away = ((here - mean) / sd).abs().where(~((flat == 0) | (flat == 1)).all(0), 0.0)
    names = part.columns or [f"{part.x_name}[{n}]" for n in range(len(here))]
    odd = [
        f"{names[n]} ({here[n]:.4g}; there {mean[n]:.4g} ± {sd[n]:.3g})"
        for n in (away > MAX_SHIFT).nonzero().flatten().tolist()
    ]
    said = (
        f"means more than {MAX_SHIFT} standard deviations from those of the training samples: {few(odd, MAX_NAMED)}. "
        "Predictions so far away are unreliable; if the unit is another, convert it."
    )
    return [said] if odd else []


def _check_images(source: LabelledSource, x: Tensor, faults: Faults) -> None:
    """Add as faults an augmentation of inputs that are not images, and a crop larger than they are."""
    if source.augmented and x.dim() != 4:
        faults.add(
            f"data.augment=[{','.join(source.augmented)}] is for images, and the inputs x are vectors", "Leave it out"
        )
    elif source.crop is not None and source.crop >= min(x.shape[2:]):
        faults.add(f"data.crop={source.crop} is as wide as the images of {tuple(x.shape[2:])}", "Choose a smaller one")
