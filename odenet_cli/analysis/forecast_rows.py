"""The forecast of each series: mean, quantiles and a calibrated band, as rows of a table and as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import torch
from torch import Tensor

from odenet_cli.errors import RequestError
from odenet_cli.rundir import read_record
from odenet_cli.tasks.common import band

KINDS = ("mean", "5", "50", "95")  # the last three in %, those of `band.LEVELS`


class Predicted(NamedTuple):
    """Hold the forecast of one series.

    times    (M,)
    seen     (M,)       True where the network is given the observation
    truth    (M, D)     known values, NaN if unknown
    summary  (4, M, D)  mean and quantiles of the observations
    """

    name: str
    times: Tensor
    seen: Tensor
    truth: Tensor
    summary: Tensor


class Forecast(NamedTuple):
    """Hold the forecasts of all series.

    header      names of the columns of series and time, and of the values
    dates       kind of the times: seconds of a `date`, or numbers ('')
    known       what the known values are, as text
    calibrated  the band was scaled on held-out series
    zone        in which dates are written; empty: UTC, not stated
    empty       names of series without any value, which have no prediction
    """

    header: list[str]
    series: list[Predicted]
    dates: str = ""
    known: str = "observations"
    calibrated: bool = False
    zone: str = ""
    empty: tuple[str, ...] = ()


def summarize(draws: Tensor) -> Tensor:
    """Return mean and quantiles of draws (count, *S) on the CPU: (4, *S)."""
    return torch.cat((draws.mean(0, keepdim=True), band.quantiles(draws))).cpu()


def band_factors(folder: Path, which: str, features: int) -> band.Factors | None:
    """Return the factors that scale the band of each column, inside the window and at times after it.

    The run in `folder` measured them on its validation series, with its best weights; None if it could not, and for
    other weights than the `best`. A part with too few held-out points takes the factor of the part before or after it.
    """
    record: dict[str, Any] = (which == "best" and read_record(folder).get("band")) or {}
    if not record:
        return None
    try:
        # Older runs have one factor per column for all times after the window.
        leads, further = (record["leads"], record["further"]) if "leads" in record else ([0.0], [record["further"]])
        known = pl.DataFrame([record["window"], *further], orient="row").cast(pl.Float64)
        if known.null_count().sum_horizontal().item() == known.height * known.width:
            return None
        rows = known.select(pl.all().forward_fill().backward_fill().fill_null(1.0)).to_torch()
        factors = band.Factors(rows[0], torch.tensor(leads, dtype=torch.float64), rows[1:])
        fits = bool(leads) and rows.shape == (1 + len(leads), features)
        fits = fits and bool((rows.isfinite() & (rows >= 0)).all())
    except (AttributeError, KeyError, TypeError, ValueError, pl.exceptions.PolarsError):
        fits = False
    if not fits:
        raise RequestError(f"{folder / 'run.json'}: band is {record!r:.80}. Restore what the run wrote.")
    return factors


def with_factors(summary: Tensor, factors: band.Factors | None, lead: Tensor) -> Tensor:
    """Return a summary (4, M, D) with its band scaled; `lead` (M,) is the time after the window, in model units."""
    if factors is None:
        return summary
    return torch.cat((summary[:1], band.scaled(summary[1:], factors.at(lead.double()))))


def frame_of(forecast: Forecast) -> pl.DataFrame:
    """Return the frame to write: series, time, seen, and for each column the true value, mean and quantiles."""
    series = forecast.series
    times = pl.Series(torch.cat([one.times for one in series]).numpy())
    if forecast.dates == "date":
        times = (times * 1e6).round().cast(pl.Int64).cast(pl.Datetime("us"))
        if forecast.zone:
            times = times.dt.replace_time_zone("UTC").dt.convert_time_zone(forecast.zone)
    elif forecast.dates == "clock":
        times = _clock(times)
    names = [name for one in series for name in [one.name] * len(one.times)]
    columns: dict[str, Any] = {forecast.header[0]: names, forecast.header[1]: times}
    columns["seen"] = torch.cat([one.seen for one in series]).tolist()
    truth, summary = torch.cat([one.truth for one in series]), torch.cat([one.summary for one in series], 1)
    for k, name in enumerate(forecast.header[2:]):
        columns[name] = pl.Series(truth[:, k].numpy()).fill_nan(None)
        columns |= {f"{name}_{kind}": part[:, k].numpy() for kind, part in zip(KINDS, summary)}
    return pl.DataFrame(columns)


def _clock(seconds: pl.Series) -> pl.Series:
    """Return times of day, or durations, as hours, minutes and seconds."""
    whole = (seconds * 1e6).round().cast(pl.Int64)
    parts = [whole // 3_600_000_000, whole // 60_000_000 % 60, whole // 1_000_000 % 60]
    texts = [part.cast(pl.String).str.zfill(2) for part in parts]
    text = pl.select(pl.concat_str(texts, separator=":")).to_series()
    fraction = whole % 1_000_000
    return text if not (fraction != 0).any() else text + "." + fraction.cast(pl.String).str.zfill(6)


def describe_coverage(forecast: Forecast) -> str:
    """Describe how many observations lie between the 5 % and 95 % quantiles, separately for seen and unseen ones."""
    truth, seen = (torch.cat([getattr(one, key) for one in forecast.series]) for key in ("truth", "seen"))
    _, low, _, high = torch.cat([one.summary for one in forecast.series], 1)
    inside, texts = (truth >= low) & (truth <= high), []
    for name, rows in ((" not seen", ~seen), (" seen", seen)):
        known = ~truth[rows].isnan()
        if known.any():
            share = inside[rows][known].double().mean()
            texts.append(f"{share:.1%} of {int(known.sum()):,} {forecast.known}" + name * bool(seen.any()))
    if not texts:
        return "There are no true values to compare with."
    raw = not forecast.calibrated and forecast.known == "observations"
    how = "\n  (not calibrated: no validation series was available for these weights)" if raw else ""
    return f"inside the band of 90 %: {', '.join(texts)}{how}"


def first_series(forecast: Forecast, frame: pl.DataFrame) -> dict[str, Any]:
    """Return the arrays of the first series for its figure, by the column names of `frame`; dates are local.

    Times of day are seconds.
    """
    first = frame.head(len(forecast.series[0].times)).with_columns(pl.col(pl.Datetime).dt.replace_time_zone(None))
    arrays = {key: column.to_numpy() for key, column in first.to_dict().items()}
    return arrays | ({forecast.header[1]: forecast.series[0].times.numpy()} if forecast.dates == "clock" else {})
