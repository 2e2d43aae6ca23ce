"""The doctor names what is wrong with a solve, proves the cure, and says nothing of a sound one."""

from __future__ import annotations

import functools
import itertools
import random
import statistics
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import test_detest as detest
import torch
from scipy.integrate import solve_ivp
from sick_problems import PROBLEMS, Net

from odenet_cli.ode import Adaptive, Fixed, SolveError, diagnosis, doctor, tally
from odenet_cli.ode.diagnosis import in_words

QUICK = (
    "y' = y^2",
    "one dose",
    "a probe redrawn",
    "1e-9 in float32",
    "atol 0 at a component of 0",
    "a start that is NaN",
)


def problem(name):
    return next(p for p in PROBLEMS if p.name == name)


def examine(p):
    field, y0 = p.make()
    return doctor(p.solver(), field, y0, p.ts)


@functools.cache
def report_of(name):
    return examine(problem(name))


@pytest.mark.parametrize("name", [*QUICK, "20 steps for van der Pol", "network with a strong decay"])
def test_the_kind_is_named_and_the_cure_passes(name):
    report = report_of(name)
    assert report.kind == problem(name).kind
    assert report.tried["nfe"] > 0
    assert report.tried["error"] < 1e-2
    assert f"{report.kind}: {report.reason}" in str(report)
    assert f"{report.tried['nfe']:,} evaluations" in str(report)


def test_a_jump_is_located_to_rounding():
    assert report_of("one dose").cure == {"jumps": (0.7,)}


def test_the_end_of_a_solution_is_located():
    assert report_of("y' = y^2").evidence["ends at t"] == pytest.approx(1.0, abs=1e-4)


def test_the_words_of_a_command_line():
    report = report_of("1e-9 in float32")
    assert in_words(report.settings()) == ["dtype=float64"]
    assert report.settings("eval.solver.") == {"eval.dtype": "float64"}
    assert in_words(report_of("one dose").settings()) == ["solver.jumps=[0.7]"]
    assert report_of("a longest step too short").settings() == {"solver.max_step": 20.0}


def test_spectral_radius_and_bound_of_stability():
    """Of y' = net(y) - 800 y, and of bosh3, whose |R(z)| passes 1 at z = -2.51."""
    evidence = report_of("network with a strong decay").evidence
    assert evidence["spectral radius"] == pytest.approx(800, rel=0.01)
    assert evidence["bound of stability"] == pytest.approx(2.51, abs=0.02)


def test_stiffness_that_only_costs_is_named_too():
    """The solve ends. Near y = 2 van der Pol's eigenvalue is -3 mu: nine hundred steps, as long as is stable, while y
    moves by 1e-3. A linearly implicit method takes a handful."""
    field, y0 = van_der_pol(1000.0), torch.tensor([2.0, 0.0], dtype=torch.float64)
    solver = Adaptive(method="dopri5", rtol=1e-6, atol=1e-6)
    nfe = solver(field, y0, [0.0, 1.0]).stats.nfe_forward
    report = doctor(solver, field, y0, [0.0, 1.0])
    assert (report.kind, report.cure, report.failure) == ("stiff", {"method": "rodas4"}, None)
    assert report.evidence["spectral radius"] == pytest.approx(3000, rel=0.01)
    assert report.tried["nfe"] < 0.05 * nfe
    assert report.tried["error"] < 1e-5


def test_a_stiff_state_too_large_for_a_jacobian_gets_a_method_that_is_stable_for_longer():
    """bosh3 is stable over a longer way for each evaluation than dopri5."""
    y0 = torch.tensor([[2.0], [0.0]], dtype=torch.float64).expand(2, 9000)
    report = doctor(Adaptive(method="dopri5", rtol=1e-6, atol=1e-6), van_der_pol(1000.0), y0, [0.0, 0.37])
    assert (report.kind, report.cure) == ("stiff", {"method": "bosh3"})


