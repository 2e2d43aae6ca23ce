"""The first zero of a function along a solution: closed forms, and its derivatives by theirs."""

from __future__ import annotations

import math

import pytest
import torch
from ode_cases import Counting, doubles
from torch.autograd import forward_ad

from odenet_cli.ode import Adaptive, Fixed, NotFinite, RandomField

TIGHT = Adaptive(method="dopri5", rtol=1e-10, atol=1e-10)


def fall(t, y, gravity=9.81):
    return torch.cat([y[1:], -gravity * torch.ones_like(y[:1])])


def height(t, y):
    return y[0]


def decay(t, y, rate=1.0):
    return -rate * y


@pytest.mark.parametrize(
    "solver",
    [
        TIGHT,
        Adaptive(method="adams", rtol=1e-10, atol=1e-10),
        Adaptive(method="rodas4", rtol=1e-8, atol=1e-8),
        Adaptive(method="dopri8", rtol=1e-10, atol=1e-10, compile=False),
        Fixed(method="rk4", steps=200),
    ],
    ids=lambda solver: solver.method,
)
def test_a_decay_reaches_its_level_when_it_should(solver):
    t, y, happened, _ = solver.until(decay, doubles(1.0), [0.0, 5.0], lambda t, y: y - 0.2)
    assert happened
    assert t.item() == pytest.approx(math.log(5), abs=1e-8)
    assert y.item() == pytest.approx(0.2, abs=1e-8)


@pytest.mark.parametrize("grad", ["backprop", "replay", "adjoint", "reversible"])
def test_gradients_are_those_of_the_closed_form(grad):
    """A body of height q falls for t = √(2q/g), and lands at v = -√(2qg)."""
    q, g = doubles(10.0, grad=True), doubles(9.81, grad=True)
    solver = Adaptive(method="dopri5", rtol=1e-9, atol=1e-9, gradient=grad)
    t, y, *_ = solver.until(fall, torch.cat([q, doubles(0.0)]), [0.0, 9.0], height, args=(g,))
    exact_t, exact_v = (2 * q / g).sqrt(), -(2 * q * g).sqrt()
    for got, exact in ((t, exact_t), (y[1], exact_v)):
        assert got.item() == pytest.approx(exact.item(), rel=1e-8)
        slopes = torch.autograd.grad(got, (q, g), retain_graph=True)
        assert all(
            torch.allclose(a, b, rtol=1e-6)
            for a, b in zip(slopes, torch.autograd.grad(exact, (q, g), retain_graph=True))
        )


def test_gradients_of_level_start_and_a_moving_event_are_those_of_finite_differences():
    def both(level, start, y0, rate):
        ts = torch.stack([start.squeeze(), torch.tensor(9.0, dtype=torch.float64)])
        t, y, *_ = TIGHT.until(decay, y0, ts, lambda t, y: y.sum() - level - 0.1 * t, args=(rate,))
        return t, y

    inputs = doubles(0.3, grad=True), doubles(0.1, grad=True), doubles(1.0, 0.5, grad=True), doubles(1.3, grad=True)
    assert torch.autograd.gradcheck(both, inputs, atol=1e-5, fast_mode=True)


def test_the_first_of_several_zeros_and_the_direction():
    def solve(start, direction):
        swing = Adaptive(method="dopri5", rtol=1e-9, atol=1e-9, max_step=0.5)
        return swing.until(
            lambda t, y: torch.stack([y[1], -y[0]]),
            doubles(math.sin(start), math.cos(start)),
            [0.0, 9.0],
            height,
            direction=direction,
        ).t.item()

    assert solve(1.0, 0) == pytest.approx(math.pi - 1)
    assert solve(1.0, -1) == pytest.approx(math.pi - 1)
    assert solve(1.0, 1) == pytest.approx(2 * math.pi - 1)
    assert solve(0.0, 0) == pytest.approx(math.pi)  # the zero where it begins is none


