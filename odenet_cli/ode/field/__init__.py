"""What a vector field depends on besides its arguments, so that a solve behaves as an operation of PyTorch.

A gradient that evaluates the field again in the backward pass has to know three things of it: the tensors that it
reads, which get gradients (`captured`, by a walk in `reachable` over what its `code` names); whether anything that it
reads has changed since (`snapshot`); and the global state it computes under: random number generators (`random_state`),
autocast and defaults (`torch_settings`). They stand together because all of them look at the user's function, not at
numbers; the rest of `odenet_cli.ode` sees only the results.
"""
