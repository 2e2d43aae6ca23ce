"""Use runs from Python: load one with its weights, or train one.

>>> import odenet_cli as odenet
>>> run = odenet.train(["model=odenet", "data=digits", "trainer.epochs=1"])
>>> run = odenet.load("last")                    # or the folder of a run
>>> logits = run.model(x)                        # in evaluation mode
>>> run.config.solver.rtol, run.metrics[-1]["error"], run.frame().query("split == 'valid'")
>>> run.with_solver(rtol=1e-6).model(x)          # the same weights at another tolerance
>>> run.with_solver(method="rk4", steps=4)       # or in steps of fixed length
>>> run.as_scored().model(x)                     # in the dtype and by the solver of its test score
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
from odenet_cli.config.check import check_code_given
from odenet_cli.config.resolve import eval_solver, tied
from odenet_cli.config.saved import load as load_config
from odenet_cli.config.schema import CODE_KEYS, Config, key_of
from odenet_cli.data import shape, tasks
from odenet_cli.errors import OdenetError, RequestError
from odenet_cli.metrics import read_metrics
from odenet_cli.models.common.flow import check_shape
from odenet_cli.ode import Adaptive, Fixed, Solver, doctor
from odenet_cli.registry import require
from odenet_cli.rundir import as_it_is, holds_run, named_run, read_record, short
from odenet_cli.scores import scores_of
from odenet_cli.tasks import needs
from odenet_cli.training import build
from odenet_cli.training.budget import at_its_end

__all__ = ["LoadedRun", "doctor", "load", "train"]


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class LoadedRun:
    """Hold a run: its network with the weights of a checkpoint, its config and its records.

    model    in evaluation mode, on the device that was asked for, with the solver that it was trained with, uncompiled;
             classifiers are called with inputs (B, *shape) of the shape that they were trained on, flows have
             `log_prob` and `sample`, models of series `forecast` and `draw`. Numbers go in and come out in the units of
             training, which for your own data `record["data"]` has: images of bytes as fractions of 255, other numbers
             as standard deviations from the mean (`x_mean`, `x_sd`, `y_mean`, `y_sd`; `mean`, `standard_deviation`)
    config   as the run was made, complete
    metrics  the records of metrics.jsonl, one per (step, split)
    record   content of run.json: status (`killed` if it says `running` and nothing runs), final metrics, data, versions
    """

    folder: Path
    model: nn.Module
    config: Config
    metrics: list[dict[str, Any]]
    record: dict[str, Any]

    def __repr__(self) -> str:
        """Return one line for a notebook, where a network and thousands of records would fill pages."""
        final = self.record.get("final") or {}
        scores = [f"test {score.sentence(final[score.name])}" for score in scores_of(final)[:1]]
        words = (self.config.name, self.config.data["name"], self.record.get("status", "no record"), *scores)
        return f"<run {short(self.folder)}: {', '.join(words)}>"

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

    def as_scored(self) -> LoadedRun:
        """Return the same run with a copy of its network as `odenet eval`, `sample` and `predict` compute with it.

        Its solver and dtype are those of the test score, `eval.*`, which may be finer than in training.
        """
        model = copy.deepcopy(self.model).to(build.eval_dtype(self.config))
        for module in models.solvers(model):
            module.solver = build.solver(eval_solver(self.config))
        return dataclasses.replace(self, model=model)

    def with_solver(self, **changes: Any) -> LoadedRun:
        """Return the same run with a copy of its network whose solver has these settings changed (rtol, atol, …).

        An rtol without an atol sets both; `steps` makes the solver one of fixed steps, an rtol makes it adaptive. A
        method alone keeps the kind: dopri5 for rk4 takes as many fixed steps; for a tolerance name `rtol` too.
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


def _check_input(shape: tuple[int, ...], module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
    """Raise ValueError for a batch of another shape than the network was trained on; a hook before `forward`."""
    x = next(iter((*inputs, *named.values())), None)
    if isinstance(x, torch.Tensor):
        check_shape(x, shape)


def load(
    run: str | Path, *, weights: str = "best", device: str | torch.device = "cpu", code: Sequence[str] = ()
) -> LoadedRun:
    """Load a run by its folder, or by `last` (`last~1`: the one before); the data it was trained on are not read.

    weights  best (on the validation data; the last ones where there are none) or last
    code     the words that name classes of your own, ["model.target=net:Net"], for a run that uses any

    Raises `RequestError` if there is no such run, or its files are damaged.
    """
    require("weights", weights, ("best", "last"))
    folder = named_run(str(run)).absolute()
    config = at_its_end(folder, _with_code(load_config(folder), code))
    state = weights_of_run(folder, config, weights)
    form, classes = shape(*config.source(), known_data(folder))
    with torch.random.fork_rng(devices=[]):  # building a network seeds torch's generator
        model = build.model(dataclasses.replace(config, compile="false"), form, classes)
    model.load_state_dict(state["model"])
    if "forward" in needs(tasks(config.data["name"])[0]):
        model.register_forward_pre_hook(partial(_check_input, form), with_kwargs=True)
    model.eval().to(device)
    return LoadedRun(
        folder=folder,
        model=model,
        config=config,
        metrics=read_metrics(folder),
        record=as_it_is(folder, read_record(folder)),
    )


def _with_code(config: Config, code: Sequence[str]) -> Config:
    """Return the config with the user's own classes as these words name them; raise where one is not named again."""
    named = {key_of(word): word.partition("=")[2] for word in code}
    check_code_given(config, named, "odenet.load(…, code={1})")
    for key, target in named.items():
        if require("code", key, CODE_KEYS) not in config.named_code():
            raise RequestError(f"code: this run has no class of your own in {key}; leave it out.")
        group, _, name = key.partition(".")
        options: Any = {group: {**getattr(config, group), name: target}}
        config = dataclasses.replace(config, **options)
    return config


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
            process.terminate()  # it may have reached this process alone; to one that is stopping it is nothing new
            for line in process.stdout:
                print(line, end="", flush=True)
            raise
    if process.returncode:
        begin = max((at for at, line in enumerate(lines) if line.startswith("error: ")), default=-1)
        said = "\n  ".join(lines[begin:]).removeprefix("error: ")
        raise OdenetError(f"odenet train ended with exit code {process.returncode}: {said}")
    # The last line, unless a library has the last word.
    ends = (Path(line.rpartition("| ")[2]) for line in reversed(lines) if "| " in line)
    folder = next(filter(holds_run, ends), None)
    if folder is None:
        raise OdenetError(
            "these overrides do not train a run to load. Give those of a single run, without -m, --dry-run or --cfg."
        )
    own = load_config(folder).named_code()  # which the command refuses unless `words` name it
    return load(folder, code=[f"{key}={target}" for key, target in own.items()])
