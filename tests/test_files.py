"""What a run cannot do without is on the disk before it is needed: its config, its record, its first checkpoint."""

import os

import pytest

from odenet_cli.files import write
from odenet_cli.rundir import write_record
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
