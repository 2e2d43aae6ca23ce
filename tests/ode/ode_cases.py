"""What the solver tests share: the names that exist, fields with known solutions, and a second, naive Runge-Kutta."""

from __future__ import annotations

import torch
from torch import Tensor

from odenet_cli.ode import Adaptive, Fixed, Tableau, gradient, method, methods
from odenet_cli.ode.outputs import steps
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.right_hand_side import RightHandSide

# Methods that are a tableau.
METHODS = [name for name in methods.names() if isinstance(method(name), Tableau)]
ADAPTIVE = [name for name in METHODS if method(name).error_weights]
GRADIENTS = gradient.names()

# Not FSAL: the one path that no shipped pair may take.
HEUN_EULER = Tableau.parse("0 |\n 1 | 1\n b | 1/2 1/2\n b* | 1 0", order=2)

PAIRS = ADAPTIVE if "heun_euler" in ADAPTIVE else [*ADAPTIVE, HEUN_EULER]
SOLVERS = [("adaptive", name) for name in PAIRS] + [("fixed", name) for name in METHODS]
ADAMS = ("adaptive", "adams")
# Of one step and of several, each with the gradients that it has.
WAYS = [("dopri5", grad) for grad in GRADIENTS] + [("adams", grad) for grad in ("backprop", "adjoint")]


def label(case):
    """A readable test id."""
    if isinstance(case, tuple):
        return "-".join(map(label, case))
    return "heun_euler" if isinstance(case, Tableau) else str(case)


def solver(case, grad="backprop", tol=1e-4, steps=5, **options):
    kind, name = case
    if kind == "fixed":
        return Fixed(method=name, steps=steps, gradient=grad)
    return Adaptive(method=name, rtol=tol, atol=tol, gradient=grad, **options)


def doubles(*numbers, grad=False) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64, requires_grad=grad)


class Counting:
    """A field that counts its calls: the witness against whom the solver's own count is held."""

    def __init__(self, field):
        self.field, self.calls = field, 0

    def __call__(self, t, y):
        self.calls += 1
        return self.field(t, y)


class Swirl(torch.nn.Module):
    """A smooth nonlinear field that reads the time and two parameters."""

    def __init__(self, size: int = 3, dtype=torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(7)
        self.w = torch.nn.Parameter(torch.randn(size, size, generator=generator, dtype=dtype) / size**0.5)
        self.b = torch.nn.Parameter(torch.randn(size, generator=generator, dtype=dtype))

    def forward(self, t, y):
        return torch.tanh(y @ self.w.T + self.b * t) - 0.3 * y * torch.cos(3 * t)


def steps_of(solve, field, y0, ts):
    """Return the accepted steps of a solve."""
    problem = Problem(RightHandSide(field, y0), ts.tolist(), None, solve)
    with torch.no_grad():
        return list(steps(problem.loop(), problem, [problem.y0]))


def naive(tableau: Tableau, taken, field, y0, ts: Tensor):
    """Textbook Runge-Kutta over given steps, each a constant fraction of its segment: all of it plain autograd."""
    single = isinstance(y0, Tensor)
    call = (lambda t, y: (field(t, y[0]),)) if single else field
    y = (y0,) if single else tuple(y0)
    a = [[float(x) for x in row] for row in tableau.a]
    b, c = [float(x) for x in tableau.b], [float(x) for x in tableau.c]
    times = ts.tolist()
    states = {0: y}
    for step in taken:
        i, j = step.segment.i, step.segment.j
        span = ts[j] - ts[i]
        t = ts[i] + (step.t - times[i]) / (times[j] - times[i]) * span
        h = step.h / (times[j] - times[i]) * span
        k = []
        for node, row in zip(c, a):
            k.append(call(t + node * h, tuple(p + h * sum(w * s[n] for w, s in zip(row, k)) for n, p in enumerate(y))))
        y1 = tuple(p + h * sum(w * s[n] for w, s in zip(b, k)) for n, p in enumerate(y))
        for output, _ in step.interior_outputs:
            k = k[: tableau.stages]
            theta = (ts[output] - t) / h
            if tableau.dense is None:
                end = call(t + h, y1)
                states[output] = tuple(
                    (1 - theta) ** 2 * (1 + 2 * theta) * p
                    + theta**2 * (3 - 2 * theta) * q
                    + h * theta * (1 - theta) * ((1 - theta) * f - theta * g)
                    for p, q, f, g in zip(y, y1, k[0], end)
                )
            else:
                for node, row in tableau.extra:
                    point = tuple(p + h * sum(float(w) * s[n] for w, s in zip(row, k)) for n, p in enumerate(y))
                    k.append(call(t + float(node) * h, point))
                rows = [sum(float(x) * theta**n for n, x in enumerate(row, start=1)) for row in tableau.dense]
                states[output] = tuple(p + h * sum(w * s[n] for w, s in zip(rows, k)) for n, p in enumerate(y))
        y = y1
        if step.output_at_end is not None:
            states[step.output_at_end] = y
    for j in range(1, len(times)):
        states.setdefault(j, states[j - 1])
    made = tuple(torch.stack([states[j][n] for j in range(len(times))]) for n in range(len(y)))
    return made[0] if single else made
