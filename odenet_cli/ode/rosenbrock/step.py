"""One Rosenbrock step: a function of tensors, differentiable by autograd."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from odenet_cli.ode.autograd.times import TimeGradients, restrict_to_segment
from odenet_cli.ode.field.captured import ancestors
from odenet_cli.ode.resolution import RESOLUTION
from odenet_cli.ode.rosenbrock.formulas import Rosenbrock
from odenet_cli.ode.segment import Segment
from odenet_cli.ode.state import State, VectorField, combine, differs
from odenet_cli.ode.step import Step

LARGEST_JACOBIAN = 2**27  # numbers in the Jacobians of all rows: half a GiB in float32
ROUNDING = 1e3  # a mismatch up to so many units of rounding is ignored


@dataclass(frozen=True)
class Rows:
    """Describe a state as B rows of D numbers, each row with its own Jacobian.

    shapes  of the tensors of the state
    count   B: the first dimension of all tensors, if the field treats it as a batch, else 1
    """

    shapes: tuple[torch.Size, ...]
    count: int

    @property
    def width(self) -> int:
        """D, the numbers in a row."""
        return sum(math.prod(shape) for shape in self.shapes) // max(1, self.count)

    def flatten(self, state: Sequence[Tensor]) -> Tensor:
        """Return the state as (B, D)."""
        return torch.cat([part.reshape(self.count, math.prod(part.shape) // self.count) for part in state], dim=-1)

    def restore(self, rows: Tensor, like: State) -> State:
        """Return rows (…, B, D) as the parts of a state, (…, *S)."""
        parts = torch.split(rows, [math.prod(shape) // self.count for shape in self.shapes], dim=-1)
        lead = rows.shape[:-2]
        return tuple(x.reshape((*lead, *part.shape)).to(part.dtype) for x, part in zip(parts, like))


class Linearisation(NamedTuple):
    """Hold the linearisation of a vector field at the start of a step.

    f0        its value
    jacobian  ∂f/∂y (B, D, D), a matrix a row
    dfdt      ∂f/∂t (B, D); None where it does not depend on the time
    """

    rows: Rows
    f0: State
    jacobian: Tensor
    dfdt: Tensor | None


def linearise(
    vector_field: VectorField,
    segment: Segment,
    time_gradients: TimeGradients | None,
    t: float,
    y: State,
    rows: Rows | None = None,
) -> Linearisation:
    """Evaluate the field at (t, y) once, and its derivatives by autograd.

    rows  from an earlier call; None: the first dimension is tried as a batch, and one more product with Jᵀ tests
          whether the rows depend on each other. If they do, the state is a single row

    Raises ValueError if the Jacobian is too large to be built.
    """
    differentiable, layout = torch.is_grad_enabled(), rows or _rows(y)
    # The leaves below require a gradient, but must not create a graph if the caller has none.
    wanted = differentiable and any(part.requires_grad for part in y)
    with torch.enable_grad():
        # A view, so that the derivative is that by the state alone, even if arguments were computed from it.
        leaves = tuple(x.view_as(x) if differentiable and x.requires_grad else x.detach().requires_grad_() for x in y)
        # Since t is a float, ∂f/∂t is the derivative by a shift of 0 that is added to all times.
        _, widest = _dtypes(y)
        shift = torch.zeros((), dtype=widest, device=y[0].device, requires_grad=True)
        f0 = _moved_in_time(vector_field, segment, time_gradients, shift)(t, leaves)
        differentiable = wanted or (differentiable and _depends_on_more(f0, (*leaves, shift)))
        jacobian, fits = _jacobian(f0, leaves, layout, create_graph=differentiable, check=rows is None)
        # Rows that depend on each other, as in a field with batch norm or a coupling of samples: one system of B·D.
        if not fits:
            layout = Rows(layout.shapes, 1)
            jacobian, _ = _jacobian(f0, leaves, layout, create_graph=differentiable, check=False)
        dfdt = _time_derivative(f0, shift, layout, create_graph=differentiable)
    return Linearisation(layout, f0 if differentiable else tuple(part.detach() for part in f0), jacobian, dfdt)


@torch.no_grad()
def check_derivatives(vector_field: VectorField, segment: Segment, t: float, y: State, at: Linearisation) -> None:
    """Raise ValueError if the field depends on time or state, but autograd finds no derivative at all.

    A step without ∂f/∂t or J has order 1 and misses its tolerance: y' = a cos(float(t)) - y had an error of 65
    tolerances.
    """
    f, share = restrict_to_segment(vector_field, segment), math.sqrt(RESOLUTION[_dtypes(y)[0]])
    span, hidden = segment.end - t, ""
    # Also compare neighbouring points: a piecewise constant field, such as a held control, differs only far away.
    if at.dfdt is None:
        far, nearby = t + 0.6180339887 * span, share * span
        if any(map(differs, value := f(far, y), at.f0)) and _is_function(lambda x: f(far + x * nearby, y), value):
            hidden = "the time"
    if not bool(at.jacobian.any()):

        def moved(x: float) -> State:
            return tuple(part + x * share * (1 + part.abs()) for part in y)

        if any(map(differs, value := f(t, moved(0.5)), at.f0)) and _is_function(lambda x: f(t, moved(x)), value):
            # The derivative of y² is 0 at 0 without being hidden: look for one nearby.
            beside = linearise(vector_field, segment, None, t, moved(0.5), at.rows)
            hidden = hidden if bool(beside.jacobian.any()) else "the state"
    if hidden:
        raise ValueError(
            f"the field depends on {hidden} in a way that autograd cannot see: it reads numbers (float(t), item(), "
            "numpy), or computes under detach() or torch.no_grad(). A Rosenbrock method needs this derivative: "
            "compute with tensors, or use an explicit method such as solver.method=dopri5."
        )


def _is_function(f: Callable[[float], State], value: State) -> bool:
    """Return whether f(1) differs from `value` reproducibly, so that the difference is not noise."""
    return any(map(differs, once := f(1.0), value)) and not any(map(differs, f(1.0), once))


def rosenbrock_step(method: Rosenbrock, f: VectorField, t: float, y: State, h: float, at: Linearisation) -> Step:
    """Advance `y` from `t` to `t + h`, given the field's linearisation at (t, y) (Hairer & Wanner IV.7, eq. 7.25)."""
    # With eq. 7.25's v_i in place of the k_i no stage needs a product with J, only a solution of (1 - hγJ) v = right.
    gamma, rows = float(method.diagonal), at.rows
    identity = torch.eye(rows.width, dtype=at.jacobian.dtype, device=at.jacobian.device)
    # One factorisation for all stages. A singular matrix gives infinite numbers, and so a rejected step.
    lu, pivots, _ = torch.linalg.lu_factor_ex(identity - (h * gamma) * at.jacobian)
    v: list[Tensor] = []
    k: list[State] = []
    for stage in method.stages:
        # The first stage stands at (t, y), where the linearisation has evaluated f.
        value = f(t + stage.alpha * h, combine(y, h, stage.a, k)) if k else at.f0
        right = rows.flatten(value)
        for j, weight in stage.c:
            right = right + weight * v[j]
        if at.dfdt is not None and stage.gamma:
            right = right + (stage.gamma * h) * at.dfdt
        v.append(torch.linalg.lu_solve(lu, pivots, (gamma * right).unsqueeze(-1)).squeeze(-1))
        k.append(rows.restore(v[-1], y))
    return Step(combine(y, h, method.solution_weights, k), k)


