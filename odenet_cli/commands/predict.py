"""Predict series, or classes: odenet predict RUN data.path=FILE out=forecast.csv

Of each series of a table the first part is shown to the run's network (the run's data.window, or seen=SHARE). At all of
its times mean and 5, 50 and 95 % quantiles of what is observed there are written, in the table's own units and columns.
Where the truth is in the table it is printed how often it lies inside the band of 90 %.

  odenet predict RUN data.path=FILE out=forecast.csv          new series; without data.path the run's own table
  odenet predict RUN out=forecast.parquet horizon=10          all of each series is seen, and goes on for 10 more
  odenet predict RUN out=forecast.csv times=2.5,5,7.5         at these times too

A horizon of dates has a unit: 30d, 12h, 15min, 10s; its points are as far apart as those of the series are (median).
Quantiles are those of draws= draws, seed= of their noise. Of a classifier the class and the probabilities of each test
sample are written."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from odenet_cli.commands import _common
from odenet_cli.config.resolve import eval_batch, eval_solver
from odenet_cli.errors import RequestError
from odenet_cli.files import write_output

if TYPE_CHECKING:
    from torch import Tensor

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

QUANTILES = {"5": 0.05, "50": 0.5, "95": 0.95}
UNITS = {"d": 86400.0, "h": 3600.0, "min": 60.0, "s": 1.0}
TOGETHER = 16  # series
MAX_AHEAD = 100_000  # points of a series


class Target(NamedTuple):
    """Hold a series: its times (M,) to predict at, the truth there (M, D), NaN where unknown, and how many are seen."""

    name: str
    times: Tensor
    truth: Tensor
    seen: int


@PARSER.command
def main(request: Namespace) -> int:
    """Predict, write, and print how well the band holds."""
    check_target(request.out)
    if request.seen is not None and request.seen > 1:
        raise RequestError(f"seen={request.seen:g} is a share of the points of a series, at most 1.")
    from odenet_cli import data as datasets
    from odenet_cli.request.overrides import altered

    config = altered(request.config, _common.combinations(request.overrides)[0])
    name = config.data["name"]
    if datasets.task(name) == "classify":
        frame, line = classes(request, config)
    elif name in ("table", "csv"):
        frame, line = forecast(request, config)
    else:
        raise RequestError(
            f"{request.folder} is a run of data={name}. Predicted are classes, and series of a table (data=table).\n"
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


def classes(request: Namespace, config: Any) -> tuple[Any, str]:
    """Return label, class and probabilities of the test samples, and the share of errors."""
    import polars as pl
    import torch

    from odenet_cli.analysis.trained import trained
    from odenet_cli.training import build
    from odenet_cli.training.evaluate import converted, scoring

    for key in ("seen", "horizon", "times"):
        if getattr(request, key) is not None:
            raise RequestError(f"{key}= is for series, and {request.folder} is a run of a classifier.")
    net, dtype = trained(request.folder, config, request.checkpoint, eval_batch(config)), build.eval_dtype(config)
    labels, parts = [], []
    with torch.no_grad(), scoring(net.model, build.solver(eval_solver(config)), dtype) as model:
        for batch in net.data.test.epoch(0):
            x, label = converted(batch, dtype)
            parts.append(model(x).softmax(1).cpu())
            labels.append(label.cpu())
    p, label = torch.cat(parts), torch.cat(labels)
    predicted = p.argmax(1)
    columns = {"sample": range(len(p)), "label": label.tolist(), "class": predicted.tolist()}
    frame = pl.DataFrame(columns | {f"p{k}": p[:, k].tolist() for k in range(p.shape[1])})
    chosen = p.gather(1, predicted[:, None]).mean()
    return frame, f"{(predicted != label).float().mean():.2%} wrong; the class is given {chosen:.2%} on average"


def forecast(request: Namespace, config: Any) -> tuple[Any, str]:
    """Return mean and quantiles of every series at its times, and how often the truth lies inside the band."""
    import torch

    from odenet_cli.analysis.trained import known_data, weights_of_run
    from odenet_cli.data.table import Source
    from odenet_cli.training import build, device
    from odenet_cli.training.evaluate import scoring

    record = known_data(request.folder)
    source = Source(**config.source()[1]).in_units_of(record)
    table, units = source.table()
    targets = list(series_of(table, request, source.source.window))
    where, dtype = device.choose(config.device), build.eval_dtype(config)
    model: Any = build.model(config, source.shape, source.classes)
    if not hasattr(model, "draw"):
        raise RequestError(f"model={config.model['name']} has no method `draw`, by which series are predicted.")
    model.load_state_dict(weights_of_run(request.folder, config, request.checkpoint)["model"])
    generator, parts = torch.Generator().manual_seed(request.seed), []
    net: Any
    with torch.no_grad(), scoring(model.to(where), build.solver(eval_solver(config)), dtype) as net:
        for start in range(0, len(targets), TOGETHER):
            some = targets[start : start + TOGETHER]
            given = [part.to(where, dtype if part.is_floating_point() else None) for part in batch_of(some, units)]
            draws = net.draw(*given, request.draws, generator).double().cpu() * units.sd + units.mean
            levels = torch.tensor([*QUANTILES.values()], dtype=torch.float64)
            both = torch.cat((draws.mean(0, keepdim=True), torch.quantile(draws, levels, dim=0)))
            parts += [both[:, n, : len(target.times)] for n, target in enumerate(some)]
    predicted = torch.cat(parts, 1)
    return rows_of(table, units, targets, predicted), describe_coverage(targets, predicted)


def series_of(table: Any, request: Namespace, window: float) -> Iterator[Target]:
    """Yield every series with the times to predict at: its own, those asked for, and those ahead."""
    import torch

    asked = read_times(request.times or [], table)
    share = request.seen or (1.0 if request.horizon else window)
    times, values = (part.split(table.numbers.counts.tolist()) for part in (table.numbers.times, table.numbers.values))
    for name, t, x in zip(table.names, times, values):
        more = [asked]
        if request.horizon is not None:
            gap, horizon = float(t.diff().median()), read_horizon(request.horizon, table.dates)
            if horizon / gap > MAX_AHEAD:
                raise RequestError(
                    f"horizon={request.horizon} is {horizon / gap:,.0f} points of series {name}: too many."
                )
            more.append(t[-1] + gap * torch.arange(1, int(horizon / gap + 1e-9) + 1, dtype=t.dtype))
        early = asked[asked < t[0]]
        if len(early):
            raise RequestError(
                f"times={request.times[0]}: series {name} begins later; there is nothing to predict from."
            )
        every = torch.unique(torch.cat((t, *more)))
        truth = x.new_full((len(every), x.shape[1]), float("nan"))
        truth[torch.searchsorted(every, t)] = x
        yield Target(name, every, truth, max(1, int(share * len(t) + 1e-9)))


def batch_of(targets: list[Target], units: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return times, values and mask of what is seen, and the target times, padded, in units; a series begins at 0."""
    import torch
    from torch.nn.utils.rnn import pad_sequence

    known = [torch.nonzero(~target.truth.isnan().all(1)).flatten()[: target.seen] for target in targets]
    scaled = [(target.times - target.times[0]) / units.time for target in targets]
    times = pad_sequence([t[k] for t, k in zip(scaled, known)], batch_first=True)
    seen = [(target.truth[k] - units.mean) / units.sd for target, k in zip(targets, known)]
    values = pad_sequence(seen, batch_first=True)
    counts = torch.tensor([len(k) for k in known])
    mask = torch.arange(times.shape[1]) < counts[:, None]
    return times, values, mask, pad_sequence(scaled, batch_first=True)


