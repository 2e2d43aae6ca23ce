"""Restore PyTorch's settings in the backward pass: autocast, and the default dtype and device.

    with torch.autocast("cuda"):
        y = solve(lambda t, y: net(y).float(), y0, ts).y
    y.sum().backward()

Here the backward pass runs outside of the block, and evaluates the field again. `TorchSettings` records the settings at
the start of a solve, and restores them in the backward pass. The solver itself never runs under autocast: its states,
steps and vector-Jacobian products keep the precision of the state. Other modes (deterministic algorithms, TF32) are not
restored. `Dtypes` records the dtypes in which a field computes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves


class Autocast(NamedTuple):
    """Hold the arguments of a `torch.autocast` that is enabled."""

    device_type: str
    dtype: torch.dtype
    enabled: bool
    cache_enabled: bool


class TorchSettings(NamedTuple):
    """Hold the settings at the start of a solve.

    autocast      those that are enabled, usually none
    dtype         default dtype of new tensors
    device        default device of new tensors; None: not set
    module_hooks  a number for the hooks that are registered for all modules at once
    """

    autocast: tuple[Autocast, ...]
    dtype: torch.dtype
    device: torch.device | None
    module_hooks: int

    @classmethod
    def current(cls, device: torch.device) -> TorchSettings:
        """Return the settings for a state on `device`; takes a microsecond."""
        # The CPU's autocast and the device's are two switches, and a field may compute on both.
        kinds = ("cpu",) if device.type == "cpu" else ("cpu", device.type)
        autocast = tuple(
            Autocast(kind, torch.get_autocast_dtype(kind), True, torch.is_autocast_cache_enabled())
            for kind in kinds
            if kind == "cpu" or torch.amp.is_autocast_available(kind)
            if torch.is_autocast_enabled(kind)
        )
        # The default device is a mode on the stack of torch functions, and slow to ask for.
        default = torch.get_default_device() if torch._C._len_torch_function_stack() else None
        return cls(autocast, torch.get_default_dtype(), default, module_hooks())

    def for_field(self) -> AbstractContextManager[Any]:
        """Return the context in which the vector field computes.

        With autograd on, each evaluation casts the weights again. If all evaluations shared a cast, its gradients would
        be summed in half precision (measured: dL/dw of 1,000 Euler steps in bfloat16 was 64 % off).
        """
        if not self.autocast:
            return _NOTHING
        # Without autograd a weight is cast once for all evaluations.
        shared = not torch.is_grad_enabled()
        return _autocast_all(
            [autocast._replace(cache_enabled=shared and autocast.cache_enabled) for autocast in self.autocast]
        )

    def for_solver(self) -> AbstractContextManager[Any]:
        """Return the context in which the solver computes: autocast is off, but keeps its cache of weights."""
        if not self.autocast:
            return _NOTHING
        return _autocast_all([autocast._replace(enabled=False) for autocast in self.autocast])

    @contextmanager
    def restored(self, device: torch.device) -> Iterator[None]:
        """Restore the default dtype and device, and switch off every autocast, as `for_solver` does."""
        # Both: autocasts that are on around the backward pass, and those that were on at the start of the solve.
        now = TorchSettings.current(device)
        with now.for_solver(), self.for_solver(), ExitStack() as stack:
            # Only if it differs: a default device is a mode, which slows down every function of torch.
            if now.device != self.device:
                stack.enter_context(torch.device(self.device or "cpu"))
            if now.dtype != self.dtype:
                torch.set_default_dtype(self.dtype)
                stack.callback(torch.set_default_dtype, now.dtype)
            yield


def module_hooks() -> int:
    """Return a number that changes with the hooks that are registered for all modules at once."""
    # torch never gives the number of a hook to another one.
    module = torch.nn.modules.module
    forward = *module._global_forward_pre_hooks, *module._global_forward_hooks
    return hash((*forward, *module._global_backward_pre_hooks, *module._global_backward_hooks))


_NOTHING = nullcontext()


@contextmanager
def _autocast_all(autocasts: Sequence[Autocast]) -> Iterator[None]:
    # Two at most: that of the CPU and that of the device.
    with torch.autocast(*autocasts[0]):
        if len(autocasts) == 1:
            yield
        else:
            with torch.autocast(*autocasts[1]):
                yield


class Dtypes(TorchFunctionMode):
    """Record the floating-point dtypes of all results with at least `least_dim` dimensions."""

    def __init__(self, least_dim: int = 0) -> None:
        super().__init__()
        self.least_dim, self.seen = least_dim, set[torch.dtype]()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves(result) if isinstance(x, Tensor) and x.dim() >= self.least_dim]
        self.seen |= {x.dtype for x in tensors if x.is_floating_point()}
        return result
