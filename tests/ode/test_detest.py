"""The 25 non-stiff DETEST problems against DOP853 at 1e-13, beside scipy at the same tolerance.

Hull, Enright, Fellen & Sedgwick, SIAM J. Numer. Anal. 9 (1972); Enright & Pryce, ACM TOMS 13 (1987).
"""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import torch
from ode_cases import ADAPTIVE
from scipy.integrate import solve_ivp

from odenet_cli.ode import Adaptive, method

pytestmark = pytest.mark.numerics


def two_body(eccentricity):
    def field(t, y, xp):
        cube = (y[0] ** 2 + y[1] ** 2) ** 1.5
        return [y[2], y[3], -y[0] / cube, -y[1] / cube]

    return field, [1 - eccentricity, 0.0, 0.0, math.sqrt((1 + eccentricity) / (1 - eccentricity))]


def chain(size, inner, last):
    """y' = the tridiagonal or bidiagonal systems of class C."""

    def field(t, y, xp):
        return [inner(i, y) for i in range(size - 1)] + [last(y)]

    return field, [1.0] + [0.0] * (size - 1)


def neighbours(size):
    def field(t, y, xp):
        padded = [0.0, *y, 0.0]
        return [padded[i - 1] - 2 * padded[i] + padded[i + 1] for i in range(1, size + 1)]

    return field, [1.0] + [0.0] * (size - 1)


def five_bodies():
    """C5: the motion of the five outer planets about the sun (masses, constant and data of Hull et al.)."""
    m0 = 1.00000597682
    m = [0.000954786104043, 0.000285583733151, 0.0000437273164546, 0.0000517759138449, 0.00000277777777778]
    place = [
        [3.42947415189, 3.35386959711, 1.35494901715],
        [6.64145542550, 5.97156957878, 2.18231499728],
        [11.2630437207, 14.6952576794, 6.27960525067],
        [-30.1552268759, 1.65699966404, 1.43785752721],
        [-21.1238353380, 28.4465098142, 15.3882659679],
    ]
    speed = [
        [-0.557160570446, 0.505696783289, 0.230578543901],
        [-0.415570776342, 0.365682722812, 0.169143213293],
        [-0.325325669158, 0.189706021964, 0.0877265322780],
        [-0.0240476254170, -0.287659532608, -0.117219543175],
        [-0.176860753121, -0.216393453025, -0.0148647893090],
    ]

    def field(t, y, xp):
        q = [y[3 * j : 3 * j + 3] for j in range(5)]
        r3 = [(p[0] ** 2 + p[1] ** 2 + p[2] ** 2) ** 1.5 for p in q]
        pull = []
        for j in range(5):
            for i in range(3):
                total = -(m0 + m[j]) * q[j][i] / r3[j]
                for k in range(5):
                    if k != j:
                        d3 = sum((q[k][n] - q[j][n]) ** 2 for n in range(3)) ** 1.5
                        total = total + m[k] * ((q[k][i] - q[j][i]) / d3 - q[k][i] / r3[k])
                pull.append(2.95912208286 * total)
        return [*y[15:], *pull]

    return field, [x for row in place + speed for x in row]


def restricted(t, y, xp):
    """Euler's equations of a rigid body without forces."""
    return [y[1] * y[2], -y[0] * y[2], -0.51 * y[0] * y[1]]


def bessel(t, y, xp):
    return [y[1], -(y[1] / (t + 1) + (1 - 0.25 / (t + 1) ** 2) * y[0])]


def torus(t, y, xp):
    r = xp.sqrt(y[0] ** 2 + y[1] ** 2)
    return [-y[1] - y[0] * y[2] / r, y[0] - y[1] * y[2] / r, y[0] / r]


