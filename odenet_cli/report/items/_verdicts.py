"""Which rows of a table can be told apart, in words: what follows from McNemar's tests, and what does not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from odenet_cli.report.groups import Group
from odenet_cli.report.mcnemar import LEVEL, Pair
from odenet_cli.report.table import aligned
from odenet_cli.report.text import listed

Pairs = Sequence[Pair]
OLD = "these cells were trained before answers were kept (predictions.npz), so McNemar's test cannot be computed"


def sentence(pairs: Pairs, rows: Sequence[str]) -> str:
    """Return which of these rows differ, as a sentence without its full stop."""
    mine = [pair for pair in pairs if {pair.first, pair.second} <= set(rows)]
    if len(rows) < 2:
        return "There is no second network to tell it apart from"
    if not mine:
        return f"Whether {listed(rows)} differ is not known: {OLD}"
    told = [pair.told for pair in mine if pair.told]
    test = "McNemar's test on the same test samples"
    if not told:
        return f"{test} tells no two of {listed(rows)} apart"
    return f"{test} finds fewer errors with {'; '.join(f'{better} than {worse}' for better, worse in told)}"


def line(pairs: Pairs, groups: Mapping[str, Group]) -> str:
    """Return the paragraph below the table: which rows can be told apart, and what that is a statement of."""
    if not pairs:
        done = sum(bool(group.done) for group in groups.values())
        return f"Which rows can be told apart: {OLD}." if done > 1 else "There is nothing to compare yet."
    order = sorted(groups, key=lambda row: groups[row].mean("error") or 0.0)
    worse: dict[tuple[str, ...], list[str]] = {}  # what the same rows are better than
    for row in order:
        beaten = {pair.told[1] for pair in pairs if pair.told and pair.told[0] == row}
        worse.setdefault(tuple(sorted(beaten, key=order.index)), []).append(row)
    follows = [f"{_has(rows)} fewer errors than {listed(beaten)}" for beaten, rows in worse.items() if beaten]
    open_ = [listed(rows) for rows in untold(pairs, order)]
    seeds = max(len(pair.seeds) for pair in pairs)
    test = (
        f"McNemar's exact test at {100 * LEVEL:g} % on the same test samples, Holm's correction for {len(pairs)} pairs"
    )
    test += ", true of every seed" if seeds > 1 else ""
    text = f"**What follows** ({test}): {'; '.join(follows) or 'no row has fewer errors than another'}. "
    text += f"**What does not**: which is better of {'; of '.join(open_)}. " if open_ else ""
    one = "of one trained network a row, and another seed may turn them round"
    return text + f"These are statements {one if seeds == 1 else f'of {seeds} trainings a row'}, by one recipe."


def _has(rows: Sequence[str]) -> str:
    return f"{listed(rows)} {'have' if len(rows) > 1 else 'has'}"


def untold(pairs: Pairs, order: Sequence[str]) -> list[list[str]]:
    """Return the rows no two of which are told apart, as few groups as hold every such pair, in `order`."""
    left = [sorted((pair.first, pair.second), key=order.index) for pair in pairs if not pair.told]
    alike = {frozenset(pair) for pair in left}
    found: list[list[str]] = []
    for pair in sorted(left, key=lambda pair: [order.index(row) for row in pair]):
        if any(set(pair) <= set(rows) for rows in found):
            continue
        rows = list(pair)
        for row in order:
            if row not in rows and all(frozenset((row, one)) in alike for one in rows):
                rows.append(row)
        found.append(sorted(rows, key=order.index))
    return found


def details(pairs: Pairs) -> list[str]:
    """Return the counts behind it, by pair and seed; nothing where there are none."""
    if not pairs:
        return []
    seeds = sorted({seed for pair in pairs for seed in pair.seeds})
    rows = []
    for pair in pairs:
        counts = [pair.seeds.get(seed) for seed in seeds]
        cells = [f"{one.first} : {one.second} ({one.p:.2g})" if one else "" for one in counts]
        apart = pair.told[0] if pair.told else "not told apart"
        rows.append([f"{pair.first} : {pair.second}", *cells, f"{pair.adjusted:.2g}", apart])
    head = ["test samples that only one has wrong (p)", *(f"seed {seed}" for seed in seeds), "p, Holm", "fewer errors"]
    return [aligned(head, rows, left=1)]
