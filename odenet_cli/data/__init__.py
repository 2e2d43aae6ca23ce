"""Data sets whose batches are on the device. Each module is one data set, and its file name is the name in `data=`.

A data set is a class `Source`, a frozen dataclass whose fields are the options `data.*`, explained in
`conf/data/NAME.yaml`. Its constructor checks their ranges and reads no data. It has the `shape` of an input, its
`classes` (for a regression the number of values to predict) and its `task`; if a user's own data may have one of
several `tasks`, `task_set` is the actual one. It has

    prepare() -> record        find, download and verify the data; {used, sha256, root, sizes, warning}
    load(spec) -> Data         do the same, then put them on the device as three splits

A data set whose numbers have units, under the keys `UNITS` of its record, also has

    in_units_of(record) -> Source  the same data in the units of the run with this `record`

`common/` has shared parts: splits and batches, images, densities and energies in the plane, files and downloads.
"""

from __future__ import annotations

import dataclasses
import importlib
import logging
from collections.abc import Mapping
from typing import Any

from odenet_cli import registry
from odenet_cli.data.common.download import Unavailable
from odenet_cli.data.common.images import ImageSource
from odenet_cli.data.common.own import OwnData
from odenet_cli.data.common.splits import BatchSpec, Data, Split
from odenet_cli.data.common.understood import Understood
from odenet_cli.errors import RequestError

__all__ = [
    "BatchSpec",
    "Data",
    "Split",
    "Unavailable",
    "check",
    "check_batch",
    "lacks_units",
    "load",
    "names",
    "own_samples",
    "prepare",
    "resolve_auto",
    "shape",
    "task",
    "tasks",
]

log = logging.getLogger("odenet")


def names() -> list[str]:
    return registry.names(__name__)


def check(name: str, options: Mapping[str, Any]) -> None:
    """Raise RequestError for an unknown name, option or value; reads no data."""
    _source(name, options)


def shape(name: str, options: Mapping[str, Any], run: Mapping[str, Any] | None = None) -> tuple[tuple[int, ...], int]:
    """Return the shape of one input and the number of classes; for a table of series its file is read.

    run  a run's record of its data, which determines the units
    """
    source = _source(name, options, run)
    return source.shape, source.classes


def own_samples(name: str, options: Mapping[str, Any], run: Mapping[str, Any]) -> Understood | None:
    """Return the samples of a user's own data, in the order of the concatenated splits; else None."""
    source = _source(name, options, run)
    return source.understand() if hasattr(source, "understand") else None


def lacks_units(name: str, record: Mapping[str, Any]) -> bool:
    """Return whether the data set has units that a run's record of it does not state."""
    return any(key not in record for key in getattr(_class(name), "UNITS", ()))


def tasks(name: str) -> tuple[str, ...]:
    """Return the names of the possible tasks of a data set."""
    kind = _class(name)
    return getattr(kind, "tasks", None) or (kind.task,)


def task(name: str, options: Mapping[str, Any], run: Mapping[str, Any] | None = None) -> str:
    """Return the name of the task of a data set; if several are possible its file is read.

    run  a run's record of its data, which states it too
    """
    known = tasks(name)
    return known[0] if len(known) == 1 else _source(name, options, run).task_set


def prepare(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Find, fetch if allowed, and verify the data; return {used, sha256, root, sizes, warning} for `run.json`."""
    return _source(name, options).prepare()


def check_batch(batch_size: int, name: str, record: Mapping[str, Any]) -> None:
    """Raise RequestError for a batch larger than the training split, if an epoch is one pass over that."""
    if issubclass(_class(name), ImageSource) and batch_size > (count := record["sizes"]["train"]):
        raise RequestError(
            f"trainer.batch_size={batch_size} is larger than the {count:,} training samples of {record['used']}.\n"
            f"  Allowed: 1 to {count}."
        )


def load(name: str, options: Mapping[str, Any], *, run: Mapping[str, Any] | None = None, **batch_spec: Any) -> Data:
    """Return the data on a device; `batch_spec` are the fields of `BatchSpec`. Logs the warning of `data.record`.

    run  a run's record of its data, which determines the units
    """
    data: Data = _source(name, options, run).load(BatchSpec(**batch_spec))
    check_batch(batch_spec["batch_size"], name, data.record)
    if data.record["warning"]:
        log.warning("%s", data.record["warning"])
    return data


def resolve_auto(options: Mapping[str, Any]) -> str:
    """Return the data set meant by `data=auto`: 'mnist' if it is on disk or can be downloaded, else 'digits'.

    Of `options`, those of MNIST that are not null are used. Damaged files, and a `data.root` that does not exist, are
    errors, since the user intended to use them.
    """
    fields = {field.name for field in dataclasses.fields(_class("mnist"))}
    try:
        record = prepare("mnist", {key: x for key, x in options.items() if key in fields and x is not None})
    except Unavailable as error:
        why = str(error).splitlines()[0]
        log.warning("data=auto: using digits, scikit-learn's 1,797 handwritten digits.\n  %s", why)
        return "digits"
    log.warning("data=auto: using mnist, found in %s.", record["root"])
    return "mnist"


def _source(name: str, options: Mapping[str, Any], run: Mapping[str, Any] | None = None) -> Any:
    kind = _class(name)
    if hasattr(kind, "gathered"):  # its options include those of the user's own code
        options = kind.gathered(options)
    registry.check_options("data", kind, options, of=name)
    source = kind(**options)
    return source.in_units_of(run) if run and isinstance(source, OwnData) and not lacks_units(name, run) else source


def _class(name: str) -> Any:
    return importlib.import_module(f"{__name__}.{registry.require('data', name, names())}").Source