@pytest.mark.parametrize("method", ["dopri5", "dopri8", "adams", "rodas4"])
@pytest.mark.parametrize("way", [1, -1])
def test_a_zero_at_the_start_and_again_in_the_first_step(method, way):
    """Thrown up from the ground at v a body is back at 2v/g; the first step goes far beyond."""
    solver = Adaptive(method=method, rtol=1e-8, atol=1e-8, first_step=9.0)
    times = [0.0, way * 9.0]
    t, y, happened, _ = solver.until(fall, doubles(0.0, way * 5.0), times, height, direction=-1)
    assert happened
    assert t.item() == pytest.approx(way * 10 / 9.81)
    assert y.tolist() == pytest.approx([0.0, -way * 5.0], abs=1e-7)
    # It does not rise again; nor is there a zero behind one that it leaves for good, nor at one where it stays.
    assert not solver.until(fall, doubles(0.0, way * 5.0), times, height, direction=1).happened
    assert not solver.until(fall, doubles(0.0, -way * 5.0), times, height).happened
    assert not solver.until(fall, doubles(0.0, 0.0), times, lambda t, y: 0 * y[0]).happened


@pytest.mark.parametrize("below", [-1e-17, 1e-17, -1e-15])
@pytest.mark.parametrize("first_step", [None, 9.0])
def test_a_zero_at_the_start_up_to_rounding_is_none_either(below, first_step):
    """A ball that bounces off the ground begins where its landing was found: there it may lie a little below."""
    solver = Adaptive(method="dopri5", rtol=1e-8, atol=1e-8, first_step=first_step)
    for direction in (0, -1):
        t, _, happened, _ = solver.until(fall, doubles(below, 5.0), [0.0, 9.0], height, direction=direction)
        assert happened
        assert t.item() == pytest.approx(10 / 9.81)


def test_a_zero_soon_after_the_start_is_found_beside_large_numbers():
    """Rounding of 1e4 in float32 is 1e-3, which what begins at 0.4999 and rises by 0.01 goes through in 0.01."""
    solver = Adaptive(method="dopri5", rtol=1e-6, atol=1e-6)
    y0 = torch.tensor([1e4, 0.4999])
    t, *_ = solver.until(lambda t, y: 0.01 * (y < 1), y0, [0.0, 9.0], lambda t, y: y[1] - 0.5)
    assert t.item() == pytest.approx(0.01, rel=1e-2)


@pytest.mark.parametrize("gradient", ["backprop", "replay", "adjoint"])
def test_a_field_that_draws_is_refused(gradient):
    """The search would follow one path, and the solve to its zero another."""
    solver = Adaptive(method="bosh3", rtol=1e-2, atol=1e-2, gradient=gradient)

    def noisy(t, y):
        return torch.nn.functional.dropout(torch.ones_like(y), 0.1)

    with pytest.raises(RandomField, match="draws random numbers from torch"):
        solver.until(noisy, torch.zeros(4, requires_grad=True), [0.0, 9.0], lambda t, y: y[0] - 1)


def test_the_start_has_its_tangent_where_nothing_is_recorded():
    """y' = y from 1 at t0 reaches 2 at t0 + log 2: dt/dt0 = 1."""
    with torch.no_grad(), forward_ad.dual_level():
        ts = forward_ad.make_dual(doubles(0.0, 9.0), doubles(1.0, 0.0))
        t, *_ = Adaptive(method="dopri5", rtol=1e-8, atol=1e-8, gradient="backprop").until(
            lambda t, y: y, doubles(1.0), ts, lambda t, y: y[0] - 2
        )
        value, tangent = forward_ad.unpack_dual(t)
    assert value.item() == pytest.approx(math.log(2))
    assert tangent.item() == pytest.approx(1.0)


def test_time_may_run_backward_and_the_state_be_a_tuple():
    t, (a, b), happened, _ = TIGHT.until(
        lambda t, y: (-y[0], 2 * y[1]), (doubles(1.0), doubles(1.0)), [0.0, -3.0], lambda t, y: y[0] - 4
    )
    assert happened
    assert (t.item(), a.item(), b.item()) == pytest.approx((-math.log(4), 4.0, 1 / 16))


