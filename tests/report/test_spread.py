"""Mean, standard deviation and interval are those of the textbook."""

import math

import pytest
import scipy.stats

from odenet_cli.report.spread import over_seeds, spread, student_t


@pytest.mark.parametrize(("df", "t"), [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (10, 2.228), (100, 1.984)])
def test_t_as_it_is_printed(df, t):
    assert student_t(df) == pytest.approx(t, abs=5e-4)


@pytest.mark.parametrize("df", range(1, 40))
@pytest.mark.parametrize("level", [0.5, 0.9, 0.95, 0.999])
def test_t_against_scipy(df, level):
    assert student_t(df, level) == pytest.approx(scipy.stats.t.ppf((1 + level) / 2, df), rel=1e-9)


def test_by_hand():
    """1, 2, 3, 4: the deviations square to 5; 5 / 3 is 1.2910 squared, and 3.1824 * 1.2910 / 2 is 2.0543."""
    found = spread([1.0, 2.0, 3.0, 4.0])
    assert (found.n, found.mean) == (4, 2.5)
    assert found.sd == pytest.approx(math.sqrt(5 / 3))
    assert (found.low, found.high) == pytest.approx((2.5 - 2.0543, 2.5 + 2.0543), abs=1e-4)


def test_one_seed_has_no_deviation():
    assert spread([0.3]) == (1, 0.3, None, None, None)


def test_runs_of_one_seed_count_once():
    found = over_seeds([(0, 1.0), (0, 3.0), (1, 4.0), (2, None)])
    assert found is not None
    assert (found.n, found.mean) == (2, 3.0)
    assert found.sd == pytest.approx(math.sqrt(2))
    assert over_seeds([(0, None)]) is None
