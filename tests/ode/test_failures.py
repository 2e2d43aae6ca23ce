"""A solve that cannot go on stops by itself, and says where it was and which key to turn."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import textwrap

import pytest
import torch
from ode_cases import GRADIENTS, HEUN_EULER, PAIRS, WAYS, doubles, label

from odenet_cli.errors import RequestError
from odenet_cli.ode import Adaptive, Fixed, NotFinite, SolveError, StepLimit, StepTooSmall

ONE, TS = doubles(1.0), doubles(0.0, 2.0)
STRANGE = (ONE.to_sparse(), ONE.to(torch.float8_e4m3fn), ONE.to("meta"))  # no tensors that a solver can use


def solver(**changes):
    return Adaptive(**{"method": "dopri5", "rtol": 1e-4, "atol": 1e-4, **changes})


def after_half(value):
    return lambda t, y: y if t < 0.5 else y * value


@pytest.mark.parametrize(("name", "grad"), [*itertools.product(PAIRS, GRADIENTS), *WAYS[-2:]], ids=label)
@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_a_field_that_is_not_finite_is_named_with_its_time(bad, name, grad):
    w = doubles(1.0, grad=True)
    solve = solver(method=name, gradient=grad)
    with pytest.raises(NotFinite, match="t = 0, where the solve begins"):
        solve(lambda t, y: w * y * bad, ONE, TS)
    with pytest.raises(NotFinite, match=r"t = 0\.5 .*accepted and .* rejected.*optim\.lr"):
        solve(after_half(bad), ONE, TS)
    with pytest.raises(NotFinite, match="t = 0 "):
        solver(method=name, first_step=0.1)(lambda t, y: w * y * bad, ONE, TS)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_start_that_is_not_finite_is_named(bad):
    with pytest.raises(NotFinite, match="t = 0,"):
        solver()(lambda t, y: -y, doubles(1.0, bad), TS)
    with pytest.raises(NotFinite, match="ts must be finite"):
        solver()(lambda t, y: -y, ONE, [0.0, bad])


@pytest.mark.parametrize("ts", [(0.0, 5.0), (0.0, 2.0, 5.0)])
@pytest.mark.parametrize("name", [*PAIRS, "adams"], ids=label)
def test_a_state_that_leaves_its_dtype_is_named(name, ts):
    """The field stays finite, and an infinite number has an infinite tolerance."""
    with pytest.raises(NotFinite, match="the state is NaN or infinite at t = 5"):
        solver(rtol=1e-2, atol=1e-2, method=name)(
            lambda t, y: torch.full_like(y, 1e4), torch.full((1,), 6e4).half(), ts
        )


def test_a_part_that_is_not_controlled_and_not_finite_is_named():
    with pytest.raises(NotFinite, match="the state is NaN or infinite at t = 2"):
        solver(n_controlled=1)(lambda t, y: (-y[0], y[1] ** 2), (ONE, ONE), TS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", [*PAIRS, "adams"], ids=label)
def test_a_blow_up_stops_at_the_pole(name, dtype):
    """y' = y², y(0) = 1 has its pole at t = 1."""
    with pytest.raises(SolveError, match=r"t = (1|0\.99|1\.00)\d* "):
        solver(method=name)(lambda t, y: y * y, ONE.to(dtype), TS)


@pytest.mark.parametrize("name", ["dopri5", "adams"])
def test_a_stiff_field_meets_the_step_limit(name):
    with pytest.raises(StepLimit, match=r"t = 0\.0.* of 2; the step is .*solver\.max_steps.*solver\.rtol"):
        solver(method=name, max_steps=100)(lambda t, y: -1e6 * (y - torch.cos(t)), ONE, TS)


