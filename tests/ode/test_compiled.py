"""A compiled solve is the plain one: the same steps, the same counts, the same numbers up to the order of additions."""

from __future__ import annotations

import math
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from ode_cases import Counting, Swirl, doubles
from torch.nn.modules.module import register_module_forward_hook

from odenet_cli.ode import Adaptive, Fixed, NotCompiled, NotFinite, StepLimit, StepTooSmall, doctor, tally
from odenet_cli.ode.gradient.adjoint import Adjoint

pytestmark = pytest.mark.numerics  # a compilation takes seconds

Y0 = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(2, 3)
ENDS, MANY = (0.0, 1.5), (0.0, 0.3, 0.31, 1.5)


class Two(Swirl):
    def forward(self, t, y):
        return super().forward(t, y[0]), -y[1] * y[0].sum() + t


# Shared: what is compiled for a field, half a minute at times, is compiled once for all tests that have it.
SWIRL, TWO = Swirl(), Two()


@pytest.fixture(autouse=True, scope="module")
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch's own compiler
        yield


def results(solve, field, y0, times, wanted):
    y0 = tuple(part.clone().requires_grad_(wanted) for part in y0) if isinstance(y0, tuple) else y0.clone()
    if isinstance(y0, torch.Tensor):
        y0.requires_grad_(wanted)
    with torch.set_grad_enabled(wanted):
        y, stats = solve(field, y0, times)
    parts, starts = (y, y0) if isinstance(y, tuple) else ((y,), (y0,))
    made = list(parts)
    if wanted:
        like = [{"dtype": part.dtype, "device": part.device} for part in parts]
        weight = [torch.linspace(-1, 2, part.numel(), **kind).view_as(part) for part, kind in zip(parts, like)]
        loss = sum((w * part).sum() for w, part in zip(weight, parts))
        made += torch.autograd.grad(loss, (*starts, *field.parameters()))
    return made, stats


def agree(field, y0, times, *, wanted=True, make=Adaptive, **settings):
    """Plain and compiled, twice: the second time nothing is compiled."""
    plain, stats = results(make(**settings), field, y0, times, wanted)
    for compile in (True, "loop"):
        for _ in range(2):
            found, counted = results(make(**settings, compile=compile), field, y0, times, wanted)
            assert (counted.accepted, counted.rejected) == (stats.accepted, stats.rejected)
            assert (counted.nfe_forward, counted.nfe_backward) == (stats.nfe_forward, stats.nfe_backward)
            for one, other in zip(found, plain):
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "times"), [("dopri5", ENDS), ("dopri8", (1.5, 0.3, 0.2)), ("heun_euler", (1.5, 0.3, 0.2))], ids=str
)
def test_without_gradients(name, times):
    agree(SWIRL, Y0, times, wanted=False, method=name, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "times"), [("dopri5", MANY), ("heun_euler", ENDS)], ids=str)
@pytest.mark.parametrize("grad", ["backprop", "replay", "adjoint"])
def test_with_gradients(name, grad, times):
    tol = 1e-3 if name == "heun_euler" else 1e-5
    agree(SWIRL, Y0, times, method=name, rtol=tol, atol=tol, gradient=grad)


@pytest.mark.parametrize("options", [{"norm": "absolute"}, {"norm": "seminorm"}])
def test_the_adjoint_in_every_norm(options):
    agree(SWIRL, Y0, ENDS, method="dopri5", rtol=1e-5, atol=1e-5, gradient=Adjoint(**options))


@pytest.mark.parametrize("grad", ["replay", "adjoint"])
def test_a_tuple_of_two_shapes(grad):
    agree(TWO, (Y0, doubles(0.3, 0.4)), ENDS, method="bosh3", rtol=1e-5, atol=1e-5, gradient=grad)


@pytest.mark.parametrize(("name", "grad"), [("rk4", "replay"), ("dopri5", "backprop")])
def test_fixed_steps(name, grad):
    agree(SWIRL, Y0, MANY, make=Fixed, method=name, steps=3, gradient=grad)


def test_controllers_and_bounds():
    for more in (
        {"controller": "PI"},
        {"controller": "PID"},
        {"max_step": 0.05},
        {"min_step": 0.2},
        {"first_step": 0.3},
    ):
        agree(SWIRL, Y0, ENDS, wanted=False, method="dopri5", rtol=1e-6, atol=1e-6, **more)


