"""`odenet help KEY` says what a key means, and where its value comes from."""

import pytest

from odenet_cli.commands.help import main, why_unused
from odenet_cli.config.schema import STEP_CONTROL, schema_keys
from odenet_cli.errors import RequestError
from odenet_cli.request.compose import compose


def test_every_key_of_the_schema_has_a_line_of_help():
    meanings = dict(schema_keys())
    assert {"seed", "solver.rtol", "eval.solver.jumps", "gradient.norm", "optim.lr"} <= meanings.keys()
    assert all(meaning and "\n" not in meaning for meaning in meanings.values())


def test_why_is_said_of_the_key_alone():
    """No value that was only tried, and no advice to leave out what nobody set."""
    config = compose(["solver=rk4", "gradient=replay", "optim=lm"])
    for key in ("optim.clip", "optim.weight_decay", "optim.momentum"):
        assert why_unused(key, config) == f"{key} has no meaning for optim=lm."
    assert why_unused("solver.budget", config) == "solver.budget needs an adaptive method, and rk4 takes fixed steps."
    assert why_unused("solver.jumps", config) == "solver.jumps has no meaning for rk4, which takes fixed steps."
    assert why_unused("gradient.norm", config) == "gradient.norm has no meaning for gradient=replay."


def test_keys_without_a_meaning_are_those_that_are_refused():
    """Of fixed steps all of the step control, of a gradient that is not the adjoint all that is the adjoint's."""
    config = compose(["solver=rk4", "gradient=replay", "optim=adam"])
    unused = {key for key, _ in schema_keys() if why_unused(key, config)}
    solver = {"rtol", "atol", *STEP_CONTROL}
    expected = {f"solver.{name}" for name in {*solver, "budget"}} | {f"eval.solver.{name}" for name in solver}
    expected |= {f"gradient.solver.{name}" for name in solver | {"steps", "max_steps"}}
    expected |= {"gradient.norm", "gradient.control_parameters", "gradient.coupling", "optim.momentum"}
    assert unused == expected


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ("solver.rtol", ["above 0", "0.001 (solver=dopri5)"]),
        ("solver.rtol solver.rtol=1e-5", ["1e-05 (command line)"]),
        ("trainer.epochs data=digits", ["whole number or null", "1 or more", "14 (recipe of data=digits, on a CPU)"]),
        ("eval.solver.rtol data=moons model=cnf", ["1e-07 (recipe of data=moons"]),
        ("eval.solver.rtol data=digits", ["0.001 (solver.rtol)"]),
        ("eval.solver.steps data=digits eval.solver.method=rk4", ["4 (solver=rk4)"]),
        ("gradient.norm", ["relative, absolute, seminorm", "relative (gradient=adjoint)"]),
        ("solver.method", ["bosh3"]),
        ("solver.atol solver.rtol=1e-5", ["1e-05 (solver.rtol)"]),
        ("solver.rtol data=moons model=cnf", ["1e-05 (recipe of data=moons"]),
        ("optim.lr model=planar", ["0.005 (model=planar)"]),
        ("gradient.method model=rknet", ["backprop (gradient=backprop)"]),
        ("optim.milestones optim.schedule=cosine", ["[] (optim.schedule)"]),
        ("gradient.solver.method data=digits", ["bosh3 (recipe of data=digits"]),
        ("gradient.solver.atol data=digits", ["0.03 (gradient.solver.rtol)"]),
        ("gradient.solver.max_steps", ["10000 (solver.max_steps)"]),
        ("data.noise data=moons", ["standard deviation around", "0.06 (data=moons)"]),
        ("optim", ["optim.lr", "optim.clip"]),
        ("optim.", ["optim.lr", "optim.clip"]),
        ("solver.rtol solver=rk4", ["solver.rtol cannot be used with rk4: it takes fixed steps, solver.steps, and"]),
        (
            "eval.solver.steps data=digits",
            ["eval.solver.steps cannot be used with dopri5", "tolerance eval.solver.rtol"],
        ),
        ("gradient.norm gradient=replay", ["here     gradient.norm has no meaning for gradient=replay"]),
        ("gradient.coupling", ["here     gradient.coupling has no meaning for gradient=adjoint"]),
        ("optim.momentum optim=adam", ["here     optim.momentum has no meaning for optim=adam"]),
        ("solver.jumps", ["null (default)"]),
        ("model", ["model.width ", "channels of the feature maps", "model.field_args "]),
        ("data data=moons", ["data.noise "]),
        ("model.name model=fit data=table data.path=x", ["fit (model=fit)"]),
        ("reproduce", ["not used by runs"]),
        ("model.field_args", ["its options"]),
        ("seed", ["0 or more", "0 (default)"]),
    ],
)
def test_a_key_is_explained(capsys, words, lines):
    assert main(words.split()) == 0
    printed = " ".join(capsys.readouterr().out.split()).replace(" here ", " here     ")
    assert [line for line in lines if line not in printed] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("solver.rtoll", "Did you mean `solver.rtol`"),
        ("train", "A command: odenet train --help"),
        ("dopri5", "Did you mean `solver=dopri5`"),
        ("moons", "Did you mean `data=moons`"),
        ("model.layers model=mlp", "planar"),
        ("model.nothing", "model=odenet has: "),
    ],
)
def test_an_unknown_key_names_the_nearest(words, message):
    with pytest.raises(RequestError, match=message):
        main(words.split())
