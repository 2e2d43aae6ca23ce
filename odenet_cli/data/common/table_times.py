"""Columns of a table as times: numbers, dates, times of a day."""

from __future__ import annotations

import re
from datetime import datetime, time

import polars as pl

from odenet_cli.data.common.table_cells import Cells
from odenet_cli.data.common.table_dates import SERIALS, DateError, localize, moment, only_zone, parse_dates, zones_of
from odenet_cli.data.common.table_faults import Faults
from odenet_cli.data.common.table_numbers import note_decimal_sign, read_numbers, report_numbers
from odenet_cli.errors import RequestError


def read_times(
    cells: Cells, names: list[str], form: str | None, zone: str | None, faults: Faults
) -> tuple[pl.Series, str, pl.Series | None, str]:
    """Return the times, null where they are none, and what they are: "" (numbers), "date" or "clock" (of a day).

    Returns also the zones in which dates are local, None where nothing says, and the one in which they are told.
    """
    label, stored = " ".join(names), None
    column, zones = cells.frame[names[0]], None
    if len(names) > 1:
        texts = [_words(cells.frame[name]) for name in names]
        column = cells.frame.select(pl.concat_str(texts, separator=" ").alias(label))[label]
    if column.dtype == pl.Time:
        x, kind = column.cast(pl.Int64) / 1e9, "clock"
    elif column.dtype == pl.Duration:
        x, kind = column.dt.total_microseconds() / 1e6, "clock"
    elif column.dtype.is_temporal():
        x, kind = column.cast(pl.Datetime("us")).dt.epoch("us") / 1e6, "date"
        stored = getattr(column.dtype, "time_zone", None)
        if stored is None and zone:
            zones = pl.Series([zone]).new_from_index(0, len(column))
    else:
        x, kind = read_numbers(column, cells, label), ""
        note_decimal_sign(column, x, cells, label, faults)
        if form in SERIALS:
            (unit, zero), kind = SERIALS[form], "date"
            rough = form == "excel" and not (x.round(5) != x).any()  # 1e-5 d are a second
            x = ((x + zero) * unit).round() if rough else (x + zero) * unit
            zones = pl.Series([zone if form == "excel" else "UTC"], dtype=pl.String).new_from_index(0, len(x))
        elif form is not None or 2 * x.null_count() > len(x):
            text = column.cast(pl.String).str.strip_chars()
            dates, found = _read_dates(cells, label, column, text, form)
            if form is not None or dates.null_count() < x.null_count():
                x, kind = dates, found
                zones = zones_of(text, form, zone) if kind == "date" else None
    what = "is no finite number, such as -1.5 or 2e-3" if not kind else f"is no {kind} that can be read"
    remedy = "Correct it, or take the row out."
    if x.null_count() == len(x):
        what = "is neither a number nor a date that can be read"
        remedy = (
            "Say how dates are written: 'data.time_format=\"%d/%m/%y %H:%M\"'; or which column it is: data.time=NAME."
        )
    report_numbers(faults, label, column, x, x.is_null(), what, remedy)
    if zone and kind != "date":
        raise RequestError(
            f"{cells.where(0)}: {label}={column[0]!r}: data.zone={zone} is for dates. Leave it out, or say "
            "how they are written: data.time_format=."
        )
    zones = None if zones is None or zones.null_count() == len(zones) else zones
    return x, kind, zones, zone or stored or only_zone(() if zones is None else zones.unique())


def _read_dates(
    cells: Cells, label: str, column: pl.Series, text: pl.Series, form: str | None
) -> tuple[pl.Series, str]:
    """Return the dates or times of day in a column, and which of them; raise RequestError where they are ambiguous."""
    try:
        return parse_dates(text, form)
    except DateError as error:
        raise RequestError(
            f"{cells.where(0)}: {label}={column[0]!r}: {error}. Say how dates are written: data.time_format=dmy, mdy "
            "or ymd, or a pattern such as '%d/%m/%y %H:%M'."
        ) from error


