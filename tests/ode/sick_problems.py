"""Forty solves that go wrong, five of each kind, as data.

Those that are `held_out` took no part in choosing the numbers of the rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from odenet_cli.ode import Adaptive, Fixed

DOUBLE, SINGLE = torch.float64, torch.float32


@dataclass(frozen=True)
class Sick:
    """Hold one problem: `make` returns field and y0 anew, as some fields keep a state of their own."""

    name: str
    kind: str
    make: Callable[[], tuple[Any, Any]]
    ts: tuple[float, ...]
    options: dict[str, Any]
    held_out: bool = False

    def solver(self) -> Adaptive | Fixed:
        options = {"method": "dopri5", **self.options}
        if "steps" in options:
            return Fixed(**options)
        return Adaptive(**{"rtol": 1e-4, "atol": options.get("rtol", 1e-4), **options})


def fixed_seed(make):
    """Build under a seed, so that a network has the same weights each time."""

    def seeded():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return make()

    return seeded


def plain(field, *y0, dtype=DOUBLE):
    return lambda: (field, torch.tensor(y0, dtype=dtype))


class Net(nn.Module):
    """A perceptron as a field, its weights multiplied by `gain`."""

    def __init__(self, gain=1.0, decay=0.0, dropout=0.0, bound=True):
        super().__init__()
        last = nn.Linear(16, 2)
        self.net = nn.Sequential(nn.Linear(2, 16), nn.Tanh() if bound else nn.Softplus(), nn.Dropout(dropout), last)
        self.decay = decay
        with torch.no_grad():
            for weight in self.parameters():
                weight *= gain

    def forward(self, t, y):
        return self.net(y) - self.decay * y


def network(batch=8, change=None, dtype=SINGLE, **options):
    @fixed_seed
    def make():
        net, y0 = Net(**options).to(dtype), torch.randn(batch, 2, dtype=dtype)
        return (net, y0) if change is None else change(net, y0)

    return make


# Stiff: the step is held by stability, not by accuracy.


def van_der_pol(mu):
    return lambda t, y: torch.stack([y[1], mu * (1 - y[0] ** 2) * y[1] - y[0]])


def diffusion(n):
    def field(t, y):
        padded = torch.nn.functional.pad(y, (1, 1))
        return (n + 1) ** 2 * (padded[2:] - 2 * y + padded[:-2]) + 1.0

    return lambda: (field, torch.sin(torch.linspace(0, math.pi, n + 2, dtype=DOUBLE)[1:-1]))


def kaps(t, y, eps=1e-3):
    return torch.stack([-(1 / eps + 2) * y[0] + y[1] ** 2 / eps, y[0] - y[1] - y[1] ** 2])


STIFF = [
    ("Prothero-Robinson", plain(lambda t, y: -3e3 * (y - torch.cos(t)) - torch.sin(t), 1.0), (0.0, 2.0), 500, {}),
    ("van der Pol, mu = 100", plain(van_der_pol(100.0), 2.0, 0.0), (0.0, 20.0), 500, {}),
    ("diffusion on 50 points", diffusion(50), (0.0, 0.5), 400, {"rtol": 1e-5}),
    ("network with a strong decay", network(decay=800.0), (0.0, 1.0), 150, {"method": "bosh3", "rtol": 1e-3}),
]
HELD_STIFF = [("Kaps, eps = 1e-3", plain(kaps, 1.0, 1.0), (0.0, 5.0), 500, {})]

# Blow-up: the solution does not live until the last time.


def cubic(net, y0):
    return lambda t, y: (y * y).sum(1, keepdim=True) * y, y0.double() * 0.7


BLOW_UP = [
    ("y' = y^2", plain(lambda t, y: y * y, 1.0), (0.0, 2.0), {}),
    ("y' = -1/y", plain(lambda t, y: -1 / y, 1.0), (0.0, 1.0), {"max_steps": 2000}),
    ("y' = exp(y)", plain(lambda t, y: torch.exp(y), 0.0), (0.0, 3.0), {"method": "dopri8", "rtol": 1e-6}),
    ("cubic growth in a batch", network(change=cubic), (0.0, 4.0), {"method": "tsit5"}),
]
HELD_BLOW_UP = [("growth to overflow", plain(lambda t, y: 60.0 * y, 1.0, 2.0, dtype=SINGLE), (0.0, 4.0), {})]

# Jumps: the field is discontinuous.


def thermostat(t, y):
    return torch.where(y < 0.3, 1.0, 25.0 * torch.ones_like(y))


def held_control():
    """A control held from sample to sample, read from a table in float32."""
    table = torch.tensor([0.0, 3.0, -2.0, 5.0, 1.0, -4.0, 2.0, 0.0])
    return lambda t, y: -y + 50 * table[(t / 0.25).long().clamp(0, 7)], torch.zeros(3)


JUMP = [
    ("one dose", plain(lambda t, y: -y + 1e3 * (t > 0.7), 1.0), (0.0, 2.0), {"rtol": 1e-9, "max_steps": 60}),
    (
        "square wave",
        plain(lambda t, y: -y + torch.sign(torch.sin(20 * t + 0.3)), 0.5),
        (0.0, 2.0),
        {"rtol": 1e-7, "max_steps": 150},
    ),
    (
        "a switch in the state, three samples",
        plain(thermostat, 0.0, 0.1, 0.2),
        (0.0, 1.0),
        {"rtol": 1e-8, "max_steps": 45},
    ),
]
HELD_JUMP = [
    ("a control held between samples", held_control, (0.0, 2.0), {"rtol": 1e-6, "max_steps": 100}),
    (
        "a reversed wave",
        plain(lambda t, y: 100 * (torch.cos(9 * t) > 0) - y, 0.0),
        (2.0, 0.0),
        {"rtol": 1e-8, "max_steps": 120},
    ),
]

# Noise: two evaluations at one point differ.


def redrawn_trace():
    """Hutchinson's estimate of the divergence with a probe redrawn at each evaluation."""
    matrix = torch.tensor([[0.0, 3.0], [-2.0, 0.5]])

    def field(t, y):
        probe = torch.randint(0, 2, y[0].shape).to(y[0]) * 2 - 1
        return y[0] @ matrix.T, ((probe @ matrix) * probe).sum(1)

    return field, (torch.ones(2, 2), torch.zeros(2))


