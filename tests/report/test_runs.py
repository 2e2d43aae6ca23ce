"""Runs are found wherever they lie, and damage to one is said of that one."""

import json
import os

import pytest

from odenet_cli.commands import report as command
from odenet_cli.config.saved import SECTIONS
from odenet_cli.errors import RequestError
from odenet_cli.metrics import mean_nfe
from odenet_cli.report.runs import find_runs, read_run


def test_a_run_a_sweep_and_what_is_above_them(tmp_path, write):
    jobs = [write(tmp_path / "sweeps" / "day" / f"{n}-solver.rtol=0.1,seed={n}") for n in (0, 2, 10)]
    alone = write(tmp_path / "runs" / "alone")
    write(tmp_path / "runs" / ".trash" / "old")
    (tmp_path / "sweeps" / "day" / "summary.json").write_text("{}")
    assert find_runs([alone]) == [alone]
    assert find_runs([tmp_path / "sweeps"]) == jobs
    assert find_runs([tmp_path]) == [alone, *jobs]
    assert find_runs([jobs[1], tmp_path, jobs[1].parent / ".." / "day"]) == [jobs[1], alone, jobs[0], jobs[2]]


def test_a_path_without_a_run_is_refused(tmp_path, write):
    write(tmp_path / "runs" / "a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for name, reason in (("empty", "holds no run"), ("file", "is not a folder"), ("nowhere", "There is no folder")):
        with pytest.raises(RequestError, match=reason) as refused:
            find_runs([tmp_path / "runs", tmp_path / name])
        assert str(tmp_path / name) in str(refused.value)


def test_what_a_run_says(tmp_path, write):
    run = read_run(write(tmp_path / "run", {"seed": 7, "solver.rtol": 1e-4}, error=0.25))
    assert (run.done, run.status, run.reason, run.seed) == (True, "done", "", 7)
    assert run.config["solver.atol"] == 1e-4
    assert run.config["optim.milestones"] == (0.375,)
    assert (run.value("error"), run.value("parameters"), run.value("peak_mib")) == (0.25, 208266, None)
    assert run.has_solver
    assert run.steps_per_epoch == 10
    assert len(run.records("train")) == 6


@pytest.mark.parametrize("status", ["failed", "interrupted", "running"])
def test_runs_that_are_not_done(tmp_path, write, status):
    run = read_run(write(tmp_path / "run", status=status, reason="the loss is nan\n  Lower optim.lr."))
    assert not run.done
    assert run.value("error") is None
    killed = (
        f"it ended without a message (killed, or a power failure). Continue: odenet train resume={tmp_path / 'run'}"
    )
    assert (run.status, run.reason) == (("killed", killed) if status == "running" else (status, "the loss is nan"))


def test_a_record_that_is_being_written_waits(tmp_path, write):
    folder = write(tmp_path / "run", status="running")
    before = read_run(folder).metrics
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 31, "spl')
    assert read_run(folder).metrics == before


@pytest.mark.parametrize("name", ["run.json", "config.yaml", "metrics.jsonl"])
def test_a_damaged_file_makes_its_run_unreadable(tmp_path, write, name):
    folder = write(tmp_path / "run")
    (folder / name).write_text("{]\n" + (folder / name).read_text())
    run = read_run(folder)
    assert (run.status, run.config) == ("unreadable", {})
    assert run.reason


def test_a_done_run_without_its_config_is_unreadable(tmp_path, write):
    """A report would not name it; one that failed early may never have had one."""
    for status, expected in (("done", ("unreadable", "there is no config.yaml")), ("failed", ("failed", "too early"))):
        folder = write(tmp_path / status, status=status, reason="too early")
        (folder / "config.yaml").unlink()
        run = read_run(folder)
        assert (run.status, run.reason) == expected


def edit(folder, change):
    """Rewrite the records of `metrics.jsonl`."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    kept = [record for record in records if change(record) is not False]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in kept))


def test_seconds_per_epoch_are_the_median_of_whole_epochs(tmp_path, write):
    def spent(record):
        if record["split"] == "valid":
            record["epoch_s"] = {10: 9.0, 20: 2.0, 30: 3.0, 40: 4.0, 50: 0.1}[record["step"]]

    resumed = [{"at": "2026-11-25T08:21:14+0000", "step": 45}, {"at": "2026-11-25T08:21:14+0000", "step": 20}]
    folder = write(tmp_path / "run", epochs=5, resumed=resumed)
    edit(folder, spent)
    assert read_run(folder).epoch_s == 3.5  # of 9, 2, 3, 4: epoch 5 was cut, at step 20 one had just ended


def test_evaluations_of_a_step_do_not_follow_the_rhythm_of_the_log(tmp_path, write):
    """Two epochs of 7 steps with 1, 2, … 14 evaluations: those of the second are 11 in the mean, however logged."""
    for every in (1, 2, 3, 50):
        lines, first = [], 1
        for step in range(1, 15):
            if step % every == 0 or step % 7 == 0:
                nfe = (first + step) / 2
                at = {"step": step, "epoch": step // 7, "split": "train", "step_ms": 1.0}
                lines.append({**at, "nfe_forward": nfe, "nfe_backward": 2 * nfe})
                first = step + 1
        folder = write(tmp_path / str(every), final={"nfe_forward": lines[-1]["nfe_forward"]})
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        run = read_run(folder)
        assert (run.value("nfe_forward"), run.value("nfe_backward")) == (11, 22)
        assert mean_nfe(lines) == {"nfe_forward": 11, "nfe_backward": 22}  # which newer runs keep in `final`


def test_without_validation_the_whole_time_is_divided(tmp_path, write):
    folder = write(tmp_path / "run")
    edit(folder, lambda record: record["split"] != "valid")
    assert read_run(folder).epoch_s == 2.5


REST = "".join(f"{section}: {{}}\n" for section in SECTIONS)
ODD = {
    "metrics.jsonl": {
        "5\n": "line 1 of metrics.jsonl has no keys",
        "[]\n": "line 1 of metrics.jsonl has no keys",
        '{"epoch": 1, "split": "valid"}\n': "step is missing",
        '{"step": 1, "epoch": "one", "split": "valid"}\n': "epoch is 'one'",
    },
    "run.json": {
        "[]": "run.json has no keys",
        '{"status": "done", "final": 5}': "final is 5",
        '{"status": "done", "data": [1]}': "data is [1]",
        '{"status": "done", "resumed": [3]}': "a resume in run.json has no keys",
    },
    "config.yaml": {
        f"seed: one\n{REST}": "seed is 'one'",
        f"seed: [1]\n{REST}": "seed is (1,)",
        f"seed: true\n{REST}": "seed is True",
        "seed: 1\n": "config.yaml is damaged: it has no section `model`",
        "": "config.yaml is damaged: it has no keys",
    },
}


@pytest.mark.parametrize("name", ODD)
def test_a_run_with_odd_files_is_left_out(tmp_path, write, name, capsys):
    write(tmp_path / "runs" / "a", {"seed": 1})
    odd = write(tmp_path / "runs" / "b", {"seed": 2})
    for text, reason in ODD[name].items():
        (odd / name).write_text(text)
        assert (read_run(odd).status, read_run(odd).config) == ("unreadable", {}), text
        assert reason in read_run(odd).reason
        assert command.main([str(tmp_path / "runs")]) == 0
        told = capsys.readouterr().out
        assert f"{odd}" in told
        assert reason in told


@pytest.mark.parametrize("name", ["run.json", "metrics.jsonl"])
def test_a_pipe_is_not_waited_for(tmp_path, write, name):
    folder = write(tmp_path / "run")
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert read_run(folder).reason == f"{name} is not a file"


def test_runs_without_record_or_behind_a_link_are_found(tmp_path, write):
    write(tmp_path / "runs" / "a", {"seed": 1})
    (write(tmp_path / "runs" / "b", {"seed": 2}) / "run.json").unlink()
    write(tmp_path / "elsewhere" / "c", {"seed": 3})
    (tmp_path / "runs" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "runs" / "loop").symlink_to(tmp_path / "runs")
    runs = [read_run(folder) for folder in find_runs([tmp_path / "runs"])]
    assert [(run.folder.name, run.status) for run in runs] == [("a", "done"), ("b", "unreadable"), ("c", "done")]
    assert runs[1].reason == f"{tmp_path}/runs/b/run.json: No such file or directory"


def test_the_line_that_cannot_be_read_is_named(tmp_path, write):
    folder = write(tmp_path / "run")
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    lines[2] = lines[2][:-5]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert read_run(folder).reason.startswith("line 3 of metrics.jsonl: ")
    (folder / "run.json").write_text('{"status": "done",\n "final": }\n')
    assert read_run(folder).reason.startswith("line 2 of run.json: ")
