"""Parse dates and times of day by a pattern of strptime (`data.time_format='%d/%m/%y %H:%M'`), to seconds.

polars reads them by chrono's rules: a number takes as many digits as there are, so that 930 by %H%M would be 93 hours,
130 would be 13:00, and 24 by %Y the year 24; and %f counts nanoseconds. Here such texts are not dates.
"""

from __future__ import annotations

import functools
import re

import polars as pl

WIDTHS = dict.fromkeys("ymdeHIklMSUWVgC", 2) | {"Y": 4, "G": 4, "j": 3}  # largest number of digits
WHOLE = {"F": "%Y-%m-%d", "D": "%m/%d/%y", "x": "%m/%d/%y", "T": "%H:%M:%S", "X": "%H:%M:%S", "R": "%H:%M"}
YEARS, MONTHS, DAYS, HOURS = "YyGgCsc+v", "mbBh", "dejUWVscv+", "HIkl"
TOKEN = re.compile(r"%[-_0]?(?P<of>[.:#]?\d?[A-Za-z+%])|\s+|.", re.DOTALL)
UTC_NAMES = ("UTC", "GMT", "Z", "")


class DateError(ValueError):
    """Signal ambiguous dates, or an invalid pattern."""


def check_pattern(form: str) -> None:
    """Raise DateError unless `form` is a pattern of dates or of times of day."""
    if "%" in form:
        completed(form)


def parse_pattern(text: pl.Series, form: str) -> tuple[pl.Series, str]:
    """Return seconds, null for texts that do not match, and their kind: "date" or "clock" (see `completed`).

    Raises DateError unless `form` is a pattern of dates or of times of day.
    """
    full, before, behind, kind = completed(form)
    return _seconds(_plain(text, form, before, behind), full), kind


def zone_of(text: pl.Series, form: str, zone: str | None) -> str | None:
    """Return the zone of times read by a pattern: UTC if they state their offset, else `zone`.

    Raises DateError if they state an abbreviation (CEST), and `zone` does not say what it means.
    """
    if re.search("%[.:#]*z|%s|%[+]", form):
        return "UTC"
    if "%Z" not in form:
        return zone
    full, before, behind, _ = completed(form)
    named = _plain(text, form, before, behind).str.extract(_expression(full)).drop_nulls().unique(maintain_order=True)
    if named.is_in(UTC_NAMES).all():
        return "UTC"
    if zone is None:
        raise DateError(f"{named.filter(~named.is_in(UTC_NAMES))[0]} is ambiguous: set a zone, data.zone=Europe/Berlin")
    return zone


@functools.lru_cache
def completed(form: str) -> tuple[str, str, str, str]:
    """Return a pattern completed for chrono, what to add before and after each text, and the kind.

    A month means its first day, and an hour its first minute. Without day, month or year times are of a day ("clock").

    Raises DateError for an invalid pattern.
    """
    full = "".join(WHOLE.get(match["of"] or "", match[0]) for match in TOKEN.finditer(form))
    full = full.replace(",", ".").replace(".%f", "%.f")
    found = "".join((match["of"] or "")[-1:] for match in TOKEN.finditer(full) if match["of"] != "%")
    if "%f" in full:
        raise DateError(
            f"{form}: %f must follow a point or comma; otherwise use %3f, %6f or %9f, by the number of digits"
        )
    before, behind, kind = "", "", "date"
    if not set(found) & {*YEARS, *MONTHS, *DAYS}:
        full, before, kind = f"%Y-%m-%d {full}", "1970-01-01 ", "clock"
    elif not set(found) & {*YEARS}:
        raise DateError(f"{form} has no year")
    elif set(found) & {*MONTHS} and not set(found) & {*DAYS}:
        full, behind = f"{full} %d", " 1"
    if "M" in found and not set(found) & {*HOURS}:
        full, before = f"%H {full}", f"0 {before}"
    elif set(found) & {*HOURS} and "M" not in found:
        full, behind = f"{full} %M", f"{behind} 0"
    try:
        _seconds(pl.Series(["?"]), full)
    except pl.exceptions.PolarsError as error:
        why = str(error).splitlines()[0].removeprefix("Invalid format string: ").rstrip(".")
        raise DateError(f"{form} is not a valid date pattern: {why}") from error
    return full, before, behind, kind


def _plain(text: pl.Series, form: str, before: str, behind: str) -> pl.Series:
    """Rewrite texts for the completed pattern; a fraction has a point."""
    return before + (text.str.replace_all(",", ".", literal=True) if "," in form else text) + behind


def _seconds(text: pl.Series, full: str) -> pl.Series:
    sound = text.str.contains(_expression(full)).fill_null(False)
    return text.set(~sound, None).str.to_datetime(full, strict=False, time_unit="us").dt.epoch("us") / 1e6


def _expression(form: str) -> str:
    """Return the regular expression of a pattern; a year has four digits, adjacent numbers have all their digits."""
    tokens = [*TOKEN.finditer(form)]
    widths = [_digits(token["of"] or "") for token in tokens]
    parts = []
    for n, (token, width) in enumerate(zip(tokens, widths)):
        beside = any(widths[max(0, n - 1) : n]) or any(widths[n + 1 : n + 2])
        if width and (beside or width == 4):
            parts.append(rf"\d{{{width}}}")
        elif token["of"] == "Z":
            parts.append(r"([A-Za-z]*)")
        elif token["of"] and token["of"] != "%":
            parts.append(".*?")
        else:
            parts.append(r"\s*" if token[0].isspace() else re.escape(token[0][-1]))
    return f"^\\s*{''.join(parts)}\\s*$"


def _digits(of: str) -> int:
    """Return the number of digits of a directive for a number, such as three for the fraction %3f; else 0."""
    return WIDTHS.get(of, int(of[0]) if of[:1].isdigit() else 0)
