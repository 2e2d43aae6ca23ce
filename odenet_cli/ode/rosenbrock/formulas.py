"""Rosenbrock methods, kept as their codes print them (Hairer & Wanner, "Solving ODEs II", IV.7)."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import NamedTuple

from odenet_cli.ode.tableau import Row, Weights, nonzero, parse_numbers, table_lines


class Stage(NamedTuple):
    """Hold what one stage needs: α and γ_i, and the non-zero entries of its rows of a and c."""

    alpha: float
    a: Weights
    gamma: float
    c: Weights


@dataclass(frozen=True, kw_only=True, eq=False)
class Rosenbrock:
    """Hold a Rosenbrock method with s stages, each of which solves one linear system with the same matrix (eq. 7.25):

        (1 - hγJ) v_i = γ (f(t + α_i h, y + h Σ_j a_ij v_j) + Σ_j c_ij v_j + γ_i h ∂f/∂t),    y1 = y + h Σ m_i v_i

    with J = ∂f/∂y and ∂f/∂t at (t, y), the sums over j < i.

    diagonal     γ
    alpha, a     nodes α_i (s), lower triangle (row i has i entries)
    gamma, c     γ_i (s), lower triangle
    m, e         weights (s) of the solution, and of its error estimate
    order        order of the solution; `embedded_order` that of the embedded one
    inner        rows d_1, d_2, … (s) of the dense output
                 y(t + θh) = (1-θ) y + θ (y1 + (1-θ) h Σ_i (d_1i + θ d_2i + …) v_i)
    """

    # The codes' own variables: with them no stage multiplies by J (Hairer & Wanner IV.7, "implementation").
    diagonal: Fraction
    alpha: Row
    a: tuple[Row, ...]
    gamma: Row
    c: tuple[Row, ...]
    m: Row
    e: Row
    order: int
    embedded_order: int
    inner: tuple[Row, ...]

    @classmethod
    def parse(cls, a: str, c: str, dense: str, *, diagonal: str, order: int) -> Rosenbrock:
        """Return the method of `α | a` lines, a rule, `m | …` and `e | …`, of `γ | c` lines, and of a line of `dense`
        for each d. `&` at the end of a line continues it on the next."""
        rows = [(left, parse_numbers(right)) for left, right in table_lines(a)]
        stages, weights = [row for row in rows if row[0] not in ("m", "e")], dict(rows)
        gammas = [(Fraction(left), parse_numbers(right)) for left, right in table_lines(c)]
        method = cls(
            diagonal=Fraction(diagonal),
            alpha=tuple(Fraction(left) for left, _ in stages),
            a=tuple(row for _, row in stages),
            gamma=tuple(gamma for gamma, _ in gammas),
            c=tuple(row for _, row in gammas),
            m=weights["m"],
            e=weights["e"],
            order=order,
            embedded_order=order - 1,  # so of both that are here
            inner=tuple(parse_numbers(right) for _, right in table_lines(dense)),
        )
        lengths = [*map(len, method.a), *map(len, method.c), *map(len, (method.m, method.e, *method.inner))]
        count = len(method.a)
        if lengths != [*range(count), *range(count), *[count] * (2 + len(method.inner))]:
            raise ValueError(f"a Rosenbrock method with {count} stages needs rows of 0, 1, … {count - 1} entries")
        return method

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """What each stage needs, as floats."""
        rows = zip(self.alpha, self.a, self.gamma, self.c)
        return tuple(Stage(float(alpha), nonzero(a), float(gamma), nonzero(c)) for alpha, a, gamma, c in rows)

    @cached_property
    def solution_weights(self) -> Weights:
        """Non-zero weights of the solution."""
        return nonzero(self.m)

    @cached_property
    def error_weights(self) -> Weights:
        """Non-zero weights of the error estimate."""
        # Printed as weights of the difference itself: RODAS has e = (0, …, 0, 1), its last v_i being y1 - y1*.
        return nonzero(self.e)

    @property
    def error_weights_3(self) -> Weights:
        """Those of a second estimate, which no Rosenbrock method has."""
        return ()

    @cached_property
    def dense_rows(self) -> tuple[Row, ...]:
        """Row i holds the coefficients of θ, θ², … in the weight of v_i in the dense output: θ m_i + θ(1-θ) Σ d_pi
        θ^(p-1)."""
        zero = Fraction(0)
        # With h Σ m_i v_i = y1 - y the formula is y + h Σ (θ m_i + θ(1-θ)(d_1i + θ d_2i + …)) v_i.
        columns = ((m, *(d[i] for d in self.inner)) for i, m in enumerate(self.m))
        # θ^p gets d_p from θ d_p θ^(p-1), and -d_(p-1) from -θ² d_(p-1) θ^(p-2).
        return tuple(
            tuple(high - low for high, low in zip((m + d[0], *d[1:], zero), (zero, *d)))  #
            for m, *d in columns
        )

    @cached_property
    def dense_floats(self) -> tuple[tuple[float, ...], ...]:
        """`dense_rows` as floats."""
        return tuple(tuple(map(float, row)) for row in self.dense_rows)
