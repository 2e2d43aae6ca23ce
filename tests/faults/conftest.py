"""The real command, broken in every way there is. `reliability.md` is made of what these tests say and find."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from faults_kit import environment

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items):
    """For the report: the row a test belongs to, and what it demands."""
    for item in items:
        if HERE in item.path.parents:
            item.user_properties.append(("row", item.module.ROW))
            item.user_properties.append(("demanded", (item.function.__doc__ or "").strip()))


@pytest.fixture
def happened(record_property):
    """Say for the report what was seen."""
    return lambda text: record_property("happened", text)


class Child:
    """A command under way."""

    def __init__(self, fork_server, pid, out, err):
        self.fork_server, self.pid, self.out_path, self.err_path = fork_server, pid, out, err
        self.code = None

    def send(self, number):
        os.kill(self.pid, number)

    def wait(self, timeout=300):
        """Its end: code (negative: the signal that killed it), out, err."""
        if self.code is None:
            timer = threading.Timer(timeout, self.send, [9])
            timer.start()
            self.code = self.fork_server.ask(wait=self.pid)["code"]
            timer.cancel()
        return SimpleNamespace(code=self.code, out=self.out, err=self.err)

    @property
    def out(self):
        return self.out_path.read_text() if self.out_path.is_file() else ""

    @property
    def err(self):
        return self.err_path.read_text()

    @property
    def alive(self):
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        return False

    def until(self, condition, timeout=120):
        """Wait until `condition()` holds while the command runs."""
        end = time.monotonic() + timeout
        while not condition():
            assert self.alive, self.wait()
            assert time.monotonic() < end
            time.sleep(0.002)

    def until_records(self, folder, number):
        path = folder / "metrics.jsonl"
        self.until(lambda: path.exists() and path.read_bytes().count(b"\n") >= number)


@pytest.fixture
def start(fork_server, tmp_path, tmp_path_factory):
    """Start `odenet <words>` in `tmp_path`."""
    children, said = [], tmp_path_factory.mktemp("said")

    def call(*words, before="", limits=None, umask=0o022, cwd=tmp_path, out=None, **environ):
        out, err = out or said / f"out{len(children)}", said / f"err{len(children)}"
        pid = fork_server.ask(
            argv=[str(word) for word in words],
            cwd=str(cwd),
            env=environment(tmp_path, environ),
            out=str(out),
            err=str(err),
            before=before,
            limits=limits or {},
            umask=umask,
        )["pid"]
        children.append(Child(fork_server, pid, out, err))
        return children[-1]

    yield call
    for child in children:
        if child.code is None:
            with contextlib.suppress(ProcessLookupError):
                child.send(9)
            child.wait()


@pytest.fixture
def odenet(start):
    """`odenet <words>` to its end: code, out, err."""

    def call(*words, timeout=300, **how):
        done = start(*words, **how).wait(timeout)
        assert "Traceback" not in done.err, done.err
        assert len([line for line in done.err.splitlines() if line.startswith(("error", "  "))]) <= 12, done.err
        return done

    return call


@pytest.fixture
def command(tmp_path):
    """Start the command from nothing, imports and all, as a process of its own."""

    def call(*words, **environ):
        return subprocess.Popen(
            [sys.executable, "-m", "odenet_cli", *words],
            cwd=tmp_path,
            env={**environment(tmp_path, environ), "PYTHONSAFEPATH": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return call
