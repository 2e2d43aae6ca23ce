"""Dates and times of day as people write them, in seconds."""

from __future__ import annotations

from datetime import datetime, timezone

import polars as pl

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
ORDERS = ("ymd", "dmy", "mdy")
PATTERN = (
    r"^\s*(?:(?<a>\d{1,4}|[A-Za-z]{3,9})(?<mark>[-/. ])(?<b>\d{1,2}|[A-Za-z]{3,9})(?:[-/., ]+(?<c>\d{1,4}))?)?"
    r"(?:(?:^|[T ,]\s*)(?<h>\d{1,5}):(?<min>\d{1,2})(?::(?<s>\d{1,2}(?:[.,]\d+)?))?\s*(?:(?<half>[AaPp])\.?[Mm]\.?)?"
    r"\s*(?<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2})?)?\s*$"
)


class DateError(ValueError):
    """Say that dates can be read in more than one way."""


def parse_dates(text: pl.Series, form: str | None) -> tuple[pl.Series, str]:
    """Return seconds, null for what is no time, and what the texts are: "date" (since 1970, UTC) or "clock".

    form  a pattern of strptime, or the order of day, month and year: dmy, mdy, ymd; None: as the texts have it, whose
          times without a zone are taken as they stand

    Raises DateError where day and month cannot be told apart, or the year has two digits.
    """
    if form and "%" in form:
        return text.str.to_datetime(form, strict=False, time_unit="us").dt.epoch("us") / 1e6, "date"
    unique = text.unique()
    parts = unique.str.extract_groups(PATTERN).struct.unnest()
    clock = _clock(parts)
    if parts["a"].null_count() == len(parts):
        seconds, kind = clock, "clock"
    else:
        seconds, kind = _days(parts, form) * 86400.0 + clock.fill_null(0), "date"
    return text.replace_strict(unique, seconds, default=None, return_dtype=pl.Float64), kind


def _clock(parts: pl.DataFrame) -> pl.Series:
    """Return seconds since midnight in UTC; null without hours."""
    number = pl.Float64
    hours, minutes = (parts[key].cast(number) for key in ("h", "min"))
    seconds = parts["s"].str.replace(",", ".", literal=True).cast(number).fill_null(0)
    half = parts["half"].str.to_lowercase()
    shift = pl.select(pl.when(half == "p").then(12.0).when(half == "a").then(0.0)).to_series()
    hours = pl.select(pl.when(shift.is_null()).then(hours).otherwise(hours % 12 + shift)).to_series()
    zone = parts["zone"].str.replace(":", "", literal=True)
    offset = (
        zone.str.slice(1, 2).cast(number, strict=False) * 60 + zone.str.slice(3, 2).cast(number, strict=False)
    ) * 60
    sign = zone.str.starts_with("-").cast(number) * -2 + 1
    return hours * 3600 + minutes * 60 + seconds - (sign * offset).fill_null(0)


def _days(parts: pl.DataFrame, form: str | None) -> pl.Series:
    """Return days since 1970."""
    a, b, c = (parts[key] for key in "abc")
    first = parts.drop_nulls("a").row(0, named=True)
    if not first["a"].isdigit():
        orders = ["mdy"]
    elif not first["b"].isdigit():
        orders = ["ymd"] if len(first["a"]) == 4 else ["dmy"]
    elif len(first["a"]) == 4:
        orders = ["ymd"]
    else:
        orders = [form] if form else ["dmy"] if first["mark"] == "." else ["dmy", "mdy"]
        if not form and len(first["c"] or "") < 4:
            raise DateError("the year has two digits")
    columns = {"ymd": (a, b, c.fill_null("1")), "dmy": (c, b, a), "mdy": (c, a, b)}
    days = [_epoch_days(*columns[order]) for order in orders]
    if len(days) == 2 and days[0].null_count() == days[1].null_count() and not days[0].equals(days[1]):
        raise DateError("day and month can be taken for each other")
    return min(days, key=lambda column: column.null_count())


def _epoch_days(year: pl.Series, month: pl.Series, day: pl.Series) -> pl.Series:
    short = month.str.slice(0, 3).str.to_lowercase()
    number = short.replace_strict(dict(zip(MONTHS, map(str, range(1, 13)))), default=month)
    full = year.cast(pl.Int32, strict=False)
    full = pl.select(
        pl.when(year.str.len_bytes() > 2).then(full).when(full < 70).then(full + 2000).otherwise(full + 1900)
    ).to_series()
    text = full.cast(pl.String) + "-" + number + "-" + day
    return text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Int32).cast(pl.Float64)


LENGTHS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def moment(t: float, dates: str) -> str:
    """Return a time as it is read: a date in UTC, a duration of a day, or a number, by `dates` of a table."""
    if dates != "date":
        return length(t, dates)
    return datetime.fromtimestamp(t, timezone.utc).strftime("%Y-%m-%d %H:%M:%S").removesuffix(" 00:00:00")


def length(seconds: float, dates: str) -> str:
    """Return a duration, of dates in the largest unit that it fills."""
    if not dates:
        return f"{seconds:g}"
    size, unit = next(((size, unit) for size, unit in LENGTHS if abs(seconds) >= size), LENGTHS[-1])
    return f"{seconds / size:.4g} {unit}"
