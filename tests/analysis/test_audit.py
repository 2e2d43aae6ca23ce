"""An audit flags a net that needs its coarse steps, and passes one that is an ODE."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from odenet_cli import data as datasets
from odenet_cli.analysis.audit import Audit, conclude, solvers_to_try
from odenet_cli.analysis.trained import Trained
from odenet_cli.config.schema import SolverConfig
from odenet_cli.errors import RequestError
from odenet_cli.models.common.blocks import ODEBlock
from odenet_cli.training import build

EULER = SolverConfig("euler", steps=1)
DOPRI5 = SolverConfig("dopri5", rtol=1e-3, atol=1e-3)


class Decay(nn.Module):
    """y' = -3 y: one Euler step changes the sign of y, the solution does not."""

    def forward(self, t, y):
        return -3 * y


class Sign(nn.Module):
    """Class 1 where the flow ends above zero."""

    def __init__(self, field):
        super().__init__()
        self.flow = ODEBlock(field, build.solver(EULER))

    def forward(self, x):
        y = self.flow(x)
        return torch.stack([-y, y], dim=1)


class Split(SimpleNamespace):
    size = property(lambda self: len(self.y))

    def epoch(self, number):
        for start in range(0, self.size, 300):
            yield self.y[start : start + 300], self.label[start : start + 300]

    def unshuffled(self, batch):
        return self


def run(own, test=1_200, train=0, task="classify", field=None):
    """A net that answers rightly with the solver `own`, and its samples."""
    model = Sign(field or Decay())
    model.flow.solver = build.solver(own)

    def split(count, seed):
        y = torch.randn(count, generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            label = model(y).argmax(1) if count else torch.zeros(0, dtype=torch.long)
        return Split(y=y, label=label)

    splits = {"train": split(train, 1), "valid": split(0, 2), "test": split(test, 3)}
    data = datasets.Data(**splits, shape=(), classes=2, task=task, record={})
    return Trained(model, None, data, torch.device("cpu"), "best weights, step 1", 1)


def tried(own, **words):
    audit = Audit(run(own, **words), own, 300)
    return audit, [audit.baseline, *(audit.row(solver) for solver in solvers_to_try(own, "float32"))]


def test_a_net_that_rests_on_one_euler_step_is_flagged():
    audit, rows = tried(EULER)
    assert audit.baseline["error"] == 0
    verdict, worst = conclude(rows)
    assert verdict == "not an ode"
    assert worst["finer"]
    assert (worst["lost"], worst["gained"], worst["error"]) == (1_200, 0, 1.0)
    dopri5 = next(row for row in rows if row["method"] == "dopri5")
    assert dopri5["finer"]
    assert dopri5["p"] == pytest.approx(0, abs=1e-300)
    assert dopri5["order"] == 5


def test_a_net_that_follows_its_equation_passes():
    _, rows = tried(DOPRI5)
    verdict, worst = conclude(rows)
    assert verdict == "ode"
    assert worst["error"] == 0
    coarse = next(row for row in rows if (row["method"], row["steps"]) == ("euler", 1))
    assert coarse["error"] == 1  # a loss, but not by a finer solver
    assert not coarse["finer"]


def test_each_sample_is_asked_once_with_each_solver():
    trained = run(EULER)
    seen = []
    trained.model.register_forward_pre_hook(lambda module, args: seen.append(len(args[0])))
    audit = Audit(trained, EULER, 300)
    assert seen == [300] * 4
    audit.row(DOPRI5)
    assert seen == [300] * 8
    assert trained.model.flow.solver == build.solver(EULER)


def test_small_sets_are_audited_whole_and_say_so():
    audit = Audit(run(EULER, test=400, train=800), EULER, 300)
    assert audit.samples == {"test": 400, "train": 800}
    about = audit.about("digits")
    assert (
        "1,200 samples of digits: 400 test + 800 train together, as the test split alone has fewer than 1,000" in about
    )
    assert "a loss below 0.67 points is never significant" in about
    large = Audit(run(EULER, test=5_000, train=800), EULER, 300)
    assert large.about("mnist") == "5,000 samples of mnist: 5,000 test"


def test_too_few_samples_and_other_tasks_are_refused():
    with pytest.raises(RequestError, match="999 samples in total; an audit needs at least 1,000"):
        Audit(run(EULER, test=500, train=499), EULER, 300)
    with pytest.raises(RequestError, match="the task of this run is density"):
        Audit(run(EULER, task="density"), EULER, 300)


def test_a_solver_that_fails_is_a_row_and_counts_for_nothing():
    class Explodes(nn.Module):
        def forward(self, t, y):
            return 20 * (1 + y * y)

    audit = Audit(run(EULER, field=Explodes()), EULER, 300)
    failed = audit.row(DOPRI5)
    assert "t = " in failed["failed"]
    assert not failed["finer"]
    assert conclude([audit.baseline, failed]) == ("open", None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "verdict"),
    [
        (("model=rknet", "solver=euler", "solver.steps=1", "trainer.epochs=6"), "not an ode"),
        (("model=rknet", "solver=dopri5", "solver.rtol=1e-3", "trainer.epochs=8"), "ode"),
    ],
)
def test_trained_digits_nets(train, words, verdict):
    from odenet_cli.analysis.trained import trained
    from odenet_cli.config.resolve import eval_batch
    from odenet_cli.config.saved import load

    folder = train("data=digits", "model.width=16", "trainer.limit_batches=null", *words)
    config = load(folder)
    audit = Audit(trained(folder, config, "best", eval_batch(config)), config.solver, eval_batch(config))
    rows = [audit.baseline, *(audit.row(solver) for solver in solvers_to_try(config.solver, config.dtype))]
    assert audit.baseline["error"] < 0.2
    assert conclude(rows)[0] == verdict
