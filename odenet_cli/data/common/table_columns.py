"""Determine the roles of a table's columns from their names."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from odenet_cli.data.common.table_across import SERIES, TIME, YEAR, times_across, turned_names
from odenet_cli.data.common.table_cells import brief, fault
from odenet_cli.errors import RequestError

if TYPE_CHECKING:
    from odenet_cli.data.table import Source


class Columns(NamedTuple):
    """Hold the roles of columns.

    series  columns whose cells name the series; empty: the file is the series
    time    columns whose cells, joined by a blank, are the time
    values  all columns that may be values
    stated  the values were chosen by name, and must be numbers
    known   controls and static columns, by name
    static  those of them that do not change within a series
    """

    series: list[str]
    time: list[str]
    values: list[str]
    stated: bool
    known: list[str]
    static: list[str]


def check_head(source: Source, path: Path, names: list[str]) -> None:
    """Raise RequestError if a required column is missing from the names."""
    times = times_across(source, names)
    if source.form == "across" and not times:
        raise RequestError(
            f"{path}: data.form=across: no column name is a time. Columns: {brief(', '.join(names))}. Set the format "
            "of times: data.time_format=."
        )
    check_names(path, names, times)
    choose(source, path, turned_names(names, times) if times else names, bool(times))


def choose(source: Source, path: Path, names: list[str], across: bool) -> Columns:
    """Return the roles of the columns from their names; raise RequestError if a required column is missing.

    `T` is not taken for a time, since it may be a temperature.

    across  the last two columns are the times that were column names, and the values; the first one is the series
    """
    roles: dict[str, Any] = {key: getattr(source, key) for key in ("series", "time", "values", "controls", "static")}
    series, time, values, controls, static = roles.values()
    folded = [name.lower() if name != "T" else name for name in names]
    check_names(path, folded, (*SERIES, *TIME))
    check_names(path, names, [name for key in roles.values() for name in key or ()])
    _check_roles(path, names, {**roles, "variable": source.variable and [source.variable]})
    if time is None:
        found = next((names[folded.index(key)] for key in TIME if key in folded), None)
        if found is None:
            raise RequestError(
                f"{path}: no column is named time (or {', '.join(TIME[1:])}). Columns: {brief(', '.join(names))}. Set "
                "the column of times: data.time=NAME, or several: data.time=[DAY,HOUR]; the number of lines above the "
                "names: data.skip=LINES; or, if each row is a series and the columns are its times, data.form=across."
            )
        time = [found]
        day = next((key for key in ("date", *[YEAR] * across) if key in folded), None)
        if found.lower() == "time" and day and not values:  # columns of a day and of the time of day
            time = [names[folded.index(day)], found]
    if series is None and source.form != "wide":
        series = next(
            ([names[folded.index(key)]] for key in SERIES if key in folded and names[folded.index(key)] not in time), []
        )
    known = [*(controls or ()), *(static or ())]
    if across and not series:
        series = [name for name in names[:-2] if name not in (*time, *known, source.variable, source.split)][:1]
    series = list(series or [])
    rest = [name for name in names if not is_row_number(name) and name not in (*series, *time, *known)]
    chosen = list(values) if values else names[-1:] if across else rest
    if not chosen:
        raise RequestError(f"{path}: {brief(', '.join(names))} are all columns; there must also be a column of values.")
    chosen = [name for name in chosen if name not in (source.split, source.variable)]
    return Columns(series, list(time), chosen, stated=bool(values), known=known, static=list(static or ()))


def check_names(path: Path, names: Sequence[str], wanted: Collection[str]) -> None:
    """Raise RequestError for two columns with the same requested name; other names are made distinct (`table_file`)."""
    for n, name in enumerate(names):
        first = names.index(name)
        if first < n and name in wanted:
            raise fault(path, 1, f"columns {first + 1} and {n + 1} are both named {name}. Rename one of them.")


def _check_roles(path: Path, names: list[str], roles: Mapping[str, Sequence[str] | None]) -> None:
    """Raise RequestError for a column that does not exist, or a control that has another role too."""
    taken: dict[str, str] = {}
    for key, wanted in roles.items():
        for name in wanted or ():
            if name not in names:
                raise RequestError(
                    f"{path}: data.{key}={name}: there is no such column. Available: {brief(', '.join(names))}."
                )
            if key in ("controls", "static") and name in taken:
                raise RequestError(f"{path}: {name} is in data.{taken[name]} and in data.{key}; remove it from one.")
            taken[name] = key


def is_row_number(name: str) -> bool:
    """Return whether a column has the name that R and pandas give to row numbers."""
    return not name or name.startswith("Unnamed: ")
