"""Solve a run's problem by other libraries: its own vector field, on samples of its own training data.

Each library's solver replaces that of the network; the loss and its differentiation by autograd are the run's own.
States and gradients are compared with a far finer solve in float64. For a library without gradients of torch fields
the gradient is checked by finite differences of its loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any, NamedTuple, Protocol

import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn

from odenet_cli.analysis.doctor import Calls
from odenet_cli.analysis.gradcheck import RANDOM
from odenet_cli.analysis.trained import Trained
from odenet_cli.errors import RequestError
from odenet_cli.ode import Adaptive, Solution, Solver, Stats, tally
from odenet_cli.training.exact_gradient.model_contexts import Objective
from odenet_cli.training.exact_gradient.reference_gradient import (
    compute_gradient,
    finite_difference_error,
    gradient_of_equation,
    record_steps,
)

SCIPY = {"bosh3": "RK23", "dopri5": "RK45", "dopri8": "DOP853"}
MAX_EVALUATIONS = 1_000_000  # of a witness, at most, so that a solve that does not end raises an error
RELATIVE_SHIFT = 1e-3  # of the parameters in finite differences of a loss whose solver chooses its steps anew


class MakeSolve(Protocol):
    """Make a solve of the flat `field(t (), y (N,)) -> (N,)` over `ts`: y0 (N,) -> (N,), or (T, N) for more times."""

    def __call__(
        self, field: nn.Module, ts: Sequence[float], *, method: str, rtol: float, atol: float
    ) -> Callable[[Tensor], Tensor]: ...


class Witness(NamedTuple):
    """Hold the solver of another library: its name, how solves are made, and whether they have gradients."""

    name: str
    make: MakeSolve
    differentiates: bool = True


class Row(NamedTuple):
    """Hold the differences of a solver from the reference.

    state_max, state  largest difference of a state, and the relative one in the 2-norm, over all outputs of all solves
    gradient          relative difference in the 2-norm; None if there is no gradient
    failed            reason why there are no numbers
    """

    solver: str
    cost: Stats | None = None
    state_max: float | None = None
    state: float | None = None
    gradient: float | None = None
    failed: str | None = None

    def record(self, tight: float | None) -> dict[str, Any]:
        """Return the row flat, for a file; without `tight` it belongs to the run's own tolerance."""
        row = self._asdict()
        return {"rtol": tight, **{name: row[name] for name in row if name != "cost"}, **vars(row["cost"] or Stats())}


class FlatField(nn.Module):
    """Evaluate `field` on a state given as one vector, for times of any shape, and count the evaluation in `stats`.

    Libraries look for parameters in a module: for another callable it is the module that it holds or is a method of.
    """

    def __init__(self, field: Any, like: Sequence[Tensor], single: bool, args: Sequence[Any], stats: Stats) -> None:
        super().__init__()
        known = (field, getattr(field, "field", None), getattr(field, "__self__", None))
        self.held = next((module for module in known if isinstance(module, nn.Module)), None)
        self.call, self.args = [field], tuple(args)  # in a list: a module would be registered twice
        self.shapes, self.single, self.stats, self.solved = [part.shape for part in like], single, stats, False

    def split(self, y: Tensor) -> Any:
        """Return a vector, or vectors (T, N), in the form of the state."""
        sizes = [shape.numel() for shape in self.shapes]
        parts = [part.reshape(*y.shape[:-1], *shape) for part, shape in zip(torch.split(y, sizes, -1), self.shapes)]
        return parts[0] if self.single else tuple(parts)

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        if self.solved:
            self.stats.nfe_backward += 1
        else:
            self.stats.nfe_forward += 1
        if self.stats.nfe > MAX_EVALUATIONS:
            raise RuntimeError(f"not done after {MAX_EVALUATIONS:,} evaluations")
        dy = self.call[0](t.reshape(-1)[0].to(y.dtype), self.split(y.reshape(-1)), *self.args)
        return flat(dy).reshape(y.shape)


class Foreign:
    """Replace a network's solver by that of another library. `states` are the outputs, in parts."""

    def __init__(self, make: MakeSolve, like: Adaptive) -> None:
        self.make = make
        self.settings: dict[str, Any] = {"method": like.method, "rtol": like.rtol, "atol": like.atol}
        self.states: list[Sequence[Tensor]] = []

    def __call__(self, field: Any, y0: Any, ts: Any, args: Any = (), parameters: Any = ()) -> Solution:
        stats, single = Stats.begin(), isinstance(y0, Tensor)
        flat_field = FlatField(field, (y0,) if single else y0, single, args, stats)
        y = self.make(flat_field, [float(t) for t in ts], **self.settings)(flat(y0))
        flat_field.solved = True
        solution = Solution(flat_field.split(y), stats)
        self.states.append([part.detach() for part in ((solution.y,) if single else solution.y)])
        return solution


def tightened(solver: Solver, tolerance: float) -> Adaptive:
    """Return `solver` at another tolerance, also backward; for fixed steps return dopri5 with the same gradient."""
    gradient: Any = solver.gradient
    if getattr(gradient, "solver", None) is not None:
        gradient = replace(gradient, solver=None)
    if isinstance(solver, Adaptive):
        return replace(solver, rtol=tolerance, atol=tolerance, gradient=gradient, max_steps=MAX_EVALUATIONS)
    return Adaptive(method="dopri5", rtol=tolerance, atol=tolerance, gradient=gradient, max_steps=MAX_EVALUATIONS)


