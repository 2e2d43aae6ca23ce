"""The doctor of runs: what a run failed in is repeated and examined, and the cure is tried on that very step."""

import json

import pytest
import torch

from odenet_cli.analysis.doctor import Calls, examine
from odenet_cli.commands import doctor as command
from odenet_cli.config.saved import save
from odenet_cli.ode import Adaptive, SolveError, doctor
from odenet_cli.ode.own_times import solve_at
from odenet_cli.training import loop
from odenet_cli.training.failure import Diverged

ODE = ("model=odenet", "model.width=4", "trainer.batch_size=4", "trainer.epochs=1")
SHORT = ("trainer.limit_batches=2", "trainer.epochs=null", "trainer.steps=2", "trainer.batch_size=4")


def diagnose(folder, config):
    return examine(folder, config, lambda line: None, command.change)


def test_a_step_limit_is_named_and_its_cure_tried_on_the_run(train, tiny, tmp_path):
    words = (*ODE, "solver.max_steps=2", "solver.rtol=1e-5")
    with pytest.raises(Exception, match="odenet doctor"):
        train(*words)
    report, keys, outcome = diagnose(tmp_path / "run", tiny(*words))
    assert report.kind == "step_limit"
    assert keys == {"solver.max_steps": report.cure["max_steps"]}
    assert outcome.startswith("It passes: loss")


def test_a_backward_solve_that_fails_is_told_from_the_forward_one(train, tiny, tmp_path):
    words = (*ODE, "gradient=adjoint", "gradient.solver.max_steps=1", "gradient.solver.rtol=1e-5")
    with pytest.raises(Exception, match="odenet doctor"):
        train(*words)
    report, keys, outcome = diagnose(tmp_path / "run", tiny(*words))
    assert report.kind == "step_limit"
    assert report.reason.startswith("the forward solve passes, but in the backward solve")
    assert keys == {"gradient.method": "replay"}
    assert outcome.startswith("It passes: loss")


def test_a_failed_validation_is_mended_by_the_key_of_scoring(train, tiny, tmp_path):
    words = (*ODE, "eval.solver.max_steps=2", "eval.solver.rtol=1e-5")
    with pytest.raises(Exception, match="odenet doctor"):
        train(*words)
    report, keys, outcome = diagnose(tmp_path / "run", tiny(*words))
    assert report.kind == "step_limit"
    assert keys == {"eval.solver.max_steps": report.cure["max_steps"]}
    assert outcome.startswith("It passes: valid loss")


def test_an_optimiser_that_diverged_is_named(train, tiny, tmp_path, monkeypatch):
    """The solver is not the cause, and a tenth of the learning rate passes the step."""
    real = loop.check_gradients

    def check(session):
        real(session)
        if session.config.optim.lr > 0.01 and session.step == 3:
            raise Diverged("the run diverged: the gradient is not finite")

    monkeypatch.setattr(loop, "check_gradients", check)
    words = ("optim.lr=0.05",)
    with pytest.raises(Exception, match="the run diverged"):
        train(*words)
    report, keys, outcome = diagnose(tmp_path / "run", tiny(*words))
    assert report.kind == "optimiser"
    assert keys == {"optim.lr": 0.005}
    assert outcome.startswith("It passes: loss")


@pytest.mark.numerics
def test_weights_that_an_update_has_spoilt_are_not_blamed_on_the_solver(train, tiny, tmp_path):
    """One step at a learning rate of 3: with more steps the solve passes, and the loss is thousands of times larger."""
    words = ("model=cnf", "data=moons", "trainer.epochs=null", "trainer.steps=8", "trainer.batch_size=64")
    words += ("optim.lr=3", "solver.max_steps=300")
    with pytest.raises(Exception, match="odenet doctor"):
        train(*words)
    report, keys, outcome = diagnose(tmp_path / "run", tiny(*words))
    assert report.kind == "optimiser"
    assert report.evidence["last losses"][1] > 10 * report.evidence["last losses"][0]
    assert keys["optim.lr"] < 3
    assert outcome.startswith("It passes: loss")


@pytest.mark.parametrize(
    "words",
    [
        ODE,
        pytest.param(("model=cnf", "data=moons", *SHORT), marks=pytest.mark.numerics),
        pytest.param(("model=latent_ode", "data=spirals", "data.count=40", *SHORT), marks=pytest.mark.numerics),
        ("model=mlp",),
    ],
    ids=["odenet", "cnf", "latent_ode", "mlp"],
)
def test_sound_runs_are_not_called_sick(train, tiny, words):
    folder = train(*words)
    assert diagnose(folder, tiny(*words)).report.kind == "sound"


def test_the_command_prints_and_judges(train, tiny, capsys):
    folder = train(*ODE)
    save(tiny(*ODE), folder, tied=True)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert command.main([str(folder)]) == 0
    assert "Nothing is wrong: " in capsys.readouterr().out
    assert all(path.read_bytes() == content for path, content in before.items())
    assert json.loads((folder / "run.json").read_text())["status"] == "done"


def test_the_solve_that_shows_where_steps_end_is_watched_too():
    """Samples with times of their own are solved twice; a failure is met in the first solve."""
    calls = Calls()
    solver = calls.watching(Adaptive(method="dopri5", rtol=1e-3, atol=1e-3))
    times = torch.linspace(0.1, 2.0, 1200).view(2, 600)
    with pytest.raises(SolveError):
        solve_at(solver, lambda t, y: y * y, torch.ones(2, 1), [times])
    assert calls.failed is calls.made[-1]
    assert doctor(*calls.failed).kind == "blow_up"
