"""The loops over Runge-Kutta steps: to a tolerance, or a fixed number of them. Both yield the accepted steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NoReturn

import torch
from torch import Tensor

from odenet_cli.ode import interpolation
from odenet_cli.ode.autograd.times import TimeGradients, restrict_to_segment
from odenet_cli.ode.control import Controller, Norm, initial_step
from odenet_cli.ode.errors import NotFinite, StepLimit, StepTooSmall
from odenet_cli.ode.outputs import AcceptedStep
from odenet_cli.ode.resolution import RESOLUTION
from odenet_cli.ode.segment import Segment
from odenet_cli.ode.state import CountedField, State, VectorField, rms
from odenet_cli.ode.step import Step, interpolation_stages, rk_step
from odenet_cli.ode.tableau import Tableau
from odenet_cli.ode.transforms import is_finite
from odenet_cli.precision import EPS

StepFunction = Callable[[float, State, float, State], Step]  # (t, y, h, f0) -> Step
InitialStep = Callable[[float, State, State, float], float]  # (t, y, f0, span) -> h


@dataclass(kw_only=True)
class LoopBase:
    """Hold a solve in progress.

    vector_field    as the loop was given it; `f` is the same as the steps of the present `segment` see it
    time_gradients  make the times of steps depend on the output times in autograd's graph, where these have gradients
    n_dynamic       f is called with y[:n_dynamic] alone, the other tensors are quadratures; None: with all
    f0              derivative with which the next step begins; None: to be evaluated
    """

    vector_field: CountedField
    time_gradients: TimeGradients | None = None
    n_dynamic: int | None = None
    f0: State | None = None
    accepted: int = 0
    rejected: int = 0
    segment: Segment = field(init=False)
    f: VectorField = field(init=False)

    def enter(self, segment: Segment) -> None:
        # Once a segment, so that a step calls `f` and knows nothing of jumps and gradients of times.
        self.segment, self.f = segment, restrict_to_segment(self.vector_field, segment, self.time_gradients)


@dataclass(kw_only=True)
class AdaptiveBase(LoopBase):
    """Hold a solve to a tolerance: its settings, its counts, and the ways in which it ends in an error.

    h             length of the step to try next; None: chosen by Hairer's rule
    n_controlled  the error norm takes y[:n_controlled]; None: all
    nonfinite     the last attempt met a NaN or an infinite number
    """

    norm: Norm
    max_steps: int
    min_step: float = 0.0
    max_step: float = math.inf
    h: float | None = None
    n_controlled: int | None = None
    nonfinite: bool = False

    def spans(self, count: int) -> list[tuple[int, int]]:
        # One span from first to last: outputs between them lie inside steps, and shorten none.
        return [(0, count - 1)]

    def derivative_at(self, t: float, y: State) -> State:
        """Return f(t, y) for a step whose f0 is not known: the first one, the first after a jump, all without FSAL."""
        return self.f(t, y[: self.n_dynamic])

    def initial_step_function(self, order: int) -> InitialStep:
        """Return Hairer's rule for the length of the first step, where the error falls with h^order."""
        return partial(initial_step, order, self.f, self.norm, n_dynamic=self.n_dynamic, n_controlled=self.n_controlled)

    def checked_length(self, t: float, end: float, h: float) -> float:
        """Return the length to try, at least `min_step` and the resolution of times; raise NotFinite if it is NaN, as
        no first step was found."""
        if math.isnan(h):
            why = "" if self.norm.atol else " (with atol = 0 a component that is 0 has no tolerance: set solver.atol)"
            raise NotFinite(f"the state or the field is not finite at t = {t:.6g}, where the solve begins{why}.")
        # Only a rejection asks for less than `shortest`; what is proposed may be raised to it.
        return max(h, self.shortest(t, end))

    def shortest(self, t: float, end: float) -> float:
        """Return the length below which a step that an error asks for is refused."""
        # Of a step below 4 ulp the stages would lie at times that rounding makes the same.
        return max(self.min_step, 4 * math.ulp(max(abs(t), abs(end))))

    def fit_step(self, t: float, h: float, y: State) -> tuple[float, float, float]:
        """Return the length to try, at most `max_step`; the signed step, cut to end on the segment's end; and its end.

        Raises a SolveError rather than try a step that cannot help. One that goes all the way may be any length.
        """
        end = self.segment.end
        remaining = abs(end - t)
        small = h < min(remaining, self.shortest(t, end))
        if small or self.accepted + self.rejected >= self.max_steps:
            self._raise_no_step(t, end, h, y, small)
        h = min(h, self.max_step)
        # The last step ends on `end` itself: t + h could miss it by rounding, and leave a remainder.
        if h >= remaining:
            return h, end - t, end
        step = math.copysign(h, end - t)
        return h, step, t + step

    def _raise_no_step(self, t: float, end: float, h: float, y: State, small: bool) -> NoReturn:
        tried = f"{self.accepted} accepted and {self.rejected} rejected steps"
        limit = f"solver.min_step={self.min_step:g}" if h >= 4 * math.ulp(max(abs(t), abs(end))) else ""
        if small and self.nonfinite:
            short = f"down to {limit}" if limit else f"however short the step ({h:.2e})"
            raise NotFinite(
                f"the field or the state is NaN or infinite just after t = {t:.6g} (of {end:.6g}), {short}, "
                f"after {tried}. Look for a field that grows without bound, or lower optim.lr.{self._first_guess(h, y)}"
            )
        if small:
            asked = f"the tolerance asks for a step of {h:.2e} at t = {t:.6g} (of {end:.6g}), after {tried}"
            if limit:
                raise StepTooSmall(f"{asked}, which is below {limit}. Lower this limit, or loosen solver.rtol.")
            wider = "" if RESOLUTION[y[0].dtype] == EPS["float64"] else "use dtype=float64, "
            raise StepTooSmall(
                f"{asked}. Loosen solver.rtol, {wider}declare the times at which the field is discontinuous "
                f"(solver.jumps), or look for a field that grows without bound.{self._first_guess(h, y)}"
            )
        limit = f" (held to solver.max_step={self.max_step:g}, which may be raised)" if h > self.max_step else ""
        raise StepLimit(
            f"{tried} reached t = {t:.6g} of {end:.6g}; the step is {min(h, self.max_step):.2e}{limit}. "
            "Raise solver.max_steps, loosen solver.rtol, or look for a field that grows without bound."
            f"{self._first_guess(h, y)}"
        )

    def _first_guess(self, h: float, y: State) -> str:
        """Guess the cause without further evaluations; `odenet_cli.ode.doctor` measures it."""
        # Each is the cheapest sign of what `diagnosis/causes` measures: |y|/|f| is the time in which y doubles; of no
        # smooth field one attempt in three is rejected; and where h f is a few tolerances long, accuracy would allow a
        # longer step, so stability holds it.
        guess, tried = "", self.accepted + self.rejected
        if self.f0 is not None and self.accepted > 20:
            change = tuple(part * h for part in self.f0)
            with torch.no_grad():
                moved = self.norm.scaled_norms([change], self.norm.error_scale(y, y)[: len(change)])[0]
                doubling = rms(y) / max(rms(self.f0), 1e-300)  # 1e-300: f may be 0
            if doubling < 1e-5 * abs(self.segment.end - self.segment.start):
                guess = f"blow-up: the state doubles within {doubling:.1e}"
            elif self.rejected > self.accepted / 2:
                guess = f"a jump or noise: {self.rejected:,} of {tried:,} attempts were rejected"
            elif moved < 30.0:
                guess = (
                    f"stiff: {tried:,} steps, the last of {h:.1e}, which moves the solution by {moved:.2g} tolerances"
                )
        return f"\n  First guess: {guess}; odenet doctor measures it." if guess else ""