@pytest.mark.parametrize("name", ["dopri5", "adams"])
def test_the_step_limit_counts_accepted_and_rejected_steps(name):
    def field(t, y):
        return torch.where(t < 0.7, 1.0, -1.0) * y * torch.cos(9 * t)

    stats = solver(method=name)(field, ONE, TS).stats
    needed = stats.accepted + stats.rejected
    assert stats.rejected > 3
    assert solver(method=name, max_steps=needed)(field, ONE, TS).stats == stats
    with pytest.raises(StepLimit):
        solver(method=name, max_steps=needed - 1)(field, ONE, TS)


def noise(t, y):
    return torch.randn_like(y)


def jumps(t, y):
    return torch.sign(torch.sin(1e3 * y + 977 * t))


@pytest.mark.parametrize(("name", "field"), [("dopri5", noise), ("dopri5", jumps), ("adams", noise)])
def test_noise_and_jumps_end_by_themselves(name, field):
    torch.manual_seed(0)
    with pytest.raises(SolveError, match=r"t = [\d.e-]+ of 2.*solver\.max_steps"):
        solver(method=name, rtol=1e-9, atol=1e-9, max_steps=1000)(field, ONE, TS)


@pytest.mark.parametrize("name", ["dopri5", "adams"])
def test_a_step_below_the_smallest_is_refused(name):
    with pytest.raises(StepTooSmall, match=r"step of .* at t = .*solver\.rtol"):
        solver(method=name, rtol=1e-9, atol=1e-9, min_step=0.1)(lambda t, y: torch.sin(50 * t) * y, ONE, TS)


@pytest.mark.parametrize(("name", "grad"), WAYS)
def test_an_error_of_the_field_passes_unchanged(name, grad):
    class Mine(Exception):
        pass

    error = Mine("as it was")

    def field(t, y):
        if t > 0.5:
            raise error
        return -y

    for solve in (solver(method=name, gradient=grad), Fixed(method="rk4", steps=5, gradient=grad)):
        with pytest.raises(Mine) as caught:
            solve(field, doubles(1.0, grad=True), TS)
        assert caught.value is error


PAIR = (ONE, ONE)
FIELDS = {
    "nothing": (ONE, lambda t, y: None, r"\(1,\) torch.float64; it returned NoneType"),
    "a number": (ONE, lambda t, y: 1.0, "it returned float"),
    "a tuple": (ONE, lambda t, y: (y,), "it returned tuple"),
    "another type": (ONE, lambda t, y: y.float(), "it returned .* torch.float32"),
    "another shape": (ONE, lambda t, y: torch.cat([y, y]), r"it returned \(2,\)"),
    "a shape to broadcast": (ONE, lambda t, y: y[0], r"it returned \(\)"),
    "too few": (PAIR, lambda t, y: (y[0],), "returned 1 tensors for a state of 2"),
    "too many": (PAIR, lambda t, y: (*y, ONE), "returned 3 tensors for a state of 2"),
}


@pytest.mark.parametrize("case", FIELDS)
def test_a_field_returns_what_it_is_given(case):
    y0, field, words = FIELDS[case]
    for solve in (solver(), Fixed(method="rk4", steps=2)):
        with pytest.raises(ValueError, match=words):
            solve(field, y0, TS)


ARGUMENTS = {
    "rtol": [-1.0, math.nan, math.inf, "a", None],
    "atol": [-1e-9, math.nan, [1.0]],
    "max_steps": [0, -1, 1.5, True, None],
    "first_step": [0.0, -1.0, math.inf],
    "min_step": [-1.0, math.nan, math.inf],
    "max_step": [0.0, -1.0, math.nan],
    "safety": [0.0, -1.0, 1.5, math.nan],
    "controller": ["PI4", None, "i"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in ARGUMENTS.items() for value in values])
def test_a_setting_out_of_range_is_refused_by_name(key, value):
    with pytest.raises(ValueError, match=rf"solver\.{key}="):
        solver(**{key: value})


