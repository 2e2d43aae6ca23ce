"""What an audit tries, and what it concludes; the numbers alone.

A net is not an ODE any more where a finer solver than the one it was trained with loses more than 0.2 points of
accuracy, and McNemar's exact test on the same samples gives p < 0.01.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from odenet_cli.config.resolve import changed
from odenet_cli.config.schema import SolverChange, SolverConfig
from odenet_cli.precision import EPS

LOSS, SIGNIFICANT = 0.002, 0.01
FIXED, STEPS = ("euler", "midpoint", "rk4"), (1, 2, 4, 8, 16)
ADAPTIVE, TOLERANCES = ("dopri5",), (1e-1, 1e-2, 1e-3, 1e-4, 1e-5)


def matrix(
    own: SolverConfig, dtype: str, tolerances: Sequence[float] = (), steps: Sequence[int] = ()
) -> list[SolverConfig]:
    """The solvers to try beside `own`, the one trained with; its method is tried too.

    Where no tolerances or steps are given, those beyond `own` are added to the usual ones, as far as `dtype` resolves.
    """
    fixed, adaptive, ratio = [*FIXED], [*ADAPTIVE], 1.0
    usual, counts = {*TOLERANCES}, {*STEPS}
    if own.steps is not None:
        fixed.append(own.method)
        counts |= {own.steps, 2 * own.steps, 4 * own.steps}
    elif own.rtol is not None and own.atol is not None:
        adaptive.append(own.method)
        ratio = own.atol / own.rtol
        tighter = [float(f"{own.rtol / by:g}") for by in (10, 100)]  # 1e-06, not 1.0000000000000002e-06
        usual |= {own.rtol, *(rtol for rtol in tighter if rtol >= EPS[dtype])}
    made = [
        changed(own, SolverChange(method=method, steps=count))
        for method in dict.fromkeys(fixed)
        for count in (dict.fromkeys(steps) or sorted(counts))
    ]
    made += [
        changed(own, SolverChange(method=method, rtol=rtol, atol=rtol * ratio))
        for method in dict.fromkeys(adaptive)
        for rtol in (dict.fromkeys(tolerances) or sorted(usual, reverse=True))
    ]
    return [one for one in made if (one.method, one.rtol, one.steps) != (own.method, own.rtol, own.steps)]


def finer(row: dict[str, Any], own: dict[str, Any]) -> bool:
    """Finer than the solver trained with is one with a tighter tolerance or, where one of the two has no tolerance, one
    that takes more steps with a method of the same or a higher order."""
    if row["rtol"] is not None and own["rtol"] is not None:
        return bool(row["rtol"] < own["rtol"])
    if row["order"] is None or own["order"] is None:  # a multistep method has many
        return False
    return bool(row["accepted"] > own["accepted"] and row["order"] >= own["order"])


def mcnemar(lost: int, gained: int) -> float:
    """The exact two-sided p of McNemar's test (1947): of the n answers that changed, were as many as likely gained?

    Twice the probability that n fair coins show the rarer side so seldom.
    """
    n, term, total = lost + gained, 1, 0
    for k in range(min(lost, gained) + 1):
        total += term
        term = term * (n - k) // (k + 1)
    return min(1.0, 2 * total / (1 << n))


def least(count: int) -> float:
    """The smallest loss, as a fraction of `count` samples, that can be significant: nothing is gained beside it."""
    return next(lost for lost in range(1, 100) if mcnemar(lost, 0) < SIGNIFICANT) / count


def judged(rows: Sequence[dict[str, Any]]) -> tuple[str, dict[str, Any] | None]:
    """`ode`, `not an ode`, or `open` where nothing finer was tried; and the row of that which loses most.

    The first row is that of the solver trained with.
    """
    tried = [row for row in rows if row["finer"]]
    guilty = [row for row in tried if row["p"] < SIGNIFICANT and row["error"] - rows[0]["error"] > LOSS]
    worst = max(guilty or tried, key=lambda row: row["error"], default=None)
    return "not an ode" if guilty else "ode" if tried else "open", worst
