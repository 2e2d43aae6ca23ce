"""A parametric ODE and the least-squares problem of fitting it to observed series.

The derivatives of the path by the parameters are central differences of copies that are solved together, with the same
steps ("internal numerical differentiation", Bock 1981): they are those of one smooth function, to about 1e-9. Copies
cost the width of a state, not solver steps; a torch.func Jacobian in the field took five times as long (6 parameters).
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
from odenet_cli.models.common.bounds import derivative, from_free, to_free
from odenet_cli.models.common.fit_keys import bounds_of, check_names, flat_names, start_of
from odenet_cli.models.common.fit_start import find_start
from odenet_cli.models.common.levenberg_marquardt import relative_offset
from odenet_cli.models.common.own_field import check_no_options, try_field
from odenet_cli.ode import Solver

Y0, NOISES = ("fitted", "first"), ("column", "common", "log")
STEP = torch.finfo(torch.float64).eps ** (1 / 3)  # of a central difference, relative
FAR = 1e8  # times the scale of a state: so far out a path is held, and costs no steps
MAX_NAMES = 12  # in the banner
MAX_NUMBERS = 2**25  # of the paths of one solve
EXACT = 1e-14  # share of the variance
SIGMA_FLOOR = 1e-9  # of a column's own standard deviation
SIGMA_TOLERANCE = 1e-4  # relative


class Fit(nn.Module):
    """Hold the field with its parameters, and the state of each series at its beginning.

    shape (S, C): series, and columns of values. `initial` (S, D) are the states at the beginning; `columns` (C,) the
    state that each column shows; `scale` (D,) a size of each state; `deviation` (C,) the standard deviation of the
    observations, and `sigma` (C,) that by which residuals are divided. A free vector u (p + S·d,) holds, transformed
    where they have bounds, the parameters that are fitted and then, series by series, the states that are.
    """

    columns: Tensor
    free: Tensor
    free_states: Tensor
    low: Tensor
    high: Tensor
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
        super().__init__()
        if len(shape) != 2 or classes:
            raise ValueError("model=fit is for tables of series: data=table data.path=FILE.")
        if not field:
            named = ", ".join(fields.names())
            raise ValueError(f"model.field is missing: {named}, or package.module:Class, an equation of your own.")
        for key, value, choices in (("y0", y0, Y0), ("noise", noise, NOISES)):
            registry.require(f"model.{key}", value, choices)
        if starts < 1:
            raise ValueError(f"model.starts={starts} must be at least 1.")
        series, columns = shape
        self.solver, self.y0, self.noise, self.starts = solver, y0, noise, starts
        self.field = load_field(field, field_args, columns).double()  # float32 would round what is known of it
        self.names = flat_names(self.field)
        if not self.names:
            raise ValueError(f"model.field={field} has no parameters: there is nothing to fit.")
        self.states = tuple(getattr(self.field, "states", None) or (f"y{n + 1}" for n in range(columns)))
        self.observed = observed
        _check_columns(columns, self.states, observed)
        known = dict.fromkeys((*dict(self.field.named_parameters()), *self.states))
        check_names(known, start=start, bounds=bounds, fixed=fixed)
        self.fixed = fixed
        self.start = start_of(self.field, self.states, start or {})
        both = bounds_of(self.field, self.names, self.states, bounds or {}, start or {})
        self.register_buffer("low", torch.tensor([low for low, _ in both], dtype=torch.float64), persistent=False)
        self.register_buffer("high", torch.tensor([high for _, high in both], dtype=torch.float64), persistent=False)
        free = [name.partition("[")[0] not in (fixed or ()) for name in self.names]
        self.register_buffer("free", torch.tensor(free), persistent=False)
        self.register_buffer("columns", torch.zeros(columns, dtype=torch.long))
        self.register_buffer("free_states", torch.ones(len(self.states), dtype=torch.bool))
        self.register_buffer("scale", torch.ones(len(self.states)))
        self.register_buffer("sigma", torch.ones(columns))
        self.register_buffer("deviation", torch.ones(columns))
        self.initial = nn.Parameter(torch.zeros(series, len(self.states)))
        self.broadcasts: bool | None = None  # the field takes many copies as they are
        self.begun: str | None = None  # what found the start, where that is not the one that was given
        self.linear: tuple[Any, Tensor, Tensor, Tensor] | None = None

    # What a fit begins with.

    def start_from(self, problem: Any, names: Sequence[str], seed: int) -> None:
        """Set what follows from the observations, then parameters to begin with.

        problem, names  `data.observations.Observations`, and the names of its columns
        """
        self._assign_columns(names)
        self._check_values(problem, names)
        fitted = self.fitted(problem, every=True)
        values = torch.where(fitted, problem.values, torch.nan)
        size = values.abs().nan_to_num().amax((0, 1))
        with torch.no_grad():
            for n, state in enumerate(self.states):
                shown = (self.columns == n).nonzero().flatten().tolist()
                usual = float(size[shown[0]] if shown else size.max()) or 1.0
                self.scale[n] = usual
                given = self.start.get(state)
                self.initial[:, n] = usual if given is None else given
                if shown and (given is None or self.y0 == "first"):
                    self.initial[:, n] = _first(values[..., shown[0]])
                low, high = self.low[len(self.names) + n], self.high[len(self.names) + n]
                edge = 1e-3 * usual  # what is observed at a bound, such as a count of 0, is begun beside it
                inside = self.initial[:, n].clamp(low + edge, high - edge)
                self.initial[:, n] = torch.where(self.free_states[n], inside, self.initial[:, n])
            known = ~self.compared(values).isnan()
            self.deviation.copy_(_deviations(self.compared(values), known))
            self.sigma.copy_(self.deviation.mean() if self.noise == "common" else self.deviation)
        count, p = int(self.fitted(problem).sum()), self.count(problem)
        if count <= p:
            raise RequestError(
                f"{count} observed values do not determine {p} numbers ({', '.join(self.free_names(['…'])[:8])}).\n"
                "  Take more data, hold some of them at their start (model.fixed=[NAME]), or take the states at the "
                "beginning as they were observed (model.y0=first)."
            )
        if self.starts > 1:
            self.begun = find_start(self, problem, seed)

    def _assign_columns(self, names: Sequence[str]) -> None:
        """Say which state each column shows: by `observed`, by name, or in order."""
        lower = [state.lower() for state in self.states]
        shown = self.observed
        if shown is None and all(name.lower() in lower for name in names):
            shown = [self.states[lower.index(name.lower())] for name in names]
        if shown is None and len(names) == len(self.states):
            shown = list(self.states)
        if shown is None:
            raise RequestError(
                f"the columns {', '.join(names)} show some of the states {', '.join(self.states)}, and it is not known "
                f"which.\n  Say for each column its state: model.observed=[{', '.join(self.states[: len(names)])}], or "
                "choose other columns: data.values=[…]."
            )
        self.columns.copy_(torch.tensor([self.states.index(state) for state in shown]))
        fixed = self.fixed
        if fixed is None:
            fixed = [state for state in getattr(self.field, "fixed", ()) if state not in shown]
        for n, state in enumerate(self.states):
            self.free_states[n] = state not in fixed and not (self.y0 == "first" and state in shown)

    def _check_values(self, problem: Any, names: Sequence[str]) -> None:
        """Raise RequestError for values that the model cannot have."""
        for c, name in enumerate(names):
            column = problem.values[..., c]
            if self.noise == "log" and bool((column <= 0).any()):
                raise RequestError(
                    f"model.noise=log compares logarithms, and column {name} has values of 0 or below: "
                    f"{float(column.nan_to_num(torch.inf).min()):g}. Take model.noise=column."
                )
            if self.y0 == "first" and bool(column[:, 0].isnan().any()):
                raise RequestError(
                    f"model.y0=first takes the states at the beginning from the first row of each series, and {name} "
                    "is missing there. Take model.y0=fitted, or take out the row."
                )

    # The free vector.

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """Bounds of the states, (D,) each."""
        return self.low[len(self.names) :], self.high[len(self.names) :]

    def natural(self) -> Tensor:
        """Return all parameters of the field, (P,)."""
        return torch.cat([weight.detach().flatten() for weight in self.field.parameters()])

    @property
    def about(self) -> str:
        """What is fitted, and where the start came from, for the reader."""
        names = self.free_names([""])
        listed = ", ".join(names[:MAX_NAMES]) + (", …" if len(names) > MAX_NAMES else "")
        start = f"; begun by {self.begun}" if self.begun else ""
        return f"fitted are {listed}{' of each series' if len(self.initial) > 1 else ''}{start}"

    def count(self, problem: Any) -> int:
        """Return the length of a free vector."""
        return int(self.free.sum()) + len(problem.series) * int(self.free_states.sum())

    def free_names(self, series: Sequence[str]) -> list[str]:
        """Return the names of the numbers in a free vector; with several series, a state's has that of its series."""
        shared = [name for name, free in zip(self.names, self.free.tolist()) if free]
        states = [name for name, free in zip(self.states, self.free_states.tolist()) if free]
        return shared + [f"{state}(0)" + (f" of {s}" if len(series) > 1 else "") for s in series for state in states]

    def get_free(self, problem: Any) -> Tensor:
        """Return the free vector of the present parameters."""
        count, (low, high) = len(self.names), self.bounds
        shared = to_free(self.natural(), self.low[:count], self.high[:count])[self.free]
        states = to_free(self.initial.detach()[problem.series], low, high)[:, self.free_states]
        return torch.cat((shared, states.flatten()))

    @torch.no_grad()
    def set_free(self, problem: Any, u: Tensor) -> None:
        """Set the parameters from a free vector."""
        theta, initial = (part[0] for part in self.split_free(problem, u[None]))
        place = 0
        for weight in self.field.parameters():
            weight.copy_(theta[place : place + weight.numel()].view_as(weight))
            place += weight.numel()
        self.initial[problem.series] = initial

    def split_free(self, problem: Any, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return parameters (K, P) and states at the beginning (K, S, D) of free vectors (K, p + S·d)."""
        count, p, (low, high) = len(self.names), int(self.free.sum()), self.bounds
        theta = self.natural().repeat(len(u), 1)
        theta[:, self.free] = from_free(u[:, :p], self.low[:count][self.free], self.high[:count][self.free])
        initial = self.initial.detach()[problem.series].repeat(len(u), 1, 1)
        states = u[:, p:].reshape(len(u), len(problem.series), -1)
        initial[..., self.free_states] = from_free(states, low[self.free_states], high[self.free_states])
        return theta, initial

    def slopes(self, problem: Any) -> Tensor:
        """Return the derivative of each fitted number by its place in the free vector, (p + S·d,)."""
        count, (low, high) = len(self.names), self.bounds
        shared = derivative(self.natural(), self.low[:count], self.high[:count])[self.free]
        states = derivative(self.initial.detach()[problem.series], low, high)[:, self.free_states]
        return torch.cat((shared, states.flatten()))

    # Paths and residuals.

    def paths(self, problem: Any, theta: Tensor, initial: Tensor) -> Tensor:
        """Return the states (K, S, T, D) at the series' times, of copies with parameters (K, P), states (K, S, D)."""
        copies, series = initial.shape[:2]
        ends = problem.times.new_tensor([0.0, 1.0])
        times, place = torch.unique(torch.cat((problem.times.flatten(), ends)), return_inverse=True)
        at_once = max(1, MAX_NUMBERS // (copies * len(times) * initial.shape[2]))
        if series > at_once:  # each part has fewer times
            rows = [type(problem)(*part) for part in zip(*(torch.split(x, at_once) for x in problem))]
            some = torch.split(initial, at_once, 1)
            return torch.cat([self.paths(part, theta, y) for part, y in zip(rows, some)], 1)
        y = self.solve(problem, theta, initial, times, self.solver)
        index = place[: problem.times.numel()].view(1, series, -1, 1).expand(copies, -1, -1, y.shape[3])
        return y.gather(2, index)

    def solve(self, problem: Any, theta: Tensor, initial: Tensor, times: Tensor, solver: Any) -> Tensor:
        """Return the states (K, S, M, D) at parts (M,) of each series' time."""
        copies, series, size = initial.shape
        begins, lasts = (x.repeat(copies) for x in (problem.begins, problem.lasts))
        evaluate = self.copies(theta.repeat_interleave(series, 0))

        def vector_field(s: Tensor, z: Tensor) -> Tensor:
            # Every series goes from 0 to 1, so that none is solved beyond its end.
            slope = evaluate(begins + s * lasts, z * self.scale) * lasts[:, None] / self.scale
            return torch.where(z.abs().amax(1, keepdim=True) > FAR, 0.0, slope)

        y = solver(vector_field, initial.reshape(-1, size) / self.scale, times).y * self.scale
        return y.view(len(times), copies, series, size).permute(1, 2, 0, 3)

    def copies(self, theta: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """Return the field of copies with parameters (M, P), a function of times (M,) and states (M, D).

        A field is written for one state. Most take numbers with a dimension more as they are, and are called once for
        all copies; `vmap`, which does that with any field, made a fit take 2.2 times as long.
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
        """Return (predicted - observed) / sigma of the values that are fitted, (n,)."""
        vector = self.get_free(problem)[None]
        return self.path_residuals(problem, self.paths(problem, *self.split_free(problem, vector)))[0]

    @torch.no_grad()
    def linearise(self, problem: Any) -> tuple[Tensor, Tensor]:
        """Return the residuals (n,) and their derivatives by the free vector, (n, p + S·d).

        What a step has tried and taken is not computed again.
        """
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
        place = p + own * fitted.nonzero()[:, :1] + torch.arange(own, device=local.device)
        jacobian.scatter_(1, place, local[:, p:])
        return self.path_residuals(problem, path[None])[0], jacobian

    @torch.no_grad()
    def sensitivities(self, problem: Any) -> tuple[Tensor, Tensor]:
        """Return the states (S, T, D), and the derivatives of what is compared (S, T, C, p + d).

        Those of a series are by the parameters, and by the states at its own beginning.
        """
        u, p, series = self.get_free(problem), int(self.free.sum()), len(problem.series)
        at = torch.cat((u[:p].expand(series, p), u[p:].view(series, -1)), 1)
        count = at.shape[1]
        steps = STEP * torch.where(self.has_bounds(), at.abs().clamp_min(1), torch.where(at == 0, 1.0, at.abs()))
        # A copy moves a parameter, or one state of every series at once: each path has its own. Parameters are shared.
        steps[:, :p] = steps[:1, :p]
        moves = torch.eye(count, dtype=at.dtype, device=at.device)[:, None] * steps
        moved = at + torch.cat((torch.zeros_like(moves[:1]), moves, -moves))
        vectors = torch.cat((moved[:, 0, :p], moved[:, :, p:].flatten(1)), 1)
        paths = self.paths(problem, *self.split_free(problem, vectors))
        compared = self.compared(paths[..., self.columns])
        difference = (compared[1 : count + 1] - compared[count + 1 :]).movedim(0, -1)
        return paths[0], difference / (2 * steps)[:, None, None]

    def has_bounds(self) -> Tensor:
        """Return which of the numbers of a series' free vector, (p + d,), are logarithms or logits."""
        bounded = self.low.isfinite() | self.high.isfinite()
        names = len(self.names)
        return torch.cat((bounded[:names][self.free], bounded[names:][self.free_states]))

    def path_residuals(self, problem: Any, path: Tensor) -> Tensor:
        """Return the residuals of copies (K, n) from their paths (K, S, T, D)."""
        difference = self.compared(path[..., self.columns]) - self.compared(problem.values)
        return (difference / self.sigma)[:, self.fitted(problem)]

    def weights(self, problem: Any) -> Tensor:
        """Return what makes residuals (n,) the roots of their shares in the variance of the observations."""
        column = self.fitted(problem).nonzero()[:, 2]
        return (self.sigma / self.deviation)[column] / len(column) ** 0.5

    def is_exact(self, problem: Any, r: Tensor) -> bool:
        """Return whether residuals are no larger than the solver's error; no step can tell what makes them smaller."""
        left = float((r * self.weights(problem)).square().sum())
        return left < max(EXACT, 100 * (getattr(self.solver, "rtol", 0) or 0) ** 2)

    def offset(self, problem: Any) -> float | None:
        """Return the relative offset from the minimum; None where residuals are the solver's error."""
        r, jacobian = self.linearise(problem)
        return None if self.is_exact(problem, r) else relative_offset(r, jacobian)

    def compared(self, values: Tensor) -> Tensor:
        """Return what is compared of values, (*S, C)."""
        return values.log() if self.noise == "log" else values

    def fitted(self, problem: Any, every: bool = False) -> Tensor:
        """Return which values are fitted, (S, T, C); `every`: also those that states begin with by `y0=first`."""
        fitted = ~problem.held_out[..., None] & ~problem.values.isnan()
        if self.y0 == "first" and not every:
            fitted[:, 0] = False
        return fitted

    @torch.no_grad()
    def reweigh(self, problem: Any, r: Tensor) -> bool:
        """Set `sigma` to what the residuals say; return whether it moved: the fit is then not done.

        Each column then counts by its own precision, as in maximum likelihood with a variance a column. The degrees of
        freedom are shared by the columns as the values are.
        """
        if self.noise == "common" or len(self.sigma) == 1:
            return False
        column = self.fitted(problem).nonzero()[:, 2]
        squares = torch.zeros_like(self.sigma).index_add(0, column, r.square())
        counts = torch.zeros_like(self.sigma).index_add(0, column, torch.ones_like(r))
        ratio = (squares / (counts * (1 - self.count(problem) / len(r)))).sqrt().nan_to_num(1.0)
        sigma = torch.maximum(self.sigma * ratio, SIGMA_FLOOR * self.deviation)
        moved = float((sigma / self.sigma).log().abs().max())
        self.sigma.copy_(sigma)
        return moved > SIGMA_TOLERANCE


def load_field(name: str, options: Mapping[str, Any] | None, columns: int) -> nn.Module:
    """Return the field of that name, or the user's own, called once; without `states` it has those observed."""
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


def _check_columns(count: int, states: Sequence[str], observed: list[str] | None) -> None:
    """Raise ValueError unless `observed` names a state for each of the table's columns."""
    for name in observed or ():
        registry.require("model.observed", name, states)
    if observed is not None and len(observed) != count:
        raise ValueError(
            f"model.observed={observed} names {len(observed)} states, and the table has {count} columns of values. "
            "Choose columns by data.values=[…]."
        )
    if observed is None and count > len(states):
        raise ValueError(
            f"the table has {count} columns of values, and the field {len(states)} states ({', '.join(states)}).\n"
            "  Choose columns: data.values=[…], or say which state each shows: model.observed=[…]."
        )


def _first(values: Tensor) -> Tensor:
    """Return the first value that is not missing of each row of (S, T), (S,); of a row without any the mean of all."""
    known = ~values.isnan()
    first = values.gather(1, known.to(torch.uint8).argmax(1, keepdim=True)).squeeze(1)
    return torch.where(known.any(1), first, values.nanmean())


def _deviations(values: Tensor, known: Tensor) -> Tensor:
    """Return the standard deviation of each column of (S, T, C), (C,); 1 where there is none."""
    columns = [values[..., c][known[..., c]] for c in range(values.shape[2])]
    deviations = torch.stack([x.std(correction=0) if len(x) else x.new_zeros(()) for x in columns])
    return torch.where(deviations > 0, deviations, 1.0)


MODEL = Fit
