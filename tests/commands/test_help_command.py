"""`odenet help KEY` says what a key means, and where its value comes from."""

import pytest

from odenet_cli.commands.help import main
from odenet_cli.config.schema import schema_keys
from odenet_cli.errors import RequestError


def test_every_key_of_the_schema_has_a_line_of_help():
    meanings = dict(schema_keys())
    assert {"seed", "solver.rtol", "eval.solver.jumps", "gradient.norm", "optim.lr"} <= meanings.keys()
    assert all(meaning and "\n" not in meaning for meaning in meanings.values())


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
        ("seed", ["0 or more", "0 (default)"]),
    ],
)
def test_a_key_is_explained(capsys, words, lines):
    assert main(words.split()) == 0
    printed = capsys.readouterr().out
    assert [line for line in lines if line not in printed] == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("solver.rtoll", "Did you mean `solver.rtol`"),
        ("model.layers model=mlp", "planar"),
        ("model.nothing", "model=odenet has: "),
    ],
)
def test_an_unknown_key_names_the_nearest(words, message):
    with pytest.raises(RequestError, match=message):
        main(words.split())
