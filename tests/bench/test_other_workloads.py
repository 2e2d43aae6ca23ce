"""Work and precision, the parts of a training step, and w1 from end to end, in small sizes."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from odenet_cli.bench import peers
from odenet_cli.bench.problems import PROBLEMS
from odenet_cli.bench.workloads import precision, train, w1


@pytest.fixture(autouse=True)
def nothing_compiled(monkeypatch):
    monkeypatch.setattr(peers.odenet, "compiled", lambda *gradients, loop=False: [])


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: problem.name)
def test_the_error_falls_with_the_tolerance(problem):
    work = precision.Workload(tolerances=(1e-6, 1e-9))
    coarse, fine = work.points(problem, "odenet", "", "dopri8")
    assert fine.error < 0.1 * coarse.error
    assert fine.nfe > coarse.nfe


def test_a_table_of_precision(alone):
    work = precision.Workload(problems=PROBLEMS[:1], tolerances=(1e-3, 1e-5, 1e-7), target=1e-4, limit=600)
    table, summary = work.run(alone)
    row = dict(zip([cells[0] for cells in table.cells], table.cells))["odenet tsit5"]
    assert row[-1] == "failed"  # 866 evaluations
    assert "Failed: odenet tsit5: RuntimeError: not done after 600 evaluations" in table.notes
    reached = {record["subject"]: record["evaluations"] for record in summary.records}
    assert 296 < reached["odenet tsit5"]["Lotka-Volterra"] < 410


def test_evaluations_are_interpolated_in_logarithms():
    points = [precision.Point(nfe=100, error=1e-2), precision.Point(failed="no"), precision.Point(nfe=400, error=1e-6)]
    assert precision.evaluations_at(points, 1e-4) == 200
    assert precision.evaluations_at(points, 1e-8) is None


def test_a_training_step_is_the_sum_of_its_parts(alone):
    logged = []
    settings = dataclasses.replace(alone, repeats=2, log=lambda *record: logged.append(record))
    (table,) = train.Workload(width=4, batch=8, gradients=("replay",)).run(settings)
    parts = {record["part"]: record["ms"] for record in table.records if "ms" in record}
    assert list(parts) == [*train.PARTS, "step"]
    assert parts["step"] == pytest.approx(sum(ms for part, ms in parts.items() if part != "step"))
    assert [record[0] for record in logged] == [0, 1, 2]
    assert {"loss", "error"} <= set(logged[0][1])


def test_a_step_taken_apart_has_the_gradient_of_a_whole_one(alone):
    work = train.Workload(width=4, batch=8, tolerance=1e-6)
    solve = peers.odenet.adaptive("replay", method="dopri5", rtol=1e-6, atol=1e-6)
    whole, apart = (train.mnist.network(4, solve) for _ in range(2))
    batch = torch.rand(8, 1, 28, 28), torch.arange(8)
    torch.nn.functional.cross_entropy(whole(batch[0]), batch[1]).backward()
    clock = train.Clock(alone.device)
    work.step(0, apart, iter([batch]), torch.optim.SGD(apart.parameters(), lr=0.0), clock, alone)
    for one, other in zip(whole.parameters(), apart.parameters()):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.numerics
def test_w1_measures_at_the_start_and_after_training(alone):
    tables = w1.Workload(width=4, batch=8, trained=1, fine=1e-4).run(alone)
    assert [table.title.split(":")[0] for table in tables] == [
        "MNIST ODE-Net at the start",
        "MNIST ODE-Net after 1 steps",
    ]
    for table in tables:
        assert not [record["failed"] for record in table.records if record["failed"]]
        assert all(record["floor_ms"] > 0 for record in table.records)
