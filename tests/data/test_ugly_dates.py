"""Times as programs write them, dates and serial numbers; and how forecasts and figures write them."""

import datetime

import numpy
import polars
import pytest
from runs_kit import train_run
from table_kit import excel, only, read, write

from odenet_cli.commands import predict
from odenet_cli.data.common.table_dates import dates_ahead, parse_dates
from odenet_cli.errors import RequestError
from odenet_cli.report import forecast_figure


def stamp(text):
    return datetime.datetime.fromisoformat(text).replace(tzinfo=datetime.timezone.utc).timestamp()


SPELLED = {
    "1. Januar 2023": "2023-01-01",
    "2 März 2023": "2023-03-02",
    "3-mai-2023": "2023-05-03",
    "4 août 2023": "2023-08-04",
    "5 dic. 2023": "2023-12-05",
    "Mon, 02 Jan 2023 05:06:07 GMT": "2023-01-02T05:06:07",
    "Jan 2023": "2023-01-01",
    "03/2023": "2023-03-01",
    "2020-W01": "2019-12-30",
    "2020W537": "2021-01-03",
    "2021-Q3": "2021-07-01",
    "2021 Q4": "2021-10-01",
    "20230102T150405": "2023-01-02T15:04:05",
}


@pytest.mark.parametrize("text", SPELLED)
def test_dates_in_other_words(text):
    seconds, kind = parse_dates(polars.Series([text, "Marble 3, 2023", "2020-W54", "jui 3, 2023"]), None)
    assert (seconds.to_list(), kind) == ([stamp(SPELLED[text]), None, None, None], "date")


def test_a_day_more_than_a_time_of_day():
    texts = polars.Series(["0 days 00:30:00", "1 day, 2:30:00", "10 days 02:30:00.5", "3:00"])
    assert parse_dates(texts, None)[0].to_list() == [1800, 95400, 873000.5, 10800]


def test_times_of_day_and_durations_are_no_dates(tmp_path):
    """Excel's times without a date are stored as those of 31 December 1899."""
    hour, day = datetime.timedelta(hours=1), datetime.date(2023, 1, 1)
    at = [datetime.time(1, 30), datetime.time(2), datetime.time(23, 59, 59)]
    lasts = [hour, 25 * hour, 100 * hour]
    for n, (times, seconds) in enumerate([(at, [5400, 7200, 86399]), (lasts, [3600, 90000, 360000])]):
        polars.DataFrame({"time": times, "x": [1, 2, 3]}).write_parquet(tmp_path / f"{n}.parquet")
        excel(tmp_path / f"{n}.xlsx", [["time", "x"], *zip(times, [1, 2, 3], strict=True)])
        for kind in ("parquet", "xlsx"):
            table = read(tmp_path / f"{n}.{kind}")
            assert (table.dates, only(table)[0]) == ("clock", seconds)
    both = [["Date", "Time", "x"], *([day + 24 * n * hour, time, n] for n, time in enumerate(at))]
    table = read(excel(tmp_path / "both.xlsx", both))
    start = datetime.datetime(2023, 1, 1, tzinfo=datetime.timezone.utc).timestamp()
    assert only(table)[0] == [start + 5400, start + 86400 + 7200, start + 2 * 86400 + 86399]
    frame = polars.DataFrame({"Date": [day] * 3, "Time": [hour, 2 * hour, 3 * hour], "x": [1, 2, 3]})
    frame.write_parquet(tmp_path / "both.parquet")
    assert only(read(tmp_path / "both.parquet"))[0] == [start + 3600 * n for n in (1, 2, 3)]


def test_times_that_are_neither_number_nor_date(tmp_path):
    for text in ("2023-01-01 00:00 CEST", "PT1H", "Jan-20", "1.2.2023 13.30"):
        with pytest.raises(RequestError, match=rf"time='{text}' is neither a number nor a date .*data\.time_format="):
            read(write(tmp_path, f"time,x\n{text},1\n{text},2\n"))


