"""One Runge-Kutta step: a function of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from odenet_cli.ode.state import Evaluate, State, Time, combine, weigh
from odenet_cli.ode.tableau import Tableau, Weights


class Step(NamedTuple):
    """The outcome of one step from `t` to `t + h`.

    y       solution at `t + h`
    error   estimate of the local error in the judged components; empty if the method has none
    coarse  a second estimate, of low order, where the method has one
    slopes  the field at the stages, the opening one first
    closing the field at the new point, where it was evaluated (FSAL): it opens the next step
    """

    y: State
    error: State
    coarse: State
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
    judged: int | None = None,
) -> Step:
    """Advance `y` from `t` to `t + h`, given `opening`, the field at `(t, y)`.

    t, h    numbers; or 0-d tensors, for a compiler
    close   evaluate the field at the new point too, where the method is FSAL
    feeds   only so many leading components are read by the field; the others are quadratures
    judged  only so many leading components get an error estimate
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

    error: State = ()
    coarse: State = ()
    if tableau.doubt and close:
        error, coarse = estimate(h, tableau.doubt, k, judged), estimate(h, tableau.doubt_third, k, judged)
    return Step(y1, error, coarse, k, k[-1] if tableau.fsal and close else None)


@torch.no_grad()
def estimate(h: Time, weights: Weights, k: Sequence[State], judged: int | None) -> State:
    """h Σ w_i k_i of the judged components; empty without weights. A number to autograd."""
    parts = range(len(k[0][:judged])) if weights else ()
    return tuple(weigh(h, weights, [k[j][i] for j, _ in weights]) for i in parts)


def extended(tableau: Tableau, evaluate: Evaluate, t: float, y: State, h: float, slopes: list[State]) -> list[State]:
    """The slopes of a step, its closing one the last, and the extra stages that its dense output needs."""
    k = list(slopes)
    for c, row in tableau.extra_plan:
        k.append(evaluate(t + c * h, combine(y, h, row, k)))
    return k
