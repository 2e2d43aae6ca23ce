"""Draw from a flow, or ask for log-densities: odenet sample RUN n=1000 out=points.csv"""

from __future__ import annotations

import math
import os
import stat
import sys
from pathlib import Path
from typing import Any

from odenet_cli.commands._points import choice, files, number, open_run, own_class, read
from odenet_cli.config.resolve import eval_solver
from odenet_cli.config.schema import Config
from odenet_cli.errors import RequestError
from odenet_cli.files import write_output

HELP = """usage: odenet sample RUN [n=1000] [out=FILE] [seed=0]
       odenet sample RUN points=FILE [out=FILE]

Draws n points from the flow of the run's best checkpoint; with points=FILE, gives the log-density of each of the file's
points instead, in nat. Both are solved as the run was scored (eval.solver.*, eval.dtype).

  odenet sample RUN n=1000 out=points.csv
  odenet sample RUN points=points.csv out=densities.csv

  n=1000    how many   seed=0   of the noise
  points=   a text file, one point a line, its numbers apart by commas or blanks; a first line
            of names is passed over, and so are lines that start with #
  out=      where to write CSV; left out: to the terminal
  checkpoint=best|last   device
  model.target=package.module:Class   to be said again where the run has a class of your own"""
KEYS = ("n", "seed", "points", "out", "checkpoint", "device", "model.target")
CHUNK = 10_000
GIB = 2**30
POINT, NUMBER = 50, 65  # bytes of a point and of each of its numbers, measured, until they are written


def main(argv: list[str]) -> int:
    """Draw, or score."""
    if not argv or argv[0] in ("-h", "--help"):
        print(HELP)
        return 0 if argv else 2
    folder, run = open_run(argv)
    named, words = files(argv[1:], ("points", "out"))
    source, out = named.get("points"), named.get("out")
    said = read(words, KEYS, several=())
    which = choice(said, "checkpoint", ("best", "last"))
    if source is not None and {"n", "seed"} & said.keys():
        raise RequestError("n= and seed= are for drawing, and points= asks for log-densities: say one or the other.")
    n, seed = int(number(said, "n", 1000, whole=True)), whole_seed(said)
    if out is not None and not os.path.isdir(out.parent):
        raise RequestError(f"out={out}: there is no folder {out.parent}.")
    if out is not None and source is not None and os.path.realpath(out) == os.path.realpath(source):
        raise RequestError(f"out={out} is the file of the points: choose another name.")
    own_class(run, said)
    from odenet_cli.request.points import altered

    config = altered(run, {key: values[0] for key, values in said.items()})
    given = None if source is None else points(source)
    names, rows = scored(folder, config, which, given) if given is not None else drawn(folder, config, which, n, seed)
    write(out, names, rows)
    if out is not None:
        print(f"{len(rows)} {'points' if given is None else 'log-densities'} in {out}")
        if given is not None:
            print(f"mean log-density {sum(row[-1] for row in rows) / len(rows):.6g} nat")
    return 0


def drawn(folder: Path, config: Config, which: str, n: int, seed: int) -> tuple[list[str], list[list[float]]]:
    """`n` points of the run's flow."""
    import torch

    with flow(folder, config, which, "sample") as (model, data, device):
        check_memory(n, math.prod(data.shape))
        generator = torch.Generator(device).manual_seed(seed)
        sizes = (min(CHUNK, n - done) for done in range(0, n, CHUNK))
        parts = [model.sample(size, generator=generator).flatten(1).cpu() for size in sizes]
    return columns(data.shape), torch.cat(parts).tolist()


def check_memory(n: int, dimensions: int) -> None:
    """Refuse more points than fit into memory."""
    from odenet_cli.training.device import memory

    there, each = memory("cpu"), POINT + NUMBER * dimensions
    if n * each > there:
        raise RequestError(
            f"n={n} points need {n * each // GIB:,} GiB, and there are {there // GIB:,} GiB of memory.\n"
            f"  Draw {there // each:,} or fewer at a time, each time with another seed=."
        )


