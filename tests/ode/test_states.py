"""A state is any tensor or tuple of tensors, and keeps its shape, type and device."""

from __future__ import annotations

import cmath
import itertools
import math

import pytest
import torch
from ode_cases import ADAMS, GRADIENTS, SOLVERS, WAYS, Swirl, doubles, label, solver

DOPRI5 = ("adaptive", "dopri5")


SHAPES = [(), (1,), (2, 3), (2, 1, 3, 2), (0,), (0, 3)]
DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


@pytest.mark.parametrize("case", [*SOLVERS, ADAMS], ids=label)
@pytest.mark.parametrize(
    ("shapes", "dtypes"), [(SHAPES, [torch.float32]), ([(2, 3), (0,)], DTYPES)], ids=["shapes", "types"]
)
def test_shape_and_type_are_kept(case, shapes, dtypes):
    for shape, dtype in itertools.product(shapes, dtypes):
        solve, y0 = solver(case, tol=1e-2, steps=2), torch.ones(shape, dtype=dtype)
        for ts, lead in (((0.0, 1.0), ()), ((0.0, 0.4, 1.0), (3,)), ((1.0, 1.0), ()), ((1.0, 1.0, 1.0), (3,))):
            y = solve(lambda t, y: -y, y0, ts).y
            assert y.shape == lead + shape
            assert y.dtype == dtype


@pytest.mark.parametrize(("name", "grad"), WAYS)
def test_a_rotation_in_the_complex_plane(name, grad):
    omega = torch.tensor(2.0 + 0.5j, dtype=torch.complex128, requires_grad=True)
    solve = solver(("adaptive", name), grad, tol=1e-10)
    y0 = torch.tensor(1 + 1j, dtype=torch.complex128, requires_grad=True)
    y = solve(lambda t, y: 1j * omega * y, y0, doubles(0.0, 1.0)).y
    exact = (1 + 1j) * cmath.exp(1j * (2 + 0.5j))
    assert abs(y.item() - exact) < 1e-8
    of_omega, of_y0 = torch.autograd.grad(y.real, (omega, y0))
    # For a loss that is the real part of a holomorphic g, autograd gives the conjugate of g'.
    assert abs(of_omega.item() - (1j * exact).conjugate()) < 1e-8
    assert abs(of_y0.item() - (exact / (1 + 1j)).conjugate()) < 1e-8


@pytest.mark.parametrize(("name", "grad"), WAYS)
def test_a_tuple_of_mixed_types_and_shapes(name, grad):
    y0 = (torch.ones(2, 3), doubles(1.0), torch.ones((), dtype=torch.complex128), torch.ones(0))

    def field(t, y):
        assert isinstance(y, tuple)
        assert t.dtype == torch.float64
        return -y[0], -2 * y[1], 1j * y[2], y[3]

    y = solver(("adaptive", name), grad)(field, y0, doubles(0.0, 0.5, 1.0)).y
    assert isinstance(y, tuple)
    assert [part.dtype for part in y] == [part.dtype for part in y0]
    assert [part.shape for part in y] == [(3, *part.shape) for part in y0]
    assert y[0][2, 0, 0].item() == pytest.approx(math.exp(-1), abs=1e-3)
    assert y[1][1].item() == pytest.approx(math.exp(-1), abs=1e-3)
    assert abs(y[2][2].item() - cmath.exp(1j)) < 1e-3


@pytest.mark.parametrize("grad", ["backprop", "replay"])
@pytest.mark.filterwarnings("ignore:solver.rtol=1e-08 is below the resolution of float32")
@pytest.mark.parametrize(("order", "shape"), [((0, 1), ()), ((0, 1), (2, 1)), ((1, 0), (2, 1))])
def test_linearly_implicit_steps_of_mixed_types(order, shape, grad):
    """Beside float32 a float64 component keeps its tolerance, and its time: t - 1000 in float32 is off by 3e-5."""

    def in_order(y):
        return tuple(y[n] for n in order)

    def field(t, y):
        a, b = in_order(y)
        return in_order((-a, -50 * (b - torch.cos(20 * (t - 1000)))))

    y0 = tuple(torch.ones(shape, dtype=dtype, requires_grad=True) for dtype in (torch.float32, torch.float64))
    solve = solver(("adaptive", "rodas5p"), grad, tol=1e-8)
    y, stats = solve(field, in_order(y0), [1000.0, 1000.3])
    a, b = in_order(y)
    # b' + 50 b = 50 cos 20 t, b(0) = 1
    exact = (math.cos(6) + 0.4 * math.sin(6)) / 1.16 + (1 - 1 / 1.16) * math.exp(-15)
    assert (b - exact).abs().max() < 1e-7
    assert (a - math.exp(-0.3)).abs().max() < 1e-6
    assert stats.accepted < 100
    of_a, of_b = torch.autograd.grad(a.sum().double() + b.sum(), y0)
    assert (of_a - math.exp(-0.3)).abs().max() < 1e-6
    assert (of_b - math.exp(-15)).abs().max() < 1e-9


def test_a_tuple_of_one_stays_a_tuple():
    y = solver(DOPRI5)(lambda t, y: (-y[0],), (doubles(1.0),), doubles(0.0, 1.0)).y
    assert isinstance(y, tuple)
    assert len(y) == 1
    y = solver(DOPRI5)(lambda t, y: [-y[0], y[1]], [doubles(1.0), doubles(2.0)], doubles(0.0, 1.0)).y
    assert isinstance(y, tuple)


