"""Fit a continuous normalising flow to points of your own: python flow_on_points.py [FIGURE]"""

import sys

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from torch import nn

from odenet_cli.models.cnf import ContinuousFlow
from odenet_cli.ode import Adaptive


def my_points(n):
    """Return n points (n, 2) on a ring with three bumps; put your own table here, scaled to about unit size."""
    angle = 2 * torch.pi * torch.rand(n)
    radius = 1.5 + 0.4 * torch.cos(3 * angle) + 0.08 * torch.randn(n)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


class Field(nn.Module):
    """dz/dt = W3 tanh(W2 tanh(W1 [z, t])), z (B, 2)."""

    def __init__(self, hidden):
        super().__init__()
        layers = [nn.Linear(3, hidden), nn.Tanh(), nn.Linear(hidden, hidden), nn.Tanh(), nn.Linear(hidden, 2)]
        self.net = nn.Sequential(*layers)

    def forward(self, t, z):
        return self.net(F.pad(z, (0, 1), value=1.0) * torch.stack([t**0, t**0, t]))


def main(figure="flow_on_points.png", steps=400):
    torch.manual_seed(0)
    points = my_points(4000)
    solver = Adaptive(method="tsit5", rtol=1e-3, atol=1e-3, gradient="backprop")
    flow = ContinuousFlow(Field(48), (2,), solver, divergence="exact")
    optimizer = torch.optim.Adam(flow.parameters(), lr=5e-3)
    for step in range(int(steps)):
        loss = -flow.log_prob(points[torch.randint(len(points), (256,))]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step}: {loss:.3f} nat a point")

    _, axes = plt.subplots(1, 4, figsize=(12, 3), sharex=True, sharey=True, layout="constrained")
    particles = flow.flow(torch.randn(2000, 2), [1 / 3, 2 / 3, 1.0])
    for axis, cloud, title in zip(axes, [points[:2000], *particles], ["the points", "t = 1/3", "t = 2/3", "t = 1"]):
        axis.plot(*cloud.T, ",")
        axis.set(title=title, xlim=(-3, 3), ylim=(-3, 3), aspect="equal")
    plt.savefig(figure, dpi=120)
    return loss.item()


if __name__ == "__main__":
    main(*sys.argv[1:])
