"""Halving the step divides the error by 2^order, and a tolerance buys what it says."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from ode_cases import ADAPTIVE, METHODS, doubles
from scipy.integrate import solve_ivp

from odenet_cli.ode import Adaptive, Fixed, method


def waves(t, y):
    """y' = y cos t, whose solution is y0 exp(sin t)."""
    return y * torch.cos(t)


# Few enough steps to stay far above rounding, many enough to see only the leading term (Tsitouras made it small).
STEPS = {1: 512, 2: 64, 3: 32, 4: 16, 5: 64, 8: 8}


@pytest.mark.parametrize("name", METHODS)
def test_error_falls_with_the_order(name):
    a, y0, ts = doubles([-0.1, 2.0], [-2.0, -0.1]), doubles(2.0, 0.0), doubles(0.0, 3.0)
    exact, steps = torch.linalg.matrix_exp(a * 3) @ y0, STEPS[method(name).order]

    def error(n):
        return (Fixed(method=name, steps=n)(lambda t, y: a @ y, y0, ts).y - exact).norm().item()

    slope = np.polyfit([0, -1, -2], [math.log2(error(steps * 2**n)) for n in range(3)], 1)[0]
    assert slope == pytest.approx(method(name).order, abs=0.2)


@pytest.mark.parametrize("name", ADAPTIVE)
@pytest.mark.parametrize("tol", [1e-3, 1e-6, pytest.param(1e-9, marks=pytest.mark.numerics)])
def test_closed_forms_are_met_at_every_tolerance(name, tol):
    if method(name).order < 3 and tol < 1e-6:
        pytest.skip("a method of order 2 takes too many steps")
    solve = Adaptive(method=name, rtol=tol, atol=tol, max_steps=100_000)
    ts = doubles(0.0, 3.0)
    assert solve(lambda t, y: -y, doubles(1.0), ts).y.item() == pytest.approx(math.exp(-3), abs=10 * tol)
    assert solve(waves, doubles(1.0), ts).y.item() == pytest.approx(math.exp(math.sin(3)), abs=20 * tol)
    logistic = solve(lambda t, y: y * (1 - y), doubles(0.1), ts).y.item()
    assert logistic == pytest.approx(1 / (1 + 9 * math.exp(-3)), abs=10 * tol)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_linear_systems_follow_the_matrix_exponential_both_ways(name):
    torch.manual_seed(0)
    a, y0 = torch.randn(4, 4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    solve = Adaptive(method=name, rtol=1e-7, atol=1e-7, max_steps=100_000)
    for ends in ((0.0, 1.0), (1.0, -0.5)):
        y = solve(lambda t, y: a @ y, y0, doubles(*ends)).y
        assert torch.allclose(y, torch.linalg.matrix_exp(a * (ends[1] - ends[0])) @ y0, atol=2e-6)


@pytest.mark.numerics
@pytest.mark.parametrize("name", [name for name in ADAPTIVE if method(name).order >= 5])
def test_a_fifth_order_method_is_as_good_as_scipys(name):
    """Van der Pol with μ = 1 against DOP853 at 1e-13: no more error than RK45 at the same tolerance, times ten."""

    def field(t, y):
        return torch.stack([y[1], (1 - y[0] ** 2) * y[1] - y[0]])

    def numpy_field(t, y):
        return [y[1], (1 - y[0] ** 2) * y[1] - y[0]]

    exact = solve_ivp(numpy_field, (0, 10), [2, 0], method="DOP853", rtol=1e-13, atol=1e-13).y[:, -1]
    for tol in (1e-4, 1e-7, 1e-10):
        theirs = np.abs(solve_ivp(numpy_field, (0, 10), [2, 0], method="RK45", rtol=tol, atol=tol).y[:, -1] - exact)
        y = Adaptive(method=name, rtol=tol, atol=tol)(field, doubles(2.0, 0.0), doubles(0.0, 10.0)).y
        assert np.abs(y.numpy() - exact).max() <= 10 * max(theirs.max(), tol)