def take_step(
    method: Rosenbrock,
    vector_field: VectorField,
    segment: Segment,
    time_gradients: TimeGradients | None,
    t: float,
    y: State,
    h: float,
) -> Step:
    """Take one step of a loop again, which needs nothing from the steps before it."""
    at = linearise(vector_field, segment, time_gradients, t, y)
    return rosenbrock_step(method, restrict_to_segment(vector_field, segment, time_gradients), t, y, h, at)


def _depends_on_more(f0: State, leaves: Sequence[Tensor]) -> bool:
    """Return whether the value of a field has a gradient with respect to anything but `leaves`."""
    # For example parameters: then the Jacobian needs a graph even if y requires no gradient.
    edges = [get_gradient_edge(k) for k in f0 if k.requires_grad]
    reached, _ = ancestors([(edge.node, edge.output_nr) for edge in edges], {})
    return not reached.keys() <= {id(leaf) for leaf in leaves}


def _rows(y: State) -> Rows:
    """Return a layout with one row for each index of the first dimension, if all tensors share it."""
    if any(part.dtype not in (torch.float32, torch.float64) for part in y):
        kinds = ", ".join(str(part.dtype) for part in y)
        raise TypeError(f"a Rosenbrock method needs a state of real float32 or float64 numbers; got {kinds}.")
    shapes = tuple(part.shape for part in y)
    # A system for each index of the first dimension, if all parts have it: B of size D cost B D³, one of B·D B³ D³.
    sizes = {shape[0] if shape else 1 for shape in shapes}
    return Rows(shapes, max(1, sizes.pop()) if len(sizes) == 1 else 1)


