"""The cells of a table in a file, as it is found: text in any usual dialect, Parquet, Excel; with file and line.

A text may be compressed, by gzip or alone in a zip archive.

Text is looked at twice. The head tells encoding, separator, decimal sign, names and units, and whether the columns are
there that are asked for: what it refuses is not read further. Then all lines are split at once (by polars).
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import logging
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import polars as pl

from odenet_cli.data.common import numerals
from odenet_cli.data.common.faults import few
from odenet_cli.data.common.places import EXCEL, file_sha256, find
from odenet_cli.errors import RequestError

if TYPE_CHECKING:
    from odenet_cli.data.common.own import OwnTable

HEAD = 1 << 20  # bytes that are looked at first
ROWS_SEEN = 50  # rows of the head by which the dialect is chosen
SEPARATORS = ",;\t|"
BLANK = SEPARATORS + ' "\r'  # a row of empty cells is a blank line
DAY_0 = datetime(1899, 12, 31)  # of Excel, where times without a date are
FILE, LINE = "\0file", "\0line"  # names of the columns that say where a row is from
LIKE_NUMBER = re.compile(r"[+-]?[.,]?\d")
COMMA_NUMBER = re.compile(r"[+-]?(\d+|\d{1,3}(\.\d{3})+),\d+(e[+-]?\d+)?", re.IGNORECASE)
FOOTER = re.compile(r"[*†©]|[^\W\d][^\d:]*:(\s|$)")  # Source: …, * provisional
MAX_FOOTERS = 20
Check = Callable[[Path, list[str]], object]
CONTROL = bytes([*range(9), *range(14, 32)])


class Cells(NamedTuple):
    """Hold the rows of one file or several.

    names    of the columns, as the first line has them
    units    of each column, where a row of units stands below the names; else empty
    frame    the rows: text or, of Parquet and Excel, what is stored there; and FILE, LINE of each
    decimal  the sign in numbers: "." or ","
    grouped  the other sign is known to stand between thousands; None: nothing says so, and `decimal` was guessed
    turned   a row of the file is a series, and here every cell of it is one (see `table_across`)
    paths    of the files, FILE their index
    notes    what was passed over or assumed, for the reader
    ragged   (row, cells) of rows that have more or fewer cells than there are names; they are not in `frame`
    sha256   of the bytes, of several files one of theirs together
    """

    names: list[str]
    units: list[str]
    frame: pl.DataFrame
    decimal: str
    paths: list[Path]
    notes: list[str]
    ragged: pl.DataFrame
    sha256: str
    grouped: bool | None = None
    turned: bool = False

    def describe(self, name: str, mean: float, sd: float) -> str:
        """Return in words what a column holds, in the unit that the file states."""
        unit = dict(zip(self.names, self.units)).get(name)
        return f"{brief(name)}: {mean:.4g} ± {sd:.3g}{f' {unit}' if unit else ''}"

    def where(self, row: int) -> str:
        """Return file and line of a row of `frame`; of Parquet, which has no lines, the row, counted from 1."""
        file, line = self.frame.select(FILE, LINE).row(row)
        return place(self.paths[file], line)


class Dialect(NamedTuple):
    """Hold what the head of a text tells.

    first  the number of lines above the first row
    again  the lines of names and units, which stand again below where files were put one behind the other
    """

    names: list[str]
    units: list[str]
    separator: str
    decimal: str
    grouped: bool | None
    first: int
    again: list[str]
    notes: list[str]


def read(source: OwnTable, check: Check, bare: bool = False) -> Cells:
    """Read the table at `data.path`, or in all files that a pattern such as `days/*.csv` finds, one below the other.

    check  is called with the path of a file and the names of its columns before its rows are read
    bare   a text may have no names, columns are x1, x2, … then

    Raises RequestError for what is no table, with file and line.
    """
    parts = [_read_one(source, file, check, bare) for file in find(source.path)]
    first = parts[0]
    for other in parts[1:]:
        if sorted(other.names) != sorted(first.names) or other.decimal != first.decimal:
            raise RequestError(
                f"{other.paths[0]}: its columns are {brief(', '.join(other.names))} (decimal sign {other.decimal!r}), "
                f"and those of {first.paths[0]} {brief(', '.join(first.names))} ({first.decimal!r}). Files of one "
                "table have the same columns; data.decimal= says how numbers are written."
            )
    if len(parts) == 1:
        return first
    frames, ragged = (
        [frame.with_columns(pl.lit(n, pl.UInt32).alias(FILE)) for n, frame in enumerate(kind)]
        for kind in ([part.frame for part in parts], [part.ragged for part in parts])
    )
    return first._replace(
        frame=pl.concat([frame.select(frames[0].columns) for frame in frames], how="vertical_relaxed"),
        paths=[part.paths[0] for part in parts],
        notes=list(dict.fromkeys(note for part in parts for note in part.notes)),
        ragged=pl.concat(ragged),
        sha256=hashlib.sha256("".join(part.sha256 for part in parts).encode()).hexdigest(),
        grouped=None if any(part.grouped is None for part in parts) else all(part.grouped for part in parts),
    )


def counted(path: Path) -> str:
    """Return what the rows of a file are called; only text has lines."""
    return "row" if path.suffix.lower() in (".parquet", ".npy", ".npz") else "line"


def place(path: Path, line: int) -> str:
    """Return where a row stands, for an error."""
    return f"{path}, {counted(path)} {line}"


def fault(path: Path, line: int, text: str) -> RequestError:
    """Return the error for one line of a file."""
    return RequestError(f"{place(path, line)}: {text}")


def brief(text: str) -> str:
    """Return a text in at most 100 characters."""
    return text if len(text) <= 100 else text[:99] + "…"


def counted_names(what: str, names: Sequence[str]) -> str:
    """Return how many there are, and their names, some where they are many."""
    return f"{len(names):,} {what} ({brief(', '.join(names))})"


def _read_one(source: OwnTable, path: Path, check: Check, bare: bool) -> Cells:
    stored = path.suffix.lower() in (".parquet", *EXCEL)
    if source.sheet is not None and path.suffix.lower() not in EXCEL:
        raise RequestError(f"{path}: data.sheet={source.sheet} is for Excel files ({', '.join(EXCEL)}); leave it out.")
    try:
        if stored:
            return _read_stored(source, path, check)
        with _opened(path) as file:
            head = file.read(HEAD)
            text, _ = _decode(path, head, whole=len(head) < HEAD)
            dialect = _dialect(path, text, source, bare)
            check(path, dialect.names)
            dialect = dialect._replace(names=_told_apart(dialect.names, dialect.notes))
            raw = head + file.read()
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise RequestError(f"data.path={path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    return _split(path, raw, dialect)


def _opened(path: Path) -> IO[bytes] | gzip.GzipFile:
    """Return a file to read, or what is compressed in it."""
    with open(path, "rb") as file:
        magic = file.read(4)
    if magic[:2] == b"\x1f\x8b":
        return gzip.open(path)
    if magic != b"PK\x03\x04":
        return open(path, "rb")
    archive = zipfile.ZipFile(path)
    members = [member.filename for member in archive.infolist() if not member.is_dir()]
    if len(members) != 1:
        listed = counted_names("files", members)
        raise RequestError(f"{path} is an archive of {listed}. Unpack it, and name the table in it.")
    try:
        return archive.open(members[0])
    except (RuntimeError, NotImplementedError) as error:  # a password, a method that zipfile does not know
        raise RequestError(f"{path} cannot be unpacked: {error}. Unpack it yourself.") from error


def _read_stored(source: OwnTable, path: Path, check: Check) -> Cells:
    """Read a file whose columns have types."""
    kind, notes = "Excel" if path.suffix.lower() in EXCEL else "Parquet", list[str]()
    skip = source.skip or 0
    try:
        frame = pl.read_parquet(path) if kind == "Parquet" else _read_excel(path, source.sheet, skip, notes)
    except ImportError as error:
        raise RequestError(
            f"{path}: Excel files need the package fastexcel: pip install 'odenet-cli[tables]'. "
            f"({brief(str(error).strip().splitlines()[0])})"
        ) from error
    except RequestError:
        raise
    except Exception as error:  # the readers raise errors of their own, which share no base
        raise RequestError(f"{path} is no {kind} file: {brief(str(error).splitlines()[0])}") from error
    names = _all_named(["" if name.startswith("__UNNAMED__") else name for name in frame.columns])
    try:
        check(path, names)
    except RequestError as error:
        raise RequestError("\n  ".join([str(error), *notes])) from error
    if frame.is_empty():
        raise RequestError(
            "\n  ".join([f"{path} has names of columns and no rows. Add some: a row is a point.", *notes])
        )
    frame.columns = names
    cells = stored_cells(path, frame, 1 if kind == "Parquet" else 2 + skip, notes)
    texts = cells.frame.head(ROWS_SEEN).select(pl.col(pl.String).fill_null(""))
    decimal, grouped = numerals.signs([cell.strip() for row in texts.rows() for cell in row], source.decimal, "")
    return cells._replace(decimal=decimal, grouped=grouped)


def stored_cells(path: Path, frame: pl.DataFrame, first: int, notes: list[str]) -> Cells:
    """Return the cells of a file whose columns have types; `first` is the number of its first row.

    Categories are words, and what can be neither number, text nor date stands as the name of its type.
    """
    names, plain = frame.columns, []
    for name, dtype in frame.schema.items():
        if isinstance(dtype, (pl.Categorical, pl.Enum)):
            plain.append(pl.col(name).cast(pl.String))
        elif dtype.is_nested() or dtype in (pl.Binary, pl.Object):
            plain.append(pl.when(pl.col(name).is_not_null()).then(pl.lit(f"{dtype}")).alias(name))
    places = [pl.lit(0, pl.UInt32).alias(FILE), pl.int_range(first, first + len(frame), dtype=pl.UInt32).alias(LINE)]
    frame = frame.with_columns(*plain, *places)
    there = frame.select(names).with_columns(pl.col(pl.String).str.strip_chars().replace("", None))
    blank = there.select(pl.all_horizontal(pl.all().is_null())).to_series()
    ragged = pl.DataFrame(schema={LINE: pl.UInt32, "cells": pl.UInt32, FILE: pl.UInt32})
    frame = frame.filter(~blank) if blank.any() else frame
    tail = [["" if x is None else str(x).strip() for x in row] for row in frame.select(names).tail(MAX_FOOTERS).rows()]
    if count := _footers(tail, len(names)):
        notes.append(f"words below the table, passed over: {brief(tail[-count][0])}")
        frame = frame.head(len(frame) - count)
    return Cells(names, [], frame, ".", [path], notes, ragged, file_sha256(path))


def _all_named(names: list[str]) -> list[str]:
    """Return the names of columns, those without one but for the first called as pandas calls them."""
    return [name or ("" if n == names.index("") else f"Unnamed: {n}") for n, name in enumerate(names)]


def _read_excel(path: Path, sheet: str | None, skip: int, notes: list[str]) -> pl.DataFrame:
    """Return a sheet, its names `skip` lines below the top; what to say of other sheets goes to `notes`."""
    import fastexcel

    there = fastexcel.read_excel(path).sheet_names
    if sheet is not None and sheet not in there:
        raise RequestError(f"{path}: data.sheet={sheet}: there is no such sheet, but {brief(', '.join(there))}.")
    if sheet is None and len(there) > 1:
        notes.append(f"sheet {there[0]} was read; there are also (data.sheet=NAME) {brief(', '.join(there[1:]))}")
    logging.getLogger("fastexcel").setLevel(logging.ERROR)  # it warns of columns that are empty
    # All rows say what a column holds: by the first thousand, words below them would be read as missing numbers.
    frame = pl.read_excel(
        path,
        sheet_name=sheet or there[0],
        infer_schema_length=None,
        drop_empty_rows=False,  # they have numbers
        read_options={"header_row": skip},
    )
    clock = [name for name, dtype in frame.schema.items() if dtype == pl.Datetime and _is_clock(frame[name])]
    return frame.with_columns(pl.col(clock) - DAY_0)


def _is_clock(column: pl.Series) -> bool:
    """Return whether Excel's dates are all of its first days: they are times of a day, or durations."""
    return column.null_count() < len(column) and bool(column.is_between(DAY_0, DAY_0 + timedelta(60)).all())


