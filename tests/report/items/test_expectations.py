"""What an experiment expects names facts of its report."""

import importlib
from pathlib import Path

import pytest
import yaml

from odenet_cli.report.result import Result

ROOT = Path(__file__).parents[3] / "conf" / "experiment"
EXPECTED = {
    path.stem: section["expect"]
    for path in sorted(ROOT.glob("*.yaml"))
    if "expect" in (section := yaml.safe_load(path.read_text()).get("reproduce", {}).get(path.stem, {}))
}


@pytest.mark.parametrize("item", EXPECTED)
def test_every_expected_fact_has_a_label(item):
    labels = importlib.import_module(f"odenet_cli.report.items.{item}").LABELS
    empty = Result(title="", body=[], rows=[], labels=labels)
    for facts in EXPECTED[item].values():
        for fact, (low, high) in facts.items():
            assert labels[fact.split("/")[0]].count("{}") == fact.count("/")
            assert "{}" not in empty.label(fact)
            assert low is not None or high is not None


def test_all_items_expect_something():
    assert len(EXPECTED) == 8
