"""The Adams-Moulton formulas of orders 1 to 12 on any grid, in Nordsieck form, predicted by Adams-Bashforth.

Byrne & Hindmarsh, "A polyalgorithm for the numerical solution of ODEs", ACM TOMS 1 (1975); Brown, Byrne & Hindmarsh,
"VODE: a variable-coefficient ODE solver", SIAM J. Sci. Stat. Comput. 10 (1989), section 2. The constants are derived
here, from the interpolation errors of the two formulas; numbers may be floats or fractions.

With x = (t - t_n) / h and ξ_i = (t_n - t_{n-i}) / h, the formula of order q corrects the predicted polynomial by a
multiple of Λ, whose derivative vanishes at the past points 1 … q-1 and whose value vanishes at point 1:

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
    """Return the coefficients of (1 + x/ξ_1) (1 + x/ξ_2) …"""
    # Multiplied out one factor at a time: p + (x/ξ) p, the second shifted by one power.
    coefficients: Polynomial = [1]
    for xi in roots:
        coefficients = [a + b / xi for a, b in zip([*coefficients, 0], [0, *coefficients])]
    return coefficients


def integral(polynomial: Polynomial, power: int = 0) -> Number:
    """Return ∫ x^power p(x) dx over the step, from -1 to 0."""
    unit = polynomial[0] / 1  # 1 as a float or a Fraction, so that exact input stays exact
    return sum((a * unit * (-1) ** n / (n + 1) for n, a in enumerate(polynomial, start=power)), start=0 * unit)


def formula(xi: Sequence[Number]) -> Formula:
    """Return the formula of order q for the points ξ_1 … ξ_{q+1} behind the new one.

    e, the change by the corrector, is `difference` h^(q+1) y^(q+1); the formula's own error is (1/q!) ∫ x Π (x + ξ_i)
    times the same, Π over i < q. Of order q - 1 the error is that of z_q = h^q y^(q) / q!, of order q + 1 that of
    the change of e, since e_n / difference is a divided difference of derivatives.
    """
    q = len(xi) - 1
    derivative = product(xi[: q - 1])  # Λ' up to its factor, which is 1 / mean
    mean, span = integral(derivative), prod(xi[:q])
    return Formula(
        # l_n, the coefficients of Λ: those of Λ' integrated term by term, so that Λ(0) = 1 = l_0.
        correct=(1, *(a / (n * mean) for n, a in enumerate(derivative, start=1))),
        # (1/q!) ∫ x Π_{i<q} (x + ξ_i) dx over `difference`: with Π (x + ξ_i) = Π ξ_i · Π (1 + x/ξ_i) only ξ_q is left.
        error=abs(integral(derivative, 1)) / (xi[q - 1] * mean),
        lower=q * prod(xi[: q - 2]) * abs(integral(product(xi[: q - 2]), 1)) if q > 1 else 0,
        higher=abs(integral(product(xi[:q]), 1)) / (xi[q] * mean),
        difference=span * mean / factorial(q),
    )


def order_change_polynomial(xi: Sequence[Number]) -> list[Number]:
    """Return the polynomial n ∫ u (u + ξ_1) … (u + ξ_{n-2}) du, with n - 2 points, for a change from or to order n - 1.

    It leaves alone the value here, and the derivatives here and at the points.
    """
    # Its derivative n u Π (u + ξ_i) vanishes here, at u = 0, and at the points; so does its value here.
    n, whole = len(xi) + 2, prod(xi)
    return [0, 0, *(n * whole * a / k for k, a in enumerate(product(xi), start=2))]


METHOD = Multistep(max_order=12, formula=formula, order_change_polynomial=order_change_polynomial)
