"""Tables as programs export them: each is read as it is meant, or refused by name."""

import datetime
import gzip
import io
import math
import zipfile
from decimal import Decimal

import numpy
import polars
import pytest
from runs_kit import train_run
from table_kit import HOW, write

from odenet_cli import data
from odenet_cli.commands import predict
from odenet_cli.data.common.table_dates import dates_ahead, parse_dates
from odenet_cli.data.table import Source
from odenet_cli.errors import RequestError
from odenet_cli.report import forecast_figure


def read(path, **options):
    return Source(path=str(path), **options).table()


def rows(table):
    """The times and values of each series."""
    counts = table.numbers.counts.tolist()
    pairs = zip(table.numbers.times.split(counts), table.numbers.values.split(counts), strict=True)
    return {name: (t.tolist(), x.tolist()) for name, (t, x) in zip(table.names, pairs, strict=True)}


def only(table):
    (pair,) = rows(table).values()
    return pair


def excel(path, table):
    pytest.importorskip("fastexcel")
    book = pytest.importorskip("openpyxl").Workbook()
    for row in table:
        book.active.append(row)
    book.save(path)
    return path


PLAIN = "time,x,y\n0,1,2\n1,2,3\n2,3,5\n"
VALUES = [[1, 2], [2, 3], [3, 5]]


@pytest.mark.parametrize("blank", ["", ",,", " , ,", '"","",""', "\t"])
def test_a_row_of_empty_cells_is_a_blank_line(tmp_path, blank):
    text = f"{blank}\n" + PLAIN.replace("1,2,3", f"{blank}\n1,2,3") + f"{blank}\n{blank}"
    assert only(read(write(tmp_path, text))) == ([0, 1, 2], VALUES)
    with pytest.raises(RequestError, match="line 6: x='a'"):
        read(write(tmp_path, text.replace("2,3,5", "2,a,5")))


def test_empty_rows_and_text_far_down_a_sheet(tmp_path):
    """What stands below the first thousand rows counts too: words were read as missing numbers."""
    table = [["time", "x", None], *([t, 2 * t] for t in range(1500)), [], [1500, 1], [None, None, " "]]
    table.insert(10, [])
    t, x = only(read(excel(tmp_path / "a.xlsx", table)))
    assert t == [*range(1501)]
    assert x[1499] == [2998]
    table[1400] = [1399, "A12"]
    with pytest.raises(RequestError, match=r"line 1401: x='A12' is not a finite number"):
        read(excel(tmp_path / "b.xlsx", table))


