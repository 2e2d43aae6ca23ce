"""Read columns of a table as times: numbers, dates, or times of day."""

from __future__ import annotations

import re
from datetime import datetime, time

import polars as pl

from odenet_cli.data.common.table_cells import Cells
from odenet_cli.data.common.table_dates import SERIALS, localize, moment, only_zone, parse_dates, zones_of
from odenet_cli.data.common.table_faults import Faults
from odenet_cli.data.common.table_numbers import note_decimal_sign, read_numbers, report_numbers
from odenet_cli.data.common.table_patterns import DateError
from odenet_cli.errors import RequestError

CALENDAR = -62_135_596_800, 253_402_300_799  # seconds since 1970 of the years 1 to 9999


def read_times(
    cells: Cells, names: list[str], form: str | None, zone: str | None, faults: Faults
) -> tuple[pl.Series, str, pl.Series | None, str]:
    """Return the times, null for other cells, and their kind: "" (numbers), "date" or "clock" (times of day).

    Also returns the zones of dates, None if unknown, and the zone in which dates are written.
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
            places = None if form != "excel" else 3 if (x.round(5) != x).any() else 0  # 1e-5 d is about a second
            x = (x + zero) * unit if places is None else ((x + zero) * unit).round(places)
            x = x.set(~x.is_between(*CALENDAR).fill_null(True), None)
            zones = pl.Series([zone if form == "excel" else "UTC"], dtype=pl.String).new_from_index(0, len(x))
        elif form is not None or 2 * x.null_count() > len(x):
            text = column.cast(pl.String).str.strip_chars()
            dates, found, stated = _read_dates(cells, label, column, text, form, zone)
            if form is not None or dates.null_count() < x.null_count():
                x, kind, zones = dates, found, stated
    what, remedy = _unread(form, kind, x.null_count() == len(x))
    report_numbers(faults, label, column, x, x.is_null(), what, remedy)
    if zone and kind != "date":
        raise RequestError(
            f"{cells.where(0)}: {label}={column[0]!r}: data.zone={zone} only applies to dates. Leave it out, or set "
            "the format of the dates: data.time_format=."
        )
    zones = None if zones is None or zones.null_count() == len(zones) else zones
    return x, kind, zones, zone or stored or only_zone(() if zones is None else zones.unique())


def _unread(form: str | None, kind: str, nothing: bool) -> tuple[str, str]:
    """Return the error and the remedy for a cell that is not a time; `nothing`: no cell is one."""
    kinds = {"": "finite number, such as -1.5 or 2e-3", "date": "date that can be read", "clock": "time of day"}
    what, remedy = f"is not a {kinds[kind]}", "Correct it, or delete the row."
    if form in SERIALS:
        remedy = f"Correct it, or data.time_format={form}: excel counts days, unix seconds, unix_ms milliseconds."
    elif "%" in (form or ""):
        remedy = (
            f"Correct it, or data.time_format={form}, by which %Y has four digits, %y two, and numbers side by side "
            "have all of theirs: 0930 is %H%M, 930 is not."
        )
    elif nothing:
        what = "is neither a number nor a date that can be read"
        remedy = (
            "Set the format of the dates: 'data.time_format=\"%d/%m/%y %H:%M\"'; or the column of times: "
            "data.time=NAME."
        )
    elif kind == "date":
        remedy = "Correct it, delete the row, or set one format for all: 'data.time_format=\"%Y %j\"'."
    return what, remedy


def _read_dates(
    cells: Cells, label: str, column: pl.Series, text: pl.Series, form: str | None, zone: str | None
) -> tuple[pl.Series, str, pl.Series | None]:
    """Return the dates or times of day in a column, their kind, and the zones of dates.

    Raises RequestError if they are ambiguous.
    """
    try:
        x, kind = parse_dates(text, form)
        return x, kind, zones_of(text, form, zone) if kind == "date" else None
    except DateError as error:
        how = " Set the format of the dates: data.time_format=dmy, mdy or ymd, or a pattern such as '%d/%m/%y %H:%M'."
        remedy = "" if "%" in (form or "") else how
        raise RequestError(f"{cells.where(0)}: {label}={column[0]!r}: {error}.{remedy}") from error


def _words(column: pl.Series) -> pl.Series:
    """Return the days or times of day in a column as text, to be joined with those of another column."""
    if column.dtype == pl.Datetime and (column.dt.time().drop_nulls() == time()).all():
        column = column.dt.date()
    elif column.dtype == pl.Duration:
        column = (pl.Series([datetime(1970, 1, 1)]) + column).dt.time()
    return column.cast(pl.String)


def in_utc(
    cells: Cells, names: list[str], local: pl.Series, zones: pl.Series, hour: pl.Series, faults: Faults
) -> pl.Series:
    """Convert local dates to UTC; add those that do not exist, or exist twice, to the faults."""
    try:
        x, twice = localize(local, zones, hour)
    except DateError as error:
        raise RequestError(f"{cells.paths[0]}: {error}.") from error

    def say(row: int, what: str) -> str:
        return f"{' '.join(names)}={moment(local[row], 'date')} {what} (in {zones[row]})"

    again, gone = "exists twice, since clocks were put back", "does not exist, since clocks were put forward"
    faults.add(twice, lambda row: say(row, again), "Set data.ambiguous=order, earliest or latest.")
    absent = x.is_null() & local.is_not_null() & ~twice
    faults.add(absent, lambda row: say(row, gone), "Correct it, or leave out data.zone.")
    return x


def check_midnight(label: str, names: pl.Series, seconds: pl.Series, faults: Faults) -> None:
    """Add as faults times of day that pass midnight: 00:15 after 23:45 is another day, but would be sorted first.

    Rows may be in ascending or descending order; a jump of more than half a day in the other direction passes midnight.
    """
    half = 43200
    steps = pl.DataFrame({"name": names, "t": seconds}).with_columns(pl.col("t").diff().over("name").alias("step"))
    usual = pl.when(pl.col("step").abs() <= half).then(pl.col("step").sign())
    past = (pl.col("step") * usual.sum().over("name").sign() < -half) & (pl.col("t").max() < 2 * half)

    def shown(t: float) -> str:
        return f"{int(t // 3600):02d}:{int(t % 3600 // 60):02d}"

    faults.add(
        steps.select(past.fill_null(False)).to_series(),
        lambda row: f"{label}={shown(seconds[row])} is past midnight, after {shown(seconds[row] - steps['step'][row])}",
        "Add a column of dates, data.time=[date,time], or sort the rows of each series.",
    )


def perhaps_dates(time: pl.Series, label: str) -> str:
    """Return a note on times that may be dates: 20200131, 202001, seconds since 1970, days of Excel."""
    if time.null_count() or time.is_empty():
        return ""
    note = f"times such as {time[0]:.15g} read as numbers; "
    whole = bool(((time == time.floor()) & time.is_between(190001, 1e14)).all())
    text = time.cast(pl.Int64).cast(pl.String) if whole else pl.Series([""])
    if whole and text.n_unique() > 1 and text.str.contains("^(19|20)").all():
        for form in ("%Y%m%d%H%M%S", "%Y%m%d%H%M", "%Y%m%d%H", "%Y%m%d", "%Y%m"):
            if not parse_dates(text, form)[0].null_count():
                return f"{note}if they are dates, set data.time_format={form}"
        if text.str.len_bytes().eq(6).all() and bool((time % 100).is_between(1, 53).all()):
            return f"{note}weeks are written {text[0][:4]}-W{text[0][4:]}"
    for form, low, high in (("excel", 20_000, 60_000), ("unix", 0.9e9, 2.5e9), ("unix_ms", 0.9e12, 2.5e12)):
        if time.is_between(low, high).all() and (form != "excel" or re.search("dat|fecha", label.lower())):
            return f"{note}if they are dates, set data.time_format={form}"
    return ""
