"""The parts of the networks are what the paper's architecture says they are."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from odenet_cli.models.common.blocks import ConvField, ODEBlock, ResidualBlock, TimeConv2d, group_norm
from odenet_cli.ode import Fixed


def with_time(conv, t, x):
    """The convolution of [t, x], the concatenation made."""
    channel = t.expand(len(x), 1, *x.shape[2:])
    return F.conv2d(torch.cat([channel, x], 1), torch.cat([conv.time_weight, conv.weight], 1), conv.bias, padding=1)


def test_a_time_convolution_is_that_of_the_concatenation():
    torch.manual_seed(1)
    conv = TimeConv2d(3, 5).double()
    t = torch.tensor(0.37, dtype=torch.float64, requires_grad=True)
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64, requires_grad=True)
    out, expected = conv(t, x), with_time(conv, t, x)
    assert (out - expected).abs().max() < 1e-12

    cotangent = torch.randn_like(out)
    wanted = (t, x, *conv.parameters())
    found = torch.autograd.grad(out, wanted, cotangent)
    for mine, other in zip(found, torch.autograd.grad(expected, wanted, cotangent)):
        assert mine.shape == other.shape
        assert (mine - other).abs().max() < 1e-12


def test_a_time_convolution_has_second_derivatives():
    torch.manual_seed(1)
    conv = TimeConv2d(1, 2).double()
    t = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    x = torch.randn(1, 1, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda t, x: torch.tanh(conv(t, x)), (t, x))


def test_it_starts_like_torchs_own_convolution_of_all_channels():
    torch.manual_seed(0)
    conv = TimeConv2d(64, 64)
    bound = 1 / math.sqrt(9 * 65)
    peer = nn.Conv2d(65, 64, 3)
    for parameter in (*conv.parameters(), *peer.parameters()):
        assert parameter.abs().max() <= bound
    for parameter in (conv.weight, conv.time_weight, peer.weight):
        n = parameter.numel()
        assert parameter.abs().max() > bound * (1 - 20 / n)
        # A uniform distribution: mean 0 and variance bound²/3, each within 5 standard errors.
        assert abs(parameter.mean()) < 5 * bound / math.sqrt(3 * n)
        assert abs(parameter.var() / (bound**2 / 3) - 1) < 5 * math.sqrt(0.8 / n)


@pytest.mark.parametrize(("channels", "groups"), [(64, 32), (32, 32), (4, 4), (1, 1), (48, 24), (65, 13), (66, 22)])
def test_groups_divide_the_channels(channels, groups):
    assert group_norm(channels).num_groups == groups


def test_the_field_is_two_time_convolutions_between_norms():
    torch.manual_seed(2)
    field = ConvField(4).double()
    t, x = torch.tensor(0.6, dtype=torch.float64), torch.randn(2, 4, 6, 6, dtype=torch.float64)
    inner = with_time(field.conv1, t, F.relu(F.group_norm(x, 4)))
    inner = with_time(field.conv2, t, F.relu(F.group_norm(inner, 4)))
    assert (field(t, x) - F.group_norm(inner, 4)).abs().max() < 1e-12


def test_a_residual_block_of_zero_weights_is_the_identity():
    block, x = ResidualBlock(4), torch.randn(2, 4, 6, 6)
    nn.init.zeros_(block.conv2.weight)
    assert torch.equal(block(x), x)
    assert ResidualBlock(4, stride=2)(torch.randn(2, 4, 13, 13)).shape == (2, 4, 7, 7)


def test_the_block_flows_from_0_to_1_along_its_field():
    class Decay(nn.Module):
        def forward(self, t, x):
            return -x * t

    y = torch.ones(3, 2, dtype=torch.float64)
    block = ODEBlock(Decay(), Fixed(method="rk4", steps=64))
    assert (block(y) - math.exp(-0.5)).abs().max() < 1e-9
    block.solver = Fixed(method="euler", steps=1)
    assert torch.equal(block(y), y)
    assert list(block.state_dict()) == []
