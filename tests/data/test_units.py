"""Units are those of the run: fitted on what is seen of its training series, and held to for every other table."""

import math
import statistics
from fractions import Fraction

import numpy
import pytest
import table_kit
import torch
from table_kit import parts, same

from odenet_cli import data
from odenet_cli.data.common.series import PADDING
from odenet_cli.data.common.units import seen_counts
from odenet_cli.errors import RequestError

NAMES = [f"s{n}" for n in range(8)]


def rows(x=lambda n, t: n + t, y=lambda n, t: n * t, time=lambda n, t: t, names=NAMES, length=4):
    return [(name, time(n, t), x(n, t), y(n, t)) for n, name in enumerate(names) for t in range(length)]


def test_so_many_points_are_seen_as_the_window_says():
    """By rational arithmetic: 53 of 100 by 0.53, where a float32 or an unrounded product has 52."""
    counts = torch.arange(1, 400)
    for share in range(1, 101):
        exact = [max(1, int(Fraction(share, 100) * n)) for n in counts.tolist()]
        assert seen_counts(share / 100, counts).tolist() == exact


@pytest.fixture
def table(tmp_path):
    def write(rows, header=("series", "time", "x", "y"), order=None, name="own.csv"):
        order = order or range(len(header))
        lines = [
            ",".join(header[k] for k in order),
            *(",".join(repr(row[k]).strip("'") for k in order) for row in rows),
        ]
        (tmp_path / name).write_text("\n".join(lines))
        return {"path": str(tmp_path / name)}

    return write


def load(options, run=None):
    return table_kit.load(**options, name="csv", run=run)


def test_the_order_of_rows_and_columns_makes_no_difference(table):
    own = load(table(rows()))
    copy = load(table(rows()[::-1], order=(3, 1, 2, 0), name="copy.csv"), run=own.record)
    assert same(own, copy)
    assert own.record["content"] == copy.record["content"]
    assert own.record["sha256"] != copy.record["sha256"]
    assert copy.record["columns"] == own.record["columns"] == ["series", "time", "x", "y"]
    changed = load(table(rows(y=lambda n, t: n * t + (n == t == 3)), name="copy.csv"), run=own.record)
    assert changed.record["content"] != own.record["content"]


def test_another_table_is_measured_in_the_units_of_the_run(table):
    """x · 1000 + 500, time twice as fast: (x - μ) / σ and t / unit with the run's own μ, σ and unit."""
    own = load(table(rows()))
    other = load(
        table(rows(x=lambda n, t: 1000.0 * (n + t) + 500, time=lambda n, t: t / 2), name="other.csv"), run=own.record
    )
    mean, sd = own.record["mean"][0], own.record["standard_deviation"][0]
    for before, after in zip(parts(own), parts(other)):
        there = before.scope != PADDING
        x = before.noisy[there][:, 0] * sd + mean
        assert torch.allclose(after.noisy[there][:, 0], (1000 * x + 500 - mean) / sd, rtol=1e-12)
        assert torch.equal(after.noisy[..., 1], before.noisy[..., 1])
        assert torch.equal(after.target_times, before.target_times / 2)
    for key in ("mean", "standard_deviation", "time_unit", "columns"):
        assert other.record[key] == own.record[key]
    assert "x of series" in other.record["warning"]
    assert "the run was trained on" in other.record["warning"]


def test_a_table_may_have_fewer_series_than_splits(table):
    own = load(table(rows()))
    one = load(table(rows(names=["alone"]), name="one.csv"), run=own.record)
    assert one.record["sizes"] == {"train": 0, "valid": 0, "test": 1}
    assert one.shape == own.shape == data.shape("csv", table(rows(names=["alone"])), own.record)[0]


@pytest.mark.parametrize(
    ("header", "says"),
    [
        (("series", "time", "x", "z"), "trained on, x, y; missing: y; extra: z"),
        (("series", "time", "X", "y"), "missing: x; extra: X"),
        (("series", "time", "x"), "missing: y"),
        (("series", "time", "x", "y", "v", "w"), "extra: v, w"),
    ],
)
def test_columns_that_the_run_does_not_know(table, header, says):
    own = load(table(rows()))
    other = table([(*row, 1.0, 2.0)[: len(header)] for row in rows()], header=header, name="other.csv")
    with pytest.raises(RequestError, match=rf"other\.csv, line 1: .*{says}"):
        load(other, run=own.record)
    assert data.shape("csv", other, own.record) == ((2,), 0)  # the model's, whatever the table


MOVES_LATER = [lambda n, t: 5.0, lambda n, t: 0.1, lambda n, t: 0, lambda n, t: 5.0 if t < 2 else 5.0 + n * t]
MOVES_LATER += [lambda n, t: 1e9 * (1 + (n % 2) * 1e-16)]


@pytest.mark.parametrize("still", MOVES_LATER)
def test_a_column_that_is_constant_where_it_is_seen_is_left_out(table, still):
    own = load(table(rows(x=still)))
    assert own.shape == (1,) == data.shape("csv", table(rows(x=still)))[0]
    assert own.record["columns"] == ["series", "time", "y"]
    assert own.record["left_out"] == ["x"]
    assert (
        "constant in what is seen of the series to train on, and ignored by model and scores: x"
        in own.record["warning"]
    )
    without = load(table([(name, t, y) for name, t, _, y in rows()], header=("series", "time", "y"), name="y.csv"))
    assert same(own, without)
    # In a table that is scored the column may be there or not.
    assert same(load(table(rows()), run=own.record), load(table(rows(x=still)), run=own.record))
    assert load({"path": table(rows())["path"].replace("own", "y")}, run=own.record).shape == (1,)


