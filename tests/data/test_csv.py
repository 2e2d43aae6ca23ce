"""A table of series: irregular, of different lengths, split by series; faults are named by file and line."""

import random

import pytest
import torch

from odenet_cli import data
from odenet_cli.data._series import FURTHER, PADDING, WINDOW, Series
from odenet_cli.errors import RequestError

ROWS = "a,0,1,2 a,2,3,4 a,1,2,3 b,5,0,0 b,9,1,1 c,1,1,1 c,2,5,2 c,4,2,2 c,7,9,2 d,0,1,2 d,1,2,3"
GOOD = "\n".join(["series,time,x,y", *ROWS.split(), ""])


@pytest.fixture
def table(tmp_path):
    def write(text):
        path = tmp_path / "own.csv"
        path.write_text(text, encoding="utf-8")
        return {"path": str(path)}

    return write


def load(options):
    how = {"batch_size": 50, "eval_batch_size": 50, "seed": 0, "device": torch.device("cpu"), "dtype": torch.float64}
    return data.load("csv", options, **how)


def whole(found):
    return [Series(*next(iter(split.plain(50).epoch(0)))) for split in (found.train, found.valid, found.test)]


def test_series_of_different_lengths(table):
    options = table(GOOD)
    assert data.shape("csv", options) == ((2,), 0)
    found = load(options | {"span": 6.0})
    assert (found.shape, found.task, found.record["sizes"]) == ((2,), "series", {"train": 2, "valid": 1, "test": 1})
    assert found.record["columns"] == ["series", "time", "x", "y"]
    parts = whole(found)
    lengths = sorted(int(n) for x in parts for n in (x.scope != PADDING).sum(1))
    assert lengths == [2, 2, 3, 4]
    for x in parts:
        assert torch.equal(x.times[:, 0], torch.zeros(len(x.times), dtype=torch.float64))
        assert torch.equal((x.scope == WINDOW).sum(1), x.seen.sum(1))
        assert ((x.scope == FURTHER).sum(1) >= 1).all()
    spans = sorted(float(x.at[i].max()) for x in parts for i in range(len(x.at)))
    assert spans == [1.0, 2.0, 4.0, 6.0]  # in the order d, a, b, c; the longest lasts six
    mean, spread = (torch.tensor(found.record[key]) for key in ("mean", "standard_deviation"))
    known = parts[0].values[parts[0].seen]
    assert torch.allclose(known.mean(0), torch.zeros(2, dtype=torch.float64), atol=1e-12)
    assert mean.shape == spread.shape == (2,)


def test_the_order_of_rows_says_nothing(table):
    head, *rows = GOOD.splitlines()
    before = load(table(GOOD))
    random.Random(0).shuffle(rows)
    after = load(table("\n".join([head, *rows]) + "\n\n"))
    assert all(torch.equal(x, y) for a, b in zip(whole(before), whole(after)) for x, y in zip(a, b))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "own.csv is empty"),
        ("\n\n", "own.csv is empty"),
        ("series,time,x\n", "no rows below it"),
        ("series,time\na,1\n", "line 1: 2 columns"),
        ("a,1,2\na,2,3\n", "line 1: numbers"),
        (GOOD.replace("a,2,3,4", "a,2,3"), "line 3: 3 columns, where the first line has 4"),
        (GOOD.replace("a,2,3,4", "a,2,3,4,5"), "line 3: 5 columns"),
        (GOOD.replace("a,2,3,4", "a,2,three,4"), "line 3: x='three' is no finite number"),
        (GOOD.replace("a,2,3,4", "a,2,3,"), "line 3: y='' is no finite number"),
        (GOOD.replace("a,2,3,4", "a,nan,3,4"), "line 3: time='nan' is no finite number"),
        (GOOD.replace("a,2,3,4", ",2,3,4"), "line 3: series is empty"),
        (GOOD.replace("a,2,3,4", "a,1,3,4"), "line 4: series a has the time 1 already in line 3"),
        (GOOD + "e,3,1,1\n", "line 13: series e has only this one point"),
        ("series,time,x\na,0,1\na,1,1\n", "1 series.*leave none to train on"),
    ],
)
def test_a_fault_is_named_by_file_and_line(table, text, says):
    with pytest.raises(RequestError, match=rf"(?s)own\.csv.*{says}|{says}"):
        data.prepare("csv", table(text))


def test_a_file_that_is_not_there_or_no_text(table, tmp_path):
    with pytest.raises(RequestError, match=r"data\.path=.*nowhere.*No such file"):
        data.prepare("csv", {"path": str(tmp_path / "nowhere.csv")})
    with pytest.raises(RequestError, match=r"data\.path is missing: data=csv data\.path=FILE"):
        data.check("csv", {})
    (tmp_path / "bytes.csv").write_bytes(b"s,t,x\n\xff\xfe,1,2\n")
    with pytest.raises(RequestError, match="not a table of comma-separated text"):
        data.prepare("csv", {"path": str(tmp_path / "bytes.csv")})


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
