"""Inspection of the user's vector field, so that a solve behaves like an operation of PyTorch.

A gradient that evaluates the field again in the backward pass has to know three things about it: which tensors it
reads, since these get gradients (`captured`, which walks over everything `reachable` from what its `code` names);
whether anything that it reads has changed since (`snapshot`); and the global state under which it computes: random
number generators (`random_state`), autocast and default dtype and device (`torch_settings`).
"""
