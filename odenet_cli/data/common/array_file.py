"""Read points from NumPy arrays, `.npy` and `.npz`, as the cells of a table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from odenet_cli.data.common.npz import read_arrays, read_headers
from odenet_cli.data.common.splits import PARTS, WORDS
from odenet_cli.data.common.table_cells import Cells, brief
from odenet_cli.data.common.table_stored import stored_cells
from odenet_cli.errors import RequestError

SUFFIXES = (".npy", ".npz")
WHOLE = ("x", "data", "points")  # names of the array with all points in a .npz of several arrays
SPLIT = "split"  # the column that names the array of each row of a .npz


def read(path: Path) -> Cells:
    """Read an array (N, D) or (N,), or the arrays train, valid and test; columns are x1, x2, … or a record's fields.

    Raises RequestError for any other file.
    """
    if path.suffix == ".npz":
        chosen = _chosen(path, [*read_headers(path)])
        arrays = read_arrays(path, [name for name, _ in chosen])
    else:
        chosen, arrays = [("", "")], [_array(path)]
    frames = [
        _frame(path, name, array).with_columns(*([pl.lit(part).alias(SPLIT)] if part else []))
        for (name, part), array in zip(chosen, arrays)
    ]
    names = [name for name in frames[0].columns if name != SPLIT]
    for frame in frames[1:]:
        if frame.columns != frames[0].columns:
            raise RequestError(f"{path}: its arrays have {len(names)} and {frame.width - 1} columns; make them alike.")
    frame = pl.concat(frames, how="vertical_relaxed")
    if frame.is_empty():
        raise RequestError(f"{path} contains no points: each row is a point.")
    return stored_cells(path, frame, 1, [])


def _array(path: Path) -> Any:
    """Return the array of a `.npy`; arrays of objects are refused, since they can contain code."""
    try:
        return np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise RequestError(f"{path} is not a NumPy array of numbers: {brief(' '.join(str(error).split()))}") from error


def _chosen(path: Path, arrays: list[str]) -> list[tuple[str, str]]:
    """Return (name, part) of the arrays of points; the part is empty if all are in one array."""
    words = [(WORDS.get(name.lower().removeprefix("x_").removesuffix("_x")), name) for name in arrays]
    named = [(part, name) for part, name in words if part is not None]
    parts = dict(named)
    if "train" in parts and "test" in parts and len(parts) == len(named):
        return [(parts[part], part) for part in PARTS if part in parts]
    whole = arrays if len(arrays) == 1 else [name for name in arrays if name.lower() in WHOLE]
    if len(whole) != 1:
        raise RequestError(
            f"{path} contains the arrays {brief(', '.join(arrays))}. Save the points as one, x (N, D), or as train, "
            "valid and test."
        )
    return [(whole[0], "")]


def _frame(path: Path, name: str, array: Any) -> pl.DataFrame:
    """Return the columns of an array as numbers."""
    what = f"{path}{f', {name}' if name else ''}"
    if array.dtype.names:
        array, names = np.stack([array[field] for field in array.dtype.names], -1), list(array.dtype.names)
    else:
        array = array[:, None] if array.ndim == 1 else array
        names = [f"x{n + 1}" for n in range(array.shape[1])] if array.ndim == 2 else []
    if array.ndim != 2 or not names or array.dtype.kind not in "iufb":
        raise RequestError(
            f"{what} is an array {array.shape} of {array.dtype}; points must be numbers (N, D), one row for each point."
        )
    return pl.from_numpy(array.astype(np.float64, copy=False), schema=names, orient="row")
