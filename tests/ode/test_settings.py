"""Settings in any dress are the numbers they hold, and an error names the setting that is the cause."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
from ode_cases import GRADIENTS, doubles

from odenet_cli.ode import Adaptive, Fixed, NotFinite, NotReversible, StepLimit, StepTooSmall
from odenet_cli.ode.gradient.adjoint import Adjoint
from odenet_cli.ode.gradient.reversible import Reversible

ONE = doubles(1.0)
DRESS = [numpy.float64, numpy.float32, torch.tensor, lambda x: torch.tensor(x, dtype=torch.float64), numpy.asarray]
PLAIN = {"rtol": 1e-3, "atol": 1e-4, "first_step": 0.125, "min_step": 2.0**-20, "max_step": 0.25, "safety": 0.875}


def decay(t, y):
    return -y


@pytest.mark.parametrize("dress", DRESS)
def test_a_number_of_numpy_or_torch_is_the_number_it_holds(dress):
    numbers = {key: float(dress(value)) for key, value in PLAIN.items()}
    expected = Adaptive(method="dopri5", max_steps=77, **numbers)
    found = Adaptive(method="dopri5", max_steps=numpy.int64(77), **{key: dress(value) for key, value in PLAIN.items()})
    assert found == expected
    assert {type(getattr(found, key)) for key in PLAIN} == {float}
    assert hash(found) == hash(expected)
    first, second = found(decay, ONE, [0.0, 1.0]), expected(decay, ONE, [0.0, 1.0])
    assert torch.equal(first.y, second.y)
    assert Fixed(method="rk4", steps=torch.tensor(7)) == Fixed(method="rk4", steps=7)
    assert Reversible(coupling=dress(0.75)) == Reversible(coupling=0.75)
    assert type(Reversible(coupling=dress(0.75)).coupling) is float
    assert Adjoint(control_parameters=numpy.bool_(True)).control_parameters is True


@pytest.mark.parametrize(
    "jumps",
    [
        torch.tensor([0.25, 0.5]), numpy.array([0.25, 0.5]), [numpy.float32(0.25), 0.5],
        (doubles(0.25)[0], torch.tensor(0.5)), {0.5: 1, 0.25: 2}.keys(), iter([0.25, 0.5]),
    ],
    ids=lambda jumps: type(jumps).__name__,
)  # fmt: skip
def test_jumps_come_in_any_sequence(jumps):
    assert sorted(Adaptive(method="dopri5", rtol=1e-3, atol=1e-3, jumps=jumps).jumps) == [0.25, 0.5]


def test_a_jump_in_float32_is_the_decimal_it_stands_for():
    """In float64 it would lie 2e-8 or 1e-7 beside the field's own, and a step would begin on the wrong side."""
    for jumps in (torch.tensor([1.0, 1.1, 3.1]), numpy.array([1.0, 1.1, 3.1], dtype=numpy.float32)):
        assert Adaptive(method="dopri5", rtol=1e-3, atol=1e-3, jumps=jumps).jumps == (1.0, 1.1, 3.1)
    exact = doubles(1 / 3, math.pi * 1e7, -1e-300)
    assert Adaptive(method="dopri5", rtol=1e-3, atol=1e-3, jumps=exact).jumps == tuple(exact.tolist())


def test_one_jump_needs_no_sequence():
    for jump in (0.5, torch.tensor(0.5), numpy.float32(0.5)):
        assert Adaptive(method="dopri5", rtol=1e-3, atol=1e-3, jumps=jump).jumps == (0.5,)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rtol", torch.tensor([1e-3, 1e-4])), ("atol", numpy.array([1e-3, 1e-4])), ("rtol", torch.tensor(-1.0)),
        ("atol", numpy.float32("nan")), ("max_steps", torch.tensor(2.5)), ("max_steps", numpy.bool_(True)),
        ("jumps", torch.tensor([0.1, math.nan])), ("jumps", torch.zeros(2, 2)), ("jumps", None), ("jumps", "0.5"),
        ("jumps", [True]),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_no_setting_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=rf"solver\.{key}="):
        Adaptive(**{"method": "dopri5", "rtol": 1e-3, "atol": 1e-3, key: value})


def test_a_jump_that_wants_a_gradient_is_refused():
    for jumps in (doubles(0.5, grad=True), [doubles(0.5, grad=True)[0]]):
        with pytest.raises(ValueError, match=r"solver\.jumps cannot have a gradient.*detach"):
            Adaptive(method="dopri5", rtol=1e-3, atol=1e-3, jumps=jumps)


