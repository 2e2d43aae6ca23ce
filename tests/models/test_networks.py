"""The networks of table 1 have the parameters the paper's architecture has, and every model trains."""

import pytest
import torch

from odenet_cli import models
from odenet_cli.config.presets import options, preset
from odenet_cli.errors import RequestError
from odenet_cli.models.common import blocks
from odenet_cli.ode import Adaptive, Fixed, Stats, tally
from odenet_cli.tasks import task

SOLVER = Fixed(method="heun", steps=2)
IMAGE, CLASSES = (1, 28, 28), 10


def build(name, dtype=torch.float32, solver=SOLVER, shape=IMAGE, classes=CLASSES, **changes):
    own = preset("model", name)
    own = own.get("model", own)
    given = {key: value for key, value in own.items() if key != "name"} | changes
    torch.manual_seed(0)
    return models.model(own["name"], given, shape=shape, classes=classes, solver=solver).to(dtype)


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


TABLE = [
    ("odenet", {}, 208_266, 232_970),
    ("rknet", {}, 208_266, 232_970),
    ("resnet", {"blocks": 6}, 576_778, 601_482),
    ("resnet", {"blocks": 1}, 206_858, 231_562),
    ("resnet", {"blocks": 6, "tied": True}, 206_858, 231_562),
    ("resnet", {"blocks": 0}, 132_874, 157_578),
    ("resnet", {"blocks": 0, "tied": True}, 132_874, 157_578),
]


@pytest.mark.parametrize(("name", "changes", "conv", "res"), TABLE)
def test_parameters_of_every_row(name, changes, conv, res):
    assert count(build(name, stem="conv", **changes)) == conv
    assert count(build(name, stem="res", **changes)) == res


def test_parameters_of_the_parts():
    assert count(build("mlp")) == 238_510
    assert count(blocks.ConvField(64)) == 75_392
    assert count(blocks.ResidualBlock(64)) == 73_984
    assert count(blocks.head(64, 10)) == 778


@pytest.mark.parametrize(("stem", "side"), [("conv", 6), ("res", 7)])
def test_stems_quarter_the_image(stem, side):
    assert blocks.stem(stem, IMAGE, 8)(torch.zeros(2, *IMAGE)).shape == (2, 8, side, side)


@pytest.mark.parametrize("kind", ["conv", "res"])
def test_the_stem_of_mnist_has_the_layers_and_the_numbers_it_always_had(kind):
    """Weights are drawn layer by layer: in another order a seed would mean another network."""
    torch.manual_seed(0)
    first, halves = torch.nn.Conv2d(1, 8, 3), []
    for _ in range(2):
        if kind == "res":
            halves.append(blocks.ResidualBlock(8, stride=2))
        else:
            halves += [blocks.group_norm(8), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 4, stride=2, padding=1)]
    paper = torch.nn.Sequential(first, *halves)
    torch.manual_seed(0)
    own, x = blocks.stem(kind, IMAGE, 8), torch.rand(2, *IMAGE)
    assert [*own.state_dict()] == [*paper.state_dict()]
    assert torch.equal(own(x), paper(x))


@pytest.mark.parametrize("kind", ["conv", "res"])
@pytest.mark.parametrize(
    "shape", [(1, 28, 28), (3, 32, 32), (1, 8, 8), (3, 4, 5), (2, 1, 2), (1, 64, 48), (3, 13, 100), (3, 96, 96)]
)
def test_the_stem_fits_any_image_and_says_what_it_makes(kind, shape):
    made = tuple(blocks.stem(kind, shape, 4)(torch.zeros(2, *shape)).shape)
    assert blocks.describe_stem(kind, shape, 4).endswith(f" → {'×'.join(map(str, made[1:]))}")
    assert min(min(shape[1:]), 6) <= min(made[2:]) <= 12


@pytest.mark.parametrize("name", ["resnet", "odenet", "rknet"])
def test_a_norm_of_single_numbers_is_refused(name):
    """It would be 0 whatever the image."""
    with pytest.raises(RequestError, match=r"model\.width=7: channels of 1×1 pixels cannot be normalised"):
        build(name, shape=(5, 1, 1), classes=3, width=7)
    network, x = build(name, shape=(5, 1, 1), classes=3, width=64), torch.randn(6, 5, 1, 1)
    assert (network(x).std(0) > 1e-3).all()


@pytest.mark.parametrize(("name", "parameters"), [("odenet", 8_963), ("rknet", 8_963), ("resnet", 50_435)])
def test_vectors_have_dense_networks(name, parameters):
    network = build(name, shape=(4,), classes=3)
    stem, head = 4 * 64 + 64, 64 * 3 + 3
    inner = 2 * (65 * 64 + 64) if name != "resnet" else 6 * 2 * (64 * 64 + 64)
    assert count(network) == stem + inner + head == parameters
    assert network(torch.rand(5, 4)).shape == (5, 3)
    assert network.about == "linear stem 4 → 64"


def test_the_dense_field_sees_the_time_as_one_more_input():
    field, x, t = blocks.DenseField(3), torch.rand(5, 3), torch.tensor(0.7)
    hidden = torch.tanh(field.linear1(torch.cat((t.expand(5, 1), x), 1)))
    expected = field.linear2(torch.cat((t.expand(5, 1), hidden), 1))
    assert torch.allclose(field(t, x), expected, rtol=1e-6, atol=1e-7)


def test_augmented_vectors_start_at_zero():
    network = build("odenet", shape=(4,), classes=3, width=5, augment=2)
    seen = []
    network.flow.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    assert network(torch.rand(6, 4)).shape == (6, 3)
    assert seen[0].shape == (6, 7)
    assert not seen[0][:, 5:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [name for name in options("model") if name in ("mlp", "odenet", "resnet", "rknet")])
