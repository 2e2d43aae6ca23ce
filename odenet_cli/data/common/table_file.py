"""Read the cells of a table from a file: text in any usual dialect, Parquet or Excel; with file and line.

Text may be compressed, by gzip or as the only member of a zip archive.

Text is read in two passes. The head determines encoding, separator, decimal sign, names and units, and whether the
requested columns exist; if it is invalid, reading stops. Then all lines are split at once (by polars).
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

import polars as pl

from odenet_cli.data.common.faults import few
from odenet_cli.data.common.places import EXCEL, find
from odenet_cli.data.common.table_cells import FILE, LINE, Cells, brief, counted_names, fault
from odenet_cli.data.common.table_dialect import (
    BLANK,
    MAX_FOOTERS,
    Dialect,
    cells,
    count_footers,
    find_dialect,
    open_quote,
    told_apart,
)
from odenet_cli.data.common.table_stored import read_stored
from odenet_cli.errors import RequestError

if TYPE_CHECKING:
    from odenet_cli.data.common.own import OwnTable

HEAD = 1 << 20  # bytes of the head
Check = Callable[[Path, list[str]], object]
CONTROL = bytes([*range(9), *range(14, 32)])


def read(source: OwnTable, check: Check, bare: bool = False) -> Cells:
    """Read the table at `data.path`, or in all files that a pattern such as `days/*.csv` finds, one below the other.

    check  is called with the path of a file and its column names before its rows are read
    bare   text may lack names; columns are then x1, x2, …

    Raises RequestError, with file and line, if it is not a table.
    """
    parts = [_read_one(source, file, check, bare)._replace(chosen=source.CHOSEN) for file in find(source.path)]
    first = parts[0]
    for other in parts[1:]:
        if sorted(other.names) != sorted(first.names) or other.decimal != first.decimal:
            raise RequestError(
                f"{other.paths[0]}: its columns are {brief(', '.join(other.names))} (decimal sign {other.decimal!r}), "
                f"and those of {first.paths[0]} {brief(', '.join(first.names))} ({first.decimal!r}). Files of the same "
                "table must have the same columns; data.decimal= sets the decimal sign."
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


def _read_one(source: OwnTable, path: Path, check: Check, bare: bool) -> Cells:
    stored = path.suffix.lower() in (".parquet", *EXCEL)
    if source.sheet is not None and path.suffix.lower() not in EXCEL:
        raise RequestError(f"{path}: data.sheet={source.sheet} is for Excel files ({', '.join(EXCEL)}); leave it out.")
    try:
        if stored:
            os.stat(path)  # which says why, where the readers of these files do not
            return read_stored(source, path, check)
        with _opened(path) as file:
            head = file.read(HEAD)
            text, _ = decode(path, head, whole=len(head) < HEAD)
            dialect = find_dialect(path, text, source, bare)
            check(path, dialect.names)
            dialect = dialect._replace(names=told_apart(dialect.names, dialect.notes))
            raw = head + file.read()
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise RequestError(f"data.path={path} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    return _split(path, raw, dialect)


def _opened(path: Path) -> IO[bytes] | gzip.GzipFile:
    """Open a file, or the content compressed in it."""
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
    except (RuntimeError, NotImplementedError) as error:  # a password, or a compression method unknown to zipfile
        raise RequestError(f"{path} cannot be unpacked: {error}. Unpack it yourself.") from error


def decode(path: Path, raw: bytes, whole: bool) -> tuple[str, str]:
    """Return text and its encoding: UTF-8, UTF-16 with a byte order mark, else Windows-1252, which contains Latin-1.

    whole  `raw` is the whole file; otherwise its last character may be incomplete
    """
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return raw[: len(raw) // 2 * 2].decode("utf-16", errors="replace"), "utf-16"
    if any(byte in raw for byte in CONTROL):
        start = min(raw.index(byte) for byte in CONTROL if byte in raw)
        line = 1 + len(re.findall(rb"\r\n?|\n", raw[:start]))
        raise fault(path, line, f"byte {raw[start]:#04x}; this is not text. Save the table as CSV in UTF-8.")
    try:
        return raw.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError as error:
        if not whole and error.start >= len(raw) - 3:
            return raw[: error.start].decode("utf-8-sig"), "utf-8"
    odd = next((run for run in re.finditer(rb"[\x80-\xff]{4,}", raw) if len({*run[0]}) > 2), None)
    if odd:  # as in Russian or Chinese; Windows-1252 has ASCII letters between the others
        line = 1 + len(re.findall(rb"\r\n?|\n", raw[: odd.start()]))
        shown = brief(odd[0].decode("cp1252", errors="replace"))
        raise fault(path, line, f"{shown!r} is not text in UTF-8 or Windows-1252. Save the table as CSV in UTF-8.")
    return raw.decode("cp1252", errors="replace"), "Windows-1252"


def _rows(path: Path, lines: pl.DataFrame, dialect: Dialect, notes: list[str]) -> pl.DataFrame:
    """Return the lines that are rows of the table; skipped lines are added to the notes."""
    is_comment = pl.col("text").str.starts_with("#")
    passed = lines.filter(is_comment)
    if len(passed):
        notes.append(f"{len(passed)} comments (#) skipped, the first in line {passed[LINE][0]}")
    rows = lines.filter(pl.col("text").str.strip_chars(BLANK).str.len_bytes() > 0, ~is_comment)
    tail = [cells(path, n, line, dialect.separator) for n, line in rows.tail(MAX_FOOTERS).rows()]
    below = pl.int_range(pl.len()) >= len(rows) - count_footers(tail, len(dialect.names))
    for what, which in (
        ("text below the table", below),
        ("repeated column names", pl.col("text").is_in(dialect.again)),
    ):
        if len(passed := rows.filter(which)):
            where = f"line{'s' * (len(passed) > 1)} {few(passed[LINE].to_list())}"
            notes.append(f"{what}, skipped: {brief(passed['text'][0])} ({where})")
            rows = rows.filter(~which)
    return rows


def _split(path: Path, raw: bytes, dialect: Dialect) -> Cells:
    """Split all lines of a text into its cells."""
    digest = hashlib.sha256(raw).hexdigest()
    notes, separator = list(dialect.notes), dialect.separator
    text, encoding = decode(path, raw, whole=True)
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
            raise open_quote(path, line, content[content.rindex('"') + 1 :])
    rows = _rows(path, lines, dialect, notes)
    plain = pl.col("text").str.replace_all('"[^"]*"', "") if quoted else pl.col("text")
    rows = rows.with_columns((plain.str.count_matches(separator, literal=True) + 1).alias("cells"))
    ragged = rows.filter(pl.col("cells") != len(dialect.names)).select(LINE, "cells", pl.lit(0, pl.UInt32).alias(FILE))
    if len(ragged):
        rows = rows.filter(pl.col("cells") == len(dialect.names))
    elif rows.is_empty():
        raise fault(
            path, dialect.first, "this line names the columns, but no rows follow. Add rows: each row is a point."
        )
    above = dialect.first
    if len(rows) < len(lines):
        raw, above = "\n".join(rows["text"]).encode(), 0
    numbers = rows[LINE]
    del lines, rows  # so that a large file is in memory at most twice
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