def test_the_cure_of_a_stiff_adjoint_brings_a_gradient_that_goes_with_it():
    y0 = torch.tensor([2.0, 0.0], dtype=torch.float64)
    solver = Adaptive(method="dopri5", rtol=1e-6, atol=1e-6, gradient="adjoint", max_steps=200)
    report = doctor(solver, van_der_pol(1000.0), y0, [0.0, 1.0])
    assert report.settings() == {"solver.method": "rodas4", "gradient.method": "replay"}
    assert report.settings("eval.solver.") == {"eval.solver.method": "rodas4"}
    assert report.tried["error"] < 1e-5


def van_der_pol(mu):
    return lambda t, y: torch.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])


def test_steps_that_follow_the_solution_are_not_called_stiff():
    """At mu = 10 there are as many steps, and turns that need them."""
    y0 = torch.tensor([2.0, 0.0], dtype=torch.float64)
    report = doctor(Adaptive(method="dopri5", rtol=1e-8, atol=1e-8), van_der_pol(10.0), y0, [0.0, 20.0])
    assert report.kind == "sound"


def test_stiffness_shows_backward_in_time_too():
    """There the modes that grow with t decay, and hold the step."""
    solver = Adaptive(method="dopri5", rtol=1e-4, atol=1e-4, max_steps=300)
    y0 = torch.tensor([1.0], dtype=torch.float64)
    report = doctor(solver, lambda t, y: 2e3 * (y - torch.cos(t)), y0, [2.0, 0.0])
    assert (report.kind, report.cure) == ("stiff", {"method": "rodas4"})
    assert report.tried["error"] < 1e-4


@pytest.mark.parametrize("method", ["dopri5", "bosh3"])
def test_moderate_stiffness_is_named(method):
    """The solution turns once in about a hundred of the steps that are stable."""
    solver = Adaptive(method=method, rtol=1e-3, atol=1e-3, max_steps=100)
    y0 = torch.tensor([0.0], dtype=torch.float64)
    report = doctor(solver, lambda t, y: -60 * (y - torch.sin(t)), y0, [0.0, 10.0])
    assert (report.kind, report.tried is not None) == ("stiff", True)
    fast = doctor(solver, lambda t, y: -60 * (y - torch.sin(15 * t)), y0, [0.0, 10.0])
    assert fast.kind == "step_limit"


@pytest.mark.parametrize(("steps", "ts"), [(40, [0.0, 1.0]), (10, [0.0, 0.25, 0.5, 1.0])])
def test_fixed_steps_that_end_in_numbers_without_meaning_are_named(steps, ts):
    """rk4 grows the mode of -500 in each step; the state stays finite, but is none of the equation's. The steps are
    those between two output times."""
    y0, field = torch.tensor([0.0], dtype=torch.float64), lambda t, y: -500 * (y - torch.cos(t))
    report = doctor(Fixed(method="rk4", steps=steps), field, y0, ts)
    assert (report.kind, report.failure) == ("stiff", None)
    longest = max(b - a for a, b in pairwise(ts)) / steps
    assert report.evidence["h times it"] == pytest.approx(500 * longest, rel=1e-3)
    assert report.tried["error"] < 1e-2
    assert doctor(Fixed(method="rk4", steps=report.cure["steps"]), field, y0, ts).kind == "sound"


def test_a_blow_up_in_fixed_steps_is_named():
    """They go on with what is infinite; those of an unstable method are stiffness still."""
    y0, ts = torch.tensor([1.0], dtype=torch.float64), [0.0, 2.0]
    report = doctor(Fixed(method="rk4", steps=200), lambda t, y: y * y, y0, ts)
    assert report.kind == "blow_up"
    assert report.evidence["ends at t"] == pytest.approx(1.0, abs=0.05)
    assert doctor(Fixed(method="rk4", steps=50), lambda t, y: -500 * y, y0, ts).kind == "stiff"


@pytest.mark.parametrize("method", ["adams", "rodas4"])
def test_a_blow_up_in_float32_is_named_whatever_the_method(method):
    """The first derivative of a step of theirs is not f where it begins, and no measure of what float32 rounds."""
    y0 = torch.tensor([1.0, 0.5])
    report = doctor(Adaptive(method=method, rtol=1e-4, atol=1e-4), lambda t, y: y * y, y0, [0.0, 3.0])
    assert report.kind == "blow_up"
    assert report.evidence["ends at t"] == pytest.approx(1.0, abs=1e-2)
    assert report.tried is not None


