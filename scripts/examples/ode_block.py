"""Put an ODE block into a classifier of your own: python ode_block.py [FIGURE]"""

import sys

import matplotlib.pyplot as plt
import torch
from sklearn.datasets import load_digits
from torch import nn

from odenet_cli.ode import Adaptive, tally


class Field(nn.Module):
    """dy/dt = W2 tanh(W1 y + t w + b), y (B, width)."""

    def __init__(self, width, hidden):
        super().__init__()
        self.inner, self.outer = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.drift = nn.Parameter(torch.zeros(hidden))

    def forward(self, t, y):
        return self.outer(torch.tanh(self.inner(y) + t * self.drift))


class ODEBlock(nn.Module):
    """y (B, width) -> the same at t = 1."""

    def __init__(self, field, solver):
        super().__init__()
        self.field, self.solver = field, solver

    def forward(self, y):
        return self.solver(self.field, y, [0.0, 1.0]).y


def main(figure="ode_block.png"):
    torch.manual_seed(0)
    pixels, labels = load_digits(return_X_y=True)
    x, labels = torch.tensor(pixels, dtype=torch.float32) / 16, torch.tensor(labels)
    block = ODEBlock(Field(32, 64), Adaptive(method="dopri5", rtol=1e-3, atol=1e-3, gradient="adjoint"))
    model = nn.Sequential(nn.Linear(64, 32), block, nn.Linear(32, 10))
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

    evaluations = []
    for _ in range(20):
        for batch in torch.randperm(1437).split(64):
            with tally() as solves:  # counts every solve begun inside, backward solves too
                loss = nn.functional.cross_entropy(model(x[batch]), labels[batch])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            evaluations.append((solves[0].nfe_forward, solves[0].nfe_backward))
    with torch.no_grad():
        error = float((model(x[1437:]).argmax(1) != labels[1437:]).float().mean())
    print(f"error on the last 360 digits: {error:.1%}")

    plt.figure(figsize=(7, 4), layout="constrained")
    plt.plot(evaluations, label=("forward", "backward"))
    plt.gca().set(xlabel="optimiser step", ylabel="function evaluations")
    plt.legend()
    plt.savefig(figure)
    return error


if __name__ == "__main__":
    main(*sys.argv[1:])
