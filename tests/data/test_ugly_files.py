"""Files as programs export them: a table is read whatever stands around it, or refused by name."""

import datetime
import gzip
import io
import math
import zipfile
from decimal import Decimal

import polars
import pytest
from table_kit import PLAIN, VALUES, excel, only, read, write

from odenet_cli.errors import RequestError


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


def test_rows_of_no_time_and_no_value_are_passed_over(tmp_path):
    """As a glucose meter's export begins with the name of its owner; a value without a time is refused."""
    text = "time,what,x\n,owner,\n , device, \n0,a,1\n1,a,2\n"
    table = read(write(tmp_path, text), values=["x"])
    assert only(table) == ([0, 1], [[1], [2]])
    assert "2 rows without a time and a value skipped" in table.cells.notes
    with pytest.raises(RequestError, match="line 2: time='' is not a finite number"):
        read(write(tmp_path, text.replace("owner,", "owner,3")), values=["x"])


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


def test_columns_of_one_name_are_told_apart(tmp_path):
    table = read(write(tmp_path, PLAIN.replace("x,y", "x,x")))
    assert (table.columns, only(table)[1]) == (["x", "x_1"], VALUES)
    assert table.cells.notes == ["2 columns are named x: one is x_1 here"]


def test_files_are_told_to_be_series(tmp_path):
    for n in range(2):
        write(tmp_path, PLAIN, f"log{n}.csv")
    notes = read(tmp_path / "log*.csv").cells.notes
    assert notes == ["each file is a series; combine parts of one series in one file: cat DAY*.csv > ALL.csv"]