def test_compressed_text_is_read(tmp_path):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("folder/", "")
        archive.writestr("folder/a.csv", PLAIN)
    for name, raw in {"a.csv.gz": gzip.compress(PLAIN.encode()), "a.zip": packed.getvalue()}.items():
        assert only(read(write(tmp_path, raw, name))) == ([0, 1, 2], VALUES)
        with pytest.raises(RequestError, match=r"data\.path=.* cannot be read: "):
            read(write(tmp_path, raw[: len(raw) // 2], name))
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("b.csv", PLAIN)
    with pytest.raises(RequestError, match=r"an archive of 2 files \(folder/a\.csv, b\.csv\)"):
        read(write(tmp_path, packed.getvalue(), "a.zip"))


@pytest.mark.parametrize(
    "text", ['{"time": 0, "x": 1}\n{"time": 1, "x": 2}', '[{"time":0,\n"x":1}]', "<!DOCTYPE html>", "<table><tr>"]
)
def test_what_is_no_table_is_named(tmp_path, text):
    with pytest.raises(RequestError, match="line 1: this is JSON, HTML or XML, not a table"):
        read(write(tmp_path, text))


def test_lines_above_the_names_are_asked_about(tmp_path):
    for above in ("Station 12,,\nmade 2023-01-01,,", "Station: 12\nmade: 2023-01-01", "Report"):
        path = write(tmp_path, f"{above}\n{PLAIN}")
        with pytest.raises(RequestError, match=r"no column is named time .* data\.skip=LINES"):
            read(path)
        assert only(read(path, skip=above.count("\n") + 1)) == ([0, 1, 2], VALUES)


def test_types_of_parquet_are_numbers_words_or_left_out(tmp_path):
    hour = datetime.timedelta(hours=1)
    frame = polars.DataFrame(
        {
            "time": [0, 1, 2],
            "id": polars.Series(["a"] * 3, dtype=polars.Categorical),
            "price": [Decimal("1.50"), Decimal("2.25"), None],
            "on": [True, False, True],
            "words": polars.Series(["10", "20", "5"], dtype=polars.Enum(["5", "10", "20"])),
            "list": [[1], [2], [3]],
            "pair": [{"a": 1, "b": 2}] * 3,
            "raw": [b"1", b"2", b"3"],
            "lasts": [hour, 2 * hour, hour],
            "nothing": polars.Series([None] * 3, dtype=polars.Null),
        }
    )
    frame.write_parquet(path := tmp_path / "a.parquet")
    table = read(path)
    assert table.columns == ["price", "on", "words"]
    assert table.left_out == ["list", "pair", "raw", "lasts", "nothing"]
    _, x = only(table)
    assert x[:2] == [[1.5, 1, 10], [2.25, 0, 20]]
    assert math.isnan(x[2][0])
    for name in ("list", "raw", "lasts"):
        with pytest.raises(RequestError, match=f"row 1: {name}=.* is not a finite number"):
            read(path, values=[name])


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


def test_text_in_typed_files_has_a_decimal_sign_too(tmp_path):
    polars.DataFrame({"time": [0, 1], "x": ["1,5", "2,25"]}).write_parquet(path := tmp_path / "a.parquet")
    assert only(read(path))[1] == [[1.5], [2.25]]
    polars.DataFrame({"time": [0, 1], "x": ["1,5", "2.5"]}).write_parquet(path)
    with pytest.raises(RequestError, match=r"row 1: x='1,5'.* data\.decimal=','"):
        read(path)
    assert only(read(path, decimal=","))[1] == [[1.5], [2.5]]


def test_columns_without_a_name_are_no_coordinates(tmp_path):
    text = "a,b,\n" + "".join(f"{n},{n * n},\n" for n in range(30))
    assert data.prepare("points", {"path": str(write(tmp_path, text))})["columns"] == ["a", "b"]


@pytest.mark.parametrize("name", ["points", "features"])
def test_a_last_row_of_totals_is_no_sample(tmp_path, name):
    """It was a point a hundred times as far away as the others."""
    rows = [f"shop {n},{n * n % 17},{n % 5 + n / 7:.3f}" for n in range(60)]
    options = {"y": "b"} if name == "features" else {}
    whole = write(tmp_path, "\n".join(["shop,a,b", *rows]))
    assert sum(data.prepare(name, {"path": str(whole), **options})["sizes"].values()) == 60
    total = write(tmp_path, "\n".join(["shop,a,b", *rows, "Total:,473,420.5"]), "total.csv")
    with pytest.raises(RequestError, match="line 62: shop='Total:' is not a sample but the total of others"):
        data.prepare(name, {"path": str(total), **options})


@pytest.mark.parametrize("name", ["points", "features", "table"])
def test_what_was_assumed_of_numbers_is_told(tmp_path, name):
    """Points and features said nothing of it, and a guessed decimal sign was told nowhere."""
    lines = [f"{n};{n % 13 + 1},{37 * n % 900 + 100};{n % 7 + 1},{n + 100};(3);{n} kg" for n in range(60)]
    content = "\n".join(["time;x;y;z;w", *lines])
    options = {"points": {}, "features": {"y": "y", "task": "regression"}, "table": {"split": "time"}}[name]
    path = write(tmp_path, content)
    told = "x: '1,100' read as 1.1, with , as the decimal sign; if it separates thousands, data.decimal='.'"
    assert {told, told.replace("x: ", "y: "), "w: kg stands in every cell", "z: (3) read as -3"} <= {
        *data.prepare(name, {"path": str(path), **options})["table"]
    }
    for decimal in (",", "."):
        record = data.prepare(name, {"path": str(path), "decimal": decimal, **options})
        assert not any("decimal sign" in note for note in record["table"])
    path = write(tmp_path, content.replace("1,100", "0,5", 1))  # this says what the comma is
    assert not any("decimal sign" in note for note in data.prepare(name, {"path": str(path), **options})["table"])


TOTAL = "line 62: region='Total' is not a sample but the total of others"


@pytest.mark.parametrize("name", ["points", "features"])
def test_a_total_is_told_in_any_column_of_words(tmp_path, name):
    """Of few words it was one more word, and of a column that was not asked for nothing was seen."""
    lines = [f"{'north' if n % 2 else 'south'},{n * n % 17},{n % 5 + n / 7:.3f}" for n in range(60)]
    total = write(tmp_path, "\n".join(["region,a,b", *lines, "Total,473,420.5"]))
    asked = {"columns": ["a", "b"]} if name == "points" else {"x": ["a"]}
    for options in ({}, asked):
        with pytest.raises(RequestError, match=TOTAL):
            data.prepare(name, {"path": str(total), **options, **({"y": "b"} if name == "features" else {})})


@pytest.mark.parametrize("name", ["points", "features"])
def test_words_that_are_there_again_are_no_totals(tmp_path, name):
    """A column of mean and sum was refused for the last two rows."""
    lines = [f"{['max', 'mean', 'sum'][n % 3]},{n * n % 17},{n % 5 + n / 7:.3f}" for n in range(60)]
    path = write(tmp_path, "\n".join(["of,a,b", *lines]))
    options = {"y": "b"} if name == "features" else {}
    run = data.prepare(name, {"path": str(path), **options})
    assert sum(run["sizes"].values()) == 60
    if name == "features":
        few = write(tmp_path, "of,a\nmax,3\nmean,4\n", "new.csv")
        assert sum(data.load(name, {"path": str(few)}, run=run, **HOW).record["sizes"].values()) == 2
    for day in (1, 2):  # once in each file
        write(tmp_path, "\n".join(["of,a,b", *lines[day:], "Total,473,420.5"]), f"day{day}.csv")
    with pytest.raises(RequestError, match="of='Total' is not a sample but the total of others"):
        data.prepare(name, {"path": str(tmp_path / "day*.csv"), **options})


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


def column(tmp_path, cells, separator=",", **options):
    """The values of a column x of these cells, and what was noted of it."""
    quoted = (f'"{cell}"' if separator in cell else cell for cell in cells)
    text = f"time{separator}x\n" + "".join(f"{t}{separator}{cell}\n" for t, cell in enumerate(quoted))
    table = read(write(tmp_path, text), values="x", **options)
    return [x for (x,) in only(table)[1]], [note for note in table.cells.notes if note.startswith("x: ")]


NUMERALS = {
    "thousands": (["1,234.5", "987", "12,345"], [1234.5, 987, 12345], ["x: 12,345 read as 12345"]),
    "millions": (["1,234,567", "987", "1,234"], [1234567, 987, 1234], ["x: 1,234 read as 1234"]),
    "German": (["1.234,56", "12.345", "0,5"], [1234.56, 12345, 0.5], ["x: 12.345 read as 12345"]),
    "German millions": (["1.234.567", "987", "1.234"], [1234567, 987, 1234], ["x: 1.234 read as 1234"]),
    "French": (["1 234,5", "1\u00a0234,5", "1\u202f234 567,25"], [1234.5, 1234.5, 1234567.25], []),
    "Swiss": (["1'234.5", "12’345", "0.5"], [1234.5, 12345, 0.5], []),
    "dollars": (["$1,234.50", "-$2", "$-3.5", "($4.25)"], [1234.5, -2, -3.5, -4.25], ["x: $ stands in every cell"]),
    "euros": (["1.234,56 €", "1,5 €", "-3,00 €"], [1234.56, 1.5, -3], ["x: € stands in every cell"]),
    "percent": (["1.5%", "-0.25 %", "100%"], [1.5, -0.25, 100], ["x: % stands in every cell"]),
    "units": (["1.5 W/m2", "2 W/m2", "1e3 W/m2"], [1.5, 2, 1000], ["x: W/m2 stands in every cell"]),
    "accounts": (["(1.5)", "2", "3-", "\u22124"], [-1.5, 2, -3, -4], ["x: (1.5) read as -1.5"]),
    "truth": (["TRUE", "FALSE", "true"], [1, 0, 1], []),
}


@pytest.mark.parametrize("name", NUMERALS)
def test_numbers_in_other_words(tmp_path, name):
    cells, values, notes = NUMERALS[name]
    found, said = column(tmp_path, cells, separator=";")
    assert found == pytest.approx(values, abs=1e-12)
    assert said[: len(notes)] == notes
    if name != "French":
        assert column(tmp_path, cells)[0] == found


def test_a_code_for_nothing_needs_no_unit(tmp_path):
    path = write(tmp_path, "id,time,x,y\n" + "a,0,1.5 kg,1\na,1,-999,2\na,2,n.b.,3\na,3,2 kg,4\n")
    _, x = only(read(path, missing=[-999, "n.b."]))
    assert [row[0] for row in x] == pytest.approx([1.5, math.nan, math.nan, 2], nan_ok=True)


NO_NUMERALS = {
    "two units": (["1 kg", "2 g"], "Write numbers without units, or the same unit in every cell"),
    "a unit now and then": (["1 kg", "2"], "Write numbers without units, or the same unit in every cell"),
    "hours": (["11 PM", "10 PM"], "is not a finite number"),
    "two signs": (["-(5)", "3"], "is not a finite number"),
    "an address": (["10.0.0.1", "10.0.0.2"], "is not a finite number"),
    "grouped by two": (["1,23,4", "2"], "is not a finite number"),
    "a date": (["2020-01-01", "2020-01-02"], "is not a finite number"),
    "thousands, or not": (["1,234", "2"], r"data\.decimal=\',\'; if it separates thousands, data\.decimal=\."),
    "truth, or not": (["true", "maybe"], "is not a finite number"),
}


@pytest.mark.parametrize("name", NO_NUMERALS)
def test_what_may_be_no_number_is_refused(tmp_path, name):
    cells, says = NO_NUMERALS[name]
    with pytest.raises(RequestError, match=f"line 2: x=.*{says}"):
        column(tmp_path, cells)


@pytest.mark.parametrize("mark", [".", ","])
def test_a_decimal_sign_that_may_stand_between_thousands(tmp_path, mark):
    """1.230 and 987 in one column: no program writes decimal numbers so. It was read as 1.23 without a word."""
    cells, other = [f"1{mark}230", "987", f"12{mark}345"], ",."[mark == ","]
    with pytest.raises(RequestError, match=rf"line 2: x=\'1{mark}230\' is ambiguous.*also in line 4"):
        column(tmp_path, cells, separator=";")
    assert column(tmp_path, cells, separator=";", decimal=mark)[0] == [1.23, 987, 12.345]
    assert column(tmp_path, cells, separator=";", decimal=other)[0] == [1230, 987, 12345]
    for plain in (["1.230", "987.000"], ["1.23", "987", "12.345"], ["1.230", "987", "0.125"], ["1.234", "987"]):
        found, _ = column(tmp_path, [cell.replace(".", mark) for cell in plain], separator=";")
        assert found == [float(cell) for cell in plain]


def test_a_decimal_comma_makes_points_signs_between_thousands(tmp_path):
    """Where no number has a decimal point: 1.003 cases beside 3,1 %."""
    rows = [f"{t};{t},5 %;{t + 1}.003" for t in range(4)]
    table = read(write(tmp_path, "\n".join(["time;share;cases", *rows])))
    assert only(table)[1] == [[t + 0.5, 1000 * (t + 1) + 3] for t in range(4)]
    assert "cases: 1.003 read as 1003" in table.cells.notes
    with pytest.raises(RequestError, match=r"cases='1\.003' is not a finite number"):
        read(write(tmp_path, "\n".join(["time;share;cases", *rows, "5;0,5 %;0.25"])), decimal=",")


# name -> (first line, a row for each series n, options, times of a series, columns)
DAY = 86400.0
ACROSS = {
    "clock": ("meter,city,00:00,00:15,00:30", "m{n},x,{n},1,3", {}, [0, 900, 1800], ["value"]),
    "static": ("meter,city,00:00,00:15,00:30", "m{n},{n},{n},1,3", {"static": "city"}, [0, 900, 1800], ["value"]),
    "dates": ("city,2020-01-01,2020-02-01", "c{n},{n},3", {}, [1577836800, 1577836800 + 31 * DAY], ["value"]),
    "months": ("city;Jan 2020;Feb 2020", "c{n};{n},5;3", {}, [1577836800, 1577836800 + 31 * DAY], ["value"]),
    "Johns Hopkins": (
        "Province/State,Country/Region,Lat,1/22/20,1/23/20",
        ",c{n},2.5,{n},3",
        {"time_format": "mdy", "series": ["Province/State", "Country/Region"]},
        [1579651200, 1579651200 + DAY],
        ["value"],
    ),
    "World Bank": (
        "Country,Indicator,1990,1991,1992",
        "c{n},gdp,{n},2,..\nc{n},people,1,{n},..",
        {"form": "across", "variable": "Indicator", "missing": [".."]},
        [1990, 1991],
        ["gdp", "people"],
    ),
    "months of years": (
        "Year Jan  Feb Mar",
        "199{n}  {n}.5   1 3.5",
        {},
        [
            int(datetime.datetime(1990 + n, m, 1, tzinfo=datetime.timezone.utc).timestamp())
            for n in range(2, 10)
            for m in (1, 2, 3)
        ],
        ["value"],
    ),
    "weeks that are counted": (
        "code,MIN 1,W0,W1,W10",
        "p{n},0,{n},1,3",
        {"form": "across"},
        [0, 1, 10],
        ["value"],
    ),
    "days": (
        "Date;00:00;12:00",
        "{n:02d}.01.2020;1,5;{n},5",
        {"form": "across", "split": "time"},
        [1577836800 + n * DAY / 2 for n in range(2, 18)],
        ["value"],
    ),
}


@pytest.mark.parametrize("name", ACROSS)
def test_a_row_may_be_a_series_and_its_times_names_of_columns(tmp_path, name):
    first, row, options, times, columns = ACROSS[name]
    path = write(tmp_path, "\n".join([first, *(row.format(n=n) for n in range(2, 10))]))
    table = read(path, **options)
    assert table.columns == columns
    assert len(table.names) == (1 if name in ("days", "months of years") else 8)
    assert all(t == times for t, _ in rows(table).values())
    values = [x[-1][-1] for _, x in rows(table).values()]
    last = {"days": [9.5], "months of years": [3.5], "World Bank": range(2, 10)}
    assert sorted(values) == [*last.get(name, [3] * 8)]
    assert data.load("table", {"path": str(path), **options}, **HOW).record["content"] == table.digest()


@pytest.mark.parametrize(
    ("first", "options", "times"),
    [
        ("0,1,2", {"form": "across"}, [0, 1, 2]),
        (",0,1,2", {"form": "across"}, [0, 1, 2]),
        ("W0,W1,W3", {"form": "across"}, [0, 1, 3]),
        ("2020-01-01,2020-01-02,2020-01-04", {}, [1577836800 + n * DAY for n in (0, 1, 3)]),
    ],
)
def test_a_row_without_a_name_is_a_series_by_its_line(tmp_path, first, options, times):
    """Nothing but times stands in the first line: each row is a series of its own, also of several files."""
    numbered, body = first.startswith(","), [[1, 2, 3], [4, 5, 7], [8, 6, 0]]
    lines = [",".join(map(str, [n, *row] if numbered else row)) for n, row in enumerate(body)]
    path = write(tmp_path, "\n".join([first, *lines]))
    names = ["0", "1", "2"] if numbered else ["2", "3", "4"]
    assert rows(read(path, **options)) == {
        name: (times, [[x] for x in row]) for name, row in zip(names, body, strict=True)
    }
    if not numbered:
        write(tmp_path, "\n".join([first, *lines]), name="again.csv")
        several = rows(read(tmp_path / "*.csv", **options))
        assert sorted(several) == sorted(f"{stem}:{name}" for stem in ("again", path.stem) for name in names)
        assert several[f"{path.stem}:3"] == (times, [[4], [5], [7]])


ASKED = {
    "numbers": ("city,1990,1991", {}, r"line 1: numbers, but .* set data\.form=across"),
    "numbers beside others": ("Zeit,x,1990", {}, r"no column is named time .* data\.form=across"),
    "no time": ("city,x,y", {"form": "across"}, r"no column name is a time.* data\.time_format="),
    "chosen": (
        "city,0:00,0:15",
        {"values": "0:00", "form": "across"},
        r"data\.values cannot be used with data\.form=across",
    ),
    "again": ("city,00:00,00:00", {}, "columns 2 and 3 are both named 00:00"),
    "two digits": (
        "city,1/2/20,1/3/20",
        {},
        r"line 2: time=\'1/2/20\': the year has two digits. .* data\.time_format=",
    ),
}


@pytest.mark.parametrize("name", ASKED)
def test_columns_that_may_be_no_times_are_asked_about(tmp_path, name):
    first, options, says = ASKED[name]
    with pytest.raises(RequestError, match=says):
        read(write(tmp_path, f"{first}\na,1,2\nb,2,3\n"), **options)


PASSED = {
    "a source": (PLAIN + '\n"Source: World Bank, 2020",,\n', "text below the table, skipped: "),
    "a sentence": (
        PLAIN + "Exported by hand\nData from: a, b\n* provisional\n",
        "text below the table, skipped: ",
    ),
    "names again": (PLAIN.replace("2,3,5", "time,x,y\n2,3,5"), "repeated column names, skipped: time,x,y (line 4)"),
    "units again": (
        PLAIN.replace("y\n", "y\ns,m,m\n").replace("2,3,5", "time,x,y\ns,m,m\n2,3,5"),
        "repeated column names, skipped: time,x,y (lines 5, 6)",
    ),
    "a total": (PLAIN + "Summe,6,10\n", "rows that are totals of others, skipped: Summe"),
}


@pytest.mark.parametrize("name", PASSED)
def test_what_is_no_row_is_passed_over_and_told(tmp_path, name):
    text, says = PASSED[name]
    table = read(write(tmp_path, text))
    assert only(table) == ([0, 1, 2], VALUES)
    assert any(note.startswith(says) for note in table.cells.notes)


@pytest.mark.parametrize("last", ["3,4", "abc", "3", "a b,4", "3,,"])
def test_a_row_that_is_cut_off_is_no_footer(tmp_path, last):
    path = write(tmp_path, PLAIN + last)
    if last == "3,,":  # a time without values
        assert only(read(path)) == ([0, 1, 2], VALUES)
    else:
        with pytest.raises(RequestError, match=r"line 5: [12] columns, where the first line has 3"):
            read(path)


def test_words_below_a_sheet_are_passed_over(tmp_path):
    day = datetime.datetime(2023, 1, 1)
    sheet = [["date", "x"], *([day + n * datetime.timedelta(1), n] for n in range(3)), [], ["Source: a clerk", None]]
    table = read(excel(tmp_path / "a.xlsx", sheet))
    assert (table.dates, only(table)[1]) == ("date", [[0], [1], [2]])


@pytest.mark.parametrize("above", ["  time x   y\n", "# time x y\n"])
def test_blanks_separate_columns_where_nothing_else_does(tmp_path, above):
    text = above + PLAIN.partition("\n")[2].replace(",", "   ").replace("2   3", " 2.0  3e0")
    assert only(read(write(tmp_path, text, "run.dat"))) == ([0, 1, 2], VALUES)


BUOY = """#YY  MM DD hh WDIR WVHT
#yr  mo dy hr degT m
2023 01 31 22  120 99.0
2023 01 31 23  130  1.5
2023 02 01 00   MM  1.25
"""


def test_comments_of_names_and_of_units_above_the_rows(tmp_path):
    asked = {"time": ["YY", "MM", "DD", "hh"], "time_format": "%Y %m %d %H", "missing": ["99", "MM"]}
    table = read(write(tmp_path, BUOY), **asked)
    hour = datetime.datetime(2023, 1, 31, 22, tzinfo=datetime.timezone.utc).timestamp()
    assert table.numbers.times.tolist() == [hour, hour + 3600, hour + 7200]
    assert str(only(table)[1]) == "[[120.0, nan], [130.0, 1.5], [nan, 1.25]]"
    assert table.cells.units[-2:] == ["degT", "m"]
    # A sentence of as many words is no row of names.
    table = read(write(tmp_path, "# measured by hand\n# time x y\n" + PLAIN.partition("\n")[2].replace(",", " ")))
    assert (table.columns, only(table)) == (["x", "y"], ([0, 1, 2], VALUES))
    # Nor is a comment one above the names, which are no row.
    for names in ("time,x,y", "time,2m,wind"):
        table = read(write(tmp_path, "# time,first run,of 2\n" + PLAIN.replace("time,x,y", names)))
        assert (table.columns, only(table)) == (names.split(",")[1:], ([0, 1, 2], VALUES))


@pytest.mark.parametrize("first", ["time x y", "  time   x  y", "# time x y"])
def test_decimal_commas_beside_blanks(tmp_path, first):
    table = read(write(tmp_path, f"{first}\n0,0 1,5  -2,25\n 0,5 2,0 1e-3\n1,0 10,25 3\n"))
    assert only(table) == ([0, 0.5, 1], [[1.5, -2.25], [2, 0.001], [10.25, 3]])
    # Between numbers a comma separates columns, if it does so between their names.
    assert only(read(write(tmp_path, "time of a day,x in m\n1,5\n2,5\n"), time="time of a day"))[1] == [[5], [5]]


@pytest.mark.parametrize(("encoding", "city"), [("gb18030", "北京"), ("cp1251", "Омск"), ("shift-jis", "東京")])
def test_bytes_that_are_no_western_letters_are_refused(tmp_path, encoding, city):
    text = "id,time,x\na,0,1\na,1,2\n" + f"{city},0,1\n{city},1,3\n"
    assert sorted(read(write(tmp_path, text)).names) == ["a", city]
    with pytest.raises(RequestError, match=r"line 4: .* is not text in UTF-8 or Windows-1252"):
        read(write(tmp_path, text.encode(encoding)))
    western = text.replace(city, "Çãé GRÖSSE ————").encode("cp1252")
    assert sorted(read(write(tmp_path, western)).names) == ["a", "Çãé GRÖSSE ————"]


def test_hours_of_excel_are_hours(tmp_path):
    """As days since 1900 with the digits that a float has, and with ten: neither is off by a rounding."""
    days = [44621 + n / 24 for n in range(60)]
    for text in (str, "{:.10f}".format):
        path = write(tmp_path, "\n".join(["date,x", *(f"{text(day)},{n}" for n, day in enumerate(days))]))
        times = only(read(path, time_format="excel"))[0]
        assert times == [1646092800 + 3600 * n for n in range(60)]


def test_rows_of_no_time_and_no_value_are_passed_over(tmp_path):
    """As a glucose meter's export begins with the name of its owner; a value without a time is refused."""
    text = "time,what,x\n,owner,\n , device, \n0,a,1\n1,a,2\n"
    table = read(write(tmp_path, text), values=["x"])
    assert only(table) == ([0, 1], [[1], [2]])
    assert "2 rows without a time and a value skipped" in table.cells.notes
    with pytest.raises(RequestError, match="line 2: time='' is not a finite number"):
        read(write(tmp_path, text.replace("owner,", "owner,3")), values=["x"])


def test_what_may_be_missing_is_no_number_with_a_mark(tmp_path):
    """The option named 4.9 p as a word for nothing, where only the colon is one."""
    text = "time,x\n0,4.9 p\n1,:\n2,7.1\n"
    with pytest.raises(RequestError, match=r"Correct it, or count it as missing: 'data\.missing=\[\":\"\]'\.$"):
        read(write(tmp_path, text))
    with pytest.raises(
        RequestError, match=r"Write numbers without units, or the same unit in every cell of the column\.$"
    ):
        read(write(tmp_path, text), missing=[":"])


def test_files_are_told_to_be_series(tmp_path):
    for n in range(2):
        write(tmp_path, PLAIN, f"log{n}.csv")
    notes = read(tmp_path / "log*.csv").cells.notes
    assert notes == ["each file is a series; combine parts of one series in one file: cat DAY*.csv > ALL.csv"]


def test_what_may_be_a_total_is_told_with_the_option_that_leaves_it_out(tmp_path):
    text = "date,North,South,Total\n2020-01-01,1,2,3\n2020-01-02,2,2,4\n"
    says = "if Total is the total of others, leave it out: data.values=[North,South]"
    for form in ("wide", "long"):
        assert says in read(write(tmp_path, text), form=form).notes
    left = read(write(tmp_path, text), form="wide", values=["North", "South"])
    assert (sorted(left.names), left.notes) == (["North", "South"], [])
    across = "region,2020-01-01,2020-01-02\nNorth,1,2\nTotal,3,4\n"
    assert read(write(tmp_path, across)).notes == ["if series Total is the total of others, delete its rows"]


@pytest.mark.parametrize(
    ("name", "cells"), [("x", "01067 01099 10115"), ("zip_code", "8001 8002 3000"), ("ID", "5 7 9")]
)
def test_numbers_that_may_be_codes_are_told(tmp_path, name, cells):
    text = "\n".join([f"series,time,{name},y", *(f"a,{n},{cell},{n}" for n, cell in enumerate(cells.split()))])
    table = read(write(tmp_path, text))
    first = cells.split()[0]
    code = f"{name}: '{first}' read as the number {int(first)}; if it is a code, remove {name} from data.values=[…]"
    assert table.cells.notes == [code]
    assert only(table)[1] == [[int(cell), n] for n, cell in enumerate(cells.split())]
    plain = write(tmp_path, text.replace(name, "paid").replace(" 0", " ").replace(",0", ",1"))
    assert not any("code" in note for note in read(plain, repeats="mean").cells.notes)


def test_columns_of_one_name_are_told_apart(tmp_path):
    table = read(write(tmp_path, PLAIN.replace("x,y", "x,x")))
    assert (table.columns, only(table)[1]) == (["x", "x_1"], VALUES)
    assert table.cells.notes == ["2 columns are named x: one is x_1 here"]


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