class Counting:
    """A field that changes from call to call."""

    def __init__(self):
        self.calls = 0

    def __call__(self, t, y):
        self.calls += 1
        return -y * (1.0 + 0.3 * (self.calls % 3))


class Masked(nn.Module):
    """Weights of which others are left out at each evaluation, in training mode."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)

    def forward(self, t, y):
        mask = torch.bernoulli(torch.full_like(self.linear.weight, 0.7)) if self.training else 0.7
        return torch.tanh(nn.functional.linear(y, self.linear.weight * mask, self.linear.bias))


NOISE = [
    ("dropout", network(dropout=0.3), (0.0, 1.0), {"rtol": 1e-5}),
    ("white noise", plain(lambda t, y: -y + 0.1 * torch.randn_like(y), 1.0, 2.0), (0.0, 1.0), {"rtol": 1e-6}),
    ("a probe redrawn", redrawn_trace, (0.0, 1.0), {"rtol": 1e-5}),
    ("a count of calls", lambda: (Counting(), torch.ones(2)), (0.0, 1.0), {"rtol": 1e-5}),
]
HELD_NOISE = [("weights masked anew", fixed_seed(lambda: (Masked(), torch.ones(4, 2))), (0.0, 1.0), {"rtol": 1e-5})]

# Resolution: the dtype does not see what the tolerance asks for.

RESOLUTION = [
    ("1e-9 in float32", plain(lambda t, y: -y, 1.0, dtype=SINGLE), (0.0, 1.0), {"rtol": 1e-9}),
    (
        "cancellation in float32",
        plain(lambda t, y: 20 * torch.cos(9 * t) * ((y + 3e4) - 3e4), 1.0, dtype=SINGLE),
        (0.0, 2.0),
        {"rtol": 1e-6},
    ),
    (
        "a time far from 0 in float32",
        plain(lambda t, y: -y * torch.sin(t), 1.0, dtype=SINGLE),
        (3e5, 3e5 + 6.0),
        {"rtol": 1e-6},
    ),
    ("1e-5 in bfloat16", network(dtype=torch.bfloat16), (0.0, 1.0), {"rtol": 1e-5}),
]
HELD_RESOLUTION = [
    (
        "an angle of many turns in float32",
        plain(lambda t, y: torch.stack([200 + torch.cos(y[0]), torch.sin(y[0]) - y[1]]), 1e5, 0.0, dtype=SINGLE),
        (0.0, 2.0),
        {"rtol": 0.0, "atol": 1e-5, "max_steps": 4000},
    )
]

# Scale: the tolerance does not fit the size of the numbers.


def oscillators(t, y):
    """(..., 4): two oscillators, of which the second is far smaller."""
    return torch.stack([y[1], -y[0], y[3], -25 * y[2]])


def emptying(t, y):
    """Torricelli's law: the tanks are empty at t = sqrt(y0), and stay so."""
    return -2 * torch.sqrt(torch.relu(y))


