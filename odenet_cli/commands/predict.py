"""Predict series, classes or values: odenet predict RUN data.path=FILE out=forecast.csv

Series: the network sees the first part of each series (the run's data.window, or seen=SHARE). The file gets the mean
and the 5, 50 and 95 % quantiles of the observations at all times of the series, in the units and columns of the table.
The band between the outer two quantiles is scaled to hold 90 % of the run's validation series; where the true values
are known, their share inside the band is printed. A figure of the first series is drawn beside the file.

  odenet predict RUN data.path=FILE out=forecast.csv          new series; without data.path those of the run
  odenet predict RUN out=forecast.parquet horizon=10          see each series whole, and predict 10 time units more
  odenet predict RUN out=forecast.csv times=2.5,5,7.5         predict at these times too

A horizon of dates has a unit: 30d, 12h, 15min, 10s. Its points have the median spacing of the series. With
data.controls its points are the rows of the table that have controls and no values; without horizon=, all such rows.
Rows without any value are predicted too, and a series that ends in such rows is seen whole. draws= and seed= set the
number of draws for the quantiles and the seed of their noise.

Other runs: the test series of generated data (spirals); the rates of events (poisson); the class and the class
probabilities of each test sample, or the values of a regression; with data=arrays, images or features, those of all
samples. With model=fit the band covers parameter uncertainty (delta method) and observation noise."""

from __future__ import annotations

import datetime
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from odenet_cli.commands import _common
from odenet_cli.errors import RequestError
from odenet_cli.files import write_output
from odenet_cli.streams import hanging
from odenet_cli.terminal import say_text

if TYPE_CHECKING:
    from polars import DataFrame

    from odenet_cli.config.schema import Config

PARSER = _common.Parser(__name__, __doc__, run=True)
add = PARSER.add_argument
add("--out", metavar="FILE", type=_common.path, help="the file to write: .csv or .parquet")
add(
    "--seen",
    metavar="SHARE",
    type=_common.positive,
    help="share of each series that is seen; default: data.window",
)
add("--horizon", metavar="TIME", type=_common.word, help="how far to predict beyond the last point")
add("--times", metavar="T,…", type=_common.several(_common.word), help="times to predict at, in the table's own units")
add("--draws", metavar="N", type=_common.whole(2, 10_000), default=200, help="number of draws; default: 200")
add("--seed", metavar="N", type=_common.whole(0, 2**63 - 1), default=0, help="seed of the draws; default: 0")
_common.add_checkpoint(PARSER)


@PARSER.command
def main(request: Namespace) -> int:
    """Predict, write, and print how well the band holds."""
    _common.check_out(request.out, ".csv", ".parquet")
    if request.seen is not None and request.seen > 1:
        raise RequestError(
            f"seen={request.seen:g} is out of range: it is a share of the points of a series, at most 1."
        )
    from odenet_cli import data as datasets
    from odenet_cli.analysis.trained import known_data

    config = _common.overridden(request.config, request.overrides)
    datasets.check(*config.source())  # a run of a newer version may have other options
    task = datasets.task(*config.source(), known_data(request.folder))
    if task in ("series", "events", "fit"):
        return write_forecast(request, config)
    if task not in ("classify", "regression"):
        raise RequestError(
            f"{request.folder} is a run of data={config.data['name']}. It can predict series, rates of events, classes "
            "and values.\n  To draw from a flow: odenet sample."
        )
    from odenet_cli.analysis.answers import answers

    for key in ("seen", "horizon", "times"):
        if getattr(request, key) is not None:
            what = f"a run of {config.data['name']}, which has no series"
            raise RequestError(f"{key}= only applies to series, and {request.folder} is {what}.")
    frame, line = answers(request.folder, config, request.checkpoint)
    write_frame(request.out, frame)
    say_text(line)
    return 0


def write_forecast(request: Namespace, config: Config) -> int:
    """Predict series, write them, print how well the band holds, and draw the first of them."""
    from odenet_cli.analysis.fitted_forecast import fitted_forecast
    from odenet_cli.analysis.forecast import Question, forecast
    from odenet_cli.analysis.forecast_rows import describe_coverage, first_series, frame_of
    from odenet_cli.analysis.held_out_forecast import held_out_forecast
    from odenet_cli.data.common.table_cells import counted_names, natural
    from odenet_cli.report import forecast_figure, style

    question = Question(request.seen, request.horizon, request.times or [], request.draws, request.seed)
    tables = {**dict.fromkeys(("table", "csv"), forecast), "observations": fitted_forecast}
    predict = tables.get(config.data["name"], held_out_forecast)
    result = predict(request.folder, config, request.checkpoint, question)
    result = result._replace(series=sorted(result.series, key=lambda series: natural(series.name)))
    frame = frame_of(result)
    write_frame(request.out, frame)
    if result.empty:
        print(hanging("ignored, without values: ", counted_names("series", result.empty)))
    say_text(describe_coverage(result))
    clock = result.dates == "clock"
    figure = forecast_figure.draw(first_series(result, frame), result.header, result.known, clock)
    *_, image = style.save(figure, request.out.with_suffix(""))
    say_text(f"series {result.series[0].name}: {image}")
    return 0


def write_frame(out: Path, frame: DataFrame) -> None:
    """Write a frame as its name ends, and say how long it is; text has dates as short as they are."""
    if out.suffix == ".csv":
        write_output(out, frame.write_csv(datetime_format=date_format(frame)))
    else:
        write_output(out, lambda path: frame.write_parquet(path))
    say_text(f"{len(frame):,} rows in {out}")


def date_format(frame: DataFrame) -> str | None:
    """Return how the dates of a frame are written: without fractions and hours of which there are none."""
    import polars

    dates = frame.select(polars.col(polars.Datetime))
    if not dates.width or dates.select(polars.any_horizontal(polars.all().dt.microsecond() != 0).any()).item():
        return None
    if dates.dtypes[0].time_zone:  # type: ignore[attr-defined]
        return "%Y-%m-%dT%H:%M:%S%:z"
    days = dates.select(polars.all_horizontal(polars.all().dt.time() == datetime.time()).all()).item()
    return "%Y-%m-%d" if days else "%Y-%m-%dT%H:%M:%S"
