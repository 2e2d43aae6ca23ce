"""`solver.budget`: the mean evaluations of training come to the wish, by a tolerance that is steered and kept."""

import json
import math

import pytest
import torch

from odenet_cli.analysis.scoring import Scorer
from odenet_cli.config.presets import adaptive, options
from odenet_cli.config.saved import load
from odenet_cli.config.schema import SolverConfig
from odenet_cli.errors import RequestError
from odenet_cli.ode import Adaptive
from odenet_cli.training import budget
from odenet_cli.training.budget import LOOSEST, Budget, at_its_end
from odenet_cli.training.check import check

NET = ("model=odenet", "model.width=4", "model.stem=conv", "trainer.batch_size=4", "gradient=backprop")
RUN = (*NET, "trainer.limit_batches=60", "trainer.epochs=1", "trainer.log_every=1", "data.validation=0")


def plant(rtol, stiffness=1.0):
    """Evaluations of dopri5 by its tolerance: whole steps."""
    return 2 + 6 * max(1, math.ceil(stiffness * rtol**-0.2))


@pytest.mark.parametrize("wish", [14, 17, 20, 32])
@pytest.mark.parametrize("begin", [1e-1, 1e-3, 1e-6])
def test_the_mean_comes_to_the_wish_wherever_it_begins(wish, begin):
    steered = Budget(wish, begin, 1.0, 5, 1e-7)
    for step in range(150):
        steered.add(plant(steered.rtol, 0.6 + step / 300))  # a field that grows
    assert abs(steered.mean - wish) < 1
    assert "not within" not in steered.outcome()


def test_a_wish_out_of_reach_ends_at_the_end_of_the_range_and_is_told():
    low, high = Budget(8, 1e-3, 1.0, 5, 1e-6), Budget(1000, 1e-3, 1.0, 5, 1e-6)
    for _ in range(200):
        low.add(plant(low.rtol, 3.0))
        high.add(plant(high.rtol, 3.0))
    assert (low.rtol, high.rtol) == (LOOSEST, 1e-6)
    assert low.outcome().endswith("rtol 10 at the end; not within 1 of the target, the loosest allowed")
    assert "the tightest for its dtype" in high.outcome()
    before = low.debt
    low.add(plant(low.rtol, 3.0))
    assert low.debt == before  # so that it comes away at once when it can
    for _ in range(15):
        low.add(2)
    assert low.rtol < LOOSEST


def test_steering_is_a_function_of_the_counts():
    whole, parts = Budget(20, 1e-3, 1.0, 5, 1e-7), Budget(20, 1e-3, 1.0, 5, 1e-7)
    counts = [26, 20, 14, 20, 32, 8, 20] * 5
    for count in counts:
        whole.add(count)
    for count in counts:
        parts.add(count)
        kept, parts = parts.state(), Budget(20, 1e-3, 1.0, 5, 1e-7)
        parts.restore(json.loads(json.dumps(kept)))
    assert parts == whole


ADAPTIVE = [name for name in options("solver") if adaptive(name)]


@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_least_is_what_one_step_takes(name):
    solver = Adaptive(method=name, rtol=1.0, atol=1.0, first_step=1.0)
    _, stats = solver(lambda t, y: -(1 + t) * y / 9, torch.ones(2), [0.0, 1.0])
    config = SolverConfig(method=name, rtol=1.0, atol=1.0, first_step=1.0)
    assert (stats.accepted, stats.nfe_forward) == (1, budget.least_evaluations(config))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*NET, "solver=rk4", "solver.budget=20"), "rk4 takes fixed steps"),
        ((*NET, "solver.budget=7"), "less than the 8 evaluations.*bosh3 takes 5"),
        ((*NET, "gradient=reversible", "solver.budget=14"), "less than the 16"),
        (("model=mlp", "solver.budget=20"), "has no solver"),
        ((*NET, "solver.budget=0"), "out of range"),
    ],
)
def test_what_cannot_work_is_refused(tiny, words, message):
    with pytest.raises(RequestError, match=message.replace(".*", "(.|\n)*")):
        check(tiny(*words))


@pytest.mark.parametrize(
    "wish", [pytest.param(14, marks=pytest.mark.numerics), 20, pytest.param(32, marks=pytest.mark.numerics)]
)
def test_a_run_keeps_to_its_budget(train, metrics, capsys, wish):
    folder = train(*RUN, f"solver.budget={wish}")
    records = metrics(folder, "train")
    assert abs(sum(record["nfe_forward"] for record in records) / len(records) - wish) < 1
    assert len({record["rtol"] for record in records}) > 1
    assert f"solver.budget={wish}: " in capsys.readouterr().out
    run = load(folder)
    assert (run.solver.rtol, run.solver.budget) == (1e-3, wish)
    ended = at_its_end(folder, run).solver
    assert ended.rtol == ended.atol == records[-1]["rtol"] != 1e-3

    # What scores the run again scores at the tolerance that scored it.
    final = json.loads((folder / "run.json").read_text())["final"]
    again = Scorer(folder, at_its_end(folder, run), None, "last").row(at_its_end(folder, run))
    assert again["loss"] == pytest.approx(final["loss"], rel=1e-6)
    assert again["nfe_forward"] == final["nfe_test"]


def test_a_run_that_was_stopped_steers_on_as_it_would_have(train, same_bits, tmp_path):
    words = (*NET, "trainer.limit_batches=4", "trainer.epochs=2", "trainer.log_every=1")
    whole = train(*words, "solver.budget=20", name="whole")
    train(*words, "solver.budget=20", "trainer.max_steps=4", name="parts")
    parts = train(*words, "solver.budget=20", name="parts")
    assert same_bits(whole, parts)


def test_scoring_by_a_solver_of_its_own_is_not_steered(tiny):
    assert budget.of_config(tiny(*NET, "solver.budget=20")).scores
    assert not budget.of_config(tiny(*NET, "solver.budget=20", "eval.solver.rtol=1e-4")).scores
    assert budget.of_config(tiny(*NET)) is None
