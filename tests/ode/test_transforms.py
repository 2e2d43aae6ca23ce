"""The transforms of torch.func and forward-mode AD go through a solve with the right values, or are refused by name."""

from __future__ import annotations

import math

import pytest
import torch
from ode_cases import GRADIENTS, doubles
from torch import func
from torch.autograd import forward_ad
from torch.autograd.functional import jacobian

from odenet_cli.ode import Adaptive, Fixed

NODES = [name for name in GRADIENTS if name != "backprop"]
KINDS = ["rk4", "dopri5", "adams"]
W = doubles(0.3, -1.1, 0.8, 0.2).reshape(2, 2)
Y0, TS = doubles(0.7, -0.4), doubles(0.0, 0.4, 1.0)


def solver(kind, gradient="backprop", **options):
    if kind == "rk4":
        return Fixed(method=kind, steps=4, gradient=gradient, **options)
    return Adaptive(method=kind, rtol=1e-6, atol=1e-6, gradient=gradient, **options)


def run(kind, gradient="backprop"):
    solve = solver(kind, gradient)
    return lambda w, y0, ts: solve(lambda t, y: torch.tanh(w @ y) * (1 + t), y0, ts).y


INPUTS = [(0, W), (1, Y0), (2, TS)]


def of_one(function, place):
    """`function` of its argument number `place` alone."""
    given = [W, Y0, TS]
    return lambda x: function(*given[:place], x, *given[place + 1 :])


def assert_close(one, other):
    assert (one - other).abs().max() <= 1e-9 * max(1.0, other.abs().max().item())


@pytest.mark.parametrize("kind", [*KINDS, "rodas5p"])
def test_an_event_is_refused_inside_torch_func_and_has_tangents(kind):
    """e^{-kt} is a half at t = ln 2 / k."""
    k = torch.tensor(1.0, dtype=torch.float64)

    def time(k):
        return solver(kind).until(lambda t, y: -k * y, Y0, [0.0, 5.0], lambda t, y: y[0] - 0.35).t

    for transformed, x in ((func.grad(time), k), (func.jacfwd(time), k), (func.vmap(time), k[None])):
        with pytest.raises(NotImplementedError, match=r"torch\.func.*use torch\.autograd\.grad"):
            transformed(x)
    if kind != "rodas5p":
        with forward_ad.dual_level():
            t = forward_ad.unpack_dual(time(forward_ad.make_dual(k, torch.ones_like(k))))
        assert float(t.tangent) == pytest.approx(-math.log(2), rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("place", "x"), INPUTS, ids=["w", "y0", "ts"])
def test_every_transform_goes_through_backprop(kind, place, x):
    function = of_one(run(kind), place)
    expected = jacobian(function, x)  # one plain backward pass for each output
    assert expected.abs().sum() > 0.1
    assert_close(func.jacrev(function)(x), expected)
    assert_close(func.jacfwd(function)(x), expected)
    assert_close(func.grad(lambda x: function(x).sum())(x), expected.sum((0, 1)))
    _, vjp = func.vjp(function, x)
    assert_close(vjp(torch.ones(3, 2, dtype=torch.float64))[0], expected.sum((0, 1)))
    direction = torch.linspace(0.5, 1.5, x.numel(), dtype=torch.float64).reshape(x.shape)
    along = torch.tensordot(expected, direction, x.dim())
    assert_close(func.jvp(function, (x,), (direction,))[1], along)
    with forward_ad.dual_level(), torch.no_grad():
        assert_close(forward_ad.unpack_dual(function(forward_ad.make_dual(x, direction))).tangent, along)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("place", "x"), INPUTS[:2], ids=["w", "y0"])
