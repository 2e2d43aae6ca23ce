"""A task is a loss and its metrics."""

import math

import pytest
import torch

from odenet_cli.errors import RequestError
from odenet_cli.registry import names
from odenet_cli.tasks import task


def test_classification_is_mean_cross_entropy_and_the_share_of_errors():
    logits = torch.log(
        torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.3, 0.4, 0.3]], dtype=torch.float64)
    )
    loss, extra = task("classify")(torch.nn.Identity(), (logits, torch.tensor([0, 1, 0, 2])))
    expected = -(math.log(0.5) + math.log(0.8) + math.log(0.2) + math.log(0.3)) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-12)
    assert extra.keys() == {"error"}
    assert extra["error"].item() == 0.5
    assert not extra["error"].requires_grad


@pytest.mark.parametrize("name", names("odenet_cli.tasks"))
def test_every_file_is_a_task(name):
    assert callable(task(name))


def test_an_unknown_task_is_refused():
    with pytest.raises(RequestError, match="Did you mean `classify`"):
        task("clasify")
