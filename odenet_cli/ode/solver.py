"""The solvers: `Adaptive` solves to a tolerance, `Fixed` in a given number of steps."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from odenet_cli.ode.autograd.times import TimeGradients, restrict_to_segment
from odenet_cli.ode.compiled.loops import CompiledFixedLoop, CompiledLoop, WholeLoop
from odenet_cli.ode.control import GAINS, Controller, Norm
from odenet_cli.ode.dense_solution import DenseSolution
from odenet_cli.ode.event import solve_until
from odenet_cli.ode.gradient import Gradient, gradient, supporting, supports
from odenet_cli.ode.loop import AdaptiveLoop, FixedLoop
from odenet_cli.ode.methods import method
from odenet_cli.ode.multistep.loop import MultistepLoop
from odenet_cli.ode.multistep.nordsieck import Multistep
from odenet_cli.ode.outputs import integrate
from odenet_cli.ode.problem import Problem
from odenet_cli.ode.resolution import RESOLUTION, check_errors, check_time_gradients, check_times
from odenet_cli.ode.reversible_pair import FixedPairLoop, PairLoop
from odenet_cli.ode.right_hand_side import RightHandSide
from odenet_cli.ode.rosenbrock.formulas import Rosenbrock
from odenet_cli.ode.rosenbrock.loop import FixedRosenbrockLoop, RosenbrockLoop
from odenet_cli.ode.settings import OutputTimes, as_jumps, check_count, check_positive, check_tensors, unwrap_scalars
from odenet_cli.ode.state import CountedField, Field, State
from odenet_cli.ode.stats import Stats
from odenet_cli.ode.step import rk_step
from odenet_cli.ode.tableau import Tableau
from odenet_cli.ode.transforms import check_nested_forward_mode, check_transforms, in_forward_mode, in_plain_mode


class Solution(NamedTuple):
    """Hold the result of a solve.

    y      for two times the state (*S) at ts[1], for more the states (T, *S) at all times; a tuple for tuple states
    stats  its cost; the backward pass adds its part when it runs
    """

    y: Any
    stats: Stats


@dataclass(frozen=True, kw_only=True)
class _Solver:
    """Implement the call and dense output for `Adaptive` and `Fixed`, each of which provides `loop` for its steps."""

    method: str | Tableau | Multistep | Rosenbrock
    gradient: str | Gradient = "backprop"
    compile: bool | str = False

    @cached_property
    def formulas(self) -> Tableau | Multistep | Rosenbrock:
        return method(self.method) if isinstance(self.method, str) else self.method

    @cached_property
    def tableau(self) -> Tableau:
        """The tableau of an explicit Runge-Kutta method."""
        if not isinstance(self.formulas, Tableau):
            raise TypeError(f"solver.method={self.method} is not an explicit Runge-Kutta method and has no tableau.")
        return self.formulas

    @cached_property
    def gradient_method(self) -> Gradient:
        if isinstance(self.gradient, str):
            return gradient(self.gradient)
        # An instance with options, or of the user's own class, which need not be registered.
        if not hasattr(self.gradient, "solve"):
            raise TypeError(f"solver.gradient={self.gradient!r} must be the name of a gradient, or an instance.")
        return self.gradient

    def _check_parts(self) -> None:
        """Raise ValueError if method, gradient and compile cannot be combined."""
        name = self.gradient if isinstance(self.gradient, str) else type(self.gradient).__name__.lower()
        if not supports(self.gradient_method, self.formulas):
            why = f"a step of solver.method={self.method} depends on those before it"
            if isinstance(self.formulas, Rosenbrock):
                why = f"solver.method={self.method} needs the Jacobian of what it solves"
            raise ValueError(
                f"gradient={name} does not differentiate such steps: {why}; use "
                f"gradient={' or '.join(supporting(self.formulas))}, or a Runge-Kutta method such as dopri5."
            )
        if self.compile not in (False, True, "loop"):
            raise ValueError(f"compile={self.compile} is not one of False, True, 'loop'.")
        # Only explicit steps have kernels, and the reversible pair has none.
        explicit = isinstance(self.formulas, Tableau)
        if self.compile and (not explicit or name == "reversible"):
            what = f"gradient={name}" if explicit else f"solver.method={self.method}"
            raise ValueError(f"compile={self.compile} and {what} cannot be combined; use compile=False.")

    def check_resolution(self, rhs: RightHandSide, ts: Sequence[float], key: str = "solver") -> None:
        """Warn if the state's dtype cannot resolve tolerance or times; raise ValueError if it is far from it."""
        raise NotImplementedError

    @in_plain_mode
    def __call__(
        self,
        field: Field,
        y0: Tensor | Sequence[Tensor],
        ts: Tensor | Sequence[float],
        args: Sequence[Any] = (),
        parameters: Iterable[Tensor] = (),
    ) -> Solution:
        """Solve y' = field(t, y, *args), y(ts[0]) = y0.

        field       called with a 0-d tensor t, a state like y0, and `args`; returns a state like y0
        y0          tensor of any shape, or a tuple of tensors; floating point or complex
        ts          (T,) times, increasing or decreasing, T >= 2
        args        tuple of tensors, of nested tuples, lists and dicts of them, and of any other values
        parameters  further tensors that the field depends on; needed only for tensors that inspection cannot find and
                    that are not used at ts[0]

        y0, ts, the tensors in args, the field's parameters and all tensors that it closes over get gradients. Every
        gradient but backprop evaluates the field again in the backward pass, and raises `FieldChanged` if the field has
        changed by then; pass what changes between solves, such as a control, in args, which each solve keeps. Raises
        `SolveError` if the solve fails, `ValueError` or `TypeError` for wrong arguments.
        """
        rhs, output_times = self._begin(field, y0, ts, args)
        # Equal output times are solved for once. The copy keeps the arguments, which the node's field releases.
        distinct, times, index = output_times.merge()
        if times is not None:
            check_time_gradients(distinct, rhs.y0)
        rhs_copy = copy.copy(rhs) if times is not None and len(distinct) < len(index) else None
        problem = Problem(rhs, distinct, times, self, len(index) == 2, check_tensors("parameters", parameters))
        with rhs.torch_settings.for_solver():
            # All times are equal: every output is y0.
            if len(distinct) == 1:
                y = problem.stack([rhs.y0] * len(index))
            elif torch.is_grad_enabled() or in_forward_mode():
                try:
                    y = self.gradient_method.solve(problem)
                except RuntimeError as error:
                    check_nested_forward_mode(error)
                    raise
            else:
                # Without gradients. Detached, since a field may switch autograd on and return values with a graph.
                y = problem.stack(integrate(problem.loop(single_steps=False), problem))
                y = tuple(part.detach() for part in y)
            # One output for each time that was asked for.
            if 1 < len(distinct) < len(index):
                y = tuple(part[index] for part in y)
            if rhs_copy is not None:
                y = _add_gradients_of_equal_times(problem, rhs_copy, cast(Tensor, output_times.tensor), index, y)
        return Solution(rhs.restore(y), rhs.stats)

    @in_plain_mode
    @torch.no_grad()
    def dense(
        self, field: Field, y0: Tensor | Sequence[Tensor], ts: Tensor | Sequence[float], args: Sequence[Any] = ()
    ) -> DenseSolution:
        """Return the solution of the same problem as a function of time, from ts[0] to ts[-1], without gradients.

        Between the ends of steps it is as accurate as the method's dense output: of order 7 for dopri8, 4 for dopri5
        and tsit5, that of the formula for adams, 3 for rodas4, 4 for rodas5p, cubic Hermite for the others.
        """
        rhs, output_times = self._begin(field, y0, ts, args)
        distinct, _, _ = output_times.merge()
        with rhs.torch_settings.for_solver():
            # No gradients of ts: a dense solution is differentiable only with respect to the time at which it is
            # evaluated.
            return DenseSolution(Problem(rhs, distinct, None, self._for_dense_output()), output_times.resolution)

    def _begin(
        self, field: Field, y0: Tensor | Sequence[Tensor], ts: Tensor | Sequence[float], args: Sequence[Any]
    ) -> tuple[RightHandSide, OutputTimes]:
        """Return the counted field and the output times; raise ValueError or TypeError for wrong arguments."""
        # Kernels and the Jacobians of Rosenbrock steps do not support functorch and forward mode.
        if self.compile:
            check_transforms(f"compile={self.compile}", "compile=False")
        if isinstance(self.formulas, Rosenbrock):
            check_transforms(f"solver.method={self.method}", "an explicit method such as dopri5")
        rhs, output_times = RightHandSide(field, y0, args), OutputTimes.read(ts)
        self.check_resolution(rhs, output_times.values)
        # The adjoint's backward solve may have its own solver and tolerance.
        backward = getattr(self.gradient_method, "solver", None)
        if backward is not None and torch.is_grad_enabled():
            backward.check_resolution(rhs, output_times.values, "gradient.solver")
        # Only now, so that a solve refused above is not counted in the caller's tally.
        rhs.stats = Stats.begin()
        # A Rosenbrock step needs vector-Jacobian products in the forward solve too.
        rhs.counts_vjps = isinstance(self.formulas, Rosenbrock)
        return rhs, output_times

    until = solve_until

    def _for_dense_output(self) -> _Solver:
        """Return a solver whose steps can be interpolated."""
        return self


