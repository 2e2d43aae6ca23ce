"""Measure this machine's speed beside other libraries: odenet bench [w1|w2|w3|w4|precision|train]

Runs our solver and other libraries on the same work, in turn in one process, and prints medians and ratios. Their
results are compared before anything is timed. Without a workload all of them run, which takes some minutes."""

from __future__ import annotations

import re
import shlex
import tempfile
from argparse import ArgumentTypeError, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from odenet_cli.bench import workloads
from odenet_cli.commands import _common
from odenet_cli.commands.report import make_folder
from odenet_cli.errors import RequestError
from odenet_cli.files import write_output
from odenet_cli.registry import headlines, require
from odenet_cli.training.progress import Parts

MAX_REPEATS = 100_000
TITLES = headlines("odenet_cli.bench.workloads")
LISTING = "\n".join(f"  {name:<10} {title}" for name, title in TITLES.items())
PEERS = 'The peers: pip install -e ".[bench]"; diffrax: pip install diffrax'


def device(text: str) -> str:
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", text):
        raise ArgumentTypeError(f"{text} is not known. Available: auto, cpu, cuda, cuda:N.")
    return text


PARSER = _common.Parser(__name__, f"{__doc__}\n\n{LISTING}\n\n{PEERS}")
PARSER.offers = workloads.names
add = PARSER.add_argument
add("workloads", metavar="WORKLOAD", nargs="*", default=[], help="default: all")
add(
    "--against",
    metavar="PEER,PEER",
    type=_common.several(str),
    help="libraries to compare with: torchdiffeq, torchode, torchdyn, diffrax; default: those installed",
)
add(
    "--repeats",
    metavar="N",
    type=_common.whole(1, MAX_REPEATS),
    help="number of measurements, or of steps of `train`",
)
add("--device", type=device, default="auto", help="auto, cpu, cuda or cuda:N")
add("--out", metavar="FOLDER", type=_common.path, help="also write Markdown and JSON there")
add("--draw", metavar="FOLDER", type=_common.path, help="measure nothing; draw the measurements in FOLDER")


@PARSER.command
def main(request: Namespace) -> int:
    """Run the workloads one after the other; each is printed, and written, when it is done."""
    if request.draw:
        from odenet_cli.report import speed

        print(*speed.write(request.draw), sep="\n")
        return 0
    names = check(request)
    from odenet_cli.bench import machine, peers, table
    from odenet_cli.training import device as devices
    from odenet_cli.training.record import git_commit

    present, absent = peers.select(request.against)
    device = devices.choose(request.device)
    devices.configure_backends(device, deterministic=False, tolerance=1e-3)
    folder = make_folder(request.out, "out=") if request.out else None
    command = shlex.join(["odenet", "bench", *request.argv])
    facts = machine.facts(device, present, absent) | {"commit": git_commit() or "unknown", "command": command}
    print(table.opening(facts), flush=True)
    with training_log() as log, Parts(len(names)) as parts:
        settings = workloads.Settings(
            peers=tuple(present), device=device, repeats=request.repeats, log=log, note=parts.note
        )
        for name in names:
            heading = f"{name}: {TITLES[name].rstrip('.')}"
            print(f"\n## {heading}\n", flush=True)
            parts.begin(name)
            tables = workloads.workload(name).run(settings)
            print("\n\n".join(map(table.markdown, tables)), flush=True)
            if folder:
                for file, text in table.files(f"{name}-{device.type}", heading, facts, tables).items():
                    write_output(folder / file, text)
    return 0


def check(request: Namespace) -> list[str]:
    """Return the requested workloads, each once; raise RequestError for an unknown one."""
    for word in request.workloads:
        if "=" in word:
            PARSER.refuse(word)
        require("workload", word, workloads.names())
    if request.against == []:
        raise RequestError("--against needs the names of libraries: --against torchdiffeq,torchode")
    return list(dict.fromkeys(request.workloads)) or workloads.names()


@contextmanager
def training_log() -> Iterator[Any]:
    """Yield the log of a training step as a run writes it, into a folder that is thrown away."""
    from odenet_cli.config.schema import Config, SolverConfig
    from odenet_cli.training.log import Logbook
    from odenet_cli.training.session import Window

    solver = SolverConfig(rtol=1e-3, atol=1e-3)
    config = Config(name="bench", solver=solver, model={"name": "odenet"}, data={"name": "digits"})
    with tempfile.TemporaryDirectory() as folder:
        book, window = Logbook(Path(folder), config), Window()

        def log(step: int, values: dict[str, Any], solves: list[Any]) -> None:
            nonlocal window
            window.open()
            window.add(values, solves)
            if step % config.trainer.log_every == 0:
                book.write({"step": step, "epoch": 0, "split": "train", "lr": 0.1, **window.means()})
                window = Window()

        try:
            yield log
        finally:
            book.close()
