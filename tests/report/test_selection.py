"""Validation over training, as figures of several seeds show it."""

import json

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


def test_a_validation_within_an_epoch_takes_no_time_of_its_own(tmp_path, write):
    """Where trainer.max_steps ended a run that then went on, the record of the whole epoch has that time again."""
    folder = write(tmp_path / "run", {"optim.lr": 0.05}, epoch_s=8.0)
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    at = next(n for n, record in enumerate(records) if record["split"] == "valid" and record["step"] == 20)
    records.insert(at, {**records[at], "step": 15, "epoch": 1, "epoch_s": 3.0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    curve = learning_curve([Entry("part", "row", read_run(folder))], "loss", "0.05")
    assert (curve.steps, curve.seconds) == ([10, 15, 20, 30], [8.0, 11.0, 16.0, 24.0])
