"""The free parameters of a parametric ODE, as one unconstrained vector.

A number x is represented by u = log(x - low) if it has a lower bound, by a logit if it has two bounds, else by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from odenet_cli.models.common.fit_keys import bounds_of, check_names, flat_names, start_of

NEAR = 1e-6  # share of the interval between bounds


class FreeVector(nn.Module):
    """Hold a field with its parameters, and the states at the beginning of series, `initial` (S, D).

    A free vector u (p + S·d,) holds the fitted parameters and then, series by series, the fitted initial states, all of
    them transformed if they have bounds: `free` (P,) and `free_states` (D,) are their masks. The others are fixed.
    """

    free: Tensor
    free_states: Tensor
    low: Tensor
    high: Tensor

    def __init__(
        self, field: nn.Module, states: Sequence[str], series: int, start: Any, bounds: Any, fixed: list[str] | None
    ) -> None:
        super().__init__()
        self.field, self.names, self.states, self.fixed = field, flat_names(field), tuple(states), fixed
        known = dict.fromkeys((*dict(field.named_parameters()), *self.states))
        check_names(known, start=start, bounds=bounds, fixed=fixed)
        self.start = start_of(field, self.states, start or {})
        # Bounds of the parameters, then of the states: (P + D,) each.
        both = bounds_of(field, self.names, self.states, bounds or {}, start or {})
        self.register_buffer("low", torch.tensor([low for low, _ in both], dtype=torch.float64), persistent=False)
        self.register_buffer("high", torch.tensor([high for _, high in both], dtype=torch.float64), persistent=False)
        self._move_inside()
        free = [name.partition("[")[0] not in (fixed or ()) for name in self.names]
        self.register_buffer("free", torch.tensor(free), persistent=False)
        self.register_buffer("free_states", torch.ones(len(self.states), dtype=torch.bool))
        self.initial = nn.Parameter(torch.zeros(series, len(self.states)))

    @torch.no_grad()
    def _move_inside(self) -> None:
        """Move parameters outside their bounds to a start between them, or near the only one."""
        x, low, high = self.natural(), self.low[: len(self.names)], self.high[: len(self.names)]
        above, below, both = _kinds(low, high)
        inside = torch.where(above, low + torch.where(low == 0, 1.0, low.abs()), x)
        inside = torch.where(below, high - torch.where(high == 0, 1.0, high.abs()), inside)
        inside = torch.where(both, (low + high) / 2, inside)
        vector_to_parameters(torch.where((low < x) & (x < high), x, inside), self.field.parameters())

    def natural(self) -> Tensor:
        """Return all parameters of the field, (P,)."""
        return parameters_to_vector(self.field.parameters()).detach()

    def count(self, problem: Any) -> int:
        return int(self.free.sum()) + len(problem.series) * int(self.free_states.sum())

    def free_names(self, series: Sequence[str]) -> list[str]:
        """Return the names of the numbers in a free vector; with several series, names of states include the series."""
        shared = [name for name, free in zip(self.names, self.free.tolist()) if free]
        states = [name for name, free in zip(self.states, self.free_states.tolist()) if free]
        return shared + [f"{state}(0)" + (f" of {s}" if len(series) > 1 else "") for s in series for state in states]

    def listing(self, series: Sequence[str], key: Callable[[str], Any]) -> list[int]:
        """Return the order of the numbers of a free vector for a reader: parameters, then series sorted by `key`."""
        p, own = int(self.free.sum()), int(self.free_states.sum())
        by_name = sorted(range(len(series)), key=lambda s: key(series[s]))
        return [*range(p), *(p + own * s + n for s in by_name for n in range(own))]

    def get_free(self, problem: Any) -> Tensor:
        return self._vector(problem, to_free)

    @torch.no_grad()
    def set_free(self, problem: Any, u: Tensor) -> None:
        theta, initial = (part[0] for part in self.split_free(problem, u[None]))
        weights = list(self.field.parameters())
        for weight, part in zip(weights, torch.split(theta, [weight.numel() for weight in weights])):
            weight.copy_(part.view_as(weight))
        self.initial[problem.series] = initial

    def split_free(self, problem: Any, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return the parameters (K, P) and the initial states (K, S, D) of free vectors (K, p + S·d)."""
        count, p = len(self.names), int(self.free.sum())
        low, high = self.low[count:][self.free_states], self.high[count:][self.free_states]
        # Numbers that are not fitted are the same in every copy.
        theta = self.natural().repeat(len(u), 1)
        theta[:, self.free] = from_free(u[:, :p], self.low[:count][self.free], self.high[:count][self.free])
        initial = self.initial.detach()[problem.series].repeat(len(u), 1, 1)
        states = u[:, p:].reshape(len(u), len(problem.series), -1)
        initial[..., self.free_states] = from_free(states, low, high)
        return theta, initial

    def slopes(self, problem: Any) -> Tensor:
        """Return the derivative of each fitted number with respect to its entry of the free vector, (p + S·d,)."""
        return self._vector(problem, derivative)

    def _vector(self, problem: Any, function: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Tensor:
        """Return `function(x, low, high)` of each fitted number x, (p + S·d,)."""
        count = len(self.names)
        shared = function(self.natural(), self.low[:count], self.high[:count])[self.free]
        states = function(self.initial.detach()[problem.series], self.low[count:], self.high[count:])
        return torch.cat((shared, states[:, self.free_states].flatten()))

    def has_bounds(self, series: int = 1) -> Tensor:
        """Return which numbers of a free vector for this number of series, (p + S·d,), are logarithms or logits."""
        return self._each(self.low.isfinite() | self.high.isfinite(), series)

    def near_bound(self, problem: Any, usual: Tensor) -> Tensor:
        """Return the bound close to each fitted number, NaN if there is none, (p + S·d,).

        Close means a share NEAR of the interval between two bounds or, for a single bound, of its distance to a `usual`
        number, (P + D,).
        """
        low, high, usual = (self._each(x, len(problem.series)) for x in (self.low, self.high, usual.double()))
        x = self._vector(problem, lambda x, *_: x)
        room = torch.where(_kinds(low, high)[2], high - low, torch.minimum((usual - low).abs(), (usual - high).abs()))
        bound = torch.where(x - low < high - x, low, high)
        return bound.where((x - bound).abs() < NEAR * torch.where(room > 0, room, 1.0), torch.nan)

    def _each(self, known: Tensor, series: int) -> Tensor:
        """Return for each number of a free vector the value for its parameter or state, (P + D,) -> (p + S·d,)."""
        names = len(self.names)
        return torch.cat((known[:names][self.free], known[names:][self.free_states].repeat(series)))


def to_free(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return u (*S) for x (*S) inside its bounds, which are infinite if there are none."""
    above, below, both = _kinds(low, high)
    u = torch.where(above, (x - low).log(), x)
    u = torch.where(below, -(high - x).log(), u)
    return torch.where(both, ((x - low) / (high - x)).log(), u)


def from_free(u: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return x (*S) for u (*S)."""
    above, below, both = _kinds(low, high)
    x = torch.where(above, low + u.exp(), u)
    x = torch.where(below, high - (-u).exp(), x)
    return torch.where(both, low + (high - low) * u.sigmoid(), x)


def derivative(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return dx/du (*S) at x (*S)."""
    above, below, both = _kinds(low, high)
    # d(low + eᵘ)/du = x - low, and of low + (high - low) σ(u) the logistic rule, both written in x.
    slope = torch.where(above, x - low, torch.where(below, high - x, torch.ones_like(x)))
    return torch.where(both, (x - low) * (high - x) / (high - low), slope)


def _kinds(low: Tensor, high: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return masks of the numbers bounded only below, only above, and on both sides."""
    has_low, has_high = low.isfinite(), high.isfinite()
    return has_low & ~has_high, has_high & ~has_low, has_low & has_high
