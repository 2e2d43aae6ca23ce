"""Events are drawn from the rates that come with them."""

import pytest
import torch

from odenet_cli import data
from odenet_cli.data import poisson
from odenet_cli.data.common.events import Events
from odenet_cli.errors import RequestError

SMALL = {"count": 20, "validation": 5, "test": 200}


def load(**options):
    how = {"batch_size": 10, "eval_batch_size": 500, "seed": 0, "device": torch.device("cpu"), "dtype": torch.float64}
    return data.load("poisson", SMALL | options, **how)


def test_rates_integrate_to_what_is_expected_and_events_follow_them():
    x = Events(*next(iter(load().test.epoch(0))))
    whole = torch.trapezoid(x.rate, x.grid)
    assert torch.allclose(whole, torch.full_like(whole, 250.0), rtol=1e-3)
    assert (x.rate > 0).all()
    # 200 sequences of 250: the mean has a standard error of √(250 / 200) = 1.1, a share of quarters about the same.
    assert x.event_mask.sum(1).double().mean().item() == pytest.approx(250, abs=4)
    quarters = x.event_mask & (x.times < poisson.END / 4)
    wanted = torch.trapezoid(x.rate[:, :51], x.grid[:, :51]).mean()
    assert quarters.sum(1).double().mean().item() == pytest.approx(wanted.item(), abs=3)


def test_what_belongs_together_fits():
    x = Events(*next(iter(load().test.epoch(0))))
    assert (x.times.where(x.event_mask, 1e9).diff(dim=1) >= 0).all()
    assert (x.times < poisson.END).all()
    mean = 250 / poisson.BINS
    counts = x.counts[..., 0] * mean**0.5 + mean
    assert torch.allclose(counts.sum(1), x.event_mask.sum(1).double())
    place = torch.searchsorted(x.grid.contiguous(), x.times)[x.event_mask]
    at = x.grid[0][place]
    near = (at - x.times[x.event_mask]).abs() < 1e-9
    rows = torch.arange(len(x.times))[:, None].expand_as(x.times)[x.event_mask]
    assert near.any()
    assert torch.allclose(x.rate[rows, place][near].log(), x.log_rate[x.event_mask][near])


def test_the_same_seed_gives_the_same_events():
    assert all(torch.equal(a, b) for a, b in zip(load().train.rows, load().train.rows))
    assert data.prepare("poisson", SMALL)["sha256"] != data.prepare("poisson", SMALL | {"seed": 1})["sha256"]
    with pytest.raises(RequestError, match=r"data\.expected=0\.5"):
        data.check("poisson", {"expected": 0.5})
