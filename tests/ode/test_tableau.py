"""Every tableau has the order it claims: the conditions of all rooted trees, in exact arithmetic (Hairer II.2)."""

from __future__ import annotations

import copy
from fractions import Fraction
from functools import cache

import pytest
from ode_cases import ADAPTIVE, METHODS

from odenet_cli.ode import Adaptive, Tableau, method

# The book prints these rounded; the others are exact.
ROUNDED = {"tsit5", "dopri8"}
DENSE_ORDER = {"dopri8": 7, "dopri5": 4, "tsit5": 4}
# DOP853 combines estimates of order 5 and 3 into one that falls like h^8 (Hairer II.10).
EMBEDDED_ORDER = {"dopri8": 5}
THETAS = [Fraction(1, 7), Fraction(1, 2), Fraction(9, 10), Fraction(1)]


@cache
def trees(order):
    """The rooted trees with `order` nodes, each the sorted tuple of its root's children."""

    def forests(nodes, largest):
        if nodes == 0:
            yield ()
            return
        for size in range(min(nodes, largest[0]), 0, -1):
            for place, tree in enumerate(trees(size)):
                if (size, place) <= largest:
                    for rest in forests(nodes - size, (size, place)):
                        yield (tree, *rest)

    return tuple(forests(order - 1, (order, 10**9))) if order > 1 else ((),)


def nodes(tree):
    return 1 + sum(map(nodes, tree))


def density(tree):
    product = nodes(tree)
    for child in tree:
        product *= density(child)
    return product


def growth(tree, a):
    """The elementary weight at each stage: the product over the children of Σ_j a_ij (their weight)_j."""
    weights = [Fraction(1)] * len(a)
    for child in tree:
        inner = growth(child, a)
        weights = [w * sum((x * y for x, y in zip(row, inner)), Fraction(0)) for w, row in zip(weights, a)]
    return weights


def residual(a, b, order, theta=Fraction(1)):
    """The largest violation among the conditions of exactly this order, Σ b_i Φ_i = θ^order / γ."""
    gaps = []
    for tree in trees(order):
        total = sum((w * x for w, x in zip(b, growth(tree, a))), Fraction(0))
        gaps.append(abs(total - theta**order / density(tree)))
    return max(gaps)


def holds(name, gap):
    return gap < Fraction(1, 10**13) if name in ROUNDED else gap == 0


def test_there_are_as_many_trees_as_the_book_counts():
    assert [len(trees(n)) for n in range(1, 10)] == [1, 1, 2, 4, 9, 20, 48, 115, 286]


@pytest.mark.parametrize("name", METHODS)
def test_the_solution_has_its_order_and_no_more(name):
    table = method(name)
    for order in range(1, table.order + 1):
        assert holds(name, residual(table.a, table.b, order))
    assert residual(table.a, table.b, table.order + 1) > Fraction(1, 10**6)


@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_embedded_solution_has_its_order_and_no_more(name):
    table = method(name)
    solutions = [(table.b_star, EMBEDDED_ORDER.get(name, table.embedded_order))]
    solutions += [(table.b_third, 3)] if table.b_third else []
    for weights, highest in solutions:
        for order in range(1, highest + 1):
            assert holds(name, residual(table.a, weights, order))
        assert residual(table.a, weights, highest + 1) > Fraction(1, 10**6)


@pytest.mark.parametrize("name", METHODS)
def test_rows_add_up_to_their_nodes(name):
    table = method(name)
    for c, row in zip(table.c, table.a):
        assert holds(name, abs(c - sum(row, Fraction(0))))


def with_extra_stages(table):
    """The tableau with the stages that only the dense output has: its own, or the closing slope."""
    if table.dense:
        return (*table.a, *(row for _, row in table.extra))
    return table.a if table.fsal else (*table.a, table.b)


@pytest.mark.parametrize("name", METHODS)
def test_dense_output_has_its_order_at_every_theta(name):
    table = method(name)
    order = DENSE_ORDER.get(name, min(3, table.order))
    for theta in THETAS:
        b = [sum(x * theta**p for p, x in enumerate(row, start=1)) for row in table.dense_rows]
        for n in range(1, order + 1):
            gap = residual(with_extra_stages(table), b, n, theta)
            assert gap < Fraction(1, 10**13) if table.dense else gap == 0


@pytest.mark.parametrize("name", METHODS)
def test_dense_output_joins_value_and_slope_at_both_ends(name):
    table = method(name)
    closing = table.stages - 1 if table.fsal else table.stages
    for i, row in enumerate(table.dense_rows):
        weight = table.b[i] if i < table.stages else 0
        assert abs(sum(row) - weight) < Fraction(1, 10**13)
        assert abs(row[0] - (i == 0)) < Fraction(1, 10**13)
        assert abs(sum(p * x for p, x in enumerate(row, start=1)) - (i == closing)) < Fraction(1, 10**12)


def test_fractions_and_decimals_and_continued_lines_are_read_exactly():
    table = Tableau.parse("0 |\n 0.1 | 1/10\n ---+---\n b | 0.25 &\n 3/4", order=1)
    assert table.a[1] == (Fraction(1, 10),)
    assert table.b == (Fraction(1, 4), Fraction(3, 4))
    assert table.b_star is None
    assert not table.error_weights


@pytest.mark.parametrize(
    "text",
    [
        "0 |\n 1 | 1/2 1/2\n b | 1/2 1/2",
        "0 |\n 1 |\n b | 1/2 1/2",
        "0 |\n 1 | 1\n b | 1",
        "0 |\n 1 | 1\n b | 1/2 1/2\n b* | 1",
        "0 |\n 1 | one\n b | 1/2 1/2",
        "0 |\n 1 | 1",
        "",
    ],
    ids=["long row", "short row", "short b", "short b*", "a word", "no b", "nothing"],
)
def test_a_misprinted_tableau_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011 - the words differ
        Tableau.parse(text, order=1)


def test_a_copied_solver_has_its_own_settings_and_the_same_tableau():
    """Compiled steps are found by their tableau."""
    for name in ("dopri5", method("dopri5")):
        solve = Adaptive(method=name, rtol=1e-3, atol=1e-3)
        tableau, copied = solve.tableau, copy.deepcopy(solve)
        assert copied == solve
        assert copied.tableau is tableau


def test_dense_rows_must_match_the_stages():
    with pytest.raises(ValueError, match="tableau"):
        Tableau.parse("0 |\n b | 1", order=1, dense="1\n1")
