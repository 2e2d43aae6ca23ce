"""Which columns of a table are what, by their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from odenet_cli.data.common.table_file import brief, fault
from odenet_cli.errors import RequestError

SERIES = ("series", "id")  # names that are looked for; where there are several, the first
TIME = ("time", "t", "date", "datetime", "timestamp")


class Columns(NamedTuple):
    """Hold which columns are what.

    series  whose cells name the series; none: the file is the series
    time    whose cells, with a blank between them, are the time
    values  all that may be values
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


def choose(
    path: Path,
    names: list[str],
    series: Sequence[str] | None,
    time: Sequence[str] | None,
    values: Sequence[str] | None,
    controls: Sequence[str] | None,
    static: Sequence[str] | None,
    wide: bool,
) -> Columns:
    """Return which of the columns are what, by their names; raise RequestError where one that is needed is not there.

    A `T` is no time: it may be a temperature.
    """
    nameless = [n for n, name in enumerate(names) if not name]
    if len(nameless) > 1:
        raise fault(path, 1, f"column {nameless[1] + 1} of {len(names)} has no name. Name it, or take it out.")
    folded = [name.lower() if name != "T" else name for name in names]
    for n, name in enumerate(folded):
        if name and name in folded[:n] and (name in (*SERIES, *TIME) or names[n] in names[:n]):
            first = folded.index(name) + 1
            raise fault(path, 1, f"columns {first} and {n + 1} are both named {names[n]}. Rename one of them.")
    roles = {"series": series, "time": time, "values": values, "controls": controls, "static": static}
    _check_roles(path, names, roles)
    if time is None:
        found = next((names[folded.index(key)] for key in TIME if key in folded), None)
        if found is None:
            raise RequestError(
                f"{path}: no column is named time (or {', '.join(TIME[1:])}); there are {brief(', '.join(names))}. "
                "Say which one it is: data.time=NAME."
            )
        time = [found]
        if found.lower() == "time" and "date" in folded and not values:  # a day and, beside it, the time of the day
            time = [names[folded.index("date")], found]
    if series is None and not wide:
        series = next(
            ([names[folded.index(key)]] for key in SERIES if key in folded and names[folded.index(key)] not in time), []
        )
    series = list(series or [])
    known = [*(controls or ()), *(static or ())]
    rest = [name for name in names if not is_row_number(name) and name not in (*series, *time, *known)]
    chosen = list(values) if values else rest
    if not chosen:
        raise RequestError(
            f"{path}: {brief(', '.join(names))} are all columns; there must be one of values beside them."
        )
    return Columns(series, list(time), chosen, stated=bool(values), known=known, static=list(static or ()))


def _check_roles(path: Path, names: list[str], roles: Mapping[str, Sequence[str] | None]) -> None:
    """Raise RequestError for a column that is not there, or a control that is something else too."""
    taken: dict[str, str] = {}
    for key, wanted in roles.items():
        for name in wanted or ():
            if name not in names:
                raise RequestError(
                    f"{path}: data.{key}={name}: there is no such column, but {brief(', '.join(names))}."
                )
            if key in ("controls", "static") and name in taken:
                raise RequestError(f"{path}: {name} is in data.{taken[name]} and in data.{key}; take it out of one.")
            taken[name] = key


def is_row_number(name: str) -> bool:
    """Return whether a column has the name that R and pandas give to the numbers of rows."""
    return not name or name.startswith("Unnamed: ")
