"""Tables in which each row is a series and the names of columns are times: meter, city, 00:00, 00:15 …"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import polars as pl

from odenet_cli.data.common.table_cells import FILE, LINE, Cells
from odenet_cli.data.common.table_dates import month_of, parse_dates
from odenet_cli.data.common.table_patterns import DateError

if TYPE_CHECKING:
    from odenet_cli.data.table import Source

YEAR = "year"  # name of the column of years beside columns of months
SERIES = ("series", "id")  # recognised names of a column of series; the first one counts
TIME = ("time", "t", "date", "datetime", "timestamp")  # recognised names of a column of times
TURNED = ["time", "value"]  # columns that replace the columns of times
UNNAMED = "line"  # column that identifies the series if the first line contains only times


def times_across(source: Source, names: Sequence[str]) -> list[str]:
    """Return the names of columns that are times, if each row is a series; empty if each row is a point.

    Without the option a row is not taken for a series if there is a column of times, or if the names are numbers, which
    may be those of sensors.
    """
    if source.form not in (None, "across"):
        return []
    asked = source.form is not None
    if not asked and (source.time or {name.lower() for name in names} & {*TIME}):
        return []
    text = pl.Series(names, dtype=pl.String)
    numbers = text.cast(pl.Float64, strict=False).is_not_null()
    if asked and numbers.any():
        return text.filter(numbers).to_list()
    months = [name for name in names if month_of(name).isdigit()]
    if len(months) > 1 and (asked or YEAR in map(str.lower, names)):
        return months
    if source.time_format is None:
        text = pl.Series([name for name in text.filter(~numbers) if _like_date(name)], dtype=pl.String)
    try:
        found = text.filter(parse_dates(text, source.time_format)[0].is_not_null()).to_list() if len(text) else []
    except DateError:  # they are dates, and reading them reports the problem
        found = text.to_list()
    if asked and not found and source.time_format is None:
        return _counted(names)
    return found if asked or len(found) > 1 else []


def _counted(names: Sequence[str]) -> list[str]:
    """Return the names that count times by a number after the most common word: W0, W1 … or d_1, d_2 …."""
    found = [re.fullmatch(r"([^\W\d]+[ _.-]?)\d+", name) for name in names]
    words = [match[1] for match in found if match and not month_of(match[1].strip(" _.-")).isdigit()]
    word = max(words, key=words.count, default="")
    return [match[0] for match in found if match and match[1] == word] if words.count(word) > 1 else []


def _like_date(name: str) -> bool:
    """Return whether a name begins with a number or the name of a month."""
    return name[:1].isdigit() or month_of(name.replace("-", " ").split(" ")[0]).isdigit()


def turned_names(names: Sequence[str], times: Collection[str]) -> list[str]:
    """Return the names of the columns, with two columns in place of all columns of times."""
    return [*(name for name in names if name not in times), *TURNED]


def turned(source: Source, cells: Cells) -> Cells:
    """Return the cells of a table; if column names are times, with one row for each cell below them.

    If no other column can name the series, its line does, with the file's name if there are several files.
    """
    times = times_across(source, cells.names)
    if not times:
        return cells
    names, (time, value), frame = turned_names(cells.names, times), TURNED, cells.frame
    if names == TURNED and len(frame) > len(cells.paths):
        line, names = frame[LINE].cast(pl.String), [UNNAMED, *TURNED]
        line = cells.file_names() + ":" + line if len(cells.paths) > 1 else line
        frame = frame.with_columns(line.alias(UNNAMED))
    frame = frame.unpivot(times, index=[*names[:-2], FILE, LINE], variable_name=time, value_name=value)
    if _counted(times) == times:
        frame = frame.with_columns(pl.col(time).str.extract(r"(\d+)$"))
    return cells._replace(names=names, units=[], frame=frame, turned=True)
