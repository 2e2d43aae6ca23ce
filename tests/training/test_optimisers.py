"""A name is the optimiser it says, with the settings of its preset and no others."""

import pytest
import torch

from odenet_cli.config.presets import options
from odenet_cli.errors import RequestError
from odenet_cli.request.compose import compose
from odenet_cli.training.optim import OPTIMISERS, optimizer

CPU = torch.device("cpu")


def test_every_optimiser_has_a_preset_and_every_preset_an_optimiser():
    assert sorted([*OPTIMISERS, "lm"]) == options("optim")


@pytest.mark.parametrize("name", OPTIMISERS)
def test_a_preset_makes_the_optimiser_of_its_name(name):
    config = compose([f"optim={name}", "optim.lr=0.25", "optim.weight_decay=0.125"]).optim
    made = optimizer(config, torch.nn.Linear(2, 1), CPU)
    assert type(made).__name__.lower() == name
    (group,) = made.param_groups
    assert (group["lr"], group["weight_decay"], group.get("momentum")) == (0.25, 0.125, config.momentum)
    assert group.get("fused", True)


def test_the_decay_of_adamw_is_apart_from_the_gradient():
    """Without a gradient Adam would move by its rate; AdamW multiplies by 1 - rate · decay."""
    weight = torch.nn.Parameter(torch.full((1,), 2.0))
    config = compose(["optim=adamw", "optim.lr=0.5", "optim.weight_decay=0.1"]).optim
    made = optimizer(config, torch.nn.ParameterList([weight]), CPU)
    weight.grad = torch.zeros(1)
    made.step()
    assert weight.item() == pytest.approx(2 * (1 - 0.5 * 0.1))


@pytest.mark.parametrize("name", [name for name in options("optim") if name.startswith("adam")])
def test_a_momentum_that_an_optimiser_has_no_use_for_is_refused(name):
    with pytest.raises(RequestError, match=rf"optim\.momentum=0\.5 has no meaning for optim={name}"):
        compose([f"optim={name}", "optim.momentum=0.5"])


def test_an_optimiser_that_does_not_exist_is_refused():
    with pytest.raises(RequestError, match=r"optim\.name=adamax is not known\. Did you mean `adam`\?") as error:
        compose(["optim.name=adamax"])
    assert "adam, adamw, lm, rmsprop, sgd" in str(error.value)
