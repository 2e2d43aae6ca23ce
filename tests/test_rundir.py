"""`run.json` is what a run writes, or it is refused by name; it is read in one place, without torch."""

import os
import subprocess
import sys

import pytest

from odenet_cli import lock
from odenet_cli.errors import RequestError
from odenet_cli.lock import locked
from odenet_cli.report.runs import read_run
from odenet_cli.rundir import read_record, record_or_reason


def test_what_is_there_is_read_and_nothing_where_there_is_none(tmp_path):
    assert read_record(tmp_path / "nowhere") == record_or_reason(tmp_path) == {}
    (tmp_path / "run.json").write_text('{"status": "done", "final": null, "data": null, "more": [1]}')
    assert read_record(tmp_path) == {"status": "done", "final": None, "data": None, "more": [1]}


WRONG = [
    "[1,2]",
    "5",
    "null",
    '"x"',
    "[]",
    '{"data":"x"}',
    '{"data":null}',
    '{"resumed":5}',
    '{"final":3}',
    '{"status":1}',
    "{}",
    '{"data":{}}',
    '{"status":"done","data":"x"}',
    '{"status":"done","resumed":5}',
    '{"status":"done","resumed":[3]}',
    '{"status":"done","final":3}',
    "{",
    "",
]
DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "text", [*WRONG, pytest.param(DEEP, id="deep"), pytest.param('{"data":' + DEEP, id="deep data")]
)
def test_a_record_that_no_run_wrote_is_refused(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(RequestError, match=r"run\.json"):
        read_record(tmp_path)
    assert record_or_reason(tmp_path)["status"] == read_run(tmp_path).status == "unreadable"
    assert "run.json" in record_or_reason(tmp_path)["reason"]


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "run.json")
    with pytest.raises(RequestError, match=r"run\.json cannot be read: run\.json is not a file"):
        read_record(tmp_path)


def test_a_folder_that_another_filled_before_it_was_locked_is_not_new(tmp_path, monkeypatch):
    """Who made a folder may remove it, unless another run had the lock first, and finished, while this one waited."""
    acquire, tries = lock._acquire, []

    def late(path):
        tries.append(path)
        if len(tries) == 1:
            (path.parent / "run.json").write_text("{}")  # the other's
            return None
        return acquire(path)

    with locked(tmp_path / "alone") as new:
        assert new
    with locked(tmp_path / "alone") as new:
        assert not new
    monkeypatch.setattr(lock, "_acquire", late)
    with locked(tmp_path / "met") as new:
        assert not new
    assert len(tries) == 2


def test_reading_a_record_takes_no_torch():
    code = "import sys, odenet_cli.rundir, odenet_cli.report.runs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
