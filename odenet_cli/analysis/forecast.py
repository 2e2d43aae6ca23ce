"""Predict series by the trained network of a run: mean and quantiles of what will be observed (`odenet predict`)."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from odenet_cli.analysis.forecast_rows import Forecast, Predicted, band_factors, summarize, with_factors
from odenet_cli.analysis.trained import known_data, report_other_data, weights_of_run
from odenet_cli.config.resolve import eval_solver
from odenet_cli.config.schema import Config
from odenet_cli.data.common.table_controls import pieces_of, scale_of
from odenet_cli.data.common.table_dates import dates_ahead, localize, moment, parse_dates, zones_of
from odenet_cli.data.common.table_patterns import DateError
from odenet_cli.data.common.table_series import Table
from odenet_cli.data.common.units import Units, median, seen_counts
from odenet_cli.data.table import Source
from odenet_cli.errors import RequestError
from odenet_cli.training import build
from odenet_cli.training.evaluate import scoring

UNITS = {"d": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0}
TOGETHER = 16  # series
MAX_AHEAD = 100_000  # points of a series

log = logging.getLogger("odenet")


class Question(NamedTuple):
    """Hold the options of a forecast, as `odenet predict --help` explains them.

    seen     share of the points of a series that the network is given; None: the window of the run, or all points if
             there is a horizon or the table continues without values
    horizon  how far to predict beyond the last point, as text: 10, 30d
    times    further times of predictions, as text
    draws    number of draws for the quantiles, with the noise of this `seed`
    """

    seen: float | None = None
    horizon: str | None = None
    times: list[str] = []  # noqa: RUF012
    draws: int = 200
    seed: int = 0


class Target(NamedTuple):
    """Hold a series: the times (M,) of its predictions, the true values (M, D), NaN if unknown, and the number seen."""

    name: str
    times: Tensor
    truth: Tensor
    seen: int


def forecast(folder: Path, config: Config, which: str, question: Question) -> Forecast:
    """Predict every series of a table by the `best` or `last` weights of the run in `folder`."""
    trained_on = known_data(folder)
    source = Source(**config.source()[1]).in_units_of(trained_on)
    table, units, record = source.table_of_run()
    if report_other_data(folder, trained_on, record) and record["warning"]:
        log.warning("%s", record["warning"])
    targets = list(series_of(table, question, source.window))
    known = known_at_all_times(source, table, units, targets)
    where, dtype = build.choose_device(config), build.eval_dtype(config)
    model: Any = build.model(config, source.shape, source.classes)
    check_draws(config, model)
    model.load_state_dict(weights_of_run(folder, config, which)["model"])
    generator, parts = torch.Generator().manual_seed(question.seed), list[Tensor]()
    net: Any
    with torch.no_grad(), scoring(model.to(where), build.solver(eval_solver(config)), dtype) as net:
        for start in range(0, len(targets), TOGETHER):
            some = targets[start : start + TOGETHER]
            given = [part.to(where, dtype if part.is_floating_point() else None) for part in batch_of(some, units)]
            control = {
                name: tuple(part[start : start + TOGETHER].to(where, dtype) for part in pieces)
                for name, pieces in known.items()
            }
            draws = net.draw(*given, question.draws, generator, **control).double().cpu() * units.sd + units.mean
            parts += [part[:, : len(target.times)] for target, part in zip(some, summarize(draws).unbind(1))]
    factors, series = band_factors(folder, which, len(units.columns)), []
    for target, summary in zip(targets, parts):
        seen = seen_points(target)
        summary = with_factors(summary, factors, (target.times - target.times[seen][-1]) / units.time)
        series.append(Predicted(target.name, target.times, seen, target.truth, summary))
    header = [*table.header[:2], *units.columns]
    return Forecast(header, series, table.dates, calibrated=factors is not None, zone=table.zone, empty=table.empty)


def check_draws(config: Config, model: Any) -> None:
    """Raise RequestError for a model that cannot draw future observations."""
    if not hasattr(model, "draw"):
        raise RequestError(f"model={config.model['name']} has no method `draw`, which predictions of series need.")


def series_of(table: Any, question: Question, window: float) -> Iterator[Target]:
    """Yield every series with the times of its predictions: its own, requested, and after the last point."""
    asked = read_times(question.times, table.dates, table.zone)
    horizon = None if question.horizon is None else read_horizon(question.horizon, table.dates)
    times, values = (part.split(table.numbers.counts.tolist()) for part in (table.numbers.times, table.numbers.values))
    known = table.controls.numbers if table.controls else table.numbers
    rows = known.times.split(known.counts.tolist())
    blank = table.blank or [t[:0] for t in times]
    for name, t, x, row, empty in zip(table.names, times, values, rows, blank):
        rest = torch.cat((row, empty))
        more = [asked, rest[(rest > t[0]) & (rest <= t[-1] + (1 + 1e-9) * (horizon or math.inf))]]
        share = question.seen or (1.0 if horizon or bool(rest.max() > t[-1]) else window)
        if horizon is not None and not bool(row[-1] > t[-1]):
            gap = median(t.diff())
            if horizon / gap > MAX_AHEAD:
                raise RequestError(
                    f"horizon={question.horizon} is {horizon / gap:,.0f} points of series {name}, which is too many."
                )
            dates = dates_ahead(pl.Series(t.tolist()), gap, horizon, table.zone) if table.dates == "date" else None
            steps = torch.arange(1, int(horizon / gap + 1e-9) + 1, dtype=t.dtype)
            more.append(t[-1] + gap * steps if dates is None else dates.to_torch().to(t))
        elif horizon is not None and row[-1] + median(row.diff()) <= t[-1] + (1 + 1e-9) * horizon:
            wanted, given = (moment(float(x), table.dates, table.zone) for x in (t[-1] + horizon, row[-1]))
            raise RequestError(
                f"horizon={question.horizon} goes to {wanted}, and the controls of series {name} are given up to "
                f"{given}. Add rows of controls up to there, with empty values, or lower the horizon."
            )
        if early := [word for word, time in zip(question.times, asked) if time < t[0]]:
            raise RequestError(f"times={early[0]}: series {name} begins later, so there is nothing to predict from.")
        every = torch.unique(torch.cat((t, *more)))
        truth = x.new_full((len(every), x.shape[1]), float("nan"))
        truth[torch.searchsorted(every, t)] = x
        yield Target(name, every, truth, int(seen_counts(share, torch.tensor(len(t)))))


def known_at_all_times(
    source: Source, table: Table, units: Units, targets: list[Target]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the controls of every series, an argument of the network; raise RequestError if they end too soon."""
    controls = table.controls
    if controls is None:
        return {}
    for target, ends in zip(targets, controls.ends):
        n, last = int(ends.argmin()), float(target.times[-1])
        if last > float(ends[n]):
            given, wanted = (moment(t, table.dates, table.zone) for t in (float(ends[n]), last))
            raise RequestError(
                f"{source.file}: {controls.columns[n]} of series {target.name} is given up to {given}, and the "
                f"forecast goes to {wanted}. Add rows with {controls.columns[n]} up to there, their values empty, or "
                "ask for earlier times (horizon=, times=)."
            )
    first, last_row = controls.rows[table.numbers.starts], controls.numbers.ends
    return {"control": pieces_of(controls, scale_of(source.run or {}), source.kind, units.time, first, last_row)}


