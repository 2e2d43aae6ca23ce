"""One Runge-Kutta step, and its transpose: a step is a function of tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from odenet_cli.ode.state import Evaluate, Evaluation, State, Time, combine, dot, weigh
from odenet_cli.ode.tableau import Tableau, Weights


class Step(NamedTuple):
    """The outcome of one step from `t` to `t + h`.

    y       solution at `t + h`
    error   estimate of the local error in the judged components; empty if the method has none
    coarse  a second estimate, of low order, where the method has one
    slopes  the stages' evaluations, the opening one first
    closing the one at the new point, where it was made (FSAL): it opens the next step
    """

    y: State
    error: State
    coarse: State
    slopes: list[Evaluation]
    closing: Evaluation | None = None


def rk_step(
    tableau: Tableau,
    evaluate: Evaluate,
    t: Time,
    y: State,
    h: Time,
    opening: Evaluation,
    *,
    close: bool = True,
    feeds: int | None = None,
    judged: int | None = None,
) -> Step:
    """Advance `y` from `t` to `t + h`, given `opening`, the field at `(t, y)`.

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
        quadratures = [Evaluation(evaluation.slope[feeds:]) for evaluation in k]
        y1 = point + combine(y[feeds:], h, tableau.keep, quadratures)

    error: State = ()
    coarse: State = ()
    if tableau.doubt and close and not isinstance(h, Tensor):
        error, coarse = estimate(h, tableau.doubt, k, judged), estimate(h, tableau.doubt_third, k, judged)
    return Step(y1, error, coarse, k, k[-1] if tableau.fsal and close else None)


def estimate(h: float, weights: Weights, k: Sequence[Evaluation], judged: int | None) -> State:
    """h Σ w_i k_i of the judged components; empty without weights."""
    parts = range(len(k[0].slope[:judged])) if weights else ()
    return tuple(weigh(h, weights, [k[j].slope[i] for j, _ in weights]) for i in parts)


def extended(
    tableau: Tableau, evaluate: Evaluate, t: Time, y: State, h: Time, slopes: list[Evaluation]
) -> list[Evaluation]:
    """The slopes of a step, its closing one the last, and the extra stages that its dense output needs."""
    k = list(slopes)
    for c, row in tableau.extra_plan:
        k.append(evaluate(t + c * h, combine(y, h, row, k)))
    return k


Cotangents = list[Tensor | None]
Pull = Callable[[int, Cotangents], Cotangents]


def rk_step_transposed(
    tableau: Tableau,
    h: float,
    a: Sequence[Tensor],
    pushed: list[Cotangents],
    pull: Pull,
    slopes: Sequence[Evaluation] | None = None,
) -> tuple[list[Tensor], Tensor | float]:
    """The vector-Jacobian product of a step: from `a`, the cotangent of `y(t + h)`, to that of `y(t)`.

    pushed  what else acts on each of the stages' slopes (dense outputs, the closing slope of the step before)
    pull    `pull(i, cotangent of slope i)` is the cotangent of the point where stage i was evaluated
    slopes  given if the derivative with respect to h is wanted too (stage times excluded), else that is 0
    """
    total = [part.clone() for part in a]
    count = tableau.stages - tableau.fsal
    grad_h: Tensor | float = 0.0

    def push(i: int, weight: float, cotangents: Sequence[Tensor | None]) -> None:
        nonlocal grad_h
        for part, x in enumerate(cotangents):
            if x is None:
                continue
            if (held := pushed[i][part]) is None:
                pushed[i][part] = x * (h * weight)
            else:
                held.add_(x, alpha=h * weight)
            if slopes is not None:
                grad_h = grad_h + weight * dot(x, slopes[i].slope[part])

    for i, weight in tableau.keep:
        push(i, weight, a)
    for i in reversed(range(count)):
        if all(x is None for x in pushed[i]):
            continue
        point = pull(i, pushed[i])
        for part, x in enumerate(point):
            if x is not None:
                total[part].add_(x)
        for j, weight in tableau.plan[i][1]:
            push(j, weight, point)
    return total, grad_h
