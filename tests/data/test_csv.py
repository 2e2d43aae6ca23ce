"""A table of series: irregular, of different lengths, split by series; faults are named by file and line."""

import os
import random
import re

import pytest
import table_kit
import torch
from table_kit import parts, same, write

from odenet_cli import data
from odenet_cli.data.common.series import FURTHER, PADDING, WINDOW
from odenet_cli.errors import RequestError

ROWS = "a,0,1,2 a,2,3,4 a,1,2,3 b,5,0,0 b,9,1,1 c,1,1,1 c,2,5,2 c,4,2,2 c,7,9,2 d,0,5,7 d,1,2,3"
TINY = "series,time,x\na,0,1\na,5e-324,2\nb,0,1\nb,1e-323,1\nc,0,1\nc,5e-324,1\n"
GOOD = "\n".join(["series,time,x,y", *ROWS.split(), ""])


@pytest.fixture
def table(tmp_path):
    return lambda text: {"path": str(write(tmp_path, text))}


def load(options):
    return table_kit.load(**options, name="csv")


def test_series_of_different_lengths(table):
    options = table(GOOD)
    assert data.shape("csv", options) == ((2,), 0)
    found = load(options | {"span": 6.0})
    assert (found.shape, found.task, found.record["sizes"]) == ((2,), "series", {"train": 2, "valid": 1, "test": 1})
    assert found.record["columns"] == ["series", "time", "x", "y"]
    every = parts(found)
    lengths = sorted(int(n) for x in every for n in (x.scope != PADDING).sum(1))
    assert lengths == [2, 2, 3, 4]
    for x in every:
        assert torch.equal(x.times[:, 0], torch.zeros(len(x.times), dtype=torch.float64))
        assert torch.equal((x.scope == WINDOW).sum(1), x.observed_mask.sum(1))
        assert ((x.scope == FURTHER).sum(1) >= 1).all()
    spans = sorted(float(x.target_times[i].max()) for x in every for i in range(len(x.target_times)))
    assert spans == [1.0, 2.0, 4.0, 6.0]  # in the order d, a, b, c; the longest lasts six
    mean, spread = (torch.tensor(found.record[key]) for key in ("mean", "standard_deviation"))
    known = every[0].values[every[0].observed_mask]
    assert torch.allclose(known.mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-12)
    assert mean.shape == spread.shape == (2,)


def test_the_order_of_rows_says_nothing(table):
    head, *rows = GOOD.splitlines()
    before = load(table(GOOD))
    random.Random(0).shuffle(rows)
    after = load(table("\n".join([head, *rows]) + "\n\n"))
    assert same(before, after)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("series,time\na,1\n", "series, time are all columns; there must also be a column of values"),
        ("a,1,2\na,2,3\n", "line 1: numbers"),
        (GOOD.replace("a,2,3,4", "a,2,3"), "line 3: 3 columns, where the first line has 4"),
        (GOOD.replace("a,2,3,4", "a,2,3,4,5"), "line 3: 5 columns"),
        (GOOD.replace("a,2,3,4", "a,2,three,4"), "line 3: x='three' is not a finite number"),
        (GOOD.replace("a,2,3,4", "a,,3,4"), "line 3: time='' is not a finite number"),
        (GOOD.replace("a,2,3,4", "a,nan,3,4"), "line 3: time='nan' is not a finite number"),
        (GOOD.replace("a,2,3,4", ",2,3,4"), "line 3: series is empty"),
        (GOOD.replace("a,2,3,4", "a,1,3,4"), "line 4: series a already has the time 1 in line 3"),
        (GOOD + "e,3,1,1\n", "line 13: series e has only this point"),
        ("series,time,x\na,0,1\na,1,1\n", "line 2: series a has 2 points, too few for two in each split"),
    ],
)
def test_a_fault_is_named_by_file_and_line(table, text, says):
    with pytest.raises(RequestError, match=rf"(?s)own\.csv.*{says}|{says}"):
        data.prepare("csv", table(text))


HEADERS = [
    ("series,time,time", "columns 2 and 3 are both named time"),
    ("series,Time,x,time", "columns 2 and 4 are both named time"),
    ("series,hours,x", "no column is named time (or t, .*). Columns: series, hours, x. .* data.time=NAME"),
    ("series,T,x", "no column is named time"),
    ("series,,x,", "no column is named time"),
    ('series,time,"x', 'the quote that opens at "x is not closed'),
    (f"series,time,{'x' * 200_000}", "larger than field limit"),
    ("series,time", "are all columns; there must also be a column of values"),
]


def literal(says):
    return ".*".join(map(re.escape, says.split(".*")))


