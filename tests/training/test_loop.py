"""The loop logs what it did, keeps the best weights, and neither logging nor checkpoints change what it trains."""

import json
import math
import time

import pytest
import torch

from odenet_cli.errors import RunFailed
from odenet_cli.training import checkpoint, loop
from odenet_cli.training import run as runs
from odenet_cli.training.evaluate import evaluate

ODE = ("model=odenet", "model.width=4", "solver=heun", "solver.steps=2", "trainer.batch_size=8")


@pytest.fixture
def every_step(monkeypatch):
    """(loss, error) of every optimiser step, seen beside the loop."""
    seen, real = [], runs.task

    def watched(name):
        loss_fn = real(name)

        def call(model, batch):
            loss, extra = loss_fn(model, batch)
            if loss.requires_grad:
                seen.append((loss.item(), extra["error"].item()))
            return loss, extra

        return call

    monkeypatch.setattr(runs, "task", watched)
    return seen


def test_records_are_means_since_the_one_before(train, metrics, every_step):
    folder = train("trainer.log_every=3", "trainer.limit_batches=8", "trainer.epochs=2")
    records = metrics(folder, "train")
    assert [record["step"] for record in records] == [3, 6, 8, 9, 12, 15, 16]
    start = 0
    for record in records:
        window = every_step[start : record["step"]]
        assert record["loss"] == pytest.approx(sum(loss for loss, _ in window) / len(window), rel=1e-6)
        assert record["error"] == pytest.approx(sum(error for _, error in window) / len(window), abs=1e-6)
        start = record["step"]


def test_a_long_gradient_is_scaled_down_and_a_short_one_left_alone(train, checkpoint_of):
    def after_one_step(clip, name):
        words = (f"optim.clip={clip}", "optim.momentum=0", "optim.lr=10", "trainer.max_steps=1", "dtype=float64")
        return torch.cat([value.flatten() for value in checkpoint_of(train(*words, name=name))["model"].values()])

    free, long, shorter, longer = (after_one_step(c, f"run{i}") for i, c in enumerate(["null", "1e9", "1e-3", "3e-3"]))
    assert torch.equal(free, long)
    assert (longer - shorter).norm().item() == pytest.approx(10 * 2e-3, rel=1e-3)
    assert torch.nn.functional.cosine_similarity(longer - shorter, free - shorter, dim=0).item() == pytest.approx(1)


@pytest.mark.parametrize("words", [(), ODE], ids=["mlp", "odenet"])
def test_logging_and_checkpoints_change_no_bit(train, checkpoint_of, words):
    weights = []
    for name, log_every, checkpoint_every in [("a", 1, 3), ("b", 50, 1000), ("c", 50, 1)]:
        more = (f"trainer.log_every={log_every}", f"trainer.checkpoint_every={checkpoint_every}")
        folder = train(*words, *more, "trainer.epochs=2", name=name)
        weights.append(checkpoint_of(folder)["model"])
    for other in weights[1:]:
        assert all(torch.equal(value, other[key]) for key, value in weights[0].items())


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(train, checkpoint_of, same_bits):
    folders = [
        train(*ODE, "trainer.epochs=1", f"seed={seed}", name=name) for name, seed in [("a", 1), ("b", 1), ("c", 2)]
    ]
    assert same_bits(folders[0], folders[1])
    a, c = checkpoint_of(folders[0])["model"], checkpoint_of(folders[2])["model"]
    assert not any(torch.equal(a[key], c[key]) for key in ("stem.0.weight", "flow.field.conv1.weight"))