def test_known_jumps():
    class Kicked(Swirl):
        def forward(self, t, y):
            return torch.where(t <= 0.5, -y, 2 * y)

    agree(Kicked(), Y0, ENDS, wanted=False, method="bosh3", rtol=1e-6, atol=1e-6, jumps=(0.5,))


def test_a_rejected_first_step_and_a_cut_last_one():
    agree(SWIRL, Y0, (0.0, 20.0), wanted=False, method="dopri5", rtol=1e-8, atol=1e-8, first_step=5.0)


@pytest.mark.parametrize("compile", [True, "loop"])
def test_parameters_and_tolerances_may_change_between_solves(compile):
    """Nothing of a field's values or of the numbers of a solve is frozen into a compilation."""
    field = Swirl()
    for shift, tol, end in ((0.0, 1e-4, 1.0), (0.5, 1e-7, 2.0), (-0.5, 1e-5, 0.3)):
        with torch.no_grad():
            field.b.add_(shift)
            plain = Adaptive(method="bosh3", rtol=tol, atol=tol)(field, Y0, (0.0, end))
            fast = Adaptive(method="bosh3", rtol=tol, atol=tol, compile=compile)(field, Y0, (0.0, end))
        torch.testing.assert_close(fast.y, plain.y, rtol=1e-10, atol=1e-10)
        assert fast.stats == plain.stats


def test_a_hook_registered_after_the_compilation_is_called():
    """Torch passes over such a hook by default: of one module, or of all."""
    layer, solve = torch.nn.Identity(), Fixed(method="midpoint", steps=1, compile=True)

    def end():
        with torch.no_grad():
            return solve(lambda t, y: -layer(y), doubles(1.0), (0.0, 1.0)).y.item()

    assert end() == 0.5  # 1 - k + k²/2
    for register in (layer.register_forward_hook, register_module_forward_hook):
        hook = register(lambda module, inputs, output: 3 * output)
        assert end() == 2.5
        hook.remove()
        assert end() == 0.5


@pytest.mark.parametrize("compile", [True, "loop"])
def test_solves_of_one_field_compile_once(compile):
    from torch._dynamo.utils import counters

    field = Swirl()
    solve = Adaptive(method="bosh3", rtol=1e-5, atol=1e-5, compile=compile)
    with torch.no_grad():
        solve(field, Y0, ENDS)
        before = counters["stats"]["unique_graphs"]
        for n in range(5):
            solve(field, Y0 + n, (0.0, 1.0 + n))
        for n in range(5):
            Adaptive(method="bosh3", rtol=10.0**-n / 1e3, atol=1e-4, compile=compile)(field, Y0, ENDS)
    assert counters["stats"]["unique_graphs"] == before


@pytest.mark.parametrize("compile", [True, "loop"])
def test_errors_are_those_of_the_plain_solve(compile):
    def field(t, y, k):
        switch = torch.where(t < 0.5, 0.0, k[4])
        return k[0] * (y - torch.cos(t)) + k[1] * y * y + k[2] * torch.sin(50 * t) * y + k[3] * y + switch

    def solve(*k, **more):
        """Solve y' = k0 (y - cos t) + k1 y² + k2 sin(50 t) y + k3 y, and from t = 1/2 on k4 beside it: one field."""
        settings = {"method": "bosh3", "rtol": 1e-4, "atol": 1e-4, "compile": compile, **more}
        with torch.no_grad():
            return Adaptive(**settings)(field, doubles(1.0), (0.0, 2.0), args=(doubles(*k),))

    with pytest.raises(StepLimit, match=r"t = 0\.0.* of 2.*solver\.max_steps"):
        solve(-1e6, 0, 0, 0, 0, max_steps=100)
    with pytest.raises((StepTooSmall, NotFinite), match=r"t = (1|0\.99|1\.00)\d* "):
        solve(0, 1, 0, 0, 0)
    with pytest.raises(NotFinite, match=r"t = 0\.5"):
        solve(0, 0, 0, 1, math.nan)
    with pytest.raises(StepTooSmall, match=r"solver\.rtol"):
        solve(0, 0, 1, 0, 0, rtol=1e-9, atol=1e-9, min_step=0.1)
    assert solve(0, 0, 0, -1, 0).y.item() == pytest.approx(math.exp(-2), abs=1e-3)


