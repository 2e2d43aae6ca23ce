"""Butcher tableaux, read from the way books print them and kept as exact fractions."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Protocol

Row = tuple[Fraction, ...]  # exact, so that a test can prove the order conditions instead of estimating them
Weights = tuple[tuple[int, float], ...]  # (index of a stage, its weight), zeros left out


class OneStepMethod(Protocol):
    """The attributes of a method that error estimates and dense output use.

    error_weights, error_weights_3  of the stages in one or two error estimates
    dense_floats                    row i: coefficients of θ, θ², … in the weight of stage i inside a step
    """

    @property
    def error_weights(self) -> Weights: ...

    @property
    def error_weights_3(self) -> Weights: ...

    @property
    def dense_floats(self) -> tuple[tuple[float, ...], ...]: ...


# Without `eq` a tableau is equal to itself alone, and cheap to hash: it is a key of the caches of compiled kernels.
@dataclass(frozen=True, kw_only=True, eq=False)
class Tableau:
    """Hold an explicit Runge-Kutta method with s stages (Hairer, Nørsett & Wanner, "Solving ODEs I", II.1).

    c, a, b   nodes (s), lower triangle (row i has i entries), weights (s)
    b_star    weights of the embedded solution, or None: then the method has no error estimate
    order     order of the solution; `embedded_order` that of the embedded one
    dense     row i holds the coefficients of θ, θ², … in the weight b_i(θ) of the dense output
              y(t + θh) = y + h Σ b_i(θ) k_i; None means cubic Hermite between the step's ends
    extra     nodes and rows of stages behind the last that only the dense output needs
    b_third   weights of a third solution, of low order: with e and e₃ the two estimates the error is
              e² / √(e² + 0.01 e₃²) (Hairer II.10, DOP853); None means that b - b* is the error
    """

    c: Row
    a: tuple[Row, ...]
    b: Row
    b_star: Row | None
    order: int
    embedded_order: int
    dense: tuple[Row, ...] | None = None
    extra: tuple[tuple[Fraction, Row], ...] = ()
    b_third: Row | None = None

    @classmethod
    def parse(cls, text: str, *, order: int, embedded_order: int | None = None, dense: str | None = None) -> Tableau:
        """Return the tableau in `text`: `c | a` lines, a rule, then `b | …` and, for a pair, `b* | …`.

        Numbers are fractions or decimals. `e` may stand for b - b*, and `b3` for `b_third`. Further `c | a` lines below
        are `extra`. `dense` has one line a stage: the coefficients of θ, θ², … In both, `&` at the end of a line
        continues it on the next.
        """
        stages: list[tuple[Fraction, Row]] = []
        extra: list[tuple[Fraction, Row]] = []
        weights: dict[str, Row] = {}
        for left, right in table_lines(text):
            if left in ("b", "b*", "e", "b3"):
                weights[left] = parse_numbers(right)
            else:
                # What stands below the weights is no stage of the step, and only for the dense output.
                (extra if weights else stages).append((Fraction(left), parse_numbers(right)))
        if "b" not in weights:
            raise ValueError("a tableau needs a line `b | …` with the weights of its solution")
        # Some pairs are printed with b - b* in place of b*, DOP853 among them.
        if "e" in weights:
            weights["b*"] = tuple(b - e for b, e in zip(weights["b"], weights["e"]))
        return cls(
            c=tuple(c for c, _ in stages),
            a=tuple(row for _, row in stages),
            b=weights["b"],
            b_star=weights.get("b*"),
            b_third=weights.get("b3"),
            order=order,
            embedded_order=order - 1 if embedded_order is None else embedded_order,
            dense=None if dense is None else tuple(parse_numbers(right) for _, right in table_lines(dense)),
            extra=tuple(extra),
        )

    def __post_init__(self) -> None:
        stages, rows = len(self.c), [*self.a, *(row for _, row in self.extra)]
        # Explicit: the row of a stage has an entry for each stage before it, and no other.
        lengths = [len(row) for row in rows] == list(range(len(rows))) and len(self.b) == stages
        pair = all(other is None or len(other) == stages for other in (self.b_star, self.b_third))
        if not (lengths and pair and (self.dense is None or len(self.dense) == len(rows))):
            raise ValueError(f"a tableau with {stages} nodes needs rows of 0, 1, … {stages - 1} entries and {stages} b")
        # What a step uses is derived now: a compiler does not see into what is derived when first asked for.
        for name in ("rows", "solution_weights", "error_weights", "error_weights_3", "used_stages", "fsal"):
            getattr(self, name)

    def __deepcopy__(self, memo: object) -> Tableau:
        # A copy would be another key: a model that is copied would compile its steps again.
        return self

    @property
    def stages(self) -> int:
        return len(self.c)

    @cached_property
    def fsal(self) -> bool:
        """First same as last: the last stage is f at the new point, and the next step's f0."""
        # c_s = 1, a_sj = b_j and b_s = 0: Y_s is the solution y1, and k_s = f(t + h, y1).
        return self.stages > 1 and self.c[-1] == 1 and self.a[-1] == self.b[:-1] and self.b[-1] == 0

    @cached_property
    def rows(self) -> tuple[tuple[float, Weights], ...]:
        """The node of each stage and the non-zero entries of its row."""
        return tuple((float(c), nonzero(row)) for c, row in zip(self.c, self.a))

    @cached_property
    def solution_weights(self) -> Weights:
        """Non-zero weights of the solution."""
        return nonzero(self.b)

    @cached_property
    def error_weights(self) -> Weights:
        """Non-zero weights of the error estimate b - b*; empty if there is none."""
        # y1 - y1* = h Σ (b_i - b*_i) k_i: the difference is weighed in one pass, and y1* is never made.
        return nonzero(tuple(b - s for b, s in zip(self.b, self.b_star))) if self.b_star else ()

    @cached_property
    def error_weights_3(self) -> Weights:
        """Non-zero weights of the second error estimate; empty if there is none."""
        return nonzero(tuple(b - s for b, s in zip(self.b, self.b_third))) if self.b_third else ()

    @cached_property
    def extra_rows(self) -> tuple[tuple[float, Weights], ...]:
        """As `rows`, for the stages that only the dense output needs."""
        return tuple((float(c), nonzero(row)) for c, row in self.extra)

    @cached_property
    def interpolates_f1(self) -> bool:
        """Whether the dense output needs f at the new point beside the stages: Hermite's cubic, without FSAL."""
        return self.dense is None and not self.fsal

    @cached_property
    def used_stages(self) -> tuple[bool, ...]:
        """Which stages enter the solution or the error, so that a pure quadrature is needed there."""
        # The last stage of an FSAL method has no weight in the solution, but is the next step's f0.
        used = {i for i, _ in self.solution_weights + self.error_weights + self.error_weights_3} | (
            {self.stages - 1} if self.fsal else set()
        )
        return tuple(i in used for i in range(self.stages))

    @cached_property
    def dense_rows(self) -> tuple[Row, ...]:
        """`dense`, or cubic Hermite written in stages: y + h((θ-2θ²+θ³)k(0) + (θ³-θ²)k(1) + (3θ²-2θ³) Σ b_i k_i).

        Hermite's without FSAL has one row more than stages: that of f1, at the step's end.
        """
        if self.dense is not None:
            return self.dense
        # Hermite's cubic needs the slopes at both ends: k(0) is the first stage, k(1) is f1.
        b = (*self.b, Fraction(0)) if self.interpolates_f1 else self.b
        # The change over the step, h Σ b_i k_i, comes in as 3θ² - 2θ³, whose slope at both ends is 0.
        rows = [[Fraction(0), 3 * weight, -2 * weight] for weight in b]
        # And each end's slope by the cubic with that slope there, slope 0 at the other end, and value 0 at both.
        for row, ends in ((rows[0], (1, -2, 1)), (rows[-1], (0, -1, 1))):
            for power, number in enumerate(ends):
                row[power] += number
        return tuple(tuple(row) for row in rows)

    @cached_property
    def dense_floats(self) -> tuple[tuple[float, ...], ...]:
        """`dense_rows` as floats: a solve with many outputs inside its steps reads them thousands of times."""
        return tuple(tuple(map(float, row)) for row in self.dense_rows)


def table_lines(text: str) -> list[tuple[str, str]]:
    """Return the texts left and right of the bar, line by line, without rules and blank lines."""
    # `&` and a line break are one blank: tables of DOP853 are wider than a page.
    lines = [line for line in text.replace("&\n", " ").splitlines() if line.strip() and "-+-" not in line]
    return [
        (left.strip() if bar else "", right if bar else left) for left, bar, right in (x.partition("|") for x in lines)
    ]


def parse_numbers(text: str) -> Row:
    return tuple(Fraction(word) for word in text.split())


def nonzero(row: Row) -> Weights:
    # Rounded once, from the exact fraction; and a step never multiplies by a zero.
    return tuple((i, float(x)) for i, x in enumerate(row) if x)
