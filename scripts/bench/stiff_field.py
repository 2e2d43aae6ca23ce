"""A stiff vector field for scripts/bench/tune.py: each channel decays to a convolution of all, at rates of 1 to 100."""

import torch
from torch import nn


class Stiff(nn.Module):
    """Evaluate rate (tanh(conv(y)) - y); the state y is (B, C, H, W)."""

    def __init__(self, shape):
        super().__init__()
        self.conv = nn.Conv2d(shape[0], shape[0], 3, padding=1)
        self.register_buffer("rate", torch.logspace(0, 2, shape[0]).reshape(-1, 1, 1))

    def forward(self, t, y):
        return self.rate * (torch.tanh(self.conv(y)) - y)
