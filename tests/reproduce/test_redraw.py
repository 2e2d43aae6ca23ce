"""A page is made again from its own numbers, and only where they are enough."""

import hashlib
import json
import re

import numpy
import pytest

from odenet_cli.config.resolve import complete
from odenet_cli.config.saved import save
from odenet_cli.errors import RequestError
from odenet_cli.reproduce import kept_cells, recompute
from odenet_cli.reproduce.plan import plan
from odenet_cli.reproduce.redraw import redraw

SOURCE = {"command": "odenet reproduce fig4", "trained": [], "commits": ["0123abcd"], "machines": [], "versions": []}


@pytest.fixture(scope="module")
def planned():
    return plan("fig4", "quick", 1, ["planar 2", "CNF 2"], [])


@pytest.fixture
def page(planned, tmp_path):
    """Six cells as the report wrote them: of each flow the second learning rate is best on validation."""
    rows = []
    for number, cell in enumerate(planned.cells):
        row = {"part": cell.part, "row": cell.row, "seed": 0, "status": "done", "cell": cell.folder.name}
        row |= {"kl": 0.1 + 0.01 * number, "kl_se": 0.01, "outside": 0.02, "parameters": 10, "time_s": 12.0}
        rows.append({**row, "step": 4000, "best_epoch": 7, "validation": -1.0 if number % 3 == 1 else -0.5})
    content = {"item": "fig4", "preset": "quick", "text": "scaled down; 1 seed", "partial": [], "missing": []}
    content |= {"source": {**SOURCE, "data": ["u1"]}, "rows": rows}
    content["facts"] = {"largest fall of a validation KL over the last tenth of training (nat)": 0.25}
    path = tmp_path / "fig4" / "quick.json"
    path.parent.mkdir()
    path.write_text(json.dumps(content))
    path.with_name("quick-densities.svg").write_text("as it was")
    return path


def test_tables_and_one_figure_are_made_again(planned, page, tmp_path):
    before = page.read_bytes()
    names = [path.name for path in redraw(planned, tmp_path)]
    assert names == ["quick.md", "quick-loss.svg", "quick-loss.png"]
    text = page.with_suffix(".md").read_text()
    values = [[cell.strip() for cell in line.split("|")[1:6]] for line in text.splitlines() if line.startswith("| U1 ")]
    assert values[:2] == [["U1", "planar 2", "0.1100", "2.00", "0.003"], ["U1", "CNF 2", "0.1400", "2.00", "0.003"]]
    assert "![densities](quick-densities.svg)" in text
    assert "- commit: 0123abcd\n" in text
    assert text.endswith("- drawn from quick.json: odenet reproduce fig4 --preset quick --redraw\n")
    assert page.read_bytes() == before
    assert page.with_name("quick-densities.svg").read_text() == "as it was"


def test_settings_and_what_was_measured_come_from_the_rows(tmp_path):
    """The learning rate with the least validation error is shown, and its error at the other pace."""
    planned = plan("table2", "quick", 1, ["RNN"], [])
    rows = []
    for number, cell in enumerate(planned.cells):
        row = {"part": cell.part, "row": cell.row, "seed": 0, "status": "done", "cell": cell.folder.name}
        row |= {"rmse_further_clean": 0.2 + 0.01 * number, "rmse_further_clean_pace_time": 0.4 + 0.01 * number}
        rows.append({**row, "best_epoch": 7, "validation": 0.3 if number % 3 == 1 else 0.5, "parameters": 9})
    content = {"item": "table2", "preset": "quick", "text": "1 seed", "partial": [], "missing": [], "facts": {}}
    path = tmp_path / "table2" / "quick.json"
    path.parent.mkdir()
    path.write_text(json.dumps({**content, "source": {**SOURCE, "data": ["spirals"]}, "rows": rows}))
    assert [file.name for file in redraw(planned, tmp_path)] == ["quick.md", "quick-scores.svg", "quick-scores.png"]
    lines = [line.split("|") for line in path.with_suffix(".md").read_text().splitlines() if line.startswith("| RNN ")]
    assert [cell.strip() for cell in lines[0][2:8:2]] == ["0.210", "0.240", "0.270"]
    assert ["0.410", "0.440", "0.470"] in [[cell.strip() for cell in line[2:5]] for line in lines]


