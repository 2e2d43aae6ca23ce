"""A fit by least squares gives what closed forms, and scipy's own on these, give."""

import numpy
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.optimize import curve_fit

from odenet_cli import fields
from odenet_cli.data.observations import Observations
from odenet_cli.errors import RequestError
from odenet_cli.models.common.free_vector import derivative, from_free, to_free
from odenet_cli.models.common.levenberg_marquardt import relative_offset
from odenet_cli.models.fit import Fit
from odenet_cli.ode import Adaptive
from odenet_cli.tasks.common import inference
from odenet_cli.tasks.fit import loss
from odenet_cli.training.least_squares import LevenbergMarquardt

TRUE = {"alpha": 0.55, "beta": 0.028, "delta": 0.024, "gamma": 0.80}


def problem_of(*series, held_out=0):
    """Series, each (times (T,), values (T, C)), as a batch."""
    longest = max(len(t) for t, _ in series)
    times = torch.ones(len(series), longest, dtype=torch.float64)
    values = torch.full((*times.shape, numpy.shape(series[0][1])[1]), torch.nan, dtype=torch.float64)
    held = torch.ones(times.shape, dtype=torch.bool)
    for n, (t, x) in enumerate(series):
        t = torch.as_tensor(t, dtype=torch.float64)
        times[n, : len(t)], values[n, : len(t)] = (t - t[0]) / (t[-1] - t[0]), torch.as_tensor(x)
        held[n, : len(t) - held_out] = False
    begins = torch.tensor([float(t[0]) for t, _ in series], dtype=torch.float64)
    lasts = torch.tensor([float(t[-1] - t[0]) for t, _ in series], dtype=torch.float64)
    return Observations(torch.arange(len(series)), begins, lasts, times, values, held)


def model_of(problem, field, names, tolerance=1e-9, starts=4, **options):
    solver = Adaptive(method="dopri8", rtol=tolerance, atol=tolerance)
    model = Fit((len(problem.series), len(names)), 0, solver, field=field, starts=starts, **options).double()
    model.start_from(problem, names)
    model.begun = model.search_start(problem, 0) if starts > 1 else None
    return model


def fit(problem, field, names, **options):
    model = model_of(problem, field, names, **options)
    optimizer = LevenbergMarquardt(model, 1.0)
    for _ in range(60):
        loss(model, tuple(problem))
        optimizer.step()
        if optimizer.converged:
            return model
    raise AssertionError("not converged")


def estimates(model, problem, series=("",)):
    found = inference.infer(model, problem)
    return found, inference.estimates(model, problem, found, model.free_names(series))


def lotka_volterra(t, y0=(30.0, 4.0), rates=TRUE):
    a, b, d, g = rates.values()
    return solve_ivp(
        lambda _, y: [a * y[0] - b * y[0] * y[1], d * y[0] * y[1] - g * y[1]],
        (t[0], t[-1]),
        y0,
        t_eval=t,
        rtol=1e-10,
        atol=1e-10,
    ).y.T


def logistic(t, rate, capacity, size):
    return capacity / (1 + (capacity / size - 1) * numpy.exp(-rate * t))


def test_logistic_growth_is_fitted_as_its_closed_form_is():
    """Estimates, standard errors and correlations equal those of scipy.optimize.curve_fit."""
    t = numpy.sort(numpy.random.default_rng(0).uniform(0, 10, 25))
    t[0] = 0
    x = logistic(t, 0.9, 50.0, 3.0) + numpy.random.default_rng(1).normal(0, 1.5, len(t))
    problem = problem_of((t, x[:, None]))
    model = fit(problem, "logistic", ["size"])
    best, covariance = curve_fit(logistic, t, x, [1, 40, 2], xtol=1e-14, ftol=1e-14, gtol=1e-14)
    found, rows = estimates(model, problem)
    assert [*rows] == ["rate", "capacity", "size(0)"]
    assert [row["value"] for row in rows.values()] == pytest.approx(best, rel=1e-6)
    assert [row["error"] for row in rows.values()] == pytest.approx(numpy.diag(covariance) ** 0.5, rel=1e-6)
    errors = numpy.diag(covariance) ** 0.5
    assert found.correlation.numpy() == pytest.approx(covariance / errors[:, None] / errors, abs=1e-6)
    assert float(model.sigma[0]) * found.variance**0.5 == pytest.approx(
        (((logistic(t, *best) - x) ** 2).sum() / 22) ** 0.5
    )


