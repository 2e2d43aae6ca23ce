"""Controls and static columns of a table: what each piece has of them, filled cells, scales, and bad tables."""

import math

import numpy
import pytest
import table_kit
import torch
from table_kit import batches, write

from odenet_cli.data.common.series import PADDING, Series, control_of
from odenet_cli.errors import RequestError
from odenet_cli.models.common.control import Control

CONTROLLED = {"controls": ["u"], "values": ["y"]}


def load(tmp_path, lines, run=None, **options):
    return table_kit.load(write(tmp_path, "\n".join(lines)), run, **options)


def u(n, t):
    return math.cos(t) + n


def plant(ahead=2):
    """Eight series of 6 to 8 points at times of their own, a control that is known further on, sex and age."""
    rows = ["id,time,y,u,sex,age"]
    for n in range(8):
        for t in range(6 + n % 3 + ahead):
            y = "" if t >= 6 + n % 3 else f"{100 * n + t}"
            rows.append(f"s{n},{t * (1 + n / 10)},{y},{u(n, t):.9f},{'MF'[n % 2]},{40 + n}")
    return rows


def pieces(found):
    """The y of each piece, its times, and what is known at them and shortly after, in the table's units."""
    record, every = found.record, []
    mean, sd = torch.tensor(list(record["controls"].values()), dtype=torch.float64).T
    for batch in batches(found):
        x, control = Series(*batch[:7]), Control(*control_of(batch)["control"])
        at_targets, between = (control.at(t) * sd + mean for t in (x.target_times, x.target_times + 0.03))
        y = x.noisy * record["standard_deviation"][0] + record["mean"][0]
        for n in range(len(x.times)):
            there = x.scope[n] != PADDING
            every.append((y[n, there, 0], x.target_times[n, there] * record["time_unit"], at_targets[n, there]))
            every[-1] += (between[n, there],)
    return every


@pytest.mark.parametrize("kind", ["linear", "hermite", "step"])
@pytest.mark.parametrize("cut", [{}, {"split": "time"}, {"length": 4, "stride": 2}])
def test_each_piece_has_the_control_of_its_own_time(tmp_path, kind, cut):
    found = load(tmp_path, plant(), controls=["u"], static=["age", "sex"], interpolation=kind, **cut)
    assert found.shape == (1, 1, 4)
    assert list(found.record["controls"]) == ["u", "age", "sex=F", "sex=M"]
    every = pieces(found)
    assert len(every) == sum(found.record["sizes"].values()) >= 8
    for y, times, at, _ in every:
        n, first = divmod(int(y[0].round()), 100)
        places = torch.arange(first, first + len(y), dtype=torch.float64)
        assert torch.allclose(times, (places - first) * (1 + n / 10), atol=1e-6)
        assert torch.allclose(at[:, 0], places.cos() + n, atol=1e-6)
        assert torch.allclose(at[:, 1:].mean(0), torch.tensor([40.0 + n, n % 2, 1 - n % 2], dtype=torch.float64))


def test_a_piece_knows_the_slope_that_its_series_has_there(tmp_path):
    """Cubic pieces do not depend on where a series is cut."""
    options = {**CONTROLLED, "interpolation": "hermite"}
    whole = load(tmp_path, plant(), **options)
    cut = load(tmp_path, plant(), run=whole.record, **options, length=4, stride=1)
    by_point = {float(y): between for ys, _, _, betweens in pieces(whole) for y, between in zip(ys, betweens)}
    for ys, _, _, betweens in pieces(cut):
        for y, between in zip(ys[:-1], betweens[:-1]):  # behind its last row a piece holds the control
            assert torch.allclose(between, by_point[min(by_point, key=lambda key: abs(key - float(y)))], atol=1e-9)


