"""The commands' edges: what has no end is not read, no number is without bound, a reader who leaves changes nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from runs_kit import train_run

from odenet_cli import files, streams
from odenet_cli.analysis import audit as audits
from odenet_cli.commands import audit, bench, gradcheck, reproduce, sample
from odenet_cli.commands import eval as scoring
from odenet_cli.errors import RequestError
from odenet_cli.training import device

NET = ("data=digits", "device=cpu", "model=rknet", "model.width=4", "solver=euler", "solver.steps=1")
SHORT = ("trainer.max_steps=1", "trainer.batch_size=8", "trainer.limit_batches=1")


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    return train_run(tmp_path_factory.mktemp("runs") / "run", *NET, *SHORT)


@pytest.fixture
def nobody(monkeypatch):
    """Standard output is a pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    monkeypatch.setattr(sys, "stdout", os.fdopen(writer, "w"))
    streams.secure()
    yield
    os.close(writer)


def test_an_audit_without_a_reader_keeps_its_file_and_its_exit_code(run_folder, nobody, monkeypatch):
    monkeypatch.setattr(audits, "conclude", lambda rows: ("not an ode", rows[0]))
    assert audit.main([str(run_folder), "steps=1,2", "rtol=1e-1", "strict=true"]) == 1
    made = json.loads((run_folder / "audit.json").read_text())
    assert (made["verdict"], len(made["rows"])) == ("not an ode", 7)


def test_a_gradcheck_without_a_reader_keeps_its_rows_and_its_exit_code(run_folder, nobody):
    words = ["solver.steps=1,2", "batches=1", "reference=1e-3", "threshold=1e-9"]
    assert gradcheck.main([str(run_folder), *words]) == 1
    assert len((run_folder / "gradcheck.jsonl").read_text().splitlines()) == 2


def test_an_evaluation_without_a_reader_keeps_its_rows(run_folder, nobody):
    assert scoring.main([str(run_folder), "eval.solver.steps=1,2,3", "trainer.limit_batches=1"]) == 0
    assert len((run_folder / "eval.jsonl").read_text().splitlines()) == 3


@pytest.mark.numerics
def test_the_exit_code_is_the_same_when_the_reader_leaves(run_folder):
    """`odenet gradcheck RUN | head -1`, and the code of the first."""
    words = ["gradcheck", str(run_folder), "batches=1", "reference=1e-3", "threshold=1e-9"]
    command = [sys.executable, "-m", "odenet_cli", *words]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    child.stdout.readline()
    child.stdout.close()
    assert (child.stderr.read(), child.wait(timeout=300)) == ("", 1)


@pytest.mark.parametrize(
    ("command", "word", "allowed"),
    [
        (audit, f"steps=1,{10**12}", "steps=1000000000000 must be a whole number from 1 to 100,000"),
        (scoring, "eval.solver.steps=range(1,102) eval.solver.max_steps=range(1,102)", "10,201 points in total"),
        (gradcheck, "solver.steps=range(1,102) solver.max_steps=range(1,102)", "the limit for a sweep is 10,000"),
    ],
)
def test_numbers_have_a_bound(run_folder, command, word, allowed):
    with pytest.raises(RequestError) as refused:
        command.main([str(run_folder), *word.split()])
    assert allowed in str(refused.value)


@pytest.mark.parametrize("number", [str(10**12), "9" * 5000])
def test_counts_have_a_bound(number):
    with pytest.raises(RequestError, match=r"^repeats=\d+…? must be a whole number from 1 to 100,000\.$"):
        bench.main(["w2", f"repeats={number}"])
    with pytest.raises(RequestError, match=r"^seeds=\d+…? must be a whole number from 1 to 1,000\.$"):
        reproduce.main(["fig3", "--seeds", number])


def test_points_have_the_bound_of_the_memory(monkeypatch):
    monkeypatch.setattr(device, "memory", lambda name: 2**30)
    sample.check_memory(10**6, 2)
    with pytest.raises(RequestError, match=r"n=1000000000000 points need 167,638 GiB(.|\n)*Draw 5,965,232 or fewer"):
        sample.check_memory(10**12, 2)


def test_points_come_from_a_pipe(tmp_path):
    reader, writer = os.pipe()
    os.write(writer, b"\xef\xbb\xbfx1,x2\n1,2\n")
    os.close(writer)
    # As of `points=<(…)` or `points=/dev/stdin`.
    assert sample.read_points(Path(f"/dev/fd/{reader}"), None, None, []).tolist() == [[1.0, 2.0]]
    os.close(reader)


def test_points_come_from_no_folder_and_no_device_without_end(tmp_path):
    for source, says in (
        (tmp_path, "cannot be read: Is a directory"),
        (Path("/dev/zero"), "is a device, not a file. Name a file"),
        (tmp_path / ("x" * 300), "cannot be read: File name too long"),
    ):
        with pytest.raises(RequestError, match=f"^points={source} {says}"):
            sample.read_points(source, None, None, [])


ROW = ["x1"], [[0.5]]
TEXT = "x1\n0.5\n"


def test_points_are_written_in_one_move(tmp_path, monkeypatch):
    def stopped(path):
        raise KeyboardInterrupt

    out = tmp_path / "points.csv"
    out.write_text("before")
    with monkeypatch.context() as patched:
        patched.setattr(files, "_fsync", stopped)
        with pytest.raises(KeyboardInterrupt):
            sample.write(out, *ROW)
    assert (out.read_text(), list(tmp_path.iterdir())) == ("before", [out])
    sample.write(out, *ROW)
    assert out.read_text() == TEXT


def test_points_go_into_a_file_of_a_folder_where_none_can_be_made(tmp_path, monkeypatch):
    out = tmp_path / "points.csv"
    out.write_text("before")
    file = out.stat().st_ino
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    sample.write(out, *ROW)
    assert (out.read_text(), out.stat().st_ino) == (TEXT, file)


def test_points_go_where_a_link_leads(tmp_path):
    (tmp_path / "there").mkdir()
    link, target = tmp_path / "link", tmp_path / "there" / "points.csv"
    link.symlink_to(target)
    for _ in range(2):  # a file that is new, one that is not
        sample.write(link, *ROW)
        assert link.is_symlink()
        assert (target.read_text(), list(target.parent.iterdir())) == (TEXT, [target])


def test_points_go_to_what_is_no_file(tmp_path, capfd):
    print("first", flush=True)
    sample.write(Path("/dev/stdout"), *ROW)  # here a file
    sample.write(Path("/dev/null"), *ROW)
    assert capfd.readouterr().out == f"first\n{TEXT}"
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDWR)
    sample.write(tmp_path / "pipe", *ROW)
    assert os.read(pipe, 100).decode() == TEXT
    os.close(pipe)
    with pytest.raises(RequestError, match="cannot be written: Is a directory"):
        sample.write(tmp_path, *ROW)


def test_a_long_name_of_a_run_is_refused():
    for command in (audit, scoring, gradcheck, sample):
        with pytest.raises(RequestError, match=r"config\.yaml cannot be read: File name too long"):
            command.main(["x" * 300])
