"""What is measured on a trained ODE-Net: errors fall with the tolerance, and no row is measured twice."""

import json
from collections import Counter
from itertools import pairwise

import pytest

from odenet_cli.training.gradcheck import Gradcheck
from odenet_cli.training.measures import Rows, error_control

pytestmark = pytest.mark.numerics

TOLERANCES = [1e-1, 1e-2, 1e-3, 1e-4, 1e-6]
OPTIONS = {
    "tolerances": TOLERANCES,
    "reference": 1e-9,
    "batches": 2,
    "samples": 4,
    "repeats": 2,
    "gradient": {"tolerances": [1e-1, 1e-3], "reference": 1e-7, "batches": 1, "samples": 4},
}


@pytest.fixture
def network(train):
    return train("model=odenet", "model.width=4", "trainer.batch_size=8", "trainer.max_steps=3")


@pytest.fixture
def made(monkeypatch):
    """How often what costs was done."""
    found = Counter()

    def counted(owner, name):
        real = getattr(owner, name)

        def wrapped(*arguments):
            found[name] += 1
            return real(*arguments)

        monkeypatch.setattr(owner, name, wrapped)

    counted(error_control, "seen")
    counted(Gradcheck, "row")
    counted(Gradcheck, "reference")
    return found


def measure(folder, **options):
    return error_control.measure(folder, {**OPTIONS, **options}, lambda line: None)


def test_errors_fall_with_the_tolerance_and_nothing_is_measured_twice(network, made):
    rows = measure(network)
    kinds = Counter(row["kind"] for row in rows)
    assert kinds == {"solve": 10, "time": 5, "gradient": 8}
    assert made["seen"] == 2 + 10 + 5 * 2  # references, solves, rounds
    assert made["row"] == 8
    for batch in (0, 1):
        found = [row for row in rows if row["kind"] == "solve" and row["batch"] == batch]
        assert [row["rtol"] for row in found] == TOLERANCES
        errors, nfe = [row["error"] for row in found], [row["nfe"] for row in found]
        assert all(tighter < looser for looser, tighter in pairwise(errors))
        assert errors[-1] < 1e-5
        assert nfe == sorted(nfe)
    for row in rows:
        if row["kind"] == "gradient" and "relative" in row["setting"] and row["rtol"] == 1e-3:
            assert row["error"] < 0.05
            assert row["nfe_backward"] > 0

    before = dict(made)
    assert measure(network) == rows
    assert dict(made) == before

    more = measure(network, tolerances=[*TOLERANCES, 1e-7])
    assert Counter(row["kind"] for row in more)["solve"] == 12
    assert made["row"] == before["row"]

    # The power goes while a row is written, in the middle of a number.
    path = network / "error_control.jsonl"
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if '"gradient"' in line)
    lost = json.loads(lines[-1])
    assert place < len(lines) - 1
    path.write_text(whole[: -len(lines[-1]) // 2])
    rows_before = made["row"] + made["seen"]
    again = measure(network, tolerances=[*TOLERANCES, 1e-7])
    assert made["row"] + made["seen"] > rows_before
    keys = [json.dumps({k: row[k] for k in row if k in ("kind", "setting", "rtol", "batch")}) for row in again]
    assert len(keys) == len(set(keys)) == len(more)
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert Counter(row["kind"] for row in found) == Counter(row["kind"] for row in more)
    assert [row for row in again if row["kind"] == lost["kind"] and row["rtol"] == lost["rtol"]]


def test_a_half_written_line_is_cut_off_and_the_rest_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = Rows(path)
    rows.put({"rtol": 0.1}, {"error": 1.0})
    rows.put({"rtol": 0.01}, {"error": float("nan")})
    path.write_bytes(path.read_bytes() + '{"rtol": 0.001, "error": "é'.encode()[:-1])
    again = Rows(path)
    assert again.missing([{"rtol": 0.1}, {"rtol": 0.01}, {"rtol": 0.001}]) == [{"rtol": 0.001}]
    assert again.get({"rtol": 0.01}) == {"rtol": 0.01, "error": "nan"}
    again.put({"rtol": 0.001}, {"error": 2.0})
    assert [json.loads(line)["rtol"] for line in path.read_text().splitlines()] == [0.1, 0.01, 0.001]