PROBLEMS = {
    "A1": (lambda t, y, xp: [-y[0]], [1.0]),
    "A2": (lambda t, y, xp: [-(y[0] ** 3) / 2], [1.0]),
    "A3": (lambda t, y, xp: [y[0] * xp.cos(t)], [1.0]),
    "A4": (lambda t, y, xp: [y[0] / 4 * (1 - y[0] / 20)], [1.0]),
    "A5": (lambda t, y, xp: [(y[0] - t) / (y[0] + t)], [4.0]),
    "B1": (lambda t, y, xp: [2 * (y[0] - y[0] * y[1]), -(y[1] - y[0] * y[1])], [1.0, 3.0]),
    "B2": (lambda t, y, xp: [-y[0] + y[1], y[0] - 2 * y[1] + y[2], y[1] - y[2]], [2.0, 0.0, 1.0]),
    "B3": (lambda t, y, xp: [-y[0], y[0] - y[1] ** 2, y[1] ** 2], [1.0, 0.0, 0.0]),
    "B4": (torus, [3.0, 0.0, 0.0]),
    "B5": (restricted, [0.0, 1.0, 1.0]),
    "C1": chain(10, lambda i, y: (y[i - 1] if i else 0.0) - y[i], lambda y: y[8]),
    "C2": chain(10, lambda i, y: (i * y[i - 1] if i else 0.0) - (i + 1) * y[i], lambda y: 9 * y[8]),
    "C3": neighbours(10),
    "C4": neighbours(51),
    "C5": five_bodies(),
    **{f"D{n}": two_body(0.1 + 0.2 * (n - 1)) for n in range(1, 6)},
    "E1": (bessel, [0.6713967071418030, 0.09540051444747446]),
    "E2": (lambda t, y, xp: [y[1], (1 - y[0] ** 2) * y[1] - y[0]], [2.0, 0.0]),
    "E3": (lambda t, y, xp: [y[1], y[0] ** 3 / 6 - y[0] + 2 * xp.sin(2.78535 * t)], [0.0, 0.0]),
    "E4": (lambda t, y, xp: [y[1], 0.032 - 0.4 * y[1] ** 2], [30.0, 0.0]),
    "E5": (lambda t, y, xp: [y[1], xp.sqrt(1 + y[1] ** 2) / (25 - t)], [0.0, 0.0]),
}
PEER = {3: "RK23", 5: "RK45", 8: "DOP853"}


def by_torch(name):
    """Return field and initial state for our solvers; numbers of NumPy take a tenth of the time that tensors take."""
    field, y0 = PROBLEMS[name]
    start = torch.tensor(y0, dtype=torch.float64)
    return lambda t, y: torch.tensor(field(float(t), y.numpy(), np), dtype=y.dtype), start


@functools.cache
def by_numpy(name, peer, rtol, atol):
    field, y0 = PROBLEMS[name]
    return solve_ivp(lambda t, y: field(t, y, np), (0.0, 20.0), y0, method=peer, rtol=rtol, atol=atol)


@pytest.fixture(scope="module")
def exact():
    return {name: by_numpy(name, "DOP853", 1e-13, 1e-14).y[:, -1] for name in PROBLEMS}


@functools.cache
def by_us(name, kind, tol):
    with torch.no_grad():
        y, stats = Adaptive(method=kind, rtol=tol, atol=tol, max_steps=200_000)(*by_torch(name), [0.0, 20.0])
    return y.numpy(), stats


@pytest.mark.parametrize("kind", ADAPTIVE)
def test_as_accurate_as_scipy_on_every_problem(kind, exact):
    order = method(kind).order
    peer = PEER[min(PEER, key=lambda known: abs(known - order))]
    for tol in [1e-4] if order <= 2 else [1e-6, 1e-9] if order >= 5 else [1e-6]:
        behind = {}
        for name in PROBLEMS:
            theirs = np.abs(by_numpy(name, peer, tol, tol).y[:, -1] - exact[name]).max()
            ours = np.abs(by_us(name, kind, tol)[0] - exact[name]).max()
            if ours > 10 * max(theirs, 10 * tol):
                behind[name] = (ours, theirs)
        assert behind == {}


def test_dopri5_is_no_worse_than_rk45_on_the_whole(exact):
    """Errors in logarithmic mean, evaluations in sum."""
    for tol in (1e-6, 1e-9):
        logs, ours, theirs = [], 0, 0
        for name in PROBLEMS:
            peer = by_numpy(name, "RK45", tol, tol)
            y, stats = by_us(name, "dopri5", tol)
            errors = [np.abs(x - exact[name]).max() + 1e-13 for x in (y, peer.y[:, -1])]
            logs.append(math.log(errors[0] / errors[1]))
            ours, theirs = ours + stats.nfe_forward, theirs + peer.nfev
        assert math.exp(sum(logs) / len(logs)) <= 1.1
        assert ours <= 1.1 * theirs
