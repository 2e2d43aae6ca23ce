"""A fit is a run like others: folder, figures and report; it stops, goes on, and is refused by name."""

import json
import os
import sys

import numpy
import polars
import pytest
import torch
from runs_kit import train_run

import odenet_cli
from odenet_cli.analysis.trained import needs_solver, trained
from odenet_cli.commands import predict
from odenet_cli.config.saved import load
from odenet_cli.data.observations import Observations
from odenet_cli.errors import RequestError
from odenet_cli.models.fit import Fit
from odenet_cli.report import pictures
from odenet_cli.report.pictures import fit
from odenet_cli.report.runs import read_run
from odenet_cli.request.compose import compose
from odenet_cli.tasks.common import inference
from odenet_cli.training import check
from odenet_cli.training.ending import estimate_lines

FAST = ("compile=false", "device=cpu", "model.starts=4", "solver.rtol=1e-7")
LINEAR = """
import torch
class Linear(torch.nn.Module):
    states = "x", "v"
    positive = ("k",)
    def __init__(self):
        super().__init__()
        self.k, self.c = torch.nn.Parameter(torch.tensor(1.5)), torch.nn.Parameter(torch.tensor(0.1))
    def forward(self, t, y):
        return torch.stack((y[..., 1], -self.k * y[..., 0] - self.c * y[..., 1]), -1)
class Branch(Linear):
    def forward(self, t, y):
        return super().forward(t, y) if t > 3 else 0 * y
class Wide(Linear):
    def forward(self, t, y):
        return torch.cat((super().forward(t, y), y))
"""


@pytest.fixture
def oscillation(tmp_path, monkeypatch):
    """A damped oscillation with the noise of an instrument, and the user's field for it."""
    t = numpy.linspace(0, 8, 41)
    rng = numpy.random.default_rng(0)
    x, v = (
        numpy.exp(-0.1 * t) * numpy.cos(1.4 * t),
        -numpy.exp(-0.1 * t) * (0.1 * numpy.cos(1.4 * t) + 1.4 * numpy.sin(1.4 * t)),
    )
    lines = [f"{a},{b + e},{c + f}" for a, b, c, (e, f) in zip(t, x, v, 0.02 * rng.normal(size=(41, 2)))]
    (tmp_path / "own.csv").write_text("\n".join(["t,x,v", *lines]))
    (tmp_path / "oscillators.py").write_text(LINEAR)
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("oscillators", None)
    field = "model.field=oscillators:Linear"
    return ("model=fit", field, "data=table", f"data.path={tmp_path / 'own.csv'}", *FAST)


@pytest.mark.parametrize(
    ("value", "error", "shown"),
    [
        (50.0, 1.4e-5, "          50     1.4e-05    [49.999972, 50.000028]"),
        (0.580654, 0.016, "    0.580654       0.016    [0.54865, 0.61265]"),
        (0.0, 0.0, "           0           0    [0, 0]"),
        (2.0, None, "           2           -    undetermined"),
    ],
)
def test_an_interval_is_told_as_finely_as_its_error(value, error, shown):
    ends = {"low": None, "high": None} if error is None else {"low": value - 2 * error, "high": value + 2 * error}
    final = {"estimates": {"a": {"value": value, "error": error, **ends}}, "sigma": {}, "degrees_of_freedom": 3}
    assert estimate_lines({**final, "warnings": []})[1] == f"a  {shown}"


def logistic_table(path, n=20):
    t = numpy.linspace(2000, 2010, n)
    x = 50 / (1 + 20 * numpy.exp(-0.9 * (t - 2000))) + numpy.random.default_rng(1).normal(0, 1, n)
    path.write_text("\n".join(["time,x", *(f"{a},{b}" for a, b in zip(t, x))]))
    return ("model=fit", "model.field=logistic", "data=table", f"data.path={path}", *FAST)


