"""Determine the format of a text table from its head: separator, decimal sign, names, units, and the first row."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from odenet_cli.data.common import numerals
from odenet_cli.data.common.table_across import SERIES, TIME
from odenet_cli.data.common.table_cells import brief, fault
from odenet_cli.errors import RequestError

if TYPE_CHECKING:
    from odenet_cli.data.common.own import OwnTable

ROWS_SEEN = 50  # rows of the head that determine the dialect
SEPARATORS = ",;\t|"
BLANK = SEPARATORS + ' "\r'  # a row of empty cells counts as a blank line
LIKE_NUMBER = re.compile(r"[+-]?[.,]?\d")
COMMA_NUMBER = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+(e[+-]?\d+)?", re.IGNORECASE)
DECIMAL_COMMA = re.compile(r"(?<=\d),(?=\d)")
FOOTER = re.compile(r"[*†©]|[^\W\d][^\d:]*:(\s|$)")  # Source: …, * provisional
MAX_FOOTERS = 20


class Dialect(NamedTuple):
    """Hold the format of a text table.

    first  number of lines above the first row
    again  the lines of names and units, which are repeated below if files were concatenated
    """

    names: list[str]
    units: list[str]
    separator: str
    decimal: str
    grouped: bool | None
    first: int
    again: list[str]
    notes: list[str]


def find_dialect(path: Path, text: str, source: OwnTable, bare: bool) -> Dialect:
    """Return the dialect of a file from its head; raise RequestError if that names no columns."""
    skip = source.skip or 0
    lines = [(n, line) for n, line in enumerate(re.split(r"\r\n?|\n", text), 1) if n > skip and line.strip(BLANK)]
    if lines and re.match(r'\s*(\{\s*"|\[\s*[\[{]|<[!?A-Za-z])', lines[0][1]):
        raise fault(path, lines[0][0], "this is JSON, HTML or XML, not a table. Save it as CSV or Parquet.")
    stated = re.fullmatch(r'"?sep=(.)"?', lines[0][1].strip(" ")) if lines else None
    comments = [(n, line.lstrip("# ")) for n, line in lines if line.startswith("#")]
    rows = [(n, line) for n, line in lines[bool(stated) :] if not line.startswith("#")][:ROWS_SEEN]
    if not rows:
        raise RequestError(f"{path} is empty: line 1 must name the columns: series, time, values ….")
    marked = [line for _, line in rows if any(mark in line for mark in SEPARATORS)]
    decimal_commas = not any(mark in DECIMAL_COMMA.sub("", line) for mark in SEPARATORS for line in marked)
    blanks = bare or 2 * len(marked) < len(rows) or decimal_commas
    separator = stated[1] if stated else _separator([line for _, line in rows], SEPARATORS + " " * blanks)
    comments, rows = ([(n, _joined(line, separator)) for n, line in kind] for kind in (comments, rows))
    number, header = rows[0]
    names, units, notes, again = cells(path, number, header, separator), list[str](), [], list[str]()
    above = [cells(path, n, line, separator) for n, line in comments if n < number]
    if commented := _commented_names(source, above, names):
        names, *below = commented
        units = below[0] if below else []
    elif bare and any(map(_is_number, names)) and not source.are_names(names):
        if not all(map(_is_number, names)):
            raise fault(path, number, f"{brief(header)!r} is neither column names nor a point. Correct it.")
        names = [f"x{n + 1}" for n in range(len(names))]
    else:
        again, rows = [header], rows[1:]
    numbers = [bool(LIKE_NUMBER.match(name)) for name in names]
    all_like = any(numbers) and all(not name or like for name, like in list(zip(names, numbers))[1:])
    if all_like and not bare and not source.are_names(names):
        across = "; or, if these are times and each row is a series, set data.form=across"
        raise fault(
            path,
            number,
            f"numbers, but the first line must name the columns. Add it{across if hasattr(source, 'form') else ''}.",
        )
    body = [(n, cells(path, n, line, separator)) for n, line in rows]
    body = body[: len(body) - count_footers([row for _, row in body], len(names))]
    if body and all(len(row) == len(names) + 1 for _, row in body):
        # Either every row ends in a separator, or R wrote row names without a name for their column.
        names = [*names, ""] if not any(row[-1] for _, row in body) else ["", *names]
    if len(body) > 1 and not units and not _has_number(body[0][1]) and any(body[0][1]) and _has_number(body[1][1]):
        units, notes = body[0][1], [f"line {body[0][0]} read as a row of units"]
        again, body = [*again, rows[0][1]] if again else again, body[1:]
    first = body[0][0] - 1 if body else number
    names = all_named(names)
    decimal, grouped = numerals.signs([cell for _, row in body for cell in row], source.decimal, separator)
    return Dialect(names, units, separator, decimal, grouped, first, again, notes)


def _commented_names(source: OwnTable, above: list[list[str]], first: list[str]) -> list[list[str]]:
    """Return the lines of column names, and of units below them, in the comments above the first row; may be empty.

    numpy.savetxt writes names as a comment; NOAA writes names and units as two comments.
    """
    rows = above[-1:] if above and len(above[-1]) == len(first) else []
    if rows and len(above) > 1 and len(above[-2]) == len(first) and not _are_known(source, rows[0]):
        rows = above[-2:]
    is_row = any(map(_is_number, first)) and not _are_known(source, first)
    return rows if all(map(LIKE_NUMBER.match, first)) or (rows and is_row and _are_known(source, rows[0])) else []


def _are_known(source: OwnTable, names: list[str]) -> bool:
    """Return whether names are among the requested or the recognised ones."""
    return not {*source.asked, *SERIES, *TIME}.isdisjoint([*names, *map(str.lower, names)])


def _separator(lines: list[str], marks: str) -> str:
    """Return the separator that splits most lines as often as the first; of several, that with the most cells."""

    def score(mark: str) -> tuple[float, bool, int]:
        short = [_joined(line, mark) for line in lines if len(line) < 100_000]
        rows = [next(csv.reader([line + "\n"], delimiter=mark), []) for line in short]
        counts = list(map(len, rows))
        if not counts or counts[0] < 2:
            return -1, False, 0
        # Without names the first line distinguishes decimal commas from separators: 0,5;1,2 are two numbers.
        numbers = " " in marks and all(map(_is_number, rows[0]))
        return sum(abs(count - counts[0]) <= 1 for count in counts) / len(counts), numbers, counts[0]

    return max(marks, key=score)


def _joined(line: str, separator: str) -> str:
    """Replace several blanks by one, if blanks separate the cells of a line."""
    return " ".join(line.split()) if separator == " " else line


def count_footers(rows: Sequence[list[str]], width: int) -> int:
    """Return how many of the last rows are not rows of a table of `width` columns but remarks."""
    count = 0
    for row in reversed(rows[-MAX_FOOTERS:]):
        first, *others = row or [""]
        words = len(row) == 1 < width and first[:1].isalpha() and " " in first
        if width < 2 or not (words or (FOOTER.match(first) and (len(row) != width or not any(others)))):
            break
        count += 1
    return count


def cells(path: Path, line: int, text: str, separator: str) -> list[str]:
    """Return the cells of one line. Cells never span lines, since an open quote would include the rest of the file."""
    try:
        row = next(csv.reader([text + "\n"], delimiter=separator), [])
    except csv.Error as error:
        raise fault(path, line, f"{error}. Shorten the cell, or delete the line.") from error
    if row and row[-1].endswith("\n"):
        raise open_quote(path, line, row[-1])
    return [cell.strip() for cell in row]


def open_quote(path: Path, line: int, text: str) -> RequestError:
    start = brief('"' + text.strip())
    return fault(path, line, f"the quote that opens at {start} is not closed in its line. Close it, or delete it.")


def all_named(names: list[str]) -> list[str]:
    """Return the names of columns; unnamed columns except the first are named as by pandas."""
    return [name or ("" if n == names.index("") else f"Unnamed: {n}") for n, name in enumerate(names)]


def told_apart(names: list[str], notes: list[str]) -> list[str]:
    """Make column names distinct: the second column of the same name becomes name_1, as in Excel files."""
    apart: list[str] = []
    for name in names:
        n, new = 0, name
        while new in apart or (n and new in names):
            n, new = n + 1, f"{name}_{n + 1}"
        if n:
            notes.append(f"{len([*filter(name.__eq__, names)])} columns are named {name}: one is {new} here")
        apart.append(new)
    return apart


def _has_number(row: Sequence[str]) -> bool:
    return any(map(LIKE_NUMBER.match, row))


def _is_number(word: str) -> bool:
    try:
        return bool(COMMA_NUMBER.fullmatch(word)) or float(word) is not None
    except ValueError:
        return False