def test_nothing_but_constants_is_refused(table):
    with pytest.raises(RequestError, match=r"own\.csv: every column is constant .*: x, y\. There is nothing to learn"):
        data.prepare("csv", table(rows(x=lambda n, t: 0.3, y=lambda n, t: 1.0 if t < 2 else t)))


def test_what_moves_a_little_on_a_large_offset_has_a_unit(table):
    own = load(table(rows(x=lambda n, t: 1e9 + (n + t) / 8)))
    plain = load(table(rows(x=lambda n, t: (n + t) / 8)))
    assert own.record["standard_deviation"] == pytest.approx(plain.record["standard_deviation"], rel=1e-6)
    for a, b in zip(parts(own), parts(plain)):
        assert torch.allclose(a.noisy, b.noisy, atol=1e-6)


def test_what_hardly_moves_where_it_is_seen_is_named(table):
    def late(n, t):
        return n / 1000 if t < 2 else 10.0 * n

    warning = load(table(rows(x=late))).record["warning"]
    assert "x hardly varies in what is seen" in warning
    assert "y" not in warning.split(":")[1].split("hardly")[0].replace("own.csv", "")


MANY = [f"run{n}" for n in range(20)]


@pytest.mark.parametrize(("factor", "named"), [(1000, True), (150, True), (50, False), (1, False)])
def test_a_series_in_another_unit_is_named(table, factor, named):
    odd = {
        "time": lambda n, t: t * (factor if n == 7 else 1),
        "x": lambda n, t: (2 + n + t) * (factor if n == 4 else 1),
    }
    for key, name in (("time", "run7"), ("x", "run4")):
        options = table(rows(names=MANY, **{key: odd[key]}))
        assert load(options).shape == (2,)
        warning = load(options).record["warning"] or ""
        assert (f"{'the time' if key == 'time' else 'x'} of series {name} (" in warning) == named
        assert not any(f"{other} (" in warning for other in MANY if other != name)
        assert "y of series" not in warning


def test_a_single_number_far_off_is_named_with_its_line(table):
    """It is no matter of its series, nor of what is seen of each: of all 32 numbers one is in another unit."""
    for far in (1e6, -1e9):
        place = table(rows(y=lambda n, t, far=far: far if n == 5 and t == 3 else n * t % 7))
        warning = load(place).record["warning"]
        others = [n * t % 7 for n in range(8) for t in range(4) if (n, t) != (5, 3)]
        times = (far - statistics.fmean(others)) / statistics.pstdev(others)
        assert warning.startswith(
            f"{place['path']}, line 25: y={far:g} is {abs(times):,.3g} times as far from the mean of "
        )
        assert warning.endswith(f" To count it as missing, set data.missing={far:.15g}.")
        assert "\n" not in warning
        assert load({**place, "missing": [f"{far:.15g}"]}).record["warning"] is None


def test_features_and_points_far_off_are_named_too(tmp_path):
    numbers = numpy.random.default_rng(0).normal(size=(60, 3))
    numbers[17, 1] = 1e9
    path = table_kit.write(tmp_path, "\n".join(["a,b,c", *(",".join(map(str, row)) for row in numbers)]))
    says = "line 19: b=1e+09 is "
    assert says in table_kit.load(path, name="features", y="c").record["warning"]
    assert says in table_kit.load(path, name="features", y="b").record["warning"]
    assert says in table_kit.load(path, name="points").record["warning"]
    numpy.savez(tmp_path / "a.npz", x=numbers[:, :2], y=numbers[:, 2])
    arrays = table_kit.load(tmp_path / "a.npz", name="arrays").record["warning"]
    assert "sample number 17: x[1]=1e+09 is " in arrays


def test_only_a_few_are_named(table):
    warning = load(table(rows(names=MANY, time=lambda n, t: t * (1000 if n < 6 else 1)))).record["warning"]
    assert "the time of series " in warning
    assert "and 3 more goes more than 100 times as far as is usual (3) in the others" in warning


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mean", [0.0]),
        ("mean", [0.0, math.nan]),
        ("standard_deviation", [1.0, 0.0]),
        ("standard_deviation", "1"),
        ("time_unit", None),
        ("time_unit", -1.0),
        ("columns", ["series", "time", 3]),
        ("left_out", "x"),
    ],
)
def test_units_that_no_run_would_write(table, key, value):
    options = table(rows())
    with pytest.raises(RequestError, match=rf"run\.json: data\.{key} is "):
        load(options, run={**data.prepare("csv", options), key: value})


def test_a_record_without_units_leaves_the_table_its_own(table):
    options = table(rows())
    assert not data.lacks_units("csv", data.prepare("csv", options))
    assert data.lacks_units("csv", {"sha256": "0"})
    assert not data.lacks_units("moons", {})
    assert same(load(options), load(options, run={"sha256": "0"}))
