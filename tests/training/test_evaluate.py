"""Scores are means over samples, whatever the batches; the solver is lent, and given back."""

import pytest
import torch

from odenet_cli import data, models
from odenet_cli.config.presets import preset
from odenet_cli.models.common.blocks import ODEBlock
from odenet_cli.ode import Adaptive, Fixed
from odenet_cli.ode.stats import Stats
from odenet_cli.tasks import task
from odenet_cli.training.evaluate import evaluate, mean_cost, solved_by

TRAINING, OTHER = Fixed(method="euler", steps=1), Adaptive(method="bosh3", rtol=1e-2, atol=1e-2)
COARSE, FINE = Fixed(method="midpoint", steps=3), Adaptive(method="dopri5", rtol=1e-7, atol=1e-7)


@pytest.fixture
def network():
    torch.manual_seed(0)
    options = {"stem": "conv", "width": 4, "augment": 0}
    made = models.model("odenet", options, shape=(1, 28, 28), classes=10, solver=TRAINING)
    return made.double()


def digits(batch):
    return data.load(
        "digits",
        {"crop": 2, "validation": 144},
        batch_size=32,
        eval_batch_size=batch,
        seed=0,
        device=torch.device("cpu"),
        dtype=torch.float64,
    )


def test_scores_are_those_of_all_samples_at_once(network):
    split = digits(100).test  # 100 + 100 + 100 + 60
    assert len(split) == 4
    scores = evaluate(network, task("classify"), split, COARSE)

    with torch.no_grad(), solved_by(network, COARSE):
        whole, extra = task("classify")(network, next(split.unshuffled(360).epoch(0)))
    assert scores["loss"] == pytest.approx(whole.item(), rel=1e-12)
    assert scores["error"] == pytest.approx(extra["error"].item(), abs=1e-7)
    assert scores["nfe_forward"] == 6
    assert (scores["nfe_backward"], scores["vjps"], scores["rejected"]) == (0, 0, 0)
    assert scores["accepted"] == 3
    assert scores["time_s"] > 0

    plain, count = 0.0, 0
    with torch.no_grad(), solved_by(network, COARSE):
        for x, label in split.epoch(0):
            plain += torch.nn.functional.cross_entropy(network(x), label).item() * len(x)
            count += len(x)
    assert count == 360
    assert scores["loss"] == pytest.approx(plain / count, rel=1e-12)


@pytest.mark.parametrize(("name", "source"), [("latent_ode", "spirals"), ("latent_poisson", "poisson")])
def test_the_noise_of_a_score_does_not_depend_on_the_batches(name, source):
    """Each batch drew the same rows again: an NLL of 265.5 by batches of 7, of 307.2 by one of 40."""
    torch.manual_seed(0)
    options = {key: value for key, value in preset("model", name)["model"].items() if key != "name"}
    network = models.model(name, options, shape=(2,) if source == "spirals" else (1,), classes=0, solver=FINE)
    how = {"batch_size": 8, "seed": 0, "device": torch.device("cpu"), "dtype": torch.float64}
    small = {"count": 10, "validation": 2, "test": 21} | ({"expected": 20.0} if source == "poisson" else {})
    splits = [data.load(source, small, eval_batch_size=batch, **how).test for batch in (20, 7)]
    whole, parts = (evaluate(network.double(), task(data.task(source, small)), split) for split in splits)
    for key in whole.keys() - {"time_s", *vars(Stats())}:
        assert parts[key] == pytest.approx(whole[key], rel=1e-5)


def test_limit_uses_only_so_many_batches(network):
    split = digits(100).test
    limited = evaluate(network, task("classify"), split, COARSE, limit=1)
    with torch.no_grad(), solved_by(network, COARSE):
        first = task("classify")(network, next(split.epoch(0)))[0]
    assert limited["loss"] == pytest.approx(first.item(), rel=1e-12)
    assert evaluate(network, task("classify"), split, COARSE, limit=99)["loss"] != limited["loss"]


def test_it_leaves_the_model_as_it_was(network):
    network.train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    evaluate(network, task("classify"), digits(200).valid, COARSE)
    assert network.training
    assert network.flow.solver is TRAINING
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())
    network.eval()
    evaluate(network, task("classify"), digits(200).valid)
    assert not network.training


def test_solvers_are_given_back_also_after_an_exception(network):
    with pytest.raises(ZeroDivisionError), solved_by(network, OTHER):
        1 / (network.flow.solver is not OTHER)
    assert network.flow.solver is TRAINING
    with solved_by(network, None):
        assert network.flow.solver is TRAINING

    def fails(model, batch):
        model(batch[0][:2])
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        evaluate(network, fails, digits(200).valid, OTHER)
    assert network.flow.solver is TRAINING


def test_several_blocks_get_the_solver_and_their_own_one_back():
    one, two = (
        ODEBlock(torch.nn.Identity(), TRAINING),
        ODEBlock(torch.nn.Identity(), COARSE),
    )
    both = torch.nn.Sequential(one, two)
    with solved_by(both, OTHER):
        assert one.solver is two.solver is OTHER
    assert one.solver is TRAINING
    assert two.solver is COARSE


def test_dropout_is_off_while_scoring():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.9), torch.nn.Linear(784, 10)).double()
    split = digits(200).valid
    assert evaluate(network, task("classify"), split)["loss"] == evaluate(network, task("classify"), split)["loss"]


def test_mean_cost_keeps_whole_numbers_whole():
    means = mean_cost(Stats(nfe_forward=14, nfe_backward=7, accepted=2), 2)
    assert means == {"nfe_forward": 7, "nfe_backward": 3.5, "vjps": 0, "accepted": 1, "rejected": 0}
    assert type(means["nfe_forward"]) is int
    assert set(mean_cost(Stats(), 0).values()) == {0}
