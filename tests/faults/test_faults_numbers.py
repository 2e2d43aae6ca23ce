"""A number that is none ends the run in the step it appears in, reaches no checkpoint, and can be met again."""

import re

import pytest
import torch
from faults_kit import ODE, TINY, faults, kept, records, run_json

ROW = "7 numerical faults"
slow, numerics = pytest.mark.slow, pytest.mark.numerics
BATCHES = ("trainer.limit_batches=8", "trainer.checkpoint_every=2", "trainer.log_every=2", "optim.milestones=[]")
WHERE = {
    "nan": r"the run diverged: the loss is nan at step 6 with learning rate 0\.05",
    "inf": r"the run diverged: the loss is inf at step 6 with learning rate 0\.05",
    "field": r"in optimiser step 6: .*not finite at t = 0",
    "backward": r"(the gradient of \S+ is not finite at step 6|in optimiser step 6: .*incoming gradient at t = 1)",
}


def sound(folder):
    """No number of the checkpoints is NaN or infinite."""
    for path in (folder / "checkpoints").glob("*.pt"):
        state = torch.load(path, weights_only=True)["content"]
        tensors = [*state["model"].values()]
        tensors += [part for one in state.get("optimizer", {}).get("state", {}).values() for part in one.values()]
        for value in tensors:
            assert not isinstance(value, torch.Tensor) or value.isfinite().all(), path
    for record in records(folder):
        assert all(value not in ("nan", "inf") for value in record.values())
    return True


CASES = [*((ODE, "ode", what) for what in WHERE), *((TINY, "tiny", what) for what in ("nan", "backward"))]
SHORT = ("ode-field", "ode-backward", "tiny-nan")  # the layer that is checked with every change


@pytest.mark.parametrize(
    ("words", "what"),
    [
        pytest.param(words, what, id=f"{net}-{what}", marks=numerics if f"{net}-{what}" in SHORT else slow)
        for words, net, what in CASES
    ],
)
def test_a_number_that_is_none_ends_the_run(odenet, tmp_path, words, what, happened):
    """NaN or infinity in the loss, the field or the backward pass: exit 1 within that step, naming step, learning rate,
    t in a solve and the last good loss; none in a checkpoint; its place is in run.json."""
    done = odenet("train", *words, *BATCHES, "hydra.run.dir=run", before=faults("poison", what, 6))
    assert done.code == 1
    assert re.search(WHERE[what], done.err), done.err
    assert re.search(r"learning rate 0\.05", done.err)
    assert re.search(r"the last finite loss was \d\.\d+ at step [56]|with the loss at \d\.\d+", done.err)
    assert run_json(tmp_path / "run")["status"] == "failed"
    assert sound(tmp_path / "run")
    assert kept(tmp_path / "run")["step"] == 4
    assert run_json(tmp_path / "run")["failed"] == {"split": "train", "step": 6}
    # The failure is met again where it is still there, and not where it is not.
    again = odenet("rerun", "run", before=faults("poison", what, 2))
    assert again.code == 1
    assert again.err.splitlines()[0] == done.err.splitlines()[0]
    passes = odenet("rerun", "run")
    assert passes.code == 0
    assert re.search(r"It passes: loss \d\.\d+", passes.out)
    happened(done.err.splitlines()[0].removeprefix("error: "))


@numerics
def test_a_learning_rate_that_is_too_large(odenet, tmp_path, happened):
    """A run that diverges by itself: exit 1, and odenet rerun fails with the same words."""
    done = odenet("train", *TINY, "optim.lr=1e30", "hydra.run.dir=run")
    assert done.code == 1
    assert "learning rate 1e+30; the last finite loss was 2." in done.err
    assert "Lower optim.lr" in done.err
    again = odenet("rerun", "run")
    assert again.code == 1
    assert again.err.splitlines()[0] == done.err.splitlines()[0]
    assert sound(tmp_path / "run")
    happened(done.err.splitlines()[0].removeprefix("error: "))


@numerics
def test_an_update_that_breaks_the_weights(odenet, tmp_path):
    """An update too large for float32: exit 1, no such weight is kept, odenet rerun finds the update."""
    done = odenet("train", *TINY, "optim.lr=1e300", "hydra.run.dir=run")
    assert done.code == 1
    assert not list((tmp_path / "run" / "checkpoints").glob("*.pt"))
    again = odenet("rerun", "run")
    assert again.code == 1
    assert "is NaN or infinite after step 1" in again.err


@numerics
def test_a_step_limit_names_the_remedy(odenet, tmp_path, happened):
    """A solve that needs too many steps: exit 1 with t, step size and the keys to turn; a change is tried by rerun."""
    done = odenet("train", *ODE, "solver.max_steps=2", "solver.rtol=1e-6", "hydra.run.dir=run")
    assert done.code == 1
    for part in ("in optimiser step 1", "t = 0.", "solver.max_steps", "solver.rtol", "learning rate 0.05"):
        assert part in done.err
    assert odenet("rerun", "run").code == 1
    assert odenet("rerun", "run", "solver.max_steps=1000").code == 0
    assert run_json(tmp_path / "run")["status"] == "failed"
    happened(done.err.splitlines()[0].removeprefix("error: "))


@numerics
def test_rerun_says_what_it_needs(odenet, tmp_path):
    """odenet rerun without a run, or of a run that did not fail: exit 2, saying so."""
    missing = odenet("rerun", "nowhere")
    assert missing.code == 2
    assert "nowhere is not the folder of a run" in missing.err
    assert odenet("rerun").code == 2
    assert odenet("train", *TINY, "trainer.epochs=1", "hydra.run.dir=run").code == 0
    well = odenet("rerun", "run")
    assert well.code == 2
    assert "has no failed step to repeat" in well.err
    assert "The run is done" in well.err
    typo = odenet("rerun", "run", "solver.rtl=1")
    assert typo.code == 2
    assert "solver.rtol" in typo.err
