"""Parts of models of time series: the forecast they return, small networks, the encoder, states at times."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from odenet_cli.models.common import check_choice
from odenet_cli.models.common.control import Control

CELLS = {"rnn": nn.RNN, "gru": nn.GRU}


class Forecast(NamedTuple):
    """Hold the predictions of a series model for a batch; observations are Gaussian around `mean`.

    mean    (B, N, D)  at the observations
    spread  (…)        their standard deviation, broadcast to `mean`
    kl      (B,)       KL(q(z0) ‖ p(z0)); None for a model without a latent variable
    weight             of the KL divergence in the loss
    path    (B, M, D)  the prediction at the target times; None without target times
    """

    mean: Tensor
    spread: Tensor
    kl: Tensor | None = None
    weight: Tensor | float = 1.0
    path: Tensor | None = None


def perceptron(inputs: int, hidden: int, layers: int, outputs: int, activation: type[nn.Module]) -> nn.Sequential:
    """Return a perceptron with `layers` hidden layers of `hidden` units each."""
    inner = [part for n in range(layers) for part in (nn.Linear(hidden if n else inputs, hidden), activation())]
    return nn.Sequential(*inner, nn.Linear(hidden, outputs))


def series_features(shape: tuple[int, ...], classes: int, controlled: bool = True) -> int:
    """Return the number of features of one observation; raise ValueError for data other than series.

    controlled  the model takes controls
    """
    series = len(shape) == 1 or has_missing(shape) or count_controls(shape)
    if not series or classes or (count_controls(shape) and not controlled):
        raise ValueError(
            f"this model is for time series, and the data are {shape} with {classes} classes: data=spirals."
        )
    return shape[0] if len(shape) == 1 else shape[1]


def has_missing(shape: tuple[int, ...]) -> bool:
    """Return whether values of the data may be missing (NaN): their shape is (2, D), values and mask."""
    return len(shape) in (2, 3) and shape[0] == 2


def count_controls(shape: tuple[int, ...]) -> int:
    """Return the number of controls of the data, whose shape is (1 or 2, D, controls)."""
    return shape[2] if len(shape) == 3 and shape[0] in (1, 2) else 0


def network_inputs(values: Tensor, masked: bool) -> Tensor:
    """Return values (…, D) with missing ones replaced by the mean, 0; if `masked` followed by the mask: (…, 2D).

    As in Rubanova, Chen & Duvenaud, "Latent ODEs for irregularly-sampled time series" (2019), section 4.
    """
    filled = values.nan_to_num()
    return torch.cat((filled, (~values.isnan()).to(values)), -1) if masked else filled


def recurrent_layer(name: str, inputs: int, hidden: int) -> nn.RNN | nn.GRU:
    """Return a recurrent layer, batch first. torch projects the inputs of all times by one matrix product."""
    check_choice("cell", name, CELLS)
    return CELLS[name](inputs, hidden, batch_first=True)


class Recognition(nn.Module):
    """Compute the mean and log σ of q(z0 | x) by a recurrent network that reads the observations backward.

    times (B, N), values (B, N, D), observed_mask (B, N) -> (B, L), (B, L)

    With each observation it reads the time since the previous one, or since 0, the mask of the values if `masked`, and
    the `controls` at that time. In reverse order, repetitions of the first observation replace the padding; they come
    last, after the state that is used.
    """

    def __init__(
        self, features: int, hidden: int, latent: int, kind: str, masked: bool = False, controls: int = 0
    ) -> None:
        super().__init__()
        self.masked = masked
        self.cell = recurrent_layer(kind, features * (1 + masked) + 1 + controls, hidden)
        self.head = nn.Linear(hidden, 2 * latent)

    def forward(
        self, times: Tensor, values: Tensor, observed_mask: Tensor, control: Control | None = None
    ) -> tuple[Tensor, Tensor]:
        since = times.diff(dim=1, prepend=torch.zeros_like(times[:, :1]))
        read = [network_inputs(values, self.masked), since[..., None], *([control.at(times)] if control else [])]
        # From the last observation to the first: the state after the first one depends on all of them.
        last = observed_mask.sum(1, keepdim=True) - 1
        reverse = (last - torch.arange(times.shape[1], device=times.device)).clamp_min(0)
        states, _ = self.cell(gather_times(torch.cat(read, 2), reverse))
        mean, log_sd = self.head(gather_times(states, last).squeeze(1)).chunk(2, 1)
        return mean, log_sd


def gather_times(states: Tensor, index: Tensor) -> Tensor:
    """Return the states (B, T, L) at each sample's own time indices (B, N): (B, N, L)."""
    return states.gather(1, index[..., None].expand(-1, -1, states.shape[2]))


def kl_to_standard_normal(mean: Tensor, log_sd: Tensor) -> Tensor:
    """Return KL(N(mean, sd²) ‖ N(0, I)), summed over the last dimension."""
    return 0.5 * (mean.square() + (2 * log_sd).exp() - 1 - 2 * log_sd).sum(-1)


def stratified_normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """Return stratified normal noise of the shape of `like` (count, *S): along the first dimension, one number from
    each of `count` intervals of equal probability, so that the mean is 0 and the quantiles hardly vary."""
    # A random permutation for each number: sample i takes the normal quantile at (rank + 1/2) / count.
    rank = torch.rand(like.shape, generator=generator).argsort(0)
    return torch.special.ndtri((rank.to(torch.float64) + 0.5) / len(like)).to(like)


def interpolate(times: Tensor, values: Tensor, t: Tensor) -> Tensor:
    """Interpolate values (B, K, D) at increasing times (B, K) linearly at t (B, M), constant outside: (B, M, D)."""
    if times.shape[1] == 1:
        return values.expand(-1, t.shape[1], -1)
    right = torch.searchsorted(times, t.contiguous()).clamp(1, times.shape[1] - 1)
    t0, t1 = times.gather(1, right - 1), times.gather(1, right)
    share = ((t - t0) / (t1 - t0).clamp_min(1e-12)).clamp(0, 1)[..., None]
    y0, y1 = gather_times(values, right - 1), gather_times(values, right)
    return y0 + share * (y1 - y0)
