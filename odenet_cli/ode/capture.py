"""Which tensors a field depends on besides its arguments: parameters, and whatever its closure holds."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from odenet_cli.ode.state import RightHandSide, State

Edge = tuple[Any, int]


def capture(rhs: RightHandSide, t: float, timed: bool) -> tuple[State, tuple[Tensor, ...], bool]:
    """The field at (t, y0); the tensors with gradients that it reads, each once; whether its graph reaches outside
    itself. `timed` if the time has a gradient too.

    The tensors are found twice over: by looking into the field (parameters, attributes, closure, globals it names),
    which sees what only some times use, and by walking the graph, which sees what hides from inspection. Autograd must
    not be given two tensors of which one is made from the other, it would count the first one's share twice. So a
    tensor that was made from others stands for them; if they are also read directly, they stand for it, as they do for
    one that this evaluation did not use. The graph behind such a tensor is used by every evaluation, and must be
    retained. What stays unseen: a leaf behind such a tensor that is also read directly, but not yet by this evaluation.
    """
    with torch.enable_grad():
        since = node_number()
        point = tuple(part.detach().clone().requires_grad_() for part in rhs.y0)
        time = torch.full((), t, dtype=rhs.time_dtype, device=rhs.device).requires_grad_(timed)
        slope = rhs(time, point)
    held = {id(tensor): tensor for tensor in _inside(rhs.field, 0, set()) if tensor.requires_grad}
    made = {
        (tensor.grad_fn, tensor.output_nr): tensor
        for tensor in held.values()
        # What the field made just now and stored is no input of it.
        if tensor.grad_fn is not None and tensor.grad_fn._sequence_nr() < since
    }
    own = {id(leaf) for leaf in (*point, time)}
    edges = [get_gradient_edge(k) for k in slope if k.requires_grad]
    starts = [(edge.node, edge.output_nr) for edge in edges]
    while True:
        direct, reached, foreign = _walk(starts, made, since)
        behind = {edge: _walk(_next(edge[0]), made, since) for edge in reached}
        mixed = [edge for edge, (leaves, others, _) in behind.items() if others or leaves.keys() & direct.keys()]
        if not mixed:
            break
        for edge in mixed:
            del made[edge]
    unused = [edge for edge in made if edge not in reached]
    late, _, _ = _walk(unused, {}, since)
    found = late | {i: tensor for i, tensor in held.items() if tensor.is_leaf}
    for leaves, _, _ in behind.values():
        found = {i: leaf for i, leaf in found.items() if i not in leaves}
    found |= direct | {id(made[edge]): made[edge] for edge in reached}
    captured = tuple(tensor for i, tensor in found.items() if i not in own)
    return tuple(k.detach() for k in slope), captured, foreign or bool(unused)


def node_number() -> int:
    """The number of the node that autograd makes next on this thread; 0 while it records nothing."""
    node = torch.zeros((), requires_grad=True).clone().grad_fn if torch.is_grad_enabled() else None
    return 0 if node is None else node._sequence_nr() + 1


def _walk(starts: list[Edge], stops: dict[Edge, Tensor], since: int) -> tuple[dict[int, Tensor], set[Edge], bool]:
    """The leaves above `starts`, the `stops` that were met on the way, and whether nodes older than `since` were."""
    leaves: dict[int, Tensor] = {}
    met, foreign = set(), False
    stack, seen = list(starts), set(starts)
    while stack:
        node, number = stack.pop()
        if (node, number) in stops:
            met.add((node, number))
        elif node.name() == "torch::autograd::AccumulateGrad":
            leaves[id(node.variable)] = node.variable
        else:
            foreign = foreign or node._sequence_nr() < since
            new = [edge for edge in _next(node) if edge not in seen]
            seen.update(new)
            stack += new
    return leaves, met, foreign


def _next(node: Any) -> list[Edge]:
    return [edge for edge in node.next_functions if edge[0] is not None]


def _inside(thing: Any, depth: int, seen: set[int]) -> Iterator[Tensor]:
    """Tensors held by `thing`: a callable, a module, a container, or an object with attributes; five levels deep."""
    if isinstance(thing, Tensor):
        yield thing
        return
    if depth > 5 or id(thing) in seen:
        return
    seen.add(id(thing))
    if depth < 2 and callable(getattr(thing, "named_parameters", None)):  # a torch.nn.Module, however deep
        yield from thing.parameters()
    for part in _parts(thing):
        if not isinstance(part, _PLAIN):
            yield from _inside(part, depth + 1, seen)


_PLAIN = (str, bytes, int, float, complex, type, types.ModuleType, types.BuiltinFunctionType, type(None))


def _parts(thing: Any) -> Iterator[Any]:
    if isinstance(thing, functools.partial):
        yield from (thing.func, *thing.args, *thing.keywords.values())
    elif isinstance(thing, types.MethodType):
        yield from (thing.__self__, thing.__func__)
    elif isinstance(thing, types.FunctionType):
        yield from thing.__defaults__ or ()
        yield from (thing.__kwdefaults__ or {}).values()
        for cell in thing.__closure__ or ():
            if cell != types.CellType():
                yield cell.cell_contents
        yield from (thing.__globals__[name] for name in thing.__code__.co_names if name in thing.__globals__)
    elif isinstance(thing, dict):
        yield from thing.values()
    elif isinstance(thing, (list, tuple, set, frozenset)):
        yield from thing
    else:
        # A module has a dozen empty dictionaries of hooks.
        yield from (value for value in getattr(thing, "__dict__", {}).values() if not isinstance(value, dict) or value)
