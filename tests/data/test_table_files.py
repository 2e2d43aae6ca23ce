"""Tables: faults are told at once, dates are read or refused, series are split and cut, missing cells are masked."""

import math
import re
import shlex
import sys

import pytest
import table_kit
import torch
from table_kit import parts, same, series, write

from odenet_cli import data
from odenet_cli.data import table as module
from odenet_cli.data.common.series import PADDING, Series
from odenet_cli.data.common.table_dates import parse_dates
from odenet_cli.data.common.table_patterns import DateError
from odenet_cli.errors import RequestError
from odenet_cli.request.overrides import parse_values
from odenet_cli.tasks.series import baselines, errors, negative_log_likelihood

ROWS = [f"s{n},{t},{n * t},{n - t}" for n in range(8) for t in range(6)]
GOOD = "\n".join(["series,time,x,y", *ROWS])
LONG = "\n".join(["time,x", *(f"{t},{math.sin(t):.6f}" for t in range(100))])


@pytest.fixture
def load(tmp_path):
    return lambda text, run=None, name="own.csv", **options: table_kit.load(write(tmp_path, text, name), run, **options)


def points(found):
    """The values of the first column, series by series, of each part."""
    return [[x[:, 0].tolist() for _, x in part] for part in series(found)]


def test_a_point_beside_decimal_commas_is_not_guessed(load):
    """1.234,5 is clear, and so is 0.5; 1.234 may be a thousand times as much."""
    rows = [f"s{n};{t};{t},5;0.5" for n in range(8) for t in range(6)]
    rows[2] = "s0;2;1.234,5;0.5"
    whole = load("\n".join(["series;time;x;y", *rows]), decimal=",")
    assert any(value == pytest.approx(1234.5) for part in points(whole) for row in part for value in row)
    rows[3] = "s0;3;1.234;0.5"
    with pytest.raises(RequestError, match=r"line 5: x='1\.234' is not a finite number.*separator of thousands"):
        load("\n".join(["series;time;x;y", *rows]), decimal=",")


def test_a_repeated_date_is_told_as_a_date(load):
    text = "time,x\n2021-01-03 06:00,1\n2021-01-04 06:00,2\n2021-01-03 06:00,3\n"
    with pytest.raises(RequestError, match="line 4: series own already has the time 2021-01-03 06:00:00 in line 2"):
        load(text)


def test_all_faults_are_told_at_once(load):
    rows = list(ROWS)
    rows[3], rows[5], rows[7] = "s0,3,oops,1", "s0,5,bad,1", "s1,1,1"
    rows[9], rows[12], rows[20] = "s1,later,1,2", "s2,0,1,1e300", "s3,1,1,1"
    with pytest.raises(RequestError) as caught:
        load("\n".join(["series,time,x,y", *rows]))
    head, *kinds = str(caught.value).splitlines()
    assert head.endswith("own.csv has 6 errors of 5 kinds.")
    assert kinds == [
        "  line 5: x='oops' is not a finite number, such as -1.5 or 2e-3 (2 such cells or rows, also in line 7). "
        "Correct it, or count it as missing: data.missing=[oops,bad].",
        "  line 9: 3 columns, where the first line has 4 (series, time, x, y). Complete the row, or delete it.",
        "  line 11: time='later' is not a finite number, such as -1.5 or 2e-3. Correct it, or delete the row.",
        "  line 14: y=1e+300 is beyond ±1e+100. Correct it, rescale y, or delete the row.",
        "  line 22: series s3 already has the time 1 in line 21. Delete one of them, set data.repeats=mean, or "
        "name the columns that together identify the series: data.series=[series,NAME].",
    ]


