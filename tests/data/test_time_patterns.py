"""Times by a pattern (`data.time_format`) are those of Python's strptime, or no times."""

from __future__ import annotations

from datetime import datetime, timezone

import polars
import pytest

from odenet_cli.data.common.table_dates import parse_dates, zones_of
from odenet_cli.data.common.table_patterns import DateError
from odenet_cli.data.common.table_times import perhaps_dates
from odenet_cli.data.table import Source
from odenet_cli.errors import RequestError
from tests.data.table_kit import write


def read(text, form):
    (seconds,), kind = parse_dates(polars.Series([text]), form)
    return seconds, kind


ALIKE = {
    "%Y-%m-%d %H:%M:%S.%f": "2024-01-02 03:04:05.25",  # %f counted nanoseconds: no fraction was left
    "%Y-%m-%d %H:%M:%S,%f": "2024-01-02 03:04:05,250",
    "%d.%m.%y %H.%M": "2.1.24 3.04",
    "%Y%m%d%H%M": "202401020304",
    "%Y %j": "2024 60",
    "%b %d, %Y": "Jan 2, 2024",
    "%Y-%m-%d %I:%M %p": "2024-01-02 11:05 pm",
    "%Y-%m-%dT%H:%M:%S%z": "2024-01-02T03:04:05+0530",
    "%Y/%m": "2024/7",
}


@pytest.mark.parametrize("form", ALIKE)
def test_a_pattern_is_read_as_by_strptime(form):
    there = datetime.strptime(ALIKE[form], form)
    there = there if there.tzinfo else there.replace(tzinfo=timezone.utc)
    assert read(ALIKE[form], form) == (there.timestamp(), "date")


def test_an_hour_is_its_first_minute():
    """The hours of a weather model, 2024010203, ended in a traceback."""
    assert read("2024010203", "%Y%m%d%H") == (datetime(2024, 1, 2, 3, tzinfo=timezone.utc).timestamp(), "date")


@pytest.mark.parametrize(
    ("form", "text", "seconds"), [("%H:%M", "12:30", 45000), ("%M:%S", "12:30", 750), ("%I:%M %p", "1:05 pm", 47100)]
)
def test_a_pattern_without_a_date_is_of_a_day(form, text, seconds):
    """They were dates of the year 1."""
    assert read(text, form) == (seconds, "clock")


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("%d.%m.%Y", "01.02.24"),  # was the year 24
        ("%d%m%Y", "1112024"),  # was 11 December 24
        ("%Y-%m-%d %H%M", "2024-01-01 130"),  # was 13:00
        ("%Y%m%d", "2024011"),
        ("%y%m%d", "20240102"),
    ],
)
def test_what_a_pattern_would_misread_is_no_time(form, text):
    assert read(text, form)[0] is None


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ("%m-%d", "has no year"),
        ("%Y-%m-%d %I:%M", "is not a valid date pattern: Please either specify both 12-hour"),
        ("%Y%m%d%H%M%S%f", "%f must follow a point or comma"),
    ],
)
def test_a_bad_pattern_is_refused_before_a_table_is_read(form, says):
    with pytest.raises(RequestError, match=rf"^data\.time_format={form}:? {says}"):
        Source(path="nowhere.csv", time_format=form)


def test_an_abbreviation_of_a_zone_says_little():
    """10:00 CEST was 10:00 UTC, two hours late."""
    form, summer = "%Y-%m-%d %H:%M %Z", polars.Series(["2024-07-01 10:00 CEST", "2024-12-01 10:00 CET"])
    with pytest.raises(DateError, match="CEST is ambiguous"):
        zones_of(summer, form, None)
    assert zones_of(summer, form, "Europe/Berlin").to_list() == ["Europe/Berlin"] * 2
    assert zones_of(polars.Series(["2024-07-01 10:00 UTC"]), form, None).to_list() == ["UTC"]


def test_hours_and_minutes_in_one_number_are_noticed():
    """2024010100 was taken for seconds since 1970."""
    for form, times in (("%Y%m%d%H", [2024010123, 2024010200]), ("%Y%m%d%H%M", [202401012345, 202401020000])):
        assert perhaps_dates(polars.Series(times, dtype=polars.Float64), "t").endswith(f"data.time_format={form}")


def test_seconds_beyond_the_calendar_are_no_dates(tmp_path):
    """Nanoseconds as seconds ended in a traceback."""
    path = write(tmp_path, "time,x\n1700000000000000000,1\n1700000000020000000,2\n")
    with pytest.raises(RequestError, match=r"line 2: .* is not a date that can be read .* unix seconds"):
        Source(path=str(path), time_format="unix").table()


@pytest.mark.parametrize(
    "times",
    [[1_700_000_000_000_000_000 + 1000 * n for n in range(5)], [f"2024-01-01 00:00:00.0000{n}" for n in range(5)]],
)
def test_times_that_rounding_moves_are_refused(tmp_path, times):
    """Nanoseconds since 1970 that are 1000 apart were 1024 apart, without a word."""
    path = write(tmp_path, "time,x\n" + "".join(f"{t},{n}\n" for n, t in enumerate(times)))
    with pytest.raises(RequestError, match=r"has gaps of .*, and numbers as large as .* from the start of the table"):
        Source(path=str(path)).table()
    sparse = write(tmp_path, "time,x\n" + "".join(f"{1_700_000_000_000_000_000 + 10**7 * n},{n}\n" for n in range(5)))
    assert len(Source(path=str(sparse)).table().numbers.times) == 5
