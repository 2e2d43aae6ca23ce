"""A file that is not sound is named, with what was expected and found; nothing is read beyond what was promised."""

from __future__ import annotations

import gzip
import os
import re
import struct
import zlib
from pathlib import Path

import pytest

from odenet_cli import data
from odenet_cli.errors import RequestError

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def with_labels(*values: int) -> bytes:
    return struct.pack(">2I", 0x801, 60) + bytes([*values, *[0] * (60 - len(values))])


HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"

# name of the row: (file, what becomes of its bytes, what the message says)
ROWS = {
    "empty": (IMAGES, lambda good: b"", "0x00000803 of idx images; found 0 bytes in all"),
    "one byte": (IMAGES, lambda good: good[:1], "found 1 byte in all"),
    "header cut": (IMAGES, lambda good: good[:12], "a header of 16 bytes; found 12 bytes in all"),
    "truncated": (IMAGES, lambda good: good[:-1], "Expected 47,056 bytes, as its header .*; found 47,055 bytes"),
    "too long": (LABELS, lambda good: good + b"\0", "Expected 68 bytes.*; found more"),
    "wrong magic": (IMAGES, lambda good: b"\0\0\x0d\x03" + good[4:], "0x00000803.*; found 0x00000d03"),
    "labels for images": (IMAGES, lambda good: with_labels(), "found 0x00000801, the magic number of idx labels"),
    "wrong byte order": (IMAGES, lambda good: struct.pack("<4I", 0x803, 60, 28, 28) + good[16:], "little-endian"),
    "HTML": (IMAGES, lambda good: HTML, "found text that begins like a web page"),
    "gzip without .gz": (IMAGES, lambda good: gzip.compress(good), "found gzip data"),
    "other size": (IMAGES, lambda good: struct.pack(">4I", 0x803, 60, 32, 32), "28×28 pixels; found 32×32"),
    "count too high": (IMAGES, lambda good: good[:4] + struct.pack(">I", 61) + good[8:], "47,840 .*; found 47,056"),
    "count too low": (IMAGES, lambda good: good[:4] + struct.pack(">I", 59) + good[8:], "46,272 .*; found more"),
    "count absurd": (IMAGES, lambda good: good[:4] + b"\xff" * 4 + good[8:], "found 4,294,967,295 in its header"),
    "no samples": (LABELS, lambda good: struct.pack(">2I", 0x801, 0), "found 0 in its header"),
    "label out of range": (LABELS, lambda good: with_labels(1, 2, 10, 3), "0 to 9; found 10 as label number 2"),
    "one label short": (LABELS, lambda good: struct.pack(">2I", 0x801, 59) + good[8:-1], "60 labels.*; found 59"),
}


def refusal(raw: Path) -> str:
    before = {path: path.lstat().st_mtime_ns for path in raw.iterdir()}
    with pytest.raises(RequestError) as caught:
        data.prepare("mnist", {"root": str(raw.parents[1]), "validation": 10, "download": "false"})
    assert {path: path.lstat().st_mtime_ns for path in raw.iterdir()} == before
    message = str(caught.value)
    assert len(message.splitlines()) <= 12
    return message.replace("\n", " ")


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("packed", [False, True])
def test_an_unsound_file_is_named(raw, sound, row, packed):
    name, spoil, says = ROWS[row]
    content = spoil(sound[name])
    if packed:
        (raw / name).unlink()
        name, content = f"{name}.gz", gzip.compress(content)
    (raw / name).write_bytes(content)

    message = refusal(raw)
    assert str(raw / name) in message
    assert "odenet data mnist data.root=" in message
    says_so(says, message)


def says_so(pattern: str, message: str) -> None:
    with pytest.raises(AssertionError, match=pattern):
        raise AssertionError(message)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda packed: packed[:-20],
        lambda packed: packed[:-8] + bytes(4) + packed[-4:],
        lambda packed: packed[:40] + bytes(40) + packed[80:],
    ],
    ids=["cut", "wrong sum", "holes"],
)
def test_a_damaged_gzip_file_is_named(raw, sound, spoil):
    (raw / IMAGES).unlink()
    (raw / f"{IMAGES}.gz").write_bytes(spoil(gzip.compress(sound[IMAGES])))
    message = refusal(raw)
    assert f"{raw / IMAGES}.gz" in message
    assert "damaged" in message


@pytest.mark.parametrize("content", [b"", b"x", HTML])
def test_what_is_no_gzip_file_at_all_is_named(raw, content):
    (raw / IMAGES).unlink()
    (raw / f"{IMAGES}.gz").write_bytes(content)
    assert re.search("Expected (a whole gzip file|the magic number).*; found", refusal(raw))


def test_an_endless_gzip_file_is_read_no_further_than_promised(raw, sound):
    """A sound beginning, then 4 GiB of zeros in 4 MB: unpacking it all would take seconds and gigabytes."""
    packer = zlib.compressobj(1, wbits=31)
    content = packer.compress(sound[LABELS]) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    (raw / LABELS).unlink()
    (raw / f"{LABELS}.gz").write_bytes(content + block * 4096)
    assert "found more" in refusal(raw)


def test_a_directory_is_named(raw):
    (raw / IMAGES).unlink()
    (raw / IMAGES).mkdir()
    assert f"{raw / IMAGES} is damaged.   Expected a file; found a directory" in refusal(raw)


def test_a_pipe_is_not_waited_for(raw):
    (raw / IMAGES).unlink()
    os.mkfifo(raw / IMAGES)
    assert "found a device or a pipe" in refusal(raw)


def test_links_that_lead_nowhere_are_named(raw):
    (raw / IMAGES).unlink()
    (raw / IMAGES).symlink_to(raw / IMAGES)
    assert "Too many levels of symbolic links" in refusal(raw)
    (raw / IMAGES).unlink()
    (raw / IMAGES).symlink_to(raw / "nothing")
    assert "No such file or directory" in refusal(raw)


def test_a_missing_file_is_named(raw):
    (raw / "t10k-labels-idx1-ubyte").unlink()
    text = refusal(raw)
    assert "Missing: t10k-labels-idx1-ubyte. " in text
    assert "copy them there, unpacked or as .gz" in text


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to(path), lambda path: path.symlink_to("gone")])
def test_a_root_that_is_no_folder_is_named(tmp_path, make):
    root = tmp_path / "place"
    make(root)
    for download in ("auto", "true", "false"):
        with pytest.raises(RequestError, match=f"{root} is not a folder"):
            data.prepare("mnist", {"root": str(root), "download": download})


def test_a_folder_on_the_way_that_is_a_file_or_a_loop_is_named(tmp_path):
    (tmp_path / "MNIST").touch()
    with pytest.raises(RequestError, match=f"{tmp_path}/MNIST is not a folder"):
        data.prepare("mnist", {"root": str(tmp_path)})
    (tmp_path / "MNIST").unlink()
    (tmp_path / "MNIST").symlink_to(tmp_path / "MNIST")
    with pytest.raises(RequestError, match=f"{tmp_path}/MNIST is not a folder"):
        data.prepare("mnist", {"root": str(tmp_path)})
