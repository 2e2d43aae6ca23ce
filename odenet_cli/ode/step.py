"""One Runge-Kutta step: a function of tensors, the same run eagerly, compiled, and taken again backward."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from odenet_cli.ode.state import State, Time, VectorField, combine, weighted_sum
from odenet_cli.ode.tableau import OneStepMethod, Tableau


class Step(NamedTuple):
    """Hold the outcome of one step from `t` to `t + h`.

    y            state at t + h
    k            derivatives at the stages, f0 first; compiled steps of which no more is needed have f0 and the last, or
                 f0 alone, and multistep methods the evaluations of their corrector
    f1           derivative at (t + h, y), where the method evaluates it (FSAL): the next step's f0
    error_ratio  the error in units of the tolerance, where a compiled kernel has computed it
    """

    y: State
    k: list[State]
    f1: State | None = None
    error_ratio: Any = None


def rk_step(
    tableau: Tableau,
    f: VectorField,
    t: Time,
    y: State,
    h: Time,
    f0: State,
    *,
    with_f1: bool = True,
    n_dynamic: int | None = None,
) -> Step:
    """Advance `y` from `t` to `t + h` by one Runge-Kutta step, given `f0 = f(t, y)` (Hairer II.1).

    t, h       floats; or 0-d tensors, for a compiler
    with_f1    evaluate f at the new point too, where the method is FSAL
    n_dynamic  f is called with y[:n_dynamic] alone, the other tensors are quadratures
    """
    # A list of stages, each a state of its own: zero weights are skipped, and no stage is copied into a larger tensor.
    k, y_stage = [f0], y
    for i, (c, row) in enumerate(tableau.rows[1:], start=1):
        # Y_i = y + h Σ_j a_ij k_j and k_i = f(t + c_i h, Y_i), for i = 2 … s: k_1 is f0.
        y_stage = combine(y[:n_dynamic], h, row, k)
        # The last stage of an FSAL method is f1, with no weight in the solution, only in the error.
        if i < tableau.stages - 1 or with_f1 or not tableau.fsal:
            k.append(f(t + c * h, y_stage, tableau.used_stages[i]))

    # FSAL: the last stage already is the solution, except for quadratures, which no stage carries.
    if not tableau.fsal:
        y1 = combine(y, h, tableau.solution_weights, k)
    elif n_dynamic is None:
        y1 = y_stage
    else:
        quadratures = combine(y[n_dynamic:], h, tableau.solution_weights, [stage[n_dynamic:] for stage in k])
        y1 = (*y_stage, *quadratures)

    return Step(y1, k, k[-1] if tableau.fsal and with_f1 else None)


def error_estimates(
    tableau: OneStepMethod, h: Time, k: Sequence[State], n_controlled: int | None = None
) -> list[State]:
    """Return the estimates of a step's local error in the first `n_controlled` components: one for most methods, two
    for DOP853."""
    estimates = []
    for weights in filter(None, (tableau.error_weights, tableau.error_weights_3)):
        # h Σ (b_j - b*_j) k_j, the difference of the two solutions, without computing the second one.
        stages = [k[j] for j, _ in weights]
        estimates.append(tuple(weighted_sum(h, weights, part) for part in zip(*(dy[:n_controlled] for dy in stages))))
    return estimates


def interpolation_stages(tableau: Tableau, f: VectorField, t: float, y: State, h: float, k: list[State]) -> list[State]:
    """Return the stages of a step, f1 the last of an FSAL method, and after them those that only the dense output
    needs."""
    k = list(k)
    for c, row in tableau.extra_rows:
        k.append(f(t + c * h, combine(y, h, row, k)))
    return k
