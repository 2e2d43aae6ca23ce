"""What models of time series share: the forecast they make, small networks, the encoder, times in common."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

CELLS = {"rnn": nn.RNN, "gru": nn.GRU}


class Forecast(NamedTuple):
    """What a model of series says of a batch: observations are Gaussian around `mean`.

    mean    (B, N, D)  at the observations
    spread  (…)        their standard deviation, of any shape that fits `mean`
    kl      (B,)       KL(q(z0) ‖ p(z0)); None for a model without a latent variable
    weight  what the loss counts it for
    path    (B, M, D)  the best guess at the times `at`; None where none were asked for
    """

    mean: Tensor
    spread: Tensor
    kl: Tensor | None = None
    weight: Tensor | float = 1.0
    path: Tensor | None = None


def perceptron(inputs: int, hidden: int, layers: int, outputs: int, kind: type[nn.Module]) -> nn.Sequential:
    """`layers` hidden layers of one width."""
    inner = [part for n in range(layers) for part in (nn.Linear(hidden if n else inputs, hidden), kind())]
    return nn.Sequential(*inner, nn.Linear(hidden, outputs))


def at_least_one(**options: int) -> None:
    """Refuse counts below 1, by the names of their options."""
    for name, value in options.items():
        if value < 1:
            raise ValueError(f"model.{name}={value} must be at least 1.")


def features(shape: tuple[int, ...], classes: int) -> int:
    """Numbers of one observation; refuses data that are no series."""
    if len(shape) != 1 or classes:
        raise ValueError(
            f"this model is for time series, and the data are {shape} with {classes} classes: data=spirals."
        )
    return shape[0]


def recurrent(name: str, inputs: int, hidden: int) -> nn.RNN | nn.GRU:
    """A recurrent layer, batch first. torch projects the inputs of all times by one product, then steps."""
    if name not in CELLS:
        raise ValueError(f"model.cell={name} is not known. There are: {', '.join(CELLS)}.")
    layer: nn.RNN | nn.GRU = CELLS[name](inputs, hidden, batch_first=True)
    return layer


class Recognition(nn.Module):
    """q(z0 | x): a recurrent network run backwards over the observations, to the mean and log σ of z0.

    times (B, N), values (B, N, D), observed_mask (B, N) -> (B, L), (B, L)

    With each observation it sees the time since the one before it, or since 0. Padding stands behind, so once turned
    it comes last, after the state that is read.
    """

    def __init__(self, features: int, hidden: int, latent: int, kind: str) -> None:
        super().__init__()
        self.cell = recurrent(kind, features + 1, hidden)
        self.head = nn.Linear(hidden, 2 * latent)

    def forward(self, times: Tensor, values: Tensor, observed_mask: Tensor) -> tuple[Tensor, Tensor]:
        since = times.diff(dim=1, prepend=torch.zeros_like(times[:, :1]))
        last = observed_mask.sum(1, keepdim=True) - 1
        turned = (last - torch.arange(times.shape[1], device=times.device)).clamp_min(0)
        states, _ = self.cell(picked(torch.cat((values, since[..., None]), 2), turned))
        mean, log_spread = self.head(picked(states, last).squeeze(1)).chunk(2, 1)
        return mean, log_spread


def common(*times: Tensor) -> tuple[list[float], list[Tensor]]:
    """All times that occur, rising, and where each of them stands: (B, N) -> (B, N) each."""
    found, place = torch.unique(torch.cat([part.flatten() for part in times]), return_inverse=True)
    places = place.split([part.numel() for part in times])
    return found.tolist(), [where.view_as(part) for where, part in zip(places, times)]


def picked(states: Tensor, places: Tensor) -> Tensor:
    """Of states (B, T, L) those at each sample's own `places` (B, N): (B, N, L)."""
    return states.gather(1, places[..., None].expand(-1, -1, states.shape[2]))


def divergence(mean: Tensor, log_spread: Tensor) -> Tensor:
    """KL(N(mean, spread²) ‖ N(0, I)), summed over the last dimension."""
    return 0.5 * (mean.square() + (2 * log_spread).exp() - 1 - 2 * log_spread).sum(-1)


def interpolated(times: Tensor, values: Tensor, at: Tensor) -> Tensor:
    """Straight lines through values (B, K, D) at rising times (B, K), read at (B, M), constant outside: (B, M, D)."""
    right = torch.searchsorted(times, at.contiguous()).clamp(1, times.shape[1] - 1)
    t0, t1 = times.gather(1, right - 1), times.gather(1, right)
    share = ((at - t0) / (t1 - t0).clamp_min(1e-12)).clamp(0, 1)[..., None]
    y0, y1 = picked(values, right - 1), picked(values, right)
    return y0 + share * (y1 - y0)