def _dtypes(y: State) -> tuple[torch.dtype, torch.dtype]:
    """Return the coarsest and the widest dtype of a state."""
    dtypes = sorted((part.dtype for part in y), key=RESOLUTION.__getitem__)
    return dtypes[-1], dtypes[0]


def _moved_in_time(
    vector_field: VectorField, segment: Segment, time_gradients: TimeGradients | None, shift: Tensor
) -> VectorField:
    """Return the field as the steps of a segment see it, with the times moved by `shift`, which is 0."""
    if time_gradients is not None:
        (shift,) = time_gradients.scale_by_dt(segment, (shift,))  # of a step, so a fraction of its segment
    return restrict_to_segment(lambda t, y, used=True: vector_field(t + shift, y, used), segment, time_gradients)


def _jacobian(f0: State, leaves: State, rows: Rows, create_graph: bool, check: bool) -> tuple[Tensor, bool]:
    """Return ∂f/∂y (B, D, D), all its columns' products made in one batched backward pass; and with `check` whether
    the rows are independent of each other."""
    size, count = rows.width, rows.count
    if count * size * size > LARGEST_JACOBIAN:
        raise ValueError(
            f"a Rosenbrock method needs the Jacobian of the field, here {count} x {size} x {size} numbers, which is "
            "too large; use an explicit method such as solver.method=dopri5."
        )
    # Cotangent e_i in every row gives row i of every J: D products serve all B of them.
    coarsest, widest = _dtypes(leaves)
    identity = torch.eye(size, dtype=widest, device=leaves[0].device)
    cotangents = identity.unsqueeze(1).expand(size, count, size)
    # Numbers in [1, 2) that differ from row to row (multiples of the golden ratio): what comes from another row than
    # its own shows in the product with them.
    weights = (1 + torch.arange(count * size, dtype=torch.float64) * 0.6180339887 % 1).to(coarsest).to(identity)
    if check := check and count > 1:
        cotangents = torch.cat([cotangents, weights.reshape(1, count, size)])
    products: Sequence[Tensor | None] = [None] * len(leaves)
    pairs = [(k, x) for k, x in zip(f0, rows.restore(cotangents, leaves)) if k.requires_grad] if size else []
    if pairs:
        values, weighed = zip(*pairs)
        batched = {"retain_graph": True, "create_graph": create_graph, "is_grads_batched": True}
        products = torch.autograd.grad(values, leaves, weighed, allow_unused=True, **batched)
    filled = [x.new_zeros(len(cotangents), *x.shape) if g is None else g for g, x in zip(products, leaves)]
    table = torch.cat([g.reshape(len(cotangents), count, x.numel() // count) for g, x in zip(filled, leaves)], dim=-1)
    jacobian = table[:size].transpose(0, 1)  # (D, B, D): row, sample, column -> (B, D, D)
    if not check:
        return jacobian, True
    with torch.no_grad():
        mismatch = (table[size] - (weights.reshape(count, 1, size) @ jacobian).squeeze(1)).abs()
        allowed = (ROUNDING * torch.finfo(coarsest).eps) * jacobian.abs().sum(1)
        return jacobian, not bool((mismatch > allowed).any())  # a NaN says nothing of the rows


def _time_derivative(f0: State, shift: Tensor, rows: Rows, create_graph: bool) -> Tensor | None:
    """Return ∂f/∂t (B, D): the derivative, by v, of the derivative of v · f by the time."""
    values = [k for k in f0 if k.requires_grad]
    if not values:
        return None
    # Backward twice goes forward: v -> vᵀ ∂f/∂t is linear in v, and its derivative by v is ∂f/∂t. Any v serves.
    v = [torch.zeros_like(k, requires_grad=True) for k in values]
    (along,) = torch.autograd.grad(values, (shift,), v, create_graph=True, allow_unused=True)
    if along is None or not along.requires_grad:
        return None
    products = torch.autograd.grad(along, v, retain_graph=True, create_graph=create_graph, allow_unused=True)
    given = iter(products)
    parts = [next(given) if k.requires_grad else None for k in f0]
    return rows.flatten([torch.zeros_like(k) if x is None else x for k, x in zip(f0, parts)])
