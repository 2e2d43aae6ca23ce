"""Noise: the field is no function of t and y."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from odenet_cli.ode.diagnosis.finding import Finding, Look
from odenet_cli.ode.diagnosis.trace import Case
from odenet_cli.ode.resolution import RESOLUTION
from odenet_cli.ode.state import State, rms
from odenet_cli.ode.transforms import is_finite


def find(look: Look) -> Finding | None:
    """Find evaluations at one point that differ by more than rounding does."""
    # Where the solve began, where it ended, and where steps were rejected: noise may come with time, or with a state.
    points = [(look.t0, look.rhs.y0), look.trace.end, *((seen.t, seen.y) for seen in [*look.trace.resisted][-1:])]
    return next((found for t, y in points if (found := _at(look, t, y)) is not None), None)


def _at(look: Look, t: float, y: State) -> Finding | None:
    """Find evaluations at (t, y) that differ."""
    before = torch.random.get_rng_state()
    # Clones, so that a field which writes into its state is not taken for a noisy one.
    values = [look.f(t, tuple(part.clone() for part in y)) for _ in range(4)]
    if not all(is_finite(part) for value in values for part in value):
        return None
    size = max(map(rms, values))
    apart = max(
        rms(tuple(a.cpu().double() - b.cpu().double() for a, b in zip(value, values[0]))) for value in values[1:]
    )
    eps = max(RESOLUTION[part.dtype] for part in y)
    # A reduction on a GPU may round differently each time: a thousand roundings are no noise yet.
    if apart <= 1e3 * eps * size:
        return None
    # On a GPU it is the device's generator that moves, which is not looked at: noise there is taken for drawn.
    random = not torch.equal(before, torch.random.get_rng_state()) or any(part.is_cuda for part in y)
    source = "it draws random numbers at each evaluation" if random else "it changes from call to call"
    remedy = (
        "draw once a solve and hand it over in args; switch dropout off inside the field (field.eval(), p=0)"
        if random
        else "let the field keep no state of its own: what changes from solve to solve goes into args"
    )
    # While the cure is tried the field is what its user would make it: each evaluation draws the same numbers.
    state = torch.random.get_rng_state()

    def repair(case: Case) -> Case:
        def frozen(t: Tensor, y: Any, *args: Any) -> Any:
            torch.random.set_rng_state(state)
            return (case.field if random else copy.deepcopy(case.field))(t, y, *args)

        return replace(case, field=frozen)

    evidence = {"difference of two evaluations, relative": apart / size}
    reason = f"two evaluations at t = {t:.6g} differ: {source}, and is no field of an equation"
    return Finding("noise", reason, evidence, [{"field": remedy}], repair)
