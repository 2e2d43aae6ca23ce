"""What a row and a column of a table are: samples, totals, series written across, coordinates."""

import datetime

import pytest
from table_kit import HOW, read, rows, write

from odenet_cli import data
from odenet_cli.errors import RequestError

DAY = 86400.0


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
        assert data.load(name, {"path": str(few)}, run=run, **HOW).unlabelled.size == 2
    for day in (1, 2):  # once in each file
        write(tmp_path, "\n".join(["of,a,b", *lines[day:], "Total,473,420.5"]), f"day{day}.csv")
    with pytest.raises(RequestError, match="of='Total' is not a sample but the total of others"):
        data.prepare(name, {"path": str(tmp_path / "day*.csv"), **options})


def test_what_may_be_a_total_is_told_with_the_option_that_leaves_it_out(tmp_path):
    text = "date,North,South,Total\n2020-01-01,1,2,3\n2020-01-02,2,2,4\n"
    says = "if Total is the total of others, leave it out: data.values=[North,South]"
    for form in ("wide", "long"):
        assert says in read(write(tmp_path, text), form=form).notes
    left = read(write(tmp_path, text), form="wide", values=["North", "South"])
    assert (sorted(left.names), left.notes) == (["North", "South"], [])
    across = "region,2020-01-01,2020-01-02\nNorth,1,2\nTotal,3,4\n"
    assert read(write(tmp_path, across)).notes == ["if series Total is the total of others, delete its rows"]


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