@dataclass(frozen=True, kw_only=True)
class Adaptive(_Solver):
    """Solve to a tolerance: the local error of each step stays below `atol + rtol |y|`, in root mean square.

    >>> dopri5 = Adaptive(method="dopri5", rtol=1e-6, atol=1e-6)
    >>> y, stats = dopri5(lambda t, y: -y, torch.ones(3), torch.tensor([0.0, 1.0]))

    gradient    a name of `odenet_cli.ode.gradient`, or an instance with its options
    compile     True: compile steps and their backward passes with `torch.compile`; "loop": all steps in one compiled
                loop (`odenet_cli.ode.compiled`) if the method is FSAL, the controller is I and no single step is
                needed, else as True. Pays for small fields. Steps are not compiled if ts has gradients. Compiled
                backprop has no second derivative, and one backward pass only, not through buffers that the field
                writes (BatchNorm in training). The compiler does not notice another method of a class or os.environ;
                "loop" draws from Python's `random` once, not once an evaluation
    max_steps   accepted and rejected steps together, after which `StepLimit` is raised
    controller  I, PI or PID: how step sizes follow the error
    first_step  length of the first step; None: by Hairer's rule, with one more evaluation
    jumps       times at which the field is discontinuous; a step ends at each of them
    n_controlled  number of leading tensors of the state in the error norm of the forward solve; None: all. The
                  adjoint's backward solve controls z and a of all of them
    """

    rtol: float
    atol: float
    max_steps: int = 10_000
    controller: str = "I"
    safety: float = 0.9
    first_step: float | None = None
    min_step: float = 0.0
    max_step: float = math.inf
    jumps: Sequence[float] = ()
    n_controlled: int | None = None

    def __post_init__(self) -> None:
        unwrap_scalars(self)
        object.__setattr__(self, "jumps", as_jumps(self.jumps))
        if isinstance(self.formulas, Tableau) and not self.formulas.error_weights:
            raise ValueError(
                f"solver.method={self.method} has no error estimate: solve in fixed steps, Fixed(steps=…), or use "
                "dopri5."
            )
        check_positive("solver.rtol", self.rtol, zero=True)
        check_positive("solver.atol", self.atol, zero=True)
        # One of them may be 0, but not both.
        check_positive("solver.rtol + solver.atol", self.rtol + self.atol)
        check_positive("solver.max_step", self.max_step, infinite=True)
        check_positive("solver.min_step", self.min_step, zero=True)
        if self.min_step > self.max_step:
            raise ValueError(f"solver.min_step={self.min_step} is above solver.max_step={self.max_step}.")
        if not 0 < self.safety <= 1:
            raise ValueError(f"solver.safety={self.safety} must be above 0 and at most 1.")
        check_count("solver.max_steps", self.max_steps)
        if self.first_step is not None:
            check_positive("solver.first_step", self.first_step)
        if self.controller not in GAINS:
            raise ValueError(f"solver.controller={self.controller} is not one of {', '.join(GAINS)}.")
        if isinstance(self.formulas, Multistep) and (self.controller, self.safety) != ("I", 0.9):
            raise ValueError(
                f"solver.controller={self.controller} and solver.safety={self.safety} do not apply to "
                f"solver.method={self.method}, which chooses step and order together; leave them out."
            )
        if self.n_controlled is not None:
            check_count("solver.n_controlled", self.n_controlled)
        self._check_parts()

    def check_resolution(self, rhs: RightHandSide, ts: Sequence[float], key: str = "solver") -> None:
        check_errors(key, self.rtol, self.atol, rhs.y0[: self.n_controlled])
        # Rounding t by a fraction of the span changes the solution by about that fraction of its change, which is
        # negligible below ten tolerances.
        tolerance = max(self.rtol, self.atol, RESOLUTION[rhs.time_dtype])
        check_times(ts, 10 * tolerance * abs(ts[-1] - ts[0]), rhs.time_dtype)

    def loop(
        self,
        vector_field: CountedField,
        norm: Norm | None = None,
        n_dynamic: int | None = None,
        n_controlled: int | None = None,
        interior_outputs: bool = True,
        single_steps: bool = True,
        time_gradients: TimeGradients | None = None,
        coupling: float | None = None,
    ) -> AdaptiveLoop | MultistepLoop:
        """Return the loop over the steps of a solve, ready to run.

        norm              error norm; None: by rtol and atol
        n_dynamic         f is called with y[:n_dynamic] alone, the other tensors are quadratures; None: with all
        n_controlled      the norm takes y[:n_controlled]; None: all. The field of the same name is not used here:
                          `Problem.loop` passes it for forward solves
        interior_outputs  outputs may lie inside steps
        single_steps      the caller needs every accepted step (for a graph, a tape or dense output), which a whole
                          loop in one kernel does not give
        time_gradients    of the output times, if wanted; such steps are not compiled
        coupling          λ: take the steps of a reversible pair, whose state is (*z, *y); f is called with z
        """
        settings: dict[str, Any] = {
            "vector_field": vector_field,
            "norm": norm or Norm(self.rtol, self.atol),
            "max_steps": self.max_steps,
            "min_step": self.min_step,
            "max_step": self.max_step,
            "h": self.first_step,
            "n_dynamic": n_dynamic,
            "n_controlled": n_controlled,
            "time_gradients": time_gradients,
        }
        # Multistep methods have no tableau and no controller: their loop chooses order and step size together.
        if isinstance(self.formulas, Multistep):
            return MultistepLoop(method=self.formulas, **settings)
        # The estimate is the error of the lower order q: it falls with h^(q+1) (Hairer II.4).
        controller = Controller(self.formulas.embedded_order + 1, self.controller, self.safety)
        settings |= {"tableau": self.formulas, "controller": controller}
        if isinstance(self.formulas, Rosenbrock):
            return RosenbrockLoop(**settings)
        if coupling is not None:
            return PairLoop(**settings, coupling=coupling)
        # Times with gradients are tensors in autograd's graph, and a kernel is given plain numbers.
        if not self.compile or time_gradients is not None:
            return AdaptiveLoop(**settings)
        # The whole loop passes f1 on as the next f0, which needs FSAL, and its kernel has no past error ratios for PI
        # and PID.
        whole = not single_steps and self.compile == "loop" and self.tableau.fsal and self.controller == "I"
        return (WholeLoop if whole else CompiledLoop)(**settings, interior_outputs=interior_outputs)


