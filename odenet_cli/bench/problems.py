"""Initial value problems as every library can read them: their fields are made for torch, numpy or `jax.numpy`.

A state is (1, D) or any (*S, D). `make(xp)` gives field(t, y), written with the functions of the namespace `xp`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

Function = Callable[[Any, Any], Any]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """y' = make(xp)(t, y), y(0) = start, from t = 0 to `end`."""

    name: str
    make: Callable[[Any], Function]
    start: tuple[float, ...]
    end: float


class Plain(nn.Module):
    """A function as a field without parameters."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        slope: Tensor = self.function(t, y)
        return slope


def lotka_volterra(xp: Any) -> Function:
    """Prey and predators: x' = 1.5 x - x y, y' = x y - 3 y."""

    def field(t: Any, y: Any) -> Any:
        prey, predators = y[..., 0], y[..., 1]
        met = prey * predators
        return xp.stack((1.5 * prey - met, met - 3.0 * predators), axis=-1)

    return field


def van_der_pol(xp: Any) -> Function:
    """x'' = (1 - x²) x' - x, the oscillator with μ = 1."""

    def field(t: Any, y: Any) -> Any:
        x, v = y[..., 0], y[..., 1]
        return xp.stack((v, (1.0 - x * x) * v - x), axis=-1)

    return field


def arenstorf(xp: Any) -> Function:
    """A satellite between earth and moon (Hairer, Nørsett & Wanner, Solving ODEs I, section II.0)."""
    moon = 0.012277471
    earth = 1.0 - moon

    def field(t: Any, y: Any) -> Any:
        x1, x2, v1, v2 = y[..., 0], y[..., 1], y[..., 2], y[..., 3]
        d1 = ((x1 + moon) ** 2 + x2**2) ** 1.5
        d2 = ((x1 - earth) ** 2 + x2**2) ** 1.5
        a1 = x1 + 2.0 * v2 - earth * (x1 + moon) / d1 - moon * (x1 - earth) / d2
        a2 = x2 - 2.0 * v1 - earth * x2 / d1 - moon * x2 / d2
        return xp.stack((v1, v2, a1, a2), axis=-1)

    return field


def network(xp: Any) -> Function:
    """A neural field of 8 dimensions with one hidden layer of 32, weights drawn once and for all, the time an input."""
    import numpy

    draw = numpy.random.default_rng(0)
    first, second = (xp.asarray(draw.normal(size=(9, 32)) * 0.6), xp.asarray(draw.normal(size=(32, 8)) * 0.4))
    bias = xp.asarray(draw.normal(size=32))

    def field(t: Any, y: Any) -> Any:
        return xp.tanh(y @ first[:8] + t * first[8] + bias) @ second

    return field


PROBLEMS = (
    Problem(name="Lotka-Volterra", make=lotka_volterra, start=(1.0, 1.0), end=10.0),
    Problem(name="van der Pol, μ = 1", make=van_der_pol, start=(2.0, 0.0), end=20.0),
    Problem(
        name="Arenstorf orbit, one period",
        make=arenstorf,
        start=(0.994, 0.0, 0.0, -2.00158510637908252240537862224),
        end=17.0652165601579625588917206249,
    ),
    Problem(name="tanh network of 8 dimensions", make=network, start=(1.0, -1.0) * 4, end=5.0),
)
