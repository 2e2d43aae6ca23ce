"""Initial value problems for every library: their fields can be evaluated by torch, numpy or `jax.numpy`.

A state is (1, D) or any (*S, D); `xp` is the namespace of the functions used by a field.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor, nn

Function = Callable[[Any, Any, Any], Any]  # f(xp, t, y)


@dataclass(frozen=True, kw_only=True)
class Problem:
    """y' = f(xp, t, y), y(0) = start, from t = 0 to `end`."""

    name: str
    f: Function
    start: tuple[float, ...]
    end: float


class FunctionField(nn.Module):
    def __init__(self, f: Function) -> None:
        super().__init__()
        self.f = f

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        return self.f(torch, t, y)


def lotka_volterra(xp: Any, t: Any, y: Any) -> Any:
    """Compute the derivative of prey and predators: x' = 1.5 x - x y, y' = x y - 3 y."""
    prey, predators = y[..., 0], y[..., 1]
    eaten = prey * predators
    return xp.stack((1.5 * prey - eaten, eaten - 3.0 * predators), axis=-1)


def van_der_pol(xp: Any, t: Any, y: Any) -> Any:
    """Compute the derivative of the oscillator x'' = (1 - x²) x' - x, μ = 1."""
    x, v = y[..., 0], y[..., 1]
    return xp.stack((v, (1.0 - x * x) * v - x), axis=-1)


def arenstorf(xp: Any, t: Any, y: Any) -> Any:
    """Compute the derivative for a satellite of earth and moon (Hairer, Nørsett & Wanner, Solving ODEs I, II.0)."""
    moon = 0.012277471
    earth = 1.0 - moon
    x1, x2, v1, v2 = y[..., 0], y[..., 1], y[..., 2], y[..., 3]
    d1 = ((x1 + moon) ** 2 + x2**2) ** 1.5
    d2 = ((x1 - earth) ** 2 + x2**2) ** 1.5
    a1 = x1 + 2.0 * v2 - earth * (x1 + moon) / d1 - moon * (x1 - earth) / d2
    a2 = x2 - 2.0 * v1 - earth * x2 / d1 - moon * x2 / d2
    return xp.stack((v1, v2, a1, a2), axis=-1)


def network(xp: Any, t: Any, y: Any) -> Any:
    """Compute a neural field of 8 dimensions with fixed weights and one hidden layer of 32 units; time is an input."""
    first, second, bias = map(xp.asarray, _weights())
    return xp.tanh(y @ first[:8] + t * first[8] + bias) @ second


@functools.cache
def _weights() -> tuple[Any, Any, Any]:
    rng = numpy.random.default_rng(0)
    return rng.normal(size=(9, 32)) * 0.6, rng.normal(size=(32, 8)) * 0.4, rng.normal(size=32)


PROBLEMS = (
    Problem(name="Lotka-Volterra", f=lotka_volterra, start=(1.0, 1.0), end=10.0),
    Problem(name="van der Pol, μ = 1", f=van_der_pol, start=(2.0, 0.0), end=20.0),
    Problem(
        name="Arenstorf orbit, one period",
        f=arenstorf,
        start=(0.994, 0.0, 0.0, -2.00158510637908252240537862224),
        end=17.0652165601579625588917206249,
    ),
    Problem(name="tanh network of 8 dimensions", f=network, start=(1.0, -1.0) * 4, end=5.0),
)