@pytest.mark.parametrize("compile", [True, "loop"])
def test_a_field_that_is_no_graph_is_refused_with_the_way_out(compile):
    def field(t, y):
        return -y if float(y.sum()) > 0.9 else y * 0.5

    with torch.no_grad(), pytest.raises(NotCompiled, match="compile=false"):
        Adaptive(method="dopri5", rtol=1e-4, atol=1e-4, compile=compile)(field, doubles(1.0), ENDS)


@pytest.mark.parametrize("compile", [True, "loop"])
def test_what_is_wrong_with_a_field_is_told_as_of_the_plain_solve(compile):
    def unknown(t, y):
        raise KeyError("mine")

    solve = Adaptive(method="bosh3", rtol=1e-4, atol=1e-4, compile=compile)
    with torch.no_grad():
        for field, error, said in ((unknown, KeyError, "mine"), (lambda t, y: y.sum(), ValueError, r"\(2, 3\).*\(\)")):
            with pytest.raises(error, match=said):
                solve(field, Y0, ENDS)


def test_a_number_that_differs_in_each_solve_is_read_anew_until_it_is_refused_by_name():
    solve = Fixed(method="midpoint", steps=1, compile=True)

    def end(k):
        with torch.no_grad():
            return solve(lambda t, y: k * y, doubles(1.0), (0.0, 1.0)).y.item()

    assert [end(k) for k in (1.0, 2.0)] == [2.5, 5.0]  # 1 + k + k²/2
    few = torch._dynamo.config.patch(recompile_limit=2)
    with few, pytest.raises(NotCompiled, match=r"compiled 2 times: a Python number(.|\n)*compile=false"):
        [end(k) for k in (3.0, 4.0, 5.0)]


def test_gradients_of_times_second_derivatives_and_complex_states_take_the_plain_way():
    field, ts = SWIRL, doubles(0.0, 1.0, grad=True)
    found = [
        torch.autograd.grad(Adaptive(method="dopri5", rtol=1e-6, atol=1e-6, compile=c)(field, Y0, ts).y.sum(), ts)[0]
        for c in (False, True)
    ]
    assert torch.equal(*found)
    z = torch.tensor([1 + 1j], dtype=torch.complex128)
    solve = Adaptive(method="bosh3", rtol=1e-8, atol=1e-8, compile=True)
    assert torch.allclose(solve(lambda t, y: 1j * y, z, [0.0, 1.0]).y, z * torch.exp(torch.tensor(1j)), atol=1e-7)


def test_a_compiled_replay_has_a_second_derivative():
    found = []
    for compile in (False, True):
        field, y0 = SWIRL, Y0.clone().requires_grad_()
        y = Adaptive(method="bosh3", rtol=1e-4, atol=1e-4, gradient="replay", compile=compile)(field, y0, ENDS).y
        (first,) = torch.autograd.grad(y.square().sum(), y0, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), field.w)[0])
    torch.testing.assert_close(*found, rtol=1e-10, atol=1e-10)


def test_a_graph_that_is_to_be_kept_is_refused_with_the_way_out():
    """torch speaks of donated buffers, of which a linear field has none: its graph is kept."""
    y0, solve = Y0.clone().requires_grad_(), Adaptive(method="bosh3", rtol=1e-4, atol=1e-4, compile=True)
    for keep in ({"retain_graph": True}, {"create_graph": True}):
        loss = solve(SWIRL, y0, ENDS).y.sum()
        with pytest.raises(NotCompiled, match=r"retain_graph=True(.|\n)*compile=false, or gradient=replay"):
            torch.autograd.grad(loss, y0, **keep)
    loss = solve(lambda t, y: -y, y0, ENDS).y.sum()
    for _ in range(2):
        (kept,) = torch.autograd.grad(loss, y0, retain_graph=True)
        torch.testing.assert_close(kept, torch.full_like(Y0, math.exp(-1.5)), rtol=5e-3, atol=0.0)


