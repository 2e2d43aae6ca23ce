"""Is a trained network still an ordinary differential equation, or a network that needs the steps it was trained with?

Ott, Katiyar, Hennig & Tiemann, "ResNet after all: neural ODEs and their numerical solution" (2020): a net trained with
coarse steps can rest on their errors, and then a finer solver, which follows the equation better, makes it worse.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from odenet_cli.analysis.sanity_check import LOSS, finer, least, mcnemar
from odenet_cli.analysis.trained import Trained
from odenet_cli.config.schema import SolverConfig
from odenet_cli.errors import RequestError
from odenet_cli.ode import SolveError, Stats, method, tally
from odenet_cli.training import build
from odenet_cli.training.evaluate import mean_cost, solved_by

ENOUGH = 1_000


class Audit:
    """A trained network, the samples it is asked, and its answers with `own`, the solver it was trained with.

    The samples are those of the test or, where they are fewer than 1,000, all there are, in batches of `batch`.

    first  the record of `own`
    """

    def __init__(self, run: Trained, own: SolverConfig, batch: int) -> None:
        if run.data.task != "classify":
            raise RequestError(f"this run's task is {run.data.task}: there are no right answers to count.")
        splits = {"test": run.data.test}
        if run.data.test.size < ENOUGH:
            splits |= {"valid": run.data.valid, "train": run.data.train.unshuffled(batch)}
        self.samples = {name: split.size for name, split in splits.items() if split.size}
        if (count := sum(self.samples.values())) < ENOUGH:
            raise RequestError(f"this run has {count} samples in all; an audit needs {ENOUGH:,} or more.")
        self.batches = [batch for split in splits.values() for batch in split.epoch(0)]
        self.model = run.model.eval()
        self.base, record = self.answers(own)
        self.first = {**record, "lost": 0, "gained": 0, "p": 1.0, "finer": False}

    def row(self, solver: SolverConfig) -> dict[str, Any]:
        """The record of `solver`, its answers held against the first ones; where a solve fails, how it `failed`."""
        try:
            right, record = self.answers(solver)
        except SolveError as error:
            return {**solver.record(), "finer": False, "failed": str(error)}
        lost, gained = int((self.base & ~right).sum()), int((right & ~self.base).sum())
        p = mcnemar(lost, gained)
        return {**record, "lost": lost, "gained": gained, "p": p, "finer": finer(record, self.first)}

    @torch.no_grad()
    def answers(self, solver: SolverConfig) -> tuple[Tensor, dict[str, Any]]:
        """Which samples are answered rightly, (N,), and a record. Each sample is put to the network once."""
        logits, cost = [], Stats()
        with solved_by(self.model, build.solver(solver)):
            for x, _ in self.batches:
                with tally() as solves:
                    logits.append(self.model(x))
                cost = sum(solves, start=cost)
        made, labels = torch.cat(logits), torch.cat([label for _, label in self.batches])
        right = made.argmax(1) == labels
        scores = {"loss": F.cross_entropy(made.double(), labels).item(), "error": (~right).double().mean().item()}
        order = getattr(method(solver.method), "order", None)
        return right, {**solver.record(), "order": order, **scores, **mean_cost(cost, len(self.batches))}

    def about(self, data: str) -> str:
        """The samples in words, and what so few cannot tell."""
        count = sum(self.samples.values())
        text = f"{count:,} samples of {data}: " + " + ".join(f"{size:,} {name}" for name, size in self.samples.items())
        if len(self.samples) > 1:
            text += f" together, as test alone has fewer than {ENOUGH:,}"
        if least(count) > LOSS:
            text += f"\nwith so few a loss below {100 * least(count):.2f} points is never significant"
        return text
