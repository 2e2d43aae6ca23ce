"""A finished run, looked at.

trained             load its network, weights and data
scoring             score it under other solvers (`odenet eval`)
forecast            predict series (`odenet predict`)
class_probabilities what a classifier says of each test sample (`odenet predict`)
audit               is it still an ODE under finer solvers (`odenet audit`)
gradcheck           compare its gradient with exact ones (`odenet gradcheck`):
reference_gradient    the exact ones,
step_replay           the steps of a solve, recorded and taken again,
model_contexts        a network in another dtype, frozen, or with the same random numbers each time
doctor              what is wrong with the solves of a run (`odenet doctor`)
rerun               repeat the step in which it failed (`odenet rerun`)
measures/           what an experiment measures on its networks (`odenet reproduce`)
"""
