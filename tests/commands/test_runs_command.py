"""`odenet runs` lists what is here, newest first, and `last` names it for every command."""

import json
import re
import socket

import pytest

from odenet_cli.commands import runs as command
from odenet_cli.lock import locked
from odenet_cli.rundir import record_or_reason

FIELDS = {"reason": None, "command": None, "git": None, "device": "cpu", "finished": None, "versions": None}


@pytest.fixture
def runs(tmp_path):
    """Three runs, a sweep's job and a cell of a reproduction, which is none of the user's."""

    def write(folder, name, started, status="done", **final):
        path = tmp_path / folder
        path.mkdir(parents=True)
        record = {**FIELDS, "format": 2, "status": status, "name": name, "started": started, "resumed": []}
        record |= {"final": final or None, "data": {"used": "digits"}, "overrides": ["model=odenet"]}
        (path / "run.json").write_text(json.dumps(record))

    write("runs/2026-01-01/a", "first", "2026-01-01T10:00:00+0000", error=0.05, nfe_forward=20, nfe_backward=14)
    write("runs/2026-01-02/b", "second", "2026-01-02T10:00:00+0000", "failed")
    write("sweeps/2026-01-03/c/0-x", "third", "2026-01-03T10:00:00+0000", error=0.04, nfe_forward=8, nfe_backward=0)
    write("runs/cells/0123456789abcdef", "cell", "2026-01-04T10:00:00+0000")
    return tmp_path


def test_newest_first(odenet, runs):
    """The first column is a RUN; score, NFE and status stand behind it."""
    done = odenet("runs")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr
    assert [line[:2] for line in lines] == [["last", "third"], ["last~1", "second"], ["last~2", "first"]]
    assert lines[0][3:8] == ["error", "%", "4.00", "8/0", "done"]
    assert lines[1][3:6] == ["-", "-", "failed"]


def test_the_newest_is_so_in_any_time_zone(runs, monkeypatch, capsys):
    """When clocks are put back, and among runs of several machines, the later text is not the later time."""
    for folder, started in {"runs/2026-01-01/a": "10:10:00+0100", "runs/2026-01-02/b": "10:40:00+0200"}.items():
        path = runs / folder / "run.json"
        record = json.loads(path.read_text()) | {"started": f"2026-10-25T{started}"}
        path.write_text(json.dumps(record))
    monkeypatch.chdir(runs)
    monkeypatch.setattr(command.time, "time", lambda: 1_792_920_000.0)  # 2026-10-25T09:20Z
    assert command.main([]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(line[1], " ".join(line[-2:])) for line in lines[:2]] == [("first", "10 min"), ("second", "40 min")]


@pytest.mark.parametrize(("width", "columns"), [(53, 6), (46, 5), (100, 7)])
def test_a_narrow_terminal_is_shown_what_matters(runs, monkeypatch, capsys, width, columns):
    """The status stays; age, evaluations and data go, in this order."""
    monkeypatch.chdir(runs)
    monkeypatch.setattr(command, "on_terminal", lambda: True)
    monkeypatch.setattr(command, "columns", lambda: width)
    assert command.main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= width
    assert {len(re.split(" {2,}", line)) for line in lines} == {columns}
    assert all(status in line for status, line in zip(("done", "failed", "done"), lines))


def test_words_choose(odenet, runs):
    """All words must be in a run's name, data, status, folder or overrides."""
    assert odenet("runs", "failed", "digits").stdout.split()[0] == "last~1"
    assert odenet("runs", "--paths", "first").stdout == "runs/2026-01-01/a\n"
    assert odenet("runs", "nothing").stdout == "no run in runs/ and sweeps/ of this folder matches.\n"


def test_last_is_a_run(odenet, runs):
    """A command that takes a RUN takes `last`, and says what there is where it goes too far back."""
    assert "sweeps/2026-01-03/c/0-x/config.yaml" in odenet("eval", "last").stderr
    done = odenet("export", "last~3", "out=w.safetensors")
    assert done.returncode == 2
    assert "last~3 is not a run: runs/ and sweeps/ in this folder hold 3." in done.stderr


