"""One trained network, scored under one solver after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from odenet_cli.config import Config, eval_solver
from odenet_cli.errors import RequestError
from odenet_cli.training import build
from odenet_cli.training.evaluate import evaluate
from odenet_cli.training.trained import eval_batch, trained


class Scorer:
    """The model of the run in `folder` with its `best` or `last` weights, and one split of its data."""

    def __init__(self, folder: Path, config: Config, split: str, which: str) -> None:
        batch = eval_batch(config)
        run = trained(folder, config, which, batch)
        self.split, self.name = run.data.train.plain(batch) if split == "train" else getattr(run.data, split), split
        if not self.split.size:
            raise RequestError(f"split={split} is empty in this run: data.validation is 0.")
        self.model, self.loss_fn, self.device = run.model, run.loss_fn, run.device
        self.title = f"{folder}: {run.weights}, {self.split.size} samples of {config.data['name']} ({split})"
        evaluate(self.model, self.loss_fn, self.split, limit=1)  # the first pass pays for warming up

    def row(self, config: Config) -> dict[str, Any]:
        """The scores under `eval_solver(config)`."""
        solver, dtype = eval_solver(config), build.eval_dtype(config)
        scores = evaluate(
            self.model, self.loss_fn, self.split, build.solver(solver), config.trainer.limit_batches, dtype
        )
        return {"split": self.name, **vars(solver), **scores}
