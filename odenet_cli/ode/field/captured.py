"""The tensors with gradients that a vector field depends on besides its arguments.

    w = torch.tanh(u)
    solve(lambda t, y: -w * y, y0, ts).y.sum().backward()

must give `w` its gradient, and `u` through it. A solve that is one node of autograd's graph passes gradients to the
inputs of this node alone, so `w` has to be found and made one of them. It is looked for twice: among the values that
the field can read (`reachable`), which sees what only some times use; and in the graph of one evaluation at (t, y0),
which sees what hides from inspection, in an extension say.

Of two inputs none may be made from the other, or autograd counts the share of the first twice. So a tensor that was
made from others stands for them, and its own graph is left to the caller's backward pass; unless the field may read
those others too. Then they stand for it, and every evaluation goes back through the graph between them, which has to be
retained.

Not found: what hides from inspection and is not used at (t, y0). `parameters=` of a solve names it; a backward pass
whose first evaluations use it raises (`LateTensors`).
"""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from odenet_cli.ode.errors import FieldChanged
from odenet_cli.ode.field.random_state import Draws
from odenet_cli.ode.field.reachable import reachable
from odenet_cli.ode.field.snapshot import Snapshot
from odenet_cli.ode.right_hand_side import RightHandSide
from odenet_cli.ode.state import State

Edge = tuple[Any, int]  # a node of autograd's graph and the number of its output
Tensors = dict[int, Tensor]  # by id: tensors compare number by number


class Captured(NamedTuple):
    """Hold what a field depends on.

    f0            the field at (t, y0)
    tensors       those with gradients; none is made from another of them
    shares_graph  evaluations go back through a graph that was there before, which must outlive each of them
    snapshot      all that the field can read
    draws         its random numbers, from before this evaluation
    """

    f0: State
    tensors: tuple[Tensor, ...]
    shares_graph: bool
    snapshot: Snapshot
    draws: Draws


def capture(rhs: RightHandSide, t: float, time_needs_grad: bool, parameters: Sequence[Tensor] = ()) -> Captured:
    """Evaluate the field at (t, y0), and return what it depends on; `parameters` are tensors that the caller names."""
    # Variables of a function have names of their own; attributes of an object are called "field.name".
    name = "" if isinstance(rhs.field, (types.FunctionType, types.MethodType)) else "field"
    snapshot, unnamed, generators = reachable([(name, rhs.field), ("args", rhs.arguments.rest)])
    snapshot.watch("parameters", parameters)
    draws = Draws(generators)
    with torch.enable_grad():
        # Leaves of its own: the graph of f0 then ends at what the field reads, and not behind y0. Copies, since the
        # field may write into them.
        y = tuple(part.detach().clone().requires_grad_() for part in rhs.y0)
        time = torch.full((), t, dtype=rhs.time_dtype, device=rhs.device).requires_grad_(time_needs_grad)
        arguments = rhs.call_with(rhs.arguments.tensors)
        f0 = rhs(time, y)
    if any(tensor.grad_fn is not None for tensor in snapshot.tensors()):
        snapshot.accept_changes()  # a tensor that the evaluation has stored in another's place is no input of it
    readable = {id(tensor): tensor for tensor in snapshot.tensors()}
    # After `readable` is read off: arguments are inputs of the node in any case, and need watching only.
    snapshot.watch("args", rhs.arguments.tensors)
    edges = [get_gradient_edge(k) for k in f0 if k.requires_grad]
    own = {id(leaf) for leaf in (*y, time, *arguments)}
    inputs, shares_graph = _inputs([(edge.node, edge.output_nr) for edge in edges], readable, unnamed, own)
    snapshot.watch("a tensor that it reads: ", [x for i, x in inputs.items() if i not in readable and i not in unnamed])
    return Captured(tuple(k.detach() for k in f0), tuple(inputs.values()), shares_graph, snapshot, draws)


