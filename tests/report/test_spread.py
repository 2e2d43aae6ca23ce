"""Mean, standard deviation and interval are those of the textbook; no interval leaves the range of its number."""

import math

import pytest
import scipy.stats

from odenet_cli.report.spread import over_seeds, spread


@pytest.mark.parametrize("n", [2, 3, 4, 10, 40])
def test_the_interval_is_scipys(n):
    values = [math.sin(7.0 * place) for place in range(n)]
    found = spread(values)
    expected = scipy.stats.t.interval(0.95, n - 1, loc=found.mean, scale=scipy.stats.sem(values))
    assert (found.low, found.high) == pytest.approx(expected, rel=1e-9)


def test_by_hand():
    """1, 2, 3, 4: the deviations square to 5; 5 / 3 is 1.2910 squared, and 3.1824 * 1.2910 / 2 is 2.0543."""
    found = spread([1.0, 2.0, 3.0, 4.0])
    assert (found.n, found.mean) == (4, 2.5)
    assert found.sd == pytest.approx(math.sqrt(5 / 3))
    assert (found.low, found.high) == pytest.approx((2.5 - 2.0543, 2.5 + 2.0543), abs=1e-4)


def test_one_seed_has_no_deviation():
    assert spread([0.3]) == (1, 0.3, None, None, None)


def test_equal_seeds_have_no_interval():
    """Two nets of the same error by chance do not mean that a third would have it."""
    assert spread([0.0667, 0.0667]) == (2, 0.0667, 0.0, None, None)


@pytest.mark.parametrize(
    ("name", "values", "low", "high"),
    [
        ("error", (0.2, 0.35), 0.0, 1.0),  # 12.7 standard errors each way
        ("error", (0.0, 0.01, 0.0), 0.0, 0.01 / 3 + 4.302652729911275 * 0.01 / 3),
        ("error", (1.0, 0.9, 1.0), 1 - 0.1 / 3 - 4.302652729911275 * 0.1 / 3, 1.0),
        ("outside", (0.5, 0.9), 0.0, 1.0),
        ("rmse_further_clean", (0.1, 0.5), 0.0, 0.3 + 12.706204736174694 * 0.2),
        ("rate_error", (0.1, 0.5), 0.0, 0.3 + 12.706204736174694 * 0.2),
        ("nll", (0.1, 0.5), 0.3 - 12.706204736174694 * 0.2, 0.3 + 12.706204736174694 * 0.2),
    ],
)
def test_an_interval_holds_no_mean_that_cannot_be(name, values, low, high):
    found = over_seeds(enumerate(values), name)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


def test_runs_of_one_seed_count_once():
    found = over_seeds([(0, 1.0), (0, 3.0), (1, 4.0), (2, None)], "loss")
    assert found is not None
    assert (found.n, found.mean) == (2, 3.0)
    assert found.sd == pytest.approx(math.sqrt(2))
    assert over_seeds([(0, None)], "loss") is None
