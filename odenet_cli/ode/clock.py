"""Times that move: steps are plain numbers, and follow the output times of which they are fixed fractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from odenet_cli.ode.state import State, Time


@dataclass
class Clock:
    """The times of a solve whose output times have gradients.

    A solve runs over legs between two output times (one leg for an adaptive solver, one per interval for a fixed one);
    t and h of a step are constant fractions of their leg. The values stay those of the plain numbers, to the bit.

    ts, times  the output times (T,), as numbers and as a tensor with gradients
    leg        indices of the two output times between which the solve is running
    """

    ts: Sequence[float]
    times: Tensor
    leg: tuple[int, int] = (0, -1)

    def at(self, t: Time) -> Tensor:
        """t, moving with the ends of its leg."""
        i, j = self.leg
        share = (t - self.ts[i]) / (self.ts[j] - self.ts[i])
        return _valued(t, (1 - share) * self.times[i] + share * self.times[j])

    def stretched(self, slope: State) -> State:
        """The slope that makes h f(t, y) of a number h what it is when h moves with its leg."""
        i, j = self.leg
        span = self.times[j] - self.times[i]
        one = span / span.detach()
        return tuple(part * one.to(part.real.dtype) for part in slope)

    def theta(self, j: int, theta: float, h: float) -> Tensor:
        """θ of output j in a step of length h: the output moves by itself, the step with its leg."""
        i, k = self.leg
        share = (self.times[j] - self.times[i]) / (self.times[k] - self.times[i])
        return _valued(theta, share * ((self.ts[k] - self.ts[i]) / h))


def _valued(value: Time, moving: Tensor) -> Tensor:
    """`value`, with the gradients of `moving`."""
    return value + (moving - moving.detach())
