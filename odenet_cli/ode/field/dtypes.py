"""In which dtypes a field computes, whatever the dtype of the state that it is given."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves


class Dtypes(TorchFunctionMode):
    """Note the floating-point dtypes of what is computed inside, of tensors that have `least_dim` dimensions."""

    def __init__(self, least_dim: int = 0) -> None:
        super().__init__()
        self.least_dim, self.seen = least_dim, set[torch.dtype]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves(result) if isinstance(x, Tensor) and x.dim() >= self.least_dim]
        self.seen |= {x.dtype for x in tensors if x.is_floating_point()}
        return result
