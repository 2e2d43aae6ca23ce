"""The recurrent network of `rnn`, also given the time until the next observation (Chen et al. 2018, section 5.1)."""

from __future__ import annotations

from typing import ClassVar

from odenet_cli.models.rnn import RNN


class TimedRNN(RNN):
    """Predict the next observation from the previous ones and the time until it."""

    reads_gaps: ClassVar = True


MODEL = TimedRNN
