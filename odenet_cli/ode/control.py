"""Step sizes: the error norm, the first step and the controller.

Each is written once. `scalars` says whether its numbers are floats on the host or 0-d tensors in a compiled kernel.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode.resolution import RESOLUTION
from odenet_cli.ode.scalars import Host, Scalar
from odenet_cli.ode.state import State, VectorField, combine, norms
from odenet_cli.ode.step import Step, error_estimates
from odenet_cli.ode.tableau import OneStepMethod

Groups = Sequence[tuple[slice, Scalar]]


def error_scale(y: State, y1: State, rtol: Scalar, atol: Scalar) -> State:
    """Return atol + rtol max(|y|, |y1|), number by number (Hairer II.4, eq. 4.10).

    rtol is at least the resolution of a component's dtype: a smaller error would be that of rounding.
    """
    scale = []
    for low, high in zip(y, y1):
        # The same tensor twice, as in Hairer's rule for the first step, needs no maximum.
        size = low.abs() if high is low else torch.maximum(low.abs(), high.abs())
        eps = RESOLUTION[low.dtype]
        # Not in place: under forward mode in forward mode `size` may lack a batch of tangents that its own tangent has.
        scale.append(size * (rtol.clamp(min=eps) if isinstance(rtol, Tensor) else max(rtol, eps)) + atol)
    return tuple(scale)


@dataclass(frozen=True)
class Norm:
    """Measure errors in units of `atol + rtol |y|`: the root mean square over all numbers (Hairer II.4, eq. 4.11).

    groups   ranges of components with a factor for their atol; the norm is then that of the largest group
    scalars  `Host` or `Device`
    """

    rtol: Scalar
    atol: Scalar
    groups: Callable[[], Groups] = lambda: ((slice(None), 1.0),)
    scalars: Any = Host

    def error_scale(self, y: State, y1: State) -> State:
        """Return the error allowed around `y` and `y1`."""
        groups = [error_scale(y[group], y1[group], self.rtol, self.atol * factor) for group, factor in self.groups()]
        return tuple(part for group in groups for part in group)

    def scaled_norms(self, states: Sequence[State], error_scale: State, largest: State | None = None) -> list[Scalar]:
        """Return the norms of several states over the same scale and, behind them, the largest number of `largest` as
        it is; one host synchronisation for all."""
        groups = [group for group, _ in self.groups()]
        scaled = [tuple(map(torch.div, state, error_scale)) for state in states]
        parts = [state[group] for state in scaled for group in groups]
        unscaled = [] if largest is None else [largest]
        # One number for each state and group, and the largest last: all of them cross to the host together.
        values = norms([*parts, *unscaled], [2.0] * len(parts) + [math.inf] * len(unscaled), self.scalars)
        rows = [values[n : n + len(groups)] for n in range(0, len(parts), len(groups))]
        return [*(functools.reduce(self.scalars.maximum, row) for row in rows), *values[len(parts) :]]

    def error_ratio(self, tableau: OneStepMethod, h: Any, y: State, step: Step, n_controlled: int | None) -> Scalar:
        """Return a step's error in units of the tolerance: it is accepted where this is at most 1."""
        scale = self.error_scale(y[:n_controlled], step.y[:n_controlled])
        return self.combine(*self.scaled_norms(error_estimates(tableau, h, step.k, n_controlled), scale))

    def combine(self, error: Scalar, error_3: Scalar | None = None) -> Scalar:
        """Return e, or for the two estimates of DOP853 e² / √(e² + 0.01 e₃²) (Hairer II.10)."""
        if error_3 is None:
            return error
        # `where` takes both branches: where both estimates are 0 the quotient is kept from being 0/0.
        scale = self.scalars.sqrt(error * error + 0.01 * error_3 * error_3)
        return self.scalars.where(error_3 == 0.0, error, error * error / self.scalars.maximum(scale, 1e-300))