def test_units_of_a_control_are_those_of_training_and_of_the_run(tmp_path):
    found = load(tmp_path, plant(), controls=["u"])
    rows = [float(value) for y, _, at, _ in pieces(found)[: found.record["sizes"]["train"]] for value in at[:, 0]]
    mean, sd = found.record["controls"]["u"]
    assert mean == pytest.approx(numpy.mean(rows))
    assert sd == pytest.approx(numpy.std(rows))
    moved = [
        line if k == 0 else ",".join([*line.split(",")[:3], str(10 * float(line.split(",")[3])), *line.split(",")[4:]])
        for k, line in enumerate(plant())
    ]
    other = load(tmp_path, moved, run=found.record, controls=["u"])
    assert other.record["controls"] == {"u": (mean, sd)}
    assert float(pieces(other)[0][2][0, 0]) == pytest.approx(10 * float(pieces(found)[0][2][0, 0]), abs=1e-6)
    assert other.record["content"] != found.record["content"]


def with_gaps():
    """u is missing in rows 2 and 3, and at both ends."""
    lines = plant(ahead=0)
    return [
        ",".join([*(cells := line.split(","))[:3], "" if k and (k % 7 in (2, 3)) else cells[3], *cells[4:]])
        for k, line in enumerate(lines)
    ]


