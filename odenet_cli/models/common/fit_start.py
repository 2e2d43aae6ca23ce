"""Choose the start of a fit: the best of many, since a bad one ends in a wrong local minimum.

If every state is observed, parameters are first fitted to an interpolation of the observations, whose increments must
be the integral of the field along it ("integral matching", Dattner & Klaassen 2015). This needs neither a solve nor a
start near the solution. Otherwise starts are drawn around the given one, and the best of them are improved together by
Levenberg-Marquardt steps on coarse paths. The given start is kept unless another one fits clearly better.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from odenet_cli.models.common.levenberg_marquardt import DAMPING, MAX_DAMPING, MIN_DAMPING, marquardt_step
from odenet_cli.ode import Fixed

SPREAD = 2.0  # standard deviation of a random parameter, or of its logarithm
GRID, TOGETHER = 200, 1024  # steps of coarse paths, and the number solved at once
DESCENDED, DESCENT, WIDTH = 16, 25, 4096  # starts that are improved, their steps at most, and paths solved at once
STALLED = 4  # number of steps in which the best sum of squares falls by less than 1 %
REACH = 3.0  # largest step, in logarithms
FINE = 8  # points of the interpolation between two observations
MATCHED, ITERATIONS, ENOUGH = 6, 60, 1e-4  # starts of the matching, its steps, and the relative decrease that ends it
WORTH = 0.5  # a start replaces the given one if its sum of squares is smaller by this factor


def find_start(model: Any, problem: Any, seed: int) -> str | None:
    """Set `model` to the best of its starts; return the origin of this start as text, None for the given one."""
    generator = torch.Generator().manual_seed(seed)
    given = model.get_free(problem)
    vectors = torch.cat((given[None], _drawn(model, problem, given, generator)))
    matched = _matched(model, problem, vectors[:MATCHED])
    if matched is not None:
        vectors = torch.cat((vectors, matched[None]))
    squares = _squares(model, problem, vectors)
    if matched is not None and squares[-1] == squares.min():
        best, least, origin = matched, squares[-1], "integral matching"
    else:
        best, least = _descend(model, problem, vectors[squares.argsort()])
        origin = f"the best of {model.starts} starts"
    # Many starts fit equally badly before convergence: only a clear gain replaces the start given by the user.
    if not least < WORTH * squares[0]:
        return None
    model.set_free(problem, best)
    return origin


def _drawn(model: Any, problem: Any, given: Tensor, generator: torch.Generator) -> Tensor:
    """Draw free vectors around a given one (p + S·d,); observed states keep their initial values."""
    p, series = int(model.free.sum()), len(problem.series)
    hidden = torch.isin(model.free_states.nonzero().flatten(), model.columns, invert=True)
    moves = torch.cat((torch.ones(p, dtype=torch.bool), hidden.repeat(series)))
    # A number with bounds is drawn in its logarithm or logit, with unit 1; any other relative to its size.
    width = SPREAD * moves * torch.where(model.has_bounds(series) | (given == 0), 1.0, given.abs())
    return given + width * torch.randn(model.starts - 1, len(given), generator=generator, dtype=given.dtype)


def _rough(model: Any, problem: Any, vectors: Tensor) -> Tensor:
    """Return the residuals (K, n) of free vectors (K, p + S·d), from coarse paths.

    With fixed steps a stiff or diverging copy does not slow down the others.
    """
    grid = torch.linspace(0, 1, GRID + 1, dtype=vectors.dtype, device=vectors.device)
    place = (problem.times * GRID).long().clamp_max(GRID - 1)
    share = (problem.times * GRID - place)[..., None]
    rows, residuals = torch.arange(len(place))[:, None], []
    with torch.no_grad():
        for some in torch.split(vectors, max(1, TOGETHER // len(place))):
            theta, initial = model.split_free(problem, some)
            y = model.solve(problem, theta, initial, grid, Fixed(method="rk4", steps=1))
            path = torch.lerp(y[:, rows, place], y[:, rows, place + 1], share)
            residuals.append(model.path_residuals(problem, path))
    return torch.cat(residuals)


def _squares(model: Any, problem: Any, vectors: Tensor) -> Tensor:
    """Return the sum of squared residuals of each free vector, (K,); infinite if it has no finite path."""
    return _rough(model, problem, vectors).square().sum(1).nan_to_num(torch.inf)


def _descend(model: Any, problem: Any, vectors: Tensor) -> tuple[Tensor, Tensor]:
    """Improve the first of the free vectors (K, q); return the one with the least sum of squares, and this sum.

    Their number is limited so that they are cheap to solve at once, with all derivatives: few for many series.
    """
    q = vectors.shape[1]
    u = vectors[: min(DESCENDED, max(1, WIDTH // ((1 + q) * len(problem.series))))]
    eye, damping = 1e-6 * torch.eye(q, dtype=u.dtype, device=u.device), u.new_full((len(u),), DAMPING)

    def linearise(u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        r = _rough(model, problem, torch.cat((u[:, None], u[:, None] + eye), 1).flatten(0, 1)).view(len(u), 1 + q, -1)
        jacobian = ((r[:, 1:] - r[:, :1]) / 1e-6).transpose(1, 2)
        # 0 · NaN is NaN: a point with an undefined derivative counts as infinitely bad, and is rejected.
        squares = r[:, 0].square().sum(1) + 0 * jacobian.sum((1, 2))
        return r[:, 0], jacobian, squares.nan_to_num(torch.inf, posinf=torch.inf)

    r, jacobian, squares = linearise(u)
    least: list[float] = []
    while len(least) < DESCENT and not (len(least) > STALLED and least[-1] > 0.99 * least[-1 - STALLED]):
        normal = (jacobian.mT @ jacobian).nan_to_num()
        diagonal = normal.diagonal(dim1=1, dim2=2)
        normal = normal + torch.diag_embed(damping[:, None] * diagonal + 1e-12 * diagonal.amax(1, True) + 1e-300)
        # Normal equations, unlike `marquardt_step`: less accurate, but one batched call for all starts.
        step = torch.linalg.solve(normal, -(jacobian.mT @ r[..., None]).nan_to_num())[..., 0]
        new_r, new_jacobian, new_squares = linearise(u + step.clamp(-REACH, REACH))
        better = new_squares < squares
        damping = torch.where(better, damping / 4, damping * 6).clamp(MIN_DAMPING, MAX_DAMPING)
        u = torch.where(better[:, None], u + step.clamp(-REACH, REACH), u)
        r = torch.where(better[:, None], new_r, r)
        jacobian = torch.where(better[:, None, None], new_jacobian, jacobian)
        squares = torch.where(better, new_squares, squares)
        least.append(float(squares.min()))
    best = squares.argmin()
    return u[best], squares[best]


def _matched(model: Any, problem: Any, vectors: Tensor) -> Tensor | None:
    """Return the free vector whose parameters match the field to the observations; None if a state is not observed
    or a parameter lies on its bound."""
    p = int(model.free.sum())
    if len(set(model.columns.tolist())) < len(model.states) or not p:
        return None
    grids = [_interpolated(model, problem, n) for n in range(len(problem.series))]
    known = [grid for grid in grids if grid is not None]
    if not known:
        return None

    def residuals(u: Tensor) -> Tensor:
        theta, _ = model.split_free(problem, torch.cat((u, vectors[0, p:]))[None])
        return torch.cat([_mismatch(model, theta[0], *grid) for grid in known])

    matches = [_minimum(residuals, vector[:p]) for vector in vectors]
    u, _ = min(matches, key=lambda match: match[1])
    vector = torch.cat((u, vectors[0, p:]))
    # If a positive parameter is best at 0, its logarithm diverges, and the fit cannot start there.
    theta, names = model.split_free(problem, vector[None])[0][0], len(model.names)
    inside = (theta > model.low[:names]) & (theta < model.high[:names])
    return vector if bool(inside[model.free].all()) else None


def _minimum(residuals: Callable[[Tensor], Tensor], u: Tensor) -> tuple[Tensor, float]:
    """Return a local minimum of the sum of squared residuals near u, and this sum; infinite if not finite."""
    r, damping = residuals(u), DAMPING
    for _ in range(ITERATIONS):
        if not bool(r.isfinite().all()):
            return u, torch.inf
        step = marquardt_step(u, r, _differences(residuals, u), residuals, damping)
        done = not step.taken or float(step.residuals @ step.residuals) > (1 - ENOUGH) * float(r @ r)
        u, r, damping = step.u, step.residuals, step.damping
        if done:
            break
    return u, float(r @ r)


def _interpolated(model: Any, problem: Any, n: int) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return times (M,), states (M, D) and their scales (D,) for series n; None for fewer than three points."""
    fitted = ~problem.held_out[n] & ~problem.values[n].isnan().all(1)
    times = problem.begins[n] + problem.lasts[n] * problem.times[n][fitted]
    if len(times) < 3:
        return None
    knots = times
    fine = torch.cat([knots[:-1, None] + knots.diff()[:, None] * torch.arange(FINE) / FINE], 1).flatten()
    fine = torch.cat((fine, knots[-1:]))
    values = problem.values[n][fitted]
    columns = []
    for state in range(len(model.states)):
        x = values[:, (model.columns == state).nonzero()[0, 0]]
        known = ~x.isnan()
        if int(known.sum()) < 3:
            return None
        columns.append(_hermite(knots[known], x[known], fine))
    return fine, torch.stack(columns, 1), model.scale


