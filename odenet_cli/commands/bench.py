"""This machine's speed beside other libraries: odenet bench [w1|w2|w3|w4|precision|train]"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from odenet_cli.bench import workloads
from odenet_cli.commands.common import counted
from odenet_cli.commands.report import make_folder
from odenet_cli.errors import RequestError
from odenet_cli.files import write_output
from odenet_cli.registry import nearest, require

KEYS = ("repeats", "device", "out")
MOST = 100_000  # measurements
HELP = """usage: odenet bench [WORKLOAD ...] [--against PEER,PEER] [key=value ...]

Measures our solver and other libraries on the same work, in turn in one process, and prints medians and ratios. Results
are compared before anything is timed. Without a workload, all of them run; that takes some minutes.

{workloads}

  --against torchdiffeq,torchode,torchdyn,diffrax   whom to compare with; left out: those that are installed
  repeats=N        measurements of each subject, or steps of `train`
  device=auto      or cpu, cuda, cuda:N
  out=FOLDER       also write Markdown and JSON there

The peers: pip install "odenet[bench]"; diffrax: pip install diffrax"""


@dataclass
class Request:
    """What was asked for. `against` None: whatever is installed."""

    workloads: list[str]
    against: list[str] | None = None
    repeats: int | None = None
    device: str = "auto"
    out: Path | None = None


def main(argv: list[str]) -> int:
    """Run the workloads one after the other; each is printed, and written, when it is done."""
    if any(word in ("-h", "--help") for word in argv):
        lines = [f"  {name:<10} {workloads.title(name)}" for name in workloads.names()]
        print(HELP.format(workloads="\n".join(lines)))
        return 0
    request = parsed(argv)

    from odenet_cli.bench import machine, table
    from odenet_cli.bench import peers as libraries
    from odenet_cli.training import device
    from odenet_cli.training.record import git_commit

    peers, absent = libraries.chosen(request.against)
    where = device.choose(request.device)
    device.configure_backends(where, deterministic=False, tolerance=1e-3)
    folder = make_folder(request.out, "out=") if request.out else None
    command = shlex.join(["odenet", "bench", *argv])
    facts = machine.facts(where, peers, absent) | {"commit": git_commit() or "unknown", "command": command}
    print(table.opening(facts), flush=True)
    with logging() as log:
        settings = workloads.Settings(peers=tuple(peers), device=where, repeats=request.repeats, log=log)
        for name in request.workloads:
            heading = f"{name}: {workloads.title(name).rstrip('.')}"
            print(f"\n## {heading}\n", flush=True)
            tables = workloads.workload(name).run(settings)
            print("\n\n".join(map(table.markdown, tables)), flush=True)
            if folder:
                for file, text in table.files(f"{name}-{where.type}", heading, facts, tables).items():
                    write_output(folder / file, text)
    return 0


def parsed(argv: list[str]) -> Request:
    """The request; a word that means nothing is refused with the nearest that does."""
    words, request = list(argv), Request(workloads=[])
    while words:
        word = words.pop(0)
        key, equals, value = word.partition("=")
        if key == "--against":
            value = value if equals else words.pop(0) if words else ""
            request.against = [name for name in value.split(",") if name]
            if not request.against:
                raise RequestError("--against needs the names of libraries: --against torchdiffeq,torchode")
        elif equals and key in KEYS:
            setattr(request, key, _value(key, value))
        elif equals or word.startswith("-"):
            known = ("--against", *KEYS)
            raise RequestError(f"{key} is not an option here.{nearest(key, known)}\n  There are: {', '.join(known)}.")
        else:
            request.workloads.append(require("workload", word, workloads.names()))
    request.workloads = list(dict.fromkeys(request.workloads)) or workloads.names()
    return request


def _value(key: str, value: str) -> Any:
    if key == "repeats":
        return counted("repeats=", value, MOST)
    if key == "device" and not re.fullmatch(r"auto|cpu|cuda(:\d+)?", value):
        raise RequestError(f"device={value} is not known; it may be auto, cpu, cuda or cuda:N.")
    if not value:
        raise RequestError(f"{key}= needs a value.")
    return Path(os.path.expanduser(value)) if key == "out" else value


@contextmanager
def logging() -> Iterator[Any]:
    """The log of a run as training keeps it, in a folder that is thrown away."""
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
