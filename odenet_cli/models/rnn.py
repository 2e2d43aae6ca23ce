"""Recurrent network that predicts the next observation (the baseline of Chen et al. 2018, table 2)."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from odenet_cli.models.common.series import Forecast, at_least_one, features, interpolated, picked, recurrent

LONGEST = 1000  # steps of a free run
PACES = ("gap", "time")


class RNN(nn.Module):
    """times (B, N), values (B, N, D), observed_mask (B, N), at (B, M) -> `Forecast`: each from those before it.

    Beyond the window it feeds on its own predictions; between them, and between the one-step predictions inside the
    window, the path is a straight line.

    hidden  units of the recurrent layer, `cell` its kind
    pace    how far on a step of a free run is. gap: as far as the observations were apart on average, which is what the
            network was trained to do; time: to the next of the times to predict, however close
    """

    differences: ClassVar = False  # are the times until the next observation told to it?

    def __init__(self, shape: tuple[int, ...], classes: int, *, hidden: int, cell: str, pace: str) -> None:
        super().__init__()
        at_least_one(hidden=hidden)
        inputs = features(shape, classes)
        if pace not in PACES:
            raise ValueError(f"model.pace={pace} is not known. There are: {', '.join(PACES)}.")
        self.pace = pace
        self.start = nn.Parameter(torch.zeros(hidden))
        self.cell = recurrent(cell, inputs + self.differences, hidden)
        self.head = nn.Linear(hidden, 2 * inputs)

    def forecast(self, times: Tensor, values: Tensor, observed_mask: Tensor, at: Tensor | None = None) -> Forecast:
        start = self.start.expand(1, len(times), -1).contiguous()
        gaps = times.diff(dim=1, append=times[:, -1:])
        states, _ = self.cell(self.inputs(values, gaps), start)
        mean, log_spread = self.head(torch.cat((start.transpose(0, 1), states[:, :-1]), 1)).chunk(2, 2)
        path = None if at is None else self.path(times, values, observed_mask, at, mean, states)
        return Forecast(mean=mean, spread=log_spread.clamp(-5, 3).exp(), path=path)

    def inputs(self, values: Tensor, gaps: Tensor) -> Tensor:
        return torch.cat((values, gaps[..., None]), 2) if self.differences else values

    def path(
        self, times: Tensor, values: Tensor, observed_mask: Tensor, at: Tensor, mean: Tensor, states: Tensor
    ) -> Tensor:
        """The predictions at the times `at`; before the first of them, the first observation."""
        last = observed_mask.sum(1, keepdim=True) - 1
        end, value = times.gather(1, last), picked(values, last)
        ahead = at.amax(1, keepdim=True) - end
        gap = ahead / (at > end).sum(1, keepdim=True).clamp_min(1)
        if self.pace == "gap":  # that a single observation has not
            gap = torch.where(last > 0, (end - times[:, :1]) / last.clamp_min(1), gap)

        # Knots in the window, those behind the last observation drawn together in it.
        inside = torch.cat((values[:, :1], mean[:, 1:]), 1)
        knots, found = [times.where(observed_mask, end)], [inside.where(observed_mask[..., None], picked(inside, last))]

        before = picked(states, (last - 1).clamp_min(0))
        state = torch.where((last > 0)[..., None], before, self.start).transpose(0, 1).contiguous()
        steps = int((ahead / gap.clamp_min(1e-12) - 1e-3).ceil().amax().clamp(0, LONGEST))
        for step in range(1, steps + 1):
            made, state = self.cell(self.inputs(value, gap), state)
            value = self.head(made).chunk(2, 2)[0]
            knots.append(end + step * gap)
            found.append(value)
        return interpolated(torch.cat(knots, 1), torch.cat(found, 1), at)


MODEL = RNN
