"""Fit the four rates of Lotka & Volterra's equations to noisy observations: python fit_lotka_volterra.py [FIGURE]"""

import sys

import matplotlib.pyplot as plt
import torch
from torch import nn

from odenet_cli.ode import Adaptive

TRUE = torch.tensor([1.1, 0.4, 0.1, 0.4])


class LotkaVolterra(nn.Module):
    """Hold the logarithms of the rates: prey grows and is eaten, predators grow by eating and die."""

    def __init__(self, rates):
        super().__init__()
        self.log_rates = nn.Parameter(rates.log())

    def forward(self, t, y):
        growth, eaten, gain, death = self.log_rates.exp()
        prey, predators = y
        return torch.stack([growth * prey - eaten * prey * predators, gain * prey * predators - death * predators])


def main(figure="fit_lotka_volterra.png"):
    torch.manual_seed(0)
    # `replay` gives the exact gradient of the steps taken and keeps one state a step.
    solver = Adaptive(method="tsit5", rtol=1e-4, atol=1e-4, gradient="replay")
    y0, ts = torch.tensor([10.0, 5.0]), torch.linspace(0, 15, 40)
    with torch.no_grad():
        truth = solver(LotkaVolterra(TRUE), y0, ts).y
    observed = truth * (1 + 0.05 * torch.randn_like(truth))

    model = LotkaVolterra(torch.full((4,), 0.5))
    # Fit the first observations first: while the rates are wrong, a far horizon has many local minima.
    for horizon in (8, 20, 40):
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=25, line_search_fn="strong_wolfe")

        def loss(horizon=horizon, optimizer=optimizer):
            optimizer.zero_grad()
            error = (solver(model, y0, ts[:horizon]).y.log() - observed[:horizon].log()).square().mean()
            error.backward()
            return error

        optimizer.step(loss)
    rates = model.log_rates.detach().exp()
    print("true  ", TRUE.tolist())
    print("fitted", [round(float(rate), 3) for rate in rates])

    with torch.no_grad():
        fitted = solver(model, y0, ts).y
    plt.figure(figsize=(7, 4), layout="constrained")
    for i, name in enumerate(("prey", "predators")):
        plt.plot(ts, observed[:, i], f"C{i}.", label=f"{name}, observed")
        plt.plot(ts, fitted[:, i], f"C{i}", label=f"{name}, fitted")
    plt.xlabel("time")
    plt.legend()
    plt.savefig(figure)
    return rates


if __name__ == "__main__":
    main(*sys.argv[1:])
