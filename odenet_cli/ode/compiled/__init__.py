"""The same steps and loops through `torch.compile`: kernels of tensors alone, and the loops over them."""
