"""The committed pages show on GitHub what they say."""

import re
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[2] / "results"
PAGES = [path.relative_to(RESULTS) for path in (*RESULTS.glob("*.md"), *RESULTS.glob("*/*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_row_has_the_cells_of_its_head(page):
    """A bar that is not escaped ends a cell, and those that are too many are not shown."""
    head = None
    for line in (RESULTS / page).read_text(encoding="utf-8").splitlines():
        cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else None
        assert not (cells and head) or cells == head, line
        head = cells


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_figure_is_there(page):
    for name in re.findall(r"!\[.*?\]\((.*?)\)", (RESULTS / page).read_text(encoding="utf-8")):
        assert (RESULTS / page).parent.joinpath(name).is_file(), name