def test_second_derivatives_by_transforms(kind, place, x):
    function = of_one(run(kind), place)
    expected = torch.autograd.functional.hessian(lambda x: function(x).square().sum(), x)
    assert_close(func.hessian(lambda x: function(x).square().sum())(x), expected)
    assert_close(func.jacfwd(func.jacfwd(lambda x: function(x).square().sum()))(x), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_linear_field_refuses_forward_mode_in_forward_mode_by_name(kind):
    function = lambda y0: solver(kind)(lambda t, y: -y, y0, TS).y  # noqa: E731
    with pytest.raises(NotImplementedError, match=r"torch\.func\.hessian"):
        func.jacfwd(func.jacfwd(function))(Y0)
    assert_close(func.hessian(function)(Y0), torch.zeros(3, 2, 2, 2, dtype=torch.float64))


@pytest.mark.parametrize("kind", KINDS)
def test_tangents_of_parameters_reach_the_solution(kind):
    """A parameter that is dual says so nowhere: y' = -k y has dy/dk = -exp(-k) at t = 1."""
    field = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    with forward_ad.dual_level():
        k = forward_ad.make_dual(doubles(-0.5).reshape(1, 1), torch.ones(1, 1, dtype=torch.float64))
        del field.weight
        field.weight = k
        y = solver(kind)(lambda t, y: field(y), doubles(1.0), [0.0, 1.0]).y
        assert forward_ad.unpack_dual(y).tangent.item() == pytest.approx(torch.exp(doubles(-0.5)).item(), abs=2e-4)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", NODES)
@pytest.mark.parametrize("kind", ["rk4", "dopri5"])
@pytest.mark.parametrize(("place", "x"), INPUTS, ids=["w", "y0", "ts"])
def test_a_node_of_the_graph_refuses_transforms_by_name(kind, place, x, name):
    function = of_one(run(kind, name), place)

    def dual():
        with forward_ad.dual_level():
            function(forward_ad.make_dual(x, torch.ones_like(x)))

    transforms = [func.grad(lambda x: function(x).sum()), func.jacrev(function), func.jacfwd(function)]
    if place < 2:
        transforms.append(func.vmap(function))
    for transform in transforms:
        with pytest.raises(NotImplementedError, match=rf"gradient={name} .*use gradient=backprop"):
            transform(x[None] if transform is transforms[-1] and place < 2 else x)
    with pytest.raises(NotImplementedError, match=rf"gradient={name} .*use gradient=backprop"):
        dual()
    with pytest.raises(NotImplementedError, match=rf"gradient={name} .*use gradient=backprop"):
        torch.jit.trace(function, (x.clone().requires_grad_(),))


def test_compiled_steps_refuse_transforms_by_name():
    solve = solver("dopri5", compile=True)
    with pytest.raises(NotImplementedError, match=r"compile=True .*use compile=False"):
        func.jacrev(lambda y0: solve(lambda t, y: -y, y0, TS).y)(Y0)


@pytest.mark.parametrize(("place", "x"), INPUTS[:2], ids=["w", "y0"])
def test_vmap_goes_through_fixed_steps(place, x):
    function = of_one(run("rk4"), place)
    batch = torch.stack([x, 0.5 * x, -x])
    assert_close(func.vmap(function)(batch), torch.stack(list(map(function, batch))))
    gradient = func.grad(lambda x: function(x).square().sum())
    assert_close(func.vmap(gradient)(batch), torch.stack(list(map(gradient, batch))))
    expected = torch.stack([jacobian(function, x) for x in batch])
    assert_close(func.vmap(func.jacfwd(function))(batch), expected)


def test_a_sample_that_is_not_finite_is_found_under_vmap():
    with pytest.raises(Exception, match="NaN or infinite"):
        func.vmap(of_one(run("rk4"), 1))(torch.stack([Y0, Y0 * torch.inf]))


@pytest.mark.parametrize("kind", ["dopri5", "adams"])
@pytest.mark.parametrize(("place", "x"), INPUTS, ids=["w", "y0", "ts"])
def test_vmap_over_chosen_steps_is_refused(kind, place, x):
    with pytest.raises(NotImplementedError, match=r"vmap .*solve for the whole batch"):
        func.vmap(of_one(run(kind), place))(torch.stack([x, x]))


@pytest.mark.parametrize("name", GRADIENTS)
def test_vmap_inside_the_field_is_the_way_out(name):
    def field(t, y):
        return torch.tanh(w @ y) * (1 + t)

    w, batch = W.clone().requires_grad_(), torch.stack([Y0, -2 * Y0])
    (found,) = torch.autograd.grad(
        solver("dopri5", name)(func.vmap(field, (None, 0)), batch, [0.0, 1.0]).y.square().sum(), w
    )
    (expected,) = torch.autograd.grad(sum(solver("dopri5")(field, y0, [0.0, 1.0]).y.square().sum() for y0 in batch), w)
    assert (found - expected).abs().max() < 1e-4


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("kind", ["rk4", "dopri5"])
def test_jacobians_by_autograd(kind, name):
    """torch.autograd.functional: one backward pass each, or all at once under vmap."""
    for place, x in INPUTS:
        function = of_one(run(kind, name), place)
        expected = jacobian(of_one(run(kind), place), x)
        found = jacobian(function, x)
        assert (found - expected).abs().max() < (1e-2 if name in ("adjoint", "reversible") else 1e-9)
        if name == "adjoint":
            with pytest.raises(NotImplementedError, match="vmap"):
                jacobian(function, x, vectorize=True)
        else:
            assert_close(jacobian(function, x, vectorize=True), found)
