"""Is it still an ODE? McNemar's test by hand, what counts as finer, and what follows."""

from fractions import Fraction
from math import comb

import pytest

from odenet_cli.analysis.audit import conclude, is_finer, least_significant_loss, solvers_to_try
from odenet_cli.config.schema import SolverConfig
from odenet_cli.scores import mcnemar_p


@pytest.mark.parametrize(
    ("lost", "gained", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),  # 2 · 1/2
        (5, 0, 2 / 32),
        (0, 5, 2 / 32),
        (7, 0, 2 / 128),
        (8, 0, 2 / 256),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (2, 8, 2 * (1 + 10 + 45) / 1024),
        (3, 1, 2 * (1 + 4) / 16),
        (6, 6, 1.0),
    ],
)
def test_mcnemar_by_hand(lost, gained, p):
    assert mcnemar_p(lost, gained) == pytest.approx(p, rel=1e-10)


def test_mcnemar_is_exact_where_floats_would_not_be():
    exact = 2 * sum(Fraction(comb(1_300, k), 2**1_300) for k in range(601))
    assert mcnemar_p(600, 700) == pytest.approx(float(exact), rel=1e-10)
    assert mcnemar_p(4_000, 6_000) == mcnemar_p(6_000, 4_000) < 1e-80
    assert mcnemar_p(5_000, 0) == 0  # 2^-4999, below what a float holds


def test_the_least_loss_that_can_be_significant():
    assert mcnemar_p(8, 0) < 0.01 < mcnemar_p(7, 0)
    assert least_significant_loss(1_000) == 8 / 1_000


def row(rtol=None, accepted=1, order=1, error=0.1, p=1.0, is_finer=True):
    return {"rtol": rtol, "accepted": accepted, "order": order, "error": error, "p": p, "finer": is_finer}


EULER, RK4, DOPRI5, ADAMS = row(), row(order=4, accepted=4), row(1e-3, 6, 5), row(1e-3, 20, None)


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [
        (EULER, row(accepted=2), True),
        (EULER, row(accepted=1, order=4), False),  # as many steps
        (EULER, row(accepted=2, order=4), True),
        (EULER, row(1e-1, 3, 5), True),
        (RK4, row(accepted=16), False),  # of a lower order
        (RK4, row(accepted=5, order=5), True),
        (DOPRI5, row(1e-4, 9, 5), True),
        (DOPRI5, row(1e-4, 9, 3), True),  # the tolerance decides
        (DOPRI5, row(1e-3, 9, 8), False),
        (DOPRI5, row(1e-2, 9, 5), False),
        (DOPRI5, row(accepted=16, order=4), False),
        (row(1e-3, 5, 3), row(accepted=16, order=4), True),
        (ADAMS, row(accepted=64, order=4), False),  # of many orders
        (ADAMS, row(1e-4, 9, 5), True),
        (EULER, ADAMS, False),
    ],
)
def test_what_is_finer(own, other, expected):
    assert is_finer(other, own) is expected


def test_the_verdict():
    own = row(error=0.10, is_finer=False)
    harmless = row(error=0.15, p=0.02)  # a large loss by chance
    small = row(error=0.1019, p=1e-9)  # a sure loss, too small to matter
    coarser = row(error=0.9, p=0.0, is_finer=False)
    guilty, worse = row(error=0.11, p=0.009), row(error=0.13, p=0.001)
    assert conclude([own, harmless, small, coarser]) == ("ode", harmless)
    assert conclude([own, harmless, guilty, worse]) == ("not an ode", worse)
    assert conclude([own, coarser]) == ("open", None)
    better = row(error=0.05, p=1e-9)
    assert conclude([own, better]) == ("ode", better)


def spelled(solvers):
    return [(one.method, one.steps or one.rtol) for one in solvers]


def test_the_matrix_holds_the_usual_solvers_and_what_lies_beyond_the_own_one():
    steps, tolerances = [1, 2, 4, 8, 16], [1e-1, 1e-2, 1e-3, 1e-4, 1e-5]
    usual = [(method, n) for method in ("euler", "midpoint", "rk4") for n in steps]
    usual += [("dopri5", rtol) for rtol in tolerances]
    own = SolverConfig("euler", steps=1)
    assert spelled(solvers_to_try(own, "float32")) == [pair for pair in usual if pair != ("euler", 1)]
    own = SolverConfig("dopri5", rtol=1e-3, atol=1e-3)
    assert spelled(solvers_to_try(own, "float32")) == [pair for pair in usual if pair != ("dopri5", 1e-3)]
    assert all(one.atol == one.rtol for one in solvers_to_try(own, "float32"))

    found = spelled(solvers_to_try(SolverConfig("heun", steps=20), "float32"))
    assert {("heun", 1), ("heun", 40), ("heun", 80), ("rk4", 20), ("rk4", 80)} <= set(found)
    found = spelled(solvers_to_try(SolverConfig("bosh3", rtol=1e-5, atol=1e-5), "float32"))
    assert {("bosh3", 1e-1), ("bosh3", 1e-6), ("dopri5", 1e-6), ("dopri5", 1e-5)} <= set(found)
    assert ("bosh3", 1e-7) not in found  # float32 does not resolve it
    assert ("bosh3", 1e-7) in spelled(solvers_to_try(SolverConfig("bosh3", rtol=1e-5, atol=1e-5), "float64"))


def test_the_matrix_that_was_asked_for():
    own = SolverConfig("dopri5", rtol=1e-3, atol=1e-6, max_steps=77)
    made = solvers_to_try(own, "float32", tolerances=[1e-3, 1e-4], steps=[3])
    assert spelled(made) == [("euler", 3), ("midpoint", 3), ("rk4", 3), ("dopri5", 1e-4)]
    assert made[-1].atol == pytest.approx(1e-7)
    assert {one.max_steps for one in made} == {77}
