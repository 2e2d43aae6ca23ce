"""McNemar's exact test, seed by seed: p-values of scipy, Holm's correction by hand, and what is no comparison."""

import numpy
import pytest
import scipy.stats

from odenet_cli.errors import RequestError
from odenet_cli.report.mcnemar import Discordant, answers, holm, p_of, pairs
from odenet_cli.report.runs import read

LABEL = numpy.arange(1000, dtype=numpy.uint8) % 10


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
        return read(folder)

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
    (pair,) = pairs({"ResNet": better, "MLP": worse})
    assert pair.seeds == {0: (10, 40), 1: (9, 39)}
    seeds = [scipy.stats.binomtest(10, 50).pvalue, scipy.stats.binomtest(9, 48).pvalue]
    assert pair.adjusted == pytest.approx(max(seeds))
    assert pair.told == ("ResNet", "MLP")
    (turned,) = pairs({"MLP": worse, "ResNet": better})
    assert turned.told == ("ResNet", "MLP")


def test_seeds_that_disagree_who_is_better_tell_nothing(network):
    few, many = range(20), range(100, 200)
    (pair,) = pairs({"A": [network(0, few), network(1, many)], "B": [network(0, many), network(1, few)]})
    assert (pair.adjusted, pair.told) == (1.0, None)
    assert p_of([Discordant(3, 3)]) == 1.0


def test_only_the_same_seed_and_the_same_samples_are_compared(network, tmp_path, write):
    first, second = network(0, range(5)), network(1, range(9))
    assert pairs({"A": [first], "B": [second]}) == []
    assert pairs({"A": [first], "B": [network(0, range(5), LABEL[:500])]}) == []
    assert pairs({"A": [first], "B": [network(0, range(5), LABEL[::-1].copy())]}) == []
    old = read(write(tmp_path / "old"))
    assert answers(old) is None
    assert pairs({"A": [first], "B": [old]}) == []


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
        answers(run)