@pytest.mark.parametrize("case", [*SOLVERS, ADAMS], ids=label)
def test_a_tuple_takes_the_steps_of_its_parts_laid_side_by_side(case):
    field, y0 = Swirl(4), torch.linspace(-1, 1, 8, dtype=torch.float64).reshape(2, 4)
    solve, ts = solver(case, tol=1e-5), doubles(0.0, 0.3, 1.0)
    whole = solve(field, y0, ts)
    parts = solve(lambda t, y: tuple(field(t, torch.stack(y)).unbind()), tuple(y0.unbind()), ts)
    assert torch.allclose(torch.stack(parts.y, 1), whole.y, rtol=1e-12)
    assert parts.stats == whole.stats


@pytest.mark.parametrize("case", SOLVERS, ids=label)
def test_there_and_back_again(case):
    field, y0 = Swirl(), torch.ones(3, dtype=torch.float64)
    solve = solver(case, tol=1e-6, steps=1000 if case[1] == "euler" else 50, max_steps=100_000)
    y1 = solve(field, y0, doubles(0.0, 1.0)).y
    assert (solve(field, y1, doubles(1.0, 0.0)).y - y0).abs().max() < 1e-2


@pytest.mark.parametrize("case", [*SOLVERS, ADAMS], ids=label)
def test_the_callers_tensors_are_left_alone(case):
    y0, ts = torch.ones(2, 3, dtype=torch.float64), doubles(0.0, 0.5, 1.0)
    seen = []

    def field(t, y):
        seen.append((y, y.clone()))
        return torch.tanh(y)

    for times in (ts, ts[:2], doubles(0.0, 0.0)):
        with torch.no_grad():
            y = solver(case, tol=1e-3)(field, y0, times).y
        y.mul_(5)
        assert torch.equal(y0, torch.ones(2, 3, dtype=torch.float64))
    # What the field was shown stays as it was, up to the state that was returned (and scaled above).
    assert all(torch.equal(one, other) or torch.equal(one, 5 * other) for one, other in seen)


@pytest.mark.parametrize("wanted", [True, False])
@pytest.mark.parametrize("grad", GRADIENTS)
@pytest.mark.parametrize("case", [DOPRI5, ("fixed", "rk4")], ids=label)
def test_a_field_may_differentiate_itself(case, grad, wanted):
    """As the trace of a continuous flow does: it asks its argument for a gradient. y' = -dV/dy with V = y²."""

    def field(t, y):
        with torch.enable_grad():
            y = y.requires_grad_()
            (slope,) = torch.autograd.grad(y.square().sum(), y, create_graph=True)
        return -slope

    y0 = doubles(1.0, 2.0)
    with torch.set_grad_enabled(wanted):
        y = solver(case, grad, tol=1e-8, steps=50)(field, y0, [0.0, 1.0]).y
    assert not y0.requires_grad
    assert torch.allclose(y.detach(), y0 * math.exp(-2), atol=1e-6)


def test_expanded_and_strided_states():
    wide, solve = doubles(1.0, 2.0).expand(3, 2), solver(DOPRI5, tol=1e-8)
    assert torch.allclose(solve(lambda t, y: -y, wide, doubles(0.0, 1.0)).y, wide * math.exp(-1), rtol=1e-6)
    turned = torch.arange(6.0, dtype=torch.float64).reshape(2, 3).T
    assert torch.allclose(solve(lambda t, y: -y, turned, doubles(0.0, 1.0)).y, turned * math.exp(-1), rtol=1e-6)
    assert torch.allclose(solve(lambda t, y: t.expand_as(y), turned, doubles(0.0, 2.0)).y, turned + 2)


@pytest.mark.parametrize("name", ["dopri5", "adams"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients_nothing_is_recorded(mode, name):
    field, y0 = Swirl(), torch.ones(3, dtype=torch.float64, requires_grad=True)
    solve = solver(("adaptive", name))
    with mode():
        plain = solve(field, y0, doubles(0.0, 0.5, 1.0))
    assert not plain.y.requires_grad
    with_gradient = solve(field, y0, doubles(0.0, 0.5, 1.0))
    assert with_gradient.y.requires_grad
    assert torch.equal(plain.y, with_gradient.y)
    assert plain.stats == with_gradient.stats


def test_without_anything_to_differentiate_nothing_is_recorded():
    y = solver(DOPRI5)(lambda t, y: -y, doubles(1.0), doubles(0.0, 1.0)).y
    assert not y.requires_grad


@pytest.mark.parametrize(("name", "grad"), WAYS)
def test_a_zero_length_span_is_the_identity(name, grad):
    y0 = doubles(1.0, 2.0, grad=True)
    for ts in (doubles(1.0, 1.0), doubles(1.0, 1.0, 1.0)):
        y, stats = solver(("adaptive", name), grad)(lambda t, y: -y, y0, ts)
        assert torch.equal(y.reshape(-1, 2)[-1], y0)
        assert stats.nfe_forward == stats.accepted == 0
        (found,) = torch.autograd.grad(y.sum(), y0)
        assert torch.equal(found, torch.full_like(found, y.numel() / 2))


@pytest.mark.parametrize("grad", GRADIENTS)
def test_a_float32_module_meets_float64_times(grad):
    field = Swirl(dtype=torch.float32)
    y = solver(DOPRI5, grad)(field, torch.ones(3), doubles(0.0, 0.5, 1.0, grad=True)).y
    assert y.dtype == torch.float32
    y.sum().backward()
    assert all(p.grad.dtype == torch.float32 for p in field.parameters())