@pytest.mark.parametrize("grad", ["backprop", "replay", "reversible"])
def test_second_derivatives_are_those_of_the_closed_form(grad):
    """y' = p cos t from q reaches L where sin t = (L - q) / p."""
    p, q = doubles(2.0, grad=True), doubles(0.1, grad=True)
    solver = Adaptive(method="dopri8", rtol=1e-12, atol=1e-12, gradient=grad)
    t, y, *_ = solver.until(lambda t, y: p * torch.cos(t) + 0 * y, q, [0.0, 1.5], lambda t, y: y - 1.2 - t * t / 9)
    exact = doubles(t.item())
    for _ in range(3):  # Newton steps by autograd, from the zero on: each has one derivative more
        g, rate = q + p * exact.sin() - 1.2 - exact**2 / 9, p * exact.cos() - 2 * exact / 9
        exact = exact - g / rate
    for got, want in ((t, exact), (y, q + p * exact.sin())):
        first = torch.autograd.grad(got.sum(), (p, q), create_graph=True)
        closed = torch.autograd.grad(want.sum(), (p, q), create_graph=True)
        assert torch.allclose(torch.cat(first), torch.cat(closed), rtol=1e-8)
        weight = doubles(1.0, -2.0)
        second = torch.autograd.grad((torch.cat(first) * weight).sum(), (p, q), retain_graph=True)
        closed = torch.autograd.grad((torch.cat(closed) * weight).sum(), (p, q), retain_graph=True)
        assert torch.allclose(torch.cat(second), torch.cat(closed), rtol=1e-7)


def test_what_does_not_happen_ends_at_the_end():
    y0 = doubles(1.0, grad=True)
    t, y, happened, _ = TIGHT.until(decay, y0, [0.0, 2.0], lambda t, y: y + 1)
    assert (t.item(), happened) == (2.0, False)
    assert torch.autograd.grad(y, y0)[0].item() == pytest.approx(math.exp(-2))
    ts = torch.tensor([0.0, 2.0], requires_grad=True)
    t, *_ = Fixed(method="rk4", steps=4).until(decay, torch.ones(1), ts, lambda t, y: y + 1)
    assert t.dtype == torch.float32
    assert torch.autograd.grad(t, ts)[0].tolist() == [0.0, 1.0]


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_a_hamiltonian_field_meets_its_event_in_every_mode(mode):
    """An oscillator begins at (1, 0), and passes 0 after a quarter of its period."""

    def field(t, y):
        (slope,) = torch.autograd.grad(y.square().sum() / 2, y, create_graph=True)
        return torch.stack([slope[1], -slope[0]])

    with mode():
        t, y, *_ = TIGHT.until(field, doubles(1.0, 0.0), [0.0, 3.0], height)
    assert t.item() == pytest.approx(math.pi / 2)
    assert y.tolist() == pytest.approx([0.0, -1.0], abs=1e-8)


