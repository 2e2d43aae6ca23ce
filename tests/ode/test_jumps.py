"""A field that jumps at a known time is solved as two smooth ones."""

import math

import pytest
import torch
from ode_cases import ADAPTIVE

from odenet_cli.ode import Adaptive, segment
from odenet_cli.ode.gradient.adjoint import Adjoint

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


def pulse(start=1.0, end=1.1, rate=50.0):
    """y' = rate between two times, else 0: after it y is y0 + rate (end - start), as the field tells the times."""
    return lambda t, y: torch.full_like(y, rate) if start <= t < end else torch.zeros_like(y)


METHODS_WITH_JUMPS = [m for m in ADAPTIVE if m != "heun_euler"] + ["adams"]


@pytest.mark.parametrize("end", [1e2, 1e6])
@pytest.mark.parametrize("method", METHODS_WITH_JUMPS)
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_no_time_is_left_out_at_jumps(end, method, dtype):
    """However long the span, the pulse counts in full: 50 · 0.1 = 5."""
    solve = Adaptive(method=method, rtol=1e-5, atol=1e-5, jumps=(1.0, 1.1))
    for ts, sign in (([0.0, end], 1.0), ([end, 0.0], -1.0), ([0.0, 1.0, 1.1, end], 1.0)):
        y = solve(pulse(), torch.zeros(2, dtype=dtype), ts).y
        last = y if len(ts) == 2 else y[-1]
        torch.testing.assert_close(last, torch.full_like(last, 5.0 * sign), rtol=1e-5, atol=0)


@pytest.mark.parametrize("gradient", ["backprop", "replay", "adjoint", "reversible"])
@pytest.mark.parametrize("dtype", [torch.float32, F64])
def test_no_time_is_left_out_with_a_gradient(gradient, dtype):
    rate = torch.tensor(50.0, dtype=dtype, requires_grad=True)
    solve = Adaptive(method="dopri5", rtol=1e-5, atol=1e-5, jumps=(1.0, 1.1), gradient=gradient)
    y = solve(lambda t, y: rate.expand_as(y) * ((t >= 1.0) & (t < 1.1)), torch.zeros(1, dtype=dtype), [0.0, 1e6]).y
    assert y.item() == pytest.approx(5.0, rel=1e-5)
    (found,) = torch.autograd.grad(y.sum(), rate)
    assert found.item() == pytest.approx(0.1, rel=1e-5)


@pytest.mark.numerics
@pytest.mark.parametrize("compile", [True, "loop"])
def test_no_time_is_left_out_where_the_steps_are_compiled(compile):
    solve = Adaptive(method="bosh3", rtol=1e-5, atol=1e-5, jumps=(1.0, 1.1), compile=compile)
    field = lambda t, y: torch.where((t >= 1.0) & (t < 1.1), torch.full_like(y, 50.0), torch.zeros_like(y))  # noqa: E731
    with torch.no_grad():
        y = solve(field, torch.zeros(2), [0.0, 1e6]).y
    torch.testing.assert_close(y, torch.full_like(y, 5.0), rtol=1e-5, atol=0)


CUTS = [
    (0.3, 0.30000001),  # float32 does not tell them apart
    (0.1, 0.1 + 1e-16, 0.7),  # nor does float64
    (0.5, 0.5, 0.5),
    (0.0, 1e-12, 1.0 - 1e-12, 1.0),  # just inside the ends
    (-1.0, 0.5, 2.0),
]


@pytest.mark.parametrize("jumps", CUTS, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, F64])
@pytest.mark.parametrize("method", ["dopri5", "adams"])
@pytest.mark.parametrize("ts", [[1.0, 0.0], [0.0, 0.3, 0.5, 1.0]])
def test_stops_of_any_kind_change_no_smooth_solution(jumps, dtype, method, ts):
    """y' = -y has no jump, wherever one is declared."""
    tol = {torch.bfloat16: 1e-2, torch.float32: 1e-5, F64: 1e-8}[dtype]
    y = Adaptive(method=method, rtol=tol, atol=tol, jumps=jumps)(lambda t, y: -y, torch.ones(1, dtype=dtype), ts).y
    last = (y if len(ts) == 2 else y[-1]).double().item()
    assert last == pytest.approx(math.exp(ts[0] - ts[-1]), rel=100 * tol)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, F64])