@pytest.mark.parametrize("kind", ["linear", "step"])
def test_missing_cells_of_a_control_are_filled_by_choice(tmp_path, kind):
    lines = with_gaps()
    with pytest.raises(RequestError, match=r"line 3: u is missing; .* \(16 such .*data\.fill=interpolate"):
        load(tmp_path, lines, controls=["u"])
    found = load(tmp_path, lines, controls=["u"], fill="interpolate", interpolation=kind)
    filled = "linearly" if kind == "linear" else "with the last before"
    assert f"control ({kind}), 16 missing cells filled ({filled}), to" in "\n".join(found.record["table"])
    given = {}
    for line in lines[1:]:
        name, t, _, cell, *_ = line.split(",")
        given.setdefault(int(name[1:]), []).append((float(t), float(cell) if cell else math.nan))
    for y, times, at, _ in pieces(found):
        t, x = numpy.array(given[int(y[0]) // 100]).T
        there = ~numpy.isnan(x)
        expected = numpy.interp(times.numpy() + t[0], t[there], x[there])
        if kind == "step":
            expected = x[there][numpy.maximum(numpy.searchsorted(t[there], times.numpy() + t[0] + 1e-9) - 1, 0)]
        assert at[:, 0].numpy() == pytest.approx(expected, abs=1e-6)


def test_a_wide_table_has_one_control_for_all_its_series(tmp_path):
    lines = ["time,a,b,c,d,warm", *(f"{t},{t},{100 + t},{200 + t},{300 + t},{math.cos(t):.9f}" for t in range(6))]
    found = load(tmp_path, lines, form="wide", controls=["warm"])
    assert found.record["columns"][2:] == ["value"]
    assert sum(found.record["sizes"].values()) == 4
    for _, times, at, _ in pieces(found):
        assert torch.allclose(at[:, 0], times.cos(), atol=1e-6)


def test_static_columns_may_be_given_once(tmp_path):
    lines = ["id,time,y,u,sex,age", *(f"s{n},0,{n},1,{'MF'[n % 2]},{40 + n}" for n in range(8))]
    lines += [f"s{n},{t},{n + t},1,," for n in range(8) for t in range(1, 4)]
    found = load(tmp_path, lines, values=["y"], static=["sex", "age"])
    assert found.shape == (1, 1, 3)
    for y, _, at, _ in pieces(found):
        n = int(y[0].round())
        assert torch.allclose(at, torch.tensor([n % 2, 1 - n % 2, 40.0 + n], dtype=torch.float64).expand_as(at))


SHORT = ["id,time,y,u,k", *(f"s{n},{t},{n + t},{t % 3},{n}" for n in range(6) for t in range(4))]
REFUSED = {
    "no such column": (
        SHORT,
        {"controls": ["w"]},
        r"data\.controls=w: there is no such column. Available: id, time, y, u, k",
    ),
    "two roles": (SHORT, {"controls": ["y"], "values": ["y"]}, r"y is in data\.values and in data\.controls"),
    "controls and static": (SHORT, {"controls": ["k"], "static": ["k"]}, r"k is in data\.controls and in data\.static"),
    "varies": (
        SHORT,
        {"static": ["u"], "values": ["y"]},
        r"line 3: u of series s0 differs from that in line 2 \(1 after 0\); .* control.*: data\.controls=\[u\]",
    ),
    "word varies": (
        [*SHORT[:2], *(line if k != 5 else "s1,1,2,1,five" for k, line in enumerate(SHORT[2:], 1))],
        {"static": ["k"], "values": ["y"]},
        r"k of series s1 differs from that in line \d+; a static column is constant",
    ),
    "none in a series": (
        [SHORT[0], *(line if not line.startswith("s3") else line[:-1] for line in SHORT[1:])],
        {"static": ["k"], "values": ["y"]},
        r"line 14: series s3 has no k in any row",
    ),
    "no number": (
        [*SHORT, "s1,4,1,warm,1"],
        CONTROLLED,
        r"line 26: u='warm' is not a finite number",
    ),
    "constant": (
        [line if k == 0 else ",".join([*line.split(",")[:3], "7", "1"]) for k, line in enumerate(SHORT)],
        CONTROLLED,
        r"u is 7 throughout the training series, .* Remove it from data\.controls",
    ),
    "static and wide": (SHORT, {"form": "wide", "static": ["k"]}, r"data\.static cannot be used with data\.form=wide"),
    "interpolation": (SHORT, {**CONTROLLED, "interpolation": "cubic"}, r"data\.interpolation=cubic is not known"),
    "fill": (SHORT, {**CONTROLLED, "fill": "zero"}, r"data\.fill=zero is not known. Available: refuse, interpolate"),
    "empty": (
        [SHORT[0], *(line if not line.startswith("s3") else line[:-3] + line[-2:] for line in SHORT[1:])],
        {**CONTROLLED, "fill": "interpolate"},
        "series s3 has no u in any row",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_table_is_refused_with_its_line(tmp_path, name):
    lines, options, says = REFUSED[name]
    with pytest.raises(RequestError, match=says) as caught:
        load(tmp_path, lines, **options)
    assert "\n" not in str(caught.value)  # one fault is told once


def test_another_table_has_the_run_s_controls(tmp_path):
    found = load(tmp_path, plant(), **CONTROLLED, static=["sex"])
    with pytest.raises(RequestError, match=r"static columns are u, but the run was trained with u, sex=F"):
        load(tmp_path, plant(), run=found.record, **CONTROLLED)
    odd = [line.replace(",F,", ",X,") for line in plant()]
    with pytest.raises(RequestError, match="sex='X' is not among the values the run was trained on: F, M"):
        load(tmp_path, odd, run=found.record, **CONTROLLED, static=["sex"])
    for damaged in ([1], {"u": [1]}, {"u": [1, 0]}, {"u": ["1", 2]}):
        with pytest.raises(RequestError, match=r"run\.json: data\.controls is"):
            load(tmp_path, plant(), run={**found.record, "controls": damaged}, controls=["u"])


def test_a_word_that_only_held_out_series_have_is_warned_of(tmp_path, caplog):
    whole = load(tmp_path, plant(), static=["sex"], values=["y"])
    x = Series(*next(iter(whole.test.epoch(0)))[:7])
    y = x.noisy[0, 0, 0] * whole.record["standard_deviation"][0] + whole.record["mean"][0]
    held_out = f"s{int(y.round()) // 100},"
    lines = [
        line.replace(",M,", ",D,").replace(",F,", ",D,") if line.startswith(held_out) else line for line in plant()
    ]
    found = load(tmp_path, lines, static=["sex"], values=["y"])
    assert list(found.record["controls"]) == ["sex=D", "sex=F", "sex=M"]
    assert "sex=D is the same in all training series" in caplog.text