@pytest.mark.parametrize(
    ("text", "options", "says"),
    [
        (GOOD.replace(",time,", ",hours,"), {}, "no column is named time .*data.time=NAME"),
        (GOOD, {"series": "who"}, "data.series=who: there is no such column. Available: series, time, x, y"),
        (GOOD, {"values": ["x", "z"]}, "data.values=z: there is no such column"),
        (
            GOOD,
            {"split": "part"},
            "data.split=part: it must be series, time, or a column with the values train, valid or test",
        ),
        (
            GOOD.replace("series", "patient"),
            {},
            "line 8: series own already has the time 0 in line 2 .*data.series=NAME",
        ),
        (LONG, {"split": "series"}, "1 series, and .* leave no series to train on.*data.split=time"),
        (
            GOOD.replace(",", ";").replace("s0;1;0", 's0;1;"0,5"'),
            {"decimal": "."},
            "line 3: x='0,5' .*data.decimal=','",
        ),
        ("\n".join(["series,time,x", "a,03/04/2020,1"]), {}, r"line 2: time='03/04/2020': .*data.time_format=dmy, mdy"),
        ("\n".join(["series,time,x", "a,03/04/20,1"]), {}, "the year has two digits.*data.time_format=dmy"),
        # By the first row's order it would be 20 February 2001.
        ("\n".join(["series,time,x", "a,2020-01-13,1", "a,01.02.20,2"]), {}, "line 3: time='01.02.20'"),
        ("\n".join(["series,time,x", "a,13.01.2020,1", "a,14.01.202,2"]), {}, "line 3: time='14.01.202'"),
        (GOOD, {"form": "broad"}, "data.form=broad is not known. Available: long, wide"),
        (GOOD, {"stride": 3}, "data.stride=3 needs data.length"),
        (GOOD, {"length": 1}, "data.length=1 must be at least 2"),
        (
            "time,x\n0,1\n1,2\n2,1\n3,2\n4,1",
            {},  # whose end is held out: nothing else can be
            "series .* has 5 points, too few for two in each split .* Add points, or series",
        ),
    ],
)
def test_a_table_that_cannot_be_read_says_how_to_mend_it(load, text, options, says):
    with pytest.raises(RequestError, match=f"(?s){says}"):
        load(text, **options)


@pytest.mark.parametrize("words", ["time", "data.series=who"])
def test_a_large_file_is_not_read_to_be_refused(tmp_path, words):
    path = tmp_path / "large.csv"
    with open(path, "w") as file:
        file.write("series,hours,x\n" + "a,1,2\n" * 200_000)
        file.truncate(100_000_000)  # the rest is zeros, which are no text
    options = {"path": str(path), **({"series": "who"} if "who" in words else {})}
    with pytest.raises(RequestError, match=words):
        data.prepare("table", options)


def test_several_files_are_one_table(load, tmp_path):
    whole = load(GOOD)
    for n in range(2):
        text = (
            "\n".join(["series,time,x,y", *ROWS[n::2]])
            if n
            else "\n".join(["time,series,y,x", *("{1},{0},{3},{2}".format(*row.split(",")) for row in ROWS[::2])])
        )
        (tmp_path / f"part{n}.csv").write_text(text)
    found = table_kit.load(tmp_path / "part*.csv", values=["x", "y"])
    assert same(found, whole)
    (tmp_path / "part1.csv").write_text('series,time,x,y\ns0,1,"1;0",1\n')
    with pytest.raises(RequestError, match=r"part1\.csv, line 2: x='1;0' is"):
        data.prepare("table", {"path": str(tmp_path / "part*.csv")})
    (tmp_path / "part0.csv").write_text("time,series,y,x\n2,s0,1,a\n3,s0,b,1\n4,s0,1,c\n")
    with pytest.raises(RequestError) as caught:
        data.prepare("table", {"path": str(tmp_path / "part*.csv")})
    head, *kinds = str(caught.value).splitlines()
    assert head.endswith("has 4 errors of 2 kinds.")
    assert re.search("line 2 of part0.csv: x='a' .* also in lines 4 of part0.csv, 2 of part1.csv", kinds[0])
    assert "line 3 of part0.csv: y='b'" in kinds[1]
    for n in range(8):  # one series a file, named as the file
        (tmp_path / f"s{n}.txt").write_text(
            "\n".join(["time,x,y", *(row.partition(",")[2] for row in ROWS[6 * n : 6 * n + 6])])
        )
    assert same(table_kit.load(tmp_path / "*.txt"), whole)


def test_files_of_one_name_in_several_folders_are_several_series(tmp_path):
    for n in range(8):
        (tmp_path / f"day{n}").mkdir()
        write(tmp_path / f"day{n}", "\n".join(["time,x", *(f"{10 * n + t},{n * t}" for t in range(4))]))
    found = table_kit.load(tmp_path / "day*" / "own.csv")
    assert sum(found.record["sizes"].values()) == 8