def test_a_field_of_ones_own_is_fitted(oscillation, tmp_path, metrics, capsys):
    """x'' = -k x - c x' with x = exp(-0.1 t) cos(1.4 t): c = 0.2, k = 1.4² + 0.1²."""
    folder = train_run(tmp_path / "run", *oscillation)
    text = capsys.readouterr().out
    assert "model:    fit with field oscillators:Linear" in text
    assert "fitted are k, c, x(0), v(0) data: table: 1 series, all of it used for the fit table:" in " ".join(
        text.split()
    )
    assert "recipe:   Levenberg-Marquardt, at most 200 steps" in text
    assert "gradient:" not in text
    record = json.loads((folder / "run.json").read_text())
    found = record["final"]["estimates"]
    for name, true in {"k": 1.97, "c": 0.2, "x(0)": 1.0, "v(0)": -0.1}.items():
        assert abs(found[name]["value"] - true) < 3 * found[name]["error"]
        assert found[name]["error"] < 0.02
    assert record["final"]["sigma"] == pytest.approx({"x": 0.02, "v": 0.02}, rel=0.4)
    assert record["final"]["degrees_of_freedom"] == 78
    assert record["final"]["r2"] > 0.99
    rows = metrics(folder, "train")
    assert [row["step"] for row in rows] == [*range(1, record["final"]["step"] + 1)]
    assert rows[-1]["parameter/k"] == pytest.approx(found["k"]["value"])
    assert record["final"]["nfe_total"] == sum(row["nfe_forward"] for row in rows)
    assert f"k {found['k']['value']:>12.6g}".split() in [line.split()[:2] for line in text.splitlines()]
    assert odenet_cli.load(folder, code=["model.field=oscillators:Linear"]).parameters == found
    assert {"fit.png", "fit.svg"} <= {path.name for path in pictures.write(folder)}


def test_a_stopped_fit_goes_on_to_the_same_bits(train, tmp_path, metrics, checkpoint_of):
    words = logistic_table(tmp_path / "x.csv")
    config = lambda **length: _with(words, **length)  # noqa: E731
    whole = train(config=config(), name="whole")
    train(config=config(max_steps=2), name="parts")
    parts = train(config=config(), name="parts")
    free = ("step_ms", "epoch_s", "peak_mib", "time_s")
    bare = [
        [{k: v for k, v in row.items() if k not in free} for row in metrics(folder, "train")]
        for folder in (whole, parts)
    ]
    assert bare[0] == bare[1]
    assert len(bare[0]) > 3
    assert all(torch.equal(a, b) for a, b in zip(*(checkpoint_of(f)["model"].values() for f in (whole, parts))))
    estimates = [json.loads((folder / "run.json").read_text())["final"]["estimates"] for folder in (whole, parts)]
    assert estimates[0] == estimates[1]


def test_series_are_listed_by_name(tmp_path):
    """The checkpoint and the record have them in an order of their own."""
    starts, names = {f"p{n}": 0.5 + 0.2 * n for n in range(12)}, [f"p{n}" for n in range(12)]
    t, rng = numpy.arange(10), numpy.random.default_rng(0)
    size = {name: 10 / (1 + (10 / y0 - 1) * numpy.exp(-t)) + 0.01 * rng.normal(size=10) for name, y0 in starts.items()}
    rows = [f"{name},{a},{b}" for name in names for a, b in zip(t, size[name])]
    (tmp_path / "own.csv").write_text("\n".join(["series,time,size", *rows]))
    words = ("model=fit", "model.field=logistic", "data=table", f"data.path={tmp_path / 'own.csv'}", *FAST)
    folder = train_run(tmp_path / "run", *words, "logger=none")
    record = json.loads((folder / "run.json").read_text())
    found, own = record["final"]["estimates"], record["data"]["series"]
    assert own != names
    assert [*found] == ["rate", "capacity", *(f"size(0) of {name}" for name in names)]
    assert [found[f"size(0) of {name}"]["value"] for name in names] == pytest.approx([*starts.values()], abs=0.03)

    run = trained(folder, load(folder), "best", 1)
    inferred = inference.infer(run.model, Observations(*next(iter(run.data.test.epoch(0)))))
    place = [0, 1, *(2 + own.index(name) for name in names)]
    assert numpy.array(record["final"]["correlation"]) == pytest.approx(inferred.correlation[place][:, place].numpy())
    listed = inferred._replace(combinations=[[2, 5]], bounds=torch.arange(14.0)).listed(place)
    assert listed.combinations == [sorted([place.index(2), place.index(5)])]
    assert listed.bounds.tolist() == place

    with numpy.load(folder / "figures" / "fit.npz") as arrays:
        first = arrays["values"][:, 0, 0]
        assert first == pytest.approx([size[name][0] for name in names[:8]], rel=1e-6)
        (figure,) = fit.draw(dict(arrays), read_run(folder)).values()
    assert [axes.get_title("left") for axes in figure.axes] == names[:8]
    assert predict.main([str(folder), f"out={tmp_path / 'out.csv'}"]) == 0
    assert polars.read_csv(tmp_path / "out.csv")["series"].unique(maintain_order=True).to_list() == names


