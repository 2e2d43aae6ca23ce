"""Spread, lines and tests equal those of scipy and of the textbook; what cannot be compared is not."""

import math

import numpy
import pytest
import scipy.stats

from odenet_cli.errors import RequestError
from odenet_cli.report.runs import read_run
from odenet_cli.report.statistics import (
    Discordant,
    combined_p,
    fit_exponent,
    fit_line,
    holm,
    mcnemar,
    over_seeds,
    predictions,
    spread,
)

LABEL = numpy.arange(1000, dtype=numpy.uint8) % 10


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
        ("nll_data", (-2.1, -2.0), -2.05 - 12.706204736174694 * 0.05, -2.05 + 12.706204736174694 * 0.05),
        ("r2", (-0.5, 0.9), 0.2 - 12.706204736174694 * 0.7, 1.0),
        ("r2_held_out", (0.98, 0.99), 0.985 - 12.706204736174694 * 0.005, 1.0),
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


def test_a_line_is_that_of_least_squares():
    x, y = numpy.arange(5.0), numpy.array([1.0, 2.5, 2.0, 4.0, 4.5])
    line = fit_line([*zip(x.tolist(), y.tolist()), (7, None), (math.nan, 1.0)])  # what is no number is left out
    slope, intercept = numpy.polyfit(x, y, 1)
    r2 = numpy.corrcoef(x, y)[0, 1] ** 2
    assert line == pytest.approx((slope, intercept, r2), rel=1e-9)
    assert line.at(2.0) == pytest.approx(intercept + 2 * slope)
    assert fit_exponent([(t, 3 * t**-0.7) for t in (1, 10, 100)]) == pytest.approx(-0.7)


def test_a_level_line_explains_everything():
    assert fit_line([(0, 2.0), (1, 2.0), (3, 2.0)]) == (0, 2, 1)


@pytest.mark.parametrize("points", [[], [(0, 1), (1, 2)], [(1, 0), (1, 1), (1, 2)]])
def test_without_three_points_or_two_abscissae_no_line(points):
    assert fit_line(points) is None


@pytest.fixture
def network(tmp_path, write):
    """A finished run of this seed whose answers to the samples `wrong` are wrong."""
    made = []

    def make(seed, wrong, label=LABEL):
        folder = write(tmp_path / str(len(made)), {"seed": seed}, error=len(wrong) / len(label))
        made.append(folder)
        predicted = label.copy()
        predicted[list(wrong)] = (label[list(wrong)] + 1) % 10
        numpy.savez_compressed(folder / "predictions.npz", predicted=predicted, label=label)
        return read_run(folder)

    return make


@pytest.mark.parametrize(("first", "second"), [(0, 0), (3, 3), (0, 5), (0, 6), (10, 25), (400, 460), (1, 2000)])
def test_p_is_that_of_the_exact_binomial_test(first, second):
    expected = scipy.stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert Discordant(first, second).p == pytest.approx(expected, rel=1e-9)


def test_holm_by_hand():
    """0.01 of four is 0.04; 0.02 of the three left 0.06; 0.03 of two would be 0.06; 0.5 stays."""
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([0.4, 0.4, 0.4]) == [1.0, 1.0, 1.0]
    assert holm([]) == []


def test_a_pair_counts_the_samples_that_just_one_has_wrong(network):
    better, worse = [network(s, range(s, 20 + s)) for s in range(2)], [network(s, range(10, 60)) for s in range(2)]
    (pair,) = mcnemar({"ResNet": better, "MLP": worse})
    assert pair.seeds == {0: (10, 40), 1: (9, 39)}
    seeds = [scipy.stats.binomtest(10, 50).pvalue, scipy.stats.binomtest(9, 48).pvalue]
    assert pair.adjusted == pytest.approx(max(seeds))
    assert pair.order == ("ResNet", "MLP")
    (turned,) = mcnemar({"MLP": worse, "ResNet": better})
    assert turned.order == ("ResNet", "MLP")


def test_seeds_that_disagree_who_is_better_tell_nothing(network):
    few, many = range(20), range(100, 200)
    (pair,) = mcnemar({"A": [network(0, few), network(1, many)], "B": [network(0, many), network(1, few)]})
    assert (pair.adjusted, pair.order) == (1.0, None)
    assert combined_p([Discordant(3, 3)]) == 1.0


def test_only_the_same_seed_and_the_same_samples_are_compared(network, tmp_path, write):
    first, second = network(0, range(5)), network(1, range(9))
    assert mcnemar({"A": [first], "B": [second]}) == []
    assert mcnemar({"A": [first], "B": [network(0, range(5), LABEL[:500])]}) == []
    assert mcnemar({"A": [first], "B": [network(0, range(5), LABEL[::-1].copy())]}) == []
    old = read_run(write(tmp_path / "old"))
    assert predictions(old) is None
    assert mcnemar({"A": [first], "B": [old]}) == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", "shapes", "names"])
def test_damaged_answers_are_refused_by_name(network, content):
    run = network(0, range(5))
    path = run.folder / "predictions.npz"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        name = "label" if content == "shapes" else "truth"
        numpy.savez_compressed(path, **{"predicted": LABEL, name: LABEL[1:]})
    with pytest.raises(RequestError, match=r"predictions\.npz is damaged"):
        predictions(run)