def test_what_the_solver_warns_of_is_named():
    """float32 does not resolve 1e-8, nor times of today's clock in seconds; both solves come to their end."""
    y0, solver = torch.ones(2), Adaptive(method="dopri5", rtol=1e-8, atol=1e-8)
    report = doctor(solver, lambda t, y: -y, y0, [0.0, 1.0])
    assert (report.kind, report.cure, report.failure) == ("resolution", {"dtype": "float64"}, None)
    assert report.tried["error"] < 1e-6
    clock = doctor(replace(solver, rtol=1e-6, atol=1e-6), lambda t, y: -y, y0, [1.7e9, 1.7e9 + 10])
    assert clock.kind == "resolution"
    assert "can only distinguish times" in clock.reason


def test_a_cure_brings_the_steps_that_it_needs():
    """With a tolerance that can be met there are still more steps than max_steps allows."""
    solver = Adaptive(method="dopri5", rtol=0.0, atol=1e-7, max_steps=100)
    y0 = torch.tensor([1e5, 0.0], dtype=torch.float64)
    report = doctor(solver, lambda t, y: torch.stack([y[1], -y[0]]), y0, [0.0, 10.0])
    assert (report.kind, [*report.cure]) == ("scale", ["rtol", "max_steps"])
    assert report.tried["error"] < 1e-6


def test_stiffness_that_nothing_cheapens_is_no_fault():
    """Steps of Adams at 1e-9 are about as long as is stable, and an implicit method needs more."""
    rates = -torch.arange(1.0, 10.0, dtype=torch.float64)
    decay = lambda t, y: torch.cat([rates[:1] * y[:1], rates[1:] * y[1:] - rates[:-1] * y[:-1]])  # noqa: E731
    y0 = torch.zeros(9, dtype=torch.float64)
    y0[0] = 1.0
    report = doctor(Adaptive(method="adams", rtol=1e-9, atol=1e-9), decay, y0, [0.0, 20.0])
    assert report.kind == "sound"
    assert "mildly stiff" in report.reason


def test_weights_that_are_all_infinite_are_mended_on_trial():
    net = Net()
    with torch.no_grad():
        net.net[3].weight.fill_(torch.inf)
    report = doctor(Adaptive(method="dopri5", rtol=1e-4, atol=1e-4), net, torch.ones(4, 2), [0.0, 1.0])
    assert (report.kind, report.tried is not None) == ("optimiser", True)


@pytest.mark.parametrize("kind", ["Python", "numpy"])
def test_any_generator_of_noise_is_named_and_held(kind):
    """While the cure is tried each evaluation draws the same; afterwards the generator stands where it stood."""
    own = np.random.default_rng(0)
    fields = {
        "Python": lambda t, y: -y * (1 + 0.1 * random.random()),
        "numpy": lambda t, y: -y * (1 + 0.1 * own.random()),
    }
    before = random.getstate(), own.bit_generator.state
    report = doctor(Adaptive(method="dopri5", rtol=1e-5, atol=1e-5, max_steps=200), fields[kind], torch.ones(2), [0, 1])
    assert (report.kind, report.tried is not None) == ("noise", True)
    assert "it draws from" in report.reason
    assert (random.getstate(), own.bit_generator.state) == before


def test_a_state_that_no_copy_holds_is_not_tried():
    """Each trial would be as noisy as the solve, and take tens of thousands of evaluations."""
    calls = itertools.count()
    report = doctor(
        Adaptive(method="dopri5", rtol=1e-5, atol=1e-5, max_steps=200),
        lambda t, y: -y * (1 + 0.1 * (next(calls) % 3)),
        torch.ones(2),
        [0.0, 1.0],
    )
    assert (report.kind, report.tried, [*report.cure]) == ("noise", None, ["field"])
    assert next(calls) < 3000