@dataclass(frozen=True, kw_only=True)
class Fixed(_Solver):
    """Solve in `steps` equal steps between neighbouring output times.

    >>> rk4 = Fixed(method="rk4", steps=8)
    """

    steps: int

    def __post_init__(self) -> None:
        unwrap_scalars(self)
        check_count("solver.steps", self.steps)
        if isinstance(self.formulas, Multistep):
            raise ValueError(
                f"solver.method={self.method} chooses its own steps and orders: set solver.rtol and solver.atol "
                "instead of solver.steps, or use a method such as rk4."
            )
        self._check_parts()

    def check_resolution(self, rhs: RightHandSide, ts: Sequence[float], key: str = "solver") -> None:
        # If rounding makes the ends of a step equal, the field sees no time pass.
        shortest = min((abs(b - a) for a, b in pairwise(ts) if a != b), default=0.0)
        check_times(ts, shortest / self.steps, rhs.time_dtype)

    def loop(
        self,
        vector_field: CountedField,
        norm: Norm | None = None,
        n_dynamic: int | None = None,
        n_controlled: int | None = None,
        time_gradients: TimeGradients | None = None,
        coupling: float | None = None,
        **_: bool,
    ) -> FixedLoop:
        """Return the loop over the steps of a solve; there is no error to control, and every step is yielded."""
        settings: dict[str, Any] = {
            "tableau": self.formulas,
            "vector_field": vector_field,
            "time_gradients": time_gradients,
            "steps": self.steps,
            "n_dynamic": n_dynamic,
        }
        if coupling is not None:
            return FixedPairLoop(**settings, coupling=coupling)
        if isinstance(self.formulas, Rosenbrock):
            return FixedRosenbrockLoop(**settings)
        return (CompiledFixedLoop if self.compile and time_gradients is None else FixedLoop)(**settings)

    def _for_dense_output(self) -> Fixed:
        # A compiled fixed step returns only the state at its end; dense output needs the stages.
        return replace(self, compile=False)


