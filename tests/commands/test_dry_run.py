"""`odenet train --dry-run` shows every value and where it comes from, folder and cost, and makes nothing."""

import json
import re

import pytest

from odenet_cli.commands import _dry_run
from odenet_cli.commands import train as command
from odenet_cli.data.common import downloaded

TINY = ["data=digits", "device=cpu", "model=odenet", "model.width=4", "trainer.limit_batches=2", "trainer.epochs=3"]


@pytest.fixture
def dry(tmp_path, monkeypatch, capsys):
    """Return the rows {key: (value, origin)} and the text of a dry run in an empty folder that stays empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("ODENET_REQUEST", raising=False)

    def show(*words):
        before = sorted(tmp_path.rglob("*"))
        assert command.main(["--dry-run", *words]) == 0
        assert sorted(tmp_path.rglob("*")) == before
        text = capsys.readouterr().out
        rows = re.findall(r"^(\w[\w.]+) {2,}(.+?) {2,}(\S.*)$", text.partition("not set:")[0], re.MULTILINE)
        return {key: (value, origin) for key, value, origin in rows}, text

    return show


def test_every_value_has_its_origin(dry):
    rows, text = dry(*TINY, "solver.rtol=0.1", "gradient=replay", "eval.solver.method=bosh3")
    assert {
        "solver.rtol": ("0.1", "command line"),
        "solver.atol": ("0.1", "solver.rtol"),
        "solver.method": ("dopri5", "solver=dopri5"),
        "gradient.method": ("replay", "gradient=replay"),
        "model.width": ("4", "command line"),
        "model.stem": ("conv", "model=odenet"),
        "optim.lr": ("0.05", "recipe of data=digits"),
        "optim.momentum": ("0.9", "optim=sgd"),
        "eval.solver.method": ("bosh3", "command line"),
        "seed": ("0", "default"),
    }.items() <= rows.items()
    assert not {"gradient.norm", "gradient.coupling", "gradient.solver.rtol"} & rows.keys()  # of other gradients
    assert max(map(len, text.splitlines())) <= 80
    assert "optim.clip" in text.partition("not set:")[2]
    assert re.search(r"^folder +runs/\S+-odenet-dopri5$", text, re.MULTILINE)
    assert re.search(r"^steps +6, 2 per epoch, of 8 samples$", text, re.MULTILINE)
    assert re.search(r"^NFE +\d+ forward, \d+ backward per step$", text, re.MULTILINE)
    assert re.search(r"^time +about [\d.]+ s of training", text, re.MULTILINE)


def test_experiments_and_presets_are_named(dry):
    rows, text = dry("experiment=fig5", "model=planar", "device=cpu", "trainer.steps=2", "data=moons", "dtype=float64")
    assert rows["optim.lr"][1] in ("model=planar", "experiment=fig5")
    assert rows["optim.name"] == ("rmsprop", "optim=rmsprop")
    assert rows["eval.dtype"] == ("float64", "recipe of data=moons")
    assert not [key for key in rows if "solver." in key]
    assert "this model does not solve an ODE" in text


FIT = ["model=fit", "model.field=logistic", "data=table", "data.path=size.csv", "device=cpu", "model.starts=1"]


def test_a_fit_is_estimated_to_where_it_converges(dry, tmp_path):
    """Its 200 steps are a limit; the steps to convergence are those of the run itself."""
    sizes = ["1,2.1", "2,5.4", "3,12.9", "4,27.3", "5,42.2", "6,52.1", "7,57.0", "8,58.8"]
    (tmp_path / "size.csv").write_text("\n".join(["time,size", *sizes]))
    start = ["+model.start.rate=0.9", "+model.start.capacity=55"]
    _, text = dry(*FIT, *start)
    steps = int(re.search(r"^steps +(\d+), after which it has converged$", text, re.MULTILINE)[1])
    whole = " ".join(text.split())
    assert re.search(r"time about [\d.]+ s of training, \d+ ms per step; the search for initial values", whole)
    _, text = dry(*FIT, *start, "trainer.max_steps=2")
    assert "steps       at most 2; a fit ends when it has converged" in text
    assert command.main([*FIT, *start, "logger=none", "hydra.run.dir=run"]) == 0
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["step"] == steps > 2


def test_a_sweep_shows_its_jobs_and_what_differs(dry):
    rows, text = dry(*TINY, "-m", "optim.lr=0.1,0.01", "solver=dopri5,rk4", "seed=3")
    assert rows["solver.steps"] == ("null | 4", "default")
    assert rows["optim.lr"] == ("0.1 | 0.01", "command line")
    assert rows["solver.method"] == ("dopri5 | rk4", "solver=dopri5")
    assert rows["seed"] == ("3", "command line")
    assert re.search(r"^jobs +4: 0-", text, re.MULTILINE)
    assert "not estimated for a sweep" in text


def test_data_that_are_not_here_are_not_downloaded(dry, tmp_path, monkeypatch):
    monkeypatch.setenv("ODENET_DATA", str(tmp_path / "none"))
    monkeypatch.setattr(downloaded, "download", lambda *_: pytest.fail("a download"))
    rows, text = dry("data=mnist", "model=mlp", "device=cpu")
    assert rows["data.download"] == ("auto", "data=mnist")
    assert "MNIST is not complete" in text
    assert "cost        not estimated: the data are missing" in text
    rows, text = dry("model=mlp", "device=cpu", "model.hidden=4")
    assert rows["data.name"] == ("digits", "data=auto")
    assert "digits, unless the run can download MNIST" in text


@pytest.mark.parametrize("width", [50, 60, 80])
def test_no_word_is_cut_on_a_narrow_terminal(width, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(_dry_run, "columns", lambda: width)
    rows = {
        "logger": ("tensorboard", "default"),
        "gradient.control_parameters": ("false", "gradient=adjoint"),
        "gradient.solver.atol": ("0.03", "gradient.solver.rtol"),
        "optim.milestones": ("[0.375, 0.625, 0.875]", "recipe of data=digits"),
    }
    lines = _dry_run.table(rows).splitlines()
    assert max(map(len, lines)) <= width
    words = {word for line in lines for word in line.split()}
    assert words >= {word for key, row in rows.items() for text in (key, *row) for word in text.split()}
