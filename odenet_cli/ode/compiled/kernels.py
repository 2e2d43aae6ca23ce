"""Kernels of `torch.compile`: steps, first derivatives, first steps and whole loops, as functions of tensors alone.

The numbers of a step (t, h, tolerances) are passed as one tensor, so that new values need no new compilation. With
`cuda_graph`, on a GPU, a kernel is also recorded as a CUDA graph, and replayed by a single launch.
"""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from odenet_cli.ode import control
from odenet_cli.ode.control import Controller, Norm
from odenet_cli.ode.errors import NotCompiled
from odenet_cli.ode.scalars import Device
from odenet_cli.ode.state import State, VectorField
from odenet_cli.ode.step import rk_step
from odenet_cli.ode.tableau import Tableau

Slices = tuple[tuple[int | None, int | None], ...]


# Kernels are cached by the arguments that are constants in their code.
@lru_cache
def attempt(
    tableau: Tableau,
    n_dynamic: int | None,
    n_controlled: int | None,
    groups: Slices,
    all_stages: bool,
    cuda_graph: bool = False,
) -> Any:
    """Return a kernel (f, [t, h, low, high, rtol, *atol], y, f0) -> the state, the new stages (or only the last), the
    error ratio."""

    def kernel(f: VectorField, numbers: Tensor, y: State, f0: State) -> tuple[State, list[State], Tensor]:
        # 0-d tensors: a Python float would be a constant of the code, compiled again for each step size.
        t, h, low, high, rtol, *atol = numbers.unbind()
        step = rk_step(tableau, restrict(f, low, high), t, y, h, f0, n_dynamic=n_dynamic)
        # Step sizes are not differentiated, so the norm needs no graph.
        with torch.no_grad():
            ratio = norm_on_device(groups, rtol, atol).error_ratio(tableau, h, y, step, n_controlled)
        return step.y, step.k[1:] if all_stages else step.k[-1:], ratio

    return compile_kernel(kernel, cuda_graph)


@lru_cache
def derivative(n_dynamic: int | None, cuda_graph: bool = False) -> Any:
    """Return a kernel (f, [t], y) -> f(t, y)."""

    def kernel(f: VectorField, numbers: Tensor, y: State) -> State:
        return f(numbers[0], y[:n_dynamic])

    return compile_kernel(kernel, cuda_graph)


@lru_cache
def initial_step(
    order: int, n_dynamic: int | None, n_controlled: int | None, groups: Slices, cuda_graph: bool = False
) -> Any:
    """Return a kernel (f, [t, span, low, high, rtol, *atol], y, f0) -> the length that `control.initial_step` finds."""

    def kernel(f: VectorField, numbers: Tensor, y: State, f0: State) -> Tensor:
        t, span, low, high, rtol, *atol = numbers.unbind()
        norm, seen = norm_on_device(groups, rtol, atol), restrict(f, low, high)
        h: Tensor = control.initial_step(order, seen, norm, t, y, f0, span, n_dynamic, n_controlled)
        return h

    return compile_kernel(kernel, cuda_graph)


@lru_cache
def advance(tableau: Tableau, n_dynamic: int | None, cuda_graph: bool = False) -> Any:
    """Return a kernel (f, [t, h, low, high], y, f0) -> the state at the end; without `f0` it is evaluated too."""

    def kernel(f: VectorField, numbers: Tensor, y: State, f0: State | None = None) -> State:
        t, h, low, high = numbers.unbind()
        seen = restrict(f, low, high)
        f0 = f0 or seen(t, y[:n_dynamic])
        return rk_step(tableau, seen, t, y, h, f0, with_f1=False, n_dynamic=n_dynamic).y

    return compile_kernel(kernel, cuda_graph)


