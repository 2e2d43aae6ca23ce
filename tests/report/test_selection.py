"""Validation over training, as figures of several seeds show it."""

import pytest

from odenet_cli.report.result import Entry
from odenet_cli.report.runs import read_run
from odenet_cli.report.selection import learning_curve


def test_a_learning_curve_is_mean_and_range_of_finished_runs(tmp_path, write):
    made = {"a": (0.1, "done", 0.05), "b": (0.3, "done", 0.05), "c": (9.0, "failed", 0.05), "d": (9.0, "done", 0.1)}
    cells = [
        Entry("part", "row", read_run(write(tmp_path / name, {"optim.lr": lr}, loss=loss, status=status)))
        for name, (loss, status, lr) in made.items()
    ]
    over = learning_curve(cells, "loss", "0.05")
    assert (over.runs, over.steps) == (2, [10, 20, 30])
    assert over.seconds == [2, 4, 6]
    assert over.mean == pytest.approx([0.4, 0.3, 0.8 / 3])
    assert over.low == pytest.approx([0.2, 0.15, 0.4 / 3])
    assert over.high == pytest.approx([0.6, 0.45, 0.4])
