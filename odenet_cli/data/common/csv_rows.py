"""Series read from a table of comma-separated values, every fault with its file and line."""

from __future__ import annotations

import csv
import hashlib
import math
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from odenet_cli.errors import RequestError

SERIES, TIME = ("series", "id"), ("time", "t")  # where there are both, the first
MAX_NUMBER = 1e100  # of a time or a value: spans and sums of squares stay finite
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}  # taken for commas


class Point(NamedTuple):
    """Hold one row: its line in the file, its time, its values."""

    line: int
    time: float
    values: list[float]


class Table(NamedTuple):
    """Hold the content of a file.

    header  names of the columns: of the series, of the time, of one value or more
    series  the points of each series by time; series in the order in which they first occur
    sha256  of the file's bytes
    """

    header: list[str]
    series: dict[str, list[Point]]
    sha256: str


def read(path: Path) -> Table:
    """Read the table in the file at `path`; raise `RequestError` for the first fault, with its line."""
    raw = content(path)
    rows = _rows(path, raw)
    first, header = next(rows)
    series: dict[str, list[Point]] = {}
    for line, (name, *numbers) in rows:
        if not name:
            raise fault(path, line, f"{header[0]} is empty; every row names its series. Fill it in.")
        time, *values = (_number(path, line, key, text) for key, text in zip(header[1:], numbers))
        series.setdefault(name, []).append(Point(line, time, values))
    if not series:
        raise fault(path, first, "this names the columns, and there are no rows below it. Add some: a row is a point.")
    for name, points in series.items():
        series[name] = _checked(path, name, sorted(points, key=lambda point: point.time))
    return Table(header, series, hashlib.sha256(raw).hexdigest())


def fault(path: Path, line: int, text: str) -> RequestError:
    """Return the error for one line of a file."""
    return RequestError(f"{path}, line {line}: {text}")


def _rows(path: Path, raw: bytes) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells (series, time, values…) of every row that is not blank, the header first."""
    lines = enumerate(re.split(r"\r\n?|\n", _text(path, raw)), 1)
    rows = ((line, text, cells) for line, text in lines if any(cells := _cells(path, line, text)))
    line, text, header = next(rows, (1, "", []))
    if not header:
        raise RequestError(f"{path} is empty. Its line 1 names the columns: series, time, values ….")
    _check_header(path, line, text, header)
    first = _positions(header)
    order = first + [place for place in range(len(header)) if place not in first]
    yield line, [header[place] for place in order]
    for line, _, cells in rows:
        if len(cells) != len(header):
            raise fault(
                path,
                line,
                f"{len(cells)} columns, where the first line has {len(header)} ({_brief(', '.join(header))}). "
                "Complete the row, or take it out.",
            )
        yield line, [cells[place] for place in order]


def content(path: Path) -> bytes:
    """Return the bytes of the file `data.path`; raise RequestError for a pipe or a device, whose end may never come."""
    if os.path.exists(path) and not os.path.isfile(path):
        raise RequestError(f"data.path={path} is not a file but a folder, a pipe or a device. Name a file.")
    try:
        return path.read_bytes()
    except OSError as error:
        raise RequestError(f"data.path={path} cannot be read: {error.strerror}.") from error


def _text(path: Path, raw: bytes) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before, byte = error.object[: error.start], error.object[error.start]
    else:
        if "\0" not in text:
            return text
        before, byte = text[: text.index("\0")].encode(), 0
    line = len((before + b".").splitlines())
    raise fault(path, line, f"byte {byte:#04x}; this is not a table of comma-separated text in UTF-8. Save it as one.")


def _cells(path: Path, line: int, text: str, delimiter: str = ",") -> list[str]:
    """Return the cells of one line. None continues in the next: an open quote would take in the rest of the file."""
    try:
        cells = next(csv.reader([text + "\n"], delimiter=delimiter))
    except csv.Error as error:
        raise fault(path, line, f"{error}. Shorten the cell, or take the line out.") from error
    if cells and cells[-1].endswith("\n"):
        start = _brief('"' + cells[-1].strip())
        raise fault(
            path, line, f"the quote that opens at {start} does not close in its line. Close it, or take it out."
        )
    return [cell.strip() for cell in cells]


def _positions(header: list[str]) -> list[int]:
    """Return the positions of series and time, as far as present. A `T` is no time: it may be a temperature."""
    names = [_folded(name) for name in header]
    found = (next((key for key in keys if key in names), None) for keys in (SERIES, TIME))
    return [names.index(key) for key in found if key]


def _folded(name: str) -> str:
    return name.lower() if name != "T" and name.lower() in SERIES + TIME else name


def _check_header(path: Path, line: int, text: str, header: list[str]) -> None:
    """Raise RequestError unless the first line names a series, a time and one value or more, each once."""
    listed, complete = _brief(", ".join(header)), len(header) > 2 and len(_positions(header)) == 2
    for mark, word in () if complete else DELIMITERS.items():
        other = _cells(path, line, text, mark)
        if len(other) > len(header) or len(_positions(other)) == 2:
            raise fault(
                path,
                line,
                f"the columns are separated by {word} ({mark!r}): {_brief(text)!r}. Separate them by commas, in every "
                "line, and write decimals with a point.",
            )
    if len(header) < 3:
        raise fault(
            path,
            line,
            f"{len(header)} columns ({listed}); there must be three or more, separated by commas: series, time, "
            "values ….",
        )
    if all(_is_number(name) for name in header[1:]):
        raise fault(path, line, "numbers, where the first line names the columns: series, time, values …. Add it.")
    if "" in header:
        place = header.index("") + 1
        raise fault(path, line, f"column {place} of {len(header)} has no name. Name it, or take it out of every line.")
    names = [_folded(name) for name in header]
    for place, name in enumerate(names):
        if name in names[:place]:
            first = names.index(name) + 1
            raise fault(path, line, f"columns {first} and {place + 1} are both named {name}. Rename one of them.")
    if not complete:
        raise fault(
            path,
            line,
            f"the columns are {listed}; one must be named series (or id), and another time (or t). Rename them.",
        )


def _number(path: Path, line: int, key: str, text: str) -> float:
    if not _is_number(text):
        raise fault(
            path,
            line,
            f"{key}={_brief(text)!r} is no finite number, such as -1.5 or 2e-3. Correct it, or take the row out.",
        )
    number = float(text)
    if abs(number) > MAX_NUMBER:
        raise fault(
            path, line, f"{key}={number:g} is beyond ±{MAX_NUMBER:g}. Correct it, rescale {key}, or take the row out."
        )
    return number


def _is_number(text: str) -> bool:
    return NUMBER.fullmatch(text) is not None and math.isfinite(float(text))


def _brief(text: str) -> str:
    return text if len(text) <= 100 else text[:99] + "…"


def _checked(path: Path, name: str, points: list[Point]) -> list[Point]:
    """Return the points, if there are two or more, no two of them at the same time."""
    if len(points) < 2:
        raise fault(
            path, points[0].line, f"series {name} has only this one point; two are the least. Add one, or take it out."
        )
    for before, after in pairwise(points):
        if before.time == after.time:
            first, second = sorted((before.line, after.line))
            raise fault(
                path,
                second,
                f"series {name} has the time {after.time:g} already in line {first}. Take one of them out.",
            )
    return points
