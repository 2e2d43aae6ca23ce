"""Predict series, classes or values: odenet predict RUN data.path=FILE out=forecast.csv

Of each series of a table the first part is shown to the run's network (the run's data.window, or seen=SHARE). At all of
its times mean and 5, 50 and 95 % quantiles of what is observed there are written, in the table's own units and columns.
The band between the outer two is scaled so that it held 90 % on the run's validation series; where the truth is known,
it is printed how often it lies inside. A figure of the first series is drawn beside the file.

  odenet predict RUN data.path=FILE out=forecast.csv          new series; without data.path the run's own table
  odenet predict RUN out=forecast.parquet horizon=10          all of each series is seen, and goes on for 10 more
  odenet predict RUN out=forecast.csv times=2.5,5,7.5         at these times too

A horizon of dates has a unit: 30d, 12h, 15min, 10s; its points are as far apart as those of the series are (median).
With data.controls they are the rows of the table that hold controls and no values, without horizon= all of them.
Rows without any value ask for one: they are predicted too, and a series that ends in them is seen as a whole.
Quantiles are those of draws= draws, seed= of their noise. Of data that are drawn (spirals) the test series are
predicted, of events (poisson) their rate. Of a classifier the class and the probabilities of each test sample are
written, of a regression its values; of arrays, images or rows of your own those of all samples. Of a fit (model=fit)
the band is that of its parameters, by the delta method, and of an observation."""

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
    "--seen", metavar="SHARE", type=_common.positive, help="of the points of a series; left out: data.window of the run"
)
add("--horizon", metavar="TIME", type=_common.word, help="how far to go on behind the last point")
add("--times", metavar="T,…", type=_common.several(_common.word), help="times to predict at, in the table's own units")
add("--draws", metavar="N", type=_common.whole(2, 10_000), default=200, help="left out: 200")
add("--seed", metavar="N", type=_common.whole(0, 2**63 - 1), default=0, help="left out: 0")
_common.add_checkpoint(PARSER)


@PARSER.command
def main(request: Namespace) -> int:
    """Predict, write, and print how well the band holds."""
    _common.check_out(request.out, ".csv", ".parquet")
    if request.seen is not None and request.seen > 1:
        raise RequestError(f"seen={request.seen:g} is a share of the points of a series, at most 1.")
    from odenet_cli import data as datasets
    from odenet_cli.analysis.trained import known_data

    config = _common.overridden(request.config, request.overrides)
    datasets.check(*config.source())  # a run of a newer version may have other options
    task = datasets.task(*config.source(), known_data(request.folder))
    if task in ("series", "events", "fit"):
        return write_forecast(request, config)
    if task not in ("classify", "regression"):
        raise RequestError(
            f"{request.folder} is a run of data={config.data['name']}. Predicted are series, rates of events, classes "
            "and values.\n  To draw from a flow: odenet sample."
        )
    from odenet_cli.analysis.answers import answers

    for key in ("seen", "horizon", "times"):
        if getattr(request, key) is not None:
            what = f"a run of {config.data['name']}, which has none"
            raise RequestError(f"{key}= is for series, and {request.folder} is {what}.")
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
    from odenet_cli.data.common.table_cells import counted_names
    from odenet_cli.report import forecast_figure, style

    question = Question(request.seen, request.horizon, request.times or [], request.draws, request.seed)
    tables = {**dict.fromkeys(("table", "csv"), forecast), "observations": fitted_forecast}
    predict = tables.get(config.data["name"], held_out_forecast)
    result = predict(request.folder, config, request.checkpoint, question)
    frame = frame_of(result)
    write_frame(request.out, frame)
    if result.empty:
        print(hanging("left out, no value: ", counted_names("series", result.empty)))
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
