"""Lay the memory and the error of the four gradients side by side: python gradient_memory.py [FIGURE]"""

import sys

import matplotlib.pyplot as plt
import torch
from torch import nn

from odenet_cli.ode import Fixed

STEPS = (10, 20, 40, 80, 160)
GRADIENTS = ("backprop", "replay", "adjoint", "reversible")


def saved_kib(run):
    """Return the KiB of tensors that autograd saves in `run()` for its backward pass, and what `run()` returns."""
    storages = {}

    def pack(tensor):
        if not (tensor.is_leaf and tensor.requires_grad):  # parameters are there anyway
            storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    return sum(storages.values()) / 1024, result


def main(figure="gradient_memory.png"):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 8)).double()
    y0, ts = torch.randn(32, 8, dtype=torch.float64), [0.0, 2.0]

    def measure(gradient, steps):
        solver = Fixed(method="rk4", steps=steps, gradient=gradient)
        kib, loss = saved_kib(lambda: solver(lambda t, y: net(y), y0, ts).y.square().sum())
        return kib, torch.cat([part.flatten() for part in torch.autograd.grad(loss, list(net.parameters()))])

    exact = measure("backprop", 640)[1]  # of the differential equation, to about 1e-11
    memory, error = {}, {}
    for gradient in GRADIENTS:
        rows = [measure(gradient, steps) for steps in STEPS]
        memory[gradient] = [kib for kib, _ in rows]
        error[gradient] = [float((found - exact).norm() / exact.norm()) for _, found in rows]
        print(f"{gradient:<11} {STEPS[-1]} steps: {memory[gradient][-1]:9,.1f} KiB, error {error[gradient][-1]:.1e}")

    _, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
    for gradient in GRADIENTS:
        line = "o--" if gradient == "reversible" else "o-"  # three errors lie on one another
        left.loglog(STEPS, memory[gradient], line, label=gradient)
        right.loglog(STEPS, error[gradient], line, label=gradient)
    left.set(xlabel="steps of rk4", ylabel="saved for the backward pass, KiB")
    right.set(xlabel="steps of rk4", ylabel="relative error of the gradient")
    left.legend()
    plt.savefig(figure)
    return memory, error


if __name__ == "__main__":
    main(*sys.argv[1:])
