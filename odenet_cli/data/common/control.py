"""Interpolate controls between the times at which they are given, by piecewise polynomials."""

from __future__ import annotations

import torch
from torch import Tensor


def coefficients(times: Tensor, values: Tensor, counts: Tensor, kind: str) -> Tensor:
    """Return the coefficients of (t - t_k)^0, (t - t_k)^1, … from each row to the next: (R, 1, 2 or 4, C).

    times, values  (R,) and (R, C) of concatenated series with `counts` rows each
    kind           step: constant until the next row; linear; hermite: cubic, with the slope at each row of the parabola
                   through it and its neighbours (de Boor, "A practical guide to splines", 1978, chapter IV: cubic
                   Bessel interpolation)

    After the last row of a series the value is constant. Backward differences instead of the parabola's slope (Morrill,
    Kidger, Yang & Lyons, "Neural controlled differential equations for online prediction tasks", 2021) would look ahead
    only to the next row, but have order 2, not 3, and here the future is known.
    """
    if kind == "step":
        return values[:, None]
    starts, ends = counts.cumsum(0) - counts, counts.cumsum(0) - 1
    h, chord = torch.ones_like(times), torch.zeros_like(values)
    h[:-1] = times.diff()
    h[ends] = 1.0
    chord[:-1] = values.diff(dim=0) / h[:-1, None]
    chord[ends] = 0.0
    if kind == "linear":
        return torch.stack((values, chord), 1)
    m = _slopes(h[:, None], chord, starts, ends)
    m_next = m.roll(-1, 0)
    square = (3 * chord - 2 * m - m_next) / h[:, None]
    cube = (m + m_next - 2 * chord) / h[:, None].square()
    parts = torch.stack((values, m, square, cube), 1)
    parts[ends, 1:] = 0.0
    return parts


def _slopes(h: Tensor, chord: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
    """Return the slope at each row, (R, C), from the steps `h` (R, 1) and the chords (R, C) to the next row."""
    before, chord_before = h.roll(1, 0), chord.roll(1, 0)
    m = (h * chord_before + before * chord) / (before + h)
    # The slope of a parabola's chord is the mean of the slopes at its ends.
    long = ends - starts >= 2
    m[starts], m[ends] = chord[starts], chord_before[ends]
    m[starts[long]] = 2 * chord[starts[long]] - m[starts[long] + 1]
    m[ends[long]] = 2 * chord[ends[long] - 1] - m[ends[long] - 1]
    return m
