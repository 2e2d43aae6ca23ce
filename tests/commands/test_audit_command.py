"""`odenet audit`: the table, the verdict, the file, the exit code."""

import json

import pytest
import torch
from runs_kit import train_run

from odenet_cli.analysis import audit as audits
from odenet_cli.commands import audit as command
from odenet_cli.errors import RequestError

WORDS = ("data=digits", "device=cpu", "trainer.batch_size=8", "trainer.limit_batches=20")


def trained(folder, *words):
    return train_run(folder, *WORDS, *words)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    return trained(folder, "model=rknet", "model.width=4", "solver=euler", "solver.steps=1", "trainer.max_steps=1")


def test_the_table_and_the_file(run_folder, capsys):
    assert command.main([str(run_folder), "steps=1,2", "rtol=1e-1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    samples = "1,797 samples of digits: 360 test + 144 valid + 1,293 train together"
    assert samples in lines[0]
    assert lines[1] == "with so few samples, a loss below 0.45 points is never significant"
    assert lines[2].split() == ["solver", "steps", "NFE", "error", "lost", "gained", "p"]
    solvers = ["euler 1 step", "euler 2 steps", "midpoint 1 step", "midpoint 2 steps", "rk4 1 step", "rk4 2 steps"]
    assert all(line.startswith(name) for line, name in zip(lines[3:], [*solvers, "dopri5 0.1"]))
    assert lines[3].endswith("trained with")
    assert [line.endswith("finer") for line in lines[4:10]] == [True, False, True, False, True, True]
    assert lines[10].startswith(("still an ODE: ", "not an ODE: "))
    assert len(lines) == 11

    made = json.loads((run_folder / "audit.json").read_text())
    assert made["samples"] == {"test": 360, "valid": 144, "train": 1293}
    assert made["sentence"] == lines[10]
    assert made["verdict"] in ("ode", "not an ode")
    own, twice = made["rows"][:2]
    assert (own["method"], own["steps"], own["lost"], own["gained"], own["p"]) == ("euler", 1, 0, 0, 1.0)
    assert twice["nfe_forward"] == 2
    assert twice["error"] == pytest.approx(own["error"] + (twice["lost"] - twice["gained"]) / 1797)


def test_no_finer_solver_leaves_it_open(tmp_path, capsys):
    words = ("model=rknet", "model.width=4", "solver=dopri5", "solver.rtol=1e-3", "trainer.max_steps=1")
    folder = trained(tmp_path / "fine", *words)
    capsys.readouterr()
    assert command.main([str(folder), "steps=1", "rtol=1e-2", "strict=true"]) == 0
    assert "undecided: no solver here is finer than dopri5 0.001" in capsys.readouterr().out
    assert json.loads((folder / "audit.json").read_text())["verdict"] == "open"


@pytest.mark.parametrize(("words", "code"), [([], 0), (["strict=false"], 0), (["strict=true"], 1)])
def test_a_net_that_is_no_ode_ends_in_1_only_when_that_was_asked_for(run_folder, monkeypatch, capsys, words, code):
    """The answers of all solvers but the own one are made wrong."""
    true = audits.Audit.answers

    def answers(self, solver):
        right, record = true(self, solver)
        if solver.method == "euler" and solver.steps == 1:
            return torch.ones_like(right), {**record, "error": 0.0}
        return torch.zeros_like(right), {**record, "error": 1.0}

    monkeypatch.setattr(audits.Audit, "answers", answers)
    assert command.main([str(run_folder), "steps=1,2", "rtol=1e-1", *words]) == code
    last = capsys.readouterr().out.splitlines()[-1]
    assert (
        last
        == "not an ODE: euler 2 steps, which is finer than euler 1 step, loses 100.00 points of accuracy (p < 1e-99)"
    )


WRONG = {
    "rtol=0": ["rtol=0 must be a number above 0"],
    "rtol=1e-3,x": ["rtol=x must be a number above 0"],
    "rtol=1e-12": ["rtol=1e-12", "float32"],
    "steps=2.5": ["steps=2.5 must be a whole number from 1 to 100,000"],
    "steps=true": ["steps=true must be a whole number"],
    "strict=maybe": ["strict=maybe", "true, false"],
    "split=test": ["split is not a key here", "strict"],
    "device=gpu": ["device=gpu"],
    "strict=true,false": ["strict=true,false is not known"],
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_request_is_refused(run_folder, words, capsys):
    with pytest.raises(RequestError) as refused:
        command.main([str(run_folder), *words.split()])
    for part in WRONG[words]:
        assert part in str(refused.value)
    assert capsys.readouterr().out == ""


@pytest.mark.numerics
def test_the_command(odenet, run_folder, tmp_path):
    done = odenet("audit", str(run_folder), "steps=1", "rtol=1e-1")
    assert (done.returncode, done.stderr) == (0, "")
    assert "samples of digits" in done.stdout
    assert odenet("audit", "nowhere").returncode == 2
    folder = trained(tmp_path / "perceptron", "model=mlp", "model.hidden=4", "trainer.max_steps=1")
    with pytest.raises(RequestError, match="model=mlp, which has no solver"):
        command.main([str(folder)])
    assert command.main([]) == 2
    assert command.main(["--help"]) == 0