def _hermite(t: Tensor, x: Tensor, at: Tensor) -> Tensor:
    """Return x (N,) at times t (N,) interpolated at other times (M,), by a cubic Hermite spline; constant outside."""
    h, d = t.diff(), x.diff() / t.diff()
    inner = (h[1:] * d[:-1] + h[:-1] * d[1:]) / (h[1:] + h[:-1])  # slope of the parabola through three points
    slope = torch.cat((d[:1], inner, d[-1:]))
    k = torch.searchsorted(t, at.contiguous()).clamp(1, len(t) - 1) - 1
    s = ((at - t[k]) / h[k]).clamp(0, 1)
    return (
        x[k] * (1 + 2 * s) * (1 - s) ** 2
        + slope[k] * h[k] * s * (1 - s) ** 2
        + x[k + 1] * s**2 * (3 - 2 * s)
        + slope[k + 1] * h[k] * s**2 * (s - 1)
    )


def _mismatch(model: Any, theta: Tensor, times: Tensor, states: Tensor, scale: Tensor) -> Tensor:
    """Return the states minus the integral of the field along them, and minus the mean of this: (M·D,)."""
    with torch.no_grad():
        f = model.copies(theta.expand(len(times), -1))(times, states)
    # x(t) - ∫ f(x(s)) ds is constant for the true parameters; the integral is by the trapezoidal rule.
    integral = torch.cat((torch.zeros_like(f[:1]), (0.5 * (f[1:] + f[:-1]) * times.diff()[:, None]).cumsum(0)))
    left = (states - integral) / scale
    return (left - left.mean(0)).flatten() / len(times) ** 0.5


def _differences(residuals: Any, u: Tensor) -> Tensor:
    """Return the derivatives of residuals (n,) with respect to u (p,), by forward differences: (n, p)."""
    # About the square root of float64's resolution, which balances truncation and rounding of a forward difference.
    steps, r = 1e-7 * u.abs().clamp_min(1e-3), residuals(u)
    return torch.stack([(residuals(u + step) - r) / step.sum() for step in steps.diag()], 1)