def test_the_derivatives_are_those_of_the_closed_form():
    t = numpy.linspace(0, 5, 9)
    problem = problem_of((t, logistic(t, 0.9, 50.0, 3.0)[:, None]))
    model = model_of(problem, "logistic", ["size"], start={"rate": 0.8, "capacity": 40.0, "size": 2.0}, starts=1)
    _, jacobian = model.linearise(problem)
    u = torch.tensor([0.8, 40.0, 2.0], dtype=torch.float64, requires_grad=True)

    def closed(u):
        rate, capacity, size = u
        return capacity / (1 + (capacity / size - 1) * torch.exp(-rate * torch.as_tensor(t)))

    exact = torch.autograd.functional.jacobian(closed, u) * u.detach() / model.sigma
    assert (jacobian - exact).abs().max() < 1e-8 * exact.abs().max()


def test_series_share_parameters_and_have_beginnings_of_their_own():
    """Two series at their own irregular times, of different lengths, are one problem to curve_fit."""
    rng = numpy.random.default_rng(2)
    first, second = numpy.sort(rng.uniform(0, 8, 12)), 3 + numpy.sort(rng.uniform(0, 5, 7))
    first[0], second[0] = 0, 3
    x = logistic(first, 0.9, 50.0, 3.0) + rng.normal(0, 1, 12)
    y = logistic(second - 3, 0.9, 50.0, 20.0) + rng.normal(0, 1, 7)
    y[3] = numpy.nan
    problem = problem_of((first, x[:, None]), (second, y[:, None]))
    _, rows = estimates(fit(problem, "logistic", ["size"]), problem, ["a", "b"])

    def both(_, rate, capacity, a, b):
        return numpy.concatenate((logistic(first, rate, capacity, a), logistic(second - 3, rate, capacity, b)[KEPT]))

    KEPT = [0, 1, 2, 4, 5, 6]
    best, covariance = curve_fit(both, None, numpy.concatenate((x, y[KEPT])), [1, 40, 2, 15], xtol=1e-14, ftol=1e-14)
    assert [*rows] == ["rate", "capacity", "size(0) of a", "size(0) of b"]
    assert [row["value"] for row in rows.values()] == pytest.approx(best, rel=1e-6)
    assert [row["error"] for row in rows.values()] == pytest.approx(numpy.diag(covariance) ** 0.5, rel=1e-6)


def test_each_column_counts_by_its_own_precision():
    """With a variance a column, estimates are those of curve_fit weighted by the standard deviations that come out."""
    t, rng = numpy.arange(15.0), numpy.random.default_rng(3)
    x = lotka_volterra(t) + rng.normal(0, 1, (15, 2)) * [2.0, 0.2]
    problem = problem_of((t, x))
    model = fit(problem, "lotka_volterra", ["prey", "predator"], tolerance=1e-8)

    def path(_, *p):
        return lotka_volterra(t, p[4:], dict(zip(TRUE, p[:4]))).ravel()

    weights = numpy.tile(model.sigma.numpy(), 15)
    start = [*TRUE.values(), 30, 4]
    best, covariance = curve_fit(path, None, x.ravel(), start, sigma=weights, absolute_sigma=True, xtol=1e-12)
    _, rows = estimates(model, problem)
    assert [row["value"] for row in rows.values()] == pytest.approx(best, rel=1e-4)
    assert [row["error"] for row in rows.values()] == pytest.approx(numpy.diag(covariance) ** 0.5, rel=1e-2)
    assert model.sigma.tolist() == pytest.approx([2.0, 0.2], rel=0.5)
    r = model.residuals(problem).view(15, 2)
    assert r.square().sum(0).tolist() == pytest.approx([12.0, 12.0], rel=1e-3)  # 15 values each less half of 6