@pytest.mark.parametrize(("header", "says"), HEADERS)
def test_a_first_line_that_names_no_columns(table, header, says):
    rows = "".join(f"{name},{n},1\n" for name in "abcd" for n in range(3))
    for text in (f"{header}\n{rows}", f"\ufeff{header}\r\n{rows}"):
        for ask in (data.prepare, data.shape):
            with pytest.raises(RequestError, match=rf"own\.csv(, line 1)?: .*{literal(says)}"):
                ask("csv", table(text))


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_other_separators(table, mark):
    plain, found = load(table(GOOD)), load(table(GOOD.replace(",", mark)))
    assert same(found, plain)


def test_a_column_without_a_name_may_number_the_rows(table):
    head, *rows = GOOD.splitlines()
    numbered = "\n".join([f",{head}", *(f"{n},{row}" for n, row in enumerate(rows))])
    plain, found = load(table(GOOD)), load(table(numbered))
    assert same(found, plain)
    with pytest.raises(RequestError, match=r"line 2: column 1 of 5 has no name, and does not contain row numbers"):
        load(table(numbered.replace("\n1,", "\n0,")))
    empty = "\n".join(f"{line},,," for line in GOOD.splitlines())  # as Excel writes columns that once held something
    assert same(load(table(empty)), plain)
    with pytest.raises(RequestError, match=r"line 2: column 6 of 7 has no name, and does not contain row numbers"):
        load(table(empty.replace("a,2,3,4,,", "a,2,3,4,,0.5")))


@pytest.mark.parametrize(
    ("header", "order"),
    [
        ("time,series,x,y", (1, 0, 2, 3)),
        ("x,t,y,id", (2, 1, 3, 0)),
        ("Series,x,y,TIME", (0, 2, 3, 1)),
        ("x,y,ID,Time", (2, 3, 0, 1)),
    ],
)
def test_columns_are_found_by_name(table, header, order):
    plain = load(table(GOOD))
    rows = [",".join(row.split(",")[place] for place in order) for row in ROWS.split()]
    found = load(table("\n".join([header, *rows])))
    assert same(found, plain)
    names = header.split(",")
    assert found.record["columns"] == [names[order.index(place)] for place in range(4)]


def test_a_time_beside_a_temperature(table):
    found = load(table(GOOD.replace("time,x,y", "t,T,id")))
    assert found.record["columns"] == ["series", "t", "T", "id"]


@pytest.mark.parametrize("text", ["1_0", "１２", "٣", "0x1", "1e999", "inf", "1,5", "1e", "+-1", ".", "1 0", "1,234"])
@pytest.mark.parametrize("column", ["time", "x"])
def test_what_is_no_number(table, text, column):
    row = f'a,"{text}",3,4' if column == "time" else f'a,2,"{text}",4'
    with pytest.raises(RequestError, match=rf"own\.csv, line 3: {column}='{re.escape(text)}' is not a finite number"):
        data.prepare("csv", table(GOOD.replace("a,2,3,4", row)))


@pytest.mark.parametrize("text", ["3", "+3", "3.", "03.0", "30e-1", "0.3E1", ".3e+1"])
def test_what_is_a_number(table, text):
    found, plain = load(table(GOOD.replace("a,2,3,4", f"a,2,{text},4"))), load(table(GOOD))
    assert torch.equal(parts(found)[0].values, parts(plain)[0].values)


@pytest.mark.parametrize("text", ["", "NA", "nan", "N/A", "null", "none", "-", "?", " "])
def test_a_cell_may_be_missing(table, text):
    found, plain = load(table(GOOD.replace("a,2,3,4", f"a,2,{text},4"))), load(table(GOOD))
    assert found.record["masked"]
    assert "masked" not in plain.record
    assert found.shape == (2, 2)
    missing = torch.cat([x.noisy.isnan().flatten() for x in parts(found)])
    assert int(missing.sum()) == 1


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (GOOD.replace("a,2,3,4", "a,2,1e300,4"), 3, "x=1e+300 is beyond ±1e+100. Correct it, rescale x"),
        (GOOD.replace("a,2,3,4", "a,2,3,-1e200"), 3, "y=-1e+200 is beyond"),
        (GOOD.replace("a,2,3,4", "a,1e308,3,4"), 3, "time=1e+308 is beyond"),
        (GOOD.replace("a,2,3,4", "a,-1e308,3,4"), 3, "time=-1e+308 is beyond"),
        (GOOD.replace("c,7,9,2", "c,7,9e60,2"), 10, "x=9e+60 is more than 1e+15 standard deviations.*Correct it"),
        (TINY, 5, "lasts 9.88131e-324, .* the unit of time.*Rescale time"),
    ],
)
def test_numbers_that_would_overflow(table, text, line, says):
    with pytest.raises(RequestError, match=rf"own\.csv, line {line}: .*{literal(says)}"):
        data.prepare("csv", table(text))