def test_numbers_that_may_be_months_or_weeks_are_noticed(tmp_path):
    """202012 and 202101 are a month apart, and 89 as numbers."""
    for times, says in {
        ("202011", "202012", "202101"): "data.time_format=%Y%m",
        ("202051", "202053", "202101"): "weeks are written 2020-W51",
        ("20201231235959", "20210101000000", "20210101000001"): "data.time_format=%Y%m%d%H%M%S",
    }.items():
        path = write(tmp_path, "time,x\n" + "".join(f"{t},{n}\n" for n, t in enumerate(times)))
        (note,) = read(path).cells.notes
        assert note.startswith(f"times such as {times[0]} read as numbers; ")
        assert note.endswith(says)
    months = write(tmp_path, "time,x\n202011,0\n202012,1\n202101,2\n")
    assert only(read(months, time_format="%Y%m"))[0] == [
        stamp(f"{day}-01") for day in ("2020-11", "2020-12", "2021-01")
    ]
    for times in (["2019", "2020", "2021"], ["201", "202", "20211"], ["202099", "202110", "202111"]):
        assert not read(write(tmp_path, "time,x\n" + "".join(f"{t},{t}\n" for t in times))).cells.notes


@pytest.mark.parametrize(
    "times", [["23:30", "23:45", "00:15"], ["11:30 PM", "12:15 AM", "1:30 AM"], ["00:10", "00:05", "23:50"]]
)
def test_times_of_day_past_midnight_are_not_sorted(tmp_path, times):
    path = write(tmp_path, "time,x\n" + "".join(f"{t},{n}\n" for n, t in enumerate(times)))
    with pytest.raises(RequestError, match=r"line [34]: time=(00:15|23:50) is past midnight, after .* data\.time="):
        read(path)
    day = write(
        tmp_path, "time,x\n" + "".join(f"{t},{n}\n" for n, t in enumerate(["05:00", "06:00", "23:00", "22:00"]))
    )
    assert only(read(day))[0] == [18000, 21600, 79200, 82800]


def test_a_zone_that_is_stated_is_the_zone_that_is_told(tmp_path):
    stated = ["2023-03-26T01:30:00+01:00", "2023-03-26T03:00:00+02:00", "2023-03-26T01:30:00Z"]
    seconds = [stamp(f"2023-03-26T{t}") for t in ("00:30", "01:00", "01:30")]
    path = write(tmp_path, "time,x\n" + "".join(f"{t},{n}\n" for n, t in enumerate(stated)))
    for zone in (None, "Europe/Berlin"):
        table = read(path, zone=zone)
        assert (table.zone, only(table)[0]) == (zone or "UTC", seconds)
    column = polars.from_epoch(polars.Series(seconds), time_unit="s").dt.replace_time_zone("UTC")
    column = column.dt.convert_time_zone("Asia/Tokyo")
    polars.DataFrame({"time": column, "x": [0, 1, 2]}).write_parquet(tmp_path / "a.parquet")
    table = read(tmp_path / "a.parquet")
    assert (table.zone, only(table)[0]) == ("Asia/Tokyo", seconds)
    assert read(write(tmp_path, "time,x\n2023-03-26 01:00,1\n2023-03-26 02:00,2\n")).zone == ""


SERIAL = {
    "excel": (["45123.5", "45123.54167", "45124"], ["2023-07-16T12:00:00", "2023-07-16T13:00:00", "2023-07-17"]),
    "unix": (["1700000000", "1700000060.5"], ["2023-11-14T22:13:20", "2023-11-14T22:14:20.500"]),
    "unix_ms": (["1700000000000", "1700000060500"], ["2023-11-14T22:13:20", "2023-11-14T22:14:20.500"]),
}


@pytest.mark.parametrize("form", SERIAL)
def test_numbers_may_be_dates(tmp_path, form):
    times, dates = SERIAL[form]
    path = write(tmp_path, "date,x\n" + "".join(f"{t},{n}\n" for n, t in enumerate(times)))
    plain, table = read(path), read(path, time_format=form)
    assert plain.cells.notes == [
        f"times such as {times[0]} read as numbers; if they are dates, set data.time_format={form}"
    ]
    assert (plain.dates, only(plain)[0]) == ("", [float(t) for t in times])
    assert (table.dates, only(table)[0]) == ("date", [stamp(day) for day in dates])
    shift = {"excel": 7200.0}.get(form, 0.0)  # days of Excel are local
    local = read(path, time_format=form, zone="Europe/Berlin")
    assert (local.zone, only(local)[0]) == ("Europe/Berlin", [stamp(day) - shift for day in dates])


