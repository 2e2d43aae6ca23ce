"""Draw from a flow, or ask for log-densities: odenet sample RUN n=1000 out=points.csv

Draws n points from the flow of the run's best checkpoint; with points=FILE, gives the log-density of each of the file's
points instead, in nat. Both are solved as the run was scored (eval.solver.*, eval.dtype).

  odenet sample RUN n=1000 out=points.csv
  odenet sample RUN points=points.csv out=densities.csv

A file of points is text, one point a line, its numbers apart by commas or blanks; a first line of names is passed over,
and so are lines that start with #."""

from __future__ import annotations

import contextlib
import math
import os
import stat
import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from odenet_cli.commands import _common
from odenet_cli.config.resolve import eval_solver
from odenet_cli.errors import RequestError
from odenet_cli.files import write_output

PARSER = _common.Parser(__name__, __doc__, run=True)
add = PARSER.add_argument
add("--n", metavar="N", type=_common.whole(1), help="how many points; left out: 1000")
add("--seed", metavar="N", type=_common.whole(0, 2**63 - 1), help="of the noise; left out: 0")
add("--points", metavar="FILE", type=_common.path, help="points to score")
add("--out", metavar="FILE", type=_common.path, help="CSV; left out: to the terminal")
_common.add_checkpoint(PARSER)

CHUNK = 10_000
GIB = 2**30
POINT_BYTES, NUMBER_BYTES = 50, 65  # of a point and of each of its numbers, measured, until they are written
Rows = tuple[list[str], list[list[float]]]  # names of the columns, values


@PARSER.command
def main(request: Namespace) -> int:
    """Draw, or score."""
    source, out = request.points, request.out
    if source is not None and (request.n, request.seed) != (None, None):
        raise RequestError("n= and seed= are for drawing, and points= asks for log-densities: say one or the other.")
    if out is not None and not os.path.isdir(out.parent):
        raise RequestError(f"out={out}: there is no folder {out.parent}.")
    if out is not None and source is not None and os.path.realpath(out) == os.path.realpath(source):
        raise RequestError(f"out={out} is the file of the points: choose another name.")
    if source is None:
        names, rows = draw(request, request.n or 1000, request.seed or 0)
    else:
        names, rows = log_densities(request, read_points(source))
    write(out, names, rows)
    if out is not None:
        print(f"{len(rows)} {'points' if source is None else 'log-densities'} in {out}")
        if source is not None:
            print(f"mean log-density {sum(row[-1] for row in rows) / len(rows):.6g} nat")
    return 0


def draw(request: Namespace, n: int, seed: int) -> Rows:
    """Draw `n` points from the run's flow."""
    import torch

    with flow(request, "sample") as (model, data, device):
        check_memory(n, math.prod(data.shape))
        generator = torch.Generator(device).manual_seed(seed)
        sizes = (min(CHUNK, n - done) for done in range(0, n, CHUNK))
        parts = [model.sample(size, generator=generator).flatten(1).cpu() for size in sizes]
    return columns(data.shape), torch.cat(parts).tolist()


def check_memory(n: int, dimensions: int) -> None:
    """Raise for more points than fit into memory."""
    from odenet_cli.training.device import memory

    available, each = memory("cpu"), POINT_BYTES + NUMBER_BYTES * dimensions
    if n * each > available:
        raise RequestError(
            f"n={n} points need {n * each // GIB:,} GiB, and there are {available // GIB:,} GiB of memory.\n"
            f"  Draw {available // each:,} or fewer at a time, each time with another seed=."
        )


def log_densities(request: Namespace, points: list[list[float]]) -> Rows:
    """Return the points with the log-density of each in the last column."""
    import torch

    from odenet_cli.ode import SolveError

    with flow(request, "log_prob") as (model, data, device):
        names = columns(data.shape)
        if len(points[0]) != len(names):
            raise RequestError(
                f"points= has {len(points[0])} numbers a line, and this flow has {len(names)} dimensions."
            )
        dtype = next(model.parameters()).dtype
        x = torch.tensor(points, dtype=dtype, device=device).view(-1, *data.shape)
        try:
            values = torch.cat([model.log_prob(x[start : start + CHUNK]) for start in range(0, len(x), CHUNK)])
        except SolveError as error:
            raise RequestError(f"points=: the flow cannot be solved from one of them. {error}") from error
    return [*names, "log_density"], [[*point, value] for point, value in zip(points, values.tolist())]


@contextlib.contextmanager
def flow(request: Namespace, method: str) -> Iterator[Any]:
    """Load the model of the run as it is scored, its data, its device; raise if the model has no such method."""
    import torch

    from odenet_cli.analysis.trained import trained
    from odenet_cli.request.overrides import altered
    from odenet_cli.training import build
    from odenet_cli.training.evaluate import scoring

    config = altered(request.config, _common.combinations(request.overrides)[0])
    net = trained(request.folder, config, request.checkpoint, 1)
    missing = next((name for name in ("log_prob", method) if not callable(getattr(net.model, name, None))), None)
    if missing:
        raise RequestError(
            f"{request.folder} is a run of model={config.model['name']}, which has no {missing}: it is no flow.\n"
            "  Name a run of model=cnf or model=planar."
        )
    with torch.no_grad(), scoring(net.model, build.solver(eval_solver(config)), build.eval_dtype(config)) as model:
        yield model, net.data, net.device


def read_points(source: Path) -> list[list[float]]:
    """Return the points in a text file, or that a pipe or a terminal gives; raise naming the line that is none."""
    try:
        with open(source, encoding="utf-8-sig") as file:
            if stat.S_ISCHR(os.fstat(file.fileno()).st_mode) and not file.isatty():
                raise RequestError(f"points={source} is a device. Name a file.")  # that may have no end
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"points={source} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    points: list[list[float]] = []
    named = False
    for number, line in enumerate(lines, 1):
        where, values = f"points={source}: line {number}", [_number(word) for word in _words(line)]
        if not values:
            continue
        if not (points or named) and set(values) == {None}:
            named = True  # a line of names
            continue
        point = [value for value in values if value is not None]
        if len(point) < len(values):
            raise RequestError(f"{where} is not numbers: {line[:60]!r}")
        if not all(map(math.isfinite, point)):
            raise RequestError(f"{where} is not finite: {line[:60]!r}")
        if points and len(point) != len(points[0]):
            raise RequestError(f"{where} has {len(point)} numbers, and the lines before it {len(points[0])}.")
        points.append(point)
    if not points:
        raise RequestError(f"points={source} holds no points; one a line, such as 0.5,-1.2.")
    return points


def _words(line: str) -> list[str]:
    """Return the words of a line, apart by commas, semicolons or blanks; none of a blank line or a comment."""
    if not line.strip() or line.lstrip().startswith("#"):
        return []
    separator = next((mark for mark in ",;" if mark in line), None)
    return [word.strip().strip("\"'") for word in line.split(separator)]


def _number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def columns(shape: tuple[int, ...]) -> list[str]:
    """Return the names of the coordinates."""
    return [f"x{i + 1}" for i in range(math.prod(shape))]


def write(out: Path | None, names: list[str], rows: list[list[float]]) -> None:
    """Write CSV to a file in one move, or to what is none, such as the terminal. A link stays; its target is written.

    In a folder where nothing may be made, a file that is there is written in place.
    """
    text = "\n".join([",".join(names), *(",".join(f"{value:.9g}" for value in row) for row in rows)]) + "\n"
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
