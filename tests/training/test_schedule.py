"""The learning rate falls where the paper's does."""

import math

import pytest

from odenet_cli.config import OptimConfig
from odenet_cli.training.optim import learning_rate

PAPER = OptimConfig(name="sgd", lr=0.1, momentum=0.9, milestones=[0.375, 0.625, 0.875], decay=0.1)


@pytest.mark.parametrize("per_epoch", [1, 7, 429, 468, 469])
def test_a_tenth_at_epochs_60_100_and_140_of_160(per_epoch):
    def rate(step):
        return learning_rate(PAPER, step, 160 * per_epoch)

    expected = [0.1] * 60 + [0.01] * 40 + [0.001] * 40 + [0.0001] * 20
    for epoch, value in enumerate(expected):
        for step in {epoch * per_epoch, (epoch + 1) * per_epoch - 1}:
            assert math.isclose(rate(step), value, rel_tol=1e-12)


def test_without_milestones_it_is_constant():
    assert {learning_rate(OptimConfig(name="adam", lr=3e-3), step, 9) for step in range(9)} == {3e-3}


def test_the_rate_of_every_step_is_logged_as_used(train, metrics):
    folder = train("trainer.log_every=1", "trainer.epochs=16", "trainer.limit_batches=1", "optim.lr=0.2")
    rates = [record["lr"] for record in metrics(folder, "train")]
    assert rates == pytest.approx([0.2] * 6 + [0.02] * 4 + [0.002] * 4 + [0.0002] * 2, rel=1e-12)


def test_stopping_early_leaves_the_schedule(train, metrics):
    whole = train("trainer.log_every=1", name="whole")
    part = train("trainer.log_every=1", "trainer.max_steps=8", name="part")
    assert len(metrics(part, "train")) == 8
    pairs = list(zip(metrics(part, "train"), metrics(whole, "train")))
    assert [a["lr"] for a, _ in pairs] == [b["lr"] for _, b in pairs]
    assert [a["loss"] for a, _ in pairs] == [b["loss"] for _, b in pairs]