def test_wide_is_long_laid_out(load):
    long = load("\n".join(["series,time,value", *(f"s{n},{t},{n * t}" for n in range(8) for t in range(6))]))
    wide = load(
        "\n".join(
            [
                "time," + ",".join(f"s{n}" for n in range(8)),
                *(f"{t}," + ",".join(f"{n * t}" for n in range(8)) for t in range(6)),
            ]
        ),
        form="wide",
    )
    rows = [f"s{n},{n % 3}," + ",".join(f"{n * t}" for t in range(6)) for n in range(8)]
    across = load("\n".join(["series,city,0,1,2,3,4,5", *rows]), form="across")
    assert (
        across.record["table"][-1]
        == "ignored: city; to include columns that are constant in a series, set data.static=[…]"
    )
    for other in (wide, across):
        assert same(long, other)
        assert long.record["content"] == other.record["content"]


TEXTS = {
    "2020-03-04": 1583280000,
    "2020-03-04T05:06:07Z": 1583298367,
    "2020-03-04 05:06:07.25": 1583298367.25,
    "2020-03-04T05:06:07+01:30": 1583298367 - 5400,
    "2020-03-04 05:06-0200": 1583298360 + 7200,
    "2020/3/4 5:06": 1583298360,
    "04.03.2020 05:06": 1583298360,
    "31/03/2020": 1585612800,
    "3/31/2020 5:06 PM": 1585674360,
    "3/31/2020 12:06 am": 1585613160,
    "4 March 2020": 1583280000,
    "Mar 4, 2020 05:06:07": 1583298367,
    "04-Mar-2020": 1583280000,
    "2020-03": 1583020800,
    "05:06:07": 18367,
    "25:00": 90000,
}


@pytest.mark.parametrize("text", TEXTS)
def test_dates_are_read(text):
    import polars

    seconds, kind = parse_dates(polars.Series([text, text]), None)
    assert seconds.to_list() == [TEXTS[text]] * 2
    assert kind == ("clock" if TEXTS[text] < 1e6 else "date")


@pytest.mark.parametrize("day", range(1, 29))
def test_the_first_date_says_how_all_are_written(day):
    import polars

    text = polars.Series([f"2020-01-{day:02d}", f"{day:02d}.02.2020"])
    assert parse_dates(text, None)[0].is_null().to_list() == [False, True]
    assert parse_dates(text.reverse(), None)[0].is_null().to_list() == [False, True]


@pytest.mark.parametrize("first", ["n/a", "", "12:00", None])
def test_a_first_cell_that_is_no_date_says_nothing_of_the_others(first):
    import polars

    for text, seconds in {"2020-01-31": 1580428800, "31.01.2020": 1580428800, "Mar 2020": 1583020800}.items():
        found, kind = parse_dates(polars.Series([first, text]), None)
        assert (found.to_list(), kind) == ([None, seconds], "date")


def test_dates_that_can_be_read_in_two_ways():
    import polars

    text = polars.Series(["03/04/2020", "05/06/2020"])
    with pytest.raises(DateError):
        parse_dates(text, None)
    assert parse_dates(text, "dmy")[0][0] == 1585872000
    assert parse_dates(text, "mdy")[0][0] == 1583280000
    assert parse_dates(text, "%d/%m/%Y")[0][0] == 1585872000
    assert parse_dates(polars.Series(["04.03.20"]), "dmy")[0][0] == 1583280000
    assert parse_dates(polars.Series(["31/02/2020", "01/02/2020"]), "dmy")[0].to_list() == [None, 1580515200]