def initial_step(
    order: int,
    f: VectorField,
    norm: Norm,
    t: Scalar,
    y: State,
    f0: State,
    span: Scalar,
    n_dynamic: int | None,
    n_controlled: int | None = None,
) -> Scalar:
    """Return the length of the first step, found by one extra evaluation (Hairer II.4, p. 169); NaN where the state or
    the field is not finite.

    The error falls with h^order; `span` is t1 - t.
    """
    # The length of a step is a number to autograd, in whatever mode the solve runs.
    with torch.no_grad():
        scalars, known, slope = norm.scalars, y[:n_controlled], f0[:n_controlled]
        scale = norm.error_scale(known, known)
        # (a) of the rule: d0 = ‖y0‖ and d1 = ‖f(t0, y0)‖, in units of the tolerance.
        d0, d1 = norm.scaled_norms([known, slope], scale)
        if isinstance(d0, float) and not math.isfinite(d0 + d1):
            return math.nan

        # (b) h0 = 0.01 d0 / d1:
        # A step that changes y by 1 % of its size; the divisors are kept off 0 where their quotient is not used.
        h0 = scalars.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / scalars.maximum(d1, 1e-5))
        h0 = scalars.minimum(h0, abs(span))

        # (c, d) An explicit Euler step of h0, and d2 = ‖f(t0 + h0, y0 + h0 f0) - f0‖ / h0:
        # The second derivative, from the change of f along that step.
        dt = scalars.copysign(h0, span)
        f1 = f(t + dt, combine(y[:n_dynamic], dt, ((0, 1.0),), [f0]))
        change = tuple(after - before for after, before in zip(f1, slope))
        d2 = norm.scaled_norms([change], scale)[0] / h0

        # (e) h1^(p+1) max(d1, d2) = 0.01, where p + 1 is `order`:
        # The larger derivative decides: with it the local error of the first step is about 0.01 tolerances.
        steepest = scalars.where(scalars.isfinite(d2), scalars.maximum(d1, d2), math.inf)
        h1 = (0.01 / scalars.maximum(steepest, 1e-15)) ** (1.0 / order)
        # Where nothing changes the rule has nothing to go by. Where d2 overflowed, h1 is 0, and h0 stands.
        h1 = scalars.where(steepest <= 1e-15, scalars.maximum(1e-3 * h0, 1e-6), h1)
        h1 = scalars.where(h1 == 0.0, h0, h1)
        # (f) At most 100 h0: the derivatives were seen no farther away than h0.
        h = scalars.minimum(scalars.minimum(100.0 * h0, h1), abs(span))
        return scalars.where(scalars.isfinite(d0 + d1), h, math.nan)


GAINS = {"I": (1.0, 0.0, 0.0), "PI": (0.7, -0.4, 0.0), "PID": (0.7, -0.4, 0.1)}
"""Exponents of the last three error ratios, times -1/(q+1): I, PI.4.7 (Hairer & Wanner IV.2), PID (Söderlind 2003)."""


@dataclass(unsafe_hash=True)
class Controller:
    """Propose how the step should change, from the error ratios of the steps accepted so far.

    order  q + 1, the power of h with which the error estimate falls: q is the lower order of the pair
    past   the last two accepted error ratios
    """

    order: int
    kind: str = "I"
    safety: float = 0.9
    min_factor: float = 0.2
    max_factor: float = 10.0
    past: tuple[float, float] = field(default=(1.0, 1.0), hash=False, compare=False)

    def factor(self, ratio: float) -> float:
        """Return the factor for the next step after an error of `ratio` tolerances (accepted if at most 1)."""
        # A rejected step says how much too long it was, and nothing about a trend.
        if not ratio <= 1.0:
            return float(self.integral_factor(ratio))
        # An error of 0 has no logarithm.
        ratio = max(ratio, 1e-10)
        # h_new = h · safety · Π r_i^(-gain_i / (q+1)), the product over this error ratio and those before it.
        logs = sum(gain * math.log(r) for gain, r in zip(GAINS[self.kind], (ratio, *self.past)) if gain)
        self.past = (ratio, self.past[0])
        return float(self._limited(logs))

    def integral_factor(self, ratio: Scalar, scalars: Any = Host) -> Scalar:
        """Return the factor after one step alone, as the I controller has it; a NaN shrinks the step at most."""
        logs = scalars.log(scalars.maximum(ratio, 1e-10))
        return scalars.where(scalars.isfinite(ratio), self._limited(logs, scalars), self.min_factor)

    def _limited(self, logs: Scalar, scalars: Any = Host) -> Scalar:
        # Hairer II.4, eq. 4.13: an estimate is good for a step of similar length, so the factor has bounds on both
        # sides.
        factor = self.safety * scalars.exp(-logs / self.order)
        return scalars.minimum(scalars.maximum(factor, self.min_factor), self.max_factor)
