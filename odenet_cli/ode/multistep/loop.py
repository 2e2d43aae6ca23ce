"""The loop of a multistep family: step size and order are chosen by the errors of three neighbouring orders.

Brown, Byrne & Hindmarsh, "VODE: a variable-coefficient ODE solver", SIAM J. Sci. Stat. Comput. 10 (1989), section 3:
functional iteration, at most three evaluations per attempt, and a choice of order every few steps. Unlike there, the
last step is shortened to end exactly at the end time; it costs an evaluation or two, like any other step.
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
ITERATION_TOLERANCE = 0.1  # the iteration ends when its error is this fraction of the step's tolerance
MIN_STEP_GROWTH = 1.5  # smaller increases of the step are not made
MAX_FIRST_GROWTH, MAX_STEP_GROWTH = 1e4, 10.0
SHRINK_AFTER_DIVERGENCE = 0.25  # the factor for a step whose iteration did not converge
# The predicted error of a changed step is multiplied by this, depending on its order, as a margin (VODE).
BIAS_LOWER_ORDER, BIAS_SAME_ORDER, BIAS_HIGHER_ORDER = 6.0, 6.0, 10.0


@dataclass(kw_only=True)
class MultistepStep(AcceptedStep):
    """Hold an accepted step with the array at its end.

    restarted  whether the array was rebuilt before the step from the state and its derivative, the first of the stages
    """

    z: Nordsieck
    restarted: bool


class Errors(NamedTuple):
    """Hold norms in units of the tolerance, infinite where not asked for.

    change  change of the state in the last iteration
    same    error at this order; `lower` and `higher` at the neighbouring orders
    """

    change: float
    same: float
    lower: float
    higher: float


class Correction(NamedTuple):
    """Hold a converged iteration.

    e, y           correction added to the predicted state, and the corrected state
    predicted_hdy  predicted h y'
    k              evaluated derivatives
    """

    e: State
    y: State
    predicted_hdy: State
    k: list[State]
    errors: Errors


class Previous(NamedTuple):
    """Hold e of the last step, its error constant and its length, for the error estimate of order q + 1."""

    e: State
    difference: float
    h: float


@dataclass(kw_only=True)
class MultistepLoop(AdaptiveBase):
    """Take steps of variable length and order. Each segment starts at order 1.

    z, scale    Nordsieck array, and the step size in whose powers it is scaled
    past        lengths of the previous steps, the last one first
    wait        number of steps until the order may change
    max_growth  largest factor for the next step; 1 after a failure
    previous    data of the last step for a higher order
    restart_f0  the derivative from which the array was rebuilt since the last step, if it was
    """

    method: Multistep
    z: Nordsieck = field(default_factory=list)
    scale: float = 1.0
    past: list[float] = field(default_factory=list)
    wait: int = 2
    max_growth: float = MAX_FIRST_GROWTH
    previous: Previous | None = None
    restart_f0: list[State] = field(default_factory=list)

    @property
    def order(self) -> int:
        return len(self.z) - 1

    def interpolate(self, accepted: AcceptedStep, thetas: Sequence[float] | Tensor) -> list[State]:
        """Return the corrected polynomial of the step, which meets the states at both its ends."""
        xs = thetas - 1.0 if isinstance(thetas, Tensor) else [theta - 1.0 for theta in thetas]
        return interpolate(cast(MultistepStep, accepted).z, xs)

    def polynomial(self, accepted: AcceptedStep) -> tuple[float, list[State]]:
        return accepted.end, cast(MultistepStep, accepted).z

    def run(self, segment: Segment, y: State) -> Iterator[AcceptedStep]:
        self.enter(segment)
        t, end = segment.start, segment.end
        f0, self.f0 = self.f0 or self.derivative_at(t, y), None
        find_h = self.initial_step_function(2)  # at order 1 the error falls with h²
        h_next = self.checked_length(t, end, self.h or find_h(t, y, f0, segment.span_end - t))
        self._restart(y, f0, math.copysign(h_next, end - t))
        # The history before a jump does not apply after it, so every segment starts at order 1.
        self.past, self.wait, self.max_growth, self.previous = [], 2, MAX_FIRST_GROWTH, None
        while t != end:
            accepted, h_next = self._advance(t, h_next)
            if len(self.past) == 1:
                self.h = h_next  # where the next start at order 1 may begin
            yield accepted
            t = accepted.end

    def _restart(self, y: State, f0: State, h: float) -> None:
        self.z, self.scale, self.restart_f0 = [y, tuple(dy * h for dy in f0)], h, [f0]

    def _advance(self, t: float, h_next: float) -> tuple[AcceptedStep, float]:
        """Try steps from `t` until one is accepted; return it, and the length of the next one to try."""
        # z_0 is the state itself.
        y, failures = self.z[0][: self.n_controlled], 0
        with torch.no_grad():
            error_scale = self.norm.error_scale(y, y)
        while True:
            h_next, h, t1 = self.fit_step(t, h_next, y)
            # Variable coefficients: the formula is computed for the actual grid, not interpolated from equal steps.
            formula = self.method.formula(distances([h, *self.past], h, self.order + 1))
            corrected = self._correct(t1, h, formula, error_scale)
            if corrected is not None and corrected.errors.same <= 1.0:
                return self._accept(t, t1, h, formula, corrected)
            self.rejected += 1
            self.max_growth = 1.0
            if corrected is None:
                h_next = abs(h) * SHRINK_AFTER_DIVERGENCE
                continue
            # First failure: use the estimate. Second: shrink at least fivefold. Third: discard history.
            failures += 1
            if failures < 3:
                factor = max(0.1, _factor(BIAS_SAME_ORDER * corrected.errors.same, self.order + 1))
                h_next = abs(h) * (factor if failures == 1 else min(0.2, factor))
            else:
                h_next = abs(h) * 0.1
                self._recover(t, math.copysign(h_next, h))

    def _correct(self, t: float, h: float, formula: Formula, error_scale: State) -> Correction | None:
        """Iterate from the predicted state to that whose derivative is f; return None if that does not converge."""
        # The array is scaled by the length of the last step; predicted, it is scaled by that of this one.
        eta = h / self.scale
        # Iterate only the components on which f depends or that the norm controls; others need the last derivative
        # only.
        iterated = (
            None if self.n_dynamic is None or self.n_controlled is None else max(self.n_dynamic, self.n_controlled)
        )
        y, predicted_hdy = predict(self.z, eta, 0), predict(self.z, eta, 1)
        iterate, k, e_before, rate, change_before = y, [], None, 1.0, 0.0
        for m in range(MAX_CORRECTIONS):
            k.append(self.f(t, iterate[: self.n_dynamic]))
            # Functional iteration: no Jacobian is needed, so the methods are for problems that are not stiff.
            e = correction(formula.correct, h, predicted_hdy[:iterated], k[-1])
            errors = self._errors(e, e_before, h, formula, error_scale)
            self.nonfinite = not math.isfinite(errors.change)
            # Changes that more than double: the iteration diverges, since the step is too long.
            if self.nonfinite or (m and errors.change > 2.0 * change_before):
                return None
            # Estimated rate of convergence; damped, since two iterations estimate it poorly (VODE).
            rate = max(0.3 * rate, errors.change / change_before) if m else rate
            if errors.change * min(1.0, rate) * formula.error <= ITERATION_TOLERANCE:
                rest = len(e)
                e = (*e, *correction(formula.correct, h, predicted_hdy[rest:], k[-1][rest:]))
                return Correction(e, add(y, e), predicted_hdy, k, errors)
            iterate, e_before, change_before = add(y[:iterated], e), e, errors.change
        return None

    @torch.no_grad()
    def _errors(self, e: State, e_before: State | None, h: float, formula: Formula, error_scale: State) -> Errors:
        """Return all norms with one synchronisation, before it is known whether the iteration has converged."""
        # Every estimate that the choice of order may need, as one read costs less than three.
        e, q = e[: self.n_controlled], self.order
        states = {"same": e}
        if e_before is not None:
            states["change"] = tuple(map(torch.sub, e, e_before))
        if self.wait == 1 and self.max_growth > 1.0:
            # z_q after this step: predicted η^q z_q plus l_q e. The error of order q - 1 is a multiple of it.
            if q > 1:
                states["lower"] = linear_combination([(h / self.scale) ** q, formula.correct[q]], [self.z[q], e])
            if q < self.method.max_order and self.previous is not None:
                # e = difference h^(q+1) y^(q+1). Less the last e, rescaled to this step, it holds one derivative more.
                carried = formula.difference / self.previous.difference * (h / self.previous.h) ** (q + 1)
                if carried < min(torch.finfo(part.dtype).max for part in e):  # float16 ends at 65,504
                    states["higher"] = tuple(torch.sub(a, b, alpha=carried) for a, b in zip(e, self.previous.e))
        norms = dict(zip(states, self.norm.scaled_norms(list(states.values()), error_scale)))
        return Errors(
            norms.get("change", norms["same"]),
            formula.error * norms["same"],
            formula.lower * norms.get("lower", math.inf) if q > 1 else math.inf,
            formula.higher * norms.get("higher", math.inf),
        )

    def _accept(
        self, t: float, end: float, h: float, formula: Formula, corrected: Correction
    ) -> tuple[AcceptedStep, float]:
        self.accepted += 1
        y = self.z[0]
        self.z = apply_correction(
            self.z, h / self.scale, formula.correct, corrected.y, corrected.predicted_hdy, corrected.e
        )
        # The formula of the highest order looks back over as many points.
        self.scale, self.past = h, [h, *self.past[: self.method.max_order]]
        step, restarted = Step(self.z[0], [*self.restart_f0, *corrected.k]), bool(self.restart_f0)
        accepted = MultistepStep(t, h, end, self.segment, y=y, step=step, z=self.z, restarted=restarted)
        self.restart_f0 = []
        self.wait -= 1
        # The step before the order may change: kept for the estimate of order q + 1.
        if self.wait == 1:
            self.previous = Previous(corrected.e[: self.n_controlled], formula.difference, h)
        return accepted, max(abs(h) * self._choose(corrected, formula), self.min_step)

    def _choose(self, corrected: Correction, formula: Formula) -> float:
        """Change to the order that allows the longest next step, and return the factor for it."""
        # After a decision or a failure the order is reconsidered two steps later at the earliest.
        q, growth, errors, may_change = self.order, self.max_growth, corrected.errors, self.wait <= 0
        self.max_growth = MAX_STEP_GROWTH
        if may_change or growth <= 1.0:
            self.wait = max(self.wait, 2)
        if growth <= 1.0:
            return 1.0
        # The order that allows the longest step wins; an error of order p falls with h^(p+1).
        same, lower, higher = _factor(BIAS_SAME_ORDER * errors.same, q + 1), 0.0, 0.0
        if may_change:
            lower = _factor(BIAS_LOWER_ORDER * errors.lower, q)
            higher = _factor(BIAS_HIGHER_ORDER * errors.higher, q + 2)
        best = max(same, lower, higher)
        # A changed step changes the formula, which costs accuracy and work: not worth it for a small gain.
        if best < MIN_STEP_GROWTH:
            return 1.0
        if best > same:
            up = higher > lower
            # z_(q+1) = h^(q+1) y^(q+1) / (q+1)!, and e is `difference` times the numerator.
            self._change_order(1.0 / (formula.difference * math.factorial(q + 1)) if up else None, corrected.e)
        return min(best, growth)

    def _change_order(self, up: float | None, e: State = ()) -> None:
        """Change the order, and keep it for as many steps as the new formula uses."""
        points = self.order - (2 if up is None else 1)
        polynomial = self.method.order_change_polynomial(distances(self.past, self.scale, points))
        self.z = change_order(self.z, e, polynomial, up)
        self.wait = self.order + 1

    def _recover(self, t: float, h: float) -> None:
        """Lower the order after three failures, since the history misleads; at order 1 restart with f at this point."""
        if self.order > 1:
            self._change_order(None)
        elif not self.restart_f0:
            self._restart(self.z[0], self.f(t, self.z[0][: self.n_dynamic]), h)
            self.wait = 10


def distances(lengths: Sequence[float], unit: float, count: int) -> list[float]:
    """Return the distances from the first point to `count` previous ones, given the lengths between them; missing
    lengths are the last one."""
    total, result = 0.0, []
    for n in range(count):
        total += lengths[min(n, len(lengths) - 1)]
        result.append(total / unit)
    return result


def _factor(error: float, power: int) -> float:
    # The longest step, in units of this one, whose error of h^power is 1; 1e-6 bounds it where the error is 0 (VODE).
    return 1.0 / (math.pow(error, 1.0 / power) + 1e-6)
