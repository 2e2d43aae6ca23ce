"""What is compiled: steps, beginnings and loops as functions of tensors alone, each a unit of `torch.compile`.

With `graphs`, on a GPU, a unit is also recorded as a CUDA graph, and then replayed by one launch.
"""

from __future__ import annotations

import inspect
import math
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

from odenet_cli.ode.control import Controller, error_scale
from odenet_cli.ode.errors import NotCompiled
from odenet_cli.ode.state import State, VectorField, vector_norms
from odenet_cli.ode.step import Step, errors, rk_step
from odenet_cli.ode.tableau import Tableau

Slices = tuple[tuple[int | None, int | None], ...]


@lru_cache
def attempt(
    tableau: Tableau,
    n_dynamic: int | None,
    n_controlled: int | None,
    groups: Slices,
    dense: bool,
    cuda_graph: bool = False,
) -> Any:
    """(function, [t, h, low, high, rtol, *atol], y, opening) -> the state, the new slopes (or only the last), the error
    ratio."""
    prepare(tableau)

    def kernel(function: VectorField, numbers: Tensor, y: State, f0: State) -> tuple[State, list[State], Tensor]:
        t, h, low, high, rtol, *atol = numbers.unbind()
        step = rk_step(tableau, restrict(function, low, high), t, y, h, f0, n_dynamic=n_dynamic)
        with torch.no_grad():
            ratio = _ratio(tableau, step, y, h, n_controlled, groups, rtol, atol)
        return step.y, step.k[1:] if dense else step.k[-1:], ratio

    return _compiled(kernel, cuda_graph)


def _ratio(
    tableau: Tableau, step: Step, y: State, h: Tensor, n_controlled: int | None, groups: Slices, rtol: Tensor, atol: Any
) -> Tensor:
    """The error in units of the tolerance, as the plain loop has it, but on the device."""
    estimates = errors(tableau, h, step.k, n_controlled)
    size, *others = _sizes(estimates, y[:n_controlled], step.y[:n_controlled], groups, rtol, atol)
    if not others:
        return size
    (coarse,) = others
    return torch.where(coarse == 0, size, size * size / torch.sqrt(size * size + 0.01 * coarse * coarse))


def _sizes(states: Sequence[State], y: State, y1: State, groups: Slices, rtol: Tensor, atol: Any) -> list[Tensor]:
    """`Norm.sizes` on the device."""
    slices = [slice(*ends) for ends in groups]
    bounds = [error_scale(y[s], y1[s], rtol, a) for s, a in zip(slices, atol)]
    scaled = [[tuple(map(torch.div, state[s], bound)) for s, bound in zip(slices, bounds)] for state in states]
    return [torch.stack([_rms(group, rtol) for group in groups]).amax() for groups in scaled]


@lru_cache
def slope(n_dynamic: int | None, cuda_graph: bool = False) -> Any:
    """(function, [t], y) -> the field there."""

    def kernel(function: VectorField, numbers: Tensor, y: State) -> State:
        return function(numbers[0], y[:n_dynamic])

    return _compiled(kernel, cuda_graph)


@lru_cache
def initial_step(
    order: int, n_dynamic: int | None, n_controlled: int | None, groups: Slices, cuda_graph: bool = False
) -> Any:
    """(function, [t, span, low, high, rtol, *atol], y, opening) -> the length that `control.initial_step` finds."""

    def kernel(function: VectorField, numbers: Tensor, y: State, f0: State) -> Tensor:
        t, span, low, high, rtol, *atol = numbers.unbind()
        known, slope = y[:n_controlled], f0[:n_controlled]
        d0, d1 = _sizes([known, slope], known, known, groups, rtol, atol)
        h0 = torch.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1).minimum(span.abs())
        signed = torch.copysign(h0, span)
        probe = tuple(part + k * signed.to(part.real.dtype) for part, k in zip(y[:n_dynamic], f0))
        moved = tuple(k1 - k for k1, k in zip(function((t + signed).clamp(low, high), probe, True), slope))
        d2 = _sizes([moved], known[: len(moved)], known[: len(moved)], groups, rtol, atol)[0] / h0
        steepest = torch.where(torch.isfinite(d2), torch.maximum(d1, d2), math.inf)
        h1 = torch.where(steepest <= 1e-15, (1e-3 * h0).clamp(min=1e-6), (0.01 / steepest) ** (1.0 / order))
        h1 = torch.where(h1 == 0, h0, h1)
        h = torch.minimum(torch.minimum(100.0 * h0, h1), span.abs())
        return torch.where(torch.isfinite(d0 + d1), h, math.nan)

    return _compiled(kernel, cuda_graph)


def _rms(state: State, like: Tensor) -> Tensor:
    """Root mean square over all numbers, 0 for an empty state; a 0-d tensor like `like`."""
    squares = [norm.to(like.dtype).square() for norm in vector_norms([state], [2.0])]
    count = sum(part.numel() for part in state)
    return torch.stack(squares).sum().div(count).sqrt() if squares else torch.zeros_like(like)


