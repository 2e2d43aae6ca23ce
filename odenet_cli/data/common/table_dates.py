"""Parse dates and times of day as people write them, to seconds."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from datetime import date, datetime, timezone

import polars as pl

from odenet_cli.data.common.table_patterns import DateError, parse_pattern, zone_of

MONTHS = (  # in English, German, French, Spanish, Italian, Portuguese and Dutch
    "january januar janner janvier enero gennaio janeiro januari",
    "february februar fevrier febrero febbraio fevereiro februari",
    "march marz mrz mars marzo marco maart mrt",
    "april avril abril aprile",
    "may mai mayo maggio maio mei",
    "june juni juin junio giugno junho",
    "july juli juillet julio luglio julho",
    "august aout agosto augustus",
    "september septembre septiembre settembre setembro",
    "october oktober octobre octubre ottobre outubro",
    "november novembre noviembre novembro",
    "december dezember decembre diciembre dicembre dezembro",
)
PATTERN = (
    r"^\s*(?:(?i:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+)?"
    r"(?:(?<a>\d{1,4}|\p{L}{3,10})(?<mark>\.?\s|[-/.])(?<b>\d{1,2}|\d{4}|\p{L}{3,10})\.?(?:[-/., ]+(?<c>\d{1,4}))?)?"
    r"(?:(?:^|[T ,]\s*)(?<h>\d{1,5}):(?<min>\d{1,2})(?::(?<s>\d{1,2}(?:[.,]\d+)?))?\s*(?:(?<half>[AaPp])\.?[Mm]\.?)?"
    r"\s*(?<zone>Z|UTC|GMT|[+-]\d{2}:?\d{2}|[A-Z]\w+/[\w/+-]+)?(?:\[[\w/+-]+\])?)?\s*$"
)
NAMED_ZONE = "^[A-Z]\\w+/"  # a name in the time zone database, such as Europe/Berlin
# Weeks (meaning their Monday), quarters, dates without separators, and days before a duration.
OTHERWISE = r"^\s*(\d{4}([ -]?Q\d|-?W\d{1,2}(-?\d)?)|\d{8}T\d.*|\d+ days?,? .*)\s*$"
# Numbers that are dates, by `data.time_format`: seconds per unit, and the offset that maps 1970 to 0.
SERIALS = {"excel": (86400.0, -25569.0), "unix": (1.0, 0.0), "unix_ms": (1e-3, 0.0)}
ORDERS = ("dmy", "mdy", "ymd")
AMBIGUOUS = ("earliest", "latest", "order")


def parse_dates(text: pl.Series, form: str | None) -> tuple[pl.Series, str]:
    """Return seconds, null if a text is no time, and the kind of the texts: "date" (since 1970, UTC) or "clock".

    form  a pattern of strptime, or the order of day, month and year: dmy, mdy, ymd; None: determined by the texts

    Times without a zone, or with the name of one, are not converted: see `zones_of` and `localize`.

    Raises DateError if day and month are ambiguous, or the year has two digits, and for an invalid pattern.
    """
    if form and "%" in form:
        return parse_pattern(text, form)
    unique = text.unique(maintain_order=True)  # the first determines the order of day, month and year
    parts = _parts(unique)
    clock = _clock(parts)
    if parts["a"].null_count() == len(parts):
        seconds, kind = clock, "clock"
    else:
        seconds, kind = _days(parts, form) * 86400.0 + clock.fill_null(0), "date"
    return text.replace_strict(unique, seconds, default=None, return_dtype=pl.Float64), kind


def are_dates(column: pl.Series) -> bool:
    """Return whether most cells of a column without numbers are dates or times of day."""
    if column.dtype != pl.String:
        return column.dtype.is_temporal()
    words = column.head(1000).unique(maintain_order=True)  # the first determines the order of day and month
    try:
        seconds, kind = parse_dates(words, None)
    except DateError:  # in an unknown order: 01/02/2020; but 18-25 are numbers
        seconds, kind = words.str.extract(r"^\s*(\d+)[-/.]\d+[-/.]\d+"), "date"
    clear = kind == "date" or bool(words.str.contains(r"\d:\d\d").all())  # 16:9 is not a time
    return clear and 2 * seconds.null_count() < len(words)


def zones_of(text: pl.Series, form: str | None, zone: str | None) -> pl.Series:
    """Return the name of each time's zone, UTC if it states its offset, null if it is unknown.

    zone  of times that state no zone or offset; None: they are taken to be UTC

    Raises DateError if texts of a pattern have the abbreviation of a zone, and `zone` is None.
    """
    if form and "%" in form:
        return pl.Series([zone_of(text, form, zone)], dtype=pl.String).new_from_index(0, len(text))
    unique = text.unique(maintain_order=True)
    stated = text.replace_strict(unique, _parts(unique)["zone"], default=None, return_dtype=pl.String)
    named = stated.str.contains(NAMED_ZONE).fill_null(False)
    other = pl.when(stated.is_null()).then(pl.lit(zone, pl.String)).otherwise(pl.lit("UTC"))
    return pl.select(pl.when(named).then(stated).otherwise(other)).to_series()


def check_zone(zone: str) -> None:
    """Raise DateError for a name that is not in the time zone database."""
    try:
        pl.Series([0]).cast(pl.Datetime("us")).dt.replace_time_zone(zone)
    except pl.exceptions.PolarsError as error:
        hint = re.search(r"did you mean '(.+?)'", str(error))
        raise DateError(
            f"{zone} is not the name of a time zone, such as "
            f"Europe/Berlin{f'. Did you mean {hint[1]}?' if hint else ''}"
        ) from error


def localize(seconds: pl.Series, zones: pl.Series, hour: pl.Series) -> tuple[pl.Series, pl.Series]:
    """Convert local times to seconds since 1970 in UTC, null for those that do not exist or exist twice.

    zones  names, null for times in UTC
    hour   choice for times that exist twice because clocks were put back: earliest, latest or null

    Also returns which times exist twice and remain ambiguous.
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

    With `order`, the first of two rows of a series with the same local time is the earlier one.
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