def test_an_event_is_computed_without_autocast():
    linear = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.ones_(linear.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        t, *_ = Adaptive(method="dopri5", rtol=1e-6, atol=1e-6).until(
            decay, torch.ones(1), [0.0, 3.0], lambda t, y: linear(y) - 0.3
        )
    assert t.item() == pytest.approx(-math.log(0.3), abs=1e-5)


def test_an_event_on_a_jump_has_the_slope_before_it():
    """y' = 1 until t = 1 and 5 behind it: the state at time q = 1 has the derivative 1 by q, as a solve's end has."""
    q = doubles(1.0, grad=True)
    solver = Adaptive(method="dopri5", rtol=1e-8, atol=1e-8, jumps=(1.0,))
    t, y, *_ = solver.until(
        lambda t, y: torch.where(t < 1, 1.0, 5.0) + 0 * y, doubles(0.0), [0.0, 2.0], lambda t, y: t - q
    )
    assert torch.autograd.grad(t, q, retain_graph=True)[0].item() == pytest.approx(1.0)
    assert torch.autograd.grad(y, q)[0].item() == pytest.approx(1.0)


def test_a_float32_event_is_found_to_its_rounding():
    t, y, *_ = Adaptive(method="tsit5", rtol=1e-5, atol=1e-5).until(
        decay, torch.ones(1), [0.0, 5.0], lambda t, y: y - 0.2
    )
    assert t.dtype == torch.float32
    assert t.item() == pytest.approx(math.log(5), abs=1e-5)
    assert abs(y.item() - 0.2) < 1e-6


def test_evaluations_of_both_solves_are_counted():
    field = Counting(decay)
    with torch.no_grad():
        stats = TIGHT.until(field, doubles(1.0), [0.0, 5.0], lambda t, y: y - 0.2).stats
    assert stats.nfe_forward == field.calls


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"event": lambda t, y: torch.ones(2)}, "a tensor of one number"),
        ({"event": lambda t, y: 1.0}, "a tensor of one number"),
        ({"ts": [0.0, 1.0, 2.0]}, "got 3 times"),
        ({"direction": 2}, "direction=2 is not one of"),
        ({"event": lambda t, y: y < 0.2}, r"real and floating-point; got \(1,\) torch.bool"),
        ({"event": lambda t, y: y * 1j}, "real and floating-point"),
        ({"event": lambda t, y: y.sub_(0.2)}, "writes into the state"),
        ({"event": lambda t, y: y.detach() - 0.2}, "no derivative along the solution"),
        ({"event": lambda t, y: y.detach() - 0.2 * torch.ones(1, requires_grad=True)}, "no derivative along"),
    ],
)
def test_what_is_no_event_is_refused(change, says):
    call = {"event": lambda t, y: y - 0.2, "ts": [0.0, 5.0], **change}
    with pytest.raises(ValueError, match=says):
        TIGHT.until(decay, doubles(1.0), **call)


@pytest.mark.parametrize(
    "event",
    [
        lambda t, y: torch.where(t < 1, y * math.nan, y - 0.2),
        lambda t, y: torch.where(t < 1, y - 0.2, y * math.nan),
        lambda t, y: torch.where(t < 1, y - 0.2, -y * math.inf),
    ],
)
def test_an_event_that_is_not_finite_is_named(event):
    with pytest.raises(NotFinite, match=r"event\(t, y\) is (nan|-inf) at t = "):
        TIGHT.until(decay, doubles(1.0), [0.0, 5.0], event)


@pytest.mark.parametrize(
    "event",
    [
        lambda t, y: 1 / (y - 0.3),
        lambda t, y: torch.tan(3 * y),
        lambda t, y: torch.where(y > 0.3, y - 5, y),
        lambda t, y: torch.where(y > 0.3, y - 0.3 + 1e-3, y - 0.3 - 1e-3),
        lambda t, y: torch.sign(y - 0.3),
    ],
)
@pytest.mark.parametrize("wanted", [True, False])
def test_a_sign_that_changes_without_a_zero_is_refused(event, wanted):
    """A pole was found as a zero; and Newton steps from a jump led out of the span of the solve."""
    with torch.set_grad_enabled(wanted), pytest.raises(ValueError, match=r"without being zero there|or jumps over it"):
        TIGHT.until(decay, doubles(1.0), [0.0, 5.0], event)


@pytest.mark.parametrize(
    "event",
    [
        lambda t, y: torch.sign(y - 0.3) * (y - 0.3).abs().sqrt(),
        lambda t, y: torch.tanh(1e8 * (y - 0.3)),
        lambda t, y: 1e200 * (y - 0.3),
        lambda t, y: y**20 - 0.3**20,
    ],
)
def test_steep_and_flat_zeros_are_no_jumps(event):
    t, *_ = TIGHT.until(decay, doubles(1.0), [0.0, 5.0], event)
    assert t.item() == pytest.approx(-math.log(0.3), abs=1e-7)


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_touch_at_the_end_of_a_step_is_no_zero_by_rounding(sign, dtype):
    """y = (t - 1)², exact for rk4 but for rounding; its zero came out with a derivative of 1e8 by the start."""

    def outcome(steps):
        solver, y0 = Fixed(method="rk4", steps=steps), torch.full((1,), sign, dtype=dtype)
        try:
            happened = solver.until(lambda t, y: sign * 2 * (t - 1) + 0 * y, y0, [0.0, 2.0], lambda t, y: y)[2]
        except ValueError as error:
            return str(error)[:29]
        return happened

    assert {outcome(steps) for steps in range(2, 60)} == {False, "the event only touches zero a"}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("level", [1e-3, 1e-4, 1e-5])
