"""Say in words which rows of a table differ significantly, by McNemar's tests, and which do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from odenet_cli.markdown import join_words, markdown_table
from odenet_cli.report.compare import Group
from odenet_cli.report.statistics import LEVEL, Pair, grouped

Pairs = Sequence[Pair]
NO_PREDICTIONS = (
    "these cells were trained before answers were kept (predictions.npz), so McNemar's test cannot be computed"
)


def sentence(pairs: Pairs, rows: Sequence[str]) -> str:
    """Return which of these rows differ, as a sentence without its full stop."""
    among = [pair for pair in pairs if {pair.first, pair.second} <= set(rows)]
    if len(rows) < 2:
        return "There is no second network to tell it apart from"
    if not among:
        return f"Whether {join_words(rows)} differ is not known: {NO_PREDICTIONS}"
    orders = [pair.order for pair in among if pair.order]
    test = "McNemar's test on the same test samples"
    if not orders:
        return f"{test} tells no two of {join_words(rows)} apart"
    return f"{test} finds fewer errors with {'; '.join(f'{better} than {worse}' for better, worse in orders)}"


def paragraph(pairs: Pairs, groups: Mapping[str, Group]) -> str:
    """Return the paragraph below the table: which rows can be told apart, and what that is a statement of."""
    if not pairs:
        done = sum(bool(group.done) for group in groups.values())
        return f"Which rows can be told apart: {NO_PREDICTIONS}." if done > 1 else "There is nothing to compare yet."
    order = sorted(groups, key=lambda row: groups[row].mean("error") or 0.0)
    worse_than = {row: {pair.order[1] for pair in pairs if pair.order and pair.order[0] == row} for row in order}
    better_by_worse = grouped((tuple(sorted(worse, key=order.index)), row) for row, worse in worse_than.items())
    follows = [
        f"{join_words(rows)} {'have' if len(rows) > 1 else 'has'} fewer errors than {join_words(worse)}"
        for worse, rows in better_by_worse.items()
        if worse
    ]
    undecided = [join_words(rows) for rows in indistinct_groups(pairs, order)]
    seeds = max(len(pair.seeds) for pair in pairs)
    test = (
        f"McNemar's exact test at {100 * LEVEL:g} % on the same test samples, Holm's correction for {len(pairs)} pairs"
    )
    test += ", true of every seed" if seeds > 1 else ""
    text = f"**What follows** ({test}): {'; '.join(follows) or 'no row has fewer errors than another'}. "
    text += f"**What does not**: which is better of {'; of '.join(undecided)}. " if undecided else ""
    single = "of one trained network a row, and another seed may turn them round"
    return text + f"These are statements {single if seeds == 1 else f'of {seeds} trainings a row'}, by one recipe."


def indistinct_groups(pairs: Pairs, order: Sequence[str]) -> list[list[str]]:
    """Return groups of rows no two of which differ, as few as hold every such pair, each in `order`."""
    open_pairs = [sorted((pair.first, pair.second), key=order.index) for pair in pairs if not pair.order]
    alike = {frozenset(pair) for pair in open_pairs}
    groups: list[list[str]] = []
    for pair in sorted(open_pairs, key=lambda pair: [order.index(row) for row in pair]):
        if any(set(pair) <= set(rows) for rows in groups):
            continue
        rows = list(pair)
        for row in order:
            if row not in rows and all(frozenset((row, member)) in alike for member in rows):
                rows.append(row)
        groups.append(sorted(rows, key=order.index))
    return groups


def details(pairs: Pairs) -> list[str]:
    """Return the table of counts, by pair and seed; empty where there are none."""
    if not pairs:
        return []
    seeds = sorted({seed for pair in pairs for seed in pair.seeds})
    rows = []
    for pair in pairs:
        counts = [pair.seeds.get(seed) for seed in seeds]
        cells = [f"{n.first} : {n.second} ({n.p:.2g})" if n else "" for n in counts]
        better = pair.order[0] if pair.order else "not told apart"
        rows.append([f"{pair.first} : {pair.second}", *cells, f"{pair.adjusted:.2g}", better])
    head = ["test samples that only one has wrong (p)", *(f"seed {seed}" for seed in seeds), "p, Holm", "fewer errors"]
    return [markdown_table(head, rows, left=1)]