def test_populations_of_twenty_years_are_within_two_errors():
    """The shape of the hare and the lynx: yearly, two columns, years as times, errors that are factors."""
    t = numpy.arange(1900.0, 1921.0)
    x = lotka_volterra(t - 1900) * numpy.exp(numpy.random.default_rng(0).normal(0, 0.1, (21, 2)))
    problem = problem_of((t, x))
    model = fit(problem, "lotka_volterra", ["prey", "predator"], noise="log", tolerance=1e-7)
    assert model.begun == "integral matching"
    _, rows = estimates(model, problem)
    for name, true in TRUE.items():
        assert rows[name]["value"] == pytest.approx(true, abs=2 * rows[name]["error"] + 0.1 * true)
        assert rows[name]["low"] < rows[name]["value"] < rows[name]["high"]


@pytest.mark.numerics
def test_intervals_hold_as_often_as_they_say():
    """Of the 95 % intervals of twenty fits, 80 to 100 % hold the truth."""
    t, held = numpy.arange(21.0), []
    clean = lotka_volterra(t)
    for seed in range(20):
        x = clean * numpy.exp(numpy.random.default_rng(100 + seed).normal(0, 0.1, clean.shape))
        problem = problem_of((t, x))
        options = {"noise": "log", "start": TRUE, "tolerance": 1e-7, "starts": 1}
        _, rows = estimates(fit(problem, "lotka_volterra", ["prey", "predator"], **options), problem)
        held += [rows[name]["low"] < true < rows[name]["high"] for name, true in TRUE.items()]
    assert 0.8 <= numpy.mean(held) <= 1


def test_a_bad_start_is_recovered():
    """From this start alone the rates are not found, in twice the steps that many starts need."""
    t = numpy.arange(12.0)
    problem = problem_of((t, lotka_volterra(t)))
    options = {"start": {"alpha": 0.1, "beta": 0.6, "delta": 0.07, "gamma": 0.04}, "tolerance": 1e-6}
    found = []
    for starts in (4, 1):
        model = model_of(problem, "lotka_volterra", ["prey", "predator"], starts=starts, **options)
        optimizer = LevenbergMarquardt(model, 1.0)
        for _ in range(8 if starts > 1 else 16):
            loss(model, tuple(problem))
            optimizer.step()
        found.append(model.natural().tolist())
    assert found[0] == pytest.approx([*TRUE.values()], rel=1e-3)
    assert found[1] != pytest.approx([*TRUE.values()], rel=0.2)


def test_a_rate_that_is_best_at_zero_is_no_start():
    """A pendulum that swings higher and higher: matched to it, its damping, a positive number, goes down to 0."""
    t = numpy.arange(12.0)
    grows = numpy.exp(0.05 * t)[:, None] * numpy.stack([numpy.sin(t), numpy.cos(t)], 1)
    model = model_of(problem := problem_of((t, grows)), "pendulum", ["angle", "velocity"])
    assert model.begun == "the best of 4 starts"
    assert bool(model.get_free(problem).isfinite().all())


