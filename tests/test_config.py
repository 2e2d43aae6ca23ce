"""What a configuration leaves open is filled in, and what it cannot mean is refused."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import odenet_cli
from odenet_cli.config.check import warnings
from odenet_cli.config.presets import adaptive, groups, headline, options, preset
from odenet_cli.config.resolve import changed, complete, eval_solver, gradient_solver
from odenet_cli.config.saved import load, read_saved, save
from odenet_cli.config.schema import SolverChange
from odenet_cli.errors import RequestError
from odenet_cli.request.compose import compose


@pytest.mark.parametrize("name", options("solver"))
def test_every_solver_preset_composes(name):
    config = compose([f"solver={name}"])
    assert config.solver.method == name
    assert (config.solver.rtol is not None) is adaptive(name)
    assert (config.solver.steps is None) is adaptive(name)


def test_one_thing_has_one_name():
    methods = Path(odenet_cli.__file__).parent / "ode" / "methods"
    assert options("solver") == sorted(path.stem for path in methods.glob("[a-z]*.py"))
    assert all(headline(group, name) for group in groups() for name in options(group))


def test_a_preset_may_be_based_on_another():
    """It is read as Hydra reads it."""
    expected = {**preset("data", "table"), "name": "csv"}
    assert preset("data", "csv") == expected
    assert {**compose(["model=rnn", "data=csv", "data.path=x"]).data, "path": None} == expected


def test_a_preset_looks_at_the_recipe_of_the_data_it_is_told():
    assert [preset("solver", "bosh3", data=data)["rtol"] for data in (None, "digits", "moons")] == [1e-3, 1e-3, 1e-5]
    with pytest.raises(RequestError, match="data=moon is not known"):
        preset("solver", "bosh3", data="moon")


@pytest.mark.parametrize(
    ("words", "data", "gpu", "expected"),
    [
        ("data=mnist", None, True, (160, 128, 0.1)),
        ("data=mnist", None, False, (3, 128, 0.1)),
        ("data=digits", None, True, (14, 8, 0.05)),
        ("data=auto", "digits", False, (14, 8, 0.05)),
        ("data=auto", "mnist", False, (3, 128, 0.1)),
        ("data=digits optim=adam", None, False, (14, 8, 1e-3)),
        ("data=digits optim.lr=2 trainer.epochs=4 trainer.batch_size=5", None, False, (4, 5, 2.0)),
        ("data=digits trainer.steps=7", None, False, (None, 8, 0.05)),
    ],
)
def test_the_recipe_fills_only_what_is_open(words, data, gpu, expected):
    config = complete(compose(words.split()), gpu=gpu, data=data)
    assert (config.trainer.epochs, config.trainer.batch_size, config.optim.lr) == expected
    assert "recipe" not in config.data


@pytest.mark.parametrize("words", ["+data.recipe.learning_rate=0.1", "+data.recipe.gradient.tol=0.1"])
def test_a_recipe_with_a_key_that_nothing_reads_is_refused(words):
    with pytest.raises(RequestError, match=r"data\.recipe(\.gradient)?=(learning_rate|tol) is not known"):
        complete(compose(["data=digits", words]), gpu=False)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("data=digits", ("bosh3", 3e-2)),
        ("data=mnist", ("bosh3", 3e-2)),
        ("data=mnist solver=adams", ("bosh3", 3e-2)),
        ("data=mnist solver.rtol=1e-5", ("bosh3", 3e-2)),
        ("data=digits solver.rtol=1e-1", ("bosh3", 1e-1)),
        ("data=digits gradient.solver.rtol=1e-4", ("dopri5", 1e-4)),
        ("data=digits gradient.solver.method=dopri5", ("dopri5", 1e-3)),
        ("data=digits gradient.solver.max_steps=50", ("dopri5", 1e-3)),
        ("data=digits gradient.norm=absolute", ("dopri5", 1e-3)),
        ("data=digits gradient=backprop", ("dopri5", 1e-3)),
        ("data=digits solver=rk4", ("rk4", None)),
    ],
)
def test_the_backward_solve_of_the_adjoint_is_the_recipes_unless_said(words, expected):
    solver = gradient_solver(complete(compose(words.split()), gpu=False))
    assert (solver.method, solver.rtol) == (solver.method, solver.atol) == expected


def test_a_group_with_a_sign_is_a_preset_too():
    """As Hydra has it: one that may be absent is taken away, and one that is there is not chosen again."""
    assert compose(["~experiment", "model=mlp"]) == compose(["model=mlp"])
    with pytest.raises(RequestError, match="experiment is given more than once"):
        compose(["+experiment=tolerance"])


def test_auto_passes_its_options_on():
    config = compose(["data=auto", "data.root=/x", "data.validation=10"])
    assert complete(config, gpu=False, data="digits").data == {"name": "digits", "crop": 2, "validation": 10}
    mnist = {"name": "mnist", "root": "/x", "download": "auto", "crop": 4, "validation": 10}
    assert complete(config, gpu=False, data="mnist").data == mnist


def test_the_eval_solver_is_trainings_with_changes():
    config = compose(["solver.rtol=1e-2", "solver.max_steps=77"])
    assert eval_solver(config) == gradient_solver(config) == config.solver

    tighter = changed(config.solver, SolverChange(rtol=1e-6))
    assert (tighter.rtol, tighter.atol) == (1e-6, 1e-6)  # one number moves both

    fixed = changed(config.solver, SolverChange(method="rk4"))
    assert (fixed.method, fixed.rtol, fixed.steps) == ("rk4", None, preset("solver", "rk4")["steps"])
    assert fixed.max_steps == 77

    back = changed(fixed, SolverChange(method="bosh3", atol=1e-9))
    assert (back.rtol, back.atol, back.steps) == (1e-3, 1e-9, None)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("solver.rtol=1e-5 gradient.solver.method=bosh3", (1e-5, 1e-5, None)),
        ("solver.rtol=1e-5 solver.atol=1e-7 gradient.solver.method=bosh3", (1e-5, 1e-7, None)),
        ("solver.rtol=1e-5 gradient.solver.method=bosh3 gradient.solver.rtol=1e-2", (1e-2, 1e-2, None)),
        ("solver.rtol=1e-5 gradient.solver.method=bosh3 gradient.solver.atol=1e-8", (1e-5, 1e-8, None)),
        ("solver.rtol=1e-5 gradient.solver.method=rk4", (None, None, preset("solver", "rk4")["steps"])),
        ("solver=rk4 solver.steps=7 gradient.solver.method=bosh3", (1e-3, 1e-3, None)),
        ("solver=rk4 solver.steps=7 gradient.solver.method=euler", (None, None, 7)),
    ],
)
def test_the_backward_solve_keeps_of_the_forward_one_what_its_method_has_a_use_for(words, expected):
    config = compose(["data=mnist", "solver.max_steps=77", *words.split()])
    for one in (config, complete(config, gpu=False)):
        solver = gradient_solver(one)
        assert (solver.rtol, solver.atol, solver.steps) == expected
        assert (solver.method, solver.max_steps) == (one.gradient.solver.method, 77)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("solver.rtol=1e-5 eval.solver.method=bosh3", (1e-3, 1e-3, None)),
        ("solver.rtol=1e-5 eval.solver.method=rk4", (None, None, preset("solver", "rk4")["steps"])),
        ("solver=rk4 solver.steps=7 eval.solver.method=bosh3", (1e-3, 1e-3, None)),
        ("solver=rk4 solver.steps=7 eval.solver.method=euler", (None, None, preset("solver", "euler")["steps"])),
    ],
)
def test_another_method_to_score_with_brings_its_preset(words, expected):
    solver = eval_solver(compose(["data=mnist", *words.split()]))
    assert (solver.rtol, solver.atol, solver.steps) == expected


@pytest.mark.parametrize(
    ("words", "unused"),
    [
        (
            "optim.schedule=cosine optim.milestones=[0.5]",
            "optim.milestones=[0.5] has no meaning for optim.sch",
        ),
        ("optim.schedule=onecycle optim.decay=0.5", "optim.decay=0.5 has no meaning for optim.schedule=onecycle"),
        ("optim=adam optim.decay=0.5", "optim.decay=0.5 has no meaning for a schedule without milestones"),
        ("optim=adam optim.decay=0.5 optim.milestones=[0.5]", None),
        ("optim.schedule=cosine", None),
        ("optim.schedule=cosine optim.milestones=[]", None),
        ("optim.milestones=[0.5] optim.decay=0.5", None),
        ("optim.milestones=[]", None),
    ],
)
def test_what_a_schedule_does_not_use_is_told(words, unused):
    (*told,) = warnings(compose(["data=mnist", "model=mlp", *words.split()]))
    assert [text.startswith(str(unused)) for text in told] == ([True] if unused else [])


def test_milestones_of_a_models_preset_are_no_ones_own():
    words = ["model=cnf", "data=moons", "optim.schedule=cosine"]
    assert list(warnings(compose(words))) == []
    (told,) = warnings(compose([*words, "optim.milestones=[0.5]"]))
    assert told.startswith("optim.milestones=[0.5] has no meaning for optim.schedule=cosine")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", ("dopri8", 1e-8, 1e-8)),
        ("solver=dopri5", ("dopri5", 1e-8, 1e-8)),
        ("solver.rtol=1e-5", ("dopri8", 1e-5, 1e-5)),
        ("solver=heun", ("heun", None, None)),
    ],
)
def test_a_fit_asks_for_a_tolerance_where_the_solver_has_one(words, expected):
    solver = compose(["model=fit", "data=table", *words.split()]).solver
    assert (solver.method, solver.rtol, solver.atol) == expected


def test_a_tolerance_below_the_resolution_warns():
    assert not warnings(compose(["solver.rtol=1e-6"]))
    assert "float32" in warnings(compose(["solver.rtol=1e-8"]))[0]
    assert not warnings(compose(["solver.rtol=1e-12", "dtype=float64"]))
    for key in ("", "eval."):
        with pytest.raises(RequestError, match=rf"float32: use {re.escape(key)}dtype=float64"):
            compose([f"{key}solver.rtol=1e-10"])


def test_a_config_survives_its_file(tmp_path):
    config = complete(compose(["data=digits", "seed=3", "optim.lr=1e30"]), gpu=False)
    save(config, tmp_path, tied=True)
    assert load(tmp_path) == config
    save(replace(config, resume="auto"), tmp_path, tied=False)
    assert load(tmp_path).resume == "none"


def test_a_broken_file_is_refused(tmp_path):
    with pytest.raises(RequestError, match=r"config\.yaml"):
        load(tmp_path)
    (tmp_path / "config.yaml").write_text("solver: {rtol: abc}\n")
    with pytest.raises(RequestError, match=r"config\.yaml"):
        load(tmp_path)


def test_a_file_of_a_run_names_the_run(tmp_path):
    (tmp_path / "config.yaml").write_text("a: 1\n")
    for part in ("run.json", "checkpoints/best.pt"):
        with pytest.raises(RequestError, match=f"is not the folder of a run(.|\n)*It is part of the run {tmp_path}\\."):
            load(tmp_path / part)


def test_what_is_saved_and_cannot_be_read_is_named(tmp_path, monkeypatch):
    def endless(*_, **__):
        raise RecursionError

    (tmp_path / "config.yaml").write_text("a: {b: '${c}'}\nc: {d: '${a}'}\n")
    with pytest.raises(RequestError, match=r"config\.yaml: RecursionError raised while resolving"):
        read_saved(tmp_path)
    with monkeypatch.context() as patched:  # where OmegaConf is deep in something else it comes as it is
        patched.setattr(OmegaConf, "to_container", endless)
        with pytest.raises(RequestError, match=r"config\.yaml contains a reference that leads back to itself"):
            read_saved(tmp_path)
    with pytest.raises(RequestError, match=r"config\.yaml cannot be read: File name too long"):
        read_saved(tmp_path / ("x" * 300))
    assert read_saved(tmp_path / "nowhere") == {}


COUNT = """
import sys
from odenet_cli import cli
calls = []
def note(frame, event, _):
    if event == "call" and frame.f_code.co_name == "check" and frame.f_code.co_filename.endswith("config/check.py"):
        calls.append(frame.f_back.f_code.co_name)
    if event == "call" and frame.f_code.co_name == "load_configuration":
        calls.append("composed")
sys.setprofile(note)
code = cli.main()
sys.setprofile(None)
print(code, *calls)
print([name for name in ("sklearn", "scipy", "sympy", "triton", "torch._dynamo") if name in sys.modules])
"""


@pytest.mark.numerics
def test_a_run_composes_its_config_once_and_checks_it_twice(tmp_path):
    """Checked once before the run starts, and once in the job, which in a sweep may be another process.

    Of what takes long to import, and a run does without, nothing is.
    """
    words = ["train", "data=digits", "device=cpu", "model=odenet", "model.width=8", "trainer.max_steps=1"]
    words += ["trainer.limit_batches=1", "solver=euler", "solver.steps=1"]
    done = subprocess.run([sys.executable, "-c", COUNT, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines()[-2:] == ["0 composed to_config to_config", "[]"]