def test_a_single_series_is_split_by_time_and_cut(load):
    x = [math.sin(t) for t in range(100)]
    cut = [x[:70], x[70:85], x[85:]]
    for part, expected in zip(points(load(LONG, split="time")), cut):
        assert part == [pytest.approx(expected, abs=2e-6)]
    found = load(LONG, split="time", length=20, stride=15)
    starts = [[0, 15, 30, 45, 50], [0], [0]]
    for part, whole, at in zip(points(found), cut, starts):
        assert part == [pytest.approx(whole[k : k + 20], abs=2e-6) for k in at]
    assert found.record["sizes"] == {"train": 5, "valid": 1, "test": 1}
    unasked = load(LONG, length=20, stride=15)
    assert same(unasked, found)
    assert "one series, whose end is held out (data.split=time)" in unasked.record["table"]
    assert same(load(LONG, length=20, stride=15, run=unasked.record), found)
    of_many = load("\n".join(["id,time,x", *(f"{n},{t},{n + t}" for n in range(8) for t in range(6))])).record
    assert load(LONG, run=of_many).record["sizes"] == {"train": 0, "valid": 0, "test": 1}


def test_days_without_a_sign_between_are_asked_about(load):
    text = "\n".join(
        ["series,time,x,y", *(f"s{n},{day},{n},{t}" for n in range(8) for t, day in enumerate((20200131, 20200201)))]
    )
    hint = "times such as 20200131 read as numbers; if they are dates, set data.time_format=%Y%m%d"
    assert hint in load(text).record["table"]
    found = load(text, time_format="%Y%m%d").record["table"]
    assert hint not in found
    assert found[1] == "time: 2020-01-31 to 2020-02-01, gaps 1 d (median), 1 d (longest)"


def test_the_median_gap_of_an_even_number_is_between_two(load):
    text = "\n".join(["series,time,x", *(f"s{n},{t},{n + t}" for n in range(8) for t in (0, 1, 4))])
    assert load(text).record["table"][1] == "time: 0 to 4, gaps 2 (median), 3 (longest)"


def test_a_column_says_what_is_held_out(load):
    part = ["train", "train", "VAL", "test", "train", "test", "train", "train"]
    text = "\n".join(["series,time,x,part", *(f"s{n},{t},{100 * n + t},{part[n]}" for n in range(8) for t in range(4))])
    found = load(text, split="part")
    assert [sorted(round(series[0] / 100) for series in one) for one in points(found)] == [[0, 1, 4, 6, 7], [2], [3, 5]]
    with pytest.raises(RequestError, match=r"line 10: part='dunno' is not one of .* \(4 such .* lines 11, 12, 13\)"):
        load(text.replace("VAL", "dunno"), split="part")


def test_a_column_of_splits_that_is_not_asked_for_is_told(load):
    rows = [f"{'abcdef'[n // 3]},{n % 3},{n},{'test' if n > 11 else 'train'}" for n in range(18)]
    notes = load("\n".join(["series,time,x,part", *rows])).record["table"]
    assert notes[-1] == "part seems to name the splits, and is ignored; to use it, set data.split=part"


def test_another_table_is_read_in_the_units_and_kinds_of_the_run(load):
    gaps = GOOD.replace("s1,1,1,0", "s1,1,,0")
    own = load(gaps)
    assert own.shape == (2, 2) == load(GOOD, run=own.record, name="other.csv").shape
    assert load(gaps, run=load(GOOD).record, name="other.csv").shape == (2,)
    empty = "\n".join(["series,time,x,y", *(f"s{n},{t},,{t}" for n in range(8) for t in range(4))])
    assert all(x.noisy[..., 0][x.scope != PADDING].isnan().all() for x in parts(load(empty, run=own.record)))
    dated = "\n".join(["series,time,x,y", *(f"s{n},2020-01-0{t + 1},{n},{t}" for n in range(8) for t in range(4))])
    with pytest.raises(RequestError, match="its times are dates, and those of the run are numbers"):
        load(dated, run=own.record)


def test_a_zero_may_stand_for_a_missing_value(load):
    missing = [sum(int(x.noisy.isnan().sum()) for x in parts(load(GOOD, missing=code))) for code in (0, [0], None)]
    zeros = sum(row.split(",")[2:].count("0") for row in ROWS[1:])  # without a value the first row is passed over
    assert missing == [zeros, zeros, 0]


def test_rows_without_a_value_are_passed_over(load):
    found = load("\n".join([GOOD, "s0,9,,NA", "s9,0,,"]))
    assert same(found, load(GOOD))
    assert "2 rows without any value" in found.record["table"]
    assert "ignored, without values: 1 series (s9)" in found.record["table"]
    other = load("\n".join([GOOD, "s9,0,,"]), run=found.record, name="other.csv")
    assert "other.csv: ignored, without values: 1 series (s9)." in other.record["warning"]


