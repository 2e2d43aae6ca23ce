"""A parametric ODE and the least-squares problem of fitting it to observed series.

The derivatives of the path with respect to the parameters are central differences of copies solved together, with the
same steps ("internal numerical differentiation", Bock 1981), and so are those of one smooth function, to about 1e-9.
Copies widen the state without more solver steps; a torch.func Jacobian in the field took five times as long (6
parameters).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from odenet_cli import fields, registry
from odenet_cli.errors import RequestError
from odenet_cli.models.common import check_counts
from odenet_cli.models.common.fit_data import check_columns, check_values, deviations, first_values, shown_states
from odenet_cli.models.common.fit_keys import flat_names
from odenet_cli.models.common.fit_start import find_start
from odenet_cli.models.common.free_vector import FreeVector
from odenet_cli.models.common.levenberg_marquardt import relative_offset
from odenet_cli.models.common.own_field import check_no_options, try_field
from odenet_cli.ode import Solver

Y0, NOISES = ("fitted", "first"), ("column", "common", "log")
STEP = torch.finfo(torch.float64).eps ** (1 / 3)  # relative step of a central difference
ROUNDINGS = 16  # of a path; smaller differences of two paths count as zero
FAR = 1e8  # times the scale of a state: beyond this a path is held constant, and costs no steps
MAX_NAMES = 12  # in the banner
MAX_NUMBERS = 2**25  # in the paths of one solve
EXACT = 1e-14  # of the variance
AT_BOUND = 1e-3  # standard errors
SIGMA_FLOOR = 1e-9  # of a column's own standard deviation
SIGMA_TOLERANCE = 1e-4  # relative


class Fit(FreeVector):
    """Fit a field and the initial states of its series to observations, by weighted least squares.

    shape (S, C): series, and columns of values. `columns` (C,) are the states measured by the columns; `scale` (D,) the
    typical size of each state; `deviation` (C,) the standard deviation of the observations, and `sigma` (C,) that by
    which residuals are divided.
    """

    columns: Tensor
    scale: Tensor
    sigma: Tensor
    deviation: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        solver: Solver,
        *,
        field: str | None,
        field_args: Any = None,
        observed: list[str] | None = None,
        start: Any = None,
        bounds: Any = None,
        fixed: list[str] | None = None,
        y0: str = "fitted",
        noise: str = "column",
        starts: int = 1,
    ) -> None:
        if len(shape) != 2 or classes:
            raise ValueError("model=fit needs a table of series: set data=table data.path=FILE.")
        if not field:
            named = ", ".join(fields.names())
            raise ValueError(f"model.field is missing: {named}, or package.module:Class, an equation of your own.")
        for key, value, choices in (("y0", y0, Y0), ("noise", noise, NOISES)):
            registry.require(f"model.{key}", value, choices)
        check_counts(starts=starts)
        series, columns = shape
        loaded = load_field(field, field_args, columns).double()  # float32 would round its constants
        if not flat_names(loaded):
            raise ValueError(f"model.field={field} has no parameters: there is nothing to fit.")
        states = tuple(getattr(loaded, "states", None) or (f"y{n + 1}" for n in range(columns)))
        check_columns(columns, states, observed)
        super().__init__(loaded, states, series, start, bounds, fixed)
        self.solver, self.y0, self.noise, self.starts, self.observed = solver, y0, noise, starts, observed
        self.begins = self.natural()  # initial parameters, before the search for a start
        self.register_buffer("columns", torch.zeros(columns, dtype=torch.long))
        self.register_buffer("scale", torch.ones(len(states)))
        self.register_buffer("sigma", torch.ones(columns))
        self.register_buffer("deviation", torch.ones(columns))
        self.broadcasts: bool | None = None  # whether the field broadcasts over copies
        self.linear: tuple[Any, Tensor, Tensor, Tensor] | None = None  # solver, point, residuals, derivatives

    @property
    def about(self) -> str:
        """The fitted numbers, for the reader."""
        names = self.free_names([""])
        listed = ", ".join(names[:MAX_NAMES]) + (", …" if len(names) > MAX_NAMES else "")
        return f"fitted are {listed}{' of each series' if len(self.initial) > 1 else ''}"

    # The start of a fit.

    def start_from(self, problem: Any, names: Sequence[str]) -> None:
        """Set the values that follow from the observations; the parameters are at the given start.

        problem, names  `data.observations.Observations`, and the names of its columns
        """
        shown = shown_states(names, self.states, self.observed)
        self.columns.copy_(torch.tensor([self.states.index(state) for state in shown]))
        fixed = self.fixed
        if fixed is None:
            fixed = [state for state in getattr(self.field, "fixed", ()) if state not in shown]
        for n, state in enumerate(self.states):
            self.free_states[n] = state not in fixed and not (self.y0 == "first" and state in shown)
        check_values(problem.values, names, self.noise, self.y0)
        values = torch.where(self.fitted(problem, every=True), problem.values, torch.nan)
        self._begin_near(values)
        compared = self.compared(values)
        self.deviation.copy_(deviations(compared, ~compared.isnan()))
        self.sigma.copy_(self.deviation.mean() if self.noise == "common" else self.deviation)
        count, p = int(self.fitted(problem).sum()), self.count(problem)
        if count <= p:
            raise RequestError(
                f"{count} observed values do not determine {p} numbers ({', '.join(self.free_names(['…'])[:8])}).\n"
                "  Use more data, fix some of them at their start (model.fixed=[NAME]), or take the states at the "
                "beginning as they were observed (model.y0=first)."
            )

    def search_start(self, problem: Any, seed: int) -> str | None:
        """Set the parameters to the best of `starts` starts; return its origin as text, None for the given start."""
        return find_start(self, problem, seed)

    @torch.no_grad()
    def _begin_near(self, values: Tensor) -> None:
        """Set the scale of each state, and its initial value in each series, from observations (S, T, C)."""
        size = values.abs().nan_to_num().amax((0, 1))
        for n, state in enumerate(self.states):
            shown = (self.columns == n).nonzero().flatten().tolist()
            usual = float(size[shown[0]] if shown else size.max()) or 1.0
            self.scale[n] = usual
            given = self.start.get(state)
            self.initial[:, n] = usual if given is None else given
            if shown and (given is None or self.y0 == "first"):
                self.initial[:, n] = first_values(values[..., shown[0]])
            low, high = self.low[len(self.names) + n], self.high[len(self.names) + n]
            edge = 1e-3 * usual  # a value observed at a bound, such as a count of 0, starts near it
            inside = self.initial[:, n].clamp(low + edge, high - edge)
            self.initial[:, n] = torch.where(self.free_states[n], inside, self.initial[:, n])

    # Paths and residuals.

    def paths(self, problem: Any, theta: Tensor, initial: Tensor) -> Tensor:
        """Return the states (K, S, T, D) at the series' times for parameters (K, P) and initial states (K, S, D)."""
        copies, series = initial.shape[:2]
        ends = problem.times.new_tensor([0.0, 1.0])
        times, place = torch.unique(torch.cat((problem.times.flatten(), ends)), return_inverse=True)
        at_once = max(1, MAX_NUMBERS // (copies * len(times) * initial.shape[2]))
        # Outputs are at the distinct times of all series, so that memory grows with both: split many series.
        if series > at_once:  # each part has fewer distinct times
            rows = [type(problem)(*part) for part in zip(*(torch.split(x, at_once) for x in problem))]
            some = torch.split(initial, at_once, 1)
            return torch.cat([self.paths(part, theta, y) for part, y in zip(rows, some)], 1)
        y = self.solve(problem, theta, initial, times, self.solver)
        index = place[: problem.times.numel()].view(1, series, -1, 1).expand(copies, -1, -1, y.shape[3])
        return y.gather(2, index)

    def solve(self, problem: Any, theta: Tensor, initial: Tensor, times: Tensor, solver: Any) -> Tensor:
        """Return the states (K, S, M, D) at fractions (M,) of each series' duration."""
        copies, series, size = initial.shape
        begins, lasts = (x.repeat(copies) for x in (problem.begins, problem.lasts))
        # Copies and series form one batch of states, each row with its own parameters and duration.
        evaluate = self.copies(theta.repeat_interleave(series, 0))

        def vector_field(s: Tensor, z: Tensor) -> Tensor:
            # Every series runs from 0 to 1, so that none is solved beyond its end.
            # Divided by its scale each state has size about 1, so that one tolerance suits quantities in any unit.
            slope = evaluate(begins + s * lasts, z * self.scale) * lasts[:, None] / self.scale
            return torch.where(z.abs().amax(1, keepdim=True) > FAR, 0.0, slope)

        y = solver(vector_field, initial.reshape(-1, size) / self.scale, times).y * self.scale
        return y.view(len(times), copies, series, size).permute(1, 2, 0, 3)

    def copies(self, theta: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the field of copies with parameters (M, P), a function of times (M,) and states (M, D).

        A field is written for one state. Most fields broadcast over one more dimension, and are called once for all
        copies; with `vmap`, which works for any field, a fit took 2.2 times as long.
        """
        named = dict(self.field.named_parameters())

        def weights_of(theta: Tensor) -> dict[str, Tensor]:
            parts = torch.split(theta, [weight.numel() for weight in named.values()], -1)
            return {key: x.reshape(*theta.shape[:-1], *named[key].shape) for key, x in zip(named, parts)}

        def call(weights: dict[str, Tensor], t: Tensor, y: Tensor) -> Tensor:
            slope: Tensor = functional_call(self.field, weights, (t, y))
            return slope

        each = vmap(call)
        if self.broadcasts is None and len(theta) > 1:
            # Tested once on distinct numbers, which detects fields that mix copies, for example by a sum over all.
            part = torch.linspace(1, 2, len(theta), dtype=theta.dtype, device=theta.device)
            some = part, part[:, None] + 0.1 * torch.arange(len(self.states)).to(part)
            weights = weights_of(part[:, None] * (theta + 0.1))
            try:
                self.broadcasts = torch.allclose(call(weights, *some), each(weights, *some), 1e-12, 0, equal_nan=True)
            except Exception:
                self.broadcasts = False
        return partial(call if self.broadcasts else each, weights_of(theta))

    @torch.no_grad()
    def residuals(self, problem: Any) -> Tensor:
        """Return (predicted - observed) / sigma of the fitted values, (n,)."""
        vector = self.get_free(problem)[None]
        return self.path_residuals(problem, self.paths(problem, *self.split_free(problem, vector)))[0]

    @torch.no_grad()
    def linearise(self, problem: Any) -> tuple[Tensor, Tensor]:
        """Return the residuals (n,) and their derivatives with respect to the free vector, (n, p + S·d).

        Results computed by the last accepted step are reused.
        """
        # All inputs of the residuals besides the solver: if they are the same, so are the derivatives.
        at = torch.cat((self.natural(), self.initial.detach().flatten(), self.sigma))
        if self.linear is None or self.linear[0] is not self.solver or not torch.equal(self.linear[1], at):
            self.linear = (self.solver, at, *self._linearise(problem))
        return self.linear[2], self.linear[3]

    def _linearise(self, problem: Any) -> tuple[Tensor, Tensor]:
        path, derivatives = self.sensitivities(problem)
        fitted, own = self.fitted(problem), int(self.free_states.sum())
        local = (derivatives / self.sigma[:, None])[fitted]
        p = local.shape[1] - own
        jacobian = local.new_zeros(len(local), self.count(problem))
        jacobian[:, :p] = local[:, :p]
        # The initial states of a series affect only that series, and have their own block of columns.
        place = p + own * fitted.nonzero()[:, :1] + torch.arange(own, device=local.device)
        jacobian.scatter_(1, place, local[:, p:])
        r = self.path_residuals(problem, path[None])[0]
        # A number at its bound is held there. Its column is only rounding error, and would spoil those of others.
        spread = float(r @ r) / max(1, len(r) - jacobian.shape[1])
        held = ~self.bounds_reached(problem).isnan() & (jacobian.square().sum(0) < AT_BOUND**2 * spread)
        return r, jacobian.masked_fill_(held, 0.0)

    def bounds_reached(self, problem: Any) -> Tensor:
        """Return the bound close to each number of the free vector, NaN if there is none, (p + S·d,)."""
        return self.near_bound(problem, torch.cat((self.begins, self.scale)))

    @torch.no_grad()
    def sensitivities(self, problem: Any) -> tuple[Tensor, Tensor]:
        """Return the states (S, T, D), and the derivatives of the compared quantities (S, T, C, p + d).

        The derivatives of a series are those with respect to the parameters and to its own initial states.
        """
        u, p, series = self.get_free(problem), int(self.free.sum()), len(problem.series)
        at = torch.cat((u[:p].expand(series, p), u[p:].view(series, -1)), 1)
        count = at.shape[1]
        steps = STEP * torch.where(self.has_bounds(), at.abs().clamp_min(1), torch.where(at == 0, 1.0, at.abs()))
        # A copy shifts one parameter, which is shared by all series, or the same initial state of every series.
        steps[:, :p] = steps[:1, :p]
        # 1 + 2 (p + d) copies: unchanged, each number shifted up, each number shifted down.
        moves = torch.eye(count, dtype=at.dtype, device=at.device)[:, None] * steps
        moved = at + torch.cat((torch.zeros_like(moves[:1]), moves, -moves))
        vectors = torch.cat((moved[:, 0, :p], moved[:, :, p:].flatten(1)), 1)
        paths = self.paths(problem, *self.split_free(problem, vectors))
        compared = self.compared(paths[..., self.columns])
        difference = (compared[1 : count + 1] - compared[count + 1 :]).movedim(0, -1)
        # If a series does not depend on a number, the differences are rounding errors, which differ between CPUs.
        size, rounding = (x.square().nansum((1, 2)).sqrt() for x in (difference, compared[0, ..., None]))
        rounding *= ROUNDINGS * torch.finfo(difference.dtype).eps
        difference.masked_fill_((size <= rounding)[:, None, None], 0.0)
        return paths[0], difference / (2 * steps)[:, None, None]

    def path_residuals(self, problem: Any, path: Tensor) -> Tensor:
        """Return the residuals of copies (K, n) from their paths (K, S, T, D)."""
        difference = self.compared(path[..., self.columns]) - self.compared(problem.values)
        return (difference / self.sigma)[:, self.fitted(problem)]

    def weights(self, problem: Any) -> Tensor:
        """Return factors that turn residuals (n,) into the roots of their shares of the observations' variance."""
        column = self.fitted(problem).nonzero()[:, 2]
        return (self.sigma / self.deviation)[column] / len(column) ** 0.5

    def is_exact(self, problem: Any, r: Tensor) -> bool:
        """Return whether the residuals are within the solver's error, so that no step can reduce them."""
        left = float((r * self.weights(problem)).square().sum())
        return left < max(EXACT, 100 * (getattr(self.solver, "rtol", 0) or 0) ** 2)

    def offset(self, problem: Any) -> float | None:
        """Return the relative offset from the minimum; None if the residuals are within the solver's error."""
        r, jacobian = self.linearise(problem)
        return None if self.is_exact(problem, r) else relative_offset(r, jacobian)

    def compared(self, values: Tensor) -> Tensor:
        """Return the compared quantities for values (*S, C)."""
        return values.log() if self.noise == "log" else values

    def fitted(self, problem: Any, every: bool = False) -> Tensor:
        """Return which values are fitted, (S, T, C); `every`: also those used as initial states by `y0=first`."""
        fitted = ~problem.held_out[..., None] & ~problem.values.isnan()
        if self.y0 == "first" and not every:
            fitted[:, 0] = False
        return fitted

    @torch.no_grad()
    def reweigh(self, problem: Any, r: Tensor) -> bool:
        """Estimate `sigma` from the residuals; return whether it changed, so that the fit must continue.

        Each column is then weighted by its own precision, as in maximum likelihood with one variance per column. The
        degrees of freedom are distributed over the columns in proportion to their numbers of values.
        """
        if self.noise == "common" or len(self.sigma) == 1:
            return False
        # σ² = Σ r² / (n - p n/N) for each column: the p degrees of freedom are divided in proportion to the values.
        column = self.fitted(problem).nonzero()[:, 2]
        squares = torch.zeros_like(self.sigma).index_add(0, column, r.square())
        counts = torch.zeros_like(self.sigma).index_add(0, column, torch.ones_like(r))
        ratio = (squares / (counts * (1 - self.count(problem) / len(r)))).sqrt().nan_to_num(1.0)
        sigma = torch.maximum(self.sigma * ratio, SIGMA_FLOOR * self.deviation)
        moved = float((sigma / self.sigma).log().abs().max())
        self.sigma.copy_(sigma)
        return moved > SIGMA_TOLERANCE


def load_field(name: str, options: Mapping[str, Any] | None, columns: int) -> nn.Module:
    """Return the field of that name or the user's own, called once; its default `states` are the observed ones."""
    if ":" in name:
        own = registry.load_class("model.field", name)
        registry.check_options("model.field_args", own, dict(options or {}), sign="+")
        with torch.random.fork_rng(devices=()), torch.device("cpu"):
            field: nn.Module = own(**(options or {})).double()
            states = getattr(field, "states", None) or range(columns)
            y = 1 + torch.arange(len(states), dtype=torch.float64) / 8
            try_field(name, field, y)
            try:
                vmap(lambda t, y: field(t, y))(y.new_zeros(2), y.expand(2, -1))
            except Exception as error:
                raise RequestError(
                    f"model.field={name} cannot be evaluated for many series at once: {registry.describe(error)}\n"
                    "  Write it without branches on numbers: torch.where(t > 3, a, b)."
                ) from error
        return own(**(options or {}))
    check_no_options(options)
    return fields.field_class(name)()


MODEL = Fit
