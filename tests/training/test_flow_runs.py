"""Runs of flows: scored more accurately than they are trained, and failed where a score cannot be true."""

import json
import sys

import numpy
import pytest
import torch

from odenet_cli.config.check import warnings
from odenet_cli.config.resolve import complete, eval_solver
from odenet_cli.config.saved import load
from odenet_cli.errors import RequestError, RunFailed
from odenet_cli.models.planar import Planar
from odenet_cli.report import pictures
from odenet_cli.request.compose import compose
from odenet_cli.training.check import check
from odenet_cli.training.evaluate import evaluate

SHORT = ("trainer.epochs=null", "trainer.steps=3", "trainer.limit_batches=1", "trainer.batch_size=32", "compile=false")
PLANAR = ("model=planar", "model.layers=2", *SHORT)
CNF = ("model=cnf", "model.units=2", "model.hidden=4", *SHORT)


def record(folder):
    return json.loads((folder / "run.json").read_text())


@pytest.mark.parametrize(("words", "data"), [(PLANAR, "moons"), (PLANAR, "u1"), (CNF, "moons"), (CNF, "u1")])
def test_a_run(train, metrics, words, data):
    folder = train(*words, f"data={data}")
    kept, task = record(folder), "density" if data == "u1" else "likelihood"
    score, more = ("kl", ("outside",)) if data == "u1" else ("gap", ("nll", "round_trip"))
    assert kept["status"] == "done"
    assert kept["final"][score] > 0
    assert {f"{score if data == 'u1' else 'nll'}_se", *more} <= kept["final"].keys()
    assert (kept["final"]["nfe_forward"] > 0) == (words is CNF)
    name = "kl" if data == "u1" else "nll"  # 200 samples were scored, one batch
    assert kept["final"][f"{name}_se"] == pytest.approx(kept["final"][f"{name}_sd"] / 200**0.5)
    assert {one["split"] for one in metrics(folder)} == {"train", "valid", "test"}
    with numpy.load(folder / "figures" / f"{task}.npz") as arrays:
        assert arrays["density"].shape == (6, 6, 6)
        assert arrays["particles"].shape == (6, 50, 2)
        assert arrays["paths"].shape == (5, 3, 2)
        assert all(numpy.isfinite(arrays[name]).all() for name in arrays)


@pytest.mark.numerics
@pytest.mark.parametrize("data", ["circles", "gaussians8", "checkerboard", "pinwheel", "u2", "u3", "u4"])
def test_every_target_can_be_trained_on_and_drawn(train, data):
    folder = train(*PLANAR, f"data={data}")
    kept = record(folder)
    assert kept["status"] == "done"
    assert ("gap" in kept["final"]) == (data not in ("u2", "u3", "u4"))
    (drawn,) = (folder / "figures").glob("*.npz")
    with numpy.load(drawn) as arrays:
        assert numpy.isfinite(arrays["target"]).all()
    assert {"paths.png", "paths.svg"} < {path.name for path in pictures.write(folder)}


