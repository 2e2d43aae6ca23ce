"""Tables are Markdown that lines up, and JSON that holds the numbers behind it."""

from __future__ import annotations

import json

from odenet_cli.bench.measure import Row
from odenet_cli.bench.table import files, markdown, number, speed_table
from odenet_cli.ode import Stats

ROWS = [
    Row(subject="absent", failed="RuntimeError: no"),
    Row(subject="base", times_ms=[30.0, 10.0, 20.0], cost=Stats(nfe_forward=20), error=1e-4),
    Row(subject="twice as fast", times_ms=[10.0], cost=Stats(14, 12), error=2.5e-3),
]


def test_the_ratio_is_to_the_first_row_that_has_a_time():
    table = speed_table("Title", ROWS, floor=lambda row: 8.0 if row.subject.startswith("twice") else None)
    assert table.cells[1] == ["base", "20.0", "1.00", "20", "0", "1.0e-04", "–", "–"]
    assert table.cells[2] == ["twice as fast", "10.0", "2.00", "14", "12", "2.5e-03", "8.00", "1.25"]
    assert "the time of base over" in table.notes[0]


def test_times_that_vary_are_pointed_out():
    steady = Row(subject="steady", times_ms=[10.0, 10.0, 10.5, 11.0, 99.0])
    unsteady = Row(subject="unsteady", times_ms=[10.0, 10.0, 15.0, 15.0])
    assert speed_table("Title", [steady, unsteady]).notes[-1] == "Unsteady, as on a busy machine: unsteady."
    assert len(speed_table("Title", [steady]).notes) == 1


def test_columns_line_up_and_a_failure_takes_a_line():
    lines = markdown(speed_table("Title", ROWS)).splitlines()
    assert lines[0] == "### Title"
    rows = [line for line in lines if line.startswith("|")]
    assert len({len(line) for line in rows}) == 1
    assert rows[2].startswith("| absent        |    failed | ")
    assert "Failed: absent: RuntimeError: no" in lines
    assert len({line.count("|") for line in rows}) == 1


def test_numbers_have_three_digits():
    assert [number(x) for x in (None, 7, 1234.5, 12.34, 1.234, 0.1234)] == ["–", "7", "1234", "12.3", "1.23", "0.123"]


def test_files_hold_the_machine_the_table_and_every_time():
    made = files("w0-cpu", "w0: title", {"device": "CPU"}, [speed_table("Title", ROWS)])
    content = json.loads(made["w0-cpu.json"])
    assert content["made"] == {"device": "CPU"}
    assert content["tables"][0]["records"][1]["times_ms"] == [30.0, 10.0, 20.0]
    assert content["tables"][0]["records"][2]["ratio"] == 2.0
    assert made["w0-cpu.md"].startswith("# w0: title\n\n- device: CPU\n\n### Title\n")
