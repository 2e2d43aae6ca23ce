"""One Runge-Kutta step: a function of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from odenet_cli.ode.state import Evaluate, State, Time, combine, weigh
from odenet_cli.ode.tableau import Tableau


class Step(NamedTuple):
    """The outcome of one step from `t` to `t + h`.

    y        solution at `t + h`
    slopes   the field at the stages, the opening one first
    closing  the field at the new point, where it was evaluated (FSAL): it opens the next step
    """

    y: State
    slopes: list[State]
    closing: State | None = None


def rk_step(
    tableau: Tableau,
    evaluate: Evaluate,
    t: Time,
    y: State,
    h: Time,
    opening: State,
    *,
    close: bool = True,
    feeds: int | None = None,
) -> Step:
    """Advance `y` from `t` to `t + h`, given `opening`, the field at `(t, y)`.

    t, h    numbers; or 0-d tensors, for a compiler
    close   evaluate the field at the new point too, where the method is FSAL
    feeds   only so many leading components are read by the field; the others are quadratures
    """
    k, point = [opening], y
    for i, (c, row) in enumerate(tableau.plan[1:], start=1):
        point = combine(y[:feeds], h, row, k)
        if i < tableau.stages - 1 or close or not tableau.fsal:
            k.append(evaluate(t + c * h, point, tableau.weighty[i]))

    if not tableau.fsal:
        y1 = combine(y, h, tableau.keep, k)
    elif feeds is None:
        y1 = point
    else:
        y1 = point + combine(y[feeds:], h, tableau.keep, [slope[feeds:] for slope in k])

    return Step(y1, k, k[-1] if tableau.fsal and close else None)


def errors(tableau: Tableau, h: Time, k: Sequence[State], judged: int | None = None) -> list[State]:
    """The estimates of a step's local error, in the first `judged` components: one for most methods, two for DOP853."""
    found = []
    for weights in filter(None, (tableau.doubt, tableau.doubt_third)):
        used = [k[j] for j, _ in weights]
        found.append(tuple(weigh(h, weights, part) for part in zip(*(slope[:judged] for slope in used))))
    return found


def extended(tableau: Tableau, evaluate: Evaluate, t: float, y: State, h: float, slopes: list[State]) -> list[State]:
    """The slopes of a step, its closing one the last, and the extra stages that its dense output needs."""
    k = list(slopes)
    for c, row in tableau.extra_plan:
        k.append(evaluate(t + c * h, combine(y, h, row, k)))
    return k
