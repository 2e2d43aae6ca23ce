"""Tables in the shapes that people have them: each is read by one command, its numbers, times and gaps as meant."""

import datetime
import math

import polars
import pytest
import torch
from table_kit import HOW, load, series, write

from odenet_cli import data
from odenet_cli.errors import RequestError

DAY0 = datetime.date(2020, 1, 1)
NAMES = "abcdefgh"


def starting_with(found, value):
    """The one series whose first value of the first column is this."""
    whole = [pair for part in series(found) for pair in part]
    (one,) = [(t.tolist(), x) for t, x in whole if math.isclose(float(x[0, 0]), value, abs_tol=1e-9)]
    return one


def day(n):
    return DAY0 + datetime.timedelta(n)


def wave(n, t):
    return round(10 + n + math.sin(t + n), 3)


def population():
    """Yearly counts with dates, one series a country."""
    return "country,date,population\n" + "".join(
        f"{name},{1990 + t}-07-01,{1_000_000 * (n + 1) + 1000 * t * t}\n"
        for n, name in enumerate(NAMES)
        for t in range(8)
    )


def meters():
    """Energy meters: a column a meter, semicolons, decimal commas, German dates, quarter hours."""
    rows = [
        f"{day(0):%d.%m.%Y} {t // 4:02d}:{15 * (t % 4):02d};"
        + ";".join(f"{wave(n, t):.3f}".replace(".", ",") for n in range(6))
        for t in range(40)
    ]
    return "\r\n".join(["Zeit;MT_001;MT_002;MT_003;MT_004;MT_005;MT_006", *rows, ""])


def clinic():
    """Visits at irregular hours; most measurements missing, sex as text, age the same in all rows of a patient."""
    rows = [
        f"{100 + n},{t * 1.5 + n / 10},{'M' if n % 2 else 'F'},{40 + n},{wave(n, t) if t % 3 else ''},"
        f"{'NA' if t % 2 else 7 + n / 10}"
        for n in range(12)
        for t in range(9)
    ]
    return "\n".join(["RecordID,Hours,Sex,Age,HR,pH", *rows])


def epidemic():
    """Daily counts that begin with zeros, American dates."""
    rows = [
        f"{name},{t + 1}/{15}/2020,{0 if t < 4 else (n + 1) * 2**t}" for n, name in enumerate(NAMES) for t in range(10)
    ]
    return "\n".join(["region,date,cases", *rows])


def sensor():
    """An export of a logger: comments, a row of units, a column with no spread, error codes."""
    rows = [f"{t * 0.5},{wave(0, t / 3) if t != 7 else -999},{1013 + t % 5},0" for t in range(60)]
    return "\n".join(
        [
            "# Logger 12",
            "# site: roof",
            "Time,Temp,Pressure,Flag",
            "s,°C,hPa,-",
            *rows[:30],
            "# battery changed",
            *rows[30:],
        ]
    )


def r_export():
    return "\n".join(
        ['"","id","t","x"', *(f'"{k + 1}","{NAMES[k // 6]}",{k % 6},{wave(k // 6, k % 6)}' for k in range(48))]
    )


def pandas_export():
    return "\n".join(
        ["Unnamed: 0,series,time,x", *(f"{k},{NAMES[k // 6]},{k % 6},{wave(k // 6, k % 6)}" for k in range(48))]
    )


def latin1():
    rows = [
        f"{'Köln' if n == 3 else NAMES[n]};{t};{f'{wave(n, t):.3f}'.replace('.', ',')}"
        for n in range(8)
        for t in range(6)
    ]
    return "\r\n".join(["sep=;", "Ort;t;Höhe (m)", *rows]).encode("latin-1")


def milliseconds():
    return "\n".join(
        [
            "series\ttimestamp\tx",
            *(f"{NAMES[n]}\t{1_582_934_400_123 + 250 * t}\t{wave(n, t)}" for n in range(8) for t in range(6)),
        ]
    )


def single():
    """One series, hourly, of the time of a day in a column of its own."""
    return "\n".join(
        ["Date,Time,Load", *(f"{day(t // 24):%Y/%m/%d},{t % 24:02d}:00:00,{wave(0, t / 4)}" for t in range(96))]
    )


def unsorted():
    rows = [f"{name},{t},{wave(n, t)}" for n, name in enumerate(NAMES) for t in range(6)]
    return "\n".join(["series,time,x", *rows[::-1], f"a,2,{wave(0, 2) + 2}"])


