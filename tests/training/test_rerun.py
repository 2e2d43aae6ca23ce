"""A failed step is met again from the last checkpoint: the same weights and the same batch, bit for bit."""

import json

import pytest
import torch

from odenet_cli.analysis.rerun import repeat
from odenet_cli.errors import RequestError
from odenet_cli.training import checkpoint, loop
from odenet_cli.training.failure import Diverged

RHYTHM = ("trainer.checkpoint_every=3", "trainer.epochs=2")
CNF = (
    "model=cnf",
    "model.divergence=hutchinson",
    "data=moons",
    "trainer.epochs=null",
    "trainer.steps=8",
    "trainer.batch_size=4",
)
ODE = ("model=odenet", "model.width=4", "solver.rtol=1e-2", "trainer.batch_size=4", *RHYTHM)


@pytest.fixture
def gradients(monkeypatch):
    """The gradients of every step, by its number; step 8 fails."""
    seen, real = {}, loop.check_gradients

    def check(session):
        real(session)
        seen[session.step + 1] = {name: weight.grad.clone() for name, weight in session.model.named_parameters()}
        if session.step + 1 == 8:
            raise Diverged("the run diverged: at step 8")

    monkeypatch.setattr(loop, "check_gradients", check)
    return seen


@pytest.mark.parametrize(
    ("words", "damage"),
    [(RHYTHM, False), (RHYTHM, True), (ODE, False), ((*CNF, "trainer.checkpoint_every=3"), False)],
    ids=["mlp", "across a validation", "odenet", "cnf"],
)
def test_the_failed_step_is_met_again(train, tiny, tmp_path, gradients, words, damage):
    """Also where random numbers are drawn, and where the last checkpoint is lost and a validation lies between."""
    with pytest.raises(Exception, match="at step 8"):
        train(*words)
    folder, before = tmp_path / "run", dict(gradients)
    record = json.loads((folder / "run.json").read_text())
    assert record["failed"] == {"split": "train", "step": 8}
    assert "odenet rerun" in record["reason"]
    last = folder / "checkpoints" / "last.pt"
    if damage:
        last.write_bytes(b"")
        assert checkpoint.load(checkpoint.previous(last))["step"] < 6
    gradients.clear()
    with pytest.raises(Diverged, match="at step 8"):
        repeat(folder, tiny(*words), tiny(*words), print)
    assert 1 not in gradients
    for step, values in gradients.items():
        assert all(torch.equal(value, before[step][name]) for name, value in values.items()), step


def test_a_change_is_tried_on_the_failed_step(train, tiny, tmp_path, gradients, monkeypatch):
    """The steps before are those of the run; the failed one is made under the changed config."""
    with pytest.raises(Exception, match="at step 8"):
        train(*ODE)
    before = dict(gradients)
    monkeypatch.setattr(loop, "check_gradients", lambda session: gradients.update(seen=session.step + 1))
    said = []
    result = repeat(tmp_path / "run", tiny(*ODE), tiny(*ODE, "solver.rtol=1e-5"), said.append)
    assert result.startswith("It passes: loss")
    assert gradients["seen"] == 8
    assert before.keys() >= {7, 8}
    assert "continuing from step 6, the latest checkpoint, to optimiser step 8" in said[0]


def test_a_failed_validation_is_scored_again(train, tiny, tmp_path, monkeypatch):
    real = loop.evaluate
    monkeypatch.setattr(loop, "evaluate", lambda *arguments: real(*arguments) | {"loss": float("nan")})
    with pytest.raises(Exception, match="loss is nan at step 5"):
        train(*RHYTHM)
    with pytest.raises(Diverged, match="loss is nan at step 5"):
        repeat(tmp_path / "run", tiny(*RHYTHM), tiny(*RHYTHM), print)
    monkeypatch.undo()
    assert "It passes: valid loss" in repeat(tmp_path / "run", tiny(*RHYTHM), tiny(*RHYTHM), print)


def test_a_run_that_did_not_fail_has_no_step_to_repeat(train, tiny):
    with pytest.raises(RequestError, match="has no failed step to repeat"):
        repeat(train(), tiny(), tiny(), print)