def test_a_killed_run_is_none_that_runs(odenet, runs):
    """What says `running` and whose lock nobody holds was killed: so it is listed, searched and reported."""
    for folder in ("runs/2026-01-02/b", "sweeps/2026-01-03/c/0-x"):
        path = runs / folder / "run.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "running", "final": None}))
    with locked(runs / "runs/2026-01-02/b"):
        lines = odenet("runs").stdout.splitlines()
        assert [line.split()[-3] for line in lines[:3]] == ["killed", "running", "done"]
        assert lines[3:] == ["To continue a run that was killed: odenet train resume=last"]
        assert odenet("runs", "running", "--paths").stdout == "runs/2026-01-02/b\n"
        report = odenet("report", ".").stdout
    assert "sweeps/2026-01-03/c/0-x: killed: it ended without a message" in report
    assert "odenet train resume=sweeps/2026-01-03/c/0-x" in report
    assert "runs/2026-01-02/b: running: no record yet" in report


def test_a_run_of_another_machine_is_not_called_killed(runs):
    """Its lock may not be seen here: who held it last decides, and one that let go of it named nobody."""
    folder = runs / "runs/2026-01-02/b"
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "running"}))
    for holder, status in [
        (f"process 7 on {socket.gethostname()}", "killed"),
        ("process 7 on another-node", "running"),
        ("", "killed"),
    ]:
        (folder / ".lock").write_text(holder)
        assert record_or_reason(folder)["status"] == status, holder


def test_the_way_on_is_short_and_quoted(runs, monkeypatch):
    folder = runs / "runs/2026-01-02/b c"
    (runs / "runs/2026-01-02/b").rename(folder)
    path = folder / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"status": "running"}))
    monkeypatch.chdir(runs)
    assert record_or_reason(folder)["reason"].endswith("Continue: odenet train 'resume=runs/2026-01-02/b c'")


def test_none_yet(odenet):
    """An empty folder is no error."""
    done = odenet("runs")
    assert (done.returncode, done.stdout) == (0, "there are no runs in runs/ and sweeps/ of this folder yet.\n")


@pytest.mark.parametrize(
    ("words", "way"),
    [
        ("eval runs", "It contains 3 runs, such as runs/2026-01-01/a."),
        ("export sweeps/2026-01-03 out=w", "It contains 1 run, such as sweeps/2026-01-03/c/0-x."),
        ("train resume=sweeps", "It contains 1 run, such as sweeps/2026-01-03/c/0-x."),
        ("audit 1", "`odenet runs` lists the runs of this folder; last is the newest, last~1 the one before it."),
    ],
)
def test_what_is_no_run_leads_to_one(odenet, runs, words, way):
    """A folder above runs names one of them, anything else what lists them."""
    done = odenet(*words.split())
    assert done.returncode == 2
    assert (
        f" is not the folder of a run: {words.split()[1].removeprefix('resume=')}/config.yaml "
        f"does not exist.\n  {way}\n" in (done.stderr)
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["eval", ""], "RUN needs a value."),
        (["report", ""], "PATH needs a value."),
        (["export", "last", "out="], "out= needs a value."),
    ],
)
def test_an_empty_word_is_none(odenet, runs, words, message):
    """What an unset variable of the shell leaves is not the current folder."""
    done = odenet(*words)
    assert (done.returncode, done.stderr) == (2, f"error: {message}\n")


def test_last_is_resumed(odenet, tmp_path):
    """`resume=last` goes on with the newest run; a finished one is told how to get longer."""
    words = ["model=mlp", "data=digits", "device=cpu", "trainer.limit_batches=2", "trainer.epochs=2"]
    assert odenet("train", *words, "trainer.max_steps=1").returncode == 0
    done = odenet("train", "resume=last", "trainer.max_steps=3")
    assert done.returncode == 0, done.stderr
    run = next((tmp_path / "runs").glob("*/*"))
    assert json.loads((run / "run.json").read_text())["final"]["step"] == 3