@lru_cache(maxsize=32)
def whole_loop(
    tableau: Tableau, n_dynamic: int | None, n_controlled: int | None, groups: Slices, controller: Controller
) -> Any:
    """Return a kernel (f, [end, min_step, max_step, floor, limit, low, high, rtol, *atol], [t, h, max_growth, accepted,
    rejected, nonfinite], y, f0) -> the state, its derivative, and the six numbers at the end of the loop.

    It is `AdaptiveLoop.run` without branches: a rejected attempt keeps the old state.
    """
    from torch._higher_order_ops.while_loop import while_loop

    def loop(f: VectorField, numbers: Tensor, state: Tensor, y: State, f0: State) -> Any:
        def condition(state: Tensor, y: State, f0: State) -> Tensor:
            # `while_loop` carries tensors alone, so the numbers of the loop are one tensor of six.
            t, h, _, accepted, rejected, _ = (state[n] for n in range(6))
            end, floor, limit = numbers[0], numbers[3], numbers[4]
            # `body` sets t to the end exactly, so no remainder by rounding is left.
            long_enough = h >= torch.minimum((end - t).abs(), floor)
            return (t != end) & long_enough & (accepted + rejected < limit)

        def body(state: Tensor, y: State, f0: State) -> tuple[Tensor, State, State]:
            t, h_next, max_growth, accepted, rejected, _ = (state[n] for n in range(6))
            end, min_step, max_step, rtol = numbers[0], numbers[1], numbers[2], numbers[7]
            atol = [numbers[8 + n] for n in range(len(groups))]
            remaining = end - t
            h_next = torch.minimum(h_next, max_step)
            last = h_next >= remaining.abs()
            h = torch.where(last, remaining, torch.copysign(h_next, remaining))
            step = rk_step(tableau, restrict(f, numbers[5], numbers[6]), t, y, h, f0, n_dynamic=n_dynamic)
            ratio = norm_on_device(groups, rtol, atol).error_ratio(tableau, h, y, step, n_controlled)

            # A kernel does not branch: both outcomes are computed, one is selected. A NaN ratio is not `good`.
            good = ratio <= 1.0
            factor = torch.minimum(controller.integral_factor(ratio, Device), max_growth)
            # As in `AdaptiveLoop`: a step that was cut at the end does not determine the next length.
            cut = h_next > remaining.abs()
            proposed = torch.maximum(torch.where(cut, h_next, h_next * factor), min_step)
            new_state = [
                torch.where(good, torch.where(last, end, t + h), t),
                torch.where(good, proposed, h.abs() * factor),
                torch.where(good, controller.max_factor, 1.0).double(),  # no growth right after a rejection
                accepted + good,
                rejected + ~good,
                (~torch.isfinite(ratio)).double(),
            ]
            new_y = tuple(torch.where(good, new, old) for new, old in zip(step.y, y))
            new_f0 = tuple(torch.where(good, new, old) for new, old in zip(step.k[-1], f0))
            return torch.stack(new_state), new_y, new_f0

        # `while_loop` refuses inputs that alias one another, as y and f0 may.
        y, f0 = tuple(part.clone() for part in y), tuple(part.clone() for part in f0)
        state, y, f0 = while_loop(condition, body, (state.clone(), y, f0))  # type: ignore[no-untyped-call]
        return y, f0, state

    # The loop itself in C++ too, else Python would evaluate the condition between any two attempts.
    return compile_kernel(loop, cpp_wrapper=True)


def norm_on_device(groups: Slices, rtol: Tensor, atol: Any) -> Norm:
    """Return the error norm of a kernel, with its numbers on the device."""
    # atol is already multiplied by each group's factor, so the norm's own is 1.
    slices = [slice(*ends) for ends in groups]
    return Norm(rtol, 1.0, lambda: tuple(zip(slices, atol)), Device)


def restrict(f: VectorField, low: Tensor, high: Tensor) -> VectorField:
    """Return `f` restricted to one side of a jump: `restrict_to_segment` for numbers on the device."""
    return lambda t, y, used=True: f(t.clamp(low, high), y, used)


def compile_kernel(kernel: Callable[..., Any], cuda_graph: bool = False, **options: bool) -> Any:
    """Return `kernel` compiled as one graph, once for each field and shape."""
    # fullgraph, since a graph break would silently run a step in pieces. Shapes are constants, since a solve rarely
    # changes them.
    compiler: Any = torch.compile
    more: dict[str, Any] = {}
    # Newer versions of torch can keep the compilations of one kernel from counting against those of another.
    if "isolate_recompiles" in inspect.signature(compiler).parameters:
        more["isolate_recompiles"] = True
    if cuda_graph:
        options["triton.cudagraphs"] = True
    compiled = compiler(kernel, fullgraph=True, dynamic=False, options=options or None, **more)

    def call(*inputs: Any) -> Any:
        _configure()
        if cuda_graph:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            outputs = compiled(*inputs)
        except torch._dynamo.exc.FailOnRecompileLimitHit as error:
            raise NotCompiled(
                f"the field was compiled {torch._dynamo.config.recompile_limit} times: a Python number, a flag or a "
                "shape that it reads is another one\n  from solve to solve, and each is a constant of compiled code. "
                "Let it read such a number from a tensor, as\n  args=(torch.tensor(k),), or use compile=false."
            ) from error
        except torch._dynamo.exc.TorchDynamoException as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            why = next((line for line in lines if "error: " in line), lines[0])  # a C++ compiler's own, or the first
            raise NotCompiled(
                f"the field cannot be compiled as one graph: {why}\n"
                "  Use compile=false, or write the field in tensor operations alone."
            ) from error
        # The next replay writes over the memory of this one.
        return tree_map_only(Tensor, torch.clone, outputs) if cuda_graph else outputs

    return call


def check_retained(node: Any) -> None:
    """Raise NotCompiled, before an error of torch's, in a backward pass that is to retain the graph of a kernel."""
    # Of a linear field there are no donated buffers, and the graph may be retained.
    metadata = getattr(getattr(node, "_forward_cls", None), "metadata", None)
    if torch._C._autograd._get_current_graph_task_keep_graph() and getattr(metadata, "bw_donated_idxs", None):
        raise NotCompiled(
            "the backward pass of compiled steps writes over what they have kept, so retain_graph=True and "
            "create_graph=True are not possible.\n  Use compile=false, or gradient=replay, which keeps states alone."
        )


_configured = threading.local()


def _configure() -> None:
    """Set the compiler's options, which are per thread: on a GPU backward passes run in another one."""
    if hasattr(_configured, "done"):
        return
    import torch._dynamo.config as dynamo

    # The adjoint's step contains vector-Jacobian products. Many fields are no reason to stop compiling.
    dynamo.trace_autograd_ops = True
    dynamo.recompile_limit = max(dynamo.recompile_limit, 64)
    # The compiler looks for a CUDA toolkit on every machine, and says where one is beside no GPU.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    # By default a hook that is registered on a module after the compilation is not called, without a word.
    dynamo.skip_nnmodule_hook_guards = False
    _configured.done = True
