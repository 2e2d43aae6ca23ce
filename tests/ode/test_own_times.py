"""One solve to times of each sample's own gives what each sample has when it is solved alone."""

from __future__ import annotations

import pytest
import torch
from ode_cases import doubles

from odenet_cli.ode import Adaptive, Fixed, tally
from odenet_cli.ode import own_times as module
from odenet_cli.ode.own_times import solve_at

SAMPLES, TIMES, OTHERS = 5, 7, 3


@pytest.fixture(autouse=True)
def share_few(monkeypatch):
    """Let a handful of distinct times be too many for outputs."""
    monkeypatch.setattr(module, "FEW", 1)


def asked(end=1.5):
    """Times out of order, one of them 0 and one twice; of the last two samples others."""
    generator = torch.Generator().manual_seed(1)
    times = end * torch.rand(SAMPLES, TIMES, generator=generator, dtype=torch.float64)
    times[0, 2], times[1, 3] = 0.0, times[1, 4]
    return [times[:3], times[3:, :OTHERS]]


class Pendulum(torch.nn.Module):
    """θ'' = -w sin θ - damping θ' + cos t, and an integral beside it, for the state ((B, 2), (B,))."""

    def __init__(self):
        super().__init__()
        self.w, self.damping = (torch.nn.Parameter(doubles(x)) for x in (4.0, 0.3))

    def forward(self, t, state):
        y, _ = state
        angle, speed = y.unbind(-1)
        slope = torch.stack((speed, -self.w * angle.sin() - self.damping * speed + torch.cos(t)), -1)
        return slope, angle.square()