@dataclass(kw_only=True)
class RungeKutta(LoopBase):
    """Implement the common part of loops over Runge-Kutta steps."""

    tableau: Tableau

    def step_function(self) -> StepFunction:
        """Return a step within the present segment: `rk_step` itself, without a wrapper (a Python call per step)."""
        return partial(rk_step, self.tableau, self.f, n_dynamic=self.n_dynamic)

    def interpolate(self, accepted: AcceptedStep, thetas: Sequence[float] | Tensor) -> list[State]:
        return interpolation.interpolate(self.tableau, accepted.y, accepted.h, self._all_stages(accepted), thetas)

    def polynomial(self, accepted: AcceptedStep) -> tuple[float, list[State]]:
        k = self._all_stages(accepted)
        return accepted.t, interpolation.polynomial(self.tableau, accepted.y, accepted.h, k)

    def _all_stages(self, accepted: AcceptedStep) -> list[State]:
        """Return the stages that the dense output of the last step needs: those that are missing are evaluated, and
        the one at its end is the next step's f0."""
        k, tableau = accepted.step.k, self.tableau
        # Of fixed FSAL steps the last stage, f1, was not evaluated with the step.
        if len(k) < tableau.stages + tableau.interpolates_f1:
            self.f0 = self.f0 or self.f(accepted.end, accepted.step.y[: self.n_dynamic])
            k.append(self.f0)
        if len(k) < len(tableau.dense_rows):
            # In place: the step keeps its extra stages, whose random draws a replay has to know.
            k[:] = interpolation_stages(tableau, self.f, accepted.t, accepted.y, accepted.h, k)
        return k