def test_a_word_that_stands_for_nothing_is_told_with_its_option(load):
    """However often it is there, and in the quotes that shell and Hydra ask for."""
    rows = [f"s{n};{t};{n * t if t else '<5,0'};{n - t if t % 2 else 'n.b.'}" for n in range(8) for t in range(6)]
    text = "\n".join(["series;time;x;y", *rows])
    with pytest.raises(RequestError) as told:
        load(text)
    assert "data.missing=[n.b.]" in str(told.value)
    (word,) = re.findall(r"'data\.missing=.*'", str(told.value))
    assert parse_values(shlex.split(word)[0]) == ("data.missing", [["<5,0"]])
    assert load(text, missing=["<5,0", "n.b."]).record["sizes"]


class TestMissing:
    x, mean = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]]), torch.tensor([[[0.5, 0.5], [1.5, 2.5]]])
    gaps = torch.tensor([[[1.0, math.nan], [3.0, 4.0]]])
    mask = torch.ones(1, 2, dtype=torch.bool)

    def test_the_likelihood_is_that_of_what_is_known(self):
        mean, spread = self.mean.clone().requires_grad_(), torch.tensor(0.7, requires_grad=True)
        nll = negative_log_likelihood(self.gaps, mean, spread, self.mask)
        normal = torch.distributions.Normal(self.mean, 0.7)
        known = torch.tensor([[[True, False], [True, True]]])
        assert torch.allclose(nll, -normal.log_prob(self.x)[known].sum())
        nll.sum().backward()
        assert mean.grad[0, 0, 1] == 0
        assert mean.grad.isfinite().all()
        assert spread.grad.isfinite()

    def test_the_errors_are_those_of_what_is_known(self):
        times, scope = torch.tensor([[0.0, 1.0]]), torch.tensor([[1, 2]], dtype=torch.uint8)
        series = Series(times, self.gaps, self.mask, times, self.gaps, self.gaps[..., :0], scope)
        scores = errors(self.mean, series)
        assert scores["rmse_window_noisy"].item() == pytest.approx(0.5)
        assert scores["rmse_further_noisy"].item() == pytest.approx(1.5)

    def test_a_baseline_goes_by_the_observations_of_its_column(self):
        times = torch.tensor([[0.0, 1.0, 2.0, 3.0]])
        values = torch.tensor([[[1.0, math.nan], [2.0, 5.0], [3.0, math.nan], [4.0, math.nan]]])
        guess = baselines(times, values, torch.ones(1, 4, dtype=torch.bool), torch.tensor([[5.0]]))
        assert guess["last_value"].tolist() == [[[4.0, 5.0]]]
        assert guess["velocity"].tolist() == [[[6.0, 5.0]]]


def test_what_a_missing_value_holds_changes_nothing():
    from odenet_cli.models.common.series import Recognition, network_inputs

    values = torch.tensor([[[1.0, math.nan], [0.0, 2.0]]])
    assert network_inputs(values, True).tolist() == [[[1, 0, 1, 0], [0, 2, 1, 1]]]
    net = Recognition(2, 4, 3, "rnn", masked=True)
    times, mask = torch.tensor([[0.0, 1.0]]), torch.ones(1, 2, dtype=torch.bool)
    seen, zero = net(times, values, mask)[0], net(times, values.nan_to_num(), mask)[0]
    assert seen.isfinite().all()
    assert not torch.equal(seen, zero)  # a missing value is told from one that is 0


def test_excel_without_its_package_is_refused(tmp_path, monkeypatch):
    (tmp_path / "own.xlsx").write_bytes(b"PK")
    monkeypatch.setitem(sys.modules, "fastexcel", None)
    with pytest.raises(RequestError, match=r"fastexcel: pip install -e '\.\[tables\]'"):
        data.prepare("table", {"path": str(tmp_path / "own.xlsx")})


def test_the_record_is_made_once_for_an_unchanged_file(load, monkeypatch):
    path = load(GOOD).record["root"]
    data.prepare("table", {"path": path})
    monkeypatch.setattr(module.table_file, "read", None)
    assert data.prepare("table", {"path": path})["sizes"]["train"] == 6
