"""One trained network, scored under one solver after another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from odenet_cli import data as datasets
from odenet_cli.config import Config, eval_solver
from odenet_cli.errors import RequestError
from odenet_cli.tasks import task
from odenet_cli.training import build, checkpoint, device
from odenet_cli.training.evaluate import evaluate


class Scorer:
    """The model of the run in `folder` with the weights of its `best` or `last` checkpoint, and one split of its data.

    Where there was no validation there is no best; the last weights are taken then.
    """

    def __init__(self, folder: Path, config: Config, split: str, which: str) -> None:
        path = folder / "checkpoints" / f"{which}.pt"
        if which == "best" and not path.exists():
            path = path.with_name("last.pt")
        state = checkpoint.load(path)
        self.device = device.choose(config.device)
        device.settle(self.device, config.deterministic, build.tightest(config))
        name, options = config.source()
        batch = config.eval.batch_size or max(config.trainer.batch_size or 0, 200)
        data = datasets.load(
            name,
            options,
            batch_size=1,
            eval_batch_size=batch,
            seed=config.seed,
            device=self.device,
            dtype=build.dtype(config),
        )
        self.split, self.name = (data.train.plain(batch) if split == "train" else getattr(data, split)), split
        if not self.split.size:
            raise RequestError(f"split={split} is empty in this run: data.validation is 0.")
        self.model = build.model(config, data.shape, data.classes).to(self.device)
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            raise RequestError(f"{path} does not fit the model of {folder / 'config.yaml'}: {error}") from error
        self.loss_fn = task(data.task)
        self.title = (
            f"{folder}: {path.stem} weights, step {state['step']}, {self.split.size} samples of {name} ({split})"
        )
        evaluate(self.model, self.loss_fn, self.split, limit=1)  # the first pass pays for warming up

    def row(self, config: Config) -> dict[str, Any]:
        """The scores under `eval_solver(config)`."""
        solver = eval_solver(config)
        scores = evaluate(self.model, self.loss_fn, self.split, build.solver(solver), config.trainer.limit_batches)
        return {"split": self.name, **vars(solver), **scores}
