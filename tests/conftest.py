"""`odenet` as its users start it: another process, an empty folder."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: what tests compute is small

FAKES = Path(__file__).parent / "fakes"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=20, help="how often tests/faults kills a run, of each kind")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("there is no CUDA device")


@pytest.fixture
def odenet(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `odenet <words>` in `tmp_path`; `fakes=True` puts stand-ins in the place of training and data."""

    def run(*words: str, fakes: bool = False, timeout: float = 300, **environ: str) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", **environ}
        env.pop("ODENET_REQUEST", None)
        if fakes:
            path = os.pathsep.join(filter(None, [str(FAKES), os.environ.get("PYTHONPATH")]))
            env |= {"ODENET_FAKES": "1", "PYTHONPATH": path}
        command = [sys.executable, "-m", "odenet_cli", *words]
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=timeout)

    return run