@pytest.mark.parametrize("origin", [0.0, -3.7, 1e3, 1e9])
@pytest.mark.parametrize("method", ["dopri5", "adams"])
def test_a_field_is_asked_on_one_side_only(dtype, origin, method):
    """Between two stops all times that the field sees, in its dtype and as floats, lie between the jumps."""
    if dtype.itemsize == 2 and (origin > 1e3 or method == "adams"):
        return
    scale = max(1.0, abs(origin) * torch.finfo(dtype).eps * 64)  # so that the dtype tells the times apart
    jump, ts = origin + 0.4 * scale, [origin, origin + scale]
    seen = []

    def field(t, y):
        seen.append((bool(t < jump), bool(t > jump), t.item() < jump, t.item() > jump, t.dtype))
        return torch.ones_like(y)

    for times in (ts, ts[::-1]):
        seen.clear()
        Adaptive(method=method, rtol=1e-2, atol=1e-2, jumps=(jump,))(field, torch.zeros(1, dtype=dtype), times)
        before = [entry for entry in seen if entry[0]]
        behind = [entry for entry in seen if entry[1]]
        assert before == [(True, False, True, False, dtype)] * len(before)
        assert behind == [(False, True, False, True, dtype)] * len(behind)
        assert len(before) + len(behind) == len(seen)
        first, last = (before, behind) if times is ts else (behind, before)
        assert seen == [*first, *last], "one side after the other"


@pytest.mark.parametrize("start", [(1.0, 1e6), (1e9, 1e9 + 4.0), (-1e9, -1e9 + 4.0)])
def test_pulses_far_from_zero(start):
    """In float64 a pulse of a quarter of a unit counts in full at t = 1e9 too, to the resolution of time there."""
    t0, t1 = start
    jumps = (t0 + 1.0, t0 + 1.25)
    solve = Adaptive(method="dopri5", rtol=1e-8, atol=1e-8, jumps=jumps)
    y = solve(pulse(*jumps, rate=4.0), torch.zeros(1, dtype=F64), [t0, t1]).y
    assert y.item() == pytest.approx(1.0, abs=1e-9)


RATES, JUMP = (0.7, -0.4), 0.5
SPANS = [
    [0.0, 1.0],
    [1.0, 0.0],
    [0.0, 0.2, 0.5, 0.8, 1.0],
    [1.0, 0.9, 0.5, 0.1],
    [0.5, 1.0],
    [0.0, 0.5],
    [0.5, 0.0],
    [0.0, 0.3],
    [0.0, 0.5, 0.5, 1.0],
    [0.5, 0.5, 1.0],
    [0.0, 0.4999, 0.5001, 1.0],
]


def exact_gradients(ts, rates, weights):
    """Of Σ w_j y(t_j), y(t) = exp(∫ rate): by y0, the rates and the times; a time at the jump is taken from within."""
    way = math.copysign(1.0, ts[-1] - ts[0])
    past = lambda t: max(0.0, t - JUMP) - max(0.0, ts[0] - JUMP)  # noqa: E731  time spent behind the jump
    y = [math.exp(rates[0] * (t - ts[0] - past(t)) + rates[1] * past(t)) for t in ts]
    rate = lambda t, side: rates[t > JUMP or (t == JUMP and side > 0)]  # noqa: E731
    by_times = [w * value * rate(t, way if t == ts[0] else -way) for w, value, t in zip(weights, y, ts)]
    by_times[0] = -sum(w * value for w, value, t in zip(weights[1:], y[1:], ts[1:])) * rate(ts[0], way)
    by_rates = [
        sum(w * value * (t - ts[0] - past(t)) for w, value, t in zip(weights, y, ts)),
        sum(w * value * past(t) for w, value, t in zip(weights, y, ts)),
    ]
    return sum(w * value for w, value in zip(weights, y)), by_rates, by_times


