"""Write Markdown tables with their numbers, escaping the contents of cells; also lists of words."""

from __future__ import annotations

import re
from collections.abc import Sequence

MISSING = "–"  # a number that is not known
NUMBER = re.compile(r"[-–\d][-–\d.,e/± ]*")  # also "20 / 1.2e-05" and "0.110 ± 0.024"


def three_digits(value: float | None) -> str:
    """Return three significant digits; digits before the point are kept whole."""
    if value is None:
        return MISSING
    decimals = next((decimals for bound, decimals in ((100, 0), (10, 1), (1, 2)) if abs(value) >= bound), 3)
    return f"{value:.{decimals}f}"


def mean_count(value: float | None) -> str:
    """Return a mean of counts: 20 or 20.5."""
    return MISSING if value is None else f"{value:.1f}".removesuffix(".0")


def counted(number: int, thing: str) -> str:
    """Return how many there are: 1 step, 2,000 steps."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def join_words(words: Sequence[str], last: str = "and") -> str:
    """Return a, b and c."""
    return f" {last} ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """Return an aligned Markdown table; the first `left` columns hold words, and the last if any of it is no number."""
    head, *rows = [[cell.replace("|", r"\|") for cell in row] for row in (head, *rows)]
    widths = [max(map(len, column)) for column in zip(head, *rows)]
    is_text = [column < left for column in range(len(head))]
    is_text[-1] |= not all(NUMBER.fullmatch(row[-1]) for row in rows)

    def line(cells: Sequence[str]) -> str:
        padded = [cell.ljust(w) if text else cell.rjust(w) for cell, w, text in zip(cells, widths, is_text)]
        return "| " + " | ".join(padded) + " |"

    rule = "|".join("-" * (w + 2) if text else "-" * (w + 1) + ":" for w, text in zip(widths, is_text))
    return "\n".join([line(head), f"|{rule}|", *map(line, rows)])


def fitting_columns(
    head: Sequence[str], rows: Sequence[Sequence[str]], width: int | None, first: Sequence[int]
) -> list[int]:
    """Return the places of the columns of a table that fit into `width` (None: all), those of `first` before others."""
    widths = [max(map(len, column)) + 3 for column in zip(head, *rows)]
    shown, used = [], 1  # the last bar
    for place in dict.fromkeys((*first, *range(len(head)))):
        if width is None or used + widths[place] <= width:
            shown.append(place)
            used += widths[place]
    return sorted(shown)