def test_every_preset_of_a_classifier_trains_a_step(name, dtype):
    own = preset("model", name)
    narrow = {"width": 4} if "width" in own.get("model", own) else {"hidden": 4}
    network = build(name, dtype, **narrow)
    before = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    loss, extra = task("classify")(network, (torch.rand(3, *IMAGE, dtype=dtype), torch.tensor([1, 2, 3])))
    loss.backward()
    optimizer.step()
    assert loss.dtype == dtype
    assert 0 <= extra["error"] <= 1
    assert all(parameter.grad is not None and parameter.grad.dtype == dtype for parameter in network.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, network.parameters()))


def test_tied_blocks_are_one_block_applied_again():
    tied, one = build("resnet", width=4, tied=True), build("resnet", width=4, blocks=1)
    one.load_state_dict(tied.state_dict())
    image = torch.rand(2, *IMAGE)
    x = one.stem(image)
    for _ in range(6):
        x = one.blocks(x)
    assert torch.equal(tied(image), one.head(x))


def test_no_middle_is_stem_and_head():
    network, x = build("resnet", width=4, blocks=0), torch.rand(2, *IMAGE)
    assert torch.equal(network(x), network.head(network.stem(x)))


def test_rknet_is_the_network_of_odenet():
    a, b = build("odenet", width=4), build("rknet", width=4)
    assert type(a) is type(b)
    assert all(torch.equal(p, q) for p, q in zip(a.state_dict().values(), b.state_dict().values()))


def test_the_depth_of_an_odenet_is_its_solvers():
    network = build("odenet", width=4)
    x = torch.rand(2, *IMAGE)
    coarse = network(x)
    (block,) = models.solvers(network)
    block.solver = Adaptive(method="dopri5", rtol=1e-5, atol=1e-5)
    with tally() as solves:
        fine = network(x)
    assert not torch.equal(coarse, fine)
    assert sum(solves, start=Stats()).nfe_forward > 4
    assert models.solvers(build("mlp")) == []


def test_augmented_channels_start_at_zero_and_reach_the_head():
    network = build("odenet", width=4, augment=3)
    seen = []
    network.flow.register_forward_hook(lambda module, inputs, output: seen.extend([inputs[0], output]))
    network(torch.rand(2, *IMAGE))
    start, end = seen
    assert start.shape == end.shape == (2, 7, 6, 6)
    assert not start[:, 4:].any()
    assert end[:, 4:].any()


@pytest.mark.parametrize(
    ("name", "changes", "parts"),
    [
        ("odenet", {"stem": "cnv"}, ["model.stem=cnv", "conv, res"]),
        ("odenet", {"width": 0}, ["model.width=0"]),
        ("odenet", {"width": "wide"}, ["model.width='wide'", "whole number"]),
        ("odenet", {"width": True}, ["model.width=True", "whole number"]),
        ("odenet", {"augment": -1}, ["model.augment=-1"]),
        ("odenet", {"wdth": 3}, ["model.wdth", "Did you mean `width`?"]),
        ("resnet", {"blocks": -1}, ["model.blocks=-1"]),
        ("resnet", {"tied": 1}, ["model.tied=1", "true or false"]),
        ("resnet", {"width": -4}, ["model.width=-4"]),
        ("mlp", {"hidden": 0}, ["model.hidden=0"]),
        ("mlp", {"hidden": 1.5}, ["model.hidden=1.5"]),
    ],
)
def test_a_bad_option_is_refused_by_name(name, changes, parts):
    with pytest.raises(RequestError) as refused:
        build(name, **changes)
    for part in parts:
        assert part in str(refused.value)


def test_unknown_models_and_missing_options_are_refused():
    with pytest.raises(RequestError, match="Did you mean `odenet`"):
        models.model("odenett", {}, shape=IMAGE, classes=10, solver=SOLVER)
    with pytest.raises(RequestError, match=r"model\.hidden is missing"):
        models.model("mlp", {}, shape=IMAGE, classes=10, solver=SOLVER)


OWN = """
from torch import nn

class Net(nn.Module):
    def __init__(self, shape, classes, hidden: int = 3):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(shape[1] * shape[2], hidden), nn.Linear(hidden, classes))

    def forward(self, x):
        return self.layers(x)

class WithSolver(Net):
    def __init__(self, shape, classes, solver, hidden: int):
        super().__init__(shape, classes, hidden)
        self.solver = solver

thing = 3
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "my_nets_of_test.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("own_module")
def test_a_class_of_the_users_own():
    def own(target, **options):
        return models.model("custom", {"target": target, **options}, shape=IMAGE, classes=10, solver=SOLVER)

    assert own("my_nets_of_test:Net")(torch.rand(2, *IMAGE)).shape == (2, 10)
    assert own("my_nets_of_test:Net", hidden=5).layers[1].out_features == 5
    assert own("my_nets_of_test:WithSolver", hidden=2).solver is SOLVER
    for target, given, part in [
        ("my_nets_of_test:Net", {"hiden": 2}, "Did you mean `hidden`"),
        ("my_nets_of_test:Net", {"hidden": "x"}, "model.hidden='x'"),
        ("my_nets_of_test:WithSolver", {}, r"model.hidden is missing; give it a value: \+model.hidden="),
        ("my_nets_of_test:Nett", {}, "has no Nett"),
        ("my_nets_of_test:thing", {}, "is not a class"),
        ("no_such_module_here:Net", {}, "cannot be imported"),
        ("my_nets_of_test", {}, "must read package.module:Class"),
    ]:
        with pytest.raises(RequestError, match=part):
            own(target, **given)
