"""Predict the test series of a generated data set: spirals, and the rate of events (`odenet predict`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from odenet_cli.analysis.forecast import Question, check_draws, read_times
from odenet_cli.analysis.forecast_rows import Forecast, Predicted, band_factors, summarize, with_factors
from odenet_cli.analysis.trained import trained
from odenet_cli.config.resolve import eval_solver
from odenet_cli.config.schema import Config
from odenet_cli.data.common.events import Events
from odenet_cli.data.common.series import Series
from odenet_cli.errors import RequestError
from odenet_cli.training import build
from odenet_cli.training.evaluate import converted, scoring

TOGETHER = 16  # series


class Batch(NamedTuple):
    """Hold a batch of series with common target times.

    times (B, N), values (B, N, D), mask (B, N)  the observations given to the network
    target_times (M,)                            in float64, as they are written
    truth (B, M, D), seen (B, M)                 the true values, and True where the network is given the observation
    """

    times: Tensor
    values: Tensor
    mask: Tensor
    target_times: Tensor
    truth: Tensor
    seen: Tensor

    @classmethod
    def of(cls, task: str, batch: tuple[Tensor, ...], more: Tensor) -> Batch:
        """Return a batch of the data of a task, with further target times (K,), at which no values are known."""
        if task == "events":
            events = Events(*batch)
            shown = (events.bins, events.counts, torch.ones_like(events.bins, dtype=torch.bool))
            own, known = events.grid, events.rate[..., None]
            there = torch.zeros_like(own, dtype=torch.bool)
        else:
            series = Series(*batch)
            shown, own, known = (series.times, series.values, series.observed_mask), series.target_times, series.noisy
            there = torch.stack([torch.isin(t, x[m]) for t, x, m in zip(own, series.times, series.observed_mask)])
        if not torch.equal(own, own[:1].expand_as(own)):
            raise RequestError("these series have their own target times; write them as a table, data=table.")
        grid = own[0].double().round(decimals=6)  # without the rounding of float32
        every = torch.unique(torch.cat((grid, more.to(grid))))
        place = torch.searchsorted(every, grid)
        truth = known.new_full((len(known), len(every), known.shape[2]), float("nan")).index_copy(1, place, known)
        seen = there.new_zeros(len(there), len(every)).index_copy(1, place, there)
        return cls(*shown, every, truth, seen)


def held_out_forecast(folder: Path, config: Config, which: str, question: Question) -> Forecast:
    """Predict the test series at the times of their data and requested times, by the run's `best` or `last` weights."""
    for key in ("seen", "horizon"):
        if getattr(question, key) is not None:
            raise RequestError(
                f"{key}= only applies to tables: data={config.data['name']} itself says "
                "how much of a series is observed, and how long it is.\n"
                "  Give other times with times=."
            )
    more = read_times(question.times, "")
    if bool((more < 0).any()):
        raise RequestError(f"times={','.join(question.times)}: a series begins at 0.")
    run, dtype = trained(folder, config, which, TOGETHER), build.eval_dtype(config)
    check_draws(config, run.model)
    generator, series = torch.Generator().manual_seed(question.seed), list[Predicted]()
    events = run.data.task == "events"
    factors = None if events else band_factors(folder, which, run.data.shape[-1])
    net: Any
    with torch.no_grad(), scoring(run.model, build.solver(eval_solver(config)), dtype) as net:
        for batch in run.data.test.epoch(0):
            x = Batch.of(run.data.task, converted(batch, dtype), more)
            asked = x.target_times.to(x.times).expand(len(x.times), -1)
            draws = net.draw(x.times, x.values, x.mask, asked, question.draws, generator)
            end = x.times.where(x.mask, 0).amax(1)
            for n, summary in enumerate(summarize(draws).double().unbind(1)):
                truth = x.truth[n].double().cpu()
                summary = with_factors(summary, factors, (asked[n] - end[n]).cpu())
                series.append(Predicted(str(len(series)), x.target_times.cpu(), x.seen[n].cpu(), truth, summary))
    names = ["rate"] if events else [f"x{k + 1}" for k in range(run.data.shape[-1])]
    known = "true rates" if events else "observations"
    return Forecast(["series", "time", *names], series, known=known, calibrated=factors is not None)
