"""Data sets whose batches are already on the device. One module is one data set, its file name the name of `data=`.

A data set is a class `Source`, a frozen dataclass whose fields are the options `data.*`. It checks their ranges when it
is made and reads nothing before it is asked. It names the `shape` of an input, its `classes` and its `task`, and has

    prepare() -> record        find, fetch and verify the data; {used, sha256, root, sizes, warning}
    load(spec) -> Data         the same, then put it on the device, ready to be dealt

One whose numbers have units, by the keys `UNITS` of its record, also has

    measured(record) -> Source  the same data in the units of the run that `record` is of

Modules that start with `_` are shared parts: `_resident` deals batches of what is kept, `_generated` of what is drawn;
`_idx` reads files, `_fetch` downloads them; `_energies` and `_toy` are the targets of normalising flows.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
from collections.abc import Mapping
from typing import Any

import torch

from odenet_cli import registry
from odenet_cli.data.common import images
from odenet_cli.data.common.download import Unavailable
from odenet_cli.data.common.images import BatchSpec, Data, ImageSplit, Split

__all__ = [
    "BatchSpec",
    "Data",
    "ImageSplit",
    "Split",
    "Unavailable",
    "check",
    "check_batch",
    "lacks_units",
    "load",
    "names",
    "prepare",
    "resolve_auto",
    "shape",
    "task",
]

log = logging.getLogger("odenet")


def names() -> list[str]:
    """Every data set there is."""
    return registry.names(__name__)


def check(name: str, options: Mapping[str, Any]) -> None:
    """Refuse an unknown name, option or value without reading any data."""
    _source(name, options)


def shape(name: str, options: Mapping[str, Any], run: Mapping[str, Any] | None = None) -> tuple[tuple[int, ...], int]:
    """Return the shape of one input and the number of classes; for a table of one's own it is read.

    run  the record of the data of the run that is to see them; what it says of their units holds
    """
    source = _source(name, options, run)
    return source.shape, source.classes


def lacks_units(name: str, record: Mapping[str, Any]) -> bool:
    """Tell whether the numbers of a data set have units, and a run's record of it does not say which."""
    return any(key not in record for key in _unit_keys(name))


def task(name: str) -> str:
    """The name of the task that a data set sets."""
    made: str = _module(registry.require("data", name, names())).Source.task
    return made


def prepare(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Find, fetch if allowed, and verify: {used, sha256, root, sizes, warning}, plain values for `run.json`."""
    record: dict[str, Any] = _source(name, options).prepare()
    return record


def check_batch(batch_size: int, name: str, record: Mapping[str, Any]) -> None:
    """Refuse a batch larger than the training split that `prepare` found, of a set that is dealt without repetition."""
    if task(name) == "classify":
        images.check_batch(batch_size, dict(record))


def load(
    name: str,
    options: Mapping[str, Any],
    *,
    batch_size: int,
    eval_batch_size: int,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
    run: Mapping[str, Any] | None = None,
) -> Data:
    """The data on `device`, in the units of `run`, a run's record of its data, where it has any.

    `data.record` is what `prepare` returns, its warning logged.
    """
    spec = BatchSpec(batch_size=batch_size, eval_batch_size=eval_batch_size, seed=seed, device=device, dtype=dtype)
    data: Data = _source(name, options, run).load(spec)
    if data.record["warning"]:
        log.warning("%s", data.record["warning"])
    return data


def resolve_auto(options: Mapping[str, Any]) -> str:
    """What `data=auto` stands for: 'mnist' where it is on disk or can be downloaded, else 'digits'.

    Of `options`, those of MNIST that are not null count. Files that are there but damaged, and a `data.root` that does
    not exist, are errors: someone put them there or asked for them.
    """
    fields = {field.name for field in dataclasses.fields(_module("mnist").Source)}
    wanted = {key: value for key, value in options.items() if key in fields and value is not None}
    try:
        record = prepare("mnist", wanted)
    except Unavailable as error:
        why = str(error).splitlines()[0]
        log.warning("data=auto: using digits, scikit-learn's 1,797 handwritten digits.\n  %s", why)
        return "digits"
    log.warning("data=auto: using mnist, found in %s.", record["root"])
    return "mnist"


def _source(name: str, options: Mapping[str, Any], run: Mapping[str, Any] | None = None) -> Any:
    kind = _module(registry.require("data", name, names())).Source
    registry.fitting("data", kind, options)
    source = kind(**options)
    return source.measured(run) if run and _unit_keys(name) and not lacks_units(name, run) else source


def _unit_keys(name: str) -> tuple[str, ...]:
    """The keys of a record that say in which units the numbers are."""
    keys: tuple[str, ...] = getattr(_module(registry.require("data", name, names())).Source, "UNITS", ())
    return keys


def _module(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{name}")
