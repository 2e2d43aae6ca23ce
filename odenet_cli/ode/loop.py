"""The loops over steps: adaptive and fixed. Both yield the accepted steps and keep what opens the next one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import torch

from odenet_cli.ode import interpolation
from odenet_cli.ode.autograd.times import TimeGradients, restrict_to_segment
from odenet_cli.ode.control import Controller, Norm, initial_step
from odenet_cli.ode.errors import NotFinite, StepLimit, StepTooSmall
from odenet_cli.ode.outputs import AcceptedStep
from odenet_cli.ode.resolution import RESOLUTION
from odenet_cli.ode.segment import Segment
from odenet_cli.ode.state import CountedField, State, Time, VectorField
from odenet_cli.ode.step import Step, errors, interpolation_stages, rk_step
from odenet_cli.ode.tableau import Tableau
from odenet_cli.ode.transforms import is_finite
from odenet_cli.precision import EPS


@dataclass(kw_only=True)
class Loop:
    """A solve in progress.

    time_gradients       makes times move, where they have gradients
    feeds       how many leading components the field reads; None: all
    opening     the slope that opens the next step; None: to be evaluated
    segment, f  the present one, and the field as its steps see it
    """

    evaluate: CountedField
    time_gradients: TimeGradients | None = None
    n_dynamic: int | None = None
    f0: State | None = None
    accepted: int = 0
    rejected: int = 0
    segment: Segment = field(init=False)
    f: VectorField = field(init=False)

    def _enter(self, segment: Segment) -> None:
        self.segment, self.f = segment, restrict_to_segment(self.evaluate, segment, self.time_gradients)


@dataclass(kw_only=True)
class AdaptiveBase(Loop):
    """A solve to a tolerance: its settings, its counts, and the ways in which it ends in an error.

    h       the step to try next; None: chosen by Hairer's rule
    judged  how many leading components the error norm judges; None: all
    """

    norm: Norm
    max_steps: int
    min_step: float = 0.0
    max_step: float = math.inf
    h: float | None = None
    n_controlled: int | None = None
    nonfinite: bool = False

    def spans(self, count: int) -> list[tuple[int, int]]:
        return [(0, count - 1)]

    def _begin(self, t: float, y: State) -> State:
        """The slope with which a solve begins."""
        return self.f(t, y[: self.n_dynamic])

    def _initial_step(self, order: int, t: float, span: float, y: State, f0: State) -> float:
        with torch.no_grad():
            return initial_step(order, self.f, self.norm, t, y, f0, span, self.n_dynamic, self.n_controlled)

    def _first_step_size(self, order: int, t: float, y: State, f0: State) -> float:
        """The first step to try, where the error falls with h^order."""
        h = self._initial_step(order, t, self.segment.run_end - t, y, f0)
        if math.isnan(h):
            why = "" if self.norm.atol else " (with atol = 0 a component that is 0 has no tolerance: set solver.atol)"
            raise NotFinite(f"the state or the field is not finite at t = {t:.6g}, where the solve begins{why}.")
        return h

    def _guard(self, t: float, end: float, h: float, y: State) -> None:
        """Refuse a step that cannot help. A step as long as the way that is left may be as short as that."""
        small = h < min(abs(end - t), max(self.min_step, 4 * math.ulp(max(abs(t), abs(end)))))
        if small or self.accepted + self.rejected >= self.max_steps:
            self._raise_no_step(t, end, h, y, small)

    def _raise_no_step(self, t: float, end: float, h: float, y: State, small: bool) -> NoReturn:
        tried = f"{self.accepted} accepted and {self.rejected} rejected steps"
        held = f"solver.min_step={self.min_step:g}" if h >= 4 * math.ulp(max(abs(t), abs(end))) else ""
        if small and self.nonfinite:
            short = f"down to {held}" if held else f"however short the step ({h:.2e})"
            raise NotFinite(
                f"the field or the state is NaN or infinite just after t = {t:.6g} (of {end:.6g}), {short}, "
                f"after {tried}. Look for a field that grows without bound, or lower optim.lr."
            )
        if small:
            asked = f"the tolerance asks for a step of {h:.2e} at t = {t:.6g} (of {end:.6g}), after {tried}"
            if held:
                raise StepTooSmall(f"{asked}, and {held} allows none so short. Lower it, or loosen solver.rtol.")
            wider = "" if RESOLUTION[y[0].dtype] == EPS["float64"] else "use dtype=float64, "
            raise StepTooSmall(
                f"{asked}. Loosen solver.rtol, {wider}declare the times at which the field jumps (solver.jumps), "
                "or look for a field that grows without bound."
            )
        held = f" (held to solver.max_step={self.max_step:g}, which may be raised)" if h > self.max_step else ""
        raise StepLimit(
            f"{tried} reached t = {t:.6g} of {end:.6g}; the step is {min(h, self.max_step):.2e}{held}. "
            "Raise solver.max_steps, loosen solver.rtol, or look for a field that grows without bound."
        )


@dataclass(kw_only=True)
class AdaptiveLoop(AdaptiveBase):
    """Runge-Kutta steps as long as the tolerance allows; the last one is cut to land on the end time exactly."""

    tableau: Tableau
    controller: Controller

    def interpolate(self, taken: AcceptedStep, thetas: Sequence[Time]) -> list[State]:
        return interpolation.interpolate(self.tableau, taken.y, taken.h, complete_stages(self, taken), thetas)

    def polynomial(self, taken: AcceptedStep) -> tuple[float, list[State]]:
        return taken.t, interpolation.polynomial(self.tableau, taken.y, taken.h, complete_stages(self, taken))

    def run(self, segment: Segment, y: State) -> Iterator[AcceptedStep]:
        self._enter(segment)
        t = segment.start
        while t != segment.end:
            f0 = self.f0 or self._begin(t, y)
            taken = self._advance(t, y, f0)
            self.f0 = taken.step.f1
            yield taken
            t, y = taken.end, taken.step.y
        if segment.ends_at_jump:
            self.f0 = None

    def _advance(self, t: float, y: State, f0: State) -> AcceptedStep:
        """Try steps from `t` until one is accepted."""
        order, end = self.tableau.embedded_order + 1, self.segment.end
        remaining = abs(end - t)
        # Only a rejection asks for less than `min_step`; what is proposed may be raised to it.
        h_next = max(self.h or self._first_step_size(order, t, y, f0), self.min_step)
        grow = math.inf
        while True:
            self._guard(t, end, h_next, y)
            h_next = min(h_next, self.max_step)
            last = h_next >= remaining
            h = end - t if last else math.copysign(h_next, end - t)
            step, ratio = self._attempt(t, y, h, f0)
            factor = min(grow, self.controller.factor(ratio))
            if ratio <= 1.0:
                self.accepted += 1
                # A cut step says nothing about the solution: keep the one that was wanted before the cut.
                self.h = h_next if h_next > remaining else h_next * factor
                return AcceptedStep(t, h, end if last else t + h, self.segment, y=y, step=step)
            self.rejected += 1
            grow = 1.0  # right after a rejection the step does not grow (Hairer II.4, below eq. 4.13)
            self.nonfinite = not math.isfinite(ratio)
            h_next = abs(h) * factor

    def _attempt(self, t: float, y: State, h: float, f0: State) -> tuple[Step, float]:
        """A step, and its error in units of the tolerance; one host synchronisation."""
        step = rk_step(self.tableau, self.f, t, y, h, f0, n_dynamic=self.n_dynamic)
        with torch.no_grad():
            error_scale = self.norm.error_scale(y[: self.n_controlled], step.y[: self.n_controlled])
            return step, error_ratio(
                *self.norm.scaled_norms(errors(self.tableau, h, step.k, self.n_controlled), error_scale)
            )


def error_ratio(size: float, coarse: float = 0.0) -> float:
    """Of two error estimates e and e₃ that which DOP853 goes by, e² / √(e² + 0.01 e₃²) (Hairer II.10)."""
    return size * size / math.sqrt(size * size + 0.01 * coarse * coarse) if coarse else size


@dataclass(kw_only=True)
class FixedLoop(Loop):
    """`steps` equal steps a segment: between neighbouring output times."""

    tableau: Tableau
    steps: int

    def spans(self, count: int) -> list[tuple[int, int]]:
        return [(j, j + 1) for j in range(count - 1)]

    def interpolate(self, taken: AcceptedStep, thetas: Sequence[Time]) -> list[State]:
        return interpolation.interpolate(self.tableau, taken.y, taken.h, complete_stages(self, taken), thetas)

    def polynomial(self, taken: AcceptedStep) -> tuple[float, list[State]]:
        return taken.t, interpolation.polynomial(self.tableau, taken.y, taken.h, complete_stages(self, taken))

    def run(self, segment: Segment, y: State) -> Iterator[AcceptedStep]:
        self._enter(segment)
        t, end = segment.start, segment.end
        h = (end - t) / self.steps
        for n in range(self.steps):
            now, after = t + n * h, end if n == self.steps - 1 else t + (n + 1) * h
            f0 = self.f0 or self.f(now, y[: self.n_dynamic], self.tableau.used_stages[0])
            self.f0 = None
            step = self._take(now, y, h, f0)
            self.accepted += 1
            yield AcceptedStep(now, h, after, segment, y=y, step=step)
            y = step.y
        if not all(map(is_finite, y)):
            raise NotFinite(
                f"the state is NaN or infinite at t = {end:.6g}, after {self.accepted} steps of {abs(h):.3g}. "
                "Take more of them (solver.steps), or look for a field that grows without bound."
            )

    def _take(self, t: float, y: State, h: float, f0: State) -> Step:
        return rk_step(self.tableau, self.f, t, y, h, f0, with_f1=False, n_dynamic=self.n_dynamic)


def complete_stages(loop: AdaptiveLoop | FixedLoop, taken: AcceptedStep) -> list[State]:
    """The slopes of a step that was just taken, as its dense output needs them: those that are missing are evaluated,
    and the one at its end opens the next step."""
    k, table = taken.step.k, loop.tableau
    if len(k) == table.stages - table.fsal:
        loop.f0 = loop.f0 or loop.f(taken.end, taken.step.y[: loop.n_dynamic])
        k.append(loop.f0)
    if len(k) < len(table.dense_rows):
        k += interpolation_stages(table, loop.f, taken.t, taken.y, taken.h, k)[len(k) :]
    return k
