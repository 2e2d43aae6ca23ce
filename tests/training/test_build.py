"""`compile=auto` compiles where that pays and there is a compiler; `compile=true` without one is refused."""

import math

import pytest
import torch

from odenet_cli import data as datasets
from odenet_cli import models
from odenet_cli.config.presets import options, preset
from odenet_cli.config.resolve import complete
from odenet_cli.config.schema import Config
from odenet_cli.data import shape
from odenet_cli.errors import RequestError
from odenet_cli.ode import Adaptive
from odenet_cli.request.compose import compose
from odenet_cli.training import build, measured
from odenet_cli.training import check as check_module
from odenet_cli.training.check import check

CNF = ("model=cnf", "data=moons", "device=cpu")
LATENT = ("model=latent_ode", "device=cpu")
NOTHING = "a compiler, and there is none. Install one"


@pytest.fixture(autouse=True)
def _search(monkeypatch):
    """A compiler that is there without looking, and a warning not yet given."""
    monkeypatch.setattr(build, "missing_compiler", lambda: None)
    check_module._warn_eager.cache_clear()


def configure(*words):
    return complete(compose(list(words)), gpu=False)


def ways(*words):
    """How each solve of the model would be made: False eagerly, True compiled."""
    config = configure(*words)
    with torch.device("meta"):
        network = build.model(config, *shape(*config.source()))
    return {module.solver.compile for module in models.solvers(network)}


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (("trainer.steps=7000",), 7000),
        (("trainer.steps=7000", "trainer.max_steps=50"), 50),
        (("trainer.steps=50", "trainer.max_steps=7000"), 50),
        (("trainer.epochs=70",), 7000),
        (("trainer.epochs=70", "trainer.limit_batches=5"), 350),
        (("trainer.epochs=70", "trainer.limit_batches=500"), 7000),
        (("trainer.epochs=70", "trainer.max_steps=50"), 50),
    ],
)
def test_the_steps_that_will_be_made_decide(words, steps):
    assert build.planned_steps(configure(*CNF, *words)) == steps
    assert ways(*CNF, *words) == {steps >= measured.steps_to_earn("backprop", convolves=False)}


def test_the_gain_of_a_step_says_how_many_earn_back_the_compilation(monkeypatch):
    """Of the gradient's own workloads the median gain counts; what was not measured gains as the others do."""
    times = {
        ("backprop", False): [(30, 10), (50, 40), (9, 5)],
        ("replay", False): [(80, 50)],
        ("backprop", True): [(5, 6)],
    }
    rows = [
        {"gradient": gradient, "convolves": convolves, "plain_ms": plain, "compiled_ms": compiled}
        for (gradient, convolves), pairs in times.items()
        for plain, compiled in pairs
    ]
    monkeypatch.setattr(measured, "measurements", lambda: {"compile": {"compilation_s": 60, "rows": rows}})
    assert measured.steps_to_earn("backprop", convolves=False) == 6000  # 10 ms a step
    assert measured.steps_to_earn("replay", convolves=False) == 2000
    assert measured.steps_to_earn("adjoint", convolves=False) == 4000  # between 10 and 20 ms
    assert measured.steps_to_earn("backprop", convolves=True) == math.inf


def test_the_backward_solve_of_images_is_what_was_measured_to_be_enough():
    """The recipe of all data of images is the solve that evaluates least of those whose gradient is, at all weights, no
    further from the equation's than the exact gradient of the forward steps: the forward solve errs by as much."""
    rows = measured.measurements()["backward"]["rows"]
    assert {row["step"] for row in rows} > {0}
    by_solve = {}
    for row in rows:
        by_solve.setdefault((row["method"], row["rtol"]), []).append(row)
    enough = {key: same for key, same in by_solve.items() if all(row["error"] <= row["replay_error"] for row in same)}
    best = min(enough, key=lambda key: sum(row["nfe_backward"] for row in enough[key]))
    recipes = {name: (preset("data", name).get("recipe") or {}).get("gradient") for name in options("data")}
    found = {name: (recipe["method"], recipe["rtol"]) for name, recipe in recipes.items() if recipe}
    assert "mnist" in found
    assert found == dict.fromkeys(found, best)


def test_an_epoch_of_images_is_not_known():
    words = ("model=odenet", "data=mnist", "device=cpu")
    assert build.planned_steps(configure(*words)) == 0
    assert build.planned_steps(configure(*words, "trainer.steps=9000", "trainer.max_steps=8000")) == 8000


