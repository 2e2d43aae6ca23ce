"""The Adams-Moulton formulas of orders 1 to 12 on any grid, in Nordsieck form, predicted by Adams-Bashforth.

Byrne & Hindmarsh, "A polyalgorithm for the numerical solution of ODEs", ACM TOMS 1 (1975); Brown, Byrne & Hindmarsh,
"VODE: a variable-coefficient ODE solver", SIAM J. Sci. Stat. Comput. 10 (1989), section 2. The constants are derived
here, from the interpolation errors of the two formulas; numbers may be floats or fractions.

With x = (t - t_n) / h and ξ_i = (t_n - t_{n-i}) / h, the formula of order q corrects the predicted polynomial by a
multiple of Λ, whose slope vanishes at the past points 1 … q-1 and whose value vanishes at point 1:

    Λ'(x) ∝ (1 + x/ξ_1) … (1 + x/ξ_{q-1}),   Λ(-1) = 0,   Λ(0) = 1
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial, prod
from typing import Any

from odenet_cli.ode.multistep.nordsieck import Formula, Multistep

Number = Any
Polynomial = list[Number]


def product(roots: Sequence[Number]) -> Polynomial:
    """The coefficients of (1 + x/ξ_1) (1 + x/ξ_2) …"""
    made: Polynomial = [1]
    for xi in roots:
        made = [a + b / xi for a, b in zip([*made, 0], [0, *made])]
    return made


def integral(polynomial: Polynomial, power: int = 0) -> Number:
    """∫ x^power p(x) dx over the step, from -1 to 0."""
    one = polynomial[0] / 1
    return sum((a * one * (-1) ** n / (n + 1) for n, a in enumerate(polynomial, start=power)), start=0 * one)


def formula(xi: Sequence[Number]) -> Formula:
    """The formula of order q for the points ξ_1 … ξ_{q+1} behind the new one.

    e, the change by the corrector, is `difference` h^(q+1) y^(q+1); the formula's own error is (1/q!) ∫ x Π (x + ξ_i)
    times the same, Π over i < q. Of order q - 1 the error is that of z_q = h^q y^(q) / q!, of order q + 1 that of
    the change of e, since e_n / difference is a divided difference of slopes.
    """
    q = len(xi) - 1
    slope = product(xi[: q - 1])
    mean, span = integral(slope), prod(xi[:q])
    return Formula(
        correct=(1, *(a / (n * mean) for n, a in enumerate(slope, start=1))),
        error=abs(integral(slope, 1)) / (xi[q - 1] * mean),
        lower=q * prod(xi[: q - 2]) * abs(integral(product(xi[: q - 2]), 1)) if q > 1 else 0,
        higher=abs(integral(product(xi[:q]), 1)) / (xi[q] * mean),
        difference=span * mean / factorial(q),
    )


def order_change_polynomial(xi: Sequence[Number]) -> list[Number]:
    """The polynomial n ∫ u (u + ξ_1) … (u + ξ_{n-2}) du, with n - 2 points: it changes the order from or to n - 1.

    It leaves alone the value here, and the slopes here and at the points.
    """
    n, whole = len(xi) + 2, prod(xi)
    return [0, 0, *(n * whole * a / k for k, a in enumerate(product(xi), start=2))]


METHOD = Multistep(max_order=12, formula=formula, order_change_polynomial=order_change_polynomial)
