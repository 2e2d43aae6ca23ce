"""What is measured on a trained ODE-Net: errors fall with the tolerance, and no row is measured twice."""

import json
from collections import Counter
from itertools import pairwise

import pytest

from odenet_cli.analysis.gradcheck import Gradcheck
from odenet_cli.analysis.measures import Rows, error_control

pytestmark = pytest.mark.numerics

TOLERANCES = [1e-1, 1e-3, 1e-6]
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

    counted(error_control, "forward_solve")
    counted(Gradcheck, "row")
    counted(Gradcheck, "reference")
    return found


def measure(folder, **options):
    return error_control.measure(folder, {**OPTIONS, **options}, lambda line: None)


def test_errors_fall_with_the_tolerance_and_nothing_is_measured_twice(network, made):
    rows = measure(network)
    kinds = Counter(row["kind"] for row in rows)
    assert kinds == {"solve": 6, "time": 3, "gradient": 8}
    assert made["forward_solve"] == 2 + 6 + 1 + 3 * 2  # references, solves, warming up, rounds
    assert made["row"] == 8
    for batch in (0, 1):
        found = [row for row in rows if row["kind"] == "solve" and row["batch"] == batch]
        assert [row["rtol"] for row in found] == TOLERANCES
        errors, nfe = [row["error"] for row in found], [row["nfe"] for row in found]
        assert all(tighter < looser for looser, tighter in pairwise(errors))
        assert errors[-1] < errors[0] / 100
        assert nfe == sorted(nfe)
    gradients = {(row["setting"], row["rtol"]): row for row in rows if row["kind"] == "gradient"}
    for setting in ("dopri5, relative norm", "Adams, relative norm"):
        assert gradients[setting, 1e-3]["error"] < gradients[setting, 1e-1]["error"]
        assert gradients[setting, 1e-3]["nfe_backward"] > gradients[setting, 1e-1]["nfe_backward"] > 0

    before = dict(made)
    assert measure(network) == rows
    assert dict(made) == before

    # One more tolerance: what is there stays, but for times, which only compare where they were measured in turns.
    path = network / "error_control.jsonl"
    wider = {"tolerances": [*TOLERANCES, 1e-7]}
    more = measure(network, **wider)
    assert Counter(row["kind"] for row in more) == {"solve": 8, "time": 4, "gradient": 8}
    assert made["row"] == before["row"]
    assert [row for row in more if row in rows and row["kind"] != "time"] == [r for r in rows if r["kind"] != "time"]
    lines = path.read_text().splitlines()
    assert [row for row in more if row["kind"] == "time"] == list(map(json.loads, lines[-4:]))

    # The power goes while a row is written: that one is measured again, and no other.
    path.write_text("\n".join(lines[:3]) + "\n" + lines[3][:40])
    solves = made["forward_solve"]
    made["row"] = 0
    again = measure(network, **wider)
    assert made["forward_solve"] - solves == 2 + 5 + 1 + 4 * 2
    assert made["row"] == 8
    assert [row for row in again if row["kind"] == "solve"] == [row for row in more if row["kind"] == "solve"]
    found = [json.loads(line) for line in path.read_text().splitlines()]
    assert found[:3] == list(map(json.loads, lines[:3]))
    assert len(found) == len(again) == 20


def test_a_half_written_line_is_cut_off_and_the_rest_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = Rows(path)
    rows.put({"rtol": 0.1}, {"error": 1.0})
    rows.put({"rtol": 0.01}, {"error": float("nan")})
    path.write_text(path.read_text() + '{"rtol": 0.001, "error": 2.')
    again = Rows(path)
    assert again.missing([{"rtol": 0.1}, {"rtol": 0.01}, {"rtol": 0.001}]) == [{"rtol": 0.001}]
    assert again.get({"rtol": 0.01}) == {"rtol": 0.01, "error": "nan"}
    again.put({"rtol": 0.001}, {"error": 2.0})
    assert [json.loads(line)["rtol"] for line in path.read_text().splitlines()] == [0.1, 0.01, 0.001]
