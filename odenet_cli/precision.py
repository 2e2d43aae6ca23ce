"""What a floating-point type can resolve: the rule for tolerances, shared by the commands and the solver core."""

from __future__ import annotations

EPS = {"bfloat16": 2.0**-7, "float16": 2.0**-10, "float32": 2.0**-23, "float64": 2.0**-52}
"""Distance from 1 to the next number."""


def check_tolerance(key: str, rtol: float, dtype: str, wider: str = "dtype") -> str | None:
    """Return a warning where `rtol` is below the resolution of `dtype`, which the error norm uses in its place.

    key    what the user set
    wider  the key that chooses a wider dtype

    Raise ValueError where it is below by more than a hundred: then another dtype was meant.
    """
    if not 0 < rtol < EPS[dtype]:
        return None
    if rtol < EPS[dtype] / 100:
        remedy = "no floating-point type here resolves it" if dtype == "float64" else f"use {wider}=float64"
        raise ValueError(f"{key}={rtol:g} is far below the resolution of {dtype}: {remedy}.")
    more = "" if dtype == "float64" else f" {wider}=float64 can."
    return (
        f"{key}={rtol:g} is below the resolution of {dtype}: such small errors cannot be measured, so {EPS[dtype]:.1e} "
        f"is used.{more}"
    )
