"""`odenet report`: what it prints and writes, and what it refuses."""

import json
from pathlib import Path

import pytest

from odenet_cli.commands import report as command
from odenet_cli.errors import RequestError


@pytest.fixture
def sweep(tmp_path, write):
    for job, (rtol, seed) in enumerate((rtol, seed) for rtol in (0.1, 0.001) for seed in (0, 1)):
        write(tmp_path / "sweep" / f"{job}-seed={seed},solver.rtol={rtol}", {"solver.rtol": rtol, "seed": seed})
    return tmp_path / "sweep"


def test_a_table_in_the_terminal_needs_no_torch(odenet, sweep):
    done = odenet("report", "sweep", fresh=True, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("In common: model odenet")
    assert "| 2 | 0.1         | 2 (0, 1)     |  5.00 ± 0.00 |" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {"torch", "hydra", "matplotlib", "numpy"} & loaded


def test_a_folder_of_results(odenet, sweep):
    done = odenet("report", "sweep", "--out", "results/mine")
    assert done.returncode == 0, done.stderr
    folder = sweep.parent / "results" / "mine"
    figures = {
        f"{stem}.{kind}" for stem in ("training", "against-solver.rtol", "nfe-solver.rtol") for kind in ("svg", "png")
    }
    assert {path.name for path in folder.iterdir()} == {"table.md", "table.csv", "table.json", *figures}
    assert "9 files in results/mine" in done.stdout
    assert (folder / "table.md").read_text().strip() in done.stdout
    assert (
        json.loads((folder / "table.json").read_text())["source"]["command"] == "odenet report sweep --out results/mine"
    )


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["nowhere"], "There is no folder nowhere."),
        (["sweep", "empty"], "empty holds no run"),
        (["x" * 300], f"There is no folder {'x' * 300}."),
        (["k=" + "x" * 300], "k is not an option here."),
        (["sweep", "--out", "x" * 300], "cannot be created: File name too long"),
        (["sweep", "--ot", "x"], "--ot is not an option here. Did you mean `--out`?"),
        (["sweep", "buy=solver.rtol"], "buy is not an option here. Did you mean `by`?"),
        (["sweep", "by=solver.tol"], "Did you mean `solver.rtol`?"),
        (["sweep", "x=solver.method", "--out", "y"], "x=solver.method is not a number that differs"),
        (["sweep", "x=solver.rtol"], "--out FOLDER"),
        (["sweep", "--out"], "--out needs a value"),
        (["sweep", "by=a", "by=b"], "by is given more than once"),
        (["--out", "y"], "PATH is missing"),
        (["sweep", "--out", "file"], "--out file cannot be created"),
        (["sweep", "--columns", "colour", "--out", "y"], "--columns colour is no column here"),
    ],
)
def test_what_is_refused(sweep, monkeypatch, capsys, words, reason):
    """Before anything is printed or made."""
    monkeypatch.chdir(sweep.parent)
    (sweep.parent / "empty").mkdir()
    (sweep.parent / "file").touch()
    with pytest.raises(RequestError) as refused:
        command.main(words)
    assert reason in str(refused.value)
    assert not (sweep.parent / "y").exists()
    assert capsys.readouterr().out == ""


def test_a_refusal_is_exit_code_two(odenet, sweep):
    done = odenet("report", "sweep", "nowhere")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: There is no folder nowhere.\n"
    assert odenet("report").returncode == 2


def test_words(sweep, monkeypatch, capsys):
    """A path may hold `=`; `--out` may be written as other commands write it."""
    monkeypatch.chdir(sweep)
    request = command.PARSER.parse(["0-seed=0,solver.rtol=0.1", "--out=a"])
    command.check(request)
    assert request.out == Path("a")
    request = command.PARSER.parse(["x/y=z", "out=a", "by=p,q,p", "x=k"])
    command.check(request)
    assert (request.paths, request.out, request.by, request.x) == (["x/y=z"], Path("a"), ["p", "q"], "k")
    assert command.main(["."]) == 0
    assert command.main([".", "by=seed"]) == 0
    assert "Rows are means over solver.rtol too" in capsys.readouterr().out
    assert command.main(["--help"]) == 0


def test_a_terminal_is_shown_what_fits(sweep, monkeypatch, capsys):
    monkeypatch.setattr(command, "on_terminal", lambda: True)
    monkeypatch.setattr(command, "columns", lambda: 50)
    assert command.main([str(sweep)]) == 0
    assert "Left out, as the terminal has 50 columns: " in capsys.readouterr().out
    assert command.main([str(sweep), "--all"]) == 0
    assert "Left out" not in capsys.readouterr().out
    assert command.main([str(sweep), "columns=rtol,nfe"]) == 0
    assert "| # | solver.rtol | NFE forward | NFE backward |" in capsys.readouterr().out


def test_the_axis_asked_for(tmp_path, write, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for n, (rtol, width) in enumerate((rtol, width) for rtol in (0.1, 0.01) for width in (4, 8)):
        write(tmp_path / "runs" / str(n), {"solver.rtol": rtol, "model.width": width})
    assert command.main(["runs", "--out", "one", "x=model.width"]) == 0
    assert {path.stem for path in (tmp_path / "one").glob("*.svg")} == {
        "training",
        "against-model.width",
        "nfe-model.width",
    }


def test_links_among_the_results_are_replaced(sweep, tmp_path):
    """Of a link only the link goes; what it leads to stays as it was."""
    precious, out = tmp_path / "precious", tmp_path / "out"
    precious.write_text("mine")
    out.mkdir()
    names = [f"table.{kind}" for kind in ("md", "csv", "json")] + [f"training.{kind}" for kind in ("svg", "png")]
    for name in [*names, *(f".part-{name}" for name in names)]:
        (out / name).symlink_to(precious)
    assert command.main([str(sweep), "--out", str(out)]) == 0
    assert precious.read_text() == "mine"
    assert not [path for path in out.iterdir() if path.is_symlink() or path.name.startswith(".")]


def test_a_folder_in_the_place_of_a_result_is_named(sweep, tmp_path):
    (tmp_path / "out" / "table.csv").mkdir(parents=True)
    with pytest.raises(RequestError, match=r"table\.csv cannot be written: Is a directory"):
        command.main([str(sweep), "--out", str(tmp_path / "out")])
