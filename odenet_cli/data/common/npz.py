"""Read the arrays of a `.npz` file (NumPy): headers first, without the numbers, and never a pickle."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy
from numpy.lib import format as npy

from odenet_cli.data.common.checks import memory_lacking
from odenet_cli.data.common.download import reason
from odenet_cli.data.common.faults import Faults
from odenet_cli.errors import RequestError

MADE = 'To write a .npz: numpy.savez("FILE.npz", x=x, y=y).'
TABLES = (".csv", ".tsv", ".txt", ".xlsx", ".xls", ".ods", ".parquet")


class Header(NamedTuple):
    """Hold the header of an array."""

    shape: tuple[int, ...]
    dtype: numpy.dtype[Any]


def read_headers(path: Path) -> dict[str, Header]:
    """Return the header of every array in the file; raise RequestError if it is no complete `.npz`."""
    if not path.exists():
        raise RequestError(f"data.path={path}: this file does not exist.")
    if not path.is_file():
        raise RequestError(f"data.path={path} is not a file but a folder, a pipe or a device. {MADE}")
    if path.suffix.lower() in TABLES:
        raise RequestError(
            f"{path} is a table, and data=arrays reads arrays. To read tables, use data=features data.y=NAME, "
            "data=table (series) and data=points (densities)."
        )
    faults, headers = Faults(path), dict[str, Header]()
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".npy"):
                    name = member.filename.removesuffix(".npy")
                    try:
                        headers[name] = _read_header(archive, member)
                    except ValueError as error:
                        faults.add(f"{name} is damaged: {' '.join(str(error).split())[:200]}", "Write the file again")
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as error:
        raise RequestError(f"{path} is not a complete .npz file ({reason(error)}): {_start(path)}. {MADE}") from error
    faults.raise_all()
    if not headers:
        raise RequestError(f"{path} contains no array. {MADE}")
    return headers


def _read_header(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Header:
    with archive.open(member) as file:
        version = npy.read_magic(file)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(file)
        size = file.tell()
    promised = size + dtype.itemsize * math.prod(shape)
    if not dtype.hasobject and member.file_size != promised:
        raise ValueError(f"its header announces {promised:,} bytes, and it has {member.file_size:,}")
    return Header(shape, dtype)


def _start(path: Path) -> str:
    """Guess the kind of a file from its first bytes."""
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(b"\x93NUMPY"):
        return "it is one array (.npy), and x and y are needed"
    return (
        "it begins like a zip file, but is truncated or damaged" if start.startswith(b"PK") else f"it begins {start!r}"
    )


def read_arrays(path: Path, names: list[str]) -> list[Any]:
    """Return these arrays; raise RequestError if they exceed the memory or are damaged."""
    headers = read_headers(path)
    needed = sum(headers[name].dtype.itemsize * math.prod(headers[name].shape) for name in names)
    if lacking := memory_lacking(needed):
        raise RequestError(f"{path}: its arrays {lacking}.")
    faults = Faults(path)
    with numpy.load(path, allow_pickle=False) as file:
        arrays = [_read_array(file, name, faults) for name in names]
    faults.raise_all()
    return arrays


def _read_array(file: Any, name: str, faults: Faults) -> Any:
    try:
        return file[name]
    except Exception as error:  # from the archive, its compression or the array: zlib.error is no OSError
        faults.add(f"{name} is damaged ({reason(error)})", "Write the file again")
        return None
