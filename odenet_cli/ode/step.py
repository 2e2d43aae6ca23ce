"""One Runge-Kutta step: a function of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from odenet_cli.ode.state import State, Time, VectorField, combine, weigh
from odenet_cli.ode.tableau import Tableau


class Step(NamedTuple):
    """The outcome of one step from `t` to `t + h`.

    y        solution at `t + h`
    slopes   the field at the stages, the opening one first
    closing  the field at the new point, where it was evaluated (FSAL): it opens the next step
    """

    y: State
    k: list[State]
    f1: State | None = None


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
    """Advance `y` from `t` to `t + h`, given `opening`, the field at `(t, y)`.

    t, h    numbers; or 0-d tensors, for a compiler
    close   evaluate the field at the new point too, where the method is FSAL
    feeds   only so many leading components are read by the field; the others are quadratures
    """
    k, point = [f0], y
    for i, (c, row) in enumerate(tableau.rows[1:], start=1):
        point = combine(y[:n_dynamic], h, row, k)
        if i < tableau.stages - 1 or with_f1 or not tableau.fsal:
            k.append(f(t + c * h, point, tableau.used_stages[i]))

    if not tableau.fsal:
        y1 = combine(y, h, tableau.solution_weights, k)
    elif n_dynamic is None:
        y1 = point
    else:
        y1 = point + combine(y[n_dynamic:], h, tableau.solution_weights, [slope[n_dynamic:] for slope in k])

    return Step(y1, k, k[-1] if tableau.fsal and with_f1 else None)


def errors(tableau: Tableau, h: Time, k: Sequence[State], n_controlled: int | None = None) -> list[State]:
    """The estimates of a step's local error, in the first `judged` components: one for most methods, two for DOP853."""
    found = []
    for weights in filter(None, (tableau.error_weights, tableau.error_weights_3)):
        used = [k[j] for j, _ in weights]
        found.append(tuple(weigh(h, weights, part) for part in zip(*(slope[:n_controlled] for slope in used))))
    return found


def interpolation_stages(tableau: Tableau, f: VectorField, t: float, y: State, h: float, k: list[State]) -> list[State]:
    """The slopes of a step, its closing one the last, and the extra stages that its dense output needs."""
    k = list(k)
    for c, row in tableau.extra_rows:
        k.append(f(t + c * h, combine(y, h, row, k)))
    return k
