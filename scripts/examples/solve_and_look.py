"""Solve the Van der Pol oscillator, and look at the steps that its solver took: python solve_and_look.py [FIGURE]"""

import sys

import matplotlib.pyplot as plt
import torch

from odenet_cli.ode import Adaptive

MU = 5.0


def van_der_pol(t, y):
    """Return dy/dt of y = (position, velocity)."""
    position, velocity = y
    return torch.stack([velocity, MU * (1 - position**2) * velocity - position])


def main(figure="solve_and_look.png"):
    y0 = torch.tensor([2.0, 0.0], dtype=torch.float64)
    solver = Adaptive(method="dopri5", rtol=1e-6, atol=1e-6)

    # The state at times of your choice, and what it cost.
    y, stats = solver(van_der_pol, y0, [0.0, 5.0, 20.0])
    print(f"y(20) = {y[-1].tolist()}: {stats.nfe_forward} function evaluations, {stats.accepted} steps accepted")

    # The solution as a function of time; `ends` are the times at which steps began and ended.
    path = solver.dense(van_der_pol, y0, [0.0, 20.0])
    t = torch.linspace(0, 20, 1000, dtype=torch.float64)
    ends = torch.tensor(path.ends, dtype=torch.float64)

    fig, (above, below) = plt.subplots(2, 1, sharex=True, figsize=(7, 5), layout="constrained")
    above.plot(t, path(t)[:, 0])
    above.plot(ends, path(ends)[:, 0], ".")
    above.set_ylabel("position; a dot ends a step")
    below.semilogy(ends[:-1], ends.diff(), drawstyle="steps-post")
    below.set(xlabel="t", ylabel="step size")
    fig.savefig(figure)
    return stats


if __name__ == "__main__":
    main(*sys.argv[1:])
