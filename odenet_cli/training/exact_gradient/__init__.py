"""Exact gradients of a loss, to hold the gradient of training against while a run trains, and after it.

reference_gradient  the exact ones
step_replay         the steps of a solve, recorded and taken again
model_contexts      a network in another dtype, frozen, or with the same random numbers each time
"""
