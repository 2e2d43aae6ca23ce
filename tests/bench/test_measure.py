"""A subject that fails, or is wrong, has a row and no time; the others are measured."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from odenet_cli.bench import measure
from odenet_cli.bench.measure import compare, distance, interleave
from odenet_cli.bench.work import CountedField, Counter, Subject, Work, training

CPU = torch.device("cpu")


class Answer:
    """Work that answers with `value`, or breaks at a run."""

    def __init__(self, value, breaks_at=None, repeatable=True):
        self.value, self.breaks_at, self.runs = value, breaks_at, 0
        self.work = Work(forward=self.forward, repeatable=repeatable)

    def forward(self):
        self.runs += 1
        if self.breaks_at is not None and self.runs >= self.breaks_at:
            raise ValueError("it\nbroke")
        return torch.tensor(self.value)


def rows(**answers):
    subjects = [Subject(library=name, mode="", work=lambda m, c, a=a: Answer(*a).work) for name, a in answers.items()]
    return compare(subjects, {"y": torch.tensor(1.0)}, 0.1, 3, CPU)[0]


def test_one_failure_does_not_stop_the_others():
    good, broken, late, off = rows(good=(1.0,), broken=(1.0, 1), late=(1.0, 3), off=(2.0,))
    assert len(good.times_ms) == 3
    assert not good.failed
    assert broken.failed == "ValueError: it broke"
    assert late.failed == "ValueError: it broke"  # during the measurement
    assert "off by 1.0e+00" in off.failed
    assert [row.ms for row in (broken, late, off)] == [None] * 3


def test_a_result_that_is_no_number_is_no_agreement():
    assert math.isnan(
        distance({"a": torch.tensor(1.0), "b": torch.tensor(math.nan)}, {"a": torch.ones(()), "b": torch.ones(())})
    )
    (row,) = rows(nan=(math.nan,))
    assert row.failed


def test_what_is_short_runs_often_unless_it_changes_something(monkeypatch):
    ticks = itertools.count(step=1e-6)  # one microsecond a run: the first run is measured once, the others 100 times
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(ticks))
    short, once = Answer(1.0), Answer(1.0, repeatable=False)
    interleave({"short": short.work, "once": once.work}, 2, CPU)
    assert short.runs == 201
    assert once.runs == 3


def test_training_starts_from_the_same_weights_every_time():
    layer = torch.nn.Linear(2, 1)
    work = training(layer, lambda: layer(torch.ones(2)).square().sum(), torch.optim.SGD(layer.parameters(), lr=0.1))
    losses = [work.run()["loss"].item() for _ in range(2)]
    assert losses[0] == losses[1]
    assert not work.repeatable


def test_a_solve_without_end_is_noticed():
    field = CountedField(torch.nn.Identity(), Counter(limit=2))
    field.field = torch.nn.Bilinear(1, 1, 1)
    one = torch.ones(1)
    field(one, one)
    field(one, one)
    with pytest.raises(RuntimeError, match="not done after 2 evaluations"):
        field(one, one)
