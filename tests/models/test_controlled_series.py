"""Controls: between rows as scipy has them, seen by the field at t, exact gradients, jumps that the solver knows."""

import copy
import math
import re

import numpy
import pytest
import scipy.integrate
import scipy.interpolate
import torch

from odenet_cli import models
from odenet_cli.config.presets import preset
from odenet_cli.data.common.control import coefficients
from odenet_cli.errors import RequestError
from odenet_cli.models.common.control import MAX_JUMPS, Control
from odenet_cli.models.common.latent import LatentField
from odenet_cli.models.common.warn_once import WarnOnce
from odenet_cli.ode import Adaptive, Fixed, Stats, tally

COUNTS = torch.tensor([7, 2, 1, 3, 12])


def rows(seed=0):
    """Series of these counts one behind the other, at irregular times: (R,), (R, 2)."""
    generator = torch.Generator().manual_seed(seed)
    times = torch.cat([(0.1 + torch.rand(int(n), generator=generator).double()).cumsum(0) for n in COUNTS])
    return times, torch.randn(int(COUNTS.sum()), 2, generator=generator).double()


def padded(kind, times, values):
    parts = coefficients(times, values, COUNTS, kind)
    last = COUNTS.cumsum(0) - 1
    index = torch.minimum((last - COUNTS + 1)[:, None] + torch.arange(int(COUNTS.max())), last[:, None])
    return Control(times[index], parts[index])


def by_scipy(kind, t, x, at):
    at = numpy.clip(at, t[0], t[-1])
    if kind == "step":
        return x[numpy.searchsorted(t, at, side="right") - 1]
    if kind == "linear" or len(t) == 2:
        return numpy.stack([numpy.interp(at, t, column) for column in x.T], 1)
    slopes = numpy.gradient(x, t, axis=0, edge_order=2)  # of the parabola through three neighbours
    return scipy.interpolate.CubicHermiteSpline(t, x, slopes)(at)


@pytest.mark.parametrize("kind", ["linear", "hermite", "step"])
def test_between_rows_as_scipy_has_it(kind):
    times, values = rows()
    control = padded(kind, times, values)
    split = [part.split(COUNTS.tolist()) for part in (times, values)]
    shares = torch.linspace(0, 1, 40, dtype=torch.float64)
    at = torch.stack([torch.cat((t, t[0] + shares[len(t) :] * (t[-1] - t[0] + 1))) for t in split[0]])
    found = control.at(at)
    for n, (t, x) in enumerate(zip(*split)):
        expected = by_scipy(kind, t.numpy(), x.numpy(), at[n].numpy()) if len(t) > 1 else x.expand(40, -1).numpy()
        assert numpy.allclose(found[n].numpy(), expected, rtol=1e-12, atol=1e-12)
    middle = torch.tensor(1.3, dtype=torch.float64)
    assert torch.equal(control.at(middle), control.at(middle.expand(5, 1))[:, 0])


def error_of(kind, n):
    t = torch.linspace(0, 3, n, dtype=torch.float64)
    parts = coefficients(t, t.sin()[:, None], torch.tensor([n]), kind)
    fine = torch.linspace(0, 3, 1000, dtype=torch.float64)[None]
    return float((Control(t[None], parts[None]).at(fine)[..., 0] - fine.sin()).abs().max())


@pytest.mark.parametrize(("kind", "order"), [("step", 1), ("linear", 2), ("hermite", 3)])
def test_the_error_falls_with_the_order(kind, order):
    assert math.log2(error_of(kind, 33) / error_of(kind, 65)) == pytest.approx(order, abs=0.15)


def test_the_field_sees_the_control_at_t():
    """Without its hidden layer's bend the field is z' = A z + B u(t), which scipy solves."""
    torch.manual_seed(0)
    field = LatentField(2, 8, 1, controls=2).double()
    first, last = field.layers[0], field.layers[2]
    field.layers = torch.nn.Sequential(first, last)
    a = (last.weight @ first.weight).detach().numpy()
    b = (last.weight @ first.bias + last.bias).detach().numpy()
    control = padded("hermite", *rows())
    z0 = torch.randn(5, 2, dtype=torch.float64)
    y = Adaptive(method="dopri5", rtol=1e-9, atol=1e-9)(field, z0, [0.0, 2.0], (control,)).y
    for n in range(5):

        def slope(t, z, n=n):
            u = control.at(torch.tensor(t, dtype=torch.float64))[n].numpy()
            return a @ numpy.concatenate((z, u)) + b

        exact = scipy.integrate.solve_ivp(slope, (0, 2), z0[n].numpy(), rtol=1e-9, atol=1e-10, max_step=0.05).y[:, -1]
        assert numpy.allclose(y[n].detach().numpy(), exact, atol=1e-6)


def build(name="latent_ode", controls=2, solver=None, missing=False, **changes):
    torch.manual_seed(0)
    options = {key: value for key, value in preset("model", name)["model"].items() if key != "name"}
    solver = solver or Adaptive(method="dopri5", rtol=1e-8, atol=1e-8, gradient="replay")
    shape = (1 + missing, 2, controls)
    return models.model(name, options | changes, shape=shape, classes=0, solver=solver).double()