def _add_gradients_of_equal_times(
    problem: Problem, rhs: RightHandSide, times: Tensor, index: Sequence[int], y: State
) -> tuple[Tensor, ...]:
    """Return the outputs `y`, where each of several equal times has its own gradient.

    rhs    copy of the problem's, with its arguments
    times  (T,) as given, with gradients
    index  for each output the index of its distinct time
    """
    rhs.stats, rhs.counts_vjps, times = problem.rhs.stats, True, times.to(rhs.device, rhs.time_dtype)
    # From the first output at a time, a step of length times[n] - times[first] = 0 leads to output n: it changes no
    # value and adds the gradient. A step of order 4 has the right derivatives up to the fourth.
    tableau = cast(Tableau, method("rk4"))
    states = [y, y] if problem.ends_only else list(zip(*(part.unbind() for part in y)))
    for n, j in enumerate(index):
        if (first := index.index(j)) < n:
            # At a jump use the field on the side from which the solve came.
            segments = problem.segments(max(j, 1) - 1, max(j, 1)) if len(problem.ts) > 1 else []
            f = restrict_to_segment(rhs, segments[-1 if j else 0]) if segments else rhs
            t, h = times[first], times[n] - times[first]
            states[n] = rk_step(tableau, f, t, states[n], h, f(t, states[n])).y
    return problem.stack(states)


Solver = Adaptive | Fixed