@dataclass(kw_only=True)
class AdaptiveLoop(RungeKutta, AdaptiveBase):
    """Take Runge-Kutta steps as long as the tolerance allows; the last one is cut to end on the end time exactly."""

    controller: Controller

    def run(self, segment: Segment, y: State) -> Iterator[AcceptedStep]:
        self.enter(segment)
        t, end = segment.start, segment.end
        take_step, find_h = self.step_function(), self.initial_step_function(self.tableau.embedded_order + 1)
        while t != end:
            # A tuple is true unless it is empty, and a state has at least one component.
            f0 = self.f0 or self.derivative_at(t, y)
            h_next = self.checked_length(t, end, self.h or find_h(t, y, f0, segment.span_end - t))
            max_growth = math.inf
            while True:  # one attempt after the other, each with one host synchronisation: its error ratio
                h_next, h, t1 = self.fit_step(t, h_next, y)  # lengths are positive; h has the sign of time
                step = take_step(t, y, h, f0)
                ratio = self.error_ratio(y, h, step)
                factor = min(max_growth, self.controller.factor(ratio))
                if ratio <= 1.0:
                    break
                self.rejected += 1
                self.nonfinite = not math.isfinite(ratio)
                # Right after a rejection the step does not grow (Hairer II.4, below eq. 4.13).
                max_growth, h_next = 1.0, abs(h) * factor
            self.accepted += 1
            # The length of a step that was cut says nothing about the solution: go on with the one that was proposed.
            self.h = h_next if h_next > abs(h) else h_next * factor
            # f0 is set before the yield: who interpolates a step without FSAL evaluates f1, and leaves it there.
            self.f0 = step.f1
            yield AcceptedStep(t, h, t1, segment, y=y, step=step)
            t, y = t1, step.y
        if segment.ends_at_jump:
            self.f0 = None

    @torch.no_grad()
    def error_ratio(self, y: State, h: float, step: Step) -> float:
        """Return the error of a step in units of the tolerance."""
        ratio: float = self.norm.error_ratio(self.tableau, h, y, step, self.n_controlled)
        return ratio


@dataclass(kw_only=True)
class FixedLoop(RungeKutta):
    """Take `steps` equal steps a segment: between neighbouring output times."""

    steps: int

    def step_function(self) -> StepFunction:
        return partial(rk_step, self.tableau, self.f, with_f1=False, n_dynamic=self.n_dynamic)

    def spans(self, count: int) -> list[tuple[int, int]]:
        # A span between each two outputs: every output is the end of a step, and none is interpolated.
        return [(j, j + 1) for j in range(count - 1)]

    def derivative_at(self, t: float, y: State) -> State:
        return self.f(t, y[: self.n_dynamic], self.tableau.used_stages[0])

    def run(self, segment: Segment, y: State) -> Iterator[AcceptedStep]:
        self.enter(segment)
        take_step, start, end = self.step_function(), segment.start, segment.end
        h, before_end = (end - start) / self.steps, math.nextafter(end, start)
        for n in range(self.steps):
            # From the start of the segment, not by adding h up, whose rounding would grow with the number of steps.
            t, t1 = start + n * h, start + (n + 1) * h
            # The last step alone ends at `end`, where the output is: of steps below an ulp others would round to it.
            t1 = end if n == self.steps - 1 else before_end if t1 == end else t1
            # f0 is known only at t0, or where a dense solution has evaluated it. With no error to estimate, f1 of an
            # FSAL method is left to the next step: that of the last one would be for nothing.
            f0 = self.f0 or self.derivative_at(t, y)
            self.f0 = None
            step = take_step(t, y, h, f0)
            self.accepted += 1
            yield AcceptedStep(t, h, t1, segment, y=y, step=step)
            y = step.y
        # Once a segment, not once a step: each look at the device waits for it.
        if not all(map(is_finite, y)):
            raise NotFinite(
                f"the state is NaN or infinite at t = {end:.6g}, after {self.accepted} steps of {abs(h):.3g}. "
                "Take more of them (solver.steps), or look for a field that grows without bound."
            )