def test_a_run_is_described_before_it_searches_for_a_start(train, tmp_path, monkeypatch, capsys):
    """The search may take half a minute; the run says what it found, and does not search again when it goes on."""
    search, printed = Fit.search_start, []

    def watched(self, problem, seed):
        printed.append(capsys.readouterr().out)
        return search(self, problem, seed)

    monkeypatch.setattr(Fit, "search_start", watched)
    words = logistic_table(tmp_path / "x.csv")
    train(config=_with(words, max_steps=2), name="run")
    assert printed[0].splitlines()[-1].startswith("folder:   ")
    assert "start:    initial values from integral matching\n" in capsys.readouterr().out
    train(config=_with(words), name="run")
    assert len(printed) == 1


def test_a_fit_that_has_converged_is_finished(train, tmp_path, capsys):
    words = logistic_table(tmp_path / "x.csv")
    folder = train(config=_with(words), name="run")
    before = (folder / "metrics.jsonl").read_bytes()
    train(config=_with(words), name="run")
    assert "already finished, nothing to do" in capsys.readouterr().out
    assert (folder / "metrics.jsonl").read_bytes() == before


def _with(words, **length):
    from odenet_cli.config.resolve import complete

    return complete(compose([*words, *(f"trainer.{key}={value}" for key, value in length.items())]), gpu=False)


def test_an_epidemic_that_begins_with_zeros(tmp_path):
    """Only the infected are counted, by days, and the first days count none."""
    steps = numpy.zeros((600, 3))
    steps[0] = 998, 0.3, 0
    for n in range(1, 600):  # Euler's method in tenths of a day is near enough to the truth for its tolerance
        s, i, r = steps[n - 1]
        new, gone = 0.05 * s * i / 998.3, 0.015 * i
        steps[n] = s - new, i + new - gone, r + gone
    rows = [f"2020-03-{1 + d:02d},{round(steps[10 * d, 1]) if d > 1 else 0}" for d in range(31)]
    rows += [f"2020-04-{1 + d:02d},{round(steps[310 + 10 * d, 1])}" for d in range(29)]
    (tmp_path / "cases.csv").write_text("\n".join(["date,cases", *rows]))
    words = ("model=fit", "model.field=sir", "data=table", f"data.path={tmp_path / 'cases.csv'}", "compile=false")
    folder = train_run(
        tmp_path / "run", *words, "model.observed=[infected]", "model.starts=16", "device=cpu", "solver.rtol=1e-6"
    )
    found = json.loads((folder / "run.json").read_text())["final"]["estimates"]
    assert [*found] == ["beta", "gamma", "susceptible(0)", "infected(0)"]
    assert found["beta"]["value"] == pytest.approx(0.5, rel=0.1)
    assert found["gamma"]["value"] == pytest.approx(0.15, rel=0.1)
    assert found["susceptible(0)"]["value"] == pytest.approx(998, rel=0.1)


