"""Experiments and reports name the same things: facts that are expected, rows, settings."""

import importlib
from pathlib import Path

import pytest
import yaml

from odenet_cli.analysis.measures import error_control
from odenet_cli.report.items import fig3, fig4, fig5, table1, table2
from odenet_cli.report.result import Result

ROOT = Path(__file__).parents[3] / "conf" / "experiment"
SECTIONS = {path.stem: yaml.safe_load(path.read_text()).get("reproduce", {}) for path in sorted(ROOT.glob("*.yaml"))}
SECTIONS = {item: sections[item] for item, sections in SECTIONS.items() if item in sections}
EXPECTED = {item: section["expect"] for item, section in SECTIONS.items()}
ROWS = {  # the rows that reports know by name
    "table1": {*table1.LOOKS, "ResNet-6", "MLP"},
    "table2": {*table2.LOOKS},
    "fig4": {f"{kind} {size}" for kind in fig4.KINDS for size in fig4.TINTS},
    "fig5": {*fig5.COLORS},
}


@pytest.mark.parametrize("item", EXPECTED)
def test_every_expected_fact_has_a_label(item):
    labels = importlib.import_module(f"odenet_cli.report.items.{item}").LABELS
    empty = Result(body=[], labels=labels)
    for facts in EXPECTED[item].values():
        for fact, (low, high) in facts.items():
            assert labels[fact.split("/")[0]].count("{}") == fact.count("/")
            assert "{}" not in empty.label(fact)
            assert low is not None or high is not None


def test_all_items_expect_something():
    assert len(EXPECTED) == 8


@pytest.mark.parametrize("item", ROWS)
def test_the_rows_of_a_report_are_those_of_its_experiment(item):
    section = SECTIONS[item]
    rows = {row for part in section["parts"].values() if isinstance(part["rows"], dict) for row in part["rows"]}
    assert ROWS[item] <= rows
    assert section.get("paper", {}).keys() <= rows


def test_the_settings_of_figure_3_are_those_measured():
    assert list(fig3.SETTINGS) == list(error_control.SETTINGS)
