"""What can be wrong with a solve: one function a cause, in the order in which they are asked.

Each returns None where its cause does not show. Their thresholds were chosen on the problems of
`tests/ode/sick_problems.py` that are not held out.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode.diagnosis.trace import Case, OverBudget, Place, Trace, columns, observe, relative_error
from odenet_cli.ode.errors import NotFinite, StepLimit, StepTooSmall
from odenet_cli.ode.multistep.nordsieck import Multistep
from odenet_cli.ode.resolution import NAMES, RESOLUTION
from odenet_cli.ode.right_hand_side import RightHandSide
from odenet_cli.ode.solver import Adaptive, Fixed
from odenet_cli.ode.state import State, rms
from odenet_cli.ode.tableau import Tableau
from odenet_cli.ode.transforms import is_finite

Cure = dict[str, Any]


@dataclass
class Finding:
    """Hold what one cause shows.

    cures      to try, the best first
    repair     what the field or the state of the problem is replaced by while a cure is tried
    extend     returns a longer cure where one was not enough, or None
    budget     evaluations below which a cure is one, where the solve did not fail
    by_column  judge a cure by the error of each column of the state
    """

    kind: str
    reason: str
    evidence: dict[str, Any] = field(default_factory=dict)
    cures: list[Cure] = field(default_factory=list)
    repair: Callable[[Case], Case] | None = None
    extend: Callable[[Cure, Look], Cure | None] | None = None
    budget: int | None = None
    by_column: bool = False


class Look:
    """Hold a watched solve, and evaluate its field anew."""

    def __init__(self, case: Case, trace: Trace) -> None:
        self.case, self.trace, self.solver = case, trace, case.solver
        self.rhs = RightHandSide(case.field, case.y0, case.args)
        self.times = case.times
        self.t0, self.t1 = self.times[0], self.times[-1]
        self.span = abs(self.t1 - self.t0)
        self.direction = math.copysign(1.0, self.t1 - self.t0)
        self.controlled = slice(getattr(self.solver, "n_controlled", None))

    @property
    def failed(self) -> bool:
        return self.trace.error is not None

    @cached_property
    def h(self) -> float:
        """The median length of the last steps."""
        return statistics.median(abs(place.h) for place in self.trace.window) if self.trace.window else self.span

    def f(self, t: float, y: State) -> State:
        with self.rhs.torch_settings.for_solver():
            return self.rhs(t, y)

    def tolerances(self, x: State, y: State) -> float:
        """Return the RMS of `x` in units of the error that the solver allows around `y`."""
        scale = self.case.norm.error_scale(y[self.controlled], y[self.controlled])
        ratio: float = self.case.norm.scaled_norms([x[self.controlled]], scale)[0]
        return ratio


# The optimiser: numbers that no solver can use.

HUGE_WEIGHTS = 50.0  # of RMS times the root of the fan-in; an initialised layer of torch has 0.58, trained ones a few


def optimiser(look: Look) -> Finding | None:
    """Weights or a start that are NaN, or weights that have grown far beyond those of any trained network."""
    if not look.failed:
        return None
    names = {"y0" if look.rhs.single else f"y0[{n}]": part for n, part in enumerate(look.rhs.y0)}
    weights = look.case.weights()
    spoilt = {name: int((~torch.isfinite(x)).sum()) for name, x in {**names, **weights}.items() if not is_finite(x)}
    gains = {name: _gain(x) for name, x in weights.items() if isinstance(x, torch.nn.Parameter) and x.dim() > 1}
    huge = {name: gain for name, gain in gains.items() if gain > HUGE_WEIGHTS}
    if not spoilt and not huge:
        return None
    if spoilt:
        first = next(iter(spoilt))
        reason = f"{spoilt[first]} of {({**names, **weights})[first].numel()} numbers of {first} are NaN or infinite"
        evidence: dict[str, Any] = {"numbers that are not finite": sum(spoilt.values())}
        how = "with these numbers set to 0"
    else:
        first = max(huge, key=huge.__getitem__)
        reason = f"the weights of {first} are {huge[first] / 0.58:,.0f} times those of an initialised layer"
        evidence = {"RMS times root of fan-in": huge[first]}
        how = "with these weights scaled back to an initialised layer's"

    def repair(case: Case) -> Case:
        parts = tuple(torch.nan_to_num(part, 0.0, 0.0, 0.0) for part in look.rhs.y0)
        for name, tensor in case.weights().items():
            if name in huge:
                tensor.data = tensor.data * (0.58 / huge[name])
            elif name in spoilt:
                tensor.data = torch.nan_to_num(tensor.data, 0.0, 0.0, 0.0)
        return replace(case, y0=look.rhs.restore(parts))

    remedy = f"lower optim.lr, or set optim.clip=1, and go on from weights that were good; tried {how}"
    return Finding("optimiser", f"{reason}: the solver is innocent", evidence, [{"field": remedy}], repair)


def _gain(weight: Tensor) -> float:
    return rms((weight,)) * math.sqrt(weight[0].numel()) if weight.numel() else 0.0


# Noise: the field is no function of t and y.


def noise(look: Look) -> Finding | None:
    """Evaluations at one point that differ by more than rounding does."""
    y0 = look.rhs.y0
    before = torch.random.get_rng_state()
    values = [look.f(look.t0, tuple(part.clone() for part in y0)) for _ in range(4)]
    if not all(is_finite(part) for value in values for part in value):
        return None
    size = max(map(rms, values))
    apart = max(
        rms(tuple(a.cpu().double() - b.cpu().double() for a, b in zip(value, values[0]))) for value in values[1:]
    )
    eps = max(RESOLUTION[part.dtype] for part in y0)
    if apart <= 1e3 * eps * size:
        return None
    random = not torch.equal(before, torch.random.get_rng_state()) or any(part.is_cuda for part in y0)
    source = "it draws random numbers at each evaluation" if random else "it changes from call to call"
    remedy = (
        "draw once a solve and hand it over in args; switch dropout off inside the field (field.eval(), p=0)"
        if random
        else "let the field keep no state of its own: what changes from solve to solve goes into args"
    )
    state = torch.random.get_rng_state()

    def repair(case: Case) -> Case:
        def frozen(t: Tensor, y: Any, *args: Any) -> Any:
            torch.random.set_rng_state(state)
            return (case.field if random else copy.deepcopy(case.field))(t, y, *args)

        return replace(case, field=frozen)

    evidence = {"difference of two evaluations, relative": apart / size}
    reason = f"two evaluations at t = {look.t0:.6g} differ: {source}, and is no field of an equation"
    return Finding("noise", reason, evidence, [{"field": remedy}], repair)


# Resolution: what the dtype can tell apart.

ROUNDED = 0.5  # tolerances


def resolution(look: Look) -> Finding | None:
    """Rounding that the error estimate takes for an error: of y and t by one or two units in the last place."""
    dtypes = [part.dtype for part in look.rhs.y0]
    dtype = max(dtypes, key=RESOLUTION.__getitem__)
    eps, double = RESOLUTION[dtype], RESOLUTION[dtype] <= RESOLUTION[torch.float64]
    rtol = max(look.case.norm.rtol, 10 * eps)
    cures: list[Cure] = [] if double else [{"dtype": "float64"}]
    cures.append({"rtol": 100 * eps, "atol": max(look.case.norm.atol, 100 * eps)})
    if look.trace.refused:
        return Finding("resolution", str(look.trace.error), {"rtol": look.case.norm.rtol, "eps": eps}, cures)
    places = [*look.trace.window][::6]
    troubled = look.failed or look.trace.rejected > 0.2 * look.trace.accepted
    if not places or not troubled or not isinstance(look.solver, Adaptive):
        return None
    error = statistics.median(_moved(look, place, eps) for place in places)
    if error < ROUNDED and not double:
        error = statistics.median(_rounded(look, places))
    if not ROUNDED <= error < math.inf:
        return None
    evidence = {"error of a step by rounding, in tolerances": error, "rtol": look.case.norm.rtol, "eps": eps}
    reason = (
        f"rounding in {NAMES[dtype]} alone changes a step of h = {look.h:.2g} by {error:.2g} times what "
        f"solver.rtol={look.case.norm.rtol:g}, solver.atol={look.case.norm.atol:g} allow"
    )
    cures[-1] = {"rtol": min(0.1, 4 * error * rtol), "atol": min(0.1, 4 * error * max(look.case.norm.atol, eps))}
    return Finding("resolution", reason, evidence, cures)


def _moved(look: Look, place: Place, eps: float) -> float:
    """Return how much a step changes, in tolerances, when y and t move by a rounding error."""
    t = place.t + 2 * RESOLUTION[look.rhs.time_dtype] * max(abs(place.t), 1e-30)
    near = tuple(part * (1 + 2 * eps) for part in place.y)
    change = tuple(a - b for a, b in zip(look.f(t, near), look.f(place.t, place.y)))
    return look.tolerances(tuple(abs(place.h) * part for part in change), place.y)


def _rounded(look: Look, places: Sequence[Place]) -> list[float]:
    """Return how much steps change, in tolerances, when the field is evaluated in float64."""
    try:
        with look.case.under({"dtype": "float64"}) as double:
            rhs = RightHandSide(double.field, double.y0, double.args)
            values = [rhs(place.t, tuple(part.double() for part in place.y)) for place in places]
    except (RuntimeError, TypeError, ValueError):  # a field that computes in one dtype alone
        return [0.0]
    changes = [tuple((a.double() - b).to(a) for a, b in zip(place.f, f)) for place, f in zip(places, values)]
    return [
        look.tolerances(tuple(abs(place.h) * part for part in change), place.y)
        for place, change in zip(places, changes)
    ]


# Tolerance: so loose that the solve follows another solution.


def tolerance(look: Look) -> Finding | None:
    """A solve that passes at a hundredth of the tolerance, in no more evaluations than it failed with."""
    solver, finer = look.solver, look.case.tighter().solver
    if not look.failed or look.trace.refused or not (isinstance(solver, Adaptive) and isinstance(finer, Adaptive)):
        return None
    cure: Cure = {"rtol": finer.rtol, "atol": finer.atol}
    try:
        with look.case.under(cure) as treated:
            exact = observe(treated, min(1000 + look.trace.nfe, 3000))
    except OverBudget:
        return None
    if exact.error is not None or exact.nfe > look.trace.nfe:
        return None
    evidence = {"evaluations": look.trace.nfe, "at a hundredth of the tolerance": exact.nfe}
    reason = (
        f"solver.rtol={solver.rtol:g}, solver.atol={solver.atol:g} are so loose that the solve leaves the "
        f"solution, and failed after {look.trace.nfe:,} evaluations; at a hundredth it takes {exact.nfe:,}"
    )
    return Finding("tolerance", reason, evidence, [cure])


# Blow-up: the solution ends before the last time does.


def blow_up(look: Look) -> Finding | None:
    """Growth of |f| by a thousand up to where the solve ends: its growth rate g rises like 1/(t* - t), or overflows."""
    sizes, t = look.trace.f_size, look.trace.t
    if not look.failed or len(sizes) < 8 or not min(sizes) > 0.0:
        return None
    peak = max(range(len(sizes)), key=lambda n: sizes[n] if math.isfinite(sizes[n]) else math.inf)
    done, passed = abs(t[peak] - look.t0), abs(look.trace.end[0] - t[peak])
    rise = max((n for n in range(peak) if sizes[n] <= sizes[peak] / 4), default=peak)
    growth, since = sizes[peak] / min(sizes[: peak + 1]), abs(t[peak] - t[rise])
    if growth < 1e3 or passed > 0.03 * done or not since > 0:
        return None
    rate = math.log(sizes[peak] / sizes[rise]) / since
    overflows = math.log10(max(sizes[peak], 1.0)) > 0.4 * math.log10(torch.finfo(look.rhs.time_dtype).max)
    if rate * look.span < 100 and not overflows:
        return None
    until = t[peak] + (1 / rate if not overflows else 0.0) * look.direction
    before = look.t0 + 0.95 * (until - look.t0)
    evidence = {"ends at t": until, "growth of |f|": growth, "doubling time": math.log(2) / rate}
    if len(look.rhs.y0[0].shape) > 1:
        evidence["sample"] = int(look.trace.window[-1].f[0].abs().flatten(1).amax(1).argmax())
    reason = f"the solution grows without bound: it ends at about t = {until:.3g}, before {look.t1:.6g}"
    remedy = "bound the field (tanh, a smaller last layer), or stop before that time"
    times = [s for s in look.times if (before - s) * look.direction > 0]
    return Finding("blow_up", reason, evidence, [{"ts": (*times, before), "field": remedy}])


# Jumps: the field is discontinuous on the way.

MAX_JUMPS = 200


def jump(look: Look) -> Finding | None:
    """Discontinuities of f along the path near rejected steps, each found by bisection."""
    solver = look.solver
    if not look.failed or not isinstance(solver, Adaptive):
        return None
    found = jumps_along(look)
    if not found:
        return None
    at = sorted(found, reverse=look.direction < 0)
    evidence = {"jumps at t": tuple(at[:6]), "rejected steps": look.trace.rejected, "of": _tried(look.trace)}
    many = f"jumps {len(at)} times, first" if len(at) > 1 else "jumps"
    reason = f"the field {many} at t = {at[0]:.6g}, and steps are rejected until they are short enough there"
    if not any(found.values()):
        cure = {"max_steps": 4 * solver.max_steps, "field": SMOOTH}
        return Finding("jump", f"{reason}; it switches with y, not t", evidence, [cure], extend=_longer)
    return Finding("jump", reason, evidence, [_declared(solver, found)], extend=_more_jumps)


SMOOTH = "smooth the switch (torch.sigmoid(y / width) in the place of y > 0)"


def _declared(solver: Adaptive, found: dict[float, bool]) -> Cure:
    """Return the cure that declares the jumps in time, beside those that are."""
    return {"jumps": tuple(sorted({*solver.jumps, *(t for t, in_time in found.items() if in_time)}))}


def _more_jumps(cure: Cure, again: Look) -> Cure | None:
    """Return a cure that declares also those jumps that are met once others are declared; None if there are none."""
    assert isinstance(again.solver, Adaptive)
    longer = _declared(again.solver, jumps_along(again))
    return longer if len(cure["jumps"]) < len(longer["jumps"]) <= MAX_JUMPS else None


def jumps_along(look: Look) -> dict[float, bool]:
    """Return the times at which f is discontinuous along the path, those declared left out; True: also where y stays
    as it is."""
    known, found = getattr(look.solver, "jumps", ()), dict[float, bool]()
    end_t, end_y = look.trace.end
    stuck = Place(end_t, look.h * look.direction, end_y, (), 1)  # where the solve failed, the next attempt's window
    for place in [*([stuck] if look.failed else []), *reversed(look.trace.resisted)]:
        reach = min(abs(place.h) * 5.0**place.rejected, abs(look.t1 - place.t)) * look.direction
        if any(0 <= (t - place.t) * look.direction <= abs(reach) for t in found):
            continue  # it was rejected for a jump that a later, shorter step has shown better
        f0 = place.f or look.f(place.t, place.y)
        met = _discontinuity(look, place.t, place.y, f0, reach)
        if met is not None and all(abs(met[0] - other) > 1e-6 * look.span for other in (*known, *found)):
            found[met[0]] = met[1]
    return found


def _discontinuity(look: Look, t: float, y: State, f0: State, reach: float) -> tuple[float, bool] | None:
    """Return the time of the largest jump of f along y + (s - t) f0 for s from t to t + reach, by bisection, and
    whether f jumps there with y as it is."""

    def state(s: float) -> State:
        return tuple(part + (s - t) * dy for part, dy in zip(y, f0))

    def apart(a: State, b: State) -> float:
        return max(float((p - q).abs().max()) for p, q in zip(a, b))

    times = [t + reach * n / 8 for n in range(9)]
    values = [look.f(s, state(s)) for s in times]
    changes = [apart(a, b) for a, b in pairwise(values)]
    n = max(range(8), key=changes.__getitem__)
    if changes[n] < 0.4 * sum(changes):
        return None  # it changes everywhere
    (low, high), (f_low, f_high) = times[n : n + 2], values[n : n + 2]
    first, size = apart(f_low, f_high), max(float(part.abs().max()) for v in values for part in v)
    spacing = RESOLUTION[look.rhs.time_dtype] * max(abs(low), abs(high), 1e-3 * look.span)
    wide = math.inf
    while abs(high - low) > spacing:
        middle = (low + high) / 2
        f_middle = look.f(middle, state(middle))
        if apart(f_low, f_middle) >= apart(f_middle, f_high):
            high, f_high = middle, f_middle
        else:
            low, f_low = middle, f_middle
        if abs(high - low) <= 32 * spacing and wide == math.inf:
            wide = apart(f_low, f_high)
    left = apart(f_low, f_high)
    # A continuous field differs by ever less; one that jumps by the same across 32 roundings of t as across one.
    if not (left > 0.1 * first and left > 1e-5 * size and wide < 3 * left):
        return None
    return _plainest(low, high), apart(look.f(low, state(low)), look.f(high, state(low))) > 0.5 * left


def _plainest(low: float, high: float) -> float:
    """Return the shortest decimal between two times, as a person would have written it."""
    a, b = sorted((low, high))
    short = (float(f"{b:.{digits}g}") for digits in range(1, 18))
    return next((t for t in short if a <= t <= b), high)


def _tried(trace: Trace) -> int:
    return trace.accepted + trace.rejected


# Stiffness: the step is held by stability.

MANY_STEPS = 300  # of a solve that reached its end: fewer are no matter, whatever holds them
LESS_STIFF = ("bosh3", "heun_euler")  # 2.5 and 2 of the negative axis for 3 and 2 evaluations a step; dopri5: 3.3 for 6


def stiff(look: Look) -> Finding | None:
    """Steps at the bound of the method's region of stability, where the solution itself would allow far longer ones.

    The spectral radius is that of a nonlinear power iteration (Sommeijer, Shampine & Verwer, RKC, 1998, section 2.2);
    the bound is where |R(z)| = 1 in the direction of that eigenvalue (Hairer & Wanner II, IV.2).
    """
    trace, solver = look.trace, look.solver
    ended = not look.failed and isinstance(solver, Adaptive) and trace.accepted >= MANY_STEPS
    if not ended and not isinstance(trace.error, (StepLimit, NotFinite)):
        return None
    t, y = (look.t0, look.rhs.y0) if isinstance(solver, Fixed) else trace.end
    radius, real = spectral_radius(look, t, y)
    h = look.span / solver.steps if isinstance(solver, Fixed) else look.h
    bound = stability_bound(solver.formulas, real)
    if not math.isfinite(radius) or real > -0.05 or not h * radius > 0.5 * bound:
        return None
    if isinstance(solver, Fixed):
        steps = math.ceil(solver.steps * h * radius / (0.5 * bound))
        evidence = {"spectral radius": radius, "h times it": h * radius, "bound of stability": bound}
        reason = f"fixed steps of {h:.2g} are {h * radius / bound:.2g} times as long as is stable"
        return Finding("stiff", reason, evidence, [{"steps": steps}])
    if h * radius > 4 * bound or not _smooth(look):
        return None
    done = abs(trace.end[0] - look.t0)
    ahead = max(_tried(trace) * look.span / done, (look.span - done) * radius / (0.7 * bound) + _tried(trace))
    evidence = {"h": h, "spectral radius": radius, "h times it": h * radius, "bound of stability": bound}
    reason = (
        f"{_tried(trace):,} steps, the last of {h:.2g}, are as long as is stable (h times the spectral radius is "
        f"{h * radius:.2g}, the bound {bound:.2g}), while the solution is smooth over {len(trace.window)} of them"
    )
    if ended:
        cures: list[Cure] = [{"method": name} for name in LESS_STIFF if name != getattr(solver, "method", None)]
        return Finding("stiff", reason, evidence, cures, budget=trace.nfe)
    return Finding("stiff", reason, evidence, [{"max_steps": _round_up(1.5 * ahead)}])


def spectral_radius(look: Look, t: float, y: State, iterations: int = 40) -> tuple[float, float]:
    """Return |λ| of the largest eigenvalue of ∂f/∂y, and the cosine of its angle: -1 where it is real and negative."""
    generator = torch.Generator().manual_seed(0)
    f0 = look.f(t, y)
    v = tuple(torch.randn(part.shape, generator=generator).to(part) for part in y)
    size = math.sqrt(RESOLUTION[look.rhs.time_dtype]) * max(rms(y), 1e-3)
    radius, cosines = math.nan, []
    for _ in range(iterations):
        length = rms(v)
        if not 0 < length < math.inf:
            return 0.0 if length == 0 else math.nan, 0.0
        v = tuple(part * (size / length) for part in v)
        change = tuple(a - b for a, b in zip(look.f(t, tuple(a + b for a, b in zip(y, v))), f0))
        before, radius = radius, rms(change) / size
        product = sum(float((a * b).sum()) for a, b in zip(change, v))
        cosines.append(product / max(rms(change) * rms(v) * sum(part.numel() for part in v), 1e-300))
        v = change
        if abs(radius - before) < 1e-3 * radius:
            break
    return radius, statistics.mean(cosines[-6:])


def stability_bound(formulas: Tableau | Multistep, cosine: float) -> float:
    """Return the least |z| with |R(z)| > 1 in the direction of an eigenvalue; 1 for Adams, about that of PECE."""
    if isinstance(formulas, Multistep):
        return 1.0
    a = [[float(x) for x in row] for row in formulas.a]
    powers, coefficients = [1.0] * formulas.stages, [1.0]
    for _ in range(formulas.stages):
        coefficients.append(sum(float(b) * p for b, p in zip(formulas.b, powers)))
        powers = [sum(x * p for x, p in zip(row, powers)) for row in a]
    direction = complex(cosine, math.sqrt(max(0.0, 1 - cosine * cosine)))
    for radius in (0.02 * n for n in range(1, 2000)):
        if abs(sum(c * (radius * direction) ** n for n, c in enumerate(coefficients))) > 1.001:
            return radius
    return 40.0


def _smooth(look: Look) -> bool:
    """Tell whether a cubic through four states of the last steps meets those between within ten tolerances."""
    places = [*look.trace.window]
    if len(places) < 16:
        return False
    last = len(places) - 1
    nodes, tests = [round(last * x) for x in (0, 1 / 3, 2 / 3, 1)], [round(last * x) for x in (1 / 6, 1 / 2, 5 / 6)]
    worst = 0.0
    for n in tests:
        t, total = places[n].t, [torch.zeros_like(part) for part in places[n].y]
        for i in nodes:
            weight = math.prod((t - places[j].t) / (places[i].t - places[j].t) for j in nodes if j != i)
            total = [part + weight * y for part, y in zip(total, places[i].y)]
        worst = max(worst, look.tolerances(tuple(a - b for a, b in zip(total, places[n].y)), places[n].y))
    return worst <= 10.0


# Scale: the tolerance does not fit the size of the numbers.


def scale(look: Look) -> Finding | None:
    """A tolerance of a part of the state that is far from that of the others, relative to their sizes."""
    if not isinstance(look.solver, Adaptive):
        return None
    norm, largest = look.case.norm, look.trace.largest
    sizes = torch.cat(columns(largest[look.controlled]))
    starts = torch.cat(columns(look.rhs.y0[look.controlled]))
    sizes = sizes[(starts > 0) & torch.isfinite(sizes)]
    if not len(sizes):
        return None
    least, most = float(sizes.min()), float(sizes.max())
    if not look.failed:
        return _unseen(look, float(starts[starts > 0].min()), most)
    if norm.atol <= 1e-9 * norm.rtol * most and _held_by_zeros(look):
        atol = (norm.rtol or 1e-6) * most
        evidence = {"solver.atol": norm.atol, "size of the state": most}
        reason = f"solver.atol={norm.atol:g} leaves a number that is 0, or passes through it, without a tolerance"
        return Finding("scale", reason, evidence, [{"atol": float(f"{atol:.1g}")}])
    if norm.rtol == 0 and norm.atol < 1e-9 * most:
        rtol = min(1e-3, max(norm.atol / least, 1e-9))
        evidence = {"solver.atol": norm.atol, "largest part": most, "smallest part": least}
        reason = f"solver.rtol=0 and solver.atol={norm.atol:g} ask for {norm.atol / most:.1g} of a number of {most:.2g}"
        return Finding("scale", reason, evidence, [{"rtol": float(f"{rtol:.1g}")}])
    return None


def _held_by_zeros(look: Look) -> bool:
    """Tell whether numbers near 0 hold the step: against their largest size its error would be a tenth at most."""
    trace, norm = look.trace, look.case.norm
    if not trace.window:
        return any(bool((part == 0).any()) for part in look.rhs.y0)
    place = trace.window[-1]
    if isinstance(look.solver.formulas, Multistep):
        return False
    change = tuple(abs(place.h) * part for part in place.f)
    own = tuple(part / (norm.rtol * y.abs() + norm.atol) for part, y in zip(change, place.y))
    fair = tuple(part / (norm.rtol * size + norm.atol) for part, size in zip(change, trace.largest))
    return not rms(own) <= 10 * rms(fair)


def _unseen(look: Look, least: float, most: float) -> Finding | None:
    """Return what is wrong where a part of the state stays below atol, and is off by half its size."""
    norm = look.case.norm
    if least >= norm.atol:
        return None
    cure: Cure = {"atol": float(f"{(norm.rtol or 1e-3) * least:.1g}")}
    try:
        with look.case.under(cure) as treated:
            exact = observe(treated, 1000 + 20 * look.trace.nfe)
    except OverBudget:
        return None
    small = min(float(part[part > 0].min()) for part in columns(exact.largest) if (part > 0).any())
    if exact.error is not None or small >= norm.atol:
        return None
    error = relative_error(look.trace, exact, by_column=True)
    if not error > 0.5:
        return None
    evidence = {"solver.atol": norm.atol, "smallest part": small, "largest part": most, "its relative error": error}
    reason = f"a part of the state is at most {small:.2g}, below solver.atol={norm.atol:g}: its error is not controlled"
    return Finding("scale", reason, evidence, [cure], by_column=True)


# A limit that is too low: the solver does what it was asked.


def step_limit(look: Look) -> Finding | None:
    """A limit of the steps' number or length that the tolerance cannot keep."""
    trace, solver = look.trace, look.solver
    if not isinstance(solver, Adaptive) or not isinstance(trace.error, (StepLimit, StepTooSmall)):
        return None
    cure: Cure = {}
    if solver.min_step and isinstance(trace.error, StepTooSmall):
        cure["min_step"] = 0.0
    held = look.h >= 0.99 * solver.max_step
    if held:
        cure["max_step"] = look.span
    done = abs(trace.end[0] - look.t0)
    if not held and isinstance(trace.error, StepLimit):
        if not done:
            return None
        cure["max_steps"] = _round_up(1.5 * _tried(trace) * look.span / done)
    if not cure:
        return None
    evidence = {"steps": _tried(trace), "reached t": trace.end[0], "of": look.t1, "h": look.h}
    limits = ", ".join(f"solver.{key}={getattr(solver, key):g}" for key in cure)
    reason = f"the steps are as long as the tolerance allows, and {limits} is too narrow for it"
    return Finding("step_limit", reason, evidence, [cure], extend=_longer)


def _longer(cure: Cure, again: Look) -> Cure | None:
    """Return a cure of more steps, where some were accepted and it was their number that ended the solve."""
    if not isinstance(again.trace.error, StepLimit) or not again.trace.accepted:
        return None
    assert isinstance(again.solver, Adaptive)
    return {**cure, "max_steps": _round_up(3 * again.solver.max_steps)}


def _round_up(number: float) -> int:
    unit: int = 10 ** max(0, math.floor(math.log10(number)) - 1)
    return math.ceil(number / unit) * unit


CAUSES = (optimiser, noise, resolution, tolerance, blow_up, stiff, jump, scale, step_limit)
