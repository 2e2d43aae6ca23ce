"""Files are whole or as they were, on the disk before they are needed, written through no link; JSON has no NaN."""

import json
import os

import pytest

from odenet_cli.commands._summary import summarise
from odenet_cli.errors import RequestError
from odenet_cli.files import append_json, write
from odenet_cli.request.folders import check_run_folder
from odenet_cli.rundir import record_or_reason, write_record
from odenet_cli.training import checkpoint


@pytest.fixture
def synced(monkeypatch):
    """What was brought to the disk, and what was put in its place, in order."""
    done, fsync, move = [], os.fsync, os.replace

    def sync(handle):
        done.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    def put(source, target):
        done.append(f"-> {os.path.basename(target)}")
        move(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", put)
    return done


def test_content_first_then_its_place_then_its_name(tmp_path, synced):
    write(tmp_path / "config.yaml", "seed: 0\n")
    assert synced == [".config.yaml.part", "-> config.yaml", tmp_path.name]
    assert (tmp_path / "config.yaml").read_text() == "seed: 0\n"


def test_a_record_brings_its_folder_to_the_disk(tmp_path, synced):
    run = tmp_path / "date" / "run"
    run.mkdir(parents=True)
    write_record(run, {"status": "running"})
    assert synced == ["run", "date", tmp_path.name, ".run.json.part", "-> run.json", "run"]


def test_a_first_checkpoint_brings_the_folder_of_checkpoints_too(tmp_path, synced):
    checkpoint.save(tmp_path / "checkpoints" / "last.pt", {"step": 1})
    assert synced == [".last.pt.part", "-> last.pt", "checkpoints", tmp_path.name]


def test_where_it_cannot_be_written_no_part_is_left(tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    (tmp_path / "run.json").write_text("before")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path / "run.json", "after")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"run.json": "before"}


@pytest.mark.parametrize("lies", ["file", ".file.part"])
def test_where_there_was_a_link_only_the_link_goes(tmp_path, lies):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / lies).symlink_to(precious)
    write(tmp_path / "file", "new")
    assert not (tmp_path / "file").is_symlink()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"precious": "mine", "file": "new"}


def test_a_pipe_in_the_place_of_a_part_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / ".file.part")
    write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


def test_a_folder_in_its_place_is_an_error_and_leaves_no_part(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="Is a directory"):
        write(tmp_path / "file", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_summary_is_written_through_no_link(tmp_path):
    precious, folder = tmp_path / "precious", tmp_path / "sweep"
    precious.write_text("mine")
    folder.mkdir()
    for name in ("summary.md", ".summary.md.part", "summary.json", ".summary.json.part"):
        (folder / name).symlink_to(precious)
    summarise(folder, [])
    assert precious.read_text() == "mine"
    assert sorted(path.name for path in folder.iterdir() if not path.is_symlink()) == ["summary.json", "summary.md"]


def test_a_pipe_is_no_record(tmp_path):
    os.mkfifo(tmp_path / "run.json")
    assert record_or_reason(tmp_path).get("status") != "done"
    with pytest.raises(RequestError, match=r"run\.json"):
        check_run_folder(tmp_path, "auto")


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        ("", 0),
        ('{"a": 1}\n', 1),
        ('{"a": 1}\n{"a": 2', 1),
        ('{"a": 1}\n{"a": 2}', 2),  # an editor left the line break out
        ('{"a"', 0),
        ('{"a": 1}\n' + "x" * 500, 1),  # longer than what takes its place
        ("7", 0),
    ],
)
def test_half_a_line_makes_way(tmp_path, before, kept):
    path = tmp_path / "eval.jsonl"
    path.write_text(before)
    for value in (8, float("nan")):
        append_json(path, {"a": value})
    records = [json.loads(line)["a"] for line in path.read_text().splitlines()]
    assert records == [*range(1, kept + 1), 8, "nan"]
