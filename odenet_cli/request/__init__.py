"""A request of `odenet train`: composed and checked whole before Hydra starts."""
