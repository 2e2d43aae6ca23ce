"""Series read from a table of comma-separated values, every fault with its file and line."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from odenet_cli.errors import RequestError


class Point(NamedTuple):
    """One row: where it stands, when it was, what was measured."""

    line: int
    time: float
    values: list[float]


def columns(path: Path) -> list[str]:
    """The names in the first line: of the series, of the time, of one value or more."""
    return next(_rows(path))[1]


def series(path: Path) -> dict[str, list[Point]]:
    """The points of each series, by time; series in the order in which they first occur."""
    rows = _rows(path)
    _, header = next(rows)
    found: dict[str, list[Point]] = {}
    for line, row in rows:
        if len(row) != len(header):
            raise RequestError(
                f"{path}, line {line}: {len(row)} columns, where the first line has {len(header)} "
                f"({', '.join(header)}). Complete the row, or take it out."
            )
        name, *numbers = (cell.strip() for cell in row)
        if not name:
            raise RequestError(f"{path}, line {line}: {header[0]} is empty; every row names its series.")
        time, *values = (_number(path, line, key, text) for key, text in zip(header[1:], numbers))
        found.setdefault(name, []).append(Point(line, time, values))
    if not found:
        raise RequestError(f"{path} has a first line, and no rows below it.")
    for name, points in found.items():
        found[name] = _checked(path, name, sorted(points, key=lambda point: point.time))
    return found


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of every row that is not blank, the header first."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            rows = ((reader.line_num, row) for row in reader if any(cell.strip() for cell in row))
            header = next(rows, None)
            if header is None:
                raise RequestError(f"{path} is empty. Its first line names the columns: series, time, values ….")
            if len(header[1]) < 3:
                raise RequestError(
                    f"{path}, line {header[0]}: {len(header[1])} columns ({', '.join(header[1])}); there must be three "
                    "or more, separated by commas: series, time, values …."
                )
            if all(_is_number(cell) for cell in header[1][1:]):
                raise RequestError(f"{path}, line {header[0]}: numbers, where the first line names the columns.")
            yield header[0], [cell.strip() for cell in header[1]]
            yield from rows
    except OSError as error:
        raise RequestError(f"data.path={path} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise RequestError(f"{path} is not a table of comma-separated text in UTF-8: {error}.") from error


def _number(path: Path, line: int, key: str, text: str) -> float:
    if not _is_number(text):
        raise RequestError(f"{path}, line {line}: {key}={text!r} is no finite number. Correct it, or take the row out.")
    return float(text)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _checked(path: Path, name: str, points: list[Point]) -> list[Point]:
    """Points in the order of time, if there are two or more, none of them at the same time."""
    if len(points) < 2:
        raise RequestError(
            f"{path}, line {points[0].line}: series {name} has only this one point; two are the least. Take it out."
        )
    for before, after in pairwise(points):
        if before.time == after.time:
            first, second = sorted((before.line, after.line))
            raise RequestError(
                f"{path}, line {second}: series {name} has the time {after.time:g} already in line {first}. "
                "Take one of them out."
            )
    return points
