"""The optimiser: weights or an initial state with numbers that no solver can use."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from odenet_cli.ode.diagnosis.finding import Finding, TracedSolve
from odenet_cli.ode.diagnosis.trace import Case
from odenet_cli.ode.state import rms
from odenet_cli.ode.transforms import is_finite

HUGE_WEIGHTS = 50.0  # of RMS times the root of the fan-in; an initialised layer of torch has 0.58, trained ones a few


def find(solve: TracedSolve) -> Finding | None:
    """Find weights or a start that are NaN, or weights that have grown far beyond those of any trained network."""
    if not solve.failed:
        return None
    # The initial state too: it may come from an encoder with such weights.
    names = {"y0" if solve.rhs.single else f"y0[{n}]": part for n, part in enumerate(solve.rhs.y0)}
    weights = solve.case.weights()
    nonfinite = {name: int((~torch.isfinite(x)).sum()) for name, x in {**names, **weights}.items() if not is_finite(x)}
    # RMS · √fan-in is by how much a layer enlarges a vector of independent numbers.
    layers = {n: x for n, x in weights.items() if isinstance(x, torch.nn.Parameter) and x.dim() > 1 and x.numel()}
    gains = {name: rms((x,)) * math.sqrt(x[0].numel()) for name, x in layers.items()}
    huge = {name: gain for name, gain in gains.items() if gain > HUGE_WEIGHTS}
    if not nonfinite and not huge:
        return None
    if nonfinite:
        first = next(iter(nonfinite))
        reason = f"{nonfinite[first]} of {({**names, **weights})[first].numel()} numbers of {first} are NaN or infinite"
        evidence: dict[str, Any] = {"numbers that are not finite": sum(nonfinite.values())}
        how = "with these numbers set to 0"
    else:
        first = max(huge, key=huge.__getitem__)
        reason = f"the weights of {first} are {huge[first] / 0.58:,.0f} times those of an initialised layer"
        evidence = {"RMS times root of fan-in": huge[first]}
        how = "with these weights scaled back to an initialised layer's"

    def repair(case: Case) -> Case:
        # For the trial only: with sound weights, to show that nothing else is wrong.
        parts = tuple(torch.nan_to_num(part, 0.0, 0.0, 0.0) for part in solve.rhs.y0)
        for name, tensor in case.weights().items():
            if name in nonfinite:
                tensor.data = torch.nan_to_num(tensor.data, 0.0, 0.0, 0.0)
            elif name in huge:
                tensor.data = tensor.data * (0.58 / huge[name])
        return replace(case, y0=solve.rhs.restore(parts))

    remedy = f"lower optim.lr, or set optim.clip=1, and go on from weights that were good; tried {how}"
    return Finding("optimiser", f"{reason}: the solver is not the cause", evidence, [{"field": remedy}], repair)
