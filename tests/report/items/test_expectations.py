"""Experiments and reports name the same things: facts that are expected, rows, settings."""

import importlib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from matplotlib.figure import Figure

from odenet_cli.analysis.measures import error_control
from odenet_cli.report.items import fig3, fig4, fig5, table1, table2
from odenet_cli.report.provenance import Provenance
from odenet_cli.report.result import About, Entry, Page, Result, result_of
from odenet_cli.report.runs import Run
from odenet_cli.report.text import seeds_text

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
    assert len(EXPECTED) == 9


@pytest.mark.parametrize("item", ROWS)
def test_the_rows_of_a_report_are_those_of_its_experiment(item):
    section = SECTIONS[item]
    rows = {row for part in section["parts"].values() if isinstance(part["rows"], dict) for row in part["rows"]}
    assert ROWS[item] <= rows
    assert section.get("paper", {}).keys() <= rows


def test_the_settings_of_figure_3_are_those_measured():
    assert list(fig3.SETTINGS) == list(error_control.SETTINGS)


def test_every_figure_names_its_preset_and_seeds(tmp_path):
    """In a line above the panels; a figure of one seed names that one, the others all that are done."""
    runs = [
        Run(folder=tmp_path, status=status, config={"seed": n}) for n, status in enumerate(("done", "done", "failed"))
    ]
    entries = [Entry("networks", "latent Poisson", run) for run in runs]
    made = result_of("fig7", entries, {"notes": []})
    made = replace(
        made, figures={"rates": Figure(), "errors": Figure()}, seeds={"rates": "seed 0", "errors": "seeds 0, 1"}
    )
    about = About(item="fig7", preset="cpu", text="", partial=("partial: 2 of 3 cells not done",))
    source = Provenance.of("odenet reproduce fig7", runs)
    Page(result=made, about=about, checks=[], source=source).write(tmp_path)
    assert made.figures["rates"]._suptitle.get_text() == "Figure 7, cpu preset (partial), seed 0"
    assert made.figures["errors"]._suptitle.get_text() == "Figure 7, cpu preset (partial), seeds 0, 1"
    assert seeds_text([2, 1, 0]) == "seeds 0–2"