@pytest.mark.parametrize("grad", ["backprop", "replay", "adjoint"])
def test_a_field_may_read_what_was_made_outside(grad):
    """Its graph goes on behind the field, where no compiler follows."""
    found = []
    for compile in (False, True):
        w = torch.linspace(-1, 1, 9, dtype=torch.float64).reshape(3, 3).requires_grad_()
        made = torch.tanh(w @ w)
        solve = Adaptive(method="bosh3", rtol=1e-5, atol=1e-5, gradient=grad, compile=compile)
        y = solve(lambda t, y, made=made: torch.tanh(y @ made) - y * t, Y0, ENDS).y
        found.append(torch.autograd.grad(y.sum(), w)[0])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-9)


def test_a_tensor_that_the_first_call_caches_is_refused_by_name():
    class Caching(Swirl):
        made = None

        def forward(self, t, y):
            self.made = 2 * self.w if self.made is None else self.made
            return torch.tanh(y @ self.made)

    with pytest.raises(NotCompiled, match=r"a cache(.|\n)*compile=false"):
        results(Fixed(method="midpoint", steps=2, gradient="replay", compile=True), Caching(), Y0, ENDS, True)


def test_a_step_compiled_in_one_thread_is_compiled_in_another():
    """On a GPU autograd goes backward in a thread of its own, and a compiler's settings are those of a thread."""
    solve = Adaptive(method="heun_euler", rtol=1e-2, atol=1e-2, gradient="adjoint", compile=True)
    results(solve, Swirl(), Y0, ENDS, True)
    with ThreadPoolExecutor(1) as thread:
        thread.submit(results, solve, Swirl(), torch.cat([Y0, Y0]), ENDS, True).result()


def test_compiled_evaluations_are_counted_by_the_solve():
    """The field is not called any more once it is compiled; its evaluations are counted all the same."""
    field = Counting(Swirl())
    with torch.no_grad(), tally() as solves:
        for _ in range(2):
            field.calls = 0
            Adaptive(method="dopri5", rtol=1e-5, atol=1e-5)(field, Y0, ENDS)
            known = field.calls
    with torch.no_grad():
        stats = Adaptive(method="dopri5", rtol=1e-5, atol=1e-5, compile=True)(SWIRL, Y0, ENDS).stats
    assert stats.nfe_forward == known == solves[0].nfe_forward


def test_compile_is_checked_by_name():
    with pytest.raises(ValueError, match=r"compile=whole"):
        Adaptive(method="dopri5", rtol=1e-4, atol=1e-4, compile="whole")
    with pytest.raises(ValueError, match=r"compile=True.*adams"):
        Adaptive(method="adams", rtol=1e-4, atol=1e-4, compile=True)
    with pytest.raises(ValueError, match=r"compile=True.*reversible"):
        Adaptive(method="dopri5", rtol=1e-4, atol=1e-4, compile=True, gradient="reversible")


@pytest.mark.parametrize("grad", ["replay", "adjoint"])
def test_a_model_may_be_compiled_around_a_solve(grad):
    """The graph breaks at the solve; TorchDynamo ended in an error of its own where it traced one."""
    rate, y0 = torch.tensor(0.7, requires_grad=True), torch.ones(3, requires_grad=True)
    solve = Adaptive(method="dopri5", rtol=1e-5, atol=1e-5, gradient=grad)

    def model(y):
        return 3 * solve(lambda t, y: -rate * y, torch.sin(y), [0.0, 1.0]).y

    plain, compiled = model(y0), torch.compile(model, backend="eager")(y0)
    assert torch.equal(plain, compiled)
    slopes = (torch.autograd.grad(y.sum(), (rate, y0)) for y in (plain, compiled))
    assert all(map(torch.equal, *slopes))


def test_a_model_that_is_compiled_may_hold_events_paths_and_a_diagnosis():
    """None of them is traced, which took half a minute, and ended in an error in `doctor`."""
    from torch._dynamo.utils import counters

    solve, field = Adaptive(method="dopri5", rtol=1e-5, atol=1e-5), SWIRL

    def model(y):
        path, crossing = solve.dense(field, y, ENDS), solve.until(field, y, ENDS, lambda t, y: y[0, 0] - y[1, 0])
        return path.ends, crossing.t, doctor(solve, field, y, ENDS).kind

    before = counters["stats"]["calls_captured"]
    assert torch.compile(model, backend="eager")(Y0) == model(Y0)
    assert counters["stats"]["calls_captured"] - before < 20
