"""What replaces a file follows no link, not even one that lies where its part is written; a pipe is no record."""

import os

import pytest

from odenet_cli.commands._summary import summarise
from odenet_cli.errors import RequestError
from odenet_cli.files import write
from odenet_cli.request.folders import check_run_folder
from odenet_cli.rundir import record_or_reason


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