def batch(points=6):
    generator = torch.Generator().manual_seed(3)
    times = (3 * torch.rand(5, points, generator=generator, dtype=torch.float64)).sort(1).values
    values = torch.randn(5, points, 2, generator=generator, dtype=torch.float64)
    return times, values, torch.ones(5, points, dtype=torch.bool)


GRADIENTS = {
    "backprop": Fixed(method="rk4", steps=2, gradient="backprop"),
    "replay": Fixed(method="rk4", steps=2, gradient="replay"),
    "adjoint": Adaptive(method="dopri5", rtol=1e-8, atol=1e-8, gradient="adjoint"),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_through_the_control(name):
    """Of the control's values and of all parameters, by finite differences along a direction of each."""
    network = build(solver=GRADIENTS[name]).eval()
    network.decoder[1] = torch.nn.Tanh()  # a difference must not reach across the kinks of a ReLU
    times, values = rows()

    def loss():
        return network.forecast(*batch(points=2), control=tuple(padded("hermite", times, values))).mean.square().sum()

    parameters = [p for p in network.parameters() if p is not network.log_sigma]
    torch.manual_seed(1)
    directions = [torch.randn_like(part) for part in (values.requires_grad_(), *parameters)]
    gradients = torch.autograd.grad(loss(), [values, *parameters])

    def shifted(parts, size):
        with torch.no_grad():
            for part, direction in parts:
                part += size * direction
            moved = float(loss())
            for part, direction in parts:
                part -= size * direction
        return moved

    pairs = list(zip((values, *parameters), directions, gradients))
    for some in (pairs[:1], pairs[1:]):
        exact = sum(float((gradient * direction).sum()) for _, direction, gradient in some)
        difference = [shifted([(part, direction) for part, direction, _ in some], size) for size in (1e-3, -1e-3)]
        assert (difference[0] - difference[1]) / 2e-3 == pytest.approx(exact, rel=3e-3)


@pytest.mark.parametrize("name", ["latent_ode", "rnn", "rnn_dt"])
def test_a_batch_is_its_series_one_by_one(name):
    """With times, knots and lengths of their own, and some values missing."""
    network, (times, values, seen) = build(name, missing=True).eval(), batch()
    values[1, 2, 0], values[4, 3] = math.nan, math.nan
    seen[2, 4:] = False
    targets = times + 0.5
    control = padded("linear", *rows())
    whole = network.forecast(times, values, seen, targets, tuple(control)).path
    for n in range(5):
        row, count = slice(n, n + 1), int(COUNTS[n])
        own = (control.knots[row, :count], control.parts[row, :count])
        alone = network.forecast(*(part[row][:, seen[n]] for part in (times, values, seen)), targets[row], own).path
        assert torch.allclose(whole[row], alone, atol=1e-5)


@pytest.mark.parametrize("name", ["latent_ode", "rnn", "rnn_dt"])
def test_what_comes_later_counts_later(name):
    """Another control behind t = 2 changes the path behind it and nothing before."""
    network, (times, values, seen) = build(name, controls=1).eval(), batch()
    knots, u = torch.linspace(0, 4, 9, dtype=torch.float64), torch.randn(5, 9, 1, 1, dtype=torch.float64)
    other = u.clone()
    other[:, 4:] += 1
    targets = torch.linspace(0, 4, 9, dtype=torch.float64).repeat(5, 1)
    paths = [network.forecast(times / 3, values, seen, targets, (knots.repeat(5, 1), x)).path for x in (u, other)]
    changed = (paths[0] - paths[1]).abs().amax((0, 2))
    first = {"latent_ode": 5, "rnn": 4, "rnn_dt": 4}[name]
    assert changed[: first - 1].max() < 1e-6
    assert changed[first + 1 :].min() > 1e-3


def solved(control, rtol, declared):
    torch.manual_seed(0)
    field = LatentField(4, 20, 1, controls=1).double()
    z0 = torch.randn(20, 4, dtype=torch.float64)
    solver = Adaptive(method="dopri5", rtol=rtol, atol=rtol)
    with torch.no_grad(), tally() as solves:
        y = (control.solver(solver, WarnOnce()) if declared else solver)(field, z0, [0.0, 2.5, 5.0], (control,)).y
    return y, sum(solves, start=Stats())


def switched(changes, shared):
    generator = torch.Generator().manual_seed(0)
    knots = (5 * torch.rand(1 if shared else 20, changes, generator=generator, dtype=torch.float64)).sort(1).values
    knots = torch.cat((torch.zeros(len(knots), 1, dtype=torch.float64), knots), 1).expand(20, -1).contiguous()
    return Control(knots, torch.randn(20, changes + 1, 1, 1, generator=generator, dtype=torch.float64))


def test_a_step_control_does_not_ruin_an_adaptive_solve():
    """Where it changes is declared to the solver: the error falls tenfold and more, for about as many evaluations."""
    control = switched(8, shared=True)
    exact, _ = solved(control, 1e-11, True)
    for rtol in (1e-3, 1e-5):
        (plain, cost), (told, told_cost) = (solved(control, rtol, declared) for declared in (False, True))
        assert (told - exact).abs().max() < 0.1 * (plain - exact).abs().max()
        assert told_cost.nfe_forward < 1.2 * cost.nfe_forward
        assert told_cost.rejected <= cost.rejected


def test_which_jumps_are_declared():
    solver = Adaptive(method="dopri5", rtol=1e-3, atol=1e-3, jumps=(4.5,))
    control = switched(3, shared=False)
    assert control.solver(solver, WarnOnce()).jumps == tuple(sorted({4.5, *control.knots[:, 1:].flatten().tolist()}))
    constant = Control(control.knots, torch.ones_like(control.parts))
    assert constant.solver(solver, WarnOnce()) is solver
    smooth = Control(control.knots, torch.cat((control.parts, control.parts), 2))
    assert smooth.solver(solver, WarnOnce()) is solver
    assert len(switched(MAX_JUMPS, shared=False).jumps()) > MAX_JUMPS
    assert switched(MAX_JUMPS, shared=False).solver(solver, WarnOnce()) is solver
    fixed = Fixed(method="rk4", steps=2)
    assert control.solver(fixed, WarnOnce()) is fixed


def test_jumps_that_are_too_many_are_warned_of_once(caplog):
    network = build(controls=1, solver=Adaptive(method="dopri5", rtol=1e-3, atol=1e-3))
    for count in (2, MAX_JUMPS, MAX_JUMPS):
        control = switched(count, shared=False)
        for copied in (network, copy.deepcopy(network)):  # which scoring solves with
            copied.solving(control, len(control.knots))
    (warning,) = caplog.messages
    assert re.search(r"switch at [\d,]+ times \(data\.interpolation=step\).*by 0\.06 in root mean square", warning)
    assert f"above {MAX_JUMPS} times no step" in warning


def test_series_of_the_prior_follow_a_control():
    network = build(controls=1).eval()
    knots, u = torch.tensor([[0.0, 1.0]]).double(), torch.tensor([[[[0.0]], [[3.0]]]]).double()
    drawn = [
        network.sample(5, [0.5, 2.0], torch.Generator().manual_seed(3), (knots, x)) for x in (u, torch.zeros_like(u))
    ]
    assert torch.allclose(drawn[0][:, 0], drawn[1][:, 0], atol=1e-6)
    assert not torch.allclose(drawn[0][:, 1], drawn[1][:, 1], atol=1e-2)


class Own(torch.nn.Module):
    """A field of the user's own."""

    def __init__(self, shape, controls):
        super().__init__()
        self.linear = torch.nn.Linear(controls, *shape)

    def forward(self, t, z, u):
        return self.linear(u) - z


def test_a_field_of_one_s_own_is_given_the_controls():
    network = build(field="test_controlled_series:Own").eval()
    control = padded("linear", *rows())
    z0 = torch.randn(5, 4, dtype=torch.float64)
    u = control.at(torch.tensor(0.5, dtype=torch.float64))
    expected = network.field.own.linear(u) - z0
    assert torch.equal(network.field(torch.tensor(0.5, dtype=torch.float64), z0, control), expected)
    assert network.forecast(*batch(), control=tuple(control)).mean.shape == (5, 6, 2)
    with pytest.raises(RequestError, match=r"called with \(t, y \(2, 4\), u \(2, 3\)\)"):
        build(field="test_controlled_series:Deaf", controls=3)


class Deaf(torch.nn.Module):
    """A field that takes no controls."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)

    def forward(self, t, z):
        return self.linear(z)


def test_many_times_of_their_own_with_jumps_are_interpolated():
    """Beyond a thousand distinct times states are read off dense output, which ends at each jump."""
    control = switched(3, shared=False)
    torch.manual_seed(0)
    network = build(controls=1, solver=Adaptive(method="dopri5", rtol=1e-7, atol=1e-7, gradient="replay")).eval()
    times = (5 * torch.rand(20, 80, dtype=torch.float64)).sort(1).values
    x = times, torch.randn(20, 80, 2, dtype=torch.float64), torch.ones(20, 80, dtype=torch.bool)
    with torch.no_grad():
        whole = network.forecast(*x, control=tuple(control)).mean
        z0 = network.encode(*x, control)[0]
        few = []
        for n in range(0, 20, 5):
            ts = times[n : n + 1, ::8].expand(20, -1)
            few.append(network.decode(network.flow(z0[:20], ts[0].tolist(), control), ts, control)[n])
    for n, own in zip(range(0, 20, 5), few):
        assert torch.allclose(whole[n, ::8], own, atol=1e-4)


def test_events_take_no_controls():
    with pytest.raises(RequestError, match="is for time series"):
        build("latent_poisson", controls=1)
