"""What one calls: `Adaptive` solves to a tolerance, `Fixed` in a given number of steps."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import InitVar, dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from odenet_cli.ode.autograd.times import TimeGradients
from odenet_cli.ode.compiled.loops import CompiledFixedLoop, CompiledLoop, WholeLoop
from odenet_cli.ode.control import GAINS, Controller, Norm
from odenet_cli.ode.dense_solution import DenseSolution
from odenet_cli.ode.errors import NotFinite
from odenet_cli.ode.gradient import Gradient, gradient
from odenet_cli.ode.loop import AdaptiveLoop, FixedLoop
from odenet_cli.ode.methods import method
from odenet_cli.ode.multistep.loop import MultistepLoop
from odenet_cli.ode.multistep.nordsieck import Multistep
from odenet_cli.ode.problem import Problem, stacked
from odenet_cli.ode.resolution import RESOLUTION, check_errors, check_times
from odenet_cli.ode.reversible_pair import FixedPairLoop, PairLoop
from odenet_cli.ode.settings import as_jumps, as_times, check_count, check_positive, unwrap_scalars
from odenet_cli.ode.state import CountedField, Field, RightHandSide
from odenet_cli.ode.stats import Stats
from odenet_cli.ode.tableau import Tableau
from odenet_cli.ode.transforms import check_transforms, in_forward_mode, to_numbers


class Solution(NamedTuple):
    """The outcome of a solve.

    y      (*S) the state at ts[1] for two times; (T, *S) the states at all times for more; a tuple for tuple states
    stats  what it cost; the backward pass adds its part when it runs
    """

    y: Any
    stats: Stats


@dataclass(frozen=True, kw_only=True)
class _Solver:
    method: str | Tableau | Multistep
    gradient: str | Gradient = "backprop"
    compile: bool | str = False

    @cached_property
    def formulas(self) -> Tableau | Multistep:
        return method(self.method) if isinstance(self.method, str) else self.method

    @cached_property
    def tableau(self) -> Tableau:
        """Of a Runge-Kutta method."""
        if isinstance(self.formulas, Multistep):
            raise TypeError(f"solver.method={self.method} is a family of multistep formulas, and has no tableau.")
        return self.formulas

    @cached_property
    def gradient_method(self) -> Gradient:
        if isinstance(self.gradient, str):
            return gradient(self.gradient)
        if not hasattr(self.gradient, "solve"):
            raise TypeError(f"solver.gradient={self.gradient!r} must be the name of a gradient, or an instance.")
        return self.gradient

    def _check_parts(self) -> None:
        """Refuse what does not go together."""
        able = getattr(self.gradient_method, "supports_multistep", False)
        name = self.gradient if isinstance(self.gradient, str) else type(self.gradient).__name__.lower()
        multistep = isinstance(self.formulas, Multistep)
        if multistep and not able:
            raise ValueError(
                f"gradient={name} goes back step by step, and a step of solver.method={self.method} leans on those "
                "before it; use gradient=backprop or adjoint, or a Runge-Kutta method such as dopri5."
            )
        if self.compile not in (False, True, "loop"):
            raise ValueError(f"compile={self.compile} is not one of False, True, 'loop'.")
        if self.compile and (multistep or name == "reversible"):
            what = f"solver.method={self.method}" if multistep else f"gradient={name}"
            raise ValueError(f"compile={self.compile} and {what} do not go together; use compile=False.")

    def check_resolution(self, rhs: RightHandSide, ts: Sequence[float], key: str = "solver") -> None:
        """Warn of what the state's dtype cannot resolve; raise ValueError where it is far off."""
        raise NotImplementedError

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
        parameters  further tensors that the field depends on; only for those that hide from inspection, and are not
                    used at ts[0]

        Gradients reach y0, ts, the tensors in args, the field's parameters and whatever tensors it closes over. A
        gradient that evaluates the field again in the backward pass (all but backprop) raises `FieldChanged` if it is
        not what it was. What differs from solve to solve, a control or a condition, goes into args, which are held.
        Raises `SolveError` where the solve fails, `ValueError` and `TypeError` for arguments that do not fit; errors of
        the field pass through.
        """
        if torch.is_inference_mode_enabled():
            # Its tensors count no versions, and no field could differentiate.
            with torch.inference_mode(False), torch.no_grad():
                return self(field, y0, ts, args, parameters)
        if self.compile:
            check_transforms(f"compile={self.compile}", "compile=False")
        rhs = RightHandSide(field, y0, args)
        points, times, _ = _times(ts)
        self.check_resolution(rhs, points)
        problem = Problem(rhs, points, times, self, Stats.begin(), _tensors(parameters))
        with rhs.torch_settings.for_solver():
            if points[0] == points[-1]:
                made = stacked([rhs.y0] * len(points))
            elif torch.is_grad_enabled() or in_forward_mode():
                made = self.gradient_method.solve(problem)
            else:
                made = tuple(part.detach() for part in stacked(problem.integrate(problem.evaluate)))
        return Solution(rhs.restore(made), problem.stats)

    @torch.no_grad()
    def dense(
        self, field: Field, y0: Tensor | Sequence[Tensor], ts: Tensor | Sequence[float], args: Sequence[Any] = ()
    ) -> DenseSolution:
        """The solution of the same problem as a function of time, from ts[0] to ts[-1]; `gradient` plays no part.

        Between the ends of steps it is as accurate as the method's dense output: of order 7 for dopri8, 4 for dopri5
        and tsit5, that of the formula for adams, cubic Hermite for the others.
        """
        if torch.is_inference_mode_enabled():
            with torch.inference_mode(False):
                return self.dense(field, y0, ts, args)
        points, _, resolution = _times(ts)
        rhs = RightHandSide(field, y0, args)
        self.check_resolution(rhs, points)
        with rhs.torch_settings.for_solver():
            return DenseSolution(Problem(rhs, points, None, self, Stats.begin()), resolution)


@dataclass(frozen=True, kw_only=True)
class Adaptive(_Solver):
    """Solve to a tolerance: the local error of each step stays below `atol + rtol |y|`, in root mean square.

    >>> dopri5 = Adaptive(method="dopri5", rtol=1e-6, atol=1e-6)
    >>> y, stats = dopri5(lambda t, y: -y, torch.ones(3), torch.tensor([0.0, 1.0]))

    gradient    a name of `odenet_cli.ode.gradient`, or an instance with its options
    compile     True: steps, and their way back, go through `torch.compile`; "loop": where nothing looks at single
                steps, all of them in one compiled loop (`odenet_cli.ode.compiled`). For small fields.
                A compiled backprop has no second derivative, and goes backward once
    max_steps   accepted and rejected steps together, after which `StepLimit` is raised
    controller  I, PI or PID: how step sizes follow the error
    first_step  length of the first step; None: Hairer's rule, which costs one evaluation
    jumps       times at which the field is known to jump; a step ends at each, and a new one begins behind it
    n_controlled  how many leading tensors of the state the tolerance controls; the others ride along. None: all
    judged      earlier name of `n_controlled`
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
    judged: InitVar[int | None] = None

    def __post_init__(self, judged: int | None) -> None:
        if judged is not None:
            object.__setattr__(self, "n_controlled", judged)
        unwrap_scalars(self)
        object.__setattr__(self, "jumps", as_jumps(self.jumps))
        if isinstance(self.formulas, Tableau) and not self.formulas.error_weights:
            raise ValueError(f"solver.method={self.method} has no error estimate; use Fixed(steps=…), or dopri5.")
        check_positive("solver.rtol", self.rtol, zero=True)
        check_positive("solver.atol", self.atol, zero=True)
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
                f"solver.controller={self.controller} and solver.safety={self.safety} say nothing to "
                f"solver.method={self.method}, which chooses step and order together; leave them out."
            )
        if self.n_controlled is not None:
            check_count("solver.n_controlled", self.n_controlled)
        self._check_parts()

    def check_resolution(self, rhs: RightHandSide, ts: Sequence[float], key: str = "solver") -> None:
        check_errors(key, self.rtol, self.atol, rhs.y0[: self.n_controlled])
        tolerance = max(self.rtol, self.atol, RESOLUTION[rhs.time_dtype])
        check_times(ts, 10 * tolerance * abs(ts[-1] - ts[0]), rhs.time_dtype)

    def loop(
        self,
        evaluate: CountedField,
        norm: Norm | None = None,
        n_dynamic: int | None = None,
        n_controlled: int | None = None,
        dense: bool = True,
        whole: bool = False,
        time_gradients: TimeGradients | None = None,
    ) -> AdaptiveLoop | MultistepLoop:
        """A solve in progress. By default the field reads, and the norm of the tolerance judges, all components.

        dense  outputs may lie inside steps
        whole  nobody looks at single steps
        time_gradients  makes times move, where they have gradients
        """
        settings = {
            **self._settings(evaluate, norm),
            "n_dynamic": n_dynamic,
            "n_controlled": n_controlled,
            "time_gradients": time_gradients,
        }
        if isinstance(self.formulas, Multistep):
            return MultistepLoop(method=self.formulas, **settings)
        settings |= self._runge_kutta()
        if not self.compile or time_gradients is not None:
            return AdaptiveLoop(**settings)
        whole = whole and self.compile == "loop" and self.tableau.fsal and self.controller == "I"
        return (WholeLoop if whole else CompiledLoop)(**settings, dense=dense)

    def pair_loop(self, evaluate: CountedField, coupling: float, parts: int, norm: Norm | None = None) -> PairLoop:
        """As `loop`, for a reversible pair of states of `parts` components."""
        settings = self._runge_kutta() | self._settings(evaluate, norm)
        return PairLoop(**settings, coupling=coupling, n_dynamic=parts, n_controlled=self.n_controlled or parts)

    def _runge_kutta(self) -> dict[str, Any]:
        controller = Controller(self.tableau.embedded_order + 1, self.controller, self.safety)
        return {"tableau": self.tableau, "controller": controller}

    def _settings(self, evaluate: CountedField, norm: Norm | None) -> dict[str, Any]:
        return {
            "evaluate": evaluate,
            "norm": norm or Norm(self.rtol, self.atol),
            "max_steps": self.max_steps,
            "min_step": self.min_step,
            "max_step": self.max_step,
            "h": self.first_step,
        }


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
                f"solver.method={self.method} chooses its own steps and orders: give it solver.rtol and solver.atol "
                "instead of solver.steps, or use a method such as rk4."
            )
        self._check_parts()

    def check_resolution(self, rhs: RightHandSide, ts: Sequence[float], key: str = "solver") -> None:
        shortest = min((abs(b - a) for a, b in pairwise(ts) if a != b), default=0.0)
        check_times(ts, shortest / self.steps, rhs.time_dtype)

    def loop(
        self,
        evaluate: CountedField,
        norm: Norm | None = None,
        n_dynamic: int | None = None,
        n_controlled: int | None = None,
        dense: bool = True,
        whole: bool = False,
        time_gradients: TimeGradients | None = None,
    ) -> FixedLoop:
        """A solve in progress; there is no error to judge."""
        loop = CompiledFixedLoop if self.compile and time_gradients is None else FixedLoop
        return loop(
            tableau=self.tableau,
            evaluate=evaluate,
            time_gradients=time_gradients,
            steps=self.steps,
            n_dynamic=n_dynamic,
        )

    def pair_loop(self, evaluate: CountedField, coupling: float, parts: int) -> FixedPairLoop:
        """As `loop`, for a reversible pair of states of `parts` components."""
        return FixedPairLoop(
            tableau=self.tableau, evaluate=evaluate, steps=self.steps, coupling=coupling, n_dynamic=parts
        )