def test_padding_stays_finite_where_a_column_is_large(table):
    rows = "\n".join(f"{row.rpartition(',')[0]},8e60" if row[0] == "a" else row for row in ROWS.split())
    for x in parts(load(table(f"series,time,x,y\n{rows}"))):
        assert x.noisy.isfinite().all()
        assert (x.noisy[x.scope == PADDING] == 0).all()


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        (b"", 1, "own.csv is empty.*line 1 must name the columns"),
        (b"\n\n \n", 1, "own.csv is empty.*line 1 must name the columns"),
        (b"\xef\xbb\xbf", 1, "own.csv is empty"),
        (b"series,time,x\n", 1, "no rows follow. Add rows"),
        (b"\nseries,time,x\n\n", 2, "no rows follow"),
        (b"series,time,x\na,0,1\na,1,\xff\n", 3, "x='ÿ' is not a finite number"),
        (b"series,time,x\ra,0,1\ra,1,\xff\r", 3, "x='ÿ' is not a finite number"),
        (b"\x89PNG\r\n\x1a\n\0\0", 2, "byte 0x1a; this is not text"),
        ("series,time,x\na,0,1\na,1,z\n".encode("utf-16"), 3, "x='z' is not a finite number"),
        (b"series,time,x\na,0,1\na,1,\0\n", 3, "byte 0x00"),
        (b"series,time,x\na,0,1\na,1," + b"1" * 200_000, 3, "larger than field limit.*Shorten the cell"),
        (
            b'series,time,x\na,0,1\n"a,1,2\nb,0,1\nb,1,1\n',
            3,
            'the quote that opens at "a,1,2 is not closed in its line',
        ),
        (b'series,time,x\na,0,1\na,"1,2\nb,0,1\nb,"1,1', 3, 'the quote that opens at "1,2'),
        (b'series,time,x\na,0,1\na,1,"2', 3, 'the quote that opens at "2'),
        (b'series,time,x\n"a,0,1\n' + b"b,1,1\n" * 40_000, 2, 'the quote that opens at "a,0,1'),
    ],
)
def test_a_file_that_is_no_table(table, text, line, says):
    with pytest.raises(RequestError) as caught:
        data.prepare("csv", table(text))
    assert re.search(rf"own\.csv.*line {line}\b", str(caught.value))
    assert re.search(f"(?s){literal(says)}", str(caught.value))
    assert len(str(caught.value).partition("own.csv")[2]) < 300


def test_quotes_that_close(table):
    plain = load(table(GOOD))
    found = load(table(re.sub("[^,\n]+", lambda cell: f'"{cell[0]}"', GOOD)))
    assert same(found, plain)


def test_a_file_that_is_not_there_or_no_text(table, tmp_path):
    for ending in ("csv", "xlsx", "parquet"):
        with pytest.raises(RequestError, match=rf"data\.path=.*nowhere.{ending} cannot be read: No such file"):
            data.prepare("csv", {"path": str(tmp_path / f"nowhere.{ending}")})
    with pytest.raises(RequestError, match=r"data\.path is missing: data=table data\.path=FILE"):
        data.check("csv", {})
    (tmp_path / "bytes.csv").write_bytes(b"s,t,x\n\1\2,1,2\n")
    with pytest.raises(RequestError, match="line 2: byte 0x01; this is not text"):
        data.prepare("csv", {"path": str(tmp_path / "bytes.csv")})


def test_a_pipe_or_a_device_is_no_table(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        for asked in (data.shape, data.prepare):
            with pytest.raises(RequestError, match=f"^data.path={path} is not a file"):
                asked("csv", {"path": str(path)})


@pytest.mark.parametrize(
    "options", [{"window": 0.0}, {"window": 1.5}, {"test": 0.0}, {"validation": -0.1}, {"span": 0.0}]
)
def test_shares_out_of_range(table, options):
    (key,) = options
    with pytest.raises(RequestError, match=rf"data\.{key}="):
        data.check("csv", table(GOOD) | options)


@pytest.mark.numerics
def test_a_bad_table_ends_with_exit_code_2_before_anything_is_written(odenet, tmp_path, table):
    options = table(GOOD.replace("a,2,3,4", "a,2,x,4"))
    done = odenet("train", "model=rnn", "data=csv", f"data.path={options['path']}", "trainer.steps=1", "device=cpu")
    assert done.returncode == 2
    assert "own.csv, line 3: x='x'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()