OWN = """
import torch
class Field(torch.nn.Module):
    def __init__(self, width: int = 4):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.Tanh(), torch.nn.Linear(width, 2))
    def forward(self, t, z):
        return self.net(torch.cat((z, t.expand(len(z), 1)), 1))
class Bare(torch.nn.Module):
    def forward(self, t, z):
        return -z
class Narrow(Field):
    def forward(self, t, z):
        return super().forward(t, z)[:, :1]
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_field.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield ("model=custom", "optim=adam", "solver.rtol=1e-3", *SHORT)
    sys.modules.pop("own_field", None)


@pytest.mark.parametrize(
    ("words", "data"),
    [
        (("model.divergence=exact", "gradient=backprop"), "moons"),
        (("model.divergence=exact", "gradient=replay"), "moons"),
        (("model.divergence=exact", "gradient=adjoint"), "moons"),
        (("model.divergence=exact", "gradient=adjoint"), "u1"),
        (("model.divergence=hutchinson", "gradient=backprop"), "u1"),
        (("model.divergence=hutchinson", "gradient=adjoint", "model.noise=gaussian"), "moons"),
    ],
)
def test_every_divergence_trains(train, words, data):
    kept = record(train(*CNF, *words, f"data={data}", "eval.dtype=float32", "eval.solver.rtol=1e-3"))
    assert kept["status"] == "done"
    assert kept["final"]["saved_mib"] > 0


def test_the_exact_divergence_trains_as_the_analytic_one(train, metrics):
    losses = [
        [
            row["loss"]
            for row in map(json.loads, (train(*CNF, *words, "data=moons", name=f"{n}") / "metrics.jsonl").open())
        ]
        for n, words in enumerate([("dtype=float64",), ("dtype=float64", "model.divergence=exact")])
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


@pytest.mark.parametrize("more", [(), ("+model.divergence=hutchinson", "+model.width=3", "+model.horizon=2.0")])
@pytest.mark.parametrize("data", ["moons", "u1"])
def test_a_field_of_ones_own_is_a_flow(train, own, data, more):
    kept = record(train(*own, "model.target=own_field:Field", f"data={data}", "eval.solver.rtol=1e-3", *more))
    assert kept["status"] == "done"
    assert numpy.isfinite(kept["final"]["loss"])


def test_an_option_of_neither_the_field_nor_the_flow_is_refused(own):
    words = [*own, "model.target=own_field:Field", "data=moons", "device=cpu"]
    with pytest.raises(RequestError, match=r"model\.wide is not an option"):
        check(complete(compose([*words, "+model.wide=3"]), gpu=False))
    with pytest.raises(RequestError, match=r"model\.horizon='long' is not a number"):
        check(complete(compose([*words, "+model.horizon=long"]), gpu=False))


@pytest.mark.parametrize(
    ("target", "part"), [("Narrow", r"z \(2, 2\)\), the field returned \(2, 1\)"), ("Bare", "has no parameters")]
)
def test_a_field_that_cannot_be_trained_is_refused(own, target, part):
    words = [*own, f"model.target=own_field:{target}", "data=moons", "device=cpu"]
    with pytest.raises(RequestError, match=part):
        check(complete(compose(words), gpu=False))


def test_the_recipe_says_how_to_score_and_the_run_keeps_it(train):
    config = load(train(*PLANAR, "data=moons"))
    assert (config.dtype, config.eval.dtype) == ("float32", "float64")
    assert (eval_solver(config).method, eval_solver(config).rtol, eval_solver(config).atol) == ("dopri5", 1e-7, 1e-7)
    assert config.solver.rtol == 1e-5


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", ("dopri5", 1e-7, 1e-7, None, "float64")),
        ("solver=rk4", ("dopri5", 1e-7, 1e-7, None, "float64")),
        ("solver.rtol=1e-3 eval.batch_size=50", ("dopri5", 1e-7, 1e-7, None, "float64")),
        ("eval.dtype=float64", ("dopri5", 1e-7, 1e-7, None, "float64")),
        ("eval.dtype=float32", ("dopri5", 1e-7, 1e-7, None, "float32")),
        ("solver=rk4 eval.dtype=float64", ("dopri5", 1e-7, 1e-7, None, "float64")),
        ("eval.solver.max_steps=100000", ("dopri5", 1e-7, 1e-7, None, "float64")),
        ("eval.solver.rtol=1e-8", ("dopri5", 1e-8, 1e-8, None, "float64")),
        ("eval.solver.rtol=1e-9", ("dopri5", 1e-9, 1e-9, None, "float64")),
        ("eval.solver.atol=1e-9", ("dopri5", 1e-7, 1e-9, None, "float64")),
        ("solver=rk4 eval.solver.rtol=1e-8", ("dopri5", 1e-8, 1e-8, None, "float64")),
        ("eval.solver.rtol=1e-4 eval.dtype=float32", ("dopri5", 1e-4, 1e-4, None, "float32")),
        ("eval.solver.method=dopri8", ("dopri8", 1e-7, 1e-7, None, "float64")),
        ("solver=tsit5 eval.solver.method=tsit5", ("tsit5", 1e-7, 1e-7, None, "float64")),
        ("eval.solver.method=rk4", ("rk4", None, None, 4, "float64")),
        ("eval.solver.method=rk4 eval.solver.steps=9", ("rk4", None, None, 9, "float64")),
        ("solver=rk4 solver.steps=9 eval.solver.method=rk4", ("rk4", None, None, 9, "float64")),
        ("solver=rk4 eval.solver.steps=9", ("rk4", None, None, 9, "float64")),
    ],
)
def test_what_is_not_said_of_scoring_is_the_recipes(words, expected):
    asked = compose(["model=cnf", "data=moons", *words.split()])
    config = complete(asked, gpu=False)
    solver = eval_solver(config)
    assert (solver.method, solver.rtol, solver.atol, solver.steps, config.eval.dtype) == expected
    assert eval_solver(asked) == solver
    assert solver.max_steps == (100_000 if "max_steps" in words else config.solver.max_steps)
    assert complete(config, gpu=False) == config
    assert warnings(config) == warnings(asked)
    assert bool(warnings(asked)) is (words == "eval.dtype=float32")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("eval.solver.steps=9", r"eval\.solver\.steps=9 cannot be used with dopri5"),
        (
            "eval.solver.method=rk4 eval.solver.rtol=1e-3",
            r"eval\.solver\.rtol=0\.001.* cannot be used with rk4: it takes fixed steps",
        ),
        ("eval.solver.rtol=1e-10 eval.dtype=float32", r"far below the resolution of float32: use eval\.dtype=float64"),
        ("data.recipe.eval.dtype=half", r"eval\.dtype=half is not known"),
    ],
)
def test_scoring_that_does_not_fit_together_is_refused(words, said):
    with pytest.raises(RequestError, match=said):
        compose(["model=cnf", "data=moons", *words.split()])


def test_a_model_is_scored_in_the_precision_asked_for_and_keeps_its_own():
    seen, net = [], torch.nn.Linear(2, 1)

    def loss(model, batch):
        seen.append((model.weight.dtype, batch[0].dtype, model.training))
        return model(batch[0]).mean(), {}

    class Split:
        def __len__(self):
            return 1

        def epoch(self, _):
            yield torch.ones(3, 2), torch.arange(3)

    evaluate(net, loss, Split(), dtype=torch.float64)
    evaluate(net, loss, Split())
    assert seen == [(torch.float64, torch.float64, False), (torch.float32, torch.float32, False)]
    assert net.training
    assert net.weight.dtype == torch.float32


@pytest.mark.parametrize("data", ["moons", "u1"])
def test_a_score_far_below_its_floor_fails_the_run(train, tmp_path, monkeypatch, data):
    log_prob, generate = Planar.log_prob, Planar.generate
    monkeypatch.setattr(Planar, "log_prob", lambda self, x, time=1.0: log_prob(self, x, time) + 1e3)
    monkeypatch.setattr(Planar, "generate", lambda self, z: (generate(self, z)[0], generate(self, z)[1] - 1e4))
    with pytest.raises(RunFailed, match="below"):
        train(*PLANAR, f"data={data}")
    kept = record(tmp_path / "run")
    assert kept["status"] == "failed"
    assert "eval.dtype=float64" in kept["reason"]


@pytest.mark.parametrize("below", [2.9, 3.1])
@pytest.mark.parametrize("task", ["density", "likelihood"])
def test_three_standard_errors_below_the_floor_are_too_many(task, below):
    from odenet_cli.tasks import optional

    class Data:
        class test:
            rows = (torch.zeros(1, 2),)

    name = "kl" if task == "density" else "gap"
    scores = {name: -below * 0.02, f"{name if task == 'density' else 'nll'}_sd": 2.0}
    more, complaint = optional(task, "sanity_check")(torch.nn.Identity(), Data, scores, 10_000)
    assert more == {"kl_se" if task == "density" else "nll_se": 0.02}
    assert (complaint is None) == (below < 3)


@pytest.mark.parametrize("model", ["cnf", "planar"])
def test_images_are_refused(model):
    with pytest.raises(RequestError, match=rf"model={model} and data=digits cannot be combined.*no forward"):
        check(compose([f"model={model}", "data=digits", "device=cpu"]))


@pytest.mark.parametrize("data", ["moons", "u1"])
def test_a_classifier_is_no_flow(data):
    with pytest.raises(RequestError, match="use model=cnf, planar, or a class of your own"):
        check(compose(["model=mlp", f"data={data}", "device=cpu"]))
