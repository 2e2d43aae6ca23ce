"""Twelve faults of a gradient, planted: in the backward pass of a method, or in the vector field itself. As data.

`plant` puts the fault in its place and returns a network; `kind` is what the certificate must call it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import nn

from odenet_cli.models.cnf import ContinuousFlow
from odenet_cli.models.common import flow
from odenet_cli.ode import Adaptive, Fixed
from odenet_cli.ode.gradient import Gradients, adjoint
from odenet_cli.ode.gradient.adjoint import Adjoint

HIDDEN = random.SystemRandom()  # a generator whose state nobody can put back
DOPRI5 = Adaptive(method="dopri5", rtol=1e-4, atol=1e-4, gradient="adjoint")
RK4 = Fixed(method="rk4", steps=6, gradient="adjoint")


class Field(nn.Module):
    """y (B, 4), t -> (B, 4)."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(4, 16), nn.Linear(16, 4)
        self.rhythm = nn.Parameter(torch.randn(16))

    def forward(self, t, y):
        return self.outer(torch.tanh(self.inner(y) + self.rhythm * torch.sin(3 * t)))


class Wild(Field):
    """A field whose Jacobian is large where its value is not."""

    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.inner.weight.mul_(6)
            self.outer.weight.mul_(4)


class Late(Wild):
    """A field that is another one with time reversed: sin 3t is not, between 0 and 1."""

    def forward(self, t, y):
        return super().forward(t + 0.5, y)


class Net(nn.Module):
    """x (B, 3) -> (T, B, 2), or (B, 2) where only the end is asked for."""

    def __init__(self, solver=DOPRI5, field=Field, times=(0.0, 1.0)):
        super().__init__()
        self.stem, self.field, self.head, self.solver = nn.Linear(3, 4), field(), nn.Linear(4, 2), solver
        self.times = times

    def forward(self, x):
        return self.head(self.solver(self.field, self.stem(x), torch.tensor(self.times)).y)


def loss_fn(model, batch):
    x, target = batch
    return (model(x) - target).square().mean(), {}


@dataclass(frozen=True)
class Planted:
    """Hold one fault."""

    name: str
    kind: str
    plant: Callable[[pytest.MonkeyPatch], nn.Module]
    loss_fn: Any = loss_fn


def backward_of_the_adjoint(change):
    """Let `change(problem, cotangents)` return other cotangents, or change the gradients that come out."""

    def plant(patch):
        true = Adjoint.backward
        patch.setattr(Adjoint, "backward", lambda *args: change(true, *args))
        return Net(times=(0.0, 0.3, 0.6, 1.0))

    return plant


def field_of_the_adjoint(change, field=Field):
    """Let `change(self, f, t, y, used)` stand for the field of the backward solve."""

    def plant(patch):
        true = adjoint.AugmentedField.__call__
        patch.setattr(adjoint.AugmentedField, "__call__", lambda self, t, y, used=True: change(self, true, t, y, used))
        return Net(field=field)

    return plant


def wrong_sign(self, f, t, y, used=True):
    values = f(self, t, y, used)
    return (*values[: 2 * self.parts], *(-part for part in values[2 * self.parts :]))


def missing_parameter(backward, self, problem, tape, kept, cotangents):
    y0, times, inputs = backward(self, problem, tape, kept, cotangents)
    widest = max(range(len(inputs)), key=lambda n: inputs[n].numel())
    return Gradients(y0, times, [None if n == widest else part for n, part in enumerate(inputs)])


def reversed_time(self, f, t, y, used):
    return f(self, 1.0 - t, y, used)


def wrong_jump(backward, self, problem, tape, kept, cotangents):
    inner = [[None] * len(row) for row in cotangents[1:-1]]
    return backward(self, problem, tape, kept, [cotangents[0], *inner, cotangents[-1]])


class ChangedField(Net):
    """The weights are scaled once they have been used, behind autograd's back and behind their first 64 bytes."""

    def forward(self, x):
        y = super().forward(x)
        self.field.inner.weight.data[5:].mul_(3)
        return y


class Conditioned(Field):
    """The condition is a buffer, which `Stale` writes anew before each solve."""

    def __init__(self):
        super().__init__()
        self.register_buffer("condition", torch.zeros(16, 4))

    def forward(self, t, y):
        return super().forward(t, y) * self.condition.sum(0)


