"""Use a Runge-Kutta method of your own, from its tableau: python own_solver.py [FIGURE]"""

import math
import sys

import matplotlib.pyplot as plt
import torch

from odenet_cli.ode import Fixed, Tableau

# As a book prints it; fractions stay exact. A file in odenet_cli/ode/methods/ gives it a name on the command line.
SSPRK3 = Tableau.parse(
    """
      0  |
      1  |  1
     1/2 | 1/4   1/4
    -----+----------------
      b  | 1/6   1/6   2/3
    """,
    order=3,
)
STEPS = (5, 10, 20, 40, 80)


def spiral(t, y):
    """Return dy/dt of a damped rotation, y (2,)."""
    return torch.stack([-0.1 * y[0] - y[1], y[0] - 0.1 * y[1]])


def main(figure="own_solver.png"):
    y0 = torch.tensor([1.0, 0.0], dtype=torch.float64)
    exact = math.exp(-0.1 * 5) * torch.tensor([math.cos(5.0), math.sin(5.0)], dtype=torch.float64)

    plt.figure(figsize=(6, 4), layout="constrained")
    slopes = {}
    for name, method in (("own: SSPRK3", SSPRK3), ("midpoint", "midpoint"), ("rk4", "rk4")):
        errors = [(Fixed(method=method, steps=n)(spiral, y0, [0.0, 5.0]).y - exact).norm() for n in STEPS]
        slopes[name] = math.log2(errors[-2] / errors[-1])
        print(f"{name}: halving the step divides the error by 2^{slopes[name]:.2f}")
        plt.loglog([5 / n for n in STEPS], errors, "o-", label=f"{name}, order {slopes[name]:.1f}")
    plt.xlabel("step size")
    plt.ylabel("error at t = 5")
    plt.legend()
    plt.savefig(figure)
    return slopes


if __name__ == "__main__":
    main(*sys.argv[1:])
