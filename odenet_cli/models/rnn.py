"""Recurrent network that predicts the next observation (the baseline of Chen et al. 2018, table 2)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from odenet_cli.models.common import check_choice, check_counts
from odenet_cli.models.common.control import Control
from odenet_cli.models.common.series import (
    Forecast,
    count_controls,
    gather_times,
    has_missing,
    interpolate,
    network_inputs,
    recurrent_layer,
    series_features,
    stratified_normal,
)
from odenet_cli.models.common.warn_once import WarnOnce

MAX_FREE_STEPS = 1000  # beyond the window, or the number of target times if larger: the mean gap may be very small
PACES = ("gap", "time")
CUT = (
    "A free run of %s steps, each as long as a series' observations are apart, does not reach its last time to "
    "predict; after them the prediction stays constant. model.pace=time takes longer steps."
)


class RNN(nn.Module):
    """times (B, N), values (B, N, D), observed_mask (B, N), target_times (B, M) -> `Forecast`.

    Each observation is predicted from the previous ones, and from the controls at the previous and at its own time
    (without controls: None). Beyond the window the network reads its own predictions (a free run); between predictions
    the path is a straight line.

    hidden  units of the recurrent layer; `cell` is its kind
    pace    length of a step of a free run. gap: the mean gap between the observations, for which the network was
            trained; time: up to the next target time, however close
    """

    reads_gaps: ClassVar = False  # whether the time to the next observation is an input

    def __init__(self, shape: tuple[int, ...], classes: int, *, hidden: int, cell: str, pace: str) -> None:
        super().__init__()
        check_counts(hidden=hidden)
        inputs = series_features(shape, classes)
        check_choice("pace", pace, PACES)
        self.pace, self.masked, self.warn = pace, has_missing(shape), WarnOnce()
        self.start = nn.Parameter(torch.zeros(hidden))
        read = inputs * (1 + self.masked) + self.reads_gaps + 2 * count_controls(shape)
        self.cell = recurrent_layer(cell, read, hidden)
        self.head = nn.Linear(hidden, 2 * inputs)

    def forecast(
        self,
        times: Tensor,
        values: Tensor,
        observed_mask: Tensor,
        target_times: Tensor | None = None,
        control: tuple[Tensor, Tensor] | None = None,
    ) -> Forecast:
        """Predict each observation, and the path at the target times if there are any."""
        u = control and Control(*control)
        predicted = self.one_step(times, values, u)
        path = None
        if target_times is not None:
            knots, path, _ = self.path(times, values, observed_mask, target_times, predicted, u)
            path = interpolate(knots, path, target_times)
        return Forecast(mean=predicted[0], spread=predicted[1], path=path)

    def draw(
        self,
        times: Tensor,
        values: Tensor,
        observed_mask: Tensor,
        target_times: Tensor,
        count: int,
        generator: torch.Generator,
        control: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Draw future observations at the target times (B, M), given the observations: (count, B, M, D)."""
        batch, targets = len(times), target_times.repeat(count, 1)
        # Each of the `count` futures draws its own free run, so the whole batch is repeated.
        times, observed_mask = times.repeat(count, 1), observed_mask.repeat(count, 1)
        values = values.repeat(count, 1, 1)
        u = control and Control(*control).repeat(count)
        predicted = self.one_step(times, values, u)
        knots, *both = self.path(times, values, observed_mask, targets, predicted, u, generator)
        mean, spread = (interpolate(knots, part, targets) for part in both)
        mean, spread = (part.view(count, batch, *part.shape[1:]) for part in (mean, spread))
        return mean + spread * stratified_normal(mean, generator)

    def one_step(self, times: Tensor, values: Tensor, control: Control | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Return mean and standard deviation of each observation given the previous ones, and the states after it."""
        start = self.start.expand(1, len(times), -1).contiguous()
        gaps = times.diff(dim=1, append=times[:, -1:])
        states, _ = self.cell(self.inputs(values, gaps, times, control), start)
        mean, log_sd = self.head(torch.cat((start.transpose(0, 1), states[:, :-1]), 1)).chunk(2, 2)
        return mean, spread_of(log_sd), states

    def inputs(self, values: Tensor, gaps: Tensor, times: Tensor, control: Control | None) -> Tensor:
        """Return the network's inputs (B, K, ·) at `times`, from which it predicts the observations `gaps` later."""
        known = [] if control is None else [control.at(times), control.at(times + gaps)]
        return torch.cat(
            (network_inputs(values, self.masked), *([gaps[..., None]] if self.reads_gaps else []), *known), 2
        )

    def path(
        self,
        times: Tensor,
        values: Tensor,
        observed_mask: Tensor,
        target_times: Tensor,
        predicted: tuple[Tensor, Tensor, Tensor],
        control: Control | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return times (B, K) up to the last target, the predictions and their spread; the first is an observation.

        predicted  the result of `one_step`
        generator  for the draws with which a free run continues; None: it continues with its means
        """
        mean, spread, states = predicted
        last = observed_mask.sum(1, keepdim=True) - 1
        end, value = times.gather(1, last), gather_times(values, last)
        remaining = (target_times.amax(1, keepdim=True) - end).clamp_min(0)  # a series may end within its window
        gap = remaining / (target_times > end).sum(1, keepdim=True).clamp_min(1)
        if self.pace == "gap":  # undefined for a single observation
            gap = torch.where(last > 0, (end - times[:, :1]) / last.clamp_min(1), gap)

        # Knots of the path: inside the window the one-step predictions, with padding moved to the last of them …
        mean = torch.cat((values[:, :1].nan_to_num(), mean[:, 1:]), 1)
        knots = [times.where(observed_mask, end)]
        path, spreads = ([part.where(observed_mask[..., None], gather_times(part, last))] for part in (mean, spread))

        # … and beyond it the free run, whose first input is the last observation: it starts from the state before that,
        # which for a single observation is the initial state of every series.
        before = gather_times(states, (last - 1).clamp_min(0))
        state = torch.where((last > 0)[..., None], before, self.start).transpose(0, 1).contiguous()
        steps = int((remaining / gap.clamp_min(1e-12) - 1e-3).ceil().amax())
        most = max(MAX_FREE_STEPS, target_times.shape[1])
        if steps > most:
            self.warn(CUT, f"{most:,}")
        for step in range(1, min(steps, most) + 1):
            output, state = self.cell(self.inputs(value, gap, end + (step - 1) * gap, control), state)
            value, log_sd = self.head(output).chunk(2, 2)
            knots.append(end + step * gap)
            path.append(value)
            spreads.append(spread_of(log_sd))
            if generator is not None:
                value = value + spreads[-1] * torch.randn(value.shape, generator=generator).to(value)
        return torch.cat(knots, 1), torch.cat(path, 1), torch.cat(spreads, 1)


def spread_of(log_sd: Tensor) -> Tensor:
    """Return the standard deviation predicted by a network, clamped to bounds."""
    return log_sd.clamp(-5, 3).exp()


MODEL = RNN
