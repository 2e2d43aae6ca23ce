"""A solve as one node of the autograd graph: the node, its inputs cut free, and the gradients of its times."""