@pytest.mark.parametrize(
    "words",
    [
        (*CNF, "solver=adams"),
        (*CNF, "gradient=adjoint", "gradient.solver.method=adams"),
        (*CNF, "gradient=reversible"),
        (*CNF, "compile=false"),
        ("model=odenet", "data=digits", "device=cpu"),
    ],
)
def test_auto_leaves_alone_what_cannot_be_compiled_or_would_not_pay(words):
    assert ways(*words, "trainer.steps=7000") == {False}


def test_auto_does_without_a_compiler_and_says_so_once(monkeypatch, caplog):
    assert ways(*LATENT) == {True}
    check(configure(*LATENT))
    assert not caplog.records
    monkeypatch.setattr(build, "missing_compiler", lambda: NOTHING)
    assert ways(*LATENT) == {False}
    for words in (LATENT, (*LATENT, "seed=1"), (*LATENT, "trainer.max_steps=5"), (*LATENT, "compile=false")):
        check(configure(*words))
    (line,) = [record.getMessage() for record in caplog.records]
    assert "compile=auto" in line
    assert NOTHING in line
    assert "\n" not in line


def test_auto_says_nothing_of_a_short_run(monkeypatch, caplog):
    monkeypatch.setattr(build, "missing_compiler", lambda: pytest.fail("it looked for a compiler"))
    check(configure(*LATENT, "trainer.max_steps=5"))
    assert not caplog.records


@pytest.mark.parametrize("way", ["true", "loop"])
def test_compilation_asked_for_needs_a_compiler(monkeypatch, way):
    check(configure(*CNF, f"compile={way}"))
    monkeypatch.setattr(build, "missing_compiler", lambda: NOTHING)
    with pytest.raises(RequestError, match=rf"compile={way} needs a compiler.*\n.*compile=false"):
        check(configure(*CNF, f"compile={way}"))
    check(configure("model=mlp", "data=digits", "device=cpu", f"compile={way}"))  # it solves nothing


@pytest.mark.parametrize("raised", ["InvalidCxxCompiler", "PermissionError"])
def test_torchs_own_search_decides(monkeypatch, raised):
    from torch._inductor import cpp_builder, exc

    def search():
        raise getattr(exc, raised, PermissionError)

    monkeypatch.undo()
    build.missing_compiler.cache_clear()
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", search)
    assert "Install g++" in build.missing_compiler()
    build.missing_compiler.cache_clear()
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: "clang++")
    assert "compiler" not in (build.missing_compiler() or "")
    build.missing_compiler.cache_clear()


def test_pythons_headers_are_needed_too(monkeypatch, tmp_path):
    """A system's own Python often comes without them."""
    from torch._inductor import cpp_builder

    monkeypatch.undo()
    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", lambda: "g++")
    monkeypatch.setattr(build.sysconfig, "get_path", lambda name: str(tmp_path))
    build.missing_compiler.cache_clear()
    assert str(tmp_path / "Python.h") in build.missing_compiler()
    (tmp_path / "Python.h").touch()
    build.missing_compiler.cache_clear()
    assert build.missing_compiler() is None
    build.missing_compiler.cache_clear()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("data", ["digits", "moons", "u1", "spirals", "poisson"])
def test_models_that_fit_the_data_can_be_built_for_them(data):
    """No model that is listed for a task refuses its data; the others are refused before they are built."""
    task, given = (
        datasets.task(data, {}),
        {k: v for k, v in preset("data", data).items() if k not in ("name", "recipe")},
    )
    fitting, solver = check_module.models_for(task), Adaptive(method="dopri5", rtol=1e-3, atol=1e-3)
    assert fitting
    input_shape, classes = shape(data, given)
    for model in fitting:
        content = preset("model", model, data=data)
        chosen = dict(content.get("model", content))
        with torch.device("meta"):
            models.model(chosen.pop("name"), chosen, shape=input_shape, classes=classes, solver=solver)
    other = next(name for name in ("mlp", "cnf") if name not in fitting)
    with pytest.raises(RequestError, match=rf"model={other} and data={data} cannot be combined"):
        check_module.check_task(Config(model={"name": other}, data={"name": data}))


@pytest.mark.parametrize(
    ("name", "asked"), [("rknet-dopri5", "rknet"), ("odenet-dopri5", "odenet"), ("mine", "odenet")]
)
def test_a_refusal_names_the_model_as_it_was_asked_for(name, asked):
    """`rknet` is a preset of the network `odenet`."""
    with pytest.raises(RequestError, match=rf"^model={asked} and data=moons cannot be combined"):
        check_module.check_task(Config(name=name, model={"name": "odenet"}, data={"name": "moons"}))