def test_hours_of_excel_are_hours(tmp_path):
    """As days since 1900 with the digits that a float has, and with ten: neither is off by a rounding."""
    days = [44621 + n / 24 for n in range(60)]
    for text in (str, "{:.10f}".format):
        path = write(tmp_path, "\n".join(["date,x", *(f"{text(day)},{n}" for n, day in enumerate(days))]))
        times = only(read(path, time_format="excel"))[0]
        assert times == [1646092800 + 3600 * n for n in range(60)]


# name -> (first line, a row for each series n, options, times of a series, columns)
DAY = 86400.0


# dates, their usual gap and a horizon in days, a zone, the dates ahead
AHEAD = {
    "months": (["2009-11-01", "2009-12-01", "2010-01-01"], 30.5, 60, "", ["2010-02-01", "2010-03-01"]),
    "ends of months": (["2009-11-30", "2009-12-31"], 31, 92, "", ["2010-01-31", "2010-02-28", "2010-03-31"]),
    "years": (["2006-07-01", "2007-07-01"], 365, 800, "", ["2008-07-01", "2009-07-01"]),
    "days": (["2024-03-04", "2024-03-06", "2024-03-09"], 2.5, 4, "", ["2024-03-11", "2024-03-13"]),
    "clocks": (
        ["2024-03-28T23:00", "2024-03-29T23:00"],
        1,
        2,
        "Europe/Berlin",
        ["2024-03-30T23:00", "2024-03-31T22:00"],
    ),
    "an hour that is not there": (
        ["2024-03-28T01:30", "2024-03-29T01:30"],
        1,
        2.5,
        "Europe/Berlin",
        ["2024-03-30T01:30"],
    ),
    "hours": (["2024-03-28", "2024-03-28T01:00"], 1 / 24, 1, "", None),
}


@pytest.mark.parametrize("name", AHEAD)
def test_a_forecast_goes_on_in_steps_of_the_calendar(name):
    """Months were 31 days each, and a median of days had hours."""
    known, gap, horizon, zone, dates = AHEAD[name]
    found = dates_ahead(polars.Series(map(stamp, known)), gap * DAY, horizon * DAY, zone)
    assert (found if found is None else found.to_list()) == (dates and [stamp(day) for day in dates])


def test_a_forecast_has_the_times_of_the_table(tmp_path):
    """Durations in hours and minutes, a name with zeros before it, a unit in the cells, static truth values."""
    rows = [f"{n:03d},{3 * t + n % 3}:15:00,{n % 2 == 1},{120 + n + t} mmHg," for n in range(8) for t in range(6)]
    path = write(tmp_path, "\n".join(["id,time,smoker,bp,", *rows, ",,,,"]))
    words = ("model=rnn", "data=table", f"data.path={path}", "data.static=smoker", "trainer.epochs=null")
    folder = train_run(tmp_path / "run", *words, "trainer.steps=2", "compile=false", "device=cpu")
    for kind in ("csv", "parquet"):
        out = tmp_path / f"out.{kind}"
        assert predict.main([str(folder), f"out={out}", "horizon=12h", "draws=5"]) == 0
        found = (polars.read_csv(out, infer_schema=False) if kind == "csv" else polars.read_parquet(out)).filter(
            id="007"
        )
        assert found["time"].to_list() == [f"{hour:02d}:15:00" for hour in (1, 4, 7, 10, 13, 16, 19, 22, 25, 28)]
        assert [float(x) for x in found["bp"][:6]] == [127 + t for t in range(6)]
        assert all(80 < float(x) < 180 for x in found["bp_50"])
    assert (tmp_path / "out.png").is_file()


@pytest.mark.parametrize(
    ("hours", "marks"), [(24, ["00:00", "06:00", "12:00", "18:00", "24:00"]), (400, ["00:00", "72:00"])]
)
def test_a_figure_of_times_of_day_has_hours(hours, marks):
    """Its axis counted seconds, and named no series."""
    t = numpy.linspace(0, hours * 3600 + 60, 4)
    series = {"id": ["b"] * 4, "time": t, "seen": t < 1, **dict.fromkeys(("x", "x_mean", "x_5", "x_95"), t)}
    figure = forecast_figure.draw(series, ["id", "time", "x"], "observations", True)
    axis = figure.axes[0].xaxis
    assert {*marks} <= {axis.get_major_formatter()(at) for at in axis.get_major_locator().tick_values(0, t[-1])}
    assert figure.get_suptitle() == "id b"