def test_a_small_number_at_the_end_of_a_decay_is_no_rounding(dtype, level):
    """An event of 10 at the start: a step may end nearer to zero than 100 roundings of that."""
    solver = Adaptive(method="dopri5", rtol=1e-5, atol=1e-9)
    for start in torch.linspace(9, 11, 21, dtype=dtype):
        t, *_ = solver.until(decay, start[None], [0.0, 20.0], lambda t, y: y - level)
        assert t.item() == pytest.approx(math.log(start / level), abs=1e-3)


@pytest.mark.parametrize("steps", range(2, 40, 2))
def test_a_zero_at_the_end_of_a_step_is_found_with_its_gradient(steps):
    """y = y0 - t: the zero is at y0."""
    y0 = doubles(1.0).requires_grad_()
    t, *_ = Fixed(method="rk4", steps=steps).until(lambda t, y: 0 * y - 1, y0, [0.0, 2.0], lambda t, y: y)
    t.backward()
    assert t.item() == pytest.approx(1.0, abs=1e-12)
    assert y0.grad.item() == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize("method", ["dopri5", "adams"])
@pytest.mark.parametrize("start", [0.0, 3e3, -1e5, 1.6e9])
def test_a_zero_far_from_time_0_is_no_jump(start, method):
    """What rounding of the time does to the event goes by way of the state."""
    solver = Adaptive(method=method, rtol=1e-6, atol=1e-6)
    t, *_ = solver.until(decay, doubles(1.0), [start, start + 3], lambda t, y: (y - 0.3).sum())
    assert t.item() - start == pytest.approx(-math.log(0.3), abs=1e-5)


@pytest.mark.parametrize(("dtype", "large"), [(torch.float64, 1e4), (torch.float32, 10.0)])
def test_a_difference_of_large_numbers_is_no_jump(dtype, large):
    solver = Adaptive(method="dopri5", rtol=1e-6, atol=1e-6)
    t, *_ = solver.until(decay, doubles(1.0).to(dtype), [0.0, 3.0], lambda t, y: ((y + large) - large - 0.3).sum())
    assert t.item() == pytest.approx(-math.log(0.3), abs=1e-4)


@pytest.mark.parametrize("size", [1.0, 1e4])
def test_a_float32_zero_is_no_jump(size):
    f32 = Adaptive(method="dopri5", rtol=1e-5, atol=1e-5)
    t, *_ = f32.until(lambda t, y: 0 * y + size, torch.full((1,), size), [0.0, 3.0], lambda t, y: y - 2.3 * size)
    assert t.item() == pytest.approx(1.3, rel=1e-4)


@pytest.mark.parametrize("method", ["dopri5", "adams", "rodas4"])
@pytest.mark.parametrize(("ts", "first"), [([0.0, 1.0], 0.3), ([1.0, 0.0], 0.9)])
def test_of_three_zeros_in_a_step_the_first_is_found(method, ts, first):
    """Along y = t, which the solver takes in steps of any length; false position would come upon the last."""
    solver = Adaptive(method=method, rtol=1e-6, atol=1e-6, first_step=1.0)
    y0 = torch.tensor([ts[0]], dtype=torch.float64)
    rising = 1 if ts[0] == 0.0 else -1
    for direction in (0, rising):
        found = solver.until(
            lambda t, y: torch.ones_like(y),
            y0,
            ts,
            lambda t, y: (y[0] - 0.3) * (y[0] - 0.6) * (y[0] - 0.9),
            (),
            (),
            direction,
        )
        assert float(found.t) == pytest.approx(first, abs=1e-12)
        assert found.stats.accepted <= 8
