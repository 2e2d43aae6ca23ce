"""`odenet` as a process of its own, in an empty folder."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import odenet_cli

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: what tests compute is small
# Without bytecode every process that a test starts, and every worker of xdist, compiles package and tests anew (4 s).
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

FAKES = Path(__file__).parent / "fakes"
ROOT = Path(odenet_cli.__file__).parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=20, help="how often tests/faults kills a run, of each kind")


def pytest_collection_finish() -> None:
    gc.collect()
    gc.freeze()  # imported modules and 6,000 collected tests: what is here need not be looked through by each test


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("there is no CUDA device")


class ForkServer:
    """Talk to `fork_server.py`: a process that has imported torch once, and forks a child for every command."""

    def __init__(self) -> None:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "faults")])}
        env.pop("ODENET_REQUEST", None)
        command = [sys.executable, str(ROOT / "tests" / "fork_server.py")]
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert json.loads(self.process.stdout.readline())["package"] == odenet_cli.__file__

    def ask(self, **request: Any) -> dict[str, Any]:
        """Return the answer to a request: `wait` for a child, or what to start (`fork_server.start`)."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    made = ForkServer()
    yield made
    made.close()


@pytest.fixture
def odenet(
    request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `odenet <words>` in `tmp_path`, as a process of its own.

    fakes    put stand-ins in the place of training and data
    fresh    start Python anew, imports and all, instead of forking a process that has them
    figures  draw those of a run at its end (as `fresh` does too): they take longer than the run
    """

    def run(
        *words: str,
        fakes: bool = False,
        fresh: bool = False,
        figures: bool = False,
        timeout: float = 300,
        **environ: str,
    ) -> subprocess.CompletedProcess[str]:
        env = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120", **environ}
        env.pop("ODENET_REQUEST", None)
        if fakes:
            path = os.pathsep.join(filter(None, [str(FAKES), os.environ.get("PYTHONPATH")]))
            env |= {"ODENET_FAKES": "1", "PYTHONPATH": path}
        if fresh:
            command = [sys.executable, "-m", "odenet_cli", *words]
            return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=timeout)

        out, err = (tmp_path_factory.mktemp("said") / name for name in ("out", "err"))
        server: ForkServer = request.getfixturevalue("fork_server")
        before = (FAKES / "sitecustomize.py").read_text() if fakes else ""
        place: dict[str, Any] = {"cwd": str(tmp_path), "env": env, "out": str(out), "err": str(err), "figures": figures}
        child = server.ask(argv=list(words), before=before, **place)["pid"]
        timer = threading.Timer(timeout, os.kill, [child, signal.SIGKILL])
        timer.start()
        code = server.ask(wait=child)["code"]
        timer.cancel()
        return subprocess.CompletedProcess(list(words), code, out.read_text(), err.read_text())

    return run


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how often a tensor's values are fetched by the host."""
    import torch

    count = [0]
    for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"):
        original = getattr(torch.Tensor, name)

        def counted(self: torch.Tensor, *args: Any, original: Callable[..., Any] = original, **kwargs: Any) -> Any:
            count[0] += self.dtype is not torch.uint8  # states of random generators lie on the host
            return original(self, *args, **kwargs)

        monkeypatch.setattr(torch.Tensor, name, counted)
    return count
