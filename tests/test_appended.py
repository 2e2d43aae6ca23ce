"""A line of JSON more: half a line that a kill left makes way for it, and nothing whole is lost."""

import json

import pytest

from odenet_cli.files import append_json


@pytest.mark.parametrize(
    ("before", "kept"),
    [
        ("", 0),
        ('{"a": 1}\n', 1),
        ('{"a": 1}\n{"a": 2', 1),
        ('{"a": 1}\n{"a": 2}', 2),  # an editor left the line break out
        ('{"a"', 0),
        ('{"a": 1}\n' + "x" * 500, 1),  # longer than what takes its place
        ("7", 0),
    ],
)
def test_half_a_line_makes_way(tmp_path, before, kept):
    path = tmp_path / "eval.jsonl"
    path.write_text(before)
    for value in (8, float("nan")):
        append_json(path, {"a": value})
    records = [json.loads(line)["a"] for line in path.read_text().splitlines()]
    assert records == [*range(1, kept + 1), 8, "nan"]
