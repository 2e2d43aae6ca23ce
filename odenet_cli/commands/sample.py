"""Draw from a flow, or compute log-densities: odenet sample RUN n=1000 out=points.csv

Draws n points from the flow of the run's best checkpoint; with points=FILE, computes the log-density of each point of
the file instead, in nat. Both use the solver that the run was scored with (eval.solver.*, eval.dtype). For a run of
data=points both are in the units and under the names of its columns.

  odenet sample RUN n=1000 out=points.csv
  odenet sample RUN points=points.csv out=densities.csv

A file of points is any table with one row per point (text with commas, semicolons or spaces between numbers, with or
without names; Parquet; Excel), or .npy or .npz. For a run of data=points columns are matched by name."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import stat
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from odenet_cli.commands import _common
from odenet_cli.config.presets import model_words
from odenet_cli.config.resolve import eval_solver
from odenet_cli.errors import RequestError
from odenet_cli.files import write_output

if TYPE_CHECKING:
    from torch import Tensor

PARSER = _common.Parser(__name__, __doc__, run=True)
add = PARSER.add_argument
add("--n", metavar="N", type=_common.whole(1), help="number of points; default: 1000")
add("--seed", metavar="N", type=_common.whole(0, 2**63 - 1), help="seed of the noise; default: 0")
add("--points", metavar="FILE", type=_common.path, help="points to score")
add("--out", metavar="FILE", type=_common.path, help="CSV file; default: print")
_common.add_checkpoint(PARSER)

CHUNK = 10_000
NOT_TEXT = (".npy", ".npz", ".parquet", ".xlsx", ".xls", ".pt")
GIB = 2**30
POINT_BYTES, NUMBER_BYTES = 50, 65  # of a point and of each of its numbers, measured, until they are written
log = logging.getLogger("odenet")
Rows = tuple[list[str], list[list[float]]]  # names of the columns, values


@PARSER.command
def main(request: Namespace) -> int:
    source, out = request.points, request.out
    if source is not None and (request.n, request.seed) != (None, None):
        raise RequestError(
            "n= and seed= are for drawing points, and points= is for log-densities: use one or the other."
        )
    if out is not None:
        _common.check_out(out)
        if out.suffix.lower() in NOT_TEXT:
            raise RequestError(f"out={out}: points are written as CSV. Give out={out.with_suffix('.csv')}.")
    if out is not None and source is not None and os.path.realpath(out) == os.path.realpath(source):
        raise RequestError(f"out={out} is the file given as points=: choose another name.")
    if source is None:
        names, rows = draw(request, request.n or 1000, request.seed or 0)
    else:
        names, rows = log_densities(request, source)
    write(out, names, rows)
    if out is not None:
        print(f"{len(rows)} {'points' if source is None else 'log-densities'} in {out}")
        if source is not None:
            print(f"mean log-density {sum(row[-1] for row in rows) / len(rows):.6g} nat")
    return 0


def draw(request: Namespace, n: int, seed: int) -> Rows:
    """Draw `n` points from the run's flow, in the units of its data."""
    import torch

    with flow(request, "sample") as (model, shape, units):
        check_memory(n, math.prod(shape))
        generator = torch.Generator(next(model.parameters()).device).manual_seed(seed)
        sizes = (min(CHUNK, n - done) for done in range(0, n, CHUNK))
        parts = [model.sample(size, generator=generator).flatten(1).cpu() for size in sizes]
    x = torch.cat(parts)
    return columns(shape, units), (x if units is None else units.restored(x)).tolist()


def check_memory(n: int, dimensions: int) -> None:
    """Raise for more points than fit into memory."""
    from odenet_cli.training.device import memory

    available, each = memory("cpu"), POINT_BYTES + NUMBER_BYTES * dimensions
    if n * each > available:
        raise RequestError(
            f"n={n} points need {n * each // GIB:,} GiB, and {available // GIB:,} GiB of memory are available.\n"
            f"  Draw {available // each:,} or fewer at a time, each time with another seed=."
        )