@pytest.mark.numerics
def test_a_state_that_nobody_saw_is_found_from_a_bad_start():
    """Of the predators only their effect is known; how many they are, and how much each eats, is not."""
    t = numpy.arange(21.0)
    problem = problem_of((t, lotka_volterra(t)[:, :1]))
    start = {"alpha": 1.5, "beta": 0.3, "delta": 0.1, "gamma": 0.2}
    model = fit(problem, "lotka_volterra", ["hare"], observed=["prey"], start=start, starts=64, tolerance=1e-8)
    values = dict(zip(model.names, model.natural().tolist()))
    assert values["alpha"] == pytest.approx(0.55, rel=1e-3)
    assert values["gamma"] == pytest.approx(0.80, rel=1e-3)
    found, rows = estimates(model, problem)
    (combination,) = found.combinations
    assert [[*rows][n] for n in combination] == ["beta", "predator(0)"]
    assert rows["beta"]["error"] is None
    assert rows["alpha"]["error"] is not None
    (line, *_) = inference.warnings(found, [*rows], {}, 21)
    assert line == "the data do not determine beta, predator(0): other values fit equally well."


def test_what_the_data_do_not_determine_is_named():
    """Far below its capacity a population says nothing of it."""
    t = numpy.linspace(0, 1, 12)
    x = 1e-9 * numpy.exp(0.7 * t) * (1 + 1e-3 * numpy.random.default_rng(0).normal(size=12))
    problem = problem_of((t, x[:, None]))
    model = fit(problem, "logistic", ["size"], noise="log", start={"capacity": 1e3}, fixed=[])
    found, rows = estimates(model, problem)
    assert rows["capacity"]["error"] is None
    assert rows["rate"]["error"] is not None
    assert inference.warnings(found, [*rows], {}, 12) == [
        "the data do not determine capacity: they hardly depend on it."
    ]


class Leak(torch.nn.Module):
    """y' = inflow - k y"""

    states, positive = ("y",), ("k", "inflow")

    def __init__(self):
        super().__init__()
        self.k, self.inflow = (torch.nn.Parameter(torch.tensor(x)) for x in (1.0, 0.2))

    def forward(self, t, y):
        return self.inflow - self.k * y


@pytest.mark.parametrize("case", ["between two", "above one"])
def test_at_a_bound_the_others_are_those_of_a_fit_that_holds_it_there(case):
    """Its column was rounding: errors were twice too large, and the fit did not end, or its data said nothing of it."""
    t, noise = numpy.linspace(0, 6, 30), numpy.random.default_rng(3).normal(0, 0.5, 30)
    if case == "between two":
        x = logistic(t, 0.9, 50.0, 3.0) + noise
        options, names, bound = (
            {"field": "logistic", "bounds": {"rate": [0, 0.7]}},
            ["capacity", "size(0)"],
            ("rate", 0.7),
        )

        def curve(t, *free):
            return logistic(t, 0.7, *free)

    else:
        x = 9 * numpy.exp(-0.7 * t) - 2 + 0.1 * noise
        options, names, bound = {"field": f"{__name__}:Leak"}, ["k", "y(0)"], ("inflow", 0.0)

        def curve(t, k, y0):
            return y0 * numpy.exp(-k * t)

    problem = problem_of((t, x[:, None]))
    model = fit(problem, **options, names=["y"], starts=1)
    best, covariance = curve_fit(curve, t, x, [1, 8] if case == "above one" else [50, 3], xtol=1e-14, ftol=1e-14)
    found, rows = estimates(model, problem)
    assert found.freedom == 28
    assert rows[bound[0]] == {"value": bound[1], "error": None, "low": None, "high": None, "bound": bound[1]}
    assert [rows[name]["value"] for name in names] == pytest.approx(best, rel=1e-5)
    assert [rows[name]["error"] for name in names] == pytest.approx(numpy.diag(covariance) ** 0.5, rel=1e-4)
    assert model.offset(problem) < 1e-4
    (line,) = inference.warnings(found, [*rows], {}, 30)
    assert line.startswith(f"{bound[0]} is at its bound {bound[1]:g}; ")


