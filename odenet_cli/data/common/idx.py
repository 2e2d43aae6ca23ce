"""Read MNIST's idx files (LeCun): a big-endian magic number, the dimensions as 32-bit numbers, then the bytes."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy
import torch
from torch import Tensor

from odenet_cli.data.common.download import reason
from odenet_cli.errors import RequestError

IMAGES, LABELS = 0x803, 0x801
KINDS = {IMAGES: "images", LABELS: "labels"}
SIDE = 28
MAX_SAMPLES = 1_000_000  # bounds the amount of data that a header can request


class Idx(NamedTuple):
    """Hold the values of a file, (N, 28, 28) or (N,) uint8, and the SHA-256 of its unpacked bytes."""

    values: Tensor
    sha256: str


def read_idx(path: Path, magic: int, remedy: str) -> Idx:
    """Return the images or labels (`magic`) in `path`, which may be compressed (`.gz`).

    Raise RequestError, naming the file, the expected and the actual value, unless magic number, counts, size and the
    range of the labels are right.
    """
    try:
        if path.exists() and not path.is_file():
            raise _Mismatch("a file", "a directory" if path.is_dir() else "a device or a pipe")
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(16 if magic == IMAGES else 8)
            count, *shape = _check_header(header, magic)
            size = count * (SIDE * SIDE if magic == IMAGES else 1)
            content = file.read(size + 1)  # one more byte detects a longer file, and makes gzip verify its checksum
        expected = f"{len(header) + size:,} bytes, as its header promises for {count:,} {KINDS[magic]}"
        if len(content) != size:
            raise _Mismatch(expected, "more" if len(content) > size else f"{len(header) + len(content):,} bytes")
        values = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(count, *shape)
        if magic == LABELS and int(values.max()) > 9:
            first = int((values > 9).nonzero()[0])
            raise _Mismatch("labels 0 to 9", f"{int(values[first])} as label number {first}")
        return Idx(values, hashlib.sha256(header + content).hexdigest())
    except _Mismatch as mismatch:
        expected, actual = mismatch.args
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        expected, actual = "a whole gzip file", f"a damaged one ({reason(error)})"
    except OSError as error:
        expected, actual = "a file that can be read", reason(error)
    raise RequestError(f"{path} is damaged.\n  Expected {expected}; found {actual}.\n  {remedy}")


class _Mismatch(Exception):
    """Signal a difference; args: the expected and the actual value."""


def _check_header(header: bytes, magic: int) -> list[int]:
    """Return the dimensions in a header, (N, 28, 28) or (N,)."""
    length = 16 if magic == IMAGES else 8
    if header[:4] != magic.to_bytes(4, "big"):
        raise _Mismatch(f"the magic number 0x{magic:08x} of idx {KINDS[magic]}", _describe_start(header))
    if len(header) < length:
        raise _Mismatch(f"a header of {length} bytes", f"{len(header)} bytes in all")
    count, *shape = numpy.frombuffer(header, ">u4")[1:].tolist()
    if any(side != SIDE for side in shape):
        raise _Mismatch(f"images of {SIDE}×{SIDE} pixels", f"{shape[0]}×{shape[1]}")
    if not 1 <= count <= MAX_SAMPLES:
        raise _Mismatch(f"1 to {MAX_SAMPLES:,} {KINDS[magic]}", f"{count:,} in its header")
    return [count, *shape]


def _describe_start(header: bytes) -> str:
    """Guess the kind of a file from its first bytes."""
    if len(header) < 4:
        return f"{len(header)} byte{'s' * (len(header) != 1)} in all"
    if header.lstrip().startswith(b"<"):
        return "text that begins like a web page (HTML), perhaps a server's error message"
    if header.startswith(b"\x1f\x8b"):
        return "gzip data; its name should end in .gz"
    number = int.from_bytes(header[:4], "big")
    if number in KINDS:
        return f"0x{number:08x}, the magic number of idx {KINDS[number]}"
    swapped = KINDS.get(int.from_bytes(header[:4], "little"))
    return f"0x{number:08x}" + (f", that of idx {swapped} in the wrong byte order (little-endian)" if swapped else "")