def flat(state: Any) -> Tensor:
    """Return a tensor, or a tuple of them, as one vector."""
    return torch.cat([part.reshape(-1) for part in ((state,) if isinstance(state, Tensor) else state)])


def scipy_solve(
    field: nn.Module, ts: Sequence[float], *, method: str, rtol: float, atol: float
) -> Callable[[Tensor], Tensor]:
    """Return a solve, without gradients, by `scipy.integrate.solve_ivp`; by RK45 if it lacks the method."""

    @torch.no_grad()
    def solve(y0: Tensor) -> Tensor:
        def f(t: float, y: Any) -> Any:
            return field(torch.tensor(t).to(y0), torch.from_numpy(y).to(y0)).cpu().numpy()

        start, name = y0.detach().cpu().numpy(), SCIPY.get(method, "RK45")
        result = solve_ivp(f, (ts[0], ts[-1]), start, method=name, t_eval=ts, rtol=rtol, atol=atol)
        if not result.success:
            raise RuntimeError(result.message)
        y = torch.from_numpy(result.y.T).to(y0)
        return y if len(ts) > 2 else y[-1]

    return solve


def one_vector(states: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return all outputs of all solves as one vector in float64."""
    return torch.cat([part.reshape(-1).double() for parts in states for part in parts])


def states_of(objective: Objective, solver: Any) -> list[Sequence[Tensor]]:
    """Return the states of the solves of a loss, without gradients."""
    calls = Calls()
    watched: Any = solver if isinstance(solver, Foreign) else calls.watching(solver)
    objective(watched)
    return solver.states if isinstance(solver, Foreign) else calls.states


class Comparison:
    """Hold the first samples of a run's training data, and the reference: gradient and states at `reference`.

    The network is in training mode; its random numbers are the same for all solvers.
    """

    def __init__(self, net: Trained, solver: Solver, samples: int, reference: float) -> None:
        batch = next(islice(net.data.train.unshuffled(samples).epoch(0), 1))
        self.objective, self.solver = Objective(net.model.train(), net.loss_fn, batch), solver
        self.dtype = next(net.model.parameters()).dtype
        if record_steps(self.objective, solver).random:
            raise RequestError(f"{RANDOM}, so libraries cannot be compared.")
        self.exact = gradient_of_equation(self.objective, reference)
        fine = Adaptive(method="dopri5", rtol=reference, atol=reference, max_steps=MAX_EVALUATIONS)
        with self.objective.in_dtype(torch.float64) as objective, torch.no_grad():
            self.states = one_vector(states_of(objective, fine))

    def distance(self, finer: Comparison) -> float:
        """Return the larger of the relative differences of states and gradient from a finer reference."""
        states = (self.states - finer.states).norm() / finer.states.norm()
        return max(float(states), self.exact.error(finer.exact))

    def rows(self, witnesses: Sequence[Witness], tight: float | None = None) -> Iterator[Row]:
        """Yield the rows of the run's own solver and the witnesses; at its tolerance, or a `tight` one in float64."""
        solver = self.solver if tight is None else tightened(self.solver, tight)
        dtype = self.dtype if tight is None else torch.float64
        yield self.own(solver, dtype)
        if isinstance(solver, Adaptive):  # fixed steps have no tolerance to pass on to others
            for witness in witnesses:
                yield self.foreign(witness, solver, dtype, differences=tight is not None)

    def own(self, solver: Solver, dtype: torch.dtype) -> Row:
        calls = Calls()
        with self.objective.in_dtype(dtype) as objective:
            gradient = compute_gradient(objective, calls.watching(solver))
        return self._row("odenet", gradient.cost, calls.states, gradient.error(self.exact))

    def foreign(self, witness: Witness, like: Adaptive, dtype: torch.dtype, differences: bool) -> Row:
        """Return the row of another library's solver with the method and the tolerance of ours.

        differences  without a gradient compare the reference with finite differences of its loss, in a few directions
        """
        solver, error = Foreign(witness.make, like), None
        try:
            with self.objective.in_dtype(dtype) as objective:
                if witness.differentiates:
                    own = compute_gradient(objective, solver)  # type: ignore[arg-type]
                    return self._row(witness.name, own.cost, solver.states, own.error(self.exact))
                with torch.no_grad(), tally() as solves:
                    states_of(objective, solver)
            if differences:
                again: Any = partial(Foreign, witness.make, like)
                error = finite_difference_error(self.objective, again, self.exact, RELATIVE_SHIFT)
        except Exception as raised:  # other libraries may raise anything
            return Row(witness.name, failed=f"{type(raised).__name__}: {' '.join(str(raised).split())}"[:100])
        return self._row(witness.name, sum(solves, start=Stats()), solver.states, error)

    def _row(self, name: str, cost: Stats, states: Sequence[Any], gradient: float | None) -> Row:
        difference, size = one_vector(states) - self.states, self.states.norm()
        return Row(name, cost, difference.abs().max().item(), (difference.norm() / size).item(), gradient)
