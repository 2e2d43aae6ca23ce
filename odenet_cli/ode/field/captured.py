"""The tensors with gradients that a vector field depends on besides its arguments.

    w = torch.tanh(u)
    solve(lambda t, y: -w * y, y0, ts).y.sum().backward()

must give `w` its gradient, and `u` through it. A solve that is one node of autograd's graph passes gradients only to
the inputs of this node, so `w` has to be found and made one of them. Two searches find it: among the values that the
field can read (`reachable`), which includes tensors used only at some times; and in the graph of one evaluation at
(t, y0), which includes tensors that inspection cannot see, in an extension for example.

No input may be computed from another one, or autograd would count the gradient of the latter twice. So if `w` was
computed from `u`, only `w` is an input, and the graph between them is left to the caller's backward pass. But if the
field may read `u` too, only `u` is an input, and every evaluation is differentiated through the graph between them,
which has to be retained.

Not found are tensors that inspection cannot see and that are not used at (t, y0). The caller names them by
`parameters=`; otherwise a backward pass whose first evaluations use one raises an error (`LateTensors`).
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
    """Hold the dependencies of a field.

    f0            the field at (t, y0)
    tensors       those with gradients; none is computed from another one
    shares_graph  evaluations share a graph that existed before them, which must be retained
    snapshot      everything that the field can read
    draws         its random numbers, recorded from before this evaluation
    """

    f0: State
    tensors: tuple[Tensor, ...]
    shares_graph: bool
    snapshot: Snapshot
    draws: Draws


def capture(rhs: RightHandSide, t: float, time_needs_grad: bool, parameters: Sequence[Tensor] = ()) -> Captured:
    """Evaluate the field at (t, y0), and return what it depends on; `parameters` are tensors named by the caller."""
    # Variables of a function have names of their own; attributes of an object are called "field.name".
    name = "" if isinstance(rhs.field, (types.FunctionType, types.MethodType)) else "field"
    snapshot, unnamed, generators = reachable([(name, rhs.field), ("args", rhs.arguments.rest)])
    snapshot.watch("parameters", parameters)
    draws = Draws(generators)
    with torch.enable_grad():
        # New leaves, so that the graph of f0 ends at y0 and at what the field reads. Copies, since the field may write
        # into them.
        y = tuple(part.detach().clone().requires_grad_() for part in rhs.y0)
        time = torch.full((), t, dtype=rhs.time_dtype, device=rhs.device).requires_grad_(time_needs_grad)
        arguments = rhs.call_with(rhs.arguments.tensors)
        f0 = rhs(time, y)
    if any(tensor.grad_fn is not None for tensor in snapshot.tensors()):
        snapshot.accept_changes()  # the evaluation itself may have replaced a tensor: it is no input
    readable = {id(tensor): tensor for tensor in snapshot.tensors()}
    # Only now, after `readable`: arguments are inputs of the node anyway, and need only be watched for changes.
    snapshot.watch("args", rhs.arguments.tensors)
    edges = [get_gradient_edge(k) for k in f0 if k.requires_grad]
    own = {id(leaf) for leaf in (*y, time, *arguments)}
    inputs, shares_graph = _inputs([(edge.node, edge.output_nr) for edge in edges], readable, unnamed, own)
    snapshot.watch("a tensor that it reads: ", [x for i, x in inputs.items() if i not in readable and i not in unnamed])
    return Captured(tuple(k.detach() for k in f0), tuple(inputs.values()), shares_graph, snapshot, draws)


def _inputs(results: list[Edge], readable: Tensors, unnamed: Tensors, own: set[int]) -> tuple[Tensors, bool]:
    """Return the inputs that cover everything the field depends on, and whether evaluations share a graph.

    results   edges of the values of an evaluation
    readable  tensors that the field's code may read, now or at other times
    unnamed   parameters of reachable modules that no code names
    own       ids of the leaves of the evaluation: t, y and arguments
    """
    # Autograd identifies a tensor by the node that computed it and the number of that node's output.
    made: dict[Edge, Tensor] = {(x.grad_fn, x.output_nr): x for x in readable.values() if x.grad_fn is not None}
    leaves = {i: x for i, x in readable.items() if x.is_leaf}
    shares_graph = False
    # Terminates, since each iteration removes tensors from `made`.
    while True:
        direct, used = ancestors(results, made)
        # A computed tensor that this evaluation does not use may be used later: its leaves are inputs.
        later, _ = ancestors([edge for edge in made if edge not in used], {})
        leaves.update(direct | later)
        behind = {edge: ancestors(_next(edge[0]), made) for edge in used}
        mixed = [edge for edge, (its, others) in behind.items() if others or its.keys() & leaves.keys()]
        if not mixed:
            break
        # What these were computed from is read too, and replaces them as inputs.
        for edge in mixed:
            del made[edge]
        shares_graph = True
    inputs = {**leaves, **unnamed, **{id(made[edge]): made[edge] for edge in used}}
    # Leaves of a computed input get their gradient through it, in the caller's own backward pass.
    left_out = own.union(*(its.keys() for its, _ in behind.values()))
    hidden = any(i not in readable and i not in unnamed and i not in own for i in direct)
    return {i: x for i, x in inputs.items() if i not in left_out}, shares_graph or hidden or len(used) < len(made)


class LateTensors:
    """Find tensors with gradients in the graphs of a backward pass that are not among its `inputs`: inspection did not
    see them, they were not used at t0, and they would get no gradient.

    The first two graphs of the backward pass are searched. A leaf that appears in both is such a tensor; one that the
    field creates at each evaluation, to differentiate with respect to it, is a different tensor in each.
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
                "and that inspection cannot find: it would get no gradient. Pass it to the solve, "
                "parameters=(tensor,), or use gradient=backprop."
            )
        self._done = before is not None or not late
        self._before = None if self._done else late


def ancestors(starts: list[Edge], stops: dict[Edge, Tensor]) -> tuple[Tensors, set[Edge]]:
    """Return the leaves from which `starts` were computed, going no further than `stops`, and the stops met."""
    # An explicit stack, since graphs are deeper than Python's recursion limit.
    leaves: Tensors = {}
    met: set[Edge] = set()
    stack, seen = list(starts), set(starts)
    while stack:
        edge = stack.pop()
        if edge in stops:
            met.add(edge)
        elif parents := _next(edge[0]):
            new = [parent for parent in parents if parent not in seen]
            seen.update(new)
            stack += new
        elif edge[0].name() == "torch::autograd::AccumulateGrad":
            leaves[id(edge[0].variable)] = edge[0].variable
    return leaves, met


def _next(node: Any) -> list[Edge]:
    return [edge for edge in node.next_functions if edge[0] is not None]