YEAR = 365 * 86400.0
# name -> (what writes it, options, series, columns, first value of a series, its first times, a test of its values)
SHAPES = {
    "population": (
        population,
        {"series": "country"},
        8,
        ["population"],
        3_000_000,
        [0.0, YEAR, 2 * YEAR + 86400],
        None,
    ),
    "meters": (meters, {"form": "wide", "time": "Zeit"}, 6, ["value"], wave(2, 0), [0.0, 900.0], None),
    "clinic": (
        clinic,
        {"series": "RecordID", "time": "Hours"},
        12,
        ["Age", "HR", "pH"],
        43,
        [0.0, 1.5],
        [math.nan, wave(3, 1)],
    ),
    "epidemic": (epidemic, {"series": "region"}, 8, ["cases"], None, None, None),
    "sensor": (
        sensor,
        {"split": "time", "missing": [-999], "values": ["Temp", "Pressure"]},
        3,
        ["Temp", "Pressure"],
        wave(0, 0),
        [0.0, 0.5],
        None,
    ),
    "R": (r_export, {}, 8, ["x"], wave(3, 0), [0.0, 1.0], None),
    "pandas": (pandas_export, {}, 8, ["x"], wave(3, 0), [0.0, 1.0], None),
    "Latin-1": (latin1, {"series": "Ort"}, 8, ["Höhe (m)"], wave(3, 0), [0.0, 1.0], None),
    "milliseconds": (milliseconds, {}, 8, ["x"], wave(3, 0), [0.0, 250.0], None),
    "single": (single, {"split": "time"}, 3, ["Load"], wave(0, 0), [0.0, 3600.0], None),
    "unsorted": (
        unsorted,
        {"repeats": "mean"},
        8,
        ["x"],
        wave(0, 0),
        [0.0, 1.0],
        [wave(0, 0), wave(0, 1), wave(0, 2) + 1],
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_a_table_as_it_is_found(tmp_path, name):
    make, options, count, columns, first, times, values = SHAPES[name]
    found = load(write(tmp_path, make()), **options)
    assert sum(found.record["sizes"].values()) == count
    assert found.record["columns"][2:] == columns
    if first is not None:
        t, x = starting_with(found, first)
        assert t[: len(times)] == pytest.approx(times, abs=1e-6)
        if values is not None:
            column = x[:, -2 if name == "clinic" else 0][: len(values)]
            assert column.tolist() == pytest.approx(values, nan_ok=True)


@pytest.mark.numerics
@pytest.mark.parametrize("name", ["meters", "clinic"])
def test_a_table_is_trained_on_and_predicted_by_one_command_each(odenet, tmp_path, name):
    make, options = SHAPES[name][:2]
    words = [f"data.path={write(tmp_path, make())}", *(f"data.{key}={value}" for key, value in options.items())]
    done = odenet("train", "model=rnn", "data=table", *words, "trainer.steps=1", "device=cpu", "hydra.run.dir=run")
    assert done.returncode == 0, done.stderr
    assert "\ntable:    " in done.stdout
    done = odenet("predict", "run", "out=out.csv")
    assert done.returncode == 0, done.stderr
    frame = polars.read_csv(tmp_path / "out.csv")
    assert len(frame) == {"meters": 240, "clinic": 108}[name]
    assert not any(frame[f"{column}_mean"].null_count() for column in SHAPES[name][3])


@pytest.mark.parametrize("kind", ["parquet", "xlsx"])
def test_files_whose_columns_have_types(tmp_path, kind):
    rows = [
        (NAMES[n], datetime.datetime(2020, 1, 1 + t), wave(n, t), None if t == n == 2 else t * n)
        for n in range(8)
        for t in range(6)
    ]
    frame = polars.DataFrame(rows, schema=["series", "time", "x", "k"], orient="row")
    path = tmp_path / f"own.{kind}"
    if kind == "parquet":
        frame.write_parquet(path)
    else:
        pytest.importorskip("fastexcel")
        openpyxl = pytest.importorskip("openpyxl")
        book = openpyxl.Workbook()
        for row in [frame.columns, *rows]:
            book.active.append(row)
        book.save(path)
    found = load(path)
    assert found.record["dates"] == "date"
    t, x = starting_with(found, wave(2, 0))
    assert t == [86400.0 * k for k in range(6)]
    assert x[:, 1].tolist() == pytest.approx([0, 2, math.nan, 6, 8, 10], nan_ok=True)


def test_another_sheet_of_an_excel_file(tmp_path):
    pytest.importorskip("fastexcel")
    openpyxl = pytest.importorskip("openpyxl")
    book, path = openpyxl.Workbook(), tmp_path / "own.xlsx"
    book.active.append(["read me"])
    for row in [("series", "time", "x"), *((NAMES[n], t, wave(n, t)) for n in range(8) for t in range(4))]:
        (book["März"] if "März" in book.sheetnames else book.create_sheet("März")).append(row)
    book.save(path)
    assert starting_with(load(path, sheet="März"), wave(2, 0))[0] == [0, 1, 2, 3]
    found = data.load("points", {"path": str(path), "sheet": "März", "columns": "x"}, **HOW)
    assert sum(found.record["sizes"].values()) == 32
    with pytest.raises(RequestError, match=r"data\.sheet=April: there is no such sheet. Available: Sheet, März"):
        load(path, sheet="April")
    with pytest.raises(RequestError, match=r"data\.sheet=März is for Excel files"):
        load(write(tmp_path, pandas_export()), sheet="März")
    with pytest.raises(RequestError, match=r"sheet Sheet was read; there are also \(data\.sheet=NAME\) März"):
        load(path)
    book["März"].insert_rows(1)
    book["März"]["A1"] = "Made by the lab"
    book.save(path)
    assert starting_with(load(path, sheet="März", skip=1), wave(2, 0))[0] == [0, 1, 2, 3]


def measured(rows):
    """The same numbers as a row of each point, and as a row of each measurement."""
    points = [f"{name},{t},{x},{y}" for name, t, x, y in rows]
    single = [
        f"{name},{t},{kind},{value}" for name, t, *values in rows for kind, value in zip("xy", values) if value != ""
    ]
    return "\n".join(["series,time,x,y", *points]), "\n".join(["series,time,kind,value", *single[::-1]])


def test_rows_of_one_measurement_each_are_points(tmp_path):
    """Those of one time are one point; what is not measured there is missing, and a run knows the columns."""
    rows = [(f"s{n}", t, wave(n, t), n - t if (n + t) % 3 else "") for n in range(8) for t in range(6)]
    points, single = measured(rows)
    a, b = load(write(tmp_path, points)), load(write(tmp_path, single, "b.csv"), variable="kind")
    assert a.record["columns"] == b.record["columns"]
    assert a.record["content"] == b.record["content"]
    for part in ("train", "valid", "test"):
        pairs = zip(getattr(a, part).rows, getattr(b, part).rows, strict=True)
        assert all(torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in pairs)
    _, other = measured([(name, t, x, "") for name, t, x, _ in rows])  # without any y
    seen = load(write(tmp_path, other, "c.csv"), run=b.record, variable="kind")
    values = [x for part in series(seen) for _, x in part]
    assert {x.shape[1] for x in values} == {2}
    assert all(x[:, 1].isnan().all() for x in values)


def test_measurements_in_one_column_are_noticed(tmp_path):
    rows = [(f"s{n}", t, wave(n, t), n - t) for n in range(8) for t in range(6)]
    _, single = measured(rows)
    path = write(tmp_path, single)
    with pytest.raises(RequestError, match=r"If kind names what a row measures, set data\.variable=kind; otherwise"):
        load(path)
    twice = write(tmp_path, f"{single}\ns0,3,x,1.5", "twice.csv")
    with pytest.raises(RequestError, match=r"line 98: series s0 already has the time 3 in line"):
        load(twice, variable="kind")
    assert load(twice, variable="kind", repeats="mean").record["columns"] == ["series", "time", "x", "y"]
    apart = write(tmp_path, "\n".join(line.replace(",y,", ".5,y,") for line in single.splitlines()), "apart.csv")
    assert "if kind names what a row measures (x, y), set data.variable=kind" in load(apart).record["table"]
    wrong = {
        "no such column": {"variable": "sort"},
        "cannot be used with data.form=wide": {"variable": "kind", "form": "wide"},
        "there must be one column of measured values, and there are x, y": {"variable": "k"},
    }
    for text, options in wrong.items():
        file = write(tmp_path, "series,time,k,x,y\na,1,b,2,3\na,2,b,2,3", "w.csv") if text.startswith("there") else path
        with pytest.raises(RequestError, match=text):
            load(file, **options)
    with pytest.raises(RequestError, match="kind is empty; it must name what is measured"):
        load(write(tmp_path, f"{single}\ns0,3.2,,1.5", "empty.csv"), variable="kind")


def test_what_was_understood_is_told(tmp_path):
    lines = load(write(tmp_path, sensor()), **SHAPES["sensor"][1]).record["table"]
    assert lines[0] == "1 series of 60 points, 60 in all"
    assert lines[1] == "Time: 0 to 29.5, gaps 0.5 (median), 0.5 (longest)"
    assert lines[2].startswith("Temp: ")
    assert lines[2].endswith(" °C, 1 cell missing (1.7 %)")
    assert "line 4 read as a row of units" in lines
    assert "1 comments (#) skipped, the first in line 35" in lines
    text = "\n".join(load(write(tmp_path, clinic()), **SHAPES["clinic"][1]).record["table"])
    assert "ignored, not numeric: Sex" in text
    assert "12 series (RecordID) of 9 points" in text
    assert (
        "Date Time: 2020-01-01 to 2020-01-04 23:00:00, gaps 1 h (median)"
        in load(write(tmp_path, single()), split="time").record["table"][1]
    )