def test_settings_that_exclude_each_other_are_refused():
    with pytest.raises(ValueError, match=r"solver\.rtol \+ solver\.atol"):
        solver(rtol=0.0, atol=0.0)
    with pytest.raises(ValueError, match=r"solver\.min_step=1\.0 is above solver\.max_step=0\.1"):
        solver(min_step=1.0, max_step=0.1)
    with pytest.raises(ValueError, match=r"solver\.method=rk4 has no error estimate"):
        solver(method="rk4")


@pytest.mark.parametrize("make", [solver, lambda **changes: Fixed(**{"method": "rk4", "steps": 2, **changes})])
def test_names_are_checked_when_the_solver_is_made(make):
    with pytest.raises(RequestError, match=r"solver\.method=tsit6 .*`tsit5`"):
        make(method="tsit6")
    with pytest.raises(RequestError, match=r"gradient\.method=backprp .*`backprop`"):
        make(gradient="backprp")
    with pytest.raises(TypeError, match=r"solver\.gradient=3 "):
        make(gradient=3)


@pytest.mark.parametrize("steps", [0, -1, 2.0, True, None])
def test_a_number_of_steps_is_a_whole_one(steps):
    with pytest.raises(ValueError, match=r"solver\.steps="):
        Fixed(method="rk4", steps=steps)


@pytest.mark.parametrize(
    "ts",
    [
        1.0,
        None,
        [],
        [0.0],
        [0.0, 1.0, 0.5],
        [1.0, 0.0, 0.5],
        torch.zeros(2, 2),
        torch.tensor([0, 1]),
        torch.tensor(1.0),
    ],
    ids=str,
)
def test_times_that_are_none_are_refused(ts):
    with pytest.raises((ValueError, TypeError), match="ts must"):
        solver()(lambda t, y: -y, ONE, ts)


@pytest.mark.parametrize(
    "y0",
    [1.0, None, [1.0, 2.0], torch.tensor([1, 2]), (), (ONE, 1.0), torch.tensor([True]), *STRANGE],
    ids=str,
)
def test_states_that_are_none_are_refused(y0):
    with pytest.raises((ValueError, TypeError), match="y0 must"):
        solver()(lambda t, y: y, y0, TS)


@pytest.mark.numerics
def test_python_minus_o_changes_nothing():
    script = """
        import torch
        from odenet_cli.ode import Adaptive, NotFinite, StepLimit, StepTooSmall
        assert False, "assertions are off"
        one = torch.ones(1, dtype=torch.float64)
        def caught(field, ts=(0.0, 2.0), **changes):
            try:
                Adaptive(**{"method": "dopri5", "rtol": 1e-4, "atol": 1e-4, **changes})(field, one, list(ts))
            except Exception as error:
                print(type(error).__name__)
        caught(lambda t, y: y * float("nan"))
        caught(lambda t, y: y * y)
        caught(lambda t, y: -1e6 * y, max_steps=100)
        caught(lambda t, y: y.float())
        caught(lambda t, y: y, ts=(0.0, 1.0, 0.5))
        caught(lambda t, y: y, rtol=-1.0)
        caught(lambda t, y: (y,))
        caught(lambda t, y: y * float("nan"), method="adams")
        caught(lambda t, y: y * y, method="adams")
        caught(lambda t, y: -1e6 * y, method="adams", max_steps=100)
        caught(lambda t, y: y.float(), method="adams")
        caught(lambda t, y: y, method="adams", gradient="replay")
    """
    done = subprocess.run(
        [sys.executable, "-O", "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True
    )
    failures = ["NotFinite", "StepTooSmall", "StepLimit"]
    assert done.stdout.split() == [*failures, *["ValueError"] * 4, *failures, *["ValueError"] * 2]


def test_a_failed_solve_leaves_the_next_one_untouched():
    solve = solver(method=HEUN_EULER)
    before = solve(lambda t, y: -y, ONE, TS)
    with pytest.raises(SolveError):
        solve(lambda t, y: y * y, ONE, TS)
    after = solve(lambda t, y: -y, ONE, TS)
    assert torch.equal(before.y, after.y)
    assert before.stats == after.stats
