"""A part of the state that the tolerance does not judge rides along: it changes no step, and is integrated as well."""

import math

import pytest
import torch

from odenet_cli.ode import Adaptive

TOLERANCE = 1e-7
TS = [0.0, 2.0]


def circle(t, y):
    return torch.stack((y[1], -y[0]))


def with_work(t, state):
    return circle(t, state[0]), state[0][0] ** 2


def solver(method, **changes):
    return Adaptive(method=method, rtol=TOLERANCE, atol=TOLERANCE, compile=False, **changes)


@pytest.mark.parametrize("method", ["dopri5", "bosh3", "dopri8", "adams"])
@pytest.mark.parametrize("times", [TS, [0.0, 0.7, 2.0], TS[::-1]])
def test_a_quadrature_rides_along(method, times):
    y0 = torch.tensor([0.0, 1.0], dtype=torch.float64)
    plain = solver(method)(circle, y0, times)
    (y, work), stats = solver(method, n_controlled=1)(with_work, (y0, y0.new_zeros(())), times)
    assert (stats.nfe_forward, stats.accepted, stats.rejected) == (
        plain.stats.nfe_forward,
        plain.stats.accepted,
        plain.stats.rejected,
    )
    assert torch.allclose(y, plain.y, rtol=0, atol=1e-13)
    span = times[-1] - times[0]
    exact = span / 2 - math.sin(2 * span) / 4  # ∫ sin², from the start of the solve
    assert (work if len(times) == 2 else work[-1]).item() == pytest.approx(exact, abs=100 * TOLERANCE)


def test_a_wild_passenger_takes_no_steps():
    y0 = torch.tensor([0.0, 1.0], dtype=torch.float64)

    def wild(t, state):
        return circle(t, state[0]), torch.cos(300 * t)

    costs = [
        solver("dopri5", n_controlled=count)(wild, (y0, y0.new_zeros(())), TS).stats.nfe_forward for count in (1, None)
    ]
    assert 10 * costs[0] < costs[1]


def test_none_at_all_cannot_be_judged():
    with pytest.raises(ValueError, match=r"solver\.n_controlled=0"):
        solver("dopri5", n_controlled=0)
