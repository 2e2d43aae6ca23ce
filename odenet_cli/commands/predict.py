"""Predict series, classes or values: odenet predict RUN data.path=FILE out=forecast.csv

Of each series of a table the first part is shown to the run's network (the run's data.window, or seen=SHARE). At all of
its times mean and 5, 50 and 95 % quantiles of what is observed there are written, in the table's own units and columns.
Where the truth is in the table it is printed how often it lies inside the band of 90 %.

  odenet predict RUN data.path=FILE out=forecast.csv          new series; without data.path the run's own table
  odenet predict RUN out=forecast.parquet horizon=10          all of each series is seen, and goes on for 10 more
  odenet predict RUN out=forecast.csv times=2.5,5,7.5         at these times too

A horizon of dates has a unit: 30d, 12h, 15min, 10s; its points are as far apart as those of the series are (median).
Quantiles are those of draws= draws, seed= of their noise. Of a classifier the class and the probabilities of each test
sample are written, of a regression its values; of arrays or images of your own those of all samples."""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

from odenet_cli.commands import _common
from odenet_cli.errors import RequestError
from odenet_cli.files import write_output

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
    check_target(request.out)
    if request.seen is not None and request.seen > 1:
        raise RequestError(f"seen={request.seen:g} is a share of the points of a series, at most 1.")
    from odenet_cli import data as datasets
    from odenet_cli.analysis.trained import known_data
    from odenet_cli.request.overrides import altered

    config = altered(request.config, _common.combinations(request.overrides)[0])
    name, run = config.data["name"], (request.folder, config, request.checkpoint)
    if datasets.task(*config.source(), known_data(request.folder)) in ("classify", "regression"):
        from odenet_cli.analysis.answers import answers

        for key in ("seen", "horizon", "times"):
            if getattr(request, key) is not None:
                raise RequestError(f"{key}= is for series, and {request.folder} is a run of {name}, which has none.")
        frame, line = answers(*run)
    elif name in ("table", "csv"):
        from odenet_cli.analysis.forecast import Question, forecast

        asked = Question(request.seen, request.horizon, request.times or [], request.draws, request.seed)
        frame, line = forecast(*run, asked)
    else:
        raise RequestError(
            f"{request.folder} is a run of data={name}. Predicted are classes, values and series (data=table).\n"
            "  To draw from a flow: odenet sample."
        )
    if request.out.suffix == ".parquet":
        write_output(request.out, lambda path: frame.write_parquet(path))
    else:
        write_output(request.out, frame.write_csv())
    print(f"{len(frame):,} rows in {request.out}")
    print(line)
    return 0


def check_target(out: Path | None) -> None:
    """Raise unless `out` is the name of a file that can be made."""
    if out is None:
        raise RequestError("no file given: say out=FILE.csv or out=FILE.parquet.")
    if out.suffix not in (".csv", ".parquet"):
        raise RequestError(f"out={out} must end with .csv or .parquet, the formats that are written.")
    if not out.parent.is_dir() or os.path.isdir(out):
        raise RequestError(f"out={out}: there is no folder {out.parent}, or it is one itself.")
