"""Dates and times of day as people write them, in seconds."""

from __future__ import annotations

import re
from datetime import datetime, timezone

import polars as pl

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
PATTERN = (
    r"^\s*(?:(?<a>\d{1,4}|[A-Za-z]{3,9})(?<mark>[-/. ])(?<b>\d{1,2}|[A-Za-z]{3,9})(?:[-/., ]+(?<c>\d{1,4}))?)?"
    r"(?:(?:^|[T ,]\s*)(?<h>\d{1,5}):(?<min>\d{1,2})(?::(?<s>\d{1,2}(?:[.,]\d+)?))?\s*(?:(?<half>[AaPp])\.?[Mm]\.?)?"
    r"\s*(?<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2}|[A-Z]\w+/[\w/+-]+)?(?:\[[\w/+-]+\])?)?\s*$"
)
NAMED_ZONE = "^[A-Z]\\w+/"  # Europe/Berlin, as in the time zone database
AMBIGUOUS = ("earliest", "latest", "order")


class DateError(ValueError):
    """Say that dates can be read in more than one way."""


def parse_dates(text: pl.Series, form: str | None) -> tuple[pl.Series, str]:
    """Return seconds, null for what is no time, and what the texts are: "date" (since 1970, UTC) or "clock".

    form  a pattern of strptime, or the order of day, month and year: dmy, mdy, ymd; None: as the texts have it

    Times without a zone, or with the name of one, are taken as they stand: see `zones_of` and `localize`.

    Raises DateError where day and month cannot be told apart, or the year has two digits.
    """
    if form and "%" in form:
        return text.str.to_datetime(form, strict=False, time_unit="us").dt.epoch("us") / 1e6, "date"
    unique = text.unique(maintain_order=True)  # the first says in which order days, months and years are
    parts = unique.str.extract_groups(PATTERN).struct.unnest()
    clock = _clock(parts)
    if parts["a"].null_count() == len(parts):
        seconds, kind = clock, "clock"
    else:
        seconds, kind = _days(parts, form) * 86400.0 + clock.fill_null(0), "date"
    return text.replace_strict(unique, seconds, default=None, return_dtype=pl.Float64), kind


def zones_of(text: pl.Series, form: str | None, zone: str | None) -> pl.Series:
    """Return the name of the zone in which each time is local, null for one that needs none.

    zone  of times that state no zone or offset; None: they are UTC
    """
    if form and "%" in form:
        return pl.Series([None if "%z" in form.lower() else zone], dtype=pl.String).new_from_index(0, len(text))
    stated = text.str.extract_groups(PATTERN).struct.field("zone")
    named = stated.str.contains(NAMED_ZONE).fill_null(False)
    return pl.select(pl.when(named).then(stated).when(stated.is_null()).then(pl.lit(zone, pl.String))).to_series()


def check_zone(zone: str) -> None:
    """Raise DateError for a name that is not in the time zone database."""
    try:
        pl.Series([0]).cast(pl.Datetime("us")).dt.replace_time_zone(zone)
    except pl.exceptions.PolarsError as error:
        hint = re.search(r"did you mean '(.+?)'", str(error))
        raise DateError(
            f"{zone} is no name of a time zone, such as Europe/Berlin{f'. Did you mean {hint[1]}?' if hint else ''}"
        ) from error


def localize(seconds: pl.Series, zones: pl.Series, hour: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Return local times as seconds since 1970 in UTC, null for those that do not exist, or exist twice.

    zones  names, null for times in UTC
    hour   which of the two is meant where clocks were put back: earliest, latest or null

    Returns also which times exist twice and are not told apart.
    """
    frame = pl.DataFrame({"x": (seconds * 1e6).round().cast(pl.Int64).cast(pl.Datetime("us")), "zone": zones})
    frame = frame.with_columns(seconds.alias("utc"), hour.alias("hour"), pl.lit(False).alias("twice"))
    for zone in zones.drop_nulls().unique():
        check_zone(zone)

        def epoch(hour: pl.Expr | str, zone: str = zone) -> pl.Expr:
            there = pl.col("x").dt.replace_time_zone(zone, ambiguous=hour, non_existent="null")  # type: ignore[arg-type]
            return there.dt.epoch("us") / 1e6

        here = pl.col("zone") == zone
        known = epoch(pl.col("hour"))
        frame = frame.with_columns(
            pl.when(here).then(known).otherwise("utc").alias("utc"),
            pl.when(here).then(known.is_null() & epoch("earliest").is_not_null()).otherwise("twice").alias("twice"),
        )
    return frame["utc"], frame["twice"]


def which_hour(series: pl.Series, seconds: pl.Series, ambiguous: str | None) -> pl.Series:
    """Return earliest, latest or null (as text) for each local time, by `data.ambiguous`.

    order: of two rows of a series at one local time the first is the earlier.
    """
    frame = pl.DataFrame({"series": series, "x": seconds})
    if ambiguous != "order":
        return pl.Series([ambiguous or "null"]).new_from_index(0, len(frame))
    nth, count = pl.int_range(pl.len()).over("series", "x"), pl.len().over("series", "x")
    pair = pl.when(count != 2).then(pl.lit("null")).when(nth == 0).then(pl.lit("earliest"))
    return frame.select(pair.otherwise(pl.lit("latest")).alias("hour"))["hour"]


def _clock(parts: pl.DataFrame) -> pl.Series:
    """Return seconds since midnight in UTC; null without hours."""
    number = pl.Float64
    hours, minutes = (parts[key].cast(number) for key in ("h", "min"))
    seconds = parts["s"].str.replace(",", ".", literal=True).cast(number).fill_null(0)
    half = parts["half"].str.to_lowercase()
    shift = pl.select(pl.when(half == "p").then(12.0).when(half == "a").then(0.0)).to_series()
    hours = pl.select(pl.when(shift.is_null()).then(hours).otherwise(hours % 12 + shift)).to_series()
    zone = parts["zone"].str.replace(":", "", literal=True)
    zone = pl.select(pl.when(~zone.str.contains(NAMED_ZONE)).then(zone)).to_series()
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
    if not form:
        # A row whose year has another length than the first one's is in another order: no date, and not another day.
        key = "a" if orders == ["ymd"] else "c"
        other = parts[key].str.len_bytes() != len(first[key] or "")
        days = [column.set(other.fill_null(False), None) for column in days]
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


def moment(t: float, dates: str, zone: str = "") -> str:
    """Return a time as it is read: a date (UTC, or in `zone`), a time of day, or a number, by a table's `dates`."""
    if dates != "date":
        return length(t, dates)
    if zone:
        there = pl.Series([round(t * 1e6)]).cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(zone)
        return str(there.dt.strftime("%Y-%m-%d %H:%M:%S%:z")[0])
    return datetime.fromtimestamp(t, timezone.utc).strftime("%Y-%m-%d %H:%M:%S").removesuffix(" 00:00:00")


def length(seconds: float, dates: str) -> str:
    """Return a duration, of dates in the largest unit that it fills."""
    if not dates:
        return f"{seconds:g}"
    size, unit = next(((size, unit) for size, unit in LENGTHS if abs(seconds) >= size), LENGTHS[-1])
    return f"{seconds / size:.4g} {unit}"