def test_the_end_of_each_series_can_be_held_out(tmp_path, capsys):
    folder = train_run(tmp_path / "run", *logistic_table(tmp_path / "x.csv"), "data.test=0.25")
    final = json.loads((folder / "run.json").read_text())["final"]
    text = " ".join(capsys.readouterr().out.split())
    assert "data: table: 1 series, the first 75 % of it used for the fit, x measures size table:" in text
    assert final["observations"] == 15
    assert final["r2"] > 0.99
    assert 0.5 < final["r2_held_out"] < 1


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("model.field=null",), "model.field is missing: fitzhugh_nagumo, logistic, lotka_volterra"),
        (("optim=adam",), "optim=adam and model=fit cannot be combined"),
        (("solver.budget=500",), "solver.budget has no meaning for model=fit"),
        (("optim.weight_decay=0.1",), "optim.weight_decay=0.1 has no meaning for optim=lm"),
        (("data.window=0.4",), "data.window=0.4 has no meaning for model=fit"),
        (("data.split=series",), "data.split=series has no meaning for model=fit"),
        (("data.validation=0.2",), "a fit does not use validation data"),
        (("data.unit=d",), "only applies to dates"),
        (("+model.start.rate=-2",), "model.start.rate=-2 must be above 0"),
        (("model.field=logistics",), "Did you mean `logistic`"),
        (("model.observed=[size,size]",), "names 2 states, and the table has 1 column"),
        (("+model.field_args.a=1",), "options of your own field"),
    ],
)
def test_a_request_that_cannot_be_fitted_is_refused(tmp_path, words, part):
    with pytest.raises(RequestError) as error:
        check.check(_with((*logistic_table(tmp_path / "x.csv"), *words)))
    assert part in str(error.value)


def test_data_that_are_no_table_are_refused():
    with pytest.raises(RequestError, match="model=fit needs a table"):
        check.check(_with(("model=fit", "model.field=logistic", "data=spirals")))


@pytest.mark.parametrize(("name", "part"), [("Wide", "oscillators:Wide"), ("Branch", "without branches on numbers")])
def test_a_field_that_cannot_be_fitted_is_refused(oscillation, name, part):
    with pytest.raises(RequestError, match=part):
        check.check(_with((*oscillation, f"model.field=oscillators:{name}")))


def test_a_check_of_gradients_is_refused(tmp_path):
    folder = train_run(tmp_path / "run", *logistic_table(tmp_path / "x.csv"))
    with pytest.raises(RequestError, match="no gradient through a solve"):
        needs_solver(folder, load(folder))


def test_a_fit_that_was_cut_off_says_so(tmp_path):
    folder = train_run(tmp_path / "run", *logistic_table(tmp_path / "x.csv"), "model.starts=1", "trainer.max_steps=2")
    final = json.loads((folder / "run.json").read_text())["final"]
    assert final["offset"] > 0.01
    assert final["warnings"][0].startswith("the fit has not converged")
    # The first step of the linear model makes the rate 4e48, and damped steps 8e4 or so: the field is not tried there.
    assert final["nfe_forward"] < 1000


def test_faults_of_the_table_leave_no_folder(odenet, tmp_path):
    """Too few rows for the parameters, and a cell that is no number: exit 2, and nothing is written."""
    logistic_table(tmp_path / "few.csv", n=3)
    few = odenet("train", "model=fit", "model.field=logistic", "data=table", "data.path=few.csv")
    assert few.returncode == 2
    assert "3 observed values do not determine 3 numbers (rate, capacity, size(0))" in few.stderr
    (tmp_path / "bad.csv").write_text("time,x\n0,1\n1,inf\n2,3\n")
    bad = odenet("train", "model=fit", "model.field=logistic", "data=table", "data.path=bad.csv")
    assert bad.returncode == 2
    assert "line 3" in bad.stderr
    assert not os.path.exists(tmp_path / "runs") or not any((tmp_path / "runs").rglob("run.json"))
