"""Exact gradients of a loss, for comparison with the gradient of training, during and after a run.

reference_gradient  the exact gradients
step_replay         record the steps of a solve, and take them again
model_contexts      a network in another dtype, frozen, or with repeated random numbers
"""
