"""A field that jumps at a known time is solved as two smooth ones."""

import math

import pytest
import torch
from ode_cases import ADAPTIVE

from odenet_cli.ode import Adaptive

F64 = torch.float64


def kicked(strength):
    """y' = -y before t = 0.5, +strength y behind; at 0.5 itself the earlier branch holds."""
    return lambda t, y: -y if t <= 0.5 else strength * y


def solver(method, jumps=(0.5,), **options):
    return Adaptive(method=method, rtol=1e-8, atol=1e-8, jumps=jumps, **options)


@pytest.mark.parametrize("method", [m for m in ADAPTIVE if m != "heun_euler"])
@pytest.mark.parametrize("ts", [[0.0, 1.0], [1.0, 0.0], [0.0, 0.25, 0.5, 0.75, 1.0]])
def test_the_solution_is_that_of_two_smooth_fields(method, ts):
    y, stats = solver(method)(kicked(2.0), torch.ones(1, dtype=F64), torch.tensor(ts, dtype=F64))
    change = -0.5 + 2.0 * 0.5
    assert (y if len(ts) == 2 else y[-1]).item() == pytest.approx(
        math.exp(math.copysign(change, ts[-1] - ts[0])), rel=2e-7
    )
    assert stats.rejected <= 2, "no step has to search for the jump"


def test_without_the_jump_the_steps_search_for_it():
    y0, ts = torch.ones(1, dtype=F64), torch.tensor([0.0, 1.0], dtype=F64)
    known, searched = (solver("dopri5", jumps)(kicked(2.0), y0, ts).stats for jumps in ((0.5,), ()))
    assert known.rejected < searched.rejected
    assert known.nfe_forward < searched.nfe_forward


@pytest.mark.parametrize("gradient", ["backprop", "replay", "adjoint", "reversible"])
@pytest.mark.parametrize("ts", [[0.0, 1.0], [0.0, 0.45, 0.5, 0.55, 1.0], [1.0, 0.48, 0.0]])
def test_gradients_pass_the_jump(gradient, ts):
    strength = torch.tensor(2.0, dtype=F64, requires_grad=True)
    y0 = torch.ones(1, dtype=F64, requires_grad=True)
    y = solver("dopri5", gradient=gradient)(kicked(strength), y0, torch.tensor(ts, dtype=F64)).y
    weights = torch.arange(1.0, len(ts) + 1, dtype=F64) if len(ts) > 2 else torch.ones(1, dtype=F64)

    def exact(t, k):
        """∫ of the rate from ts[0] to t."""
        rate = lambda s: -s if s <= 0.5 else -0.5 + k * (s - 0.5)  # noqa: E731
        return rate(t) - rate(ts[0])

    kept = ts if len(ts) > 2 else ts[1:]
    k = strength.detach().clone().requires_grad_()
    start = y0.detach().clone().requires_grad_()
    reference = sum(w * start * torch.exp(torch.as_tensor(exact(t, k))) for w, t in zip(weights, kept)).sum()
    found = torch.autograd.grad((weights * y.reshape(len(kept), -1)[:, 0]).sum(), (y0, strength))
    for mine, theirs in zip(found, torch.autograd.grad(reference, (start, k))):
        torch.testing.assert_close(mine, theirs, rtol=2e-5, atol=2e-6)


def test_a_jump_outside_the_span_changes_nothing():
    y0, ts = torch.ones(1, dtype=F64), torch.tensor([0.0, 1.0], dtype=F64)
    runs = [solver("dopri5", jumps)(lambda t, y: -y, y0, ts) for jumps in ((), (2.0, -1.0, 0.0, 1.0))]
    assert torch.equal(runs[0].y, runs[1].y)
    assert runs[0].stats == runs[1].stats


@pytest.mark.parametrize("jumps", [(math.nan,), ("x",), (math.inf,)])
def test_jumps_must_be_times(jumps):
    with pytest.raises(ValueError, match=r"solver\.jumps"):
        solver("dopri5", jumps)
