"""The recurrent baselines predict each observation from those before it, and go on by themselves."""

import pytest
import torch

from odenet_cli import models
from odenet_cli.errors import RequestError
from odenet_cli.models.common.series import interpolate

NAMES = ("rnn", "rnn_dt")


def build(name, **changes):
    torch.manual_seed(0)
    options = {"hidden": 25, "cell": "rnn", "pace": "gap"} | changes
    return models.model(name, options, shape=(2,), classes=0, solver=None).double()


def batch(series=5, points=7):
    generator = torch.Generator().manual_seed(1)
    times = (3 * torch.rand(series, points, generator=generator, dtype=torch.float64)).sort(1).values
    values = torch.randn(series, points, 2, generator=generator, dtype=torch.float64)
    return times, values, torch.ones(series, points, dtype=torch.bool)


def test_parameters():
    # start, inputs, recurrence and two biases, mean and log σ of two coordinates
    assert sum(p.numel() for p in build("rnn").parameters()) == 25 + 2 * 25 + 25 * 25 + 2 * 25 + 25 * 4 + 4
    assert sum(p.numel() for p in build("rnn_dt").parameters()) == 25 + 3 * 25 + 25 * 25 + 2 * 25 + 25 * 4 + 4


@pytest.mark.parametrize("name", NAMES)
def test_a_prediction_knows_only_what_came_before(name):
    network, (times, values, seen) = build(name), batch()
    before = network.forecast(times, values, seen)
    values[:, 4] += 1.0
    after = network.forecast(times, values, seen)
    assert torch.equal(before.mean[:, :5], after.mean[:, :5])
    assert (before.mean[:, 5] != after.mean[:, 5]).all()
    assert (after.spread > 0).all()


def test_only_one_of_them_is_told_the_times():
    times, values, seen = batch()
    moved = times + 0.1 * torch.arange(7)
    for name, told in (("rnn", False), ("rnn_dt", True)):
        network = build(name)
        before, after = (network.forecast(t, values, seen).mean for t in (times, moved))
        assert torch.equal(before, after) is not told


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pace", ["gap", "time"])
def test_padding_changes_nothing(name, pace):
    network, (times, values, seen) = build(name, pace=pace), batch()
    seen[1, 3:], seen[2, 1:] = False, False
    at = torch.linspace(0, 6, 11, dtype=torch.float64).repeat(5, 1)
    whole = network.forecast(times, values, seen, at)
    for n in (1, 2, 4):
        keep, row = seen[n], slice(n, n + 1)
        alone = network.forecast(times[row, keep], values[row, keep], seen[row, keep], at[row])
        assert torch.allclose(whole.mean[row, keep], alone.mean, atol=1e-14)
        assert torch.allclose(whole.path[row], alone.path, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pace", ["gap", "time"])
def test_a_free_run_feeds_on_its_own_predictions(name, pace):
    network = build(name, pace=pace)
    times = torch.arange(6, dtype=torch.float64)[None] / 2
    values = batch(1, 6)[1]
    at = torch.arange(12, dtype=torch.float64)[None] / 2  # six more, as far apart as those observed
    found = network.forecast(times, values, torch.ones(1, 6, dtype=torch.bool), at).path
    known, times_known = values, times
    for _ in range(6):
        grown = torch.cat((times_known, times_known[:, -1:] + 0.5), 1)
        room = torch.cat((known, torch.zeros_like(known[:, :1])), 1)  # the prediction of what is not known yet
        mean = network.forecast(grown, room, torch.ones_like(grown, dtype=torch.bool)).mean
        known, times_known = torch.cat((known, mean[:, -1:]), 1), grown
    assert torch.allclose(found[:, 6:], known[:, 6:], atol=1e-12)


def test_the_pace_of_a_free_run():
    times, values, seen = batch(1, 3)
    times = torch.tensor([[0.0, 1.0, 2.0]], dtype=torch.float64)
    at = torch.tensor([[2.5, 3.0, 3.5, 4.0]], dtype=torch.float64)
    by_gap, by_time = (build("rnn", pace=pace).forecast(times, values, seen, at).path for pace in ("gap", "time"))
    assert torch.allclose(by_gap[:, 1], by_time[:, 0])  # the first step reaches t = 3, or t = 2.5
    assert torch.allclose(by_gap[:, 3], by_time[:, 1])


@pytest.mark.parametrize("pace", ["gap", "time"])
def test_a_free_run_reaches_all_that_is_to_be_predicted(pace, caplog):
    """1,100 times behind the window take 1,100 steps: the prediction changes up to the last of them."""
    network, values, seen = build("rnn", pace=pace), batch(1, 3)[1], torch.ones(1, 3, dtype=torch.bool)
    with torch.no_grad():
        network.cell.weight_hh_l0.copy_(1.2 * torch.linalg.qr(torch.randn(25, 25).double())[0])  # it never settles
        whole = network.forecast(torch.arange(3).double()[None], values, seen, torch.arange(1103).double()[None]).path
    assert (whole[0].diff(dim=0).abs().amax(1) > 1e-6).all()
    assert not caplog.messages


@pytest.mark.parametrize("pace", ["gap", "time"])
def test_a_series_asked_of_its_window_alone_has_no_free_run(pace):
    """Beside one that has: its path is the one that it has by itself."""
    network, times, values = build("rnn", pace=pace), torch.arange(3).double().repeat(2, 1), batch(2, 3)[1]
    at, seen = torch.stack((torch.linspace(0.1, 1.7, 21), torch.linspace(0.5, 8, 21))).double(), values[..., 0] != 9
    beside = network.forecast(times, values, seen, at).path[:1]
    assert torch.allclose(beside, network.forecast(times[:1], values[:1], seen[:1], at[:1]).path, atol=1e-12)


def test_a_free_run_that_is_cut_says_so(caplog):
    """Once for each model: the next job of a sweep, in the same process, has a log of its own."""
    values, seen = batch(1, 3)[1], torch.ones(1, 3, dtype=torch.bool)
    at = torch.tensor([[1.0, 5000.0]], dtype=torch.float64)
    for jobs in (1, 2):
        network = build("rnn")
        for _ in range(2):
            network.forecast(torch.arange(3).double()[None], values, seen, at)
        assert len(caplog.messages) == jobs
    assert caplog.messages[0].startswith("A free run of 1,000 steps")


def test_straight_lines_between():
    times = torch.tensor([[0.0, 1.0, 1.0, 3.0]])
    values = torch.tensor([[[0.0], [2.0], [2.0], [4.0]]])
    at = torch.tensor([[-1.0, 0.5, 1.0, 2.0, 9.0]])
    assert interpolate(times, values, at).flatten().tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert interpolate(times[:, :1], values[:, 1:2], at).flatten().tolist() == [2.0] * 5  # one place has no neighbour


def test_bad_options_are_refused():
    for change, part in (({"hidden": 0}, "model.hidden=0"), ({"pace": "x"}, "model.pace=x"), ({"cell": "x"}, "cell=x")):
        with pytest.raises(RequestError, match=part):
            build("rnn", **change)
