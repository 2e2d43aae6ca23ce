"""What the dtype of a solve can resolve: the errors that a tolerance controls, and the times that a field sees."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from itertools import pairwise

import torch

from odenet_cli.ode.errors import PrecisionWarning
from odenet_cli.ode.state import State
from odenet_cli.precision import EPS, check_tolerance

# A complex number resolves what its two parts do.
_HALVES, _SINGLES, _DOUBLES = torch.complex32, torch.complex64, torch.complex128
NAMES = {getattr(torch, name): name for name in EPS} | {
    _HALVES: "float16", _SINGLES: "float32", _DOUBLES: "float64"
}  # fmt: skip
RESOLUTION = {dtype: EPS[name] for dtype, name in NAMES.items()}


def check_errors(key: str, rtol: float, atol: float, state: State) -> None:
    """Warn where the tolerances are below the resolution of a component, which is then used instead; raise ValueError
    where they are far below that of all components."""
    eps = [RESOLUTION[part.dtype] for part in state]
    coarse, fine = max(eps), min(eps)
    if rtol >= coarse:
        return
    # Refused is what no component resolves. What only the coarse ones do not is raised for them alone (`error_scale`).
    names = {RESOLUTION[part.dtype]: NAMES[part.dtype] for part in state}
    text = check_tolerance(f"{key}.rtol", rtol, names[fine])
    if coarse != fine:
        try:
            text = check_tolerance(f"{key}.rtol", rtol, names[coarse])
        except ValueError as error:
            text = str(error)
    if rtol == 0 and atol < coarse:
        text = (
            f"{key}.rtol=0 and {key}.atol={atol:g}: {names[coarse]} cannot resolve relative errors below {coarse:.1e}, "
            f"and {coarse:.1e} |y| is added to atol. dtype=float64 resolves smaller ones."
        )
    if text:
        # Of the line where the user calls the solver.
        warnings.warn(text, PrecisionWarning, stacklevel=6)


def check_times(ts: Sequence[float], shortest: float, dtype: torch.dtype) -> None:
    """Warn where `dtype`, in which the field sees the time, does not tell times apart that lie `shortest` apart."""
    spacing = RESOLUTION[dtype] * max(abs(ts[0]), abs(ts[-1]))
    if spacing > shortest and ts[0] != ts[-1]:
        warnings.warn(
            f"between t = {ts[0]:.6g} and {ts[-1]:.6g} {NAMES[dtype]} can only distinguish times {spacing:.1e} apart: "
            "a field that uses t gets it rounded, and relative changes of y of this size are lost. Start time at 0, "
            "take longer steps, or use dtype=float64.",
            PrecisionWarning,
            stacklevel=6,
        )


def check_time_gradients(ts: Sequence[float], state: State) -> None:
    """Raise ValueError where distinct times lie so close together that their gradients are lost in rounding."""
    # The gradient of a span is a sum of numbers as small as the span, divided by it.
    dtype = max((part.dtype for part in state), key=lambda dtype: torch.finfo(dtype).tiny)
    gap, limit = min((abs(b - a) for a, b in pairwise(ts)), default=math.inf), torch.finfo(dtype).tiny
    if gap < limit:
        raise ValueError(
            f"two times in ts lie {gap:.3g} apart, below the smallest normal number of {NAMES[dtype]} ({limit:.2g}): "
            "they have no gradients. Make them equal, move them apart, or pass ts.detach()."
        )