def _decode(path: Path, raw: bytes, whole: bool) -> tuple[str, str]:
    """Return text and its encoding: UTF-8, UTF-16 with its mark, else Windows-1252, which has Latin-1's letters.

    whole  `raw` is all of the file; else its last character may be cut
    """
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw[: len(raw) // 2 * 2].decode("utf-16", errors="replace"), "utf-16"
    if any(byte in raw for byte in CONTROL):
        start = min(raw.index(byte) for byte in CONTROL if byte in raw)
        line = 1 + len(re.findall(rb"\r\n?|\n", raw[:start]))
        raise fault(path, line, f"byte {raw[start]:#04x}; this is no text. Save the table as CSV in UTF-8.")
    try:
        return raw.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError as error:
        if not whole and error.start >= len(raw) - 3:
            return raw[: error.start].decode("utf-8-sig"), "utf-8"
    return raw.decode("cp1252", errors="replace"), "Windows-1252"


def _dialect(path: Path, text: str, source: OwnTable, bare: bool) -> Dialect:
    """Return what the head of a file tells of it; raise RequestError where it names no columns."""
    skip = source.skip or 0
    lines = [(n, line) for n, line in enumerate(re.split(r"\r\n?|\n", text), 1) if n > skip and line.strip(BLANK)]
    if lines and re.match(r'\s*(\{\s*"|\[\s*[\[{]|<[!?A-Za-z])', lines[0][1]):
        raise fault(path, lines[0][0], "this is JSON, HTML or XML, and no table. Save it as CSV or Parquet.")
    stated = re.fullmatch(r'"?sep=(.)"?', lines[0][1].strip(" ")) if lines else None
    comments = [(n, line.lstrip("# ")) for n, line in lines if line.startswith("#")]
    rows = [(n, line) for n, line in lines[bool(stated) :] if not line.startswith("#")][:ROWS_SEEN]
    if not rows:
        raise RequestError(f"{path} is empty. Its line 1 names the columns: series, time, values ….")
    blanks = bare or 2 * sum(any(mark in line for mark in SEPARATORS) for _, line in rows) < len(rows)
    separator = stated[1] if stated else _separator([line for _, line in rows], SEPARATORS + " " * blanks)
    comments, rows = ([(n, _joined(line, separator)) for n, line in kind] for kind in (comments, rows))
    number, header = rows[0]
    names, notes, again = cells(path, number, header, separator), [], list[str]()
    above = [(n, cells(path, n, line, separator)) for n, line in comments if n < number]
    if all(map(LIKE_NUMBER.match, names)) and above and len(above[-1][1]) == len(names):
        names = above[-1][1]  # numpy.savetxt writes the names as a comment
    elif bare and any(map(_is_number, names)) and not source.are_names(names):
        if not all(map(_is_number, names)):
            raise fault(path, number, f"{brief(header)!r} is neither names of columns nor a point. Correct it.")
        names = [f"x{n + 1}" for n in range(len(names))]
    else:
        again, rows = [header], rows[1:]
    numbers = [bool(LIKE_NUMBER.match(name)) for name in names]
    all_like = any(numbers) and all(not name or like for name, like in list(zip(names, numbers))[1:])
    if all_like and not bare and not source.are_names(names):
        across = "; or, where these are the times and a row is a series, say data.form=across"
        raise fault(
            path,
            number,
            f"numbers, where the first line names the columns. Add it{across if hasattr(source, 'form') else ''}.",
        )
    body = [(n, cells(path, n, line, separator)) for n, line in rows]
    body = body[: len(body) - _footers([row for _, row in body], len(names))]
    if body and all(len(row) == len(names) + 1 for _, row in body):
        # Either every row ends in a separator, or R wrote the names of the rows without a name for them.
        names = [*names, ""] if not any(row[-1] for _, row in body) else ["", *names]
    units: list[str] = []
    if len(body) > 1 and not _has_number(body[0][1]) and any(body[0][1]) and _has_number(body[1][1]):
        units, notes = body[0][1], [f"line {body[0][0]} taken as a row of units"]
        again, body = [*again, rows[0][1]] if again else again, body[1:]
    first = body[0][0] - 1 if body else number
    names = _all_named(names)
    decimal, grouped = numerals.signs([cell for _, row in body for cell in row], source.decimal, separator)
    return Dialect(names, units, separator, decimal, grouped, first, again, notes)


def _footers(rows: Sequence[list[str]], width: int) -> int:
    """Return how many of the last rows are no rows of a table of `width` columns, but say something in words."""
    count = 0
    for row in reversed(rows[-MAX_FOOTERS:]):
        first, *others = row or [""]
        words = len(row) == 1 < width and first[:1].isalpha() and " " in first
        if width < 2 or not (words or (FOOTER.match(first) and (len(row) != width or not any(others)))):
            break
        count += 1
    return count


def _told_apart(names: list[str], notes: list[str]) -> list[str]:
    """Return names of columns that differ: of several of one name the second is name_1, as in Excel files."""
    apart: list[str] = []
    for name in names:
        n, new = 0, name
        while new in apart or (n and new in names):
            n, new = n + 1, f"{name}_{n + 1}"
        if n:
            notes.append(f"{len([*filter(name.__eq__, names)])} columns are named {name}: one is {new} here")
        apart.append(new)
    return apart


def cells(path: Path, line: int, text: str, separator: str) -> list[str]:
    """Return the cells of one line. None continues in the next: an open quote would take in the rest of the file."""
    try:
        row = next(csv.reader([text + "\n"], delimiter=separator), [])
    except csv.Error as error:
        raise fault(path, line, f"{error}. Shorten the cell, or take the line out.") from error
    if row and row[-1].endswith("\n"):
        raise _open_quote(path, line, row[-1])
    return [cell.strip() for cell in row]


def _open_quote(path: Path, line: int, text: str) -> RequestError:
    start = brief('"' + text.strip())
    return fault(path, line, f"the quote that opens at {start} does not close in its line. Close it, or take it out.")


def _has_number(row: Sequence[str]) -> bool:
    return any(map(LIKE_NUMBER.match, row))


def _is_number(word: str) -> bool:
    try:
        return bool(COMMA_NUMBER.fullmatch(word)) or float(word) is not None
    except ValueError:
        return False


def _joined(line: str, separator: str) -> str:
    """Return a line with one blank where there are several, if blanks separate its cells."""
    return " ".join(line.split()) if separator == " " else line


def _separator(lines: list[str], marks: str) -> str:
    """Return what separates the columns: what splits most lines as often as the first, then what splits most."""

    def score(mark: str) -> tuple[float, bool, int]:
        short = [_joined(line, mark) for line in lines if len(line) < 100_000]
        rows = [next(csv.reader([line + "\n"], delimiter=mark), []) for line in short]
        counts = list(map(len, rows))
        if not counts or counts[0] < 2:
            return -1, False, 0
        # Without names the first line tells decimal commas from those between cells: 0,5;1,2 are two numbers.
        numbers = " " in marks and all(map(_is_number, rows[0]))
        return sum(abs(count - counts[0]) <= 1 for count in counts) / len(counts), numbers, counts[0]

    return max(marks, key=score)


def _rows(path: Path, lines: pl.DataFrame, dialect: Dialect, notes: list[str]) -> pl.DataFrame:
    """Return the lines that are rows of the table; what else is passed over goes to the notes."""
    is_comment = pl.col("text").str.starts_with("#")
    passed = lines.filter(is_comment)
    if len(passed):
        notes.append(f"{len(passed)} comments (#) passed over, the first in line {passed[LINE][0]}")
    rows = lines.filter(pl.col("text").str.strip_chars(BLANK).str.len_bytes() > 0, ~is_comment)
    tail = [cells(path, n, line, dialect.separator) for n, line in rows.tail(MAX_FOOTERS).rows()]
    below = pl.int_range(pl.len()) >= len(rows) - _footers(tail, len(dialect.names))
    for what, which in (("words below the table", below), ("the names again", pl.col("text").is_in(dialect.again))):
        if len(passed := rows.filter(which)):
            where = f"line{'s' * (len(passed) > 1)} {few(passed[LINE].to_list())}"
            notes.append(f"{what}, passed over: {brief(passed['text'][0])} ({where})")
            rows = rows.filter(~which)
    return rows


def _split(path: Path, raw: bytes, dialect: Dialect) -> Cells:
    """Split all lines of a text into its cells."""
    digest = hashlib.sha256(raw).hexdigest()
    notes, separator = list(dialect.notes), dialect.separator
    text, encoding = _decode(path, raw, whole=True)
    if encoding != "utf-8":
        raw, notes = text.encode(), [*notes, f"read as {encoding}"]
    del text
    if raw.count(b"\r") != raw.count(b"\r\n"):
        raw = re.sub(rb"\r\n?", b"\n", raw)
    if separator == " ":
        raw = re.sub(rb"(?m)^ | $", b"", re.sub(rb"[ \t]+", b" ", raw))
    lines = pl.read_csv(
        raw, has_header=False, schema={"text": pl.String}, separator="\x1f", quote_char=None, row_index_name=LINE
    ).select(pl.col(LINE).cast(pl.UInt32) + 1, "text")
    lines = lines.slice(dialect.first)
    if quoted := b'"' in raw:
        odd = lines.filter(pl.col("text").str.count_matches('"', literal=True) % 2 == 1)
        if len(odd):
            line, content = odd.row(0)
            raise _open_quote(path, line, content[content.rindex('"') + 1 :])
    rows = _rows(path, lines, dialect, notes)
    plain = pl.col("text").str.replace_all('"[^"]*"', "") if quoted else pl.col("text")
    rows = rows.with_columns((plain.str.count_matches(separator, literal=True) + 1).alias("cells"))
    ragged = rows.filter(pl.col("cells") != len(dialect.names)).select(LINE, "cells", pl.lit(0, pl.UInt32).alias(FILE))
    if len(ragged):
        rows = rows.filter(pl.col("cells") == len(dialect.names))
    elif rows.is_empty():
        raise fault(
            path, dialect.first, "this names the columns, and there are no rows below it. Add some: a row is a point."
        )
    above = dialect.first
    if len(rows) < len(lines):
        raw, above = "\n".join(rows["text"]).encode(), 0
    numbers = rows[LINE]
    del lines, rows  # so that a large file is in memory twice at most
    frame = pl.read_csv(
        raw,
        has_header=False,
        skip_lines=above,
        schema={f"{n}": pl.String for n in range(len(dialect.names))},
        separator=separator,
        quote_char='"' if quoted else None,
    )
    frame = frame.with_columns(pl.lit(0, pl.UInt32).alias(FILE), numbers)
    frame.columns = [*dialect.names, FILE, LINE]
    return Cells(dialect.names, dialect.units, frame, dialect.decimal, [path], notes, ragged, digest, dialect.grouped)