def batch_of(targets: list[Target], units: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return times, values and mask of the points seen, and the target times, padded, in units; series begin at 0."""
    known = [torch.nonzero(~target.truth.isnan().all(1)).flatten()[: target.seen] for target in targets]
    scaled = [(target.times - target.times[0]) / units.time for target in targets]
    times = pad_sequence([t[k] for t, k in zip(scaled, known)], batch_first=True)
    seen = [(target.truth[k] - units.mean) / units.sd for target, k in zip(targets, known)]
    values = pad_sequence(seen, batch_first=True)
    counts = torch.tensor([len(k) for k in known])
    mask = torch.arange(times.shape[1]) < counts[:, None]
    return times, values, mask, pad_sequence(scaled, batch_first=True)


def seen_points(target: Target) -> Tensor:
    """Return which of the target's times are seen, (M,)."""
    known = ~target.truth.isnan().all(1)
    return known & (known.cumsum(0) <= target.seen)


def read_times(words: list[str], dates: str, zone: str = "") -> Tensor:
    """Return times of the table's kind; dates in seconds, local in `zone` unless they state a zone."""
    texts = pl.Series(words, dtype=pl.String)
    try:
        x = parse_dates(texts, None)[0] if dates and words else texts.cast(pl.Float64, strict=False)
        if dates == "date" and words:
            x, _ = localize(x, zones_of(texts, None, zone or None), pl.Series(["null"] * len(x)))
    except DateError as error:
        raise RequestError(f"times={words[0]}: {error}. Write it as 2020-03-04 or 2020-03-04T05:06.") from error
    if x.null_count() or not x.is_finite().all():
        raise RequestError(f"times={','.join(words)}: each must be a {dates or 'number'}, as in the table.")
    return torch.tensor(x.to_list(), dtype=torch.float64)


def read_horizon(text: str, dates: str) -> float:
    """Return a horizon in the table's unit of time, seconds for dates."""
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)(e[+-]?\d+)?(d|h|min|s)?", text)
    if found is None or bool(found[3]) != bool(dates) or not float(found[1] + (found[2] or "")) > 0:
        wanted = "a number with a unit: 30d, 12h, 15min, 10s" if dates else "a number above 0, in the table's times"
        raise RequestError(f"horizon={text} must be {wanted}.")
    return float(found[1] + (found[2] or "")) * UNITS.get(found[3] or "s", 1.0)
