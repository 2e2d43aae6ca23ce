"""Which tensors a field depends on besides its arguments: parameters, and whatever its closure holds."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from typing import Any

from torch import Tensor


def captured(field: Any, graph: Any, since: int) -> tuple[tuple[Tensor, ...], bool]:
    """The tensors with gradients that `field` reads, each once, and whether its graph reaches outside itself.

    graph  that of one evaluation (`reverse.Graph`), made after autograd node number `since`

    They are found twice over: by looking into the field (parameters, attributes, closure, globals it names), which
    sees what only some times use, and by walking the graph, which sees what hides from inspection. Where
    the walk meets a foreign node that no tensor found accounts for, its leaves stand in; the graph beyond is then used
    by every evaluation, and must be retained.
    """
    found = {id(tensor): tensor for tensor in _inside(field, 0, set()) if tensor.requires_grad}
    nodes = {(tensor.grad_fn, tensor.output_nr) for tensor in found.values() if tensor.grad_fn is not None}
    foreign = False
    own = {id(leaf) for leaf in (*graph.point, graph.time)}
    stack: list[tuple[Any, int]] = [(edge.node, edge.output_nr) for edge in graph.edges if edge is not None]
    seen = set(stack)
    while stack:
        node, number = stack.pop()
        if (node, number) in nodes:
            continue
        if (leaf := getattr(node, "variable", None)) is not None:
            if id(leaf) not in own:
                found.setdefault(id(leaf), leaf)
            continue
        foreign = foreign or node._sequence_nr() < since
        for edge in node.next_functions:
            if edge[0] is not None and edge not in seen:
                seen.add(edge)
                stack.append(edge)
    return tuple(found.values()), foreign


def _inside(thing: Any, depth: int, seen: set[int]) -> Iterator[Tensor]:
    """Tensors held by `thing`: a callable, a module, a container, or an object with attributes; five levels deep."""
    if isinstance(thing, Tensor):
        yield thing
        return
    if depth > 5 or id(thing) in seen or isinstance(thing, (str, bytes, int, float, type, types.ModuleType)):
        return
    seen.add(id(thing))
    for part in _parts(thing):
        yield from _inside(part, depth + 1, seen)


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
        if callable(parameters := getattr(thing, "parameters", None)):
            yield list(parameters())
        yield from getattr(thing, "__dict__", {}).values()
