"""A partial page takes the place of no fuller one, and of none that is committed."""

import json
import subprocess

import pytest

from odenet_cli.report.result import About
from odenet_cli.reproduce.destination import PARTIAL, destination

WHOLE = About(item="table1", preset="quick", text="")
FEWER = About(item="table1", preset="quick", text="", partial=("partial: 1 of 2 seeds",))


def rows(*cells):
    return [{"cell": cell, "status": "done"} for cell in cells]


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "results"
    (folder / "table1").mkdir(parents=True)
    return folder


def there(out, *cells, status="done"):
    page = out / "table1" / "quick.json"
    page.write_text(json.dumps({"rows": [{"cell": cell, "status": status} for cell in cells]}))
    return page


def test_a_whole_page_goes_where_it_is_asked_for(out):
    there(out, "a", "b")
    assert destination(out, WHOLE, rows("c"), overwrite=False) == (out / "table1", "")


def test_a_fuller_page_stays(out):
    there(out, "a", "b")
    folder, why = destination(out, FEWER, rows("a"), overwrite=False)
    assert folder == PARTIAL / "table1"
    assert why.startswith(
        f"{out}/table1/quick.md has cells that this page lacks and was not replaced: this page is partial: 1 of 2"
    )
    assert destination(out, FEWER, rows("a"), overwrite=True) == (out / "table1", "")


@pytest.mark.parametrize("cells", [("a",), ("a", "b")])
def test_a_page_of_fewer_cells_gives_way(out, cells):
    there(out, *cells)
    assert destination(out, FEWER, rows("a", "b"), overwrite=False) == (out / "table1", "")


def test_cells_that_failed_count_for_nothing(out):
    there(out, "a", "b", status="failed")
    assert destination(out, FEWER, rows("a"), overwrite=False) == (out / "table1", "")


def test_a_page_that_cannot_be_read_stays(out):
    there(out).write_text("{")
    assert destination(out, FEWER, rows("a"), overwrite=False)[0] == PARTIAL / "table1"


def test_a_committed_page_gives_way_to_a_whole_one_alone(out, tmp_path):
    page = there(out, "a")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert destination(out, FEWER, rows("a"), overwrite=False) == (out / "table1", "")
    subprocess.run(["git", "add", str(page)], cwd=tmp_path, check=True)
    folder, why = destination(out, FEWER, rows("a"), overwrite=False)
    assert folder == PARTIAL / "table1"
    assert "quick.md is committed and was not replaced" in why
    assert destination(out, WHOLE, rows("a"), overwrite=False) == (out / "table1", "")
