"""Numbers as programs write them: signs, marks and codes are read as they are meant, or refused by name."""

import math

import polars
import pytest
from table_kit import only, read, write

from odenet_cli import data
from odenet_cli.errors import RequestError


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


def test_text_in_typed_files_has_a_decimal_sign_too(tmp_path):
    polars.DataFrame({"time": [0, 1], "x": ["1,5", "2,25"]}).write_parquet(path := tmp_path / "a.parquet")
    assert only(read(path))[1] == [[1.5], [2.25]]
    polars.DataFrame({"time": [0, 1], "x": ["1,5", "2.5"]}).write_parquet(path)
    with pytest.raises(RequestError, match=r"row 1: x='1,5'.* data\.decimal=','"):
        read(path)
    assert only(read(path, decimal=","))[1] == [[1.5], [2.5]]


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


def test_what_may_be_missing_is_no_number_with_a_mark(tmp_path):
    """The option named 4.9 p as a word for nothing, where only the colon is one."""
    text = "time,x\n0,4.9 p\n1,:\n2,7.1\n"
    with pytest.raises(RequestError, match=r"Correct it, or count it as missing: 'data\.missing=\[\":\"\]'\.$"):
        read(write(tmp_path, text))
    with pytest.raises(
        RequestError, match=r"Write numbers without units, or the same unit in every cell of the column\.$"
    ):
        read(write(tmp_path, text), missing=[":"])


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
