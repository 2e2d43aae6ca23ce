"""Predict series by a least-squares fit: the solution for its parameters, with a delta-method band."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

from odenet_cli.analysis.forecast import Question, series_of
from odenet_cli.analysis.forecast_rows import Forecast, Predicted
from odenet_cli.analysis.trained import trained
from odenet_cli.config.schema import Config
from odenet_cli.data.observations import Observations, Source
from odenet_cli.errors import RequestError
from odenet_cli.tasks.common import band, inference


def fitted_forecast(folder: Path, config: Config, which: str, question: Question) -> Forecast:
    """Predict the series of the fit in `folder` at their own times, at requested times, and beyond the last point."""
    if question.seen is not None:
        raise RequestError(
            f"seen={question.seen:g} is not for a fit, which has seen all its data; data.test held out the rest."
        )
    run = trained(folder, config, which, 1)
    table = Source(**config.source()[1]).table()
    targets = list(series_of(table, question, 1.0))
    problem, unit = Observations(*next(iter(run.data.test.epoch(0)))), run.data.record["time_unit"]
    parts = [(target.times / unit - t0) / last for target, t0, last in zip(targets, problem.begins, problem.lasts)]
    at = problem._replace(times=pad_sequence(parts, batch_first=True))
    model = run.model.eval()
    mean, bands = inference.forecast(model, problem, inference.infer(model, problem), at, band.LEVELS)
    ends = problem.times.masked_fill(problem.held_out, 0).amax(1)
    series = [
        Predicted(
            target.name,
            target.times,
            (part <= end * (1 + 1e-12)) & ~target.truth.isnan().all(1),
            target.truth,
            torch.cat((mean[None, n, : len(part)], bands[:, n, : len(part)])),
        )
        for n, (target, part, end) in enumerate(zip(targets, parts, ends))
    ]
    # The width of the band follows from the residuals, so no held-out series is needed to calibrate it.
    header = [*table.header, *table.columns]
    return Forecast(header, series, table.dates, calibrated=True, zone=table.zone, empty=table.empty)
