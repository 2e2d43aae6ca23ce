"""Score a model on a split, with any solver."""

from __future__ import annotations

import contextlib
import copy
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from odenet_cli.models import solvers
from odenet_cli.models.common.latent import noise_by_sample
from odenet_cli.ode import Solver, Stats, tally
from odenet_cli.ode.scalars import widest
from odenet_cli.tasks import Loss
from odenet_cli.tasks.common.scores import Mean, PerSample, Score

Over = Callable[[Iterable[Any], int], Iterator[Any]]  # yields these items, of that number, and may show how far it is


def unwatched(items: Iterable[Any], count: int) -> Iterator[Any]:
    """Iterate over the items without showing progress."""
    return iter(items)


@contextlib.contextmanager
def solved_by(model: nn.Module, solver: Solver | None) -> Iterator[None]:
    """Replace the solver of every module that has one, for a while; with None change nothing."""
    modules = solvers(model) if solver is not None else []
    before = [module.solver for module in modules]
    for module in modules:
        module.solver = solver
    try:
        yield
    finally:
        for module, own in zip(modules, before):
            module.solver = own


@contextlib.contextmanager
def scoring(model: nn.Module, solver: Solver | None = None, dtype: torch.dtype | None = None) -> Iterator[nn.Module]:
    """Yield the model for scoring: in evaluation mode, with `solver`, as a copy if `dtype` differs from its own."""
    own = next((parameter.dtype for parameter in model.parameters()), dtype)
    net, training = model if dtype in (None, own) else copy.deepcopy(model).to(dtype), model.training
    try:
        with solved_by(net.eval(), solver):
            yield net
    finally:
        net.train(training)


def converted(batch: Any, dtype: torch.dtype | None) -> Any:
    """Return the batch with its floating-point tensors in `dtype`."""
    if dtype is None:
        return batch
    return tuple(part.to(dtype) if isinstance(part, Tensor) and part.is_floating_point() else part for part in batch)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    loss_fn: Loss,
    split: Any,
    solver: Solver | None = None,
    limit: int | None = None,
    dtype: torch.dtype | None = None,
    per_sample: dict[str, Tensor] | None = None,
    over: Over = unwatched,
) -> dict[str, Any]:
    """Return loss and metrics over the samples of `split`, function evaluations and steps a batch, time in s.

    limit       use only so many batches
    dtype       score in this precision
    per_sample  receives what the task has of every sample, (N,) each, in the order of the split
    over        goes through the batches
    """
    totals: dict[str, Score] = {}
    batches, cost, start = 0, Stats(), time.perf_counter()
    with scoring(model, solver, dtype) as net, noise_by_sample(net, split):
        for batch in over(islice(split.epoch(0), limit), min(len(split), limit or len(split))):
            with tally() as solves:
                loss, extra = loss_fn(net, converted(batch, dtype))
            size = len(batch[0])
            for name, value in {"loss": loss, **extra}.items():
                score = Mean(value.to(widest(value.device)) * size, size) if isinstance(value, Tensor) else value
                totals[name] = totals[name] + score if name in totals else score
            cost, batches = sum(solves, start=cost), batches + 1
    if per_sample is not None:
        per_sample |= {name: torch.cat(score.parts) for name, score in totals.items() if isinstance(score, PerSample)}
    scores = {name: value for name, score in totals.items() if (value := score.item()) is not None}
    return {**scores, **mean_cost(cost, batches), "time_s": time.perf_counter() - start}


def mean_cost(cost: Stats, count: int) -> dict[str, float]:
    """Return the counters a step or a batch, `count` of them; integers where they are whole."""
    means = {name: value / max(1, count) for name, value in vars(cost).items()}
    return {name: int(mean) if mean == int(mean) else mean for name, mean in means.items()}