def _parts(texts: pl.Series) -> pl.DataFrame:
    """Return the groups of `PATTERN` in each text, null if it is neither a date nor a time of day."""
    if texts.str.contains(OTHERWISE).any():
        texts = pl.Series([text and _respelled(text.strip()) for text in texts], dtype=pl.String)
    return texts.str.extract_groups(PATTERN).struct.unnest()


def _respelled(text: str) -> str | None:
    """Rewrite a week, a quarter, a date without separators, or days and hours in the form matched by `PATTERN`."""
    if found := re.fullmatch(r"(\d{4})[ -]?Q([1-4])", text):
        return f"{found[1]}-{3 * int(found[2]) - 2}-1"
    if found := re.fullmatch(r"(\d{4})-?W(\d{1,2})(?:-?(\d))?", text):
        try:
            return date.fromisocalendar(int(found[1]), int(found[2]), int(found[3] or 1)).isoformat()
        except ValueError:
            return None
    if found := re.fullmatch(r"(\d{4})(\d\d)(\d\d)T(\d\d):?(\d\d)(:?)(\d\d)?(.*)", text):
        year, month, day, hour, minute, _, second, rest = found.groups()
        return f"{year}-{month}-{day} {hour}:{minute}:{second or '00'}{rest}"
    if found := re.fullmatch(r"(\d+) days?,? (\d+)(:.*)", text):
        return f"{24 * int(found[1]) + int(found[2])}{found[3]}"
    return text


def month_of(word: str) -> str:
    """Return the number of a month for its name or at least the first three letters of it; else the word."""
    plain = unicodedata.normalize("NFKD", word.lower()).encode("ascii", "ignore").decode()
    found = {n for n, names in enumerate(MONTHS, 1) if any(name.startswith(plain) for name in names.split())}
    return str(found.pop()) if len(found) == 1 and len(plain) >= 3 else word


def only_zone(zones: Iterable[str | None]) -> str:
    """Return the zone in which times are written: the common zone, or UTC if there are several or none."""
    names = {*zones} - {None}
    return "UTC" if len(names) > 1 else str(*names)


