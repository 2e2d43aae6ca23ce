"""Check the options of a user's own data, and find the run whose units they use."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, TypeVar

from odenet_cli.data.common.checks import check_choice, check_least, check_share
from odenet_cli.data.common.places import absolute, sheet_for, state
from odenet_cli.errors import RequestError

if TYPE_CHECKING:  # the type after the constructor of a source
    Name: TypeAlias = str
    Names: TypeAlias = Sequence[str]
else:  # the type of the options, in which a name may be a number
    Name = str | float
    Names = Name | list[Name]
Own = TypeVar("Own", bound="OwnData")
Table = TypeVar("Table", bound="OwnTable")


@dataclass(frozen=True, kw_only=True)
class OwnData:
    """Hold the held-out shares, and the run in whose units the data are measured."""

    UNITS: ClassVar[tuple[str, ...]]  # keys of the units in a run's record
    CHOICES: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    LISTS: ClassVar[tuple[str, ...]] = ()  # options with one or several words
    NAMES: ClassVar[tuple[str, ...]] = ()  # options with one word
    LEAST_TEST: ClassVar[float] = 1e-9

    validation: float = 0.1
    test: float = 0.1
    _run: str | None = field(default=None, init=False)  # JSON, so that a source is hashable and read only once

    def __post_init__(self) -> None:
        for key in self.LISTS:
            value = getattr(self, key)
            if value is not None:
                words = value if isinstance(value, (list, tuple)) else [value]
                object.__setattr__(self, key, tuple(str(word) for word in words if word != ""))
        for key in self.NAMES:
            if getattr(self, key) is not None:
                object.__setattr__(self, key, str(getattr(self, key)))
        for key, choices in self.CHOICES.items():
            value = getattr(self, key)
            for word in value if isinstance(value, tuple) else [value]:
                check_choice(key, word, choices)
        check_share("validation", self.validation)
        check_share("test", self.test, self.LEAST_TEST)

    @property
    def run(self) -> dict[str, Any] | None:
        """The data record of a run; None: the data have their own units."""
        return None if self._run is None else json.loads(self._run)

    def in_units_of(self: Own, record: Mapping[str, Any]) -> Own:
        """Return the same data in the units of the run with this `record`."""
        self.check_record(record)
        seen = copy.copy(self)
        object.__setattr__(seen, "_run", json.dumps(record))
        return seen

    def check_record(self, record: Mapping[str, Any]) -> None:
        """Raise RequestError for an invalid record."""


@dataclass(frozen=True, kw_only=True)
class OwnFile(OwnData):
    """Hold the location of the data: a file, a pattern of several files, or a folder."""

    WANTED: ClassVar[str]  # message for a missing path

    path: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.path or "").strip():
            raise RequestError(f"data.path is missing: {self.WANTED}")

    @property
    def file(self) -> Path:
        return absolute(self.path)

    def state(self) -> Hashable:
        """Return a value that changes if the files do."""
        return state(self.file)


@dataclass(frozen=True, kw_only=True)
class OwnTable(OwnFile):
    """Hold the options for reading the cells of a table and for holding out rows."""

    NAMES: ClassVar[tuple[str, ...]] = ("sheet", "split")
    CHOSEN: ClassVar[str] = "values"  # the option that selects columns

    decimal: str | None = None
    missing: Names | None = None
    repeats: str | None = None
    sheet: Name | None = None
    skip: int | None = None
    split: Name | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_least("skip", self.skip, 0)

    @property
    def absent(self) -> Sequence[str]:
        """Words for a missing cell, besides those that always mean one."""
        return self.missing or ()

    def in_units_of(self: Table, record: Mapping[str, Any]) -> Table:
        seen = super().in_units_of(record)
        object.__setattr__(seen, "sheet", sheet_for(seen.path, seen.sheet))
        return seen

    def prepare(self) -> dict[str, Any]:
        return dict(_record_of(self, self.state()))

    @property
    def asked(self) -> Sequence[str]:
        """Names of requested columns."""
        return ()

    def are_names(self, names: list[str]) -> bool:
        """Return whether numbers in the first line are names of columns."""
        return not {*self.asked}.isdisjoint(names)

    def read(self) -> tuple[Any, ...]:
        """Return the parts of a batch, and last the record of the table for `run.json`."""
        raise NotImplementedError


@functools.lru_cache(maxsize=8)
def _record_of(source: OwnTable, state: Hashable) -> dict[str, Any]:
    """Return the record of a table, read only once while its files are unchanged."""
    return source.read()[-1]
