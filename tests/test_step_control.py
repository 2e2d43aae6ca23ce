"""What a command line says of an adaptive method's steps reaches the solver, or is refused by name."""

from __future__ import annotations

import math

import pytest
import torch

from odenet_cli.analysis.audit import solvers_to_try
from odenet_cli.config.resolve import changed, complete, eval_solver, gradient_solver
from odenet_cli.config.saved import load, save
from odenet_cli.config.schema import CONTROLLERS, STEP_CONTROL, Config, SolverChange
from odenet_cli.errors import RequestError
from odenet_cli.ode import Adaptive
from odenet_cli.ode.control import GAINS
from odenet_cli.reproduce.plan import digest
from odenet_cli.request.compose import compose
from odenet_cli.training import build

SAID = {
    "controller": "PI", "first_step": 0.01, "min_step": 1e-6, "max_step": 0.05, "jumps": [3.0, 3.1],
}  # fmt: skip
WORDS = ["solver=dopri5", *[f"solver.{key}={value}".replace(" ", "") for key, value in SAID.items()]]


def control(solver):
    return {key: getattr(solver, key) for key in STEP_CONTROL}


def pulse(t, y):
    """y' = 1 between 3 and 3.1, else 0."""
    return ((t >= 3.0) & (t < 3.1)).to(y).expand_as(y)


@pytest.mark.parametrize(
    ("words", "area"), [([], 0.0), (["solver.max_step=0.05"], 0.1), (["solver.jumps=[3,3.1]"], 0.1)]
)
def test_a_pulse_that_is_stepped_over_is_caught_from_the_command_line(words, area):
    solve = build.solver(compose(["solver=dopri5", "solver.rtol=1e-5", *words]).solver)
    y = solve(pulse, torch.zeros(1, dtype=torch.float64), [0.0, 10.0]).y
    assert y.item() == pytest.approx(area, abs=1e-2)


def test_every_key_reaches_the_solver():
    solve = build.solver(compose(WORDS).solver)
    assert isinstance(solve, Adaptive)
    assert {**control(solve), "jumps": list(solve.jumps)} == SAID
    plain = build.solver(compose(["solver=dopri5"]).solver)
    assert control(plain) == {
        "controller": "I", "first_step": None, "min_step": 0.0, "max_step": math.inf, "jumps": (),
    }  # fmt: skip
    assert tuple(GAINS) == CONTROLLERS


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("solver=rk4 solver.max_step=0.1", r"solver\.max_step=0\.1 has no meaning for rk4, which takes fixed steps"),
        ("solver=euler solver.jumps=[1]", r"solver\.jumps=\[1\.0\] has no meaning for euler"),
        ("eval.solver.method=rk4 eval.solver.controller=PI", r"eval\.solver\.controller=PI has no meaning for rk4"),
        ("solver.controller=pi", r"solver\.controller=pi is not known\. Did you mean `PI`\?\s+Available: I, PI, PID"),
        ("solver.max_step=0", r"solver\.max_step=0\.0 is out of range: it must be above 0"),
        ("solver.first_step=-1", r"solver\.first_step=-1\.0 is out of range"),
        ("solver.min_step=-1", r"solver\.min_step=-1\.0 is out of range"),
        ("solver.min_step=1 solver.max_step=0.5", r"solver\.min_step=1 is above solver\.max_step=0\.5"),
        ("solver.jumps=[0.5,nan]", r"solver\.jumps\.1=nan is not a finite number"),
        ("solver.jumps=[a]", "jumps"),
        ("solver.jumps=0.5", "jumps"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(words, message):
    with pytest.raises(RequestError, match=message):
        compose(words.split())


def test_another_method_keeps_what_is_known_of_the_field():
    start = compose(WORDS).solver
    field = {**SAID, "controller": None}
    assert control(changed(start, SolverChange(rtol=1e-5))) == SAID
    assert control(changed(start, SolverChange(method="adams"))) == field
    assert control(changed(start, SolverChange(method="rk4"))) == dict.fromkeys(STEP_CONTROL)
    assert control(changed(start, SolverChange(method="bosh3", max_step=0.5))) == {**field, "max_step": 0.5}
    config = compose([*WORDS, "eval.solver.method=adams", "gradient=adjoint", "gradient.solver.method=bosh3"])
    assert control(eval_solver(config)) == control(gradient_solver(config)) == field
    assert build.solver(eval_solver(config)).jumps == (3.0, 3.1)
    assert control(eval_solver(compose([*WORDS, "eval.solver.method=rk4"]))) == dict.fromkeys(STEP_CONTROL)


def test_an_audit_makes_only_solvers_that_can_be():
    solvers = solvers_to_try(compose(WORDS).solver, "float64")
    assert {one.method for one in solvers} >= {"rk4", "dopri5"}
    for one in solvers:
        build.solver(one)
        assert one.jumps == (None if one.rtol is None else [3.0, 3.1])


def test_a_record_says_what_is_set():
    assert set(compose(["solver=dopri5"]).solver.record()) == {"method", "rtol", "atol", "steps", "max_steps"}
    assert compose(WORDS).solver.record().items() >= SAID.items()


def test_keys_that_say_nothing_make_no_cell_another_one():
    plain, said = (complete(compose(["data=digits", *words]), False) for words in (["solver=dopri5"], WORDS))
    nulls = [f"solver.{key}=null" for key in STEP_CONTROL] + [f"eval.solver.{key}=null" for key in STEP_CONTROL]
    assert digest(complete(compose(["data=digits", "solver=dopri5", *nulls]), False)) == digest(plain) != digest(said)
    whole = complete(compose(["data=digits", *[word.replace("3.0,", "3,") for word in WORDS]]), False)
    assert digest(whole) == digest(said)


def test_a_config_saved_before_there_were_such_keys_is_read(tmp_path):
    for words in (["solver=dopri5"], WORDS):
        config = complete(compose(["data=digits", *words]), False)
        save(config, tmp_path, tied=True)
        assert load(tmp_path) == config
    save(complete(compose(["data=digits", "solver=dopri5"]), False), tmp_path, tied=True)
    path = tmp_path / "config.yaml"
    lines = [line for line in path.read_text().splitlines() if line.split(":")[0].strip() not in STEP_CONTROL]
    path.write_text("\n".join(lines) + "\n")
    old = load(tmp_path)
    assert isinstance(old, Config)
    assert control(old.solver) == control(old.gradient.solver) == dict.fromkeys(STEP_CONTROL)
