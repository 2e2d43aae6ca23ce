"""Name the error in the backward pass of a solve, if the exact gradient of its steps is reliable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode import Solver
from odenet_cli.ode.gradient import exact_gradients
from odenet_cli.ode.gradient.adjoint import Adjoint
from odenet_cli.ode.problem import Problem
from odenet_cli.training.certificate.measure import CURED, Cause, Check, named, percent
from odenet_cli.training.exact_gradient.reference_gradient import Gradient
from odenet_cli.training.exact_gradient.step_replay import SolvedBy

TIGHTER = 1e-2  # tighter by this factor
MAX_STEPS = 60  # of a solve at that tolerance
MAX_GROUPS = 8  # of output times through which a gradient enters
OPPOSITE = -0.7  # cosine of the angle between a tensor's gradient and the exact one


def time_held(gradient: Any) -> SolvedBy:
    """Solve by a gradient method, with the field's time fixed at the middle of the solve."""

    def solve(problem: Problem) -> tuple[Tensor, ...]:
        field, middle = problem.rhs.field, (problem.ts[0] + problem.ts[-1]) / 2
        problem.rhs.field = lambda t, y, *args: field(torch.full_like(t, middle), y, *args)
        outputs: tuple[Tensor, ...] = gradient.solve(problem)
        return outputs

    return SolvedBy(solve)


def outputs_cut(gradient: Any, keep: Callable[[int, int], bool]) -> SolvedBy:
    """Solve by a gradient method, but let gradients enter only at the kept outputs.

    keep  is called with the index of an output and their number
    """

    def solve(problem: Problem) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = gradient.solve(problem)
        if problem.ends_only:
            return outputs if keep(1, 2) else tuple(part.detach() for part in outputs)
        count = len(problem.ts)
        rows = [[row if keep(j, count) else row.detach() for j, row in enumerate(part)] for part in outputs]
        return tuple(torch.stack(part) for part in rows)

    return SolvedBy(solve)


def rounding(check: Check) -> Cause | None:
    """Name the precision as the cause if the same backward pass is right in float64."""
    if check.own_dtype == torch.float64 or not check.right(check.own_by(check.solver, torch.float64)):
        return None
    return Cause(
        "rounding",
        "the same backward pass is right in float64: float32 is not accurate enough for it. Use dtype=float64, or "
        f"{exact_gradients(check.solver.formulas)}",
    )


def tolerance(check: Check) -> Cause | None:
    """Name the loose tolerance, of the backward or the forward solve, if a tighter one removes the error."""
    gradient = check.solver.gradient_method
    if not isinstance(gradient, Adjoint):
        return None
    if gradient.norm != "relative":
        error = check.error_by(replace(gradient, norm="relative"))
        if error < CURED * check.error:
            return Cause(
                "loose tolerance",
                f"gradient.norm={gradient.norm} measures the backward solve's error by its absolute tolerance, too "
                f"loose for a loss of this scale; with gradient.norm=relative it is {percent(error)} off",
            )
    backward = gradient.solver or replace(check.solver, gradient="backprop")
    tight = tighter(backward)
    if (error := check.error_by(replace(gradient, solver=tight))) < CURED * check.error:
        return Cause(
            "loose tolerance",
            f"the backward solve is too loose; with gradient.solver.{spelled(tight)} it is {percent(error)} off",
        )
    # The remaining error is the difference between the gradient of the equation and that of these steps.
    fine = tighter(check.solver)
    both = replace(fine, gradient=replace(gradient, solver=replace(tight, **accuracy(fine))))
    if (error := Check(check.objective, both).off_exact) < CURED * check.error:
        return Cause(
            "loose tolerance",
            "the adjoint is the gradient of the differential equation, which these steps solve too inaccurately; "
            f"with solver.{spelled(fine)} and the same backward it is {percent(error)} off; "
            f"{exact_gradients(check.solver.formulas)} is exact for the steps",
        )
    return None


