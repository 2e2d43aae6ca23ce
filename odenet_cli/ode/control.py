"""Step sizes: the weighted error norm, the controllers, and the first step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from odenet_cli.ode.resolution import RESOLUTION
from odenet_cli.ode.state import State, Time, VectorField, norms


def error_scale(y: State, y1: State, rtol: Time, atol: Time) -> State:
    """atol + rtol max(|y|, |y1|), number by number (Hairer II.4, eq. 4.10).

    No error below the resolution of its dtype is asked of a number: it would be that of rounding."""
    made = []
    for low, high in zip(y, y1):
        size = low.abs() if high is low else torch.maximum(low.abs(), high.abs())
        eps = RESOLUTION[low.dtype]
        made.append(size.mul_(rtol.clamp(min=eps) if isinstance(rtol, Tensor) else max(rtol, eps)).add_(atol))
    return tuple(made)


Groups = Sequence[tuple[slice, float]]


@dataclass(frozen=True)
class Norm:
    """Size in units of `atol + rtol |y|`: the root mean square over all numbers (Hairer II.4, eq. 4.11).

    groups  ranges of components with a factor for their atol; then the size is that of the largest group
    """

    rtol: float
    atol: float
    groups: Callable[[], Groups] = lambda: ((slice(None), 1.0),)

    def __call__(self, x: State, y: State, y1: State) -> float:
        """The size of `x` around `y` and `y1`; one host synchronisation."""
        return self.scaled_norms([x], self.error_scale(y, y1))[0]

    def error_scale(self, y: State, y1: State) -> State:
        """What is allowed around `y` and `y1`."""
        groups = [error_scale(y[group], y1[group], self.rtol, self.atol * factor) for group, factor in self.groups()]
        return tuple(part for group in groups for part in group)

    def scaled_norms(self, states: Sequence[State], error_scale: State, largest: State | None = None) -> list[float]:
        """The sizes of several states in units of the same tolerances and, behind them, the largest number of another
        one as it is; one host synchronisation for all."""
        groups = [group for group, _ in self.groups()]
        scaled = [tuple(map(torch.div, state, error_scale)) for state in states]
        parts = [state[group] for state in scaled for group in groups]
        others = [] if largest is None else [largest]
        found = norms([*parts, *others], [2.0] * len(parts) + [math.inf] * len(others))
        rows = [found[n : n + len(groups)] for n in range(0, len(parts), len(groups))]
        # max() would pass over a NaN.
        return [*(sum(row) if any(size != size for size in row) else max(row) for row in rows), *found[len(parts) :]]


GAINS = {"I": (1.0, 0.0, 0.0), "PI": (0.7, -0.4, 0.0), "PID": (0.7, -0.4, 0.1)}
"""Exponents of the last three error ratios, times -1/(q+1): I, PI.4.7 (Hairer & Wanner IV.2), PID (Söderlind 2003)."""


@dataclass(unsafe_hash=True)
class Controller:
    """Proposes how the step should change, from the error ratios of the steps accepted so far.

    order  q + 1, the power of h with which the error estimate falls: q is the lower order of the pair
    """

    order: int
    kind: str = "I"
    safety: float = 0.9
    shrink: float = 0.2
    grow: float = 10.0
    past: tuple[float, float] = field(default=(1.0, 1.0), hash=False, compare=False)

    def factor(self, ratio: float) -> float:
        """The factor for the next step after an error of `ratio` tolerances (accepted if at most 1)."""
        if not math.isfinite(ratio):
            return self.shrink
        ratio = max(ratio, 1e-10)
        if ratio > 1.0:
            return max(self.shrink, self.safety * math.exp(-math.log(ratio) / self.order))
        gains = GAINS[self.kind]
        logs = sum(gain * math.log(r) for gain, r in zip(gains, (ratio, *self.past)) if gain)
        self.past = (ratio, self.past[0])
        return min(self.grow, max(self.shrink, self.safety * math.exp(-logs / self.order)))


def initial_step(
    order: int,
    evaluate: VectorField,
    norm: Norm,
    t: float,
    y: State,
    slope: State,
    span: float,
    n_dynamic: int | None,
    n_controlled: int | None = None,
) -> float:
    """Length of the first step, by one extra evaluation (Hairer II.4, p. 169).

    The error falls with h^order; `span` is t1 - t."""
    known = y[:n_controlled]
    d0, d1 = norm(known, known, known), norm(slope[:n_controlled], known, known)
    if not math.isfinite(d0 + d1):
        return math.nan
    h0 = min(1e-6 if d0 < 1e-5 or d1 < 1e-5 else 0.01 * d0 / d1, abs(span))

    signed = math.copysign(h0, span)
    probe = tuple(torch.add(part, k, alpha=signed) for part, k in zip(y[:n_dynamic], slope))
    slope1 = evaluate(t + signed, probe)
    d2 = norm(tuple(k1 - k for k1, k in zip(slope1, slope[:n_controlled])), known, known) / h0

    steepest = max(d1, d2) if math.isfinite(d2) else math.inf
    h1 = max(1e-6, 1e-3 * h0) if steepest <= 1e-15 else (0.01 / steepest) ** (1.0 / order)
    return min(100.0 * h0, h1 or h0, abs(span))