SCALE = [
    ("a component of 1e-9", plain(oscillators, 1.0, 0.0, 1e-9, 0.0), (0.0, 10.0), {}),
    ("a state of 1e-7", plain(lambda t, y: -5 * torch.sin(9 * t) * y, 1e-7, 2e-7), (0.0, 4.0), {}),
    ("atol 0 at a component of 0", plain(lambda t, y: torch.stack([y[1], -y[0]]), 0.0, 1.0), (0.0, 3.0), {"atol": 0.0}),
    ("atol 0 in emptying tanks", plain(emptying, 1.0, 1.5, 2.0), (0.0, 3.0), {"rtol": 1e-6, "atol": 0.0}),
]
HELD_SCALE = [
    (
        "rtol 0 at a component of 1e7",
        plain(lambda t, y: torch.stack([1e7 * torch.cos(7 * t), y[0] * 1e-7 - y[1]]), 1e7, 1.0),
        (0.0, 10.0),
        {"rtol": 0.0, "atol": 1e-6, "max_steps": 300},
    )
]

# Step limit: all is well, and more steps are needed.


def two_body(t, y):
    return torch.cat([y[2:], -y[:2] / y[:2].norm() ** 3])


LIMIT = [
    ("20 steps for van der Pol", plain(van_der_pol(1.0), 2.0, 0.0), (0.0, 20.0), {"max_steps": 20}),
    (
        "an orbit of eccentricity 0.9",
        plain(two_body, 0.1, 0.0, 0.0, math.sqrt(19.0)),
        (0.0, 20.0),
        {"rtol": 1e-8, "max_steps": 200},
    ),
    (
        "a fast oscillator",
        plain(lambda t, y: torch.stack([200 * y[1], -200 * y[0]]), 1.0, 0.0),
        (0.0, 10.0),
        {"max_steps": 500},
    ),
    (
        "a least step too long",
        plain(lambda t, y: torch.cos(40 * t) * y * 20, 1.0),
        (0.0, 2.0),
        {"rtol": 1e-8, "min_step": 0.05},
    ),
]
HELD_LIMIT = [
    ("a longest step too short", plain(van_der_pol(1.0), 2.0, 0.0), (0.0, 20.0), {"max_step": 2e-3, "max_steps": 1000})
]

# Optimiser: weights or state are beyond use, and the solver is not the cause.


def spoil(name, value):
    def change(net, y0):
        with torch.no_grad():
            dict(net.named_parameters())[name].view(-1)[0] = value
        return net, y0

    return change


def spoil_state(net, y0):
    y0[3, 1] = math.nan
    return net, y0


OPTIMISER = [
    ("weights a thousandfold", network(gain=1e3), (0.0, 1.0), {"max_steps": 300}),
    ("a start that is NaN", network(change=spoil_state), (0.0, 1.0), {}),
    ("weights that grow without bound", network(gain=300.0, bound=False), (0.0, 1.0), {"max_steps": 300}),
]
HELD_OPTIMISER = [
    ("a bias is infinite", network(change=spoil("net.3.bias", math.inf)), (0.0, 1.0), {}),
    ("weights 400-fold, fixed steps", network(gain=400.0, bound=False), (0.0, 1.0), {"method": "rk4", "steps": 20}),
]


def listed():
    for rows, held in ((STIFF, False), (HELD_STIFF, True)):
        for name, make, ts, max_steps, options in rows:
            yield Sick(name, "stiff", make, ts, {"max_steps": max_steps, **options}, held)
    kinds = {
        "blow_up": (BLOW_UP, HELD_BLOW_UP),
        "jump": (JUMP, HELD_JUMP),
        "noise": (NOISE, HELD_NOISE),
        "resolution": (RESOLUTION, HELD_RESOLUTION),
        "scale": (SCALE, HELD_SCALE),
        "step_limit": (LIMIT, HELD_LIMIT),
        "optimiser": (OPTIMISER, HELD_OPTIMISER),
    }
    for kind, groups in kinds.items():
        for rows, held in zip(groups, (False, True)):
            for name, make, ts, options in rows:
                limit = {} if "steps" in options else {"max_steps": 1000}
                yield Sick(name, kind, make, ts, {**limit, **options}, held)


PROBLEMS = list(listed())
