"""The learning rate is that of torch's schedulers, and falls where the paper's does."""

import math

import pytest
import torch
from torch.optim import lr_scheduler

from odenet_cli.config.schema import OptimConfig
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


def rates_of(make, total, lr=0.1):
    """The rates of a scheduler of torch, one for each step."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)
    scheduler, rates = make(optimizer), []
    for _ in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step() if len(rates) < total else None
    return rates


def rates(total, **settings):
    config = OptimConfig(name="sgd", lr=0.1, **settings)
    return [learning_rate(config, step, total) for step in range(total)]


@pytest.mark.parametrize("total", [10, 97, 430])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.3, 0.7])
def test_onecycle_is_torchs(total, warmup):
    if warmup * total == 1:
        pytest.skip("torch divides by zero")
    if warmup:
        expected = rates_of(lambda o: lr_scheduler.OneCycleLR(o, 0.1, total, pct_start=warmup), total)
    else:  # torch would begin before step 0; without a warm-up the run begins at the top
        expected = rates_of(lambda o: lr_scheduler.CosineAnnealingLR(o, total - 1, eta_min=0.1 / 25e4), total)
    assert rates(total, schedule="onecycle", warmup=warmup) == pytest.approx(expected, rel=1e-9)
    assert max(expected) <= 0.1 * (1 + 1e-12)


def test_onecycle_rises_for_three_tenths_unless_told():
    expected = rates_of(lambda o: lr_scheduler.OneCycleLR(o, 0.1, 100), 100)
    assert rates(100, schedule="onecycle") == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("total", [1, 10, 97])
@pytest.mark.parametrize("warmup", [None, 0.0, 0.2, 0.5])
def test_cosine_is_torchs_after_a_linear_rise(total, warmup):
    rising = round((warmup or 0) * total)

    def make(optimizer):
        fall = lr_scheduler.CosineAnnealingLR(optimizer, total - rising)
        if not rising:
            return fall
        rise = lr_scheduler.LinearLR(optimizer, 1 / (rising + 1), total_iters=rising)
        return lr_scheduler.SequentialLR(optimizer, [rise, fall], [rising])

    assert rates(total, schedule="cosine", warmup=warmup) == pytest.approx(rates_of(make, total), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("warmup", [0.05, 0.3])
def test_steps_rise_and_fall_as_torchs(warmup):
    total, milestones = 80, [0.25, 0.5, 0.75]

    def make(optimizer):
        rising = round(warmup * total)
        rise = lr_scheduler.LinearLR(optimizer, 1 / (rising + 1), total_iters=rising)
        fall = lr_scheduler.MultiStepLR(optimizer, [int(total * share) for share in milestones], gamma=0.5)
        return lr_scheduler.ChainedScheduler([rise, fall], optimizer)

    found = rates(total, warmup=warmup, milestones=milestones, decay=0.5)
    assert found == pytest.approx(rates_of(make, total), rel=1e-9)


@pytest.mark.parametrize("schedule", ["steps", "cosine", "onecycle"])
@pytest.mark.parametrize("total", [1, 2, 3])
def test_the_shortest_runs_have_a_rate(schedule, total):
    found = rates(total, schedule=schedule, warmup=0.5)
    assert all(0 < rate <= 0.1 for rate in found)


@pytest.mark.parametrize("schedule", ["cosine", "onecycle"])
def test_a_resumed_run_goes_on_along_its_curve(train, metrics, schedule):
    words = (f"optim.schedule={schedule}", "optim.warmup=0.25", "trainer.log_every=1")
    whole = metrics(train(*words, name="whole"), "train")
    part = train(*words, "trainer.max_steps=5", name="part")
    again = metrics(train(*words, name="part"), "train")
    assert [record["lr"] for record in again] == [record["lr"] for record in whole]
    assert [record["loss"] for record in again] == [record["loss"] for record in whole]
    assert part.is_dir()


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
