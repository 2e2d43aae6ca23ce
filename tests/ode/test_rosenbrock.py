"""Rosenbrock methods: orders in exact arithmetic, one step against the book's formula, stiff problems, gradients."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from ode_cases import Counting, Swirl, doubles
from scipy.integrate import solve_ivp
from test_tableau import density, trees

from odenet_cli.ode import Adaptive, Fixed, RandomField, method, methods
from odenet_cli.ode.rosenbrock.formulas import Rosenbrock

METHODS = [name for name in methods.names() if isinstance(method(name), Rosenbrock)]
DENSE_ORDER = {"rodas4": 3, "rodas5p": 4}


def triangle(rows):
    """Rows of a lower triangle as a square matrix."""
    return [[*row, *[Fraction(0)] * (len(rows) - len(row))] for row in rows]


def product(x, y):
    return [[sum(a * b for a, b in zip(row, column)) for column in zip(*y)] for row in x]


def book(formulas):
    """α, Γ and a function from weights of u to weights of k: c = diag(1/γ) - Γ⁻¹, a = αΓ⁻¹, m = bΓ⁻¹ (eq. 7.24)."""
    count = len(formulas.a)
    inverse = [[-x for x in row] for row in triangle(formulas.c)]
    for i in range(count):
        inverse[i][i] = 1 / formulas.diagonal
    gamma = [[Fraction(0)] * count for _ in range(count)]
    for j in range(count):
        for i in range(j, count):
            rest = sum(inverse[i][n] * gamma[n][j] for n in range(j, i))
            gamma[i][j] = (Fraction(int(i == j)) - rest) / inverse[i][i]
    return product(triangle(formulas.a), gamma), gamma, lambda weights: product([weights], gamma)[0]


def elementary(alpha, beta, tree):
    """Φ_i of a tree: a vertex with one child goes by β = α + Γ, one with several by α (Hairer & Wanner IV.7)."""
    matrix = beta if len(tree) == 1 else alpha
    result = [Fraction(1)] * len(alpha)
    for child in tree:
        inner = elementary(alpha, beta, child)
        result = [x * sum(a * y for a, y in zip(row, inner)) for x, row in zip(result, matrix)]
    return result


def residual(formulas, weights, order, theta=Fraction(1)):
    alpha, gamma, _ = book(formulas)
    beta = [[x + y for x, y in zip(a, g)] for a, g in zip(alpha, gamma)]
    gaps = []
    for tree in trees(order):
        total = sum(b * x for b, x in zip(weights, elementary(alpha, beta, tree)))
        gaps.append(abs(total - theta**order / density(tree)))
    return max(gaps)


ROUNDED = Fraction(1, 10**12)  # the books print 16 digits


@pytest.mark.parametrize("name", METHODS)
def test_solution_and_embedded_solution_have_their_orders_and_no_more(name):
    formulas = method(name)
    *_, to_k = book(formulas)
    embedded = [m - e for m, e in zip(formulas.m, formulas.e)]
    for weights, highest in ((formulas.m, formulas.order), (embedded, formulas.embedded_order)):
        b = to_k(list(weights))
        assert all(residual(formulas, b, order) < ROUNDED for order in range(1, highest + 1))
        assert residual(formulas, b, highest + 1) > Fraction(1, 10**6)


@pytest.mark.parametrize("name", METHODS)
def test_dense_output_has_its_order(name):
    formulas = method(name)
    *_, to_k = book(formulas)
    for theta in (Fraction(1, 3), Fraction(4, 5), Fraction(1)):
        weights = [sum(c * theta**p for p, c in enumerate(row, 1)) for row in formulas.dense_rows]
        for order in range(1, DENSE_ORDER[name] + 1):
            assert residual(formulas, to_k(weights), order, theta) < ROUNDED


@pytest.mark.parametrize("name", METHODS)
def test_nodes_are_row_sums_and_the_method_is_stiffly_accurate_and_l_stable(name):
    formulas = method(name)
    alpha, gamma, to_k = book(formulas)
    for printed, rows in ((formulas.alpha, alpha), (formulas.gamma, gamma)):
        assert all(abs(node - sum(row)) < ROUNDED for node, row in zip(printed, rows))
    # b_i = α_si + γ_si: with Σ α_si = 1 the stability function vanishes at infinity.
    assert all(abs(b - a - g) < ROUNDED for b, a, g in zip(to_k(list(formulas.m)), alpha[-1], gamma[-1]))
    for z in (-1e-2, -1.0, -10.0, -1e3, -1e8, 1j, 10j, 1e3j, -1 + 50j):
        value = Fixed(method=name, steps=1)(
            lambda t, y, z=z: (
                torch.stack([z.real * y[0] - z.imag * y[1], z.imag * y[0] + z.real * y[1]])
                if isinstance(z, complex)
                else z * y
            ),
            doubles(1.0, 0.0),
            doubles(0.0, 1.0),
        ).y
        assert value.norm() <= 1 + 1e-9
        if abs(z) == 1e8:
            assert value.norm() < 1e-6


@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_that_of_the_book(name):
    """k_i = h f(t + α_i h, y + Σ α_ij k_j) + γ_i h² f_t + h J Σ γ_ij k_j (eq. 7.4), dense, for one sample."""
    field, y, t, h = Swirl(3), doubles(0.3, -0.7, 1.1), doubles(0.2).squeeze(), 0.35
    alpha, gamma, to_k = book(method(name))
    b = to_k(list(method(name).m))
    jacobian = torch.autograd.functional.jacobian(lambda y: field(t, y), y)
    dfdt = torch.autograd.functional.jacobian(lambda t: field(t, y), t)
    k = []
    for i in range(len(b)):
        stage = y + sum((float(alpha[i][j]) * k[j] for j in range(i)), torch.zeros(3, dtype=torch.float64))
        right = h * field(t + float(sum(alpha[i])) * h, stage) + float(sum(gamma[i])) * h**2 * dfdt
        right = right + h * jacobian @ sum((float(gamma[i][j]) * k[j] for j in range(i)), torch.zeros_like(y))
        k.append(torch.linalg.solve(torch.eye(3) - h * float(gamma[i][i]) * jacobian, right))
    expected = y + sum(float(w) * x for w, x in zip(b, k))
    got = Fixed(method=name, steps=1)(field, y, torch.stack([t, t + h])).y
    assert torch.allclose(got, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_error_falls_with_the_order_where_time_matters(name):
    def end(solve):
        with torch.no_grad():
            return solve(Swirl(3), doubles(0.3, -0.7, 1.1), doubles(0.0, 3.0)).y

    exact = end(Adaptive(method="dopri8", rtol=1e-13, atol=1e-13))
    coarse, fine = ((end(Fixed(method=name, steps=n)) - exact).norm().item() for n in (32, 256))
    assert math.log2(coarse / fine) / 3 == pytest.approx(method(name).order, abs=0.2)


def van_der_pol(t, y, mu=1e3):
    return torch.stack([y[..., 1], mu * (1 - y[..., 0] ** 2) * y[..., 1] - y[..., 0]], dim=-1)


def robertson(t, y):
    slow, fast, pair = 0.04 * y[..., 0], 3e7 * y[..., 1] ** 2, 1e4 * y[..., 1] * y[..., 2]
    return torch.stack([pair - slow, slow - pair - fast, fast], dim=-1)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("field", "y0", "end", "atol"),
    [
        pytest.param(van_der_pol, [2.0, 0.0], 900.0, 1e-8, marks=pytest.mark.numerics),
        (robertson, [1.0, 0.0, 0.0], 1e4, 1e-10),
    ],
)
def test_stiff_problems_take_few_steps_and_end_where_radau_does(name, field, y0, end, atol):
    def numpy_field(t, y):
        return field(t, torch.tensor(y)).numpy()

    exact = solve_ivp(numpy_field, (0, end), y0, method="Radau", rtol=1e-8, atol=1e-13).y[:, -1]
    y, stats = Adaptive(method=name, rtol=1e-6, atol=atol)(field, doubles(*y0), doubles(0.0, end))
    assert np.abs(y.numpy() - exact).max() < 1e-4 * np.abs(exact).max()
    assert stats.accepted < 500


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("grad", ["backprop", "replay"])
def test_gradients_are_those_of_finite_differences(name, grad):
    """Of y0, parameters, arguments and times; outputs inside steps and a batch of three included."""
    y0 = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    rate, ts, w = doubles(3.0, grad=True), doubles(0.1, 0.4, 0.9, grad=True), doubles(0.5, -1.0, grad=True)

    def solve(y0, rate, ts, w):
        def field(t, y, rate):
            return -rate * (y - torch.cos(t)) + torch.tanh(y.flip(-1) * w)

        fixed = Fixed(method=name, steps=2, gradient=grad)
        return fixed(field, y0, ts, args=(rate,)).y

    assert torch.autograd.gradcheck(solve, (y0, rate, ts, w), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize("name", METHODS)
def test_replay_takes_the_steps_of_an_adaptive_solve_again(name):
    field, y0, ts = Swirl(3), torch.randn(4, 3, dtype=torch.float64), doubles(0.0, 0.3, 2.0, grad=True)
    parts = []
    for grad in ("backprop", "replay"):
        start = y0.clone().requires_grad_()
        y, stats = Adaptive(method=name, rtol=1e-5, atol=1e-5, gradient=grad)(field, start, ts)
        parts.append(torch.autograd.grad(y.square().sum(), [start, ts, *field.parameters()]))
        if grad == "replay":
            assert stats.nfe_backward == stats.accepted * len(method(name).a)
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(*parts))


@pytest.mark.parametrize("name", METHODS)
def test_second_derivatives_pass(name):
    def end(y0, rate):
        return Fixed(method=name, steps=1)(lambda t, y: -rate * y**3, y0, doubles(0.0, 0.5)).y

    assert torch.autograd.gradgradcheck(end, (doubles(0.7, grad=True), doubles(1.5, grad=True)), atol=1e-5)


def test_evaluations_are_counted():
    """One where a step begins, shared by its attempts, then those of the other stages; one for the first step."""
    field = Counting(lambda t, y: -50 * (y - torch.cos(t)))
    _, stats = Adaptive(method="rodas4", rtol=1e-6, atol=1e-6)(field, doubles(0.0), doubles(0.0, 1.5))
    attempts = stats.accepted + stats.rejected
    assert stats.nfe_forward == field.calls == 1 + stats.accepted + 5 * attempts


class TestRows:
    """A batch has a Jacobian a sample; where samples have to do with each other, one for all."""

    @staticmethod
    def solve(field, y0, name="rodas4"):
        return Fixed(method=name, steps=3)(field, y0, doubles(0.0, 1.0)).y

    def test_a_batch_is_solved_sample_by_sample(self):
        field, y0 = Swirl(3), torch.randn(5, 3, dtype=torch.float64)
        one_by_one = torch.stack([self.solve(field, y) for y in y0])
        assert torch.allclose(self.solve(field, y0), one_by_one, rtol=1e-12, atol=1e-13)

    def test_samples_that_see_each_other_are_one_system(self):
        def coupled(t, y):
            return -(y**3) - 20 * (y - y.mean(0))

        y0 = torch.randn(4, 2, dtype=torch.float64)
        whole = self.solve(lambda t, y: coupled(t, y.reshape(4, 2)).reshape(-1), y0.reshape(-1)).reshape(4, 2)
        assert torch.allclose(self.solve(coupled, y0), whole, rtol=1e-12)

    def test_two_of_many_samples_are_enough(self):
        def coupled(t, y):
            return -y + torch.cat([torch.zeros_like(y[:7]), y[:1], torch.zeros_like(y[8:])])

        y0 = torch.randn(9, 2, dtype=torch.float64)
        whole = self.solve(lambda t, y: coupled(t, y.reshape(9, 2)).reshape(-1), y0.reshape(-1)).reshape(9, 2)
        assert torch.allclose(self.solve(coupled, y0), whole, rtol=1e-12)

    @pytest.mark.parametrize("name", METHODS)
    def test_samples_may_come_to_see_each_other_on_the_way(self, name):
        """At the start ∂f/∂y is diagonal: y_1 enters the first equation by its square."""

        def field(t, y):
            return torch.stack([-1000 * (y[0] - y[1] ** 2), 1 - y[1]])

        y, stats = Adaptive(method=name, rtol=1e-6, atol=1e-6)(field, doubles(0.0, 0.0), doubles(0.0, 2.0))
        e, d = math.exp(-2), math.exp(-4)
        # y_1 = 1 - e^-t, so that y_0 is a sum of 1, e^-t, e^-2t and e^-1000t.
        exact = [1 - 2 * e / 0.999 + d / 0.998, 1 - e]
        assert y.tolist() == pytest.approx(exact, abs=1e-5)
        assert stats.accepted < 100

    @pytest.mark.parametrize("grad", ["backprop", "replay"])
    def test_gradients_are_those_of_samples_that_see_each_other_later(self, grad):
        def field(t, y):
            return -y + torch.where(t > 0.5, 3 * (t - 0.5) ** 3 * y.mean(), 0 * y)

        def end(y0):
            return Fixed(method="rodas4", steps=3, gradient=grad)(field, y0, doubles(0.0, 2.0)).y

        y0 = torch.tensor([[1.0], [2.0], [-1.0]], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(end, y0)
        whole = end(y0.detach().T).T  # one sample of three numbers
        assert torch.allclose(end(y0), whole, rtol=1e-12)

    def test_parts_of_a_state_are_one_row(self):
        field, y0 = Swirl(3), torch.randn(5, 3, dtype=torch.float64)

        def in_parts(t, y):
            dy = field(t, torch.cat([y[0].unsqueeze(1), y[1]], dim=1))
            return dy[:, 0], dy[:, 1:]

        first, rest = self.solve(in_parts, (y0[:, 0], y0[:, 1:]))
        y = torch.cat([first.unsqueeze(1), rest], dim=1)
        assert torch.allclose(y, self.solve(field, y0), rtol=1e-12, atol=1e-13)

    def test_a_constant_field_and_one_of_the_time_alone(self):
        assert self.solve(lambda t, y: torch.ones_like(y), doubles(1.0, 2.0)).tolist() == pytest.approx([2.0, 3.0])
        y = self.solve(lambda t, y: torch.cos(t) * torch.ones_like(y), doubles(1.0))
        assert y.item() == pytest.approx(1 + math.sin(1), abs=1e-7)

    def test_an_empty_batch(self):
        assert self.solve(lambda t, y: -y, torch.zeros(0, 2, dtype=torch.float64)).shape == (0, 2)


def test_a_jump_is_met_and_dense_output_lies_on_the_path():
    def field(t, y):
        return -100 * (y - torch.where(t < 0.5, 1.0, -1.0))

    solve = Adaptive(method="rodas4", rtol=1e-8, atol=1e-8, jumps=(0.5,))
    y = solve(field, doubles(0.0), doubles(0.0, 0.5, 0.55, 1.0)).y.squeeze(-1)
    behind = -1 + 2 * math.exp(-5) - math.exp(-55)
    assert y.tolist() == pytest.approx([0, 1 - math.exp(-50), behind, -1 + 2 * math.exp(-50)], abs=1e-6)
    path = solve.dense(field, doubles(0.0), [0.0, 1.0])
    times = torch.linspace(0.01, 0.49, 7, dtype=torch.float64)
    assert torch.allclose(path(times).squeeze(-1), 1 - torch.exp(-100 * times), atol=1e-5)


def test_nothing_is_kept_where_no_gradient_is_wanted():
    y = Adaptive(method="rodas4", rtol=1e-4, atol=1e-4)(lambda t, y: -y, doubles(1.0), doubles(0.0, 1.0)).y
    assert not y.requires_grad


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"gradient": "adjoint"}, "use gradient=backprop or replay"),
        ({"gradient": "reversible"}, "use gradient=backprop or replay"),
        ({"compile": True}, "compile=True and solver.method=rodas4 cannot be combined"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        Adaptive(method="rodas4", rtol=1e-3, atol=1e-3, **settings)


@pytest.mark.parametrize(
    ("y0", "error", "says"),
    [
        (torch.ones(2, dtype=torch.complex64), TypeError, "real float32 or float64"),
        (torch.ones(2, dtype=torch.bfloat16), TypeError, "real float32 or float64"),
        (torch.ones(1, 20_000), ValueError, "use an explicit method"),
    ],
)
def test_states_that_have_no_jacobian_to_factorise_are_refused(y0, error, says):
    with pytest.raises(error, match=says):
        Adaptive(method="rodas4", rtol=1e-1, atol=1e-1)(lambda t, y: -y, y0, doubles(0.0, 1.0))


def test_the_adjoint_is_not_solved_by_one():
    from odenet_cli.ode.gradient.adjoint import Adjoint

    with pytest.raises(ValueError, match=r"gradient\.solver\.method=rodas4 needs the Jacobian") as refusal:
        Adjoint(solver=Adaptive(method="rodas4", rtol=1e-3, atol=1e-3))
    # The way out is one for every forward method that an adjoint may have, adams too, which replay does not go through.
    way_out = str(refusal.value).rpartition("gradient=")[2].rstrip(".")
    assert all(Adaptive(method=name, rtol=1e-3, atol=1e-3, gradient=way_out) for name in ("adams", "dopri5"))


def test_random_numbers_are_not_drawn_again():
    y0 = torch.ones(3, requires_grad=True)
    with pytest.raises(RandomField, match="a method such as dopri5"):
        Fixed(method="rodas4", steps=1, gradient="replay")(lambda t, y: -y * torch.rand(3), y0, [0.0, 1.0])


@pytest.mark.parametrize("grad", ["backprop", "replay"])
def test_a_state_without_dimensions_is_one_number(grad):
    w, y0 = torch.tensor(0.4, dtype=torch.float64, requires_grad=True), torch.tensor(0.7, dtype=torch.float64)
    solve = Adaptive(method="rodas4", rtol=1e-8, atol=1e-8, gradient=grad)
    y = solve(lambda t, y: w * torch.cos(t) * y, y0, [0.0, 0.5, 1.0]).y
    exact = y0 * torch.exp(w * torch.sin(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64)))
    assert torch.allclose(y, exact, atol=1e-7)
    (found,), (known,) = torch.autograd.grad(y.sum(), w), torch.autograd.grad(exact.sum(), w)
    assert torch.allclose(found, known, atol=1e-6)


def _without_grad(t, y):
    with torch.no_grad():
        return torch.cos(t) - y


@pytest.mark.parametrize(
    ("field", "hidden"),
    [
        (lambda t, y: math.cos(t.item()) - y, "the time"),
        (lambda t, y: torch.cos(t.detach()) - y, "the time"),
        (_without_grad, "the state"),
        (lambda t, y: -y.detach().square(), "the state"),
    ],
)
@pytest.mark.parametrize("grad", ["backprop", "replay"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_derivative_that_autograd_does_not_see_is_refused(field, hidden, grad, dtype):
    """Steps without it are of order 1: the first of these was 65 tolerances off at 1e-6, after 7,512 evaluations."""
    y0 = torch.tensor([0.5, -0.3], dtype=dtype, requires_grad=True)
    for solve in (
        Adaptive(method="rodas4", rtol=1e-4, atol=1e-4, gradient=grad),
        Fixed(method="rodas5p", steps=4, gradient=grad),
    ):
        with pytest.raises(ValueError, match=f"depends on {hidden}"):
            solve(field, y0, [0.0, 2.0])


@pytest.mark.parametrize(
    ("field", "start", "end"),
    [
        (lambda t, y: 1 - (1 + y).square() + y * 2, 0.0, 0.0),
        (lambda t, y: y.square(), 0.0, 0.0),
        (lambda t, y: torch.relu(y - 1) + 1, 1.0, math.e),
    ],
)
@pytest.mark.parametrize("method", ["rodas4", "rodas5p"])
def test_a_jacobian_that_is_zero_where_the_solve_begins_is_not_hidden(field, start, end, method):
    solve = Adaptive(method=method, rtol=1e-8, atol=1e-8)
    y = solve(field, torch.full((1,), start, dtype=torch.float64), [0.0, 1.0]).y
    assert y.item() == pytest.approx(end, abs=1e-6)


@pytest.mark.parametrize(
    ("field", "extra"),
    [
        (lambda t, y: -y.square(), 1),  # autonomous
        (lambda t, y: torch.cos(t) - y, 0),
        (lambda t, y: torch.floor(8 * t) - y, 2),  # a control that is held, piece by piece
        (lambda t, y: (1.0 if t > 0.3 else 2.0) - y, 2),
        (lambda t, y: torch.sign(y) * torch.cos(t), 2),  # constant in y, piece by piece
    ],
)
def test_derivatives_that_are_zero_are_not_refused(field, extra):
    counting = Counting(field)
    stats = Fixed(method="rodas4", steps=4)(counting, doubles(0.5, 0.0), [0.0, 1.0]).stats
    assert stats.nfe_forward == counting.calls == 4 * 6 + extra
