"""Small idx files to build sound and unsound copies of MNIST from."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import torch

TRAIN, TEST = 60, 20


def images(count: int, seed: int = 0) -> bytes:
    pixels = torch.randint(256, (count * 784,), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return struct.pack(">4I", 0x803, count, 28, 28) + bytes(pixels.tolist())


def labels(count: int) -> bytes:
    return struct.pack(">2I", 0x801, count) + bytes(i % 10 for i in range(count))


@pytest.fixture(scope="session")
def sound() -> dict[str, bytes]:
    return {
        "train-images-idx3-ubyte": images(TRAIN),
        "train-labels-idx1-ubyte": labels(TRAIN),
        "t10k-images-idx3-ubyte": images(TEST, seed=1),
        "t10k-labels-idx1-ubyte": labels(TEST),
    }


@pytest.fixture
def raw(tmp_path: Path, sound: dict[str, bytes]) -> Path:
    """ROOT/MNIST/raw with four sound files; ROOT is `raw.parents[1]`."""
    folder = tmp_path / "root" / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in sound.items():
        (folder / name).write_bytes(content)
    return folder
