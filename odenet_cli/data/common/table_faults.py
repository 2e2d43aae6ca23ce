"""Collect the errors in the rows of a table, one entry per kind, reported with file and line."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import polars as pl

from odenet_cli.data.common.faults import tell
from odenet_cli.data.common.table_cells import FILE, LINE, Cells, brief, place, row_word
from odenet_cli.errors import RequestError

LISTED = 5  # lines listed per kind of fault
Place = tuple[int, int]  # file and line


@dataclass
class Faults:
    """Collect the errors in the rows of a table, one entry per kind; `rows` are all rows with a fault."""

    cells: Cells
    kinds: list[tuple[Place, int, str]] = field(default_factory=list)  # place of the first, number, text
    rows: set[int] = field(default_factory=set)

    def add(self, rows: pl.Series, say: str | Callable[[int], str], remedy: str) -> None:
        """Add a kind of fault: its rows, as indices or mask; the text for the first of them; and the remedy."""
        rows = rows.arg_true() if rows.dtype == pl.Boolean else rows
        if len(rows):
            self.rows.update(rows)
            text = say if isinstance(say, str) else say(rows[0])
            self.kinds.append(self._kind(self._places(rows.head(LISTED + 1)), len(rows), text, remedy))

    def line(self, row: int) -> str:
        """Return the position of a row as text, for an error about another row."""
        return self._tell(self._places(pl.Series([row])))

    def raise_all(self) -> None:
        """Raise RequestError if there were any, in the order of files and lines."""
        names, paths, kinds = self.cells.names, self.cells.paths, {*self.kinds}
        for group in self.cells.ragged.partition_by("cells", maintain_order=True)[:3]:
            known = f"the first line has {len(names)} ({brief(', '.join(names))})"
            text = f"{group['cells'][0]} columns, where {known}"
            places = group.select(FILE, LINE).rows()
            kinds.add(self._kind(places, len(places), text, "Complete the row, or delete it."))
        if len(kinds) == 1:
            (file, line), _, text = kinds.pop()
            raise RequestError(f"{place(paths[file], line)}: {text}")
        if kinds:
            where = paths[0] if len(paths) == 1 else f"the table of {len(paths)} files beside {paths[0]}"
            told = [(count, f"{self._tell([first])}: {text}") for first, count, text in sorted(kinds)]
            raise RequestError(tell(where, told))

    def _kind(self, places: list[Place], count: int, text: str, remedy: str) -> tuple[Place, int, str]:
        more = " …" * (count > LISTED + 1)
        others = f", also in {self._tell(places[1:])}{more}" if len(places) > 1 else ""
        also = f" ({count:,} such cells or rows{others})" if count > 1 else ""
        return places[0], count, f"{text}{also}. {remedy}"

    def _places(self, rows: pl.Series) -> list[Place]:
        return self.cells.frame.select(FILE, LINE)[rows].unique(maintain_order=True).rows()

    def _tell(self, places: list[Place]) -> str:
        """Return lines as text, with their files if the table has several."""
        paths = self.cells.paths
        lines = [f"{line}{f' of {paths[file].name}' * (len(paths) > 1)}" for file, line in places[:LISTED]]
        return f"{row_word(paths[0])}{'s' * (len(lines) > 1)} {', '.join(lines)}"


def first_missing(columns: pl.DataFrame, row: int) -> str:
    """Return the name of the first column that is null in a row."""
    return next(column.name for column in columns if column[row] is None)


def list_option(key: str, words: Sequence[str]) -> str:
    """Return the override for a list of words: key=[a,b], in quotes if the shell or Hydra would misread it."""
    if all(re.fullmatch(r"[\w.+/%-]+", word) for word in words):
        return f"{key}=[{','.join(words)}]"
    return shlex.quote(f"{key}=[{','.join(json.dumps(word, ensure_ascii=False) for word in words)}]")


def shown(column: pl.Series, row: int) -> str:
    """Return a cell in quotes."""
    return repr(brief("" if column[row] is None else str(column[row]).strip()))