def _inputs(results: list[Edge], readable: Tensors, unnamed: Tensors, own: set[int]) -> tuple[Tensors, bool]:
    """Return tensors to stand for all that the field depends on, and whether a graph goes on behind them.

    results   of an evaluation
    readable  tensors that the field's code may read at this or at another time
    unnamed   parameters of modules within reach
    own       ids of the leaves at which the evaluation began
    """
    # A tensor is known in autograd's graph by the node that made it and the number of that node's output.
    made: dict[Edge, Tensor] = {(x.grad_fn, x.output_nr): x for x in readable.values() if x.grad_fn is not None}
    leaves = {i: x for i, x in readable.items() if x.is_leaf}
    shares_graph = False
    # Each turn takes tensors out of `made`, so that it ends.
    while True:
        direct, used = ancestors(results, made)
        # A made tensor that this evaluation does not use may be used later: the leaves behind it are inputs.
        later, _ = ancestors([edge for edge in made if edge not in used], {})
        leaves.update(direct | later)
        behind = {edge: ancestors(_next(edge[0]), made) for edge in used}
        mixed = [edge for edge, (its, others) in behind.items() if others or its.keys() & leaves.keys()]
        if not mixed:
            break
        # What these were made from is read too, and stands for them.
        for edge in mixed:
            del made[edge]
        shares_graph = True
    inputs = {**leaves, **unnamed, **{id(made[edge]): made[edge] for edge in used}}
    # Leaves behind a tensor that stands for them: its gradient goes on to them in the caller's own backward pass.
    left_out = own.union(*(its.keys() for its, _ in behind.values()))
    hidden = any(i not in readable and i not in unnamed and i not in own for i in direct)
    return {i: x for i, x in inputs.items() if i not in left_out}, shares_graph or hidden or len(used) < len(made)


class LateTensors:
    """Look in the graphs of a backward pass for tensors with gradients that are none of its `inputs`: they hide from
    inspection and were not used at t0, and would get no gradient.

    The first graph is looked at, at the end of the solve. A tensor that the field makes anew at each evaluation, to
    differentiate by it, is in the next graph another one, so that a second look tells.
    """

    def __init__(self, inputs: Sequence[Tensor]) -> None:
        self._known = {id(tensor) for tensor in inputs}
        self._made: dict[Edge, Tensor] = {(x.grad_fn, x.output_nr): x for x in inputs if x.grad_fn is not None}
        self._before: Tensors | None = None
        self._done = False

    def look(self, values: Sequence[Tensor], own: Sequence[Tensor]) -> None:
        """Raise FieldChanged if `values`, evaluated from the leaves `own`, depend on such a tensor."""
        if self._done:
            return
        edges = [get_gradient_edge(value) for value in values if value.requires_grad]
        leaves, _ = ancestors([(edge.node, edge.output_nr) for edge in edges], self._made)
        known, before = self._known.union(map(id, own)), self._before
        late = {i: tensor for i, tensor in leaves.items() if i not in known}
        if again := [tensor for i, tensor in late.items() if before and i in before]:
            raise FieldChanged(
                f"the field depends on a tensor of shape {tuple(again[0].shape)} that it did not use at the first time "
                "and that hides from inspection: it would get no gradient. Name it to the solve, parameters=(tensor,), "
                "or use gradient=backprop."
            )
        self._done = before is not None or not late
        self._before = None if self._done else late


def ancestors(starts: list[Edge], stops: dict[Edge, Tensor]) -> tuple[Tensors, set[Edge]]:
    """Return the leaves that `starts` were made from, not looking behind `stops`, and the stops that were met."""
    # Graphs are deep, so that a stack of our own takes the place of recursion.
    leaves: Tensors = {}
    met: set[Edge] = set()
    stack, seen = list(starts), set(starts)
    while stack:
        edge = stack.pop()
        if edge in stops:
            met.add(edge)
        elif edge[0].name() == "torch::autograd::AccumulateGrad":
            leaves[id(edge[0].variable)] = edge[0].variable
        else:
            new = [parent for parent in _next(edge[0]) if parent not in seen]
            seen.update(new)
            stack += new
    return leaves, met


def _next(node: Any) -> list[Edge]:
    return [edge for edge in node.next_functions if edge[0] is not None]