def time(check: Check) -> Cause | None:
    """Name time as the cause if the gradient is right with the field's time held constant."""
    own = check.own_by(replace(check.solver, gradient=time_held(check.solver.gradient_method)))
    exact = check.exact_by(time_held)
    if not (own - exact).norm() < CURED / 3 * check.error * exact.norm():
        return None
    return Cause(
        "time",
        "with the field's time held constant the gradient is right: the backward pass evaluates the field at other "
        f"times than the forward one, reversed or shifted. {exact_steps(check)}",
    )


def sign(check: Check) -> Cause | None:
    """Name tensors whose gradient has the opposite direction."""
    against = []
    for name, part in check.own.parts.items():
        exact = check.exact.parts[name]
        size = float(part.norm() * exact.norm())
        if size and float((part * exact).sum()) < OPPOSITE * size:
            against.append(name)
    if not against or not check.cures({name: -check.own.parts[name] for name in against}):
        return None
    return Cause(
        "wrong sign",
        f"the gradient of {named(against)} has the opposite direction: a sign is wrong. {exact_steps(check)}",
    )


def outputs(check: Check) -> Cause | None:
    """Name output times whose gradient enters with another weight than 1, by least squares over their contributions."""
    share = shares_of_outputs(check)
    if not share:  # no gradient enters through an output of a solve: the error lies elsewhere
        return None
    columns = torch.stack([flat(each) for each in share], 1)
    wrong = flat(check.own - check.exact)
    weights = torch.linalg.lstsq(columns, wrong[:, None], driver="gelsd").solution[:, 0] if columns.is_cpu else None
    if weights is None or float((columns @ weights - wrong).norm()) > CURED * float(wrong.norm()):
        return None
    if len(share) > 1 and float(weights[-1].abs()) < 0.1:
        weight = float(weights[:-1][weights[:-1].abs().argmax()]) + 1
        where = f"an output time before the last enters {weight:.2g} times instead of once"
    else:
        where = f"the last output time enters {float(weights[-1]) + 1:.2g} times instead of once"
    return Cause("wrong jump", f"the gradient of {where}: the adjoint's jump there is wrong. {exact_steps(check)}")


def shares_of_outputs(check: Check) -> list[Gradient]:
    """Return the non-zero exact gradients through each group of output times; the last time is its own group."""
    last = min(MAX_GROUPS, max(each.outputs for each in check.looks) - 1)

    def through(groups: int) -> Gradient:
        def keep(j: int, count: int) -> bool:
            group = last - 1 if j == count - 1 else j * (last - 1) // (count - 1)
            return group < groups

        return check.exact_by(lambda plain: outputs_cut(plain, keep))

    gradients = [through(groups) for groups in range(last + 1)]
    return [share for before, now in pairwise(gradients) if (share := now - before).norm() > 0]


def flat(gradient: Gradient) -> Tensor:
    """Return a gradient as one vector."""
    return torch.cat([part.flatten() for part in gradient.parts.values()])


def tighter(solver: Solver) -> Any:
    """Return the solver at a tighter tolerance that float32 still resolves, or with more steps."""
    changes: dict[str, Any] = {
        name: 10 * value if name == "steps" else max(min(value, 1e-6), TIGHTER * value)
        for name, value in accuracy(solver).items()
    }
    if hasattr(solver, "max_steps"):  # bounds the time of a trial
        changes["max_steps"] = min(solver.max_steps, MAX_STEPS)
    return replace(solver, **changes)


def exact_steps(check: Check) -> str:
    """Describe the gradients that differentiate the steps of the check's solver."""
    return f"{exact_gradients(check.solver.formulas)} differentiates the steps themselves"


def accuracy(solver: Solver) -> dict[str, float]:
    """Return the tolerances of a solver, or its number of steps."""
    return {name: getattr(solver, name) for name in ("rtol", "atol", "steps") if hasattr(solver, name)}


def spelled(solver: Solver) -> str:
    """Return the accuracy of a solver as an override on the command line."""
    name, value = next(iter(accuracy(solver).items()))
    return f"{name}={value:g}"
