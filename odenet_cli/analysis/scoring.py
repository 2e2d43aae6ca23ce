"""Score a trained network under several solvers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from odenet_cli.analysis.trained import trained
from odenet_cli.config.resolve import eval_batch, eval_solver
from odenet_cli.config.saved import load
from odenet_cli.config.schema import Config
from odenet_cli.data import Split
from odenet_cli.errors import RequestError
from odenet_cli.models import solvers
from odenet_cli.training import build
from odenet_cli.training.evaluate import Over, evaluate, unwatched


@dataclass(frozen=True)
class Chained:
    """Concatenate several splits."""

    parts: list[Split]

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def epoch(self, number: int) -> Iterator[Any]:
        return chain.from_iterable(part.epoch(number) for part in self.parts)


class Scorer:
    """Hold the model of the run in `folder` with its `best` or `last` weights, and the samples of one or all splits.

    split  None: the test samples or, for a file (`data.path`) on which the run was not trained, all samples
    """

    def __init__(self, folder: Path, config: Config, split: str | None, which: str, over: Over = unwatched) -> None:
        batch_size, data = eval_batch(config), config.data["name"]
        run = trained(folder, config, which, batch_size)
        if run.other_data and config.data.get("path") != load(folder).data.get("path"):
            data, split = str(config.data["path"]), split or "all"
        split = split or "test"
        parts = [part for name, part in run.splits(batch_size).items() if split in (name, "all")]
        self.split, self.over = Chained(parts), over
        if not self.split.size:
            raise RequestError(
                f"split={split} is empty in this run: data.validation is 0, or there are too few series."
            )
        self.about = {"split": split, **({"data": run.data.record["sha256"]} if run.other_data else {})}
        self.model, self.loss_fn, self.solves = run.model, run.loss_fn, bool(solvers(run.model))
        sizes = [min(batch_size, part.size - at) for part in self.split.parts for at in range(0, part.size, batch_size)]
        scored = sum(sizes[: config.trainer.limit_batches])
        count = f"{scored:,} of {self.split.size:,}" if scored < self.split.size else f"{scored:,}"
        self.title = f"{folder}: {run.weights}, {count} samples of {data} ({split})"
        if (unlabelled := run.data.record.get("unlabelled")) and split == "all":
            self.title += f"; {unlabelled:,} without y left out"
        evaluate(self.model, self.loss_fn, self.split, limit=1)  # warm up, so that the first time is comparable

    def row(self, config: Config) -> dict[str, Any]:
        """Return the scores under `eval_solver(config)`."""
        solver, limit, dtype = eval_solver(config), config.trainer.limit_batches, build.eval_dtype(config)
        scores = evaluate(self.model, self.loss_fn, self.split, build.solver(solver), limit, dtype, over=self.over)
        return {**self.about, **solver.record(), **scores}