@pytest.mark.parametrize("gradient", ["backprop", "replay", "adjoint", "reversible"])
@pytest.mark.parametrize(
    "method",
    ["dopri5", "adams", *[pytest.param(m, marks=pytest.mark.numerics) for m in ("bosh3", "tsit5", "dopri8")]],
)
@pytest.mark.parametrize("ts", SPANS, ids=str)
def test_times_have_the_gradient_of_a_jump_that_stands_still(gradient, method, ts):
    if method == "adams" and gradient in ("replay", "reversible"):
        return
    tol = 1e-6 if method == "bosh3" else 1e-9
    rates, times = [torch.tensor(r, dtype=F64, requires_grad=True) for r in RATES], torch.tensor(ts, dtype=F64)
    y0, times = torch.ones(1, dtype=F64, requires_grad=True), times.requires_grad_()
    field = lambda t, y: torch.where(t < JUMP, *rates) * y  # noqa: E731
    solve = Adaptive(method=method, rtol=tol, atol=tol, jumps=(JUMP,), gradient=gradient)
    weights = [0.0, 1.0] if len(ts) == 2 else [0.3, 1.0, -0.7, 0.5, 0.9][: len(ts)]
    y = solve(field, y0, times).y.reshape(-1)
    loss = (y * torch.tensor(weights[-len(y) :], dtype=F64)).sum()
    found = torch.autograd.grad(loss, (y0, *rates, times), allow_unused=True)
    by_y0, by_rates, by_times = exact_gradients(ts, RATES, weights)
    close = {"abs": 1e-4 if method == "bosh3" else 2e-6}
    assert found[0].item() == pytest.approx(by_y0, **close)
    for mine, theirs in zip(found[1:3], by_rates):
        assert (0.0 if mine is None else mine.item()) == pytest.approx(theirs, **close)
    assert found[3].tolist() == pytest.approx(by_times, **close)


@pytest.mark.parametrize("gradient", ["backprop", "replay", "reversible"])
def test_second_derivatives_stand_still_with_the_jump(gradient):
    """y(1) = exp(.7 (.5 - t0) - .4 (t1 - .5)): d²/dt1² is .16 y, d²/dt0 dt1 is .28 y."""
    ts = torch.tensor([0.0, 1.0], dtype=F64, requires_grad=True)
    field = lambda t, y: (0.7 if t < JUMP else -0.4) * y  # noqa: E731
    y = solver("dopri5", gradient=gradient)(field, torch.ones(1, dtype=F64), ts).y
    (first,) = torch.autograd.grad(y.sum(), ts, create_graph=True)
    (second,) = torch.autograd.grad(first[1], ts)
    value = math.exp(0.7 * 0.5 - 0.4 * 0.5)
    assert first.tolist() == pytest.approx([-0.7 * value, -0.4 * value], abs=1e-6)
    assert second.tolist() == pytest.approx([0.28 * value, 0.16 * value], abs=1e-5)


@pytest.mark.parametrize("backward", [{}, {"jumps": (0.2,)}])
def test_the_adjoint_stops_at_jumps_of_the_forward_solve(backward):
    """They are the field's, also where the backward solver was made without them."""
    own = Adjoint(solver=Adaptive(method="bosh3", rtol=1e-6, atol=1e-6, **backward))
    strength = torch.tensor(2.0, dtype=F64, requires_grad=True)
    y, stats = solver("dopri5", gradient=own)(kicked(strength), torch.ones(1, dtype=F64), [0.0, 1.0])
    (found,) = torch.autograd.grad(y.sum(), strength)
    assert found.item() == pytest.approx(0.5 * math.exp(-0.5 + 1.0), rel=1e-5)
    assert stats.nfe_backward < 400, "no step has to search for the jump"


@pytest.mark.parametrize("way", [1, -1])
def test_a_segment_looks_at_its_own_jumps_alone(monkeypatch, way):
    """With a control that is held for an hour a solve has thousands of jumps."""
    looked_at, next_to_jump = [], segment._next_to_jump
    monkeypatch.setattr(segment, "_next_to_jump", lambda *jump: looked_at.append(jump) or next_to_jump(*jump))
    ends = [0.0, 100.0][::way]
    segments = segment.split_at_jumps(ends, 0, 1, [n + 0.5 for n in range(100)], torch.float64)
    assert len(segments) == 101
    assert len(looked_at) == 200
