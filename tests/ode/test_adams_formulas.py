"""The formulas of Adams in Nordsieck form are the classical ones, in exact arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import lru_cache

import numpy as np
import pytest
from ode_cases import doubles

from odenet_cli.ode.methods.adams import formula, order_change_polynomial
from odenet_cli.ode.multistep.nordsieck import change_order


def poly_times(p, q):
    made = [Fraction(0)] * (len(p) + len(q) - 1)
    for i, a in enumerate(p):
        for j, b in enumerate(q):
            made[i + j] += a * b
    return made


def antiderivative(p):
    return [Fraction(0), *(a / n for n, a in enumerate(p, start=1))]


def value(p, x):
    return sum(a * x**n for n, a in enumerate(p))


@lru_cache
def lagrange(points, i):
    """The polynomial that is 1 at points[i] and 0 at the others."""
    made = [Fraction(1)]
    for j, x in enumerate(points):
        if j != i:
            made = poly_times(made, [-x / (points[i] - x), 1 / (points[i] - x)])
    return made


def weights(points, start, end):
    """Those of the slopes at `points` in the integral from `start` to `end` of their interpolant."""
    return list(_weights(tuple(points), start, end))


@lru_cache
def _weights(points, start, end):
    parts = [antiderivative(lagrange(points, i)) for i in range(len(points))]
    return tuple(value(p, end) - value(p, start) for p in parts)


def grid(q, even):
    """q + 2 points, the new one at 0 and the one before it at -1, the step being the unit."""
    rng = np.random.default_rng(q)
    steps = [Fraction(1)] * (q + 1) if even else [Fraction(1), *(Fraction(int(n), 7) for n in rng.integers(3, 20, q))]
    return [-sum(steps[:n], start=Fraction(0)) for n in range(q + 2)]


def step(q, points, slope):
    """Predicted state, corrected state and e of one step in Nordsieck form, y being 0 at -1, for y' = `slope`(x)."""
    made = formula([-x for x in points[1:]])
    past = points[1 : q + 1]
    parts = [[slope(x) * a for a in lagrange(tuple(past), i)] for i, x in enumerate(past)]
    y = antiderivative([sum(column) for column in zip(*parts)])
    predicted = value(y, 0) - value(y, Fraction(-1))
    e = (slope(Fraction(0)) - y[1]) / made.correct[1]
    return predicted, predicted + e, e, made


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("q", range(1, 13))
def test_the_corrector_is_adams_moulton_predicted_by_adams_bashforth(q, even):
    points = grid(q, even)
    for i in range(q + 1):  # a slope of 1 at one point only
        predicted, y, _, _ = step(q, points, lambda x, i=i: Fraction(x == points[i]))
        bashforth, moulton = weights(points[1 : q + 1], -1, 0), weights(points[:q], -1, 0)
        assert predicted == (bashforth[i - 1] if i else 0)
        assert y == (moulton[i] if i < q else 0)
    if even and q == 4:
        assert weights(points[1:5], -1, 0) == [Fraction(n, 24) for n in (55, -59, 37, -9)]
        assert weights(points[:4], -1, 0) == [Fraction(n, 24) for n in (9, 19, -5, 1)]


@pytest.mark.parametrize("even", [True, False])
@pytest.mark.parametrize("q", range(1, 13))
def test_the_error_estimates_are_exact_where_one_derivative_is_constant(q, even):
    """For the order in use y of degree q + 1, for the one below q, for the one above q + 2."""
    points = grid(q, even)

    def error(order, degree):
        """y - its approximation, for y = x^degree."""
        slope = [degree * x ** (degree - 1) for x in points]
        return -((-1) ** degree) - sum(w * k for w, k in zip(weights(points[:order], -1, 0), slope))

    _, _, e, made = step(q, points, lambda x: (q + 1) * x**q)
    assert abs(error(q, q + 1)) == made.error * abs(e)
    assert e == made.difference * math.factorial(q + 1)
    if q > 1:
        assert abs(error(q - 1, q)) == made.lower  # z_q is 1

    # The same from one step earlier, in its own unit: for y of degree q + 2 the change of e is the next derivative's.
    unit = points[1] - points[2]
    points_before = [(x - points[1]) / unit for x in points[1:]]
    before = [*points_before, points_before[-1] - 1]
    xi = [-x for x in before[1 : q + 2]]
    slope = {x: (q + 2) * y ** (q + 1) * unit for x, y in zip(before, points[1:])}
    past = before[1 : q + 1]
    predicted = sum(slope[x] * value(lagrange(tuple(past), i), Fraction(0)) for i, x in enumerate(past))
    earlier = formula(xi)
    e_before = (slope[Fraction(0)] - predicted) / earlier.correct[1]
    _, _, e, made = step(q, points, lambda x: (q + 2) * x ** (q + 1))
    carried = made.difference / earlier.difference / unit ** (q + 1)
    assert made.higher * abs(e - carried * e_before) == abs(error(q + 1, q + 2))


@pytest.mark.parametrize("q", range(2, 13))
def test_a_change_of_order_keeps_the_slopes_that_the_other_formula_looks_at(q):
    """Down from q and up again: the polynomial of degree q + 1 that is x^(q+1) comes back."""
    points = grid(q, even=False)
    xi = [-x for x in points[1:]]
    slopes = {x: (q + 1) * x**q for x in points}

    def interpolant(n):
        """Of the first n slopes, as a Nordsieck array at 0, where y is 0."""
        parts = [[slopes[x] * a for a in lagrange(tuple(points[:n]), i)] for i, x in enumerate(points[:n])]
        return antiderivative([sum(column) for column in zip(*parts)])

    up, high = interpolant(q), interpolant(q + 1)
    _, _, e, made = step(q, points, lambda x: slopes.get(x))
    top = e / (made.difference * math.factorial(q + 1))
    assert [a + b * top for a, b in zip([*up, 0], order_change_polynomial(xi[: q - 1]))] == high
    low = interpolant(q - 1)
    assert [a - b * up[-1] for a, b in zip(up, order_change_polynomial(xi[: q - 2]))] == [*low, 0]

    arrays = [[(doubles(float(a)),) for a in p] for p in (low, up, high)]
    down, up = ([float(a) for a in order_change_polynomial(xi[:n])] for n in (q - 2, q - 1))
    factor = float(1 / (made.difference * math.factorial(q + 1)))
    for found, known in (
        (change_order(arrays[1], (), down, None), arrays[0]),
        (change_order(arrays[1], (doubles(float(e)),), up, factor), arrays[2]),
    ):
        assert len(found) == len(known)
        size = max(x.abs().max().item() for (x,) in (*found, *known, *arrays[1])) * max(map(abs, up))
        assert all((x - y).abs().item() <= 1e-13 * size for (x,), (y,) in zip(found, known))