def test_noise_that_comes_with_time_is_named():
    solver = Adaptive(method="dopri5", rtol=1e-5, atol=1e-5)
    field = lambda t, y: -y + (t > 0.5) * 0.05 * torch.randn_like(y)  # noqa: E731
    report = doctor(solver, field, torch.ones(3, dtype=torch.float64), [0.0, 1.0])
    assert report.kind == "noise"
    assert "at t = 1 differ" in report.reason


def test_float32_inside_a_float64_solve_is_named():
    """Its rounding holds the steps, which no number of them mends; a tolerance above it does. A float32 constant does
    no harm."""
    y0 = torch.ones(3, dtype=torch.float64)
    solver = Adaptive(method="dopri5", rtol=1e-12, atol=1e-12, max_steps=300)
    report = doctor(solver, lambda t, y: -(y.float() * torch.cos(3 * t.float())).double(), y0, [0.0, 3.0])
    assert (report.kind, [*report.cure]) == ("resolution", ["rtol", "atol"])
    assert "rounding in float32" in report.reason
    assert report.tried["error"] < 1e-4
    few = Adaptive(method="dopri5", rtol=1e-9, atol=1e-9, max_steps=20)
    assert doctor(few, lambda t, y: torch.tensor(-1.0) * y * torch.cos(3 * t), y0, [0.0, 3.0]).kind == "step_limit"


def test_a_setting_that_did_not_do_is_no_cure(monkeypatch):
    """The state slides along the switch, and no number of steps is enough."""
    monkeypatch.setattr(diagnosis, "MAX_TRIAL", 3000)
    solver = Adaptive(method="dopri5", rtol=1e-6, atol=1e-6, max_steps=100)
    y0 = torch.tensor([1.0], dtype=torch.float64)
    report = doctor(solver, lambda t, y: 0.5 - torch.sign(y), y0, [0.0, 3.0])
    assert (report.kind, report.tried, [*report.cure]) == ("jump", None, ["field"])


def test_of_a_sound_solve_nothing_is_wrong():
    report = doctor(Adaptive(method="dopri5", rtol=1e-4, atol=1e-4), Net(), torch.ones(4, 2), [0.0, 0.5, 1.0])
    assert report.kind == "sound"
    assert str(report).startswith("Nothing is wrong: ")


@pytest.mark.parametrize("name", ["weights a thousandfold", "dropout", "1e-5 in bfloat16"])
def test_field_generators_and_tallies_are_left_as_they_were(name):
    p = problem(name)
    field, y0 = p.make()
    before = [weight.detach().clone() for weight in field.parameters()]
    state = torch.random.get_rng_state()
    with tally() as solves:
        doctor(p.solver(), field, y0, p.ts)
    assert solves == []
    assert torch.equal(state, torch.random.get_rng_state())
    for weight, old in zip(field.parameters(), before):
        assert weight.dtype == old.dtype
        assert torch.equal(weight, old)


@pytest.mark.parametrize(
    ("name", "guess"),
    [("network with a strong decay", "stiff"), ("y' = y^2", "blow-up"), ("one dose", "a jump or noise")],
)
def test_an_error_carries_the_first_guess(name, guess):
    p = problem(name)
    field, y0 = p.make()
    with pytest.raises(SolveError, match=rf"First guess: {guess}.*odenet doctor measures it"):
        p.solver()(field, y0, p.ts)


def exact(p, ts):
    """The state at the last time by scipy, in float64, and the size of each of its numbers."""
    field, y0 = p.make()
    if isinstance(field, torch.nn.Module):
        field = field.double()
    single = isinstance(y0, torch.Tensor)
    parts = [part.double() for part in ((y0,) if single else y0)]
    sizes = [part.numel() for part in parts]

    def flat(t, y):
        y = [x.reshape(part.shape) for x, part in zip(torch.from_numpy(y).split(sizes), parts)]
        with torch.no_grad():
            dy = field(torch.tensor(t, dtype=torch.float64), y[0] if single else tuple(y))
        return torch.cat([x.double().flatten() for x in ((dy,) if single else dy)]).numpy()

    start = torch.cat([part.flatten() for part in parts]).numpy()
    settings = {"method": "Radau"} if p.kind == "stiff" else {"method": "DOP853", "max_step": 0.02}
    atol = 1e-8 * max(1e-30, float(np.abs(start[start != 0]).min(initial=1.0)))
    size = np.abs(start)
    end = solve_ivp(flat, (ts[0], ts[-1]), start, rtol=1e-6, atol=max(atol, 1e-25), **settings).y[:, -1]
    return end, np.maximum(size, np.abs(end))