def scored(folder: Path, config: Config, which: str, given: list[list[float]]) -> tuple[list[str], list[list[float]]]:
    """The given points with the log-density of each."""
    import torch

    from odenet_cli.ode import SolveError

    with flow(folder, config, which, "log_prob") as (model, data, device):
        names = columns(data.shape)
        if len(given[0]) != len(names):
            raise RequestError(
                f"points= has {len(given[0])} numbers a line, and this flow has {len(names)} dimensions."
            )
        like = next(model.parameters())
        x = torch.tensor(given, dtype=like.dtype, device=device).view(-1, *data.shape)
        try:
            found = torch.cat([model.log_prob(x[k : k + CHUNK]) for k in range(0, len(x), CHUNK)])
        except SolveError as error:
            raise RequestError(f"points=: the flow cannot be solved from one of them. {error}") from error
    return [*names, "log_density"], [[*point, value] for point, value in zip(given, found.tolist())]


def flow(folder: Path, config: Config, which: str, method: str) -> Any:
    """The model of the run as it is scored, its data, its device; refuses one that has no such method."""
    import contextlib

    import torch

    from odenet_cli.analysis.trained import trained
    from odenet_cli.training import build
    from odenet_cli.training.evaluate import scoring

    @contextlib.contextmanager
    def opened() -> Any:
        net = trained(folder, config, which, 1)
        lacks = next((need for need in ("log_prob", method) if not callable(getattr(net.model, need, None))), None)
        if lacks:
            raise RequestError(
                f"{folder} is a run of model={config.model['name']}, which has no {lacks}: it is no flow.\n"
                "  Name a run of model=cnf or model=planar."
            )
        solver = build.solver(eval_solver(config))
        with torch.no_grad(), scoring(net.model, solver, build.eval_dtype(config)) as model:
            yield model, net.data, net.device

    return opened()


def points(source: Path) -> list[list[float]]:
    """The points in a text file, or that a pipe or a terminal gives; `RequestError` names the line that is none."""
    try:
        with open(source, encoding="utf-8-sig") as file:
            if stat.S_ISCHR(os.fstat(file.fileno()).st_mode) and not file.isatty():
                raise RequestError(f"points={source} is a device. Name a file.")  # that may have no end
            lines = file.read().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"points={source} cannot be read: {getattr(error, 'strerror', None) or error}.") from error
    found: list[list[float]] = []
    named = False
    for place, line in enumerate(lines, 1):
        words = cells(line)
        if not words:
            continue
        values = [value(word) for word in words]
        if not (found or named) and set(values) == {None}:
            named = True  # a line of names
            continue
        if None in values:
            raise RequestError(f"points={source}: line {place} is not numbers: {line[:60]!r}")
        row = [one for one in values if one is not None]
        if not all(map(math.isfinite, row)):
            raise RequestError(f"points={source}: line {place} is not finite: {line[:60]!r}")
        if found and len(row) != len(found[0]):
            raise RequestError(
                f"points={source}: line {place} has {len(row)} numbers, and the lines before it {len(found[0])}."
            )
        found.append(row)
    if not found:
        raise RequestError(f"points={source} holds no points; one a line, such as 0.5,-1.2.")
    return found


def cells(line: str) -> list[str]:
    """The words of a line, apart by commas, semicolons or blanks; none of a blank line or a comment."""
    if not line.strip() or line.lstrip().startswith("#"):
        return []
    mark = next((mark for mark in ",;" if mark in line), None)
    return [word.strip().strip("\"'") for word in line.split(mark)]


def value(word: str) -> float | None:
    """The number that a word is, if it is one."""
    try:
        return float(word)
    except ValueError:
        return None


def columns(shape: tuple[int, ...]) -> list[str]:
    """Names of the coordinates."""
    return [f"x{i + 1}" for i in range(math.prod(shape))]


def write(out: Path | None, names: list[str], rows: list[list[float]]) -> None:
    """CSV, to a file in one move, or to what is none, such as the terminal. A link stays; where it leads is written.

    In a folder where nothing may be made, a file that is there is written as it stands.
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


def whole_seed(said: dict[str, list[Any]]) -> int:
    """The seed, 0 where none was said."""
    value = said.pop("seed", [0])[0]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
        raise RequestError(f"seed={value} must be a whole number of 0 or more.")
    return value
