"""Exact gradients of a loss, to compare with the gradient of training, during and after a run.

reference_gradient  the exact gradients
step_replay         record the steps of a solve, and repeat them
model_contexts      a network in another dtype, frozen, or with repeated random numbers
"""