@pytest.mark.parametrize(("pair", "begun"), [([0, 0.4], 0.2), ([2, None], 4.0), ([None, -3], -6.0), ([0, 2], 1.0)])
def test_a_start_of_the_field_outside_its_bounds_is_moved_inside(pair, begun):
    """It was NaN, and the fit ended in an error of shapes."""
    model = Fit((1, 1), 0, Adaptive(method="dopri8", rtol=1e-6, atol=1e-6), field="logistic", bounds={"rate": pair})
    assert model.natural().tolist() == [begun, 1.0]
    assert bool(to_free(model.natural(), model.low[:2], model.high[:2]).isfinite().all())


def test_errors_that_follow_each_other_are_warned_of():
    t = numpy.linspace(0, 10, 60)
    x = logistic(t, 0.9, 50.0, 3.0) + numpy.sin(2 * t)
    problem = problem_of((t, x[:, None]))
    model = fit(problem, "logistic", ["size"])
    found, _ = estimates(model, problem)
    follow = inference.autocorrelations(model, problem, found.residuals, ["size"])
    r = found.residuals
    assert follow["size"] == pytest.approx(float(r[1:] @ r[:-1] / (r @ r)))
    assert (
        "residuals of size are correlated in time"
        in inference.warnings(found, ["rate", "capacity", "s"], follow, 60)[-1]
    )


def test_beginnings_as_observed_are_not_fitted():
    t = numpy.linspace(0, 10, 20)
    x = logistic(t, 0.9, 50.0, 3.0)
    problem = problem_of((t, x[:, None]))
    model = fit(problem, "logistic", ["size"], y0="first")
    assert model.free_names([""]) == ["rate", "capacity"]
    assert float(model.initial[0, 0].detach()) == x[0]
    assert len(model.residuals(problem)) == 19
    assert model.natural().tolist() == pytest.approx([0.9, 50.0], rel=1e-6)


def test_what_is_held_out_is_not_fitted():
    t = numpy.linspace(0, 10, 20)
    x = logistic(t, 0.9, 50.0, 3.0)
    x[15:] = 1e3
    problem = problem_of((t, x[:, None]), held_out=5)
    model = fit(problem, "logistic", ["size"])
    assert model.natural().tolist() == pytest.approx([0.9, 50.0], rel=1e-6)
    model.eval()
    assert loss(model, tuple(problem))[1]["r2_held_out"] < 0


def test_a_forecast_has_the_variance_of_parameters_and_of_an_observation():
    """The delta method on the closed form, with curve_fit's covariance."""
    t = numpy.linspace(0, 6, 30)
    x = logistic(t, 0.9, 50.0, 3.0) + numpy.random.default_rng(4).normal(0, 1.5, 30)
    problem = problem_of((t, x[:, None]))
    model = fit(problem, "logistic", ["size"])
    best, covariance = curve_fit(logistic, t, x, [1, 40, 2], xtol=1e-14, ftol=1e-14, gtol=1e-14)
    later = numpy.array([3.0, 9.0])
    at = problem._replace(times=torch.as_tensor(later)[None] / 6)
    found = inference.infer(model, problem)
    mean, bands = inference.forecast(model, problem, found, at, [0.05, 0.95])
    slopes = numpy.stack(
        [(logistic(later, *(best + d)) - logistic(later, *(best - d))) / 2e-5 for d in 1e-5 * numpy.eye(3)]
    )
    variance = ((logistic(t, *best) - x) ** 2).sum() / 27
    spread = numpy.sqrt(numpy.einsum("ik,ij,jk->k", slopes, covariance, slopes) + variance)
    assert mean[0, :, 0].tolist() == pytest.approx(logistic(later, *best), rel=1e-6)
    assert ((bands[1] - bands[0])[0, :, 0] / 2 / found.quantile(0.95)).tolist() == pytest.approx(spread, rel=1e-5)


def test_bounds_are_kept_and_their_numbers_come_back():
    inf = torch.inf
    low, high = torch.tensor([[0.0, -inf, -1.0, -inf], [inf, 3.0, 2.0, inf]], dtype=torch.float64)
    x = torch.tensor([0.3, 2.5, 1.9, -7.0], dtype=torch.float64)
    u = to_free(x, low, high)
    assert torch.allclose(from_free(u, low, high), x, rtol=1e-14)
    slopes = (from_free(u + 1e-5, low, high) - from_free(u - 1e-5, low, high)) / 2e-5
    assert torch.allclose(derivative(x, low, high), slopes, rtol=1e-8)