@pytest.fixture
def keep(planned, page, tmp_path, monkeypatch):
    """Keep the two cells that are shown, as if trained again to a loss that is `off` by that much."""
    monkeypatch.chdir(tmp_path)
    content = json.loads(page.read_text())
    for row in content["rows"]:
        row |= {"loss": -1.0, "shown": row["validation"] == -1.0}
    page.write_text(json.dumps(content))

    def arrays(folder):
        (folder / "figures").mkdir()
        grid = {"x": [-4, 4], "y": [-4, 4], "target": numpy.eye(2), "density": numpy.ones((1, 2, 2))}
        numpy.savez(folder / "figures" / "density.npz", times=[1.0], **grid)

    monkeypatch.setattr(recompute, "make_arrays", arrays)

    def make(off):
        for cell in [planned.cells[1], planned.cells[4]]:
            folder = kept_cells.FOLDER / cell.folder.name
            folder.mkdir(parents=True)
            save(complete(cell.config, gpu=False), folder, tied=True)
            final = {"kl": 0.5, "kl_se": 0.01, "loss": -1.0 + off, "best_epoch": 1, "time_s": 9.0}
            (folder / "run.json").write_text(
                json.dumps({"format": 2, "status": "done", "parameters": 10, "final": final})
            )
            lines = [{"split": "valid", "step": 100, "epoch": 1, "loss": -1.0, "kl": 0.5, "epoch_s": 2.0}]
            (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            (folder / kept_cells.WEIGHTS).write_bytes(b"weights")
            sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}
            (folder / kept_cells.SUMS).write_text("".join(f"{sums[name]}  {name}\n" for name in sums))

    return make


def test_what_rows_do_not_tell_is_drawn_of_kept_cells(planned, page, keep, tmp_path):
    """Their own scores stand in the figures, those of the rows in the tables, and how far they are apart below."""
    keep(off=0.005)
    names = [path.name for path in redraw(planned, tmp_path)]
    figures = ["loss", "densities", "curves"]
    assert names == ["quick.md", *(f"quick-{name}.{kind}" for name in figures for kind in ("svg", "png"))]
    text = page.with_suffix(".md").read_text()
    assert re.search(r"^\| U1 +\| planar 2 +\| +0\.1100 \|", text, re.MULTILINE)
    assert text.endswith(
        "- of kept cells, with their numbers and times: densities, curves; test losses within 0.5 % of the rows'\n"
    )


def test_a_kept_cell_that_is_not_as_its_row_is_refused(planned, page, keep, tmp_path):
    keep(off=0.02)
    with pytest.raises(
        RequestError, match=r"cells/[0-9a-f]{16} \(planar 2\) is not the network of its row: its test loss is -0\.98"
    ):
        redraw(planned, tmp_path)
    assert not page.with_suffix(".md").exists()


def test_of_a_seed_that_is_kept_in_part_nothing_is_drawn(planned, page, keep, tmp_path):
    keep(off=0.0)
    (kept_cells.FOLDER / planned.cells[4].folder.name / kept_cells.SUMS).unlink()
    assert [path.name for path in redraw(planned, tmp_path)] == ["quick.md", "quick-loss.svg", "quick-loss.png"]


def test_rows_of_other_cells_are_refused(planned, page, tmp_path):
    page.write_text(page.read_text().replace(planned.cells[0].folder.name, "0" * 16))
    with pytest.raises(RequestError, match=r"has other cells than this version plans(.|\n)*odenet reproduce fig4"):
        redraw(planned, tmp_path)
    page.write_text("{}")
    with pytest.raises(RequestError, match=r"quick\.json is not a page that can be redrawn: KeyError"):
        redraw(planned, tmp_path)
    assert not page.with_suffix(".md").exists()


def test_an_item_that_needs_its_runs_is_refused(tmp_path):
    with pytest.raises(RequestError, match="fig7 cannot be redrawn"):
        redraw(plan("fig7", "quick", 1, [], []), tmp_path)