@pytest.mark.parametrize(
    "ts",
    [[0, 1], (0, torch.tensor(1.0)), numpy.array([0.0, 1.0], dtype=numpy.float32), [numpy.float32(0), numpy.int64(1)],
     [torch.tensor(0), torch.tensor(1)], range(2), iter([0.0, 1.0])],
    ids=lambda ts: type(ts).__name__,
)  # fmt: skip
def test_times_come_in_any_dress(ts):
    y = Fixed(method="rk4", steps=20)(decay, ONE, ts).y
    assert y.item() == pytest.approx(math.exp(-1), rel=1e-6)


@pytest.mark.parametrize("method", ["dopri5", "adams"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_step_too_small_names_its_cause(method, dtype):
    wave = lambda t, y: torch.sin(50 * t) * y  # noqa: E731
    held = Adaptive(method=method, rtol=1e-6, atol=1e-6, min_step=0.1)
    with pytest.raises(StepTooSmall, match=r"is below solver\.min_step=0\.1\. Lower this limit, or loosen") as error:
        held(wave, ONE.to(dtype), [0.0, 2.0])
    assert "float64" not in str(error.value)
    free = Adaptive(method=method, rtol=1e-6, atol=1e-6, max_steps=100_000)
    with pytest.raises((StepTooSmall, NotFinite)) as caught:
        free(lambda t, y: y * y, ONE.to(dtype), [0.0, 2.0])
    if caught.type is StepTooSmall:
        assert ("use dtype=float64" in str(caught.value)) == (dtype is torch.float32)
        assert "min_step" not in str(caught.value)
        assert "solver.jumps" in str(caught.value)


def test_a_step_limit_names_the_longest_step():
    with pytest.raises(
        StepLimit, match=r"the step is 1\.00e-03 \(held to solver\.max_step=0\.001, which may be raised"
    ):
        Adaptive(method="dopri5", rtol=1e-3, atol=1e-3, max_step=1e-3, max_steps=50)(decay, ONE, [0.0, 1.0])
    with pytest.raises(NotFinite, match=r"down to solver\.min_step=0\.01"):
        Adaptive(method="dopri5", rtol=1e-3, atol=1e-3, min_step=0.01)(
            lambda t, y: y if t < 0.5 else y * math.nan, ONE, [0.0, 1.0]
        )


def test_a_pair_that_comes_apart_is_not_blamed_on_the_tolerance():
    y0 = doubles(1.0, grad=True)
    with pytest.raises(NotReversible, match=r"gradient=replay, or try a smaller gradient\.coupling") as error:
        Adaptive(method="dopri5", rtol=1e-6, atol=1e-6, gradient="reversible")(lambda t, y: -9 * y, y0, [0.0, 1.0])
    assert "tighten" not in str(error.value)
    with pytest.raises(NotReversible, match=r"1 \+ \|y\|.*gradient\.coupling") as error:
        Fixed(method="rk4", steps=20, gradient="reversible")(lambda t, y: -20 * y, y0, [0.0, 1.0])
    assert "tolerance" not in str(error.value)
    own = Reversible(coupling=0.5)
    y = Adaptive(method="dopri5", rtol=1e-8, atol=1e-8, gradient=own)(lambda t, y: -9 * y, y0, [0.0, 1.0]).y
    (found,) = torch.autograd.grad(y.sum(), y0)
    assert found.item() == pytest.approx(math.exp(-9), rel=1e-3)


@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_pulse_that_is_stepped_over_is_caught_by_the_longest_step_or_a_jump(gradient):
    """y' = 1 between 3 and 3.1, else 0, from 0 to 10: without a hint no step falls into the pulse."""
    pulse = lambda t, y: ((t >= 3.0) & (t < 3.1)).to(y).expand_as(y) + 0 * y  # noqa: E731
    y0 = doubles(0.0, grad=True)
    for options, near in (({}, None), ({"max_step": 0.05}, 1e-3), ({"jumps": torch.tensor([3.0, 3.1])}, 1e-6)):
        y = Adaptive(method="dopri5", rtol=1e-6, atol=1e-6, gradient=gradient, **options)(pulse, y0, [0.0, 10.0]).y
        assert y.item() == (0.0 if near is None else pytest.approx(0.1, abs=near))
