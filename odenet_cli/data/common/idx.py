"""A reader of MNIST's idx files that believes nothing: every byte of a file is accounted for before it is used.

The format is that of LeCun's page: a big-endian magic number (0, 0, type 8 = bytes, number of dimensions), the
dimensions as 32-bit numbers, then the bytes. A `.gz` beside is read as if it were unpacked.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import IO, NamedTuple

import torch
from torch import Tensor

from odenet_cli.errors import RequestError

IMAGES, LABELS = 0x803, 0x801
SIDE = 28
MOST = 1_000_000  # samples; bounds what a header can make us read
CHUNK = 1 << 20


class Idx(NamedTuple):
    """A sound file.

    values  (N, 28, 28) or (N,) uint8
    sha256  of the whole unpacked file
    """

    values: Tensor
    sha256: str


def exists(path: Path) -> bool:
    """Whether anything has this name. A link to nowhere counts: it is then named, and never replaced."""
    try:
        path.lstat()
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise RequestError(f"{path} cannot be reached: {reason(error)}.") from None
    return True


def reason(error: Exception) -> str:
    """The few words of an exception that say what happened."""
    cause = getattr(error, "reason", None)  # urllib wraps what it met
    if isinstance(cause, Exception):
        return reason(cause)
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def read(path: Path, magic: int, remedy: str) -> Idx:
    """The images or labels (`magic`) in `path`; a `RequestError` says what was expected, what found, and `remedy`."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise _Unsound("a file", "a directory" if stat.S_ISDIR(mode) else "a device or a pipe")
        with path.open("rb") as plain:
            if path.suffix == ".gz":
                _starts_like_gzip(plain)
                with gzip.open(plain) as unpacked:
                    return _parse(unpacked, None, magic)
            return _parse(plain, os.fstat(plain.fileno()).st_size, magic)
    except _Unsound as unsound:
        expected, found = unsound.args
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        expected, found = "a whole gzip file", f"a damaged one ({reason(error)})"
    except (OSError, ValueError) as error:
        expected, found = "a file that can be read", reason(error)
    raise RequestError(f"{path} is not sound.\n  Expected {expected}; found {found}.\n  {remedy}")


class _Unsound(Exception):
    """args: expected, found"""


def _parse(file: IO[bytes] | gzip.GzipFile, size: int | None, magic: int) -> Idx:
    """`size` of the file in bytes, where it is known before reading."""
    what = "images" if magic == IMAGES else "labels"
    header = file.read(16 if magic == IMAGES else 8)
    found = struct.unpack(">I", header[:4])[0] if len(header) >= 4 else None
    if found != magic:
        raise _Unsound(f"the magic number 0x{magic:08x} of idx {what}", _first_bytes(header))
    if len(header) < (16 if magic == IMAGES else 8):
        raise _Unsound(f"a header of {16 if magic == IMAGES else 8} bytes", f"{len(header)} bytes in all")

    count, *shape = struct.unpack(f">{len(header) // 4 - 1}I", header[4:])
    if any(side != SIDE for side in shape):
        raise _Unsound(f"images of {SIDE}×{SIDE} pixels", f"{shape[0]}×{shape[1]}")
    if not 1 <= count <= MOST:
        raise _Unsound(f"1 to {MOST:,} {what}", f"{count:,} in its header")

    promised = len(header) + count * (SIDE * SIDE if shape else 1)
    says = f"{promised:,} bytes, as its header promises for {count:,} {what}"
    if size is not None and size != promised:
        raise _Unsound(says, f"{size:,} bytes")

    content = bytearray(header)
    # One byte more than promised: it shows a longer file, makes gzip check its sum, and stops an endless one.
    while len(content) <= promised and (more := file.read(min(CHUNK, promised + 1 - len(content)))):
        content += more
    if len(content) != promised:
        raise _Unsound(says, f"{len(content):,} bytes" if len(content) < promised else "more")

    values = torch.frombuffer(content, dtype=torch.uint8, offset=len(header)).view(count, *shape)
    if magic == LABELS and int(values.max()) > 9:
        first = int((values > 9).nonzero()[0])
        raise _Unsound("labels 0 to 9", f"{int(values[first])} as label number {first}")
    return Idx(values, hashlib.sha256(content).hexdigest())


def _starts_like_gzip(file: IO[bytes]) -> None:
    start = file.read(16)
    if start[:2] != b"\x1f\x8b":
        raise _Unsound("a gzip file", _first_bytes(start))
    file.seek(0)


def _first_bytes(header: bytes) -> str:
    """A guess at what a file is that does not begin as it should."""
    if len(header) < 4:
        return f"{len(header)} byte{'' if len(header) == 1 else 's'} in all"
    if header.lstrip()[:1] == b"<":
        return "text that begins like a web page (HTML), perhaps a server's error message"
    if header[:2] == b"\x1f\x8b":
        return "gzip data; its name should end in .gz"
    known = {IMAGES: "idx images", LABELS: "idx labels"}
    for order, remark in ((">I", ""), ("<I", " in the wrong byte order (little-endian)")):
        number = struct.unpack(order, header[:4])[0]
        if number in known:
            return f"0x{struct.unpack('>I', header[:4])[0]:08x}, the magic number of {known[number]}{remark}"
    return f"0x{struct.unpack('>I', header[:4])[0]:08x}"