class Stale(Net):
    def forward(self, x):
        total = 0.0
        for n in (1.0, -2.0):
            self.field.condition.data[8:].fill_(n / 4)  # behind the first 64 bytes
            total = total + super().forward(x)
        return total


class Dropout(Field):
    """Drops with numbers from a generator that nobody can put back."""

    def forward(self, t, y):
        kept = torch.tensor([HIDDEN.random() > 0.5 for _ in range(y.numel())])
        return 2 * super().forward(t, y) * kept.view_as(y)


class LearnedEnd(Net):
    """The end of the solve is a parameter, and the field detaches the time that it is given."""

    def __init__(self):
        super().__init__(Adaptive(method="dopri5", rtol=1e-4, atol=1e-4, gradient="replay"), TimeOnly)
        self.end = nn.Parameter(torch.tensor(1.0))

    def forward(self, x):
        ts = torch.stack([torch.zeros_like(self.end), self.end])
        return self.head(self.solver(self.field, self.stem(x), ts).y)


class TimeOnly(Field):
    def forward(self, t, y):
        return super().forward(t, y) + 9 * torch.sin(5 * t.detach())


class Half(Field):
    def forward(self, t, y):
        return super().forward(t, y.half().to(y.dtype))


def ten_bits(x):
    """Round as TF32 does; in float64 not at all."""
    if x.dtype is not torch.float32:
        return x
    rounded = ((x.detach().view(torch.int32) + 0x1000) & ~0x1FFF).view(torch.float32)
    return x + (rounded - x.detach())


class Rounded(Field):
    """A field whose products round their factors."""

    def forward(self, t, y):
        inner = ten_bits(y) @ ten_bits(self.inner.weight).T + self.inner.bias
        hidden = torch.tanh(inner + self.rhythm * torch.sin(3 * t))
        return ten_bits(hidden) @ ten_bits(self.outer.weight).T + self.outer.bias


def redrawn_noise(patch):
    """The noise of the trace's estimate is drawn anew at each evaluation."""
    true = flow.AugmentedField.__call__

    def anew(self, t, state):
        noise = torch.tensor([[HIDDEN.choice((-1.0, 1.0)) for _ in range(2)] for _ in state[0]])
        return true(replace(self, noise=noise.to(state[0])), t, state)

    patch.setattr(flow.AugmentedField, "__call__", anew)
    return ContinuousFlow(Planar(), (2,), RK4, divergence="hutchinson")


class Planar(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(2, 16), nn.Linear(16, 2)

    def forward(self, t, z):
        return self.outer(torch.tanh(3 * self.inner(z) + t))


def likelihood(model, batch):
    return -model.log_prob(batch[0][:, :2]).mean(), {}


def faint_loss(model, batch):
    loss, extra = loss_fn(model, batch)
    return 1e-6 * loss, extra


TIGHT = Adaptive(method="dopri5", rtol=1e-6, atol=1e-6, gradient="replay")
ABSOLUTE = Adaptive(method="dopri5", rtol=1e-2, atol=1e-2, gradient=Adjoint(norm="absolute"))

PLANTED = [
    Planted("a wrong sign", "wrong sign", field_of_the_adjoint(wrong_sign)),
    Planted("a missing parameter", "missing parameter", backward_of_the_adjoint(missing_parameter)),
    Planted("reversed time", "time", field_of_the_adjoint(reversed_time, Late)),
    Planted("a field that changed since the forward solve", "changed field", lambda _: ChangedField()),
    Planted("dropout redrawn", "redrawn", lambda _: Net(RK4, Dropout)),
    Planted("Hutchinson noise redrawn", "redrawn", redrawn_noise, likelihood),
    Planted("a stale buffer", "stale buffer", lambda _: Stale(DOPRI5, Conditioned)),
    Planted("a wrong jump", "wrong jump", backward_of_the_adjoint(wrong_jump)),
    Planted("detached t", "detached", lambda _: LearnedEnd()),
    Planted("half precision inside", "half precision", lambda _: Net(DOPRI5, Half)),
    Planted("TF32 at a tight tolerance", "coarse products", lambda _: Net(TIGHT, Rounded)),
    Planted("a tolerance too loose for the loss's scale", "loose tolerance", lambda _: Net(ABSOLUTE, Wild), faint_loss),
]
