"""Timed work, the subjects that do it, and its function evaluations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from odenet_cli.bench.peers import OURS, diffrax
from odenet_cli.bench.problems import Function, FunctionField
from odenet_cli.ode import Stats, tally


class Counter:
    """Count evaluations; more than `limit` raise an error, so that a solve that does not end is noticed."""

    def __init__(self, limit: int = 2_000_000) -> None:
        self.calls, self.limit = 0, limit

    def add(self) -> None:
        self.calls += 1
        if self.calls > self.limit:
            raise RuntimeError(f"not done after {self.limit:,} evaluations")


class CountedField(nn.Module):
    def __init__(self, field: nn.Module, counter: Counter) -> None:
        super().__init__()
        self.field, self.counter = field, counter

    def forward(self, t: Tensor, y: Any) -> Any:
        self.counter.add()
        return self.field(t, y)


def function_field(f: Function, library: str, counter: Counter | None = None) -> Any:
    """Return a function as a field for a library, counted if there is a counter."""
    if library != "diffrax":
        return CountedField(FunctionField(f), counter) if counter else FunctionField(f)
    import jax

    field = partial(f, jax.numpy)
    return diffrax.observed(field, counter.add) if counter else field


@dataclass(frozen=True, kw_only=True)
class Work:
    """Work to be timed: `backward(forward())`, without the preceding `reset`.

    outcome     returns the values to compare, by name, from the result of `forward`, after `backward`
    repeatable  it may run many times within one measurement, because it changes nothing
    """

    forward: Callable[[], Any]
    backward: Callable[[Any], None] = lambda result: None
    reset: Callable[[], None] = lambda: None
    outcome: Callable[[Any], dict[str, Tensor]] = lambda result: {"y": result}
    repeatable: bool = True

    def run(self) -> dict[str, Tensor]:
        self.reset()
        result = self.forward()
        self.backward(result)
        return self.outcome(result)


def flat_gradient(module: nn.Module) -> Tensor:
    """Return the gradients of all parameters in one vector; zeros if a parameter has none."""
    return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in module.parameters()])


def training(
    network: nn.Module,
    loss: Callable[[], Tensor],
    optimizer: torch.optim.Optimizer | None = None,
    gradient: Callable[[nn.Module], Tensor] = flat_gradient,
) -> Work:
    """Return the work of a loss and its gradients by the parameters of `network`, and of an optimiser step if given."""
    parameters = list(network.parameters())
    start = [parameter.detach().clone() for parameter in parameters] if optimizer else []

    @torch.no_grad()
    def reset() -> None:
        for parameter, value in zip(parameters, start):
            parameter.copy_(value)

    def backward(loss: Tensor) -> None:
        for parameter in parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        if optimizer:
            optimizer.step()

    return Work(
        forward=loss,
        backward=backward,
        reset=reset,
        outcome=lambda loss: {"loss": loss.detach(), "gradient": gradient(network)},
        repeatable=optimizer is None,
    )


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A library in one of its modes; after a comma, the mode contains a remark for the reader.

    work  returns the work for a mode; with a counter, evaluations of the field are counted
    """

    library: str
    mode: str
    work: Callable[[str, Counter | None], Work]

    @property
    def name(self) -> str:
        return f"{self.library} {self.mode}".strip().replace(" ,", ",")

    def cost(self) -> Stats:
        """Return the evaluations of one run: ours counted by the solver, others by their field, not compiled."""
        if self.library == OURS:
            work = self.work(self.mode, None)
            with tally() as solves:
                work.run()
            return sum(solves, start=Stats())
        counter = Counter()
        work = self.work(self.mode.removesuffix(" compiled"), counter)
        work.reset()
        result, forward = work.forward(), counter.calls
        work.backward(result)
        return Stats(nfe_forward=forward, nfe_backward=counter.calls - forward)