def _words(column: pl.Series) -> pl.Series:
    """Return the days or times of day in a column as text, to be read beside those of another."""
    if column.dtype == pl.Datetime and (column.dt.time().drop_nulls() == time()).all():
        column = column.dt.date()
    elif column.dtype == pl.Duration:
        column = (pl.Series([datetime(1970, 1, 1)]) + column).dt.time()
    return column.cast(pl.String)


def in_utc(
    cells: Cells, names: list[str], local: pl.Series, zones: pl.Series, hour: pl.Series, faults: Faults
) -> pl.Series:
    """Return local dates in UTC; add those that do not exist, or exist twice, to the faults."""
    try:
        x, twice = localize(local, zones, hour)
    except DateError as error:
        raise RequestError(f"{cells.paths[0]}: {error}.") from error

    def say(row: int, what: str) -> str:
        return f"{' '.join(names)}={moment(local[row], 'date')} {what} (in {zones[row]})"

    again, gone = "is there twice, since clocks were put back", "is not there, since clocks were put forward"
    faults.add(twice, lambda row: say(row, again), "Say data.ambiguous=order, earliest or latest.")
    absent = x.is_null() & local.is_not_null() & ~twice
    faults.add(absent, lambda row: say(row, gone), "Correct it, or leave data.zone out.")
    return x


def check_midnight(cells: Cells, label: str, names: pl.Series, seconds: pl.Series, faults: Faults) -> None:
    """Add times of day that go past midnight: 00:15 behind 23:45 is another day, and would be sorted to its begin.

    Rows may go up or down in time; what jumps by more than half a day against their direction has passed midnight.
    """
    half = 43200
    steps = pl.DataFrame({"name": names, "t": seconds}).with_columns(pl.col("t").diff().over("name").alias("step"))
    usual = pl.when(pl.col("step").abs() <= half).then(pl.col("step").sign())
    past = (pl.col("step") * usual.sum().over("name").sign() < -half) & (pl.col("t").max() < 2 * half)

    def shown(t: float) -> str:
        return f"{int(t // 3600):02d}:{int(t % 3600 // 60):02d}"

    faults.add(
        steps.select(past.fill_null(False)).to_series(),
        lambda row: (
            f"{label}={shown(seconds[row])} is past midnight, behind {shown(seconds[row] - steps['step'][row])}"
        ),
        "Add a column of dates, data.time=[date,time], or sort the rows of each series.",
    )


def perhaps_dates(time: pl.Series, label: str) -> str:
    """Return what to say of times that may be dates: 20200131, 202001, seconds since 1970, days of Excel."""
    if time.null_count() or time.is_empty():
        return ""
    for form, low, high in (("excel", 20_000, 60_000), ("unix", 0.9e9, 2.5e9), ("unix_ms", 0.9e12, 2.5e12)):
        if time.is_between(low, high).all() and (form != "excel" or re.search("dat|fecha", label.lower())):
            return f"times such as {time[0]:.15g} taken as numbers; if they are dates: data.time_format={form}"
    if not bool(((time == time.floor()) & time.is_between(190001, 1e14)).all()):
        return ""
    text = time.cast(pl.Int64).cast(pl.String)
    if (text.n_unique() < 2) or text.str.len_bytes().n_unique() > 1 or not text.str.contains("^(19|20)").all():
        return ""
    for form, length in (("%Y%m%d%H%M%S", 14), ("%Y%m%d", 8), ("%Y%m", 6)):
        if not parse_dates(text, form)[0].null_count() and len(text[0]) == length:
            return f"times such as {text[0]} taken as numbers; if they are dates: data.time_format={form}"
    weeks = len(text[0]) == 6 and bool((time % 100).is_between(1, 53).all())
    return f"times such as {text[0]} taken as numbers; weeks are written {text[0][:4]}-W{text[0][4:]}" if weeks else ""