@lru_cache(maxsize=32)
def whole_loop(
    tableau: Tableau, n_dynamic: int | None, n_controlled: int | None, groups: Slices, controller: Controller
) -> Any:
    """(function, [end, min_step, max_step, floor, limit, low, high, rtol, *atol], [t, h, grow, accepted, rejected,
    blown], y, opening) -> the state, its slope, and the six numbers at the end of the loop."""
    from torch._higher_order_ops.while_loop import while_loop

    prepare(tableau)
    order, safety, shrink, grow = controller.order, controller.safety, controller.shrink, controller.grow

    def loop(function: VectorField, numbers: Tensor, state: Tensor, y: State, f0: State) -> Any:
        def going(state: Tensor, y: State, f0: State) -> Tensor:
            t, h, _, accepted, rejected, _ = (state[n] for n in range(6))
            end, floor, limit = numbers[0], numbers[3], numbers[4]
            able = h >= torch.minimum((end - t).abs(), floor)
            return (t != end) & able & (accepted + rejected < limit)

        def attempt(state: Tensor, y: State, f0: State) -> tuple[Tensor, State, State]:
            t, h, most, accepted, rejected, _ = (state[n] for n in range(6))
            end, shortest, longest, rtol = numbers[0], numbers[1], numbers[2], numbers[7]
            atol = [numbers[8 + n] for n in range(len(groups))]
            remaining = end - t
            h_next = torch.minimum(h, longest)
            last = h_next >= remaining.abs()
            signed = torch.where(last, remaining, torch.copysign(h_next, remaining))
            step = rk_step(tableau, restrict(function, numbers[5], numbers[6]), t, y, signed, f0, n_dynamic=n_dynamic)
            ratio = _ratio(tableau, step, y, signed, n_controlled, groups, rtol, atol)

            good = ratio <= 1.0
            factor = safety * torch.exp(-torch.log(ratio.clamp(min=1e-10)) / order)
            factor = torch.where(torch.isfinite(ratio), factor.clamp(shrink, grow), shrink)
            factor = torch.minimum(factor, most)
            cut = h_next > remaining.abs()
            grown = torch.maximum(torch.where(cut, h_next, h_next * factor), shortest)
            numbers_now = [
                torch.where(good, torch.where(last, end, t + signed), t),
                torch.where(good, grown, signed.abs() * factor),
                torch.where(good, grow, 1.0).double(),
                accepted + good,
                rejected + ~good,
                (~torch.isfinite(ratio)).double(),
            ]
            kept = tuple(torch.where(good, new, old) for new, old in zip(step.y, y))
            slope = tuple(torch.where(good, new, old) for new, old in zip(step.k[-1], f0))
            return torch.stack(numbers_now), kept, slope

        y, f0 = tuple(part.clone() for part in y), tuple(part.clone() for part in f0)
        state, y, f0 = while_loop(going, attempt, (state.clone(), y, f0))  # type: ignore[no-untyped-call]
        return y, f0, state

    return _compiled(loop, cpp_wrapper=True)


@lru_cache
def advance(tableau: Tableau, n_dynamic: int | None, cuda_graph: bool = False) -> Any:
    """(function, [t, h, low, high], y, opening) -> the state; without an opening slope it is evaluated too."""
    prepare(tableau)

    def kernel(function: VectorField, numbers: Tensor, y: State, f0: State | None = None) -> State:
        t, h, low, high = numbers.unbind()
        seen = restrict(function, low, high)
        f0 = f0 or seen(t, y[:n_dynamic])
        return rk_step(tableau, seen, t, y, h, f0, with_f1=False, n_dynamic=n_dynamic).y

    return _compiled(kernel, cuda_graph)


def restrict(function: VectorField, low: Tensor, high: Tensor) -> VectorField:
    """`restrict_to_segment` for numbers on the device."""
    return lambda t, y, used=True: function(t.clamp(low, high), y, used)


def prepare(tableau: Tableau) -> None:
    """Derive now what a step uses of a tableau: a compiler does not see into what is derived when first asked for."""
    for name in ("rows", "solution_weights", "error_weights", "error_weights_3", "used_stages", "fsal"):
        getattr(tableau, name)


def _compiled(kernel: Callable[..., Any], cuda_graph: bool = False, **options: bool) -> Any:
    """`unit` compiled as one graph; every field and shape has a compilation of its own."""
    compiler: Any = torch.compile
    more: dict[str, Any] = {}
    if "isolate_recompiles" in inspect.signature(compiler).parameters:
        more["isolate_recompiles"] = True
    if cuda_graph:
        options["triton.cudagraphs"] = True
    made = compiler(kernel, fullgraph=True, dynamic=False, options=options or None, **more)

    def call(*inputs: Any) -> Any:
        _configure()
        if cuda_graph:
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        try:
            found = made(*inputs)
        except (torch._dynamo.exc.TorchDynamoException, torch._dynamo.exc.FailOnRecompileLimitHit) as error:
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            why = next((line for line in lines if "error: " in line), lines[0])  # a C++ compiler's own, or the first
            raise NotCompiled(
                f"the field cannot be compiled as one graph: {why}\n"
                "  Use compile=false, or write the field in tensor operations alone."
            ) from error
        return tree_map_only(Tensor, torch.clone, found) if cuda_graph else found

    return call


_configured = threading.local()


def _configure() -> None:
    """Settings of the compiler belong to a thread; on a GPU autograd goes backward in others than the caller's."""
    if hasattr(_configured, "done"):
        return
    import torch._dynamo.config as dynamo

    # The adjoint asks for vector-Jacobian products inside its step; and a field more is no sign of a mistake.
    dynamo.trace_autograd_ops = True
    dynamo.recompile_limit = max(dynamo.recompile_limit, 64)
    _configured.done = True