Solver = Adaptive | Fixed


def _times(ts: Tensor | Sequence[float]) -> tuple[list[float], Tensor | None, float]:
    """The output times as floats, as a tensor where gradients are wanted, and their relative resolution."""
    if not isinstance(ts, Iterable):
        raise TypeError(f"ts must be a tensor or a sequence of at least two times; got {ts!r}.")
    times, resolution = as_times(ts if isinstance(ts, Tensor) else list(ts))
    if not isinstance(ts, Tensor):
        times = times.to(torch.float64)
    if times.dim() != 1 or len(times) < 2 or not times.is_floating_point():
        raise ValueError(
            f"ts must be at least two floating-point times in one dimension; got {tuple(times.shape)} {times.dtype}."
        )
    points = to_numbers(times)
    if not all(map(math.isfinite, points)):
        raise NotFinite(f"ts must be finite; got {points}.")
    signs = {math.copysign(1.0, b - a) for a, b in pairwise(points) if a != b}
    if len(signs) > 1:
        raise ValueError(f"ts must run one way, up or down; got {points}.")
    moving = in_forward_mode() or (times.requires_grad and torch.is_grad_enabled())
    return points, times if moving else None, resolution


def _tensors(parameters: Iterable[Tensor]) -> tuple[Tensor, ...]:
    tensors = tuple(parameters)
    if not all(isinstance(tensor, Tensor) for tensor in tensors):
        raise TypeError("parameters must be tensors: parameters=net.parameters(), or parameters=(w, b).")
    return tensors
