"""A task is a loss and its metrics."""

import math
from types import SimpleNamespace

import pytest
import torch

from odenet_cli.errors import RequestError
from odenet_cli.registry import names
from odenet_cli.tasks import classify, task
from odenet_cli.training.evaluate import evaluate


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


def test_the_first_misread_images_are_shown():
    images = torch.arange(30, dtype=torch.uint8).reshape(30, 1, 1, 1).expand(30, 1, 2, 2)
    data = SimpleNamespace(test=SimpleNamespace(rows=(images, None)))
    label = torch.zeros(25, dtype=torch.long)  # of the 30, with trainer.limit_batches
    arrays = classify.figure_data(None, data, {"label": label, "predicted": torch.arange(25) % 2})
    assert arrays["images"].shape == (10, 2, 2)
    assert arrays["images"][:, 0, 0].tolist() == list(range(1, 21, 2))
    assert arrays["predicted"].tolist() == [1] * 10
    assert (arrays["misread"], arrays["samples"]) == (12, 25)


@pytest.mark.parametrize("name", names("odenet_cli.tasks"))
def test_every_file_is_a_task(name):
    assert callable(task(name))


def test_an_unknown_task_is_refused():
    with pytest.raises(RequestError, match="Did you mean `classify`"):
        task("clasify")


class Affine(torch.nn.Module):
    """x = z/2 + 1 of standard normal z."""

    def generate(self, z):
        return 0.5 * z + 1, self.log_prob(0.5 * z + 1)

    def log_prob(self, x):
        return -2 * (x - 1).square().sum(1) - math.log(math.pi / 2)


class Density:
    """U(x) = |x|², with a wall at 2."""

    edge, floor, entropy = 2.0, -math.log(math.pi), 1.0

    def __call__(self, x):
        return x.square().sum(1)


class Points:
    def __init__(self, x, batch):
        self.x, self.batch = x, batch

    def __len__(self):
        return len(self.x.split(self.batch))

    def epoch(self, number):
        return ((part, Density()) for part in self.x.split(self.batch))


@pytest.mark.parametrize("name", ["density", "likelihood"])
def test_scores_of_densities_do_not_depend_on_the_batches(name):
    x = torch.randn(7, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    one, three, whole = (evaluate(Affine(), task(name), Points(x, n)) for n in (1, 3, 7))
    each = Affine().generate(x)[1] + Density()(Affine().generate(x)[0]) if name == "density" else -Affine().log_prob(x)
    score = "kl" if name == "density" else "nll"
    assert whole[f"{score}_sd"] == pytest.approx(each.std(correction=0).item(), rel=1e-12)
    assert whole["loss"] == pytest.approx(each.mean().item(), rel=1e-12)
    for key in whole.keys() - {"time_s"}:
        assert one[key] == pytest.approx(whole[key], rel=1e-12)
        assert three[key] == pytest.approx(whole[key], rel=1e-12)
    assert {"kl", "kl_sd", "outside"} < whole.keys() or {"nll", "nll_sd", "gap"} < whole.keys()


@pytest.mark.parametrize("name", ["density", "likelihood"])
def test_what_is_logged_of_training_are_tensors(name):
    _, extra = task(name)(Affine().train(), (torch.randn(5, 2), Density()))
    assert all(isinstance(value, torch.Tensor) for value in extra.values())


def test_a_score_that_a_batch_lacks_is_a_mean_over_the_others():
    def loss(model, batch):
        (x, _) = batch
        return x.mean(), {"large": x.mean()} if x.mean() > 2 else {}

    scores = evaluate(torch.nn.Identity(), loss, Points(torch.tensor([1.0, 1.0, 3.0, 5.0, 4.0]), 2))
    assert scores["loss"] == pytest.approx(2.8)
    assert scores["large"] == pytest.approx(4.0)