def test_lengths(train, metrics):
    def steps(*words, name):
        return [(r["step"], r["epoch"], r["split"]) for r in metrics(train("trainer.log_every=99", *words, name=name))]

    whole = [(5, 1, "train"), (5, 1, "valid"), (10, 2, "train"), (10, 2, "valid"), (10, 2, "test")]
    assert steps("trainer.epochs=2", name="epochs") == whole
    assert steps("trainer.epochs=null", "trainer.steps=10", name="steps") == whole
    part = [(5, 1, "train"), (5, 1, "valid"), (7, 1, "train"), (7, 1, "valid"), (7, 1, "test")]
    assert steps("trainer.max_steps=7", name="max") == part
    assert steps("trainer.epochs=null", "trainer.steps=7", name="odd") == part
    assert steps("trainer.max_steps=99", "trainer.epochs=1", name="more") == [*whole[:2], (5, 1, "test")]
    assert steps("trainer.epochs=1", "trainer.limit_batches=999", name="all")[-1] == (161, 1, "test")


def test_without_validation_the_last_weights_are_tested(train, metrics, checkpoint_of, tiny):
    folder = train("data.validation=0")
    assert {record["split"] for record in metrics(folder)} == {"train", "test"}
    assert not (folder / "checkpoints" / "best.pt").exists()
    assert scored(tiny("data.validation=0"), checkpoint_of(folder)["model"], "test") == finished(folder)


def scored(config, weights, split):
    session = runs.assemble(config, torch.device("cpu"))
    session.model.load_state_dict(weights)
    limit = config.trainer.limit_batches
    scores = evaluate(session.model, session.loss_fn, getattr(session.data, split), session.scorer, limit)
    return scores["loss"], scores["error"]


def finished(folder):
    final = json.loads((folder / "run.json").read_text())["final"]
    return final["loss"], final["error"]


def scripted(monkeypatch, scores):
    """Validation finds these (error, loss), one after the other."""
    real, left = loop.evaluate, list(scores)

    def evaluated(*arguments):
        if not left:  # the test, after all validations
            return real(*arguments)
        error, loss = left.pop(0)
        return real(*arguments) | {"error": error, "loss": loss}

    monkeypatch.setattr(loop, "evaluate", evaluated)


@pytest.mark.parametrize(
    ("scores", "best"),
    [
        ([(0.5, 1.0), (0.3, 2.0), (0.4, 0.1)], 2),
        ([(0.5, 1.0), (0.5, 0.9), (0.5, 0.95)], 2),
        ([(0.5, 1.0), (0.5, 1.0), (0.5, 1.0)], 1),
        ([(0.5, 1.0), (0.4, 9.0), (0.3, 99.0)], 3),
    ],
)
def test_the_best_is_that_of_the_smallest_error_then_loss(train, checkpoint_of, monkeypatch, tiny, scores, best):
    scripted(monkeypatch, scores)
    folder = train()
    kept = checkpoint_of(folder, "best")
    assert (kept["epoch"], kept["step"]) == (best, 5 * best)
    final = json.loads((folder / "run.json").read_text())["final"]
    assert final["best_epoch"] == best
    assert final["valid_error"] == scores[best - 1][0]
    monkeypatch.undo()
    assert scored(tiny(), kept["model"], "test") == finished(folder)


def test_a_lost_best_is_an_error_not_another_score(train, monkeypatch):
    scripted(monkeypatch, [(0.5, 1.0), (0.4, 1.0), (0.45, 1.0)])
    real = runs.CheckpointWriter.last

    def last(keeper, session):
        real(keeper, session)
        if session.step == 15 and session.validated == 15:
            (keeper.folder / "best.pt").write_bytes(b"damaged")

    monkeypatch.setattr(runs.CheckpointWriter, "last", last)
    with pytest.raises(RunFailed, match="the weights of step 10"):
        train()


def test_the_best_weights_are_those_that_were_validated(train, metrics, checkpoint_of, tiny):
    folder = train(*ODE, "eval.solver.method=rk4")
    best = checkpoint_of(folder, "best")
    (record,) = [record for record in metrics(folder, "valid") if record["step"] == best["step"]]
    assert scored(tiny(*ODE, "eval.solver.method=rk4"), best["model"], "valid") == (record["loss"], record["error"])
    assert record["nfe_forward"] != metrics(folder, "train")[-1]["nfe_forward"]