def start():
    y0 = torch.randn(SAMPLES, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return (y0.requires_grad_(), torch.zeros(SAMPLES, dtype=torch.float64, requires_grad=True))


def one_by_one(field, y0, times):
    """Return the same states by a solve for each sample, through the outputs of which autograd sees every step."""
    exact, n, result = Adaptive(method="dopri8", rtol=1e-11, atol=1e-11, gradient="backprop"), 0, []
    for part in times:
        rows = []
        for own in part:
            ts, index = torch.unique(own, return_inverse=True)
            y = exact(field, tuple(x[n : n + 1] for x in y0), [0.0, *ts.tolist()]).y
            rows.append([x[1:, 0][index] for x in y])
            n += 1
        result.append(tuple(map(torch.stack, zip(*rows))))
    return result


def gradients(states, field, y0):
    loss = sum((n + 1) * (y.square().sum() + y[..., 0].sum() + x.sum()) for n, (y, x) in enumerate(states))
    return torch.autograd.grad(loss, [*y0, *field.parameters()])


@pytest.fixture(scope="module")
def alone():
    field, y0 = Pendulum(), start()
    states = one_by_one(field, y0, asked())
    return states, gradients(states, field, y0)


def adaptive(method, gradient, rtol=1e-7):
    return Adaptive(method=method, rtol=rtol, atol=rtol, gradient=gradient)


SOLVERS = [
    *(adaptive("dopri5", gradient) for gradient in ("backprop", "replay", "adjoint")),
    adaptive("dopri5", "reversible", 1e-6),
    adaptive("bosh3", "replay", 1e-6),
    adaptive("dopri8", "replay"),
    adaptive("adams", "adjoint", 1e-6),
    Fixed(method="rk4", steps=20, gradient="replay"),
    Fixed(method="dopri5", steps=6, gradient="adjoint"),
]


@pytest.mark.parametrize("solver", SOLVERS, ids=lambda one: f"{type(one).__name__}-{one.method}-{one.gradient}")
def test_states_and_gradients_are_those_of_single_solves(solver, alone):
    field, y0, tol = Pendulum(), start(), 30 * getattr(solver, "rtol", 1e-7)
    states = solve_at(solver, field, y0, asked())
    assert [tuple(x.shape for x in pair) for pair in states] == [((3, 7, 2), (3, 7)), ((2, 3, 2), (2, 3))]
    for found, exact in zip(states, alone[0]):
        for x, y in zip(found, exact):
            torch.testing.assert_close(x, y, rtol=0, atol=tol)
    for x, y in zip(gradients(states, field, y0), alone[1]):
        torch.testing.assert_close(x, y, rtol=10 * tol, atol=10 * tol)


def test_linearly_implicit_steps_may_be_fixed():
    solver, times = Fixed(method="rodas4", steps=4), torch.tensor([[0.1, 0.4], [0.3, 1.0]], dtype=torch.float64)
    (found,) = solve_at(solver, lambda t, y: -y, torch.ones(2, 1, dtype=torch.float64), [times])
    assert torch.allclose(found[..., 0], torch.exp(-times), atol=1e-5)


@pytest.mark.parametrize("method", ["heun_euler", "bosh3", "dopri5", "tsit5", "dopri8", "adams"])
def test_between_the_steps_it_is_the_dense_output(method):
    """At a tolerance that the interpolation could be told by, and with a jump that ends a step."""
    solver = Adaptive(method=method, rtol=1e-2, atol=1e-2, jumps=(1.0,), gradient="backprop")
    y0, times = torch.ones(SAMPLES, 2, dtype=torch.float64), asked(3.0)

    def field(t, y):
        return torch.stack((y[..., 1], -4 * y[..., 0]), -1) * (1.0 if t <= 1.0 else 0.5)

    path = solver.dense(field, y0, [0.0, max(float(part.max()) for part in times)])
    for states in (solve_at(solver, field, y0, times), torch.no_grad()(solve_at)(solver, field, y0, times)):
        for found, own in zip(states, times):
            torch.testing.assert_close(found, path(own)[:, :, 0], rtol=0, atol=1e-12)


def test_what_many_times_cost_is_what_few_do():
    """Evaluations are those of two solves to the end, with any number of samples and times."""
    solver = Adaptive(method="dopri5", rtol=1e-4, atol=1e-4, gradient="replay")
    y0, field = torch.ones(50, 2, dtype=torch.float64), torch.nn.Linear(2, 2).double()
    times = 3 * torch.rand(50, 100, dtype=torch.float64)
    with tally() as solves:
        (y,) = solve_at(solver, lambda t, y: field(y), y0, [times])
        y.sum().backward()
    alone = solver(lambda t, y: field(y), y0, [0.0, float(times.max())]).stats
    assert sum(stats.nfe_forward for stats in solves) == 2 * alone.nfe_forward
    assert y.shape == (50, 100, 2)


def test_shared_times_are_the_outputs_of_one_solve(monkeypatch):
    monkeypatch.setattr(module, "FEW", 1000)
    solver, y0 = Adaptive(method="dopri5", rtol=1e-6, atol=1e-6), torch.ones(4, 3, dtype=torch.float64)
    times = doubles(0.5, 2.0, 1.0).repeat(4, 1)
    with tally() as solves:
        (y,) = solve_at(solver, lambda t, y: -y, y0, [times])
    assert len(solves) == 1
    assert torch.equal(y, solver(lambda t, y: -y, y0, [0.0, 0.5, 1.0, 2.0]).y[[1, 3, 2]].transpose(0, 1))
    for only in (0.0, 1.5):
        (y,) = solve_at(solver, lambda t, y: -y, y0, [torch.full((4, 2), only, dtype=torch.float64)])
        torch.testing.assert_close(y, torch.full((4, 2, 3), only, dtype=torch.float64).neg().exp(), rtol=1e-5, atol=0)


def test_times_before_the_start_are_refused():
    with pytest.raises(ValueError, match=r"time is -0.5, and the solve begins at 0"):
        solve_at(SOLVERS[0], lambda t, y: -y, torch.ones(1, 1), [torch.tensor([[1.0, -0.5]])])
