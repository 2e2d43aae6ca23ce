"""One trained network, scored under one solver after another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from odenet_cli.analysis.trained import eval_batch, trained
from odenet_cli.config.resolve import eval_solver
from odenet_cli.config.saved import load
from odenet_cli.config.schema import Config
from odenet_cli.data import Split
from odenet_cli.errors import RequestError
from odenet_cli.training import build
from odenet_cli.training.evaluate import evaluate


@dataclass(frozen=True)
class Together:
    """Several splits, one after the other."""

    parts: Sequence[Split]

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    def epoch(self, number: int) -> Iterator[Any]:
        return chain.from_iterable(part.epoch(number) for part in self.parts)


class Scorer:
    """The model of the run in `folder` with its `best` or `last` weights, and one split of its data, or all of them.

    split  None: the test samples or, of a file (`data.path`) that the run was not trained on, all
    """

    def __init__(self, folder: Path, config: Config, split: str | None, which: str) -> None:
        batch = eval_batch(config)
        run = trained(folder, config, which, batch)
        of = config.data["name"]
        if run.other and config.data.get("path") != load(folder).data.get("path"):
            of, split = str(config.data["path"]), split or "all"
        self.name = split or "test"
        splits = {"train": run.data.train.unshuffled(batch), "valid": run.data.valid, "test": run.data.test}
        self.split = Together([part for name, part in splits.items() if self.name in (name, "all")])
        if not self.split.size:
            raise RequestError(f"split={self.name} is empty in this run: data.validation is 0, or the series are few.")
        self.about = {"split": self.name, **({"data": run.data.record["sha256"]} if run.other else {})}
        self.model, self.loss_fn, self.device = run.model, run.loss_fn, run.device
        self.title = f"{folder}: {run.weights}, {self.split.size} samples of {of} ({self.name})"
        evaluate(self.model, self.loss_fn, self.split, limit=1)  # the first pass pays for warming up

    def row(self, config: Config) -> dict[str, Any]:
        """The scores under `eval_solver(config)`."""
        solver, dtype = eval_solver(config), build.eval_dtype(config)
        scores = evaluate(
            self.model, self.loss_fn, self.split, build.solver(solver), config.trainer.limit_batches, dtype
        )
        return {**self.about, **solver.record(), **scores}