def rows_of(table: Any, units: Any, targets: list[Target], predicted: Tensor) -> Any:
    """Return the frame to write: series, time, seen, and of each column the truth, mean and quantiles."""
    import polars as pl
    import torch

    times = pl.Series(torch.cat([target.times for target in targets]).numpy())
    if table.dates == "date":
        times = (times * 1e6).round().cast(pl.Int64).cast(pl.Datetime("us"))
    series = [name for target in targets for name in [target.name] * len(target.times)]
    columns: dict[str, Any] = {table.header[0]: series, table.header[1]: times}
    columns["seen"] = torch.cat([seen_points(target) for target in targets]).tolist()
    truth = torch.cat([target.truth for target in targets])
    for k, name in enumerate(units.columns):
        columns[name] = pl.Series(truth[:, k].numpy()).fill_nan(None)
        for kind, part in zip(("mean", *QUANTILES), predicted):
            columns[f"{name}_{kind}"] = part[:, k].numpy()
    return pl.DataFrame(columns)


def seen_points(target: Target) -> Tensor:
    """Return which of the target's times are seen, (M,)."""
    known = ~target.truth.isnan().all(1)
    return known & (known.cumsum(0) <= target.seen)


def describe_coverage(targets: list[Target], predicted: Tensor) -> str:
    """Return how many of the observations lie between the 5 and the 95 % quantile, those seen and those not."""
    import torch

    truth, seen = torch.cat([target.truth for target in targets]), torch.cat([seen_points(t) for t in targets])
    inside = (truth >= predicted[1]) & (truth <= predicted[3])
    texts = []
    for name, rows in (("not seen", ~seen), ("seen", seen)):
        known = ~truth[rows].isnan()
        if known.any():
            texts.append(f"{inside[rows][known].float().mean():.1%} of {int(known.sum()):,} observations {name}")
    return f"inside the band of 90 %: {', '.join(texts)}"


def read_times(words: list[str], table: Any) -> Tensor:
    """Return times of the table's kind, in seconds for dates."""
    import polars as pl
    import torch

    from odenet_cli.data.common.table_dates import DateError, parse_dates

    texts = pl.Series(words, dtype=pl.String)
    try:
        x = parse_dates(texts, None)[0] if table.dates and words else texts.cast(pl.Float64, strict=False)
    except DateError as error:
        raise RequestError(f"times={words[0]}: {error}. Write it as 2020-03-04 or 2020-03-04T05:06.") from error
    if x.null_count() or not x.is_finite().all():
        raise RequestError(f"times={','.join(words)}: each must be a {table.dates or 'number'}, as in the table.")
    return torch.tensor(x.to_list(), dtype=torch.float64)


def read_horizon(text: str, dates: str) -> float:
    """Return a horizon in the table's times, for dates in seconds."""
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)(e[+-]?\d+)?(d|h|min|s)?", text)
    if found is None or bool(found[3]) != bool(dates) or not float(found[1] + (found[2] or "")) > 0:
        wanted = "a number with a unit: 30d, 12h, 15min, 10s" if dates else "a number above 0, in the table's times"
        raise RequestError(f"horizon={text} must be {wanted}.")
    return float(found[1] + (found[2] or "")) * UNITS.get(found[3] or "s", 1.0)
