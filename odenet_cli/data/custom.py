"""A user's own data set in code: `data=custom data.target=my.module:Dataset`, with its options as `+data.key=`.

The target is called with these options and returns, or is, one of

    a torch Dataset     with items (x, y)
    (x, y)              tensors, arrays or lists, one row per sample
    {split: either}     train, and if they are separate valid and test

It is read once, as a whole. x and y may be anything that `data=arrays` accepts, and are checked in the same way. Since
no file may name code to run, eval, resume and the other commands need `data.target=` again.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy
import torch

from odenet_cli import registry
from odenet_cli.data.common.labelled import LabelledSource
from odenet_cli.data.common.samples import WHOLE, Part
from odenet_cli.data.common.splits import PARTS, WORDS
from odenet_cli.data.common.understood import Found
from odenet_cli.errors import RequestError

WANTED = "It returns a torch Dataset of (x, y), a pair (x, y), or a dictionary of them by split: train, valid, test"


@dataclass(frozen=True, kw_only=True)
class Source(LabelledSource):
    """Options of `data=custom`; `own` are those of the target, as pairs (name, value)."""

    target: str | None = None
    own: Any = ()

    @classmethod
    def gathered(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options, with all that do not belong to this class in `own`."""
        known = {field.name for field in dataclasses.fields(cls) if field.init} - {"own"}
        own = tuple((key, _hashable(value)) for key, value in options.items() if key not in known)
        return {**{key: value for key, value in options.items() if key in known}, "own": own}

    def __post_init__(self) -> None:
        super().__post_init__()
        self._load()

    def _load(self) -> Any:
        """Load the target, after checking its options against its signature."""
        with torch.device("cpu"):  # the module creates tensors, even if a model is being built on the meta device
            named, options = registry.load_named("data.target", self.target), dict(self.own)
        if callable(named):
            registry.check_options("data", named, options, sign="+")
        elif options:
            raise RequestError(
                f"data.target={self.target} is not callable, and takes no option +data.{next(iter(options))}."
            )
        return named

    def state(self) -> Hashable:
        return None  # the code is imported once, and its result kept for the life of the process

    def find(self) -> Found:
        named = self._load()
        what = f"data.target={self.target}"
        try:
            given = named(**dict(self.own)) if callable(named) else named
            splits = given if isinstance(given, Mapping) else {WHOLE: given}
            pairs = {_split(name, what): _arrays(value, f"{what}, {name}") for name, value in splits.items()}
        except RequestError:
            raise
        except (Exception, SystemExit) as error:
            raise RequestError(f"{what} failed: {registry.describe(error)}.") from error
        parts = [
            Part(split, *pairs[split], *((f"x of {split}", f"y of {split}") if split != WHOLE else "xy"))
            for split in (WHOLE, *PARTS)
            if split in pairs
        ]
        if not parts or len(pairs) < len(splits) or (WHOLE in pairs and len(parts) > 1):
            raise RequestError(f"{what} gave {', '.join(map(repr, splits)) or 'nothing'}. {WANTED}.")
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part.x.tobytes())
            digest.update(part.y.tobytes())
        return Found(parts, what, digest.hexdigest(), [])


def _split(name: Any, what: str) -> str:
    if name == WHOLE:
        return WHOLE
    if str(name).lower() not in WORDS:
        raise RequestError(f"{what} gave a split {name!r}. Available: {', '.join(PARTS)}.")
    return WORDS[str(name).lower()]


def _arrays(value: Any, what: str) -> tuple[Any, Any]:
    """Return the x and y of a split as arrays."""
    if isinstance(value, (tuple, list)) and len(value) == 2:
        x, y = value
    elif hasattr(value, "__getitem__") and hasattr(value, "__len__") and not isinstance(value, (str, numpy.ndarray)):
        items = [value[n] for n in range(len(value))]
        odd = next((n for n, item in enumerate(items) if not isinstance(item, (tuple, list)) or len(item) != 2), None)
        if odd is not None or not items:
            kind = f"item {odd} is {type(items[odd]).__name__}" if odd is not None else "it is empty"
            raise RequestError(f"{what}: {kind}. {WANTED}.")
        x, y = (_stacked([_array(item[n]) for item in items], "xy"[n], what) for n in (0, 1))
    else:
        raise RequestError(f"{what} gave {type(value).__name__}. {WANTED}.")
    return _array(x), _array(y)


def _array(value: Any) -> Any:
    """Return a tensor, an array, an image or a number as an array."""
    return value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else numpy.asarray(value)


def _stacked(rows: list[Any], name: str, what: str) -> Any:
    """Stack rows of the same shape; raise RequestError naming the first that differs."""
    odd = next((n for n, row in enumerate(rows) if row.shape != rows[0].shape), None)
    if odd is not None:
        raise RequestError(
            f"{what}: {name} of item {odd} has the shape {rows[odd].shape}, and that of item 0 {rows[0].shape}. All "
            "samples must have the same shape."
        )
    return numpy.stack(rows)


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, (list, tuple)) else value
