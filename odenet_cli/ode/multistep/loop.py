"""The loop of a multistep family: step and order as the errors of three neighbouring orders allow.

Brown, Byrne & Hindmarsh, "VODE: a variable-coefficient ODE solver", SIAM J. Sci. Stat. Comput. 10 (1989), section 3:
functional iteration, at most three evaluations an attempt, and a choice of order every few steps. Here the last step
is cut to end on the end time exactly; it costs an evaluation or two like any other, so nothing is lost by it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import torch
from torch import Tensor

from odenet_cli.ode.loop import AdaptiveBase
from odenet_cli.ode.multistep.nordsieck import (
    Formula,
    Multistep,
    Nordsieck,
    add,
    apply_correction,
    change_order,
    correction,
    interpolate,
    linear_combination,
    predict,
)
from odenet_cli.ode.outputs import AcceptedStep
from odenet_cli.ode.segment import Segment
from odenet_cli.ode.state import State
from odenet_cli.ode.step import Step

MAX_CORRECTIONS = 3  # evaluations an attempt
ITERATION_TOLERANCE = 0.1  # the iteration ends when its error is this fraction of what the step may err
MIN_STEP_GROWTH = 1.5  # a step is made longer by this factor or not at all
MAX_FIRST_GROWTH, MAX_STEP_GROWTH = 1e4, 10.0
SHRINK_AFTER_DIVERGENCE = 0.25  # the factor for a step whose iteration did not converge
BIAS_LOWER_ORDER, BIAS_SAME_ORDER, BIAS_HIGHER_ORDER = (
    6.0,
    6.0,
    10.0,
)  # how far below the tolerance the error of a changed step is aimed


@dataclass(kw_only=True)
class MultistepStep(AcceptedStep):
    """An accepted step with the array at its end.

    fresh        the array was made anew before it, from the state and its slope
    corrections  evaluations of the field
    """

    z: Nordsieck
    fresh: bool
    corrections: int


class Correction(NamedTuple):
    """An iteration that converged.

    e, y, slope  what was added to the predicted state, the corrected state, the predicted slope (times h)
    made         the slopes that were evaluated
    sizes        the error at this order and, where they were asked for, at the next lower and the next higher one
    """

    e: State
    y: State
    slope: State
    made: list[State]
    scaled_norms: ErrorNorms


class ErrorNorms(NamedTuple):
    """In units of the tolerance: how far the iteration moved, and the errors; infinite where not asked for."""

    moved: float
    error: float
    lower: float
    higher: float


@dataclass(kw_only=True)
class MultistepLoop(AdaptiveBase):
    """Each segment starts at order 1.

    z, scale  the array, and the step in whose powers it is scaled
    past      lengths of the steps behind, the last one first
    wait      steps until the order may change
    growth    largest factor for the step after this one; 1 after a failure
    before    e of the last step, its constant, and that step: what order q + 1 is judged by
    fresh     the slope with which the array was made anew since the last step, if it was
    """

    method: Multistep
    z: Nordsieck = field(default_factory=list)
    scale: float = 1.0
    past: list[float] = field(default_factory=list)
    wait: int = 2
    growth: float = MAX_FIRST_GROWTH
    before: tuple[State, float, float] | None = None
    fresh: list[State] = field(default_factory=list)

    @property
    def order(self) -> int:
        return len(self.z) - 1

    def interpolate(self, taken: AcceptedStep, thetas: Sequence[float | Tensor]) -> list[State]:
        """By the corrected polynomial of the step, which meets the states at both its ends."""
        return interpolate(cast(MultistepStep, taken).z, [theta - 1.0 for theta in thetas])

    def polynomial(self, taken: AcceptedStep) -> tuple[float, list[State]]:
        return taken.end, cast(MultistepStep, taken).z

    def run(self, segment: Segment, y: State) -> Iterator[AcceptedStep]:
        self._enter(segment)
        t, end = segment.start, segment.end
        f0, self.f0 = self.f0 or self._begin(t, y), None
        # Only a rejection asks for less than `min_step`; what is proposed may be raised to it.
        h_next = max(self.h or self._first_step_size(2, t, y, f0), self.min_step)
        self._open(y, f0, math.copysign(h_next, end - t))
        self.past, self.wait, self.growth, self.before = [], 2, MAX_FIRST_GROWTH, None
        while t != end:
            taken, h_next = self._advance(t, h_next)
            if len(self.past) == 1:
                self.h = h_next  # where the next start at order 1 may begin
            yield taken
            t = taken.end

    def _open(self, y: State, f0: State, h: float) -> None:
        self.z, self.scale, self.fresh = [y, tuple(k * h for k in f0)], h, [f0]

    def _advance(self, t: float, h_next: float) -> tuple[AcceptedStep, float]:
        """Try steps from `t` until one is accepted; returns it, and the length of the next one to try."""
        y, failures, end = self.z[0][: self.n_controlled], 0, self.segment.end
        remaining = abs(end - t)
        with torch.no_grad():
            error_scale = self.norm.error_scale(y, y)
        while True:
            self._guard(t, end, h_next, y)
            h_next = min(h_next, self.max_step)
            last = h_next >= remaining
            h = end - t if last else math.copysign(h_next, end - t)
            after = end if last else t + h
            formula = self.method.formula(distances([h, *self.past], h, self.order + 1))
            found = self._correct(after, h, formula, error_scale)
            if found is not None and found.scaled_norms.error <= 1.0:
                return self._accept(t, after, h, formula, found)
            self.rejected += 1
            self.growth = 1.0
            if found is None:
                h_next = abs(h) * SHRINK_AFTER_DIVERGENCE
                continue
            failures += 1
            if failures < 3:
                factor = max(0.1, _factor(BIAS_SAME_ORDER * found.scaled_norms.error, self.order + 1))
                h_next = abs(h) * (factor if failures == 1 else min(0.2, factor))
            else:
                h_next = abs(h) * 0.1
                self._recover(t, math.copysign(h_next, h))

    def _correct(self, t: float, h: float, formula: Formula, error_scale: State) -> Correction | None:
        """Functional iteration from the predicted state; None if it does not converge."""
        eta = h / self.scale
        near = None if self.n_dynamic is None or self.n_controlled is None else max(self.n_dynamic, self.n_controlled)
        y, slope = predict(self.z, eta, 0), predict(self.z, eta, 1)
        point, made, earlier, rate, before = y, [], None, 1.0, 0.0
        for m in range(MAX_CORRECTIONS):
            made.append(self.f(t, point[: self.n_dynamic]))
            e = correction(formula.correct, h, slope[:near], made[-1])
            scaled_norms = self._error_norms(e, earlier, h, formula, error_scale)
            self.nonfinite = not math.isfinite(scaled_norms.moved)
            if self.nonfinite or (m and scaled_norms.moved > 2.0 * before):
                return None
            rate = max(0.3 * rate, scaled_norms.moved / before) if m else rate
            if scaled_norms.moved * min(1.0, rate) * formula.error <= ITERATION_TOLERANCE:
                # What neither the field reads nor the norm judges needs the last slope only.
                rest = len(e)
                e += correction(formula.correct, h, slope[rest:], made[-1][rest:])
                return Correction(e, add(y, e), slope, made, scaled_norms)
            point, earlier, before = add(y[:near], e), e, scaled_norms.moved
        return None

    @torch.no_grad()
    def _error_norms(
        self, e: State, earlier: State | None, h: float, formula: Formula, error_scale: State
    ) -> ErrorNorms:
        """In one look at the device, whether or not the iteration will turn out to have converged."""
        e, q = e[: self.n_controlled], self.order
        asked = {"error": e}
        if earlier is not None:
            asked["moved"] = tuple(map(torch.sub, e, earlier))
        if self.wait == 1 and self.growth > 1.0:
            if q > 1:
                asked["lower"] = linear_combination([(h / self.scale) ** q, formula.correct[q]], [self.z[q], e])
            if q < self.method.max_order and self.before is not None:
                old, constant, length = self.before
                carried = formula.difference / constant * (h / length) ** (q + 1)
                if carried < min(torch.finfo(part.dtype).max for part in e):  # float16 ends at 65,504
                    asked["higher"] = tuple(torch.sub(a, b, alpha=carried) for a, b in zip(e, old))
        found = dict(zip(asked, self.norm.scaled_norms(list(asked.values()), error_scale)))
        return ErrorNorms(
            found.get("moved", found["error"]),
            formula.error * found["error"],
            formula.lower * found.get("lower", math.inf) if q > 1 else math.inf,
            formula.higher * found.get("higher", math.inf),
        )

    def _accept(
        self, t: float, end: float, h: float, formula: Formula, found: Correction
    ) -> tuple[AcceptedStep, float]:
        self.accepted += 1
        y = self.z[0]
        self.z = apply_correction(self.z, h / self.scale, formula.correct, found.y, found.slope, found.e)
        self.scale, self.past = h, [h, *self.past[: self.method.max_order]]
        step = Step(self.z[0], [*self.fresh, *found.made])
        fresh, corrections = bool(self.fresh), len(found.made)
        taken = MultistepStep(t, h, end, self.segment, y=y, step=step, z=self.z, fresh=fresh, corrections=corrections)
        self.fresh = []
        self.wait -= 1
        if self.wait == 1:
            self.before = (found.e[: self.n_controlled], formula.difference, h)
        return taken, max(abs(h) * self._choose(found, formula), self.min_step)

    def _choose(self, found: Correction, formula: Formula) -> float:
        """The factor for the next step, and the order that allows the longest one."""
        q, growth, scaled_norms, choosing = self.order, self.growth, found.scaled_norms, self.wait <= 0
        self.growth = MAX_STEP_GROWTH
        if choosing or growth <= 1.0:
            self.wait = max(self.wait, 2)
        if growth <= 1.0:
            return 1.0
        same, lower, higher = _factor(BIAS_SAME_ORDER * scaled_norms.error, q + 1), 0.0, 0.0
        if choosing:
            lower, higher = (
                _factor(BIAS_LOWER_ORDER * scaled_norms.lower, q),
                _factor(BIAS_HIGHER_ORDER * scaled_norms.higher, q + 2),
            )
        best = max(same, lower, higher)
        if best < MIN_STEP_GROWTH:
            return 1.0
        if best > same:
            up = higher > lower
            self._change_order(1.0 / (formula.difference * math.factorial(q + 1)) if up else None, found.e)
        return min(best, growth)

    def _change_order(self, up: float | None, e: State = ()) -> None:
        """Change the order, and then wait as many steps as the new formula looks back."""
        points = self.order - (2 if up is None else 1)
        self.z = change_order(
            self.z, e, self.method.order_change_polynomial(distances(self.past, self.scale, points)), up
        )
        self.wait = self.order + 1

    def _recover(self, t: float, h: float) -> None:
        """After three failures the past misleads: lower the order, at last start anew with the slope found here."""
        if self.order > 1:
            self._change_order(None)
        elif not self.fresh:
            self._open(self.z[0], self.f(t, self.z[0][: self.n_dynamic]), h)
            self.wait = 10


def distances(lengths: Sequence[float], unit: float, count: int) -> list[float]:
    """From the first point to those behind it, given the lengths between; the last length again where there is none."""
    total, made = 0.0, []
    for n in range(count):
        total += lengths[min(n, len(lengths) - 1)]
        made.append(total / unit)
    return made


def _factor(size: float, power: int) -> float:
    return 1.0 / (math.pow(size, 1.0 / power) + 1e-6)
