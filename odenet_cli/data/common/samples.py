"""Bring a user's samples (x, y) into one form: splits, images or vectors, labels 0…C-1 or numbers to predict.

Checks collect errors, so that all are reported together. `check_forms` needs only the shape and dtype of an array,
which are in the file's header, so a wrong file is refused without reading it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy
import torch
from torch import Tensor

from odenet_cli.data.common.faults import Faults, few

WHOLE = "all"  # name of samples without splits
LAYOUTS = ("chw", "hwc")
CHANNELS = (1, 2, 3, 4)  # sizes that identify the axis of the channels
MAX_NAMED = 5
REAL = "buif"  # kinds of dtypes


class Part(NamedTuple):
    """Hold the samples of a split, or all samples: x (N, *S) and y (N,) or (N, K), as arrays or headers.

    y is None if it is unknown and to be predicted; `columns` are the names of features, if they have any.
    """

    split: str
    x: Any
    y: Any
    x_name: str = "x"
    y_name: str = "y"
    columns: tuple[str, ...] = ()


def check_forms(parts: Sequence[Part], layout: str | None, faults: Faults) -> str | None:
    """Add errors of shapes and dtypes; return the layout of images (N, ·, ·, ·), None for other inputs."""
    for part in parts:
        _check_form(part, faults)
    first = next((part for part in parts if part.y is not None), parts[0])
    for part in parts:
        if part.x.shape[1:] != first.x.shape[1:]:
            faults.add(
                f"{part.x_name} has samples of shape {part.x.shape[1:]}, and {first.x_name} of {first.x.shape[1:]}",
                "All splits must have the same shape",
            )
        if part.y is not None and (part.y.dtype.kind, part.y.shape[1:]) != (first.y.dtype.kind, first.y.shape[1:]):
            faults.add(
                f"{part.y_name} is {_form(part.y)}, and {first.y_name} {_form(first.y)}",
                "All splits must have the same form",
            )
    return _layout(first, layout, faults) if len(first.x.shape) == 4 else None


def _check_form(part: Part, faults: Faults) -> None:
    x, y = part.x, part.y
    if x.dtype.kind not in REAL:
        faults.add(f"{part.x_name} is {_form(x)}", "Save it as real numbers, without objects (allow_pickle is false)")
    if not 1 <= len(x.shape) <= 4 or 0 in x.shape:
        faults.add(
            f"{part.x_name} is {_form(x)}",
            "Inputs must be vectors (N, D) or images (N, H, W), (N, C, H, W), (N, H, W, C), with N at least 1",
        )
    if y is None:
        return
    if y.dtype.kind not in REAL + "US":
        faults.add(f"{part.y_name} is {_form(y)}", "Save labels as whole numbers or text, values as real numbers")
    if not 1 <= len(y.shape) <= 2 or 0 in y.shape[1:]:
        faults.add(f"{part.y_name} is {_form(y)}", "It must be (N,), or (N, K) for K values to predict")
    if x.shape[:1] != y.shape[:1]:
        faults.add(
            f"{part.x_name} has {(x.shape or (0,))[0]:,} samples, and {part.y_name} {(y.shape or (0,))[0]:,}",
            "There must be one y for each x",
        )


def _form(array: Any) -> str:
    """Describe shape and dtype: (150, 4) float64."""
    return f"({', '.join(map(str, array.shape))}{',' * (len(array.shape) == 1)}) {array.dtype}"


def _layout(part: Part, layout: str | None, faults: Faults) -> str:
    """Return which of four axes is that of the channels: the second or the last."""
    second, last = part.x.shape[1] in CHANNELS, part.x.shape[3] in CHANNELS
    if layout is None and second == last:
        faults.add(
            f"{part.x_name} is {_form(part.x)}, and {'both' if second else 'neither'} of its axes 2 and 4 can be the "
            "channels",
            "Set data.layout=chw or data.layout=hwc",
        )
    return layout or ("chw" if second else "hwc")


def inputs(parts: Sequence[Part], layout: str | None, faults: Faults) -> Tensor:
    """Return the inputs of all parts, (N, C, H, W) or (N, D): images of bytes unchanged, else floating point."""
    images = parts[0].x.ndim > 2
    kinds = {part.x.dtype for part in parts}
    made = []
    for part in parts:
        bytes_stay = images and kinds == {numpy.dtype(numpy.uint8)}
        single = part.x.dtype.itemsize <= 2 or part.x.dtype == numpy.float32
        dtype = numpy.uint8 if bytes_stay else numpy.float32 if single else numpy.float64
        x = torch.from_numpy(numpy.ascontiguousarray(part.x, dtype=dtype))
        if not bytes_stay:
            _report_nonfinite(part.x_name, ~x.reshape(len(x), -1).isfinite().all(1), faults)
        if images:
            x = x[:, None] if x.dim() == 3 else x.movedim(3, 1) if layout == "hwc" else x
        else:
            x = x.reshape(len(x), -1)
        made.append(x)
    return torch.cat(made).contiguous() if len(made) > 1 else made[0].contiguous()


def _report_nonfinite(name: str, bad: Tensor, faults: Faults) -> None:
    count = int(bad.sum())
    if count:
        faults.add(
            f"{name} holds NaN or infinite numbers in {count:,} of {len(bad):,} samples, first in sample "
            f"{int(bad.nonzero()[0])}",
            "Delete these samples, or fill in the numbers",
            count,
        )


def choose_task(parts: Sequence[Part], asked: str | None, faults: Faults) -> str:
    """Return the task determined by y: text and integers are labels, other numbers are values of a regression."""
    kinds, name = {part.y.dtype.kind for part in parts}, parts[0].y_name
    columns = [part.y.shape[1] for part in parts if part.y.ndim == 2]
    if asked == "regression" and kinds & set("US"):
        faults.add(f"{name} is text", "data.task=regression needs numbers; for classes leave it out")
    wide = any(count > 1 for count in columns)
    remedy = "For a one-hot code use argmax(1); to predict the numbers set data.task=regression"
    if asked is None and "f" in kinds and (_like_one_hot(parts) if wide else _like_labels(parts)):
        held = "a 1 and else 0 in each row, as a one-hot code does" if wide else "whole numbers from 0, as labels do"
        either = "Set data.task=classify or data.task=regression"
        faults.add(f"{name} holds {held}, but stored as {parts[0].y.dtype}", remedy if wide else either)
    task = asked or ("regression" if "f" in kinds else "classify")
    if task == "classify" and wide:
        faults.add(f"{name} is {_form(parts[0].y)}, and labels must be (N,)", remedy)
    return task


def _like_labels(parts: Sequence[Part]) -> bool:
    """Return whether floating-point y are 0, 1, … C-1, each several times."""
    y = numpy.concatenate([part.y for part in parts])
    if not numpy.isfinite(y).all():
        return False
    known = numpy.unique(y)
    return bool(len(known) > 1 and len(y) >= 4 * len(known) and (known == numpy.arange(len(known))).all())


def _like_one_hot(parts: Sequence[Part]) -> bool:
    """Return whether each row of all y (N, K) is 0 except for one 1."""
    y = numpy.concatenate([part.y for part in parts])
    return bool(numpy.isin(y, (0, 1)).all() and (y.sum(1) == 1).all())


def targets(parts: Sequence[Part], task: str, known: list[str], faults: Faults) -> tuple[Tensor, list[str]]:
    """Return y of all parts, labels (N,) int64 or values (N, K) float64, and the names of the classes.

    known  names of the classes of a trained run
    """
    if task == "regression":
        values = [torch.from_numpy(part.y.astype(numpy.float64)).reshape(len(part.y), -1) for part in parts]
        for part, y in zip(parts, values):
            _report_nonfinite(part.y_name, (~y.isfinite()).any(1), faults)
        return torch.cat(values), []
    flat = [part.y.reshape(len(part.y)) for part in parts]
    if flat[0].dtype.kind in "US":
        texts = [y.astype(str) for y in flat]
        names = known or sorted(set(texts[0].tolist()))
        index = {name: n for n, name in enumerate(names)}
        return torch.cat([_numbered(part.y_name, y, index, faults) for part, y in zip(parts, texts)]), names
    for part, y in zip(parts, flat):
        numbers = y.astype(numpy.float64)
        odd = numpy.flatnonzero(~numpy.isfinite(numbers) | (numbers != numpy.floor(numbers)) | (numbers < 0))
        if len(odd):
            faults.add(
                f"{part.y_name} holds {len(odd):,} numbers that are not labels, first {y[odd[0]]} in sample {odd[0]}",
                "Labels must be 0, 1, … C-1; to predict numbers set data.task=regression",
                len(odd),
            )
    faults.raise_all()
    return torch.cat([torch.from_numpy(y.astype(numpy.int64)) for y in flat]), known


def _numbered(name: str, texts: Any, index: dict[str, int], faults: Faults) -> Tensor:
    """Return the number of each named class; unknown names are faults."""
    words = texts.tolist()
    odd = [word for word in words if word not in index]
    if odd:
        faults.add(
            f"{name} names {len(odd):,} samples of classes that the training samples lack, first {odd[0]!r}",
            f"They have {few([*index], MAX_NAMED)}",
            len(odd),
        )
    return torch.tensor([index.get(word, 0) for word in words], dtype=torch.int64)


def check_labels(y: Tensor, classes: Sequence[str] | int, name: str, faults: Faults) -> None:
    """Add errors of the labels y (N,) of the training samples: each of the `classes` must have at least one."""
    names = range(classes) if isinstance(classes, int) else classes
    present = {*y.tolist()}
    lacking = len(names) - len(present)
    if len(names) < 2:
        faults.add(f"{name} has only one class", "There must be at least two classes")
    elif lacking:
        empty = itertools.islice((known for label, known in enumerate(names) if label not in present), MAX_NAMED)
        faults.add(
            f"{name}: {lacking:,} of the {len(names):,} classes {names[0]} to {names[-1]} have no training sample: "
            f"{few([*empty], MAX_NAMED, lacking)}",
            "Number the classes without gaps (numpy.unique(y, return_inverse=True)[1]); to predict the numbers set "
            "data.task=regression",
            lacking,
        )


def hold_out(parts: Sequence[Part], shares: dict[str, float]) -> tuple[Tensor, dict[str, int]]:
    """Return the order (N,) of all samples, training samples first, and the sizes of the splits.

    Splits that are not parts are drawn from the training samples, always in the same way and at random, since rows are
    often in the order of their classes. Samples without y are in no split, and last.

    shares  of `valid` and `test` to hold out if there is no such part
    """
    starts, unlabelled, total = {}, [], 0
    for part in parts:
        place = torch.arange(total, total := total + len(part.x))
        if part.y is None:
            unlabelled.append(place)
        else:
            starts[part.split] = place
    pool = starts.pop(WHOLE) if WHOLE in starts else starts.pop("train", torch.arange(0))
    pool = pool[torch.randperm(len(pool), generator=torch.Generator().manual_seed(0))] if len(starts) < 2 else pool
    for split in ("test", "valid"):
        if split not in starts:
            count = round(shares[split] * len(pool))
            count = min(max(1, count), len(pool)) if shares[split] else 0
            starts[split], pool = pool[len(pool) - count :], pool[: len(pool) - count]
    order = {"train": pool, **{split: starts[split] for split in ("valid", "test")}}
    return torch.cat([*order.values(), *unlabelled]), {split: len(rows) for split, rows in order.items()}
