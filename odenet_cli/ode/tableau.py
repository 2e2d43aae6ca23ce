"""Butcher tableaux, read from the way books print them and kept as exact fractions."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

Row = tuple[Fraction, ...]
Weights = tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class Tableau:
    """An explicit Runge-Kutta method with s stages (Hairer, Nørsett & Wanner, "Solving ODEs I", II.1).

    c, a, b   nodes (s), lower triangle (row i has i entries), weights (s)
    b_star    weights of the embedded solution, or None: then the method has no error estimate
    order     order of the solution that is kept; `embedded_order` that of the other one
    dense     row i holds the coefficients of θ, θ², … in the weight b_i(θ) of the dense output
              y(t + θh) = y + h Σ b_i(θ) k_i; None means cubic Hermite between the step's ends
    """

    c: Row
    a: tuple[Row, ...]
    b: Row
    b_star: Row | None
    order: int
    embedded_order: int
    dense: tuple[Row, ...] | None = None

    @classmethod
    def parse(cls, text: str, *, order: int, embedded_order: int | None = None, dense: str | None = None) -> Tableau:
        """Read `c | a` lines, a rule, then `b | …` and, for a pair, `b* | …`; numbers are fractions or decimals.

        `&` at the end of a line continues it on the next.

        `dense` has one line a stage: the coefficients of θ, θ², …
        """
        nodes, rows, weights = [], [], {}
        for line in text.replace("&\n", " ").splitlines():
            left, bar, right = line.partition("|")
            if not bar:
                continue
            numbers = _numbers(right)
            if left.strip() in ("b", "b*"):
                weights[left.strip()] = numbers
            else:
                nodes.append(Fraction(left.strip()))
                rows.append(numbers)
        if "b" not in weights:
            raise ValueError("a tableau needs a line `b | …` with the weights of its solution")
        table = cls(
            c=tuple(nodes),
            a=tuple(rows),
            b=weights["b"],
            b_star=weights.get("b*"),
            order=order,
            embedded_order=order - 1 if embedded_order is None else embedded_order,
            dense=None if dense is None else tuple(_numbers(line) for line in dense.strip().splitlines()),
        )
        table._check_shape()
        return table

    def _check_shape(self) -> None:
        stages = len(self.c)
        lengths = [len(row) for row in self.a] == list(range(stages)) and len(self.b) == stages
        pair = self.b_star is None or len(self.b_star) == stages
        if not (lengths and pair and (self.dense is None or len(self.dense) == stages)):
            raise ValueError(f"a tableau with {stages} nodes needs rows of 0, 1, … {stages - 1} entries and {stages} b")

    @property
    def stages(self) -> int:
        return len(self.c)

    @cached_property
    def fsal(self) -> bool:
        """First same as last: the last stage is the field at the new point, and opens the next step."""
        return self.stages > 1 and self.c[-1] == 1 and self.a[-1] == self.b[:-1] and self.b[-1] == 0

    @cached_property
    def plan(self) -> tuple[tuple[float, Weights], ...]:
        """For each stage its node and the non-zero entries of its row."""
        return tuple((float(c), _nonzero(row)) for c, row in zip(self.c, self.a))

    @cached_property
    def keep(self) -> Weights:
        """Non-zero weights of the solution."""
        return _nonzero(self.b)

    @cached_property
    def doubt(self) -> Weights:
        """Non-zero weights of the error estimate b - b*; empty if there is none."""
        return _nonzero(tuple(b - s for b, s in zip(self.b, self.b_star))) if self.b_star else ()

    @cached_property
    def weighty(self) -> tuple[bool, ...]:
        """Which stages enter the solution or the error, so that a pure quadrature needs their slope."""
        used = {i for i, _ in self.keep + self.doubt} | ({self.stages - 1} if self.fsal else set())
        return tuple(i in used for i in range(self.stages))

    @cached_property
    def dense_rows(self) -> tuple[Row, ...]:
        """`dense`, or cubic Hermite written in slopes: y + h((θ-2θ²+θ³)k(0) + (θ³-θ²)k(1) + (3θ²-2θ³) Σ b_i k_i).

        Without FSAL there is one row more than stages: that of the slope at the step's end.
        """
        if self.dense is not None:
            return self.dense
        b = self.b if self.fsal else (*self.b, Fraction(0))
        rows = [[Fraction(0), 3 * weight, -2 * weight] for weight in b]
        for row, ends in ((rows[0], (1, -2, 1)), (rows[-1], (0, -1, 1))):
            for power, number in enumerate(ends):
                row[power] += number
        return tuple(tuple(row) for row in rows)


def _numbers(text: str) -> Row:
    return tuple(Fraction(word) for word in text.split())


def _nonzero(row: Row) -> Weights:
    return tuple((i, float(x)) for i, x in enumerate(row) if x)