def _days(parts: pl.DataFrame, form: str | None) -> pl.Series:
    """Return days since 1970."""
    # A month and a year, 03/2020 or Mar 2020, mean the first day of the month.
    whole = pl.col("b").str.len_bytes() != 4, pl.col("b").str.contains(r"^\d+$").not_()
    day = pl.when(whole[0] | whole[1])
    mark = pl.col("mark").str.slice(0, 1)
    parts = parts.with_columns(
        day.then("a").otherwise(pl.lit("1")).alias("a"),
        day.then("b").otherwise("a").alias("b"),
        day.then("c").otherwise("b").alias("c"),
        day.then(mark).otherwise(pl.lit(".")).alias("mark"),
    )
    a, b, c = (parts[key] for key in "abc")
    first = parts.drop_nulls(["a", "b"]).row(0, named=True)  # without a date a is "1" here, and b is null
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
        # A year of another length than in the first row means another order: reject it instead of reading a wrong day.
        key = "a" if orders == ["ymd"] else "c"
        other = parts[key].str.len_bytes() != len(first[key] or "")
        days = [column.set(other.fill_null(False), None) for column in days]
    if len(days) == 2 and days[0].null_count() == days[1].null_count() and not days[0].equals(days[1]):
        raise DateError("day and month can be confused")
    return min(days, key=lambda column: column.null_count())


def _epoch_days(year: pl.Series, month: pl.Series, day: pl.Series) -> pl.Series:
    words = month.filter(month.str.contains(r"^\d").not_()).unique().to_list()
    number = month.replace_strict({word: month_of(word) for word in words}, default=month) if words else month
    full = year.cast(pl.Int32, strict=False)
    full = pl.select(
        pl.when(year.str.len_bytes() > 2).then(full).when(full < 70).then(full + 2000).otherwise(full + 1900)
    ).to_series()
    text = full.cast(pl.String) + "-" + number + "-" + day
    return text.str.to_date("%Y-%m-%d", strict=False).cast(pl.Int32).cast(pl.Float64)


def dates_ahead(seconds: pl.Series, gap: float, horizon: float, zone: str) -> pl.Series | None:
    """Return the dates up to a horizon after the last, in calendar steps; None for times without such a step.

    Dates on the same day of the month, or at its end, continue by months, others at the same time of day by days: both
    are usually `gap` apart, but months differ in length, and so do days when clocks are changed. A local time that does
    not exist is omitted.
    """
    zone = zone or "UTC"
    at = (seconds * 1e6).round().cast(pl.Int64).cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(zone)
    at = at.dt.replace_time_zone(None)
    if at.dt.time().n_unique() > 1:
        return None
    ends = bool((at.dt.month_end() == at).all())
    by_months = ends or at.dt.day().n_unique() == 1
    months = at.dt.year() * 12 + at.dt.month()
    step = max(1, round(float(months.diff().median() if by_months else gap / 86400)))
    count = int(horizon / (step * 86400 * (28 if by_months else 1))) + 2
    offsets = pl.Series([f"{step * n}{'mo' if by_months else 'd'}" for n in range(1, count)])
    ahead = at.tail(1).new_from_index(0, len(offsets)).dt.offset_by(offsets)
    ahead = ahead.dt.month_end() if ends else ahead
    utc = ahead.dt.replace_time_zone(zone, ambiguous="earliest", non_existent="null").dt.epoch("us") / 1e6
    return utc.filter(utc <= seconds[-1] + (1 + 1e-9) * horizon)


LENGTHS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"), (1.0, "s"))


def moment(t: float, dates: str, zone: str = "") -> str:
    """Format a time as a date (UTC, or in `zone`), a time of day, or a number, according to a table's `dates`."""
    if dates != "date":
        return length(t, dates) if dates else f"{t:.15g}"
    if zone:
        there = pl.Series([round(t * 1e6)]).cast(pl.Datetime("us", "UTC")).dt.convert_time_zone(zone)
        return str(there.dt.strftime("%Y-%m-%d %H:%M:%S%:z")[0])
    return datetime.fromtimestamp(t, timezone.utc).strftime("%Y-%m-%d %H:%M:%S").removesuffix(" 00:00:00")


def length(seconds: float, dates: str) -> str:
    """Format a duration; for dates in the largest unit that it reaches."""
    if not dates:
        return f"{seconds:g}"
    size, unit = next(((size, unit) for size, unit in LENGTHS if abs(seconds) >= size), LENGTHS[-1])
    return f"{seconds / size:.4g} {unit}"
