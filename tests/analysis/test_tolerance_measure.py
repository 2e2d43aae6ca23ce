"""A trained network at other tolerances: at its own the run's score, its answers those of the run, nothing twice."""

import json

import numpy
import pytest

from odenet_cli.analysis.gradcheck import Gradcheck
from odenet_cli.analysis.measures import tolerance

OPTIONS = {"tolerances": [1e-1, 1e-3, 1e-6], "gradient": {"samples": 4, "batches": 2, "reference": 1e-7}}
WORDS = ("model=odenet", "model.width=4", "trainer.batch_size=8", "trainer.max_steps=20", "trainer.limit_batches=null")


def measure(folder, **options):
    return tolerance.measure(folder, {**OPTIONS, **options}, lambda line: None)


@pytest.mark.numerics
def test_at_its_own_tolerance_a_network_has_the_score_of_its_run(train):
    folder = train(*WORDS, "solver.rtol=1e-3")
    rows = measure(folder)
    scores = {row["rtol"]: row for row in rows if row["kind"] == "score"}
    final = json.loads((folder / "run.json").read_text())["final"]
    with numpy.load(folder / "predictions.npz") as kept:
        wrong = (kept["predicted"] != kept["label"]).nonzero()[0].tolist()
    own = scores[1e-3]
    assert (own["error"], own["nfe_forward"], own["wrong"]) == (final["error"], final["nfe_test"], wrong)
    assert own["samples"] == 360
    assert all(len(row["wrong"]) / 360 == pytest.approx(row["error"], abs=1e-7) for row in scores.values())
    assert scores[1e-1]["nfe_forward"] < scores[1e-3]["nfe_forward"] < scores[1e-6]["nfe_forward"]


@pytest.mark.numerics
def test_the_gradient_is_that_of_the_training_and_nothing_is_measured_twice(train, monkeypatch):
    """A tighter forward solve and the backward solve that follows it make a better gradient."""
    errors = {}
    for rtol in ("1e-1", "1e-5"):
        words = (*WORDS, f"solver.rtol={rtol}", "gradient.norm=relative", "gradient.solver.method=dopri5")
        folder = train(*words, "trainer.max_steps=3", name=rtol)
        rows = measure(folder, tolerances=[1e-1])
        errors[rtol] = [row["error"] for row in rows if row["kind"] == "gradient"]
        assert len(errors[rtol]) == 2
        monkeypatch.setattr(Gradcheck, "row", None)
        monkeypatch.setattr(tolerance, "evaluate", None)
        assert measure(folder, tolerances=[1e-1]) == rows
        monkeypatch.undo()
    assert max(errors["1e-5"]) < min(errors["1e-1"]) / 10