def cured(p, report):
    """The state at the last time under the printed cure, and that time."""
    field, y0 = p.make()
    cure = dict(report.cure)
    cure.pop("field", None)
    ts = cure.pop("ts", p.ts)
    if cure.pop("dtype", None):
        field = field.double() if isinstance(field, torch.nn.Module) else field
        y0 = y0.double()
    with torch.no_grad():
        y = replace(p.solver(), **cure)(field, y0, [ts[0], ts[-1]]).y
    return torch.cat([part.double().flatten() for part in ((y,) if isinstance(y, torch.Tensor) else y)]).numpy(), ts


@pytest.mark.numerics
def test_forty_sick_problems():
    """At least 38 are named and 36 cured; where settings are the cure, scipy agrees with the solve under them."""
    assert len(PROBLEMS) == 40
    assert sum(p.held_out for p in PROBLEMS) == 10
    named, mended, off, times = [], [], {}, []
    for p in PROBLEMS:
        report = examine(p)
        times.append(report.time_s)
        named += [p.name] if report.kind == p.kind else []
        mended += [p.name] if report.tried is not None else []
        if report.tried is None or p.kind in ("noise", "optimiser"):
            continue  # what mends the field is no setting
        y, ts = cured(p, report)
        reference, size = exact(p, ts)
        error = float((np.abs(y - reference) / (size if p.kind == "scale" else size.max())).max())
        if not error < max(1e-3, 1000 * p.solver().rtol):
            off[p.name] = error
    print("not named:", {p.name for p in PROBLEMS} - set(named), "seconds:", max(times), statistics.median(times))
    assert off == {}
    assert len(named) >= 38, {p.name for p in PROBLEMS} - set(named)
    assert len(mended) >= 36, {p.name for p in PROBLEMS} - set(mended)
    assert statistics.median(times) <= 1.0


@pytest.mark.numerics
@pytest.mark.parametrize(
    ("method", "tol"),
    [
        *((name, 1e-3) for name in ("dopri5", "bosh3", "heun_euler")),
        *((name, 1e-6) for name in ("dopri5", "dopri8", "adams")),
        ("adams", 1e-9),
    ],
)
def test_no_problem_of_detest_is_called_sick(method, tol):
    called = {}
    for name in detest.PROBLEMS:
        report = doctor(Adaptive(method=method, rtol=tol, atol=tol), *detest.by_torch(name), [0.0, 20.0])
        if report.kind != "sound":
            called[name] = str(report)
    assert called == {}


@pytest.mark.numerics
def test_a_tolerance_that_is_too_loose_is_named():
    """D1 at 1e-2: the bodies of the numerical solution collide, those of the equation do not."""
    report = doctor(Adaptive(method="dopri5", rtol=1e-2, atol=1e-2), *detest.by_torch("D1"), [0.0, 20.0])
    assert report.kind == "tolerance"
    assert report.cure == {"rtol": 1e-4, "atol": 1e-4}
    assert report.tried is not None


@torch.inference_mode()
def test_a_state_without_dimensions_is_examined():
    report = doctor(Adaptive(method="dopri5", rtol=1e-3, atol=1e-3), lambda t, y: -y, torch.tensor(1.0), [0.0, 1.0])
    assert report.kind == "sound"


@pytest.mark.parametrize("y0", [torch.ones(2, dtype=torch.complex64), torch.ones(0, 2)])
def test_what_cannot_be_examined_is_refused(y0):
    with pytest.raises(ValueError, match="complex or empty states"):
        doctor(Adaptive(method="dopri5", rtol=1e-3, atol=1e-3), lambda t, y: -y, y0, [0.0, 1.0])
