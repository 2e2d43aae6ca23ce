"""Which tensors a field depends on besides its arguments: parameters, and whatever its closure holds."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from odenet_cli.ode.field.random_state import Draws
from odenet_cli.ode.field.reachable import reach
from odenet_cli.ode.field.snapshot import Snapshot
from odenet_cli.ode.state import RightHandSide, State

Edge = tuple[Any, int]
Leaves = dict[int, Tensor]


class Captured(NamedTuple):
    """What a field depends on.

    f0        the field at (t, y0)
    tensors   those with gradients, each once: none is made from another of them
    outside   the graph of an evaluation goes on behind them, and is shared with the next evaluation
    snapshot  all that it holds
    draws     its random numbers, from before this evaluation
    """

    f0: State
    tensors: tuple[Tensor, ...]
    outside: bool
    snapshot: Snapshot
    draws: Draws


def capture(rhs: RightHandSide, t: float, timed: bool, parameters: Sequence[Tensor] = ()) -> Captured:
    """Evaluate the field at (t, y0), and find the tensors with gradients that it depends on.

    timed       the time has a gradient too
    parameters  tensors that it depends on, as the caller knows

    They are looked for twice: in the field (`field.reachable`), which sees what only some times use, and in the
    graph of this evaluation, which sees what hides from inspection. Autograd must not be given two tensors of which one
    is made from the other, or it counts the share of the first twice. So a tensor that was made from others stands for
    them, and its own graph is left to the caller's backward pass; unless the field may read those others too. Then they
    stand for it, and every evaluation goes back through its graph, which must be retained.
    """
    named = isinstance(rhs.field, (types.FunctionType, types.MethodType))  # what it reads has names without it
    snapshot, spare, generators = reach([("" if named else "field", rhs.field), ("args", rhs.arguments.rest)])
    snapshot.watch("parameters", parameters)
    draws = Draws(generators)
    with torch.enable_grad():
        point = tuple(part.detach().clone().requires_grad_() for part in rhs.y0)
        time = torch.full((), t, dtype=rhs.time_dtype, device=rhs.device).requires_grad_(timed)
        leaves = rhs.call_with(rhs.arguments.tensors)
        f0 = rhs(time, point)
    if any(tensor.grad_fn is not None for tensor in snapshot.tensors()):
        snapshot.forgive()  # what the evaluation made, and stored in another's place, is no input of it
    held = {id(tensor): tensor for tensor in snapshot.tensors()}
    snapshot.watch("args", rhs.arguments.tensors)
    edges = [get_gradient_edge(k) for k in f0 if k.requires_grad]
    own = {id(leaf) for leaf in (*point, time, *leaves)}
    found, outside = _select([(edge.node, edge.output_nr) for edge in edges], held, spare, own)
    tensors = tuple(found.values())
    snapshot.watch("a tensor that it reads: ", [x for x in tensors if id(x) not in held and id(x) not in spare])
    return Captured(tuple(k.detach() for k in f0), tensors, outside, snapshot, draws)


def _select(starts: list[Edge], held: Leaves, spare: Leaves, own: set[int]) -> tuple[Leaves, bool]:
    """The tensors that stand for all others, and whether graphs go on behind them.

    starts  the results of an evaluation
    held    tensors that its code may read at this or at another time
    spare   parameters that may be within its reach
    own     the leaves at which the evaluation began
    """
    made: dict[Edge, Tensor] = {(x.grad_fn, x.output_nr): x for x in held.values() if x.grad_fn is not None}
    read = {i: x for i, x in held.items() if x.is_leaf}
    dropped = False
    while True:
        direct, reached = _walk(starts, made)
        late, _ = _walk([edge for edge in made if edge not in reached], {})
        read.update(direct | late)
        behind = {edge: _walk(_next(edge[0]), made) for edge in reached}
        mixed = [edge for edge, (leaves, others) in behind.items() if others or leaves.keys() & read.keys()]
        if not mixed:
            break
        for edge in mixed:
            del made[edge]
        dropped = True
    found = {**read, **spare}
    for leaves, _ in behind.values():
        found = {i: leaf for i, leaf in found.items() if i not in leaves}
    found.update((id(made[edge]), made[edge]) for edge in reached)
    found = {i: tensor for i, tensor in found.items() if i not in own}
    hidden = any(i not in held and i not in spare and i not in own for i in direct)
    return found, dropped or hidden or len(reached) < len(made)


def _walk(starts: list[Edge], stops: dict[Edge, Tensor]) -> tuple[Leaves, set[Edge]]:
    """The leaves above `starts`, and the `stops` that were met on the way."""
    leaves: Leaves = {}
    met: set[Edge] = set()
    stack, seen = list(starts), set(starts)
    while stack:
        node, number = stack.pop()
        if (node, number) in stops:
            met.add((node, number))
        elif node.name() == "torch::autograd::AccumulateGrad":
            leaves[id(node.variable)] = node.variable
        else:
            new = [edge for edge in _next(node) if edge not in seen]
            seen.update(new)
            stack += new
    return leaves, met


def _next(node: Any) -> list[Edge]:
    return [edge for edge in node.next_functions if edge[0] is not None]