def log_densities(request: Namespace, source: Path) -> Rows:
    """Return the points in a file with the log-density of each in the last column, in the units of the run's data."""
    import torch

    from odenet_cli.ode import SolveError

    with flow(request, "log_prob") as (model, shape, units):
        names = columns(shape, units)
        points = read_points(source, units and names, request.config, names)
        if points.shape[1] != len(names):
            raise RequestError(
                f"points= has {points.shape[1]} numbers per line, and this flow has {len(names)} dimensions."
            )
        like = next(model.parameters())
        x = (points if units is None else units.scaled(points)).to(like).view(-1, *shape)
        try:
            values = torch.cat([model.log_prob(x[start : start + CHUNK]) for start in range(0, len(x), CHUNK)])
        except SolveError as error:
            raise RequestError(f"points=: the flow could not be solved from one of the points. {error}") from error
    values = values.double().cpu() - (0.0 if units is None else units.log_scale)
    return [*names, "log_density"], torch.cat((points, values[:, None]), 1).tolist()


@contextlib.contextmanager
def flow(request: Namespace, method: str) -> Iterator[Any]:
    """Load the model of the run as it is scored, the shape of its points and their units, None where they have none.

    Raises if the model has no such method.
    """
    import torch

    from odenet_cli import data as datasets
    from odenet_cli.analysis.trained import known_data, weights_of_run
    from odenet_cli.data.common.units import Units
    from odenet_cli.training import build, device
    from odenet_cli.training.evaluate import scoring

    config = _common.overridden(request.config, request.overrides)
    record = known_data(request.folder)
    shape, classes = datasets.shape(*config.source(), record)
    network: Any = build.model(config, shape, classes)
    missing = next((name for name in ("log_prob", method) if not callable(getattr(network, name, None))), None)
    if missing:
        raise RequestError(
            f"{request.folder} is a run of {model_words(config)}, which has no {missing}: it is not a flow.\n"
            "  Name a run of model=cnf or model=planar."
        )
    network.load_state_dict(weights_of_run(request.folder, config, request.checkpoint)["model"])
    network.to(device.choose(config.device))
    units = Units.of(record) if config.data["name"] == "points" else None
    with torch.no_grad(), scoring(network, build.solver(eval_solver(config)), build.eval_dtype(config)) as model:
        yield model, shape, units


def read_points(source: Path, names: list[str] | None, config: Any, own: list[str]) -> Tensor:
    """Return the points (N, D) in a table or in arrays, or that a pipe or a terminal gives, in float64.

    names  of the columns to take; None: all columns of numbers, in their order unless they have the names `own`
    """
    from odenet_cli.data.common import points
    from odenet_cli.data.common.places import sheet_for
    from odenet_cli.data.points import Source

    keys = ("decimal", "missing", "skip", *(("sheet",) if sheet_for(str(source), "a sheet") else ()))
    options = {key: config.data[key] for key in keys if names and config.data.get(key) is not None}
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(open(source, "rb"))
            mode = os.fstat(file.fileno()).st_mode
            if stat.S_ISCHR(mode) and not file.isatty():
                raise RequestError(f"points={source} is a device, not a file. Name a file.")  # that may have no end
            path = str(source)
            if not stat.S_ISREG(mode):
                copy = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".csv"))
                copy.write(file.read())
                copy.flush()
                path = copy.name
        except OSError as error:
            raise RequestError(f"points={source} cannot be read: {error.strerror}.") from error
        read = points.read(Source(path=path, columns=names, **options), asked=True)
    for note in read.notes:
        log.warning("%s: %s", source, note)
    return read.x[:, [*map(read.names.index, own)]] if sorted(own) == sorted(read.names) else read.x


def columns(shape: tuple[int, ...], units: Any) -> list[str]:
    return [f"x{i + 1}" for i in range(math.prod(shape))] if units is None else list(units.columns)


def quoted(name: str) -> str:
    """Return the name of a column as CSV has it."""
    return '"' + name.replace('"', '""') + '"' if re.search('[",\n]', name) else name


def write(out: Path | None, names: list[str], rows: list[list[float]]) -> None:
    """Write CSV to a file in one move, or to what is none, such as the terminal. A link stays; its target is written.

    In a folder where nothing may be made, a file that is there is written in place.
    """
    text = "\n".join([",".join(map(quoted, names)), *(",".join(f"{value:.9g}" for value in row) for row in rows)])
    text += "\n"
    if out is None or (os.path.exists(out) and os.path.samefile(out, 1)):  # /dev/stdout, wherever it leads
        sys.stdout.write(text)
        return
    target = Path(os.path.realpath(out))
    if (os.path.isfile(out) and os.access(target.parent, os.W_OK)) or not os.path.exists(out):
        write_output(target, text)
        return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RequestError(f"out={out} cannot be written: {error.strerror}.") from error