@pytest.mark.parametrize(
    "words",
    [
        ("trainer.limit_batches=5",),
        ("trainer.max_steps=1",),  # the weights overflow in the last step, seen only by validation
        ("trainer.max_steps=1", "trainer.checkpoint_every=1"),
        ("trainer.max_steps=2", "trainer.log_every=50"),
        ODE,
        (*ODE, "trainer.max_steps=1", "data.validation=0"),
    ],
)
def test_a_diverging_run_fails_and_keeps_no_such_number(train, tmp_path, words):
    with pytest.raises(RunFailed) as failed:
        train("optim.lr=1e30", *words)
    text = str(failed.value)
    assert "step " in text
    folder = tmp_path / "run"
    record = json.loads((folder / "run.json").read_text())
    assert record["status"] == "failed"
    assert record["reason"] == text
    assert record["final"] is None
    for path in (folder / "checkpoints").glob("*.pt") if (folder / "checkpoints").exists() else ():
        assert all(value.isfinite().all() for value in checkpoint.load(path)["model"].values()), path
    for line in (folder / "metrics.jsonl").read_text().splitlines():
        assert math.isfinite(json.loads(line)["loss"])


def test_a_diverging_loss_names_step_and_rate(train):
    with pytest.raises(RunFailed, match=r"at step 2 with learning rate 1e\+30"):
        train("optim.lr=1e30")


def test_a_failing_solve_names_the_step(train):
    with pytest.raises(RunFailed, match=r"in optimiser step 1: .*solver\.max_steps"):
        train("model=odenet", "model.width=4", "solver.max_steps=2", "solver.rtol=1e-6")


def test_the_time_of_a_step_is_not_that_of_validation(train, metrics, monkeypatch):
    real = loop.evaluate

    def slow(*arguments):
        time.sleep(0.5)
        return real(*arguments)

    monkeypatch.setattr(loop, "evaluate", slow)
    folder = train("trainer.epochs=2")
    assert all(record["step_ms"] < 90 for record in metrics(folder, "train"))
    assert all(record["epoch_s"] < 0.5 for record in metrics(folder, "valid"))
    # That of the run it is, of the last one too.
    assert json.loads((folder / "run.json").read_text())["final"]["time_s"] > 1.0


@pytest.mark.parametrize("stopped", [2, 4])
def test_the_time_of_an_epoch_is_that_of_all_its_starts(train, metrics, monkeypatch, stopped):
    """Stopped within the epoch, and between its last step and its validation."""
    real = loop.loss_and_gradients

    def slow(*arguments):
        time.sleep(0.1)
        return real(*arguments)

    def fail(*arguments, **named):
        raise RunFailed("killed")

    monkeypatch.setattr(loop, "loss_and_gradients", slow)
    words = ("trainer.epochs=1", "trainer.limit_batches=4", f"trainer.checkpoint_every={stopped}")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "validate", fail)
        with pytest.raises(RunFailed, match="killed"):
            train(*words, f"trainer.max_steps={stopped}", name="run")
    (record,) = metrics(train(*words, name="run"), "valid")
    assert 0.4 < record["epoch_s"] < 4


def test_a_users_own_network_with_dropout_and_buffers(train, metrics, tmp_path, monkeypatch):
    text = "from torch import nn\nclass Net(nn.Sequential):\n  def __init__(self, shape, classes):\n"
    text += (
        "    super().__init__(nn.Flatten(), nn.Linear(784, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 10))\n"
    )
    (tmp_path / "net_with_dropout.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ("model=custom", "model.target=net_with_dropout:Net", "trainer.log_every=2")
    whole = train(*words, name="whole")
    train(*words, "trainer.max_steps=7", name="parts")
    # Stopped after a validation of its own at step 7; from there on the bits are the same.
    train(*words, name="parts")
    late = [[r["loss"] for r in metrics(folder) if r["step"] > 8] for folder in (whole, tmp_path / "parts")]
    assert len(late[0]) == 7
    assert late[0] == late[1]
