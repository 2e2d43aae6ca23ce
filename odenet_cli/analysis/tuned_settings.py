"""Settings of solver, gradient and tolerance: their names, their measurements, and the choice of the best."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from odenet_cli.config.presets import adaptive
from odenet_cli.config.resolve import gradient_solver
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError
from odenet_cli.ode import Solver
from odenet_cli.registry import require

METRICS = ("time", "nfe", "memory")  # ms per step, evaluations forward and backward, MiB saved for the backward pass
ERRORS = ("gradient", "state")  # relative errors of the loss's gradient and of the final states of solves
FACTORS = {
    "time": {"ms": 1.0, "s": 1e3},
    "nfe": {"": 1.0},
    "memory": {"KiB": 2**-10, "MiB": 1.0, "GiB": 2.0**10},
    "gradient": {"%": 0.01, "": 1.0},
    "state": {"%": 0.01, "": 1.0},
}

T = TypeVar("T")
Limits = Mapping[str, float]


def parse_want(text: str) -> dict[str, float]:
    """Return the limits in `gradient<=5% memory<=1GiB`, in the units of METRICS and ERRORS."""
    limits: dict[str, float] = {}
    for word in text.replace(",", " ").split():
        match = re.fullmatch(r"(\w+)<=?([0-9.eE+-]+)([A-Za-z%]*)", word)
        if match is None:
            raise RequestError(
                f"want: {word} is not a limit. Write, for example, gradient<=5%, without spaces around <=."
            )
        name, number, unit = match.groups()
        require("want", name, FACTORS)
        try:
            value = float(number) * FACTORS[name][unit]
        except (ValueError, KeyError):
            units = " or ".join(filter(None, FACTORS[name])) or "no unit"
            raise RequestError(f"want: {word} needs a number, with {units}.") from None
        if not 0 < value < math.inf or name in limits:
            raise RequestError(f"want: {word} must be above 0, and given only once.")
        if name in ERRORS and value >= 1:  # an error as large as the quantity itself
            raise RequestError(f"want: {word} must be below 100 %. Write percentages with their sign: {name}<=5%.")
        limits[name] = value
    if not limits:
        raise RequestError("want= needs limits, such as want='gradient<=5% memory<=1GiB'.")
    return limits


class Setting(NamedTuple):
    """Hold a method with its tolerance or number of steps, a gradient, and the tolerance of an adjoint solve by bosh3;
    without one the adjoint uses the forward solver."""

    method: str
    level: float
    gradient: str
    backward: float | None = None

    def plain(self) -> Setting:
        """Return the same setting without a backward solver that is the forward one."""
        return self._replace(backward=None) if (self.method, self.level) == ("bosh3", self.backward) else self

    def keys(self) -> dict[str, Any]:
        """Return the configuration keys of this setting."""
        own = {"solver.rtol": self.level} if adaptive(self.method) else {"solver.steps": int(self.level)}
        method = None if self.backward is None else "bosh3"
        backward = {"gradient.solver.method": method, "gradient.solver.rtol": self.backward}
        return {"solver.method": self.method, **own, "gradient.method": self.gradient, **backward}


def setting_of(config: Config) -> Setting | None:
    """Return the setting of a config; None if it has further settings, such as its own step control."""
    solver, backward = config.solver, gradient_solver(config)
    level = solver.rtol if solver.rtol is not None else solver.steps
    plain = solver.atol == solver.rtol and config.gradient.norm == "relative"
    if level is None or not plain:
        return None
    if config.gradient.method != "adjoint" or backward == solver:
        return Setting(solver.method, level, config.gradient.method)
    known = backward.method == "bosh3" and backward.atol == backward.rtol
    return Setting(solver.method, level, "adjoint", backward.rtol) if known else None


@dataclass(kw_only=True)
class Measured:
    """Hold the measurements of a setting.

    samples   size of the batch for which the cost was measured; 0: not measured
    time      ms per step, forward and backward, the mean over the weights
    memory    MiB saved for the backward pass; like the errors, the largest over the weights
    estimate  the cost is extrapolated from fewer samples
    costs     (time, memory) by the number of samples
    failed    reason why there are no numbers
    """

    config: Config
    solver: Solver
    samples: int = 0
    time: float = math.nan
    nfe_forward: float = math.nan
    nfe_backward: float = math.nan
    memory: float = math.nan
    gradient: float = math.nan
    state: float = math.nan
    estimate: bool = False
    costs: dict[int, tuple[float, float]] = field(default_factory=dict)
    failed: str | None = None

    @property
    def nfe(self) -> float:
        """Function evaluations, forward and backward together."""
        return self.nfe_forward + self.nfe_backward

    @property
    def name(self) -> tuple[str, str]:
        """The forward solve and the gradient as text: `tsit5 0.01`, `adjoint bosh3 0.03`."""
        words = self.words()
        own = f" {words['backward_method']} {words['backward_level']:g}" if words["backward_method"] else ""
        return f"{words['method']} {words['level']:g}", f"{words['gradient_method']}{own}"

    def fits(self, limits: Limits, names: Sequence[str] = (*METRICS, *ERRORS)) -> bool:
        """Return whether the measurements of these names are within the limits; NaN is not."""
        return self.failed is None and all(getattr(self, name) <= limits[name] for name in names if name in limits)

    def record(self) -> dict[str, Any]:
        """Return the setting and the numbers, flat, for a file; JSON has no NaN."""
        names = ("samples", "time", "nfe_forward", "nfe_backward", "memory", *ERRORS, "estimate", "failed")
        values = {name: getattr(self, name) for name in names}
        return {**self.words(), **{name: None if value != value else value for name, value in values.items()}}

    def words(self) -> dict[str, Any]:
        """Return the forward solve, the gradient, and the adjoint's own solve if it has one, as (method, level)."""
        solver, gradient = self.config.solver, self.config.gradient.method
        backward = gradient_solver(self.config)
        own = gradient == "adjoint" and (backward.method, backward.rtol) != (solver.method, solver.rtol)
        return {
            "method": solver.method,
            "level": solver.rtol if solver.rtol is not None else solver.steps,
            "gradient_method": gradient,
            "backward_method": backward.method if own else None,
            "backward_level": (backward.rtol if backward.rtol is not None else backward.steps) if own else None,
        }


def halve(arms: Sequence[T], rungs: Sequence[Any], scores: Callable[[Sequence[T], Any], Sequence[float]]) -> list[T]:
    """Return the remaining arms of a race, the smallest score first; all remaining arms are scored at each rung.

    After each rung but the last the better half is kept (successive halving, Jamieson & Talwalkar 2016).
    """
    left = list(arms)
    for number, rung in enumerate(rungs, 1):
        values = scores(left, rung)
        order = sorted(range(len(left)), key=values.__getitem__)
        left = [left[n] for n in order[: len(left) if number == len(rungs) else -(-len(left) // 2)]]
    return left


def front(rows: Sequence[T], values: Callable[[T], Sequence[float]]) -> list[T]:
    """Return the Pareto front: the rows that no other equals in all values and beats in one; smaller is better."""

    def beats(a: Sequence[float], b: Sequence[float]) -> bool:
        return all(x <= y for x, y in zip(a, b)) and any(x < y for x, y in zip(a, b))

    points = [tuple(values(row)) for row in rows]
    return [row for row, own in zip(rows, points) if not any(beats(other, own) for other in points)]
