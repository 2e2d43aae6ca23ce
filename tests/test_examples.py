"""Each program of scripts/examples runs as it stands, draws its figure, and finds what it should; notebooks too."""

import runpy
from pathlib import Path

import matplotlib as mpl
import pytest

SCRIPTS = Path(__file__).parents[1] / "scripts"
EXAMPLES = SCRIPTS / "examples"

FINDS = {
    "flow_on_points": lambda loss: loss < 1.5,  # nat a point; it begins at 3.1
    "fit_lotka_volterra": lambda rates: rates.tolist() == pytest.approx([1.1, 0.4, 0.1, 0.4], rel=0.1),
    "gradient_memory": lambda found: (
        found[0]["adjoint"][0] == found[0]["adjoint"][-1]
        and found[0]["backprop"][-1] == pytest.approx(16 * found[0]["backprop"][0], rel=0.1)
        and max(errors[-1] for errors in found[1].values()) < 1e-10
    ),
    "own_solver": lambda slopes: list(slopes.values()) == pytest.approx([3, 2, 4], abs=0.1),
    "load_and_refine": lambda found: found[0] == sorted(found[0]) and found[1][4] < 0.01 * found[1][0],
    "own_series": lambda _: True,
}


@pytest.mark.numerics
@pytest.mark.parametrize("name", FINDS)
def test_example(name, tmp_path, monkeypatch):
    """Its own words say what it finds; its figure is where it was started."""
    mpl.use("agg")
    monkeypatch.chdir(tmp_path)
    found = runpy.run_path(str(EXAMPLES / f"{name}.py"))["main"]("figure.png")
    assert FINDS[name](found)
    assert (tmp_path / "figure.png").stat().st_size > 5000


def test_the_notebooks_are_those_of_the_programs():
    """The others are run as they are, none is longer than 70 lines."""
    made = runpy.run_path(str(SCRIPTS / "notebooks.py"))
    programs = {path.stem: path.read_text().splitlines() for path in EXAMPLES.glob("*.py")}
    assert programs.keys() == {*FINDS, *made["NAMES"]}
    assert max(map(len, programs.values())) <= 70
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == set(made["NAMES"])
    for name in made["NAMES"]:
        text = (EXAMPLES / f"{name}.ipynb").read_text(encoding="utf-8")
        assert text == made["notebook"](EXAMPLES / f"{name}.py") + "\n", "python scripts/notebooks.py writes it anew"


@pytest.mark.numerics
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebook(path, tmp_path, monkeypatch):
    """It runs from top to bottom, shows a figure, and prints what the program prints."""
    monkeypatch.delenv("MPLBACKEND", raising=False)  # of a shell, such as agg, which shows none
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    book = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(book, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]
    assert [output for output in outputs if "image/png" in output.get("data", {})]
    printed = "".join(output.get("text", "") for output in outputs)
    assert "function evaluations" in printed or float(printed.split()[-1].rstrip("%")) < 20
