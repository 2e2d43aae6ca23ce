"""A subject of a comparison, the work it does, and the count of what that took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from odenet_cli.bench.peers import OURS
from odenet_cli.ode import Stats, tally


class Counter:
    """Counts evaluations; more than `limit` are an error, so that a solve that does not end is noticed."""

    def __init__(self, limit: int = 2_000_000) -> None:
        self.calls, self.limit = 0, limit

    def add(self) -> None:
        self.calls += 1
        if self.calls > self.limit:
            raise RuntimeError(f"not done after {self.limit:,} evaluations")


class Counted(nn.Module):
    """A field whose evaluations are counted."""

    def __init__(self, field: nn.Module, counter: Counter) -> None:
        super().__init__()
        self.field, self.counter = field, counter

    def forward(self, t: Tensor, y: Any) -> Any:
        self.counter.add()
        return self.field(t, y)


def counted(field: nn.Module, counter: Counter | None) -> nn.Module:
    """`field`, counted where there is a counter."""
    return field if counter is None else Counted(field, counter)


class Work:
    """What is timed: `backward(forward())`. What happens in `reset` before it is not.

    repeatable  it may run many times within one measurement, because it leaves nothing changed
    """

    repeatable = True

    def reset(self) -> None:
        """Undo what the last run changed."""

    def forward(self) -> Any:
        raise NotImplementedError

    def backward(self, made: Any) -> None:
        """Nothing to do without gradients."""

    def outcome(self, made: Any) -> dict[str, Tensor]:
        """What a run came to, by name, after it."""
        raise NotImplementedError


class Training(Work):
    """Loss and gradients of the parameters of `network`; with an optimiser, its step too."""

    def __init__(
        self, network: nn.Module, loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer | None = None
    ) -> None:
        self.network, self.loss, self.optimizer = network, loss, optimizer
        self.parameters = list(network.parameters())
        self.repeatable = optimizer is None
        self.start = [] if optimizer is None else [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def reset(self) -> None:
        for parameter, start in zip(self.parameters, self.start):
            parameter.copy_(start)

    def forward(self) -> Tensor:
        return self.loss()

    def backward(self, made: Tensor) -> None:
        for parameter in self.parameters:
            parameter.grad = None
        made.backward()  # type: ignore[no-untyped-call]
        if self.optimizer is not None:
            self.optimizer.step()

    def outcome(self, made: Tensor) -> dict[str, Tensor]:
        return {"loss": made.detach(), "gradient": flat_gradient(self.parameters)}


def flat_gradient(parameters: list[nn.Parameter]) -> Tensor:
    """All gradients in one vector; zeros where there is none."""
    return torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters])


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A library in one of its modes.

    work  makes the work for a mode; given a counter, the field is counted by it
    note  what else the reader must know
    """

    library: str
    mode: str
    work: Callable[[str, Counter | None], Work]
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.library} {self.mode}".strip() + (f", {self.note}" if self.note else "")

    def cost(self) -> Stats:
        """Evaluations of one run. Ours are counted by the solver, those of others by their field, not compiled."""
        with tally() as solves:
            if self.library == OURS:
                counter, work = None, self.work(self.mode, None)
            else:
                counter = Counter()
                work = self.work(self.mode.removesuffix(" compiled"), counter)
            work.reset()
            made = work.forward()
            forward = counter.calls if counter else 0
            work.backward(made)
        if counter is None:
            return sum(solves, start=Stats())
        return Stats(nfe_forward=forward, nfe_backward=counter.calls - forward)
