"""Use runs from Python: load one with its weights, or train one.

>>> import odenet_cli as odenet
>>> run = odenet.train(["model=odenet", "data=digits", "trainer.epochs=1"])
>>> run = odenet.load("last")                    # or the folder of a run
>>> logits = run.model(x)                        # in evaluation mode
>>> run.config.solver.rtol, run.metrics[-1]["error"], run.frame().query("split == 'valid'")
>>> run.with_solver(rtol=1e-6).model(x)          # the same weights at another tolerance
>>> run.with_solver(method="rk4", steps=4)       # or in steps of fixed length
>>> print(odenet.doctor(run.solver, field, y0, ts))  # what is wrong with a solve, and what mends it
"""

from __future__ import annotations

import copy
import dataclasses
import subprocess
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from odenet_cli import models
from odenet_cli.analysis.trained import known_data, weights_of_run
from odenet_cli.config.resolve import tied
from odenet_cli.config.saved import load as load_config
from odenet_cli.config.schema import Config
from odenet_cli.data import shape, tasks
from odenet_cli.errors import OdenetError, RequestError
from odenet_cli.metrics import read_metrics
from odenet_cli.ode import Adaptive, Fixed, Solver, doctor
from odenet_cli.registry import require
from odenet_cli.rundir import holds_run, named_run, read_record
from odenet_cli.tasks import needs
from odenet_cli.training import build
from odenet_cli.training.budget import at_its_end

__all__ = ["LoadedRun", "doctor", "load", "train"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadedRun:
    """Hold a run: its network with the weights of a checkpoint, its config and its records.

    model    in evaluation mode, on the device that was asked for;
             classifiers are called with inputs (B, *shape) of the shape that they were trained on, flows have
             `log_prob` and `sample`, models of series `forecast` and `draw`
    config   as the run was made, complete
    metrics  the records of metrics.jsonl, one per (step, split)
    record   content of run.json: status, final metrics, data, versions
    """

    folder: Path
    model: nn.Module
    config: Config
    metrics: list[dict[str, Any]]
    record: dict[str, Any]

    @property
    def solver(self) -> Solver | None:
        """The solver that the network calls; None where it solves no ODE."""
        solvers = models.solvers(self.model)
        return solvers[0].solver if solvers else None

    @property
    def parameters(self) -> dict[str, dict[str, float | None]]:
        """What a fit found: name -> {value, error, low, high}, the standard error and the 95 % interval.

        None where the data do not determine it; empty for a run of another kind.
        """
        return (self.record.get("final") or {}).get("estimates") or {}

    def with_solver(self, **changes: Any) -> LoadedRun:
        """Return the same run with a copy of its network whose solver has these settings changed (rtol, atol, …).

        An rtol without an atol sets both; `steps` makes the solver one of fixed steps, an rtol makes it adaptive.
        Raises TypeError or ValueError for a setting that the solver does not have.
        """
        model = copy.deepcopy(self.model)
        if not models.solvers(model):
            raise ValueError(f"model={self.config.model['name']} has no solver to change.")
        for module in models.solvers(model):
            module.solver = _changed(module.solver, tied(changes))
        return dataclasses.replace(self, model=model)

    def frame(self) -> Any:
        """Return `metrics` as a pandas frame; raises ImportError where pandas is not installed."""
        import pandas

        return pandas.DataFrame(self.metrics)


def _changed(solver: Solver, changes: dict[str, Any]) -> Solver:
    """Return the solver with these settings, of the other class where they are settings of that."""
    kind = Fixed if "steps" in changes else Adaptive if "rtol" in changes else type(solver)
    names = {field.name for field in dataclasses.fields(kind)}
    kept = {name: value for name, value in vars(solver).items() if name in names}
    return kind(**kept | changes)


def _check_input(shape: tuple[int, ...], module: nn.Module, inputs: tuple[Any, ...]) -> None:
    """Raise ValueError for a batch of another shape than the network was trained on; a hook before `forward`."""
    x = inputs[0] if inputs else None
    if isinstance(x, torch.Tensor) and x.shape[1:] != shape:
        raise ValueError(f"x has shape {tuple(x.shape)}; this network takes ({', '.join(map(str, ('B', *shape)))}).")


def load(run: str | Path, *, weights: str = "best", device: str | torch.device = "cpu") -> LoadedRun:
    """Load a run by its folder, or by `last` (`last~1`: the one before); the data it was trained on are not read.

    weights  best (on the validation data; the last ones where there are none) or last

    Raises `RequestError` if there is no such run, or its files are damaged.
    """
    require("weights", weights, ("best", "last"))
    folder = named_run(str(run)).absolute()
    config = at_its_end(folder, load_config(folder))
    state = weights_of_run(folder, config, weights)
    form, classes = shape(*config.source(), known_data(folder))
    with torch.random.fork_rng(devices=[]):  # building a network seeds torch's generator
        model = build.model(config, form, classes)
    model.load_state_dict(state["model"])
    if "forward" in needs(tasks(config.data["name"])[0]):
        model.register_forward_pre_hook(partial(_check_input, form))
    model.eval().to(device)
    return LoadedRun(
        folder=folder, model=model, config=config, metrics=read_metrics(folder), record=read_record(folder)
    )


def train(words: Sequence[str]) -> LoadedRun:
    """Train as `odenet train` does, in a process of its own, print its lines as they come, and load the run.

    words  as behind `odenet train`, one run (no `-m`): ["model=odenet", "data=digits", "solver.rtol=1e-4"]

    An interrupt (Ctrl-C, the stop button of a notebook) stops the run, which keeps its checkpoint. Raises
    `OdenetError` if the command fails, with its error, and where the words do not train one run.
    """
    if isinstance(words, str) or not all(isinstance(word, str) for word in words):
        raise TypeError(f'words={words!r:.60} must be a list of texts, ["model=odenet", "data=digits"].')
    if {"-m", "--multirun"} & set(words):  # before hours are spent
        raise RequestError(
            "these overrides start a sweep, not a single run to load: leave out -m, and call once for each run."
        )
    command = [sys.executable, "-m", "odenet_cli", "train", *words]
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                lines.append(line.strip())
        except KeyboardInterrupt:
            process.wait()  # the same interrupt has reached it
            raise
    if process.returncode:
        begin = max((at for at, line in enumerate(lines) if line.startswith("error: ")), default=-1)
        said = "\n  ".join(lines[begin:]).removeprefix("error: ")
        raise OdenetError(f"odenet train ended with exit code {process.returncode}: {said}")
    folder = Path(lines[-1].rpartition("| ")[2] if lines else "")
    if not holds_run(folder):
        raise OdenetError(
            "these overrides do not train a run to load. Give those of a single run, without -m, --dry-run or --cfg."
        )
    return load(folder)