def test_the_relative_offset_is_zero_at_the_minimum_and_a_distance_elsewhere():
    rng = torch.Generator().manual_seed(0)
    a, b = (torch.randn(20, k, generator=rng, dtype=torch.float64) for k in (3, 1))
    at = torch.linalg.lstsq(a, b).solution
    r = (a @ at - b)[:, 0]
    assert relative_offset(r, a) < 1e-14
    moved = (a @ (at + 0.1) - b)[:, 0]
    away = (a @ torch.full((3,), 0.1, dtype=torch.float64)).norm() / 3**0.5
    assert relative_offset(moved, a) == pytest.approx(float(away / (r.norm() / 17**0.5)))


@pytest.mark.parametrize("name", fields.names())
def test_a_field_of_the_house_is_what_it_says(name):
    """Names that it gives are its own, and its parameters are found again from a noiseless path."""
    field = fields.field_class(name)()
    own = {*dict(field.named_parameters()), *field.states}
    assert {*getattr(field, "positive", ()), *getattr(field, "fixed", ())} <= own
    assert getattr(field, "initial", {}).keys() <= {*field.states}
    y = torch.full((len(field.states),), 0.5, dtype=torch.float64)
    assert field(torch.zeros(()), y).shape == y.shape
    ts = torch.linspace(0, 8, 25, dtype=torch.float64)
    path = Adaptive(method="dopri8", rtol=1e-11, atol=1e-11)(field, y, ts).y.detach()
    problem = problem_of((ts, path))
    nearby = {key: 1.1 * float(x.detach()) for key, x in field.named_parameters()}
    model = fit(problem, name, field.states, start=nearby, fixed=[], starts=1, tolerance=1e-8)
    true = [float(x.detach()) for x in field.parameters()]
    _, rows = estimates(model, problem)
    for (key, row), value in zip(rows.items(), true):
        assert row["error"] is None or row["value"] == pytest.approx(value, rel=1e-4), key


def test_bad_requests_are_refused_by_name():
    t = numpy.arange(6.0)
    problem = problem_of((t, lotka_volterra(t)))

    def refused(words, kind=ValueError, names=("prey", "predator"), problem=problem, **options):
        with pytest.raises(kind, match=words):
            model_of(problem, options.pop("field", "lotka_volterra"), list(names), **options)

    refused("model.start.alpha=-1 must be above 0", start={"alpha": -1.0})
    refused(
        "model.start: alhpa is neither a parameter nor a state of the field. Did you mean `alpha`", start={"alhpa": 1.0}
    )
    refused("model.fixed: x is neither a parameter", fixed=["x"])
    refused(r"model.bounds.alpha=\[2, 1\]: the first must be smaller", bounds={"alpha": [2, 1]})
    refused("must be two numbers", bounds={"alpha": 3})
    refused("model.y0=last is not known", RequestError, y0="last")
    refused("model.field=lotka is not known", RequestError, field="lotka")
    refused("names 1 states, and the table has 2 columns", observed=["prey"])
    refused("the table has 2 columns of values, and the field 1 states", field="logistic")
    refused("it is not known which", RequestError, ("a", "b"), field="sir")
    refused("do not determine 6 numbers", RequestError, problem=problem_of((t[:3], lotka_volterra(t)[:3])))
    zero = problem_of((t, numpy.maximum(lotka_volterra(t) - 30, 0)))
    refused("model.noise=log compares logarithms", RequestError, problem=zero, noise="log")
    gap = lotka_volterra(t)
    gap[0, 0] = numpy.nan
    refused("is missing there", RequestError, problem=problem_of((t, gap)), y0="first")
