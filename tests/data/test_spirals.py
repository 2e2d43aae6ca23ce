"""The spirals are those of the paper's public example, and follow from a seed alone."""

import math

import pytest
import torch

from odenet_cli import data
from odenet_cli.data import spirals
from odenet_cli.data.common.series import FURTHER, IN_TRAINING_RANGE, WINDOW, Series
from odenet_cli.errors import RequestError

SMALL = {"count": 60, "validation": 10, "test": 10}


def load(seed=0, batch_size=20, **options):
    how = {"eval_batch_size": 50, "seed": seed, "device": torch.device("cpu"), "dtype": torch.float32}
    return data.load("spirals", SMALL | options, batch_size=batch_size, **how)


def test_every_start_has_two_hundred_finite_points():
    starts = torch.arange(*spirals.STARTS).repeat_interleave(2)
    found = spirals.trajectories(starts, 2 * spirals.TIMES)
    assert found.shape == (400, 200, 2)
    assert found.isfinite().all()
    assert found.norm(dim=2).max() < 4.01  # 50 b / θ at θ = 1, and the centre


def test_the_formulas_of_the_paper():
    forward, backward = spirals.trajectories(torch.tensor([100, 100]), 200)
    angle = 100 * 6 * math.pi / 499
    assert forward[0].tolist() == pytest.approx([0.06 * angle * math.cos(angle) + 1, 0.06 * angle * math.sin(angle)])
    turned = 6 * math.pi + 1 - angle
    assert backward[0].tolist() == pytest.approx([3 / turned * math.cos(turned) - 1, 3 / turned * math.sin(turned)])

    def turn(path, centre):
        x, y = (path - torch.tensor([centre, 0.0])).unbind(1)
        return (x[:-1] * y[1:] - y[:-1] * x[1:]).sign()

    assert (turn(forward, 1.0) == 1).all()
    assert (turn(backward, -1.0) == -1).all()


def test_observations_are_points_of_the_window_at_times_of_their_own():
    x = Series(*next(iter(load(observed=30).test.epoch(0))))
    assert (x.times.shape, x.values.shape, x.target_times.shape) == ((10, 30), (10, 30, 2), (10, 200))
    assert (x.times.diff(dim=1) > 0).all()
    assert not torch.equal(x.times[0], x.times[1])
    place = torch.searchsorted(x.target_times, x.times)
    assert place.max() < 100
    assert torch.equal(x.target_times.gather(1, place), x.times)
    assert torch.equal(x.noisy.gather(1, place[..., None].expand(-1, -1, 2)), x.values)
    assert (x.scope[:, :100] == WINDOW).all()
    assert torch.isin(x.scope[:, 100:], torch.tensor([IN_TRAINING_RANGE, FURTHER])).all()
    every = Series(*load(count=200).train.rows)
    reached = every.clean[every.scope == WINDOW][::9]
    distance = {code: torch.cdist(every.clean[every.scope == code][::9], reached).amin(1) for code in (2, 3)}
    assert distance[IN_TRAINING_RANGE].max() < 0.1 < distance[FURTHER].max()
    assert (x.noisy - x.clean).std().item() == pytest.approx(0.1, abs=0.005)


def test_the_same_seed_gives_the_same_numbers():
    a, b, other = load(), load(seed=7), load(**{"seed": 0})
    assert all(torch.equal(x, y) for x, y in zip(a.train.rows, b.train.rows))
    assert all(torch.equal(x, y) for x, y in zip(a.test.rows, other.test.rows))
    assert a.record == data.prepare("spirals", SMALL)
    assert data.prepare("spirals", SMALL | {"seed": 1})["sha256"] != a.record["sha256"]


def test_batches_are_a_function_of_seed_and_epoch():
    split = load().train
    assert len(split) == 100

    def keys(seed, epoch, start=0):
        return [batch[1].sum().item() for batch in load(seed).train.epoch(epoch, start)]

    assert keys(0, 3)[40:] == keys(0, 3, 40)
    assert keys(0, 0) != keys(0, 1)
    assert keys(0, 0) != keys(1, 0)
    batches = [batch[1] for batch in split.epoch(0)]
    for turn in (0, 5):  # three batches are one pass over the sixty
        passed = torch.cat(batches[3 * turn : 3 * turn + 3]).sum((1, 2)).sort().values
        assert torch.equal(passed, split.rows[1].sum((1, 2)).sort().values)
    assert [len(batch[0]) for batch in split.unshuffled(25).epoch(0)] == [25, 25, 10]


@pytest.mark.parametrize("options", [{"observed": 1}, {"observed": 101}, {"noise": -0.1}, {"count": 0}, {"seed": -1}])
def test_options_out_of_range(options):
    (key,) = options
    with pytest.raises(RequestError, match=rf"data\.{key}="):
        data.check("spirals", options)
