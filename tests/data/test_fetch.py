"""A download ends in whole files or in none, and soon; `data=auto` always has something to train on."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.server
import socket
import threading
import time

import pytest

from odenet_cli import data
from odenet_cli.data import mnist
from odenet_cli.data.common import download
from odenet_cli.errors import RequestError


@pytest.fixture
def offline(monkeypatch):
    """Every mirror fails at once."""

    def refuse(*_):
        raise OSError("mirror.example: Name or service not known")

    monkeypatch.setattr(download, "fetch", refuse)


@pytest.fixture
def mirror(tmp_path, sound, monkeypatch):
    """A host on this machine that serves the small set as if it were MNIST, behind one that refuses connections."""
    from torchvision.datasets import MNIST

    served = tmp_path / "served"
    served.mkdir()
    for name, content in sound.items():
        (served / f"{name}.gz").write_bytes(gzip.compress(content))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(served)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        closed = unused.getsockname()[1]
    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in served.iterdir()}
    monkeypatch.setattr(MNIST, "resources", sorted(md5.items()))
    monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{port}/" for port in (closed, server.server_port)])
    sums = {name: hashlib.sha256(content).hexdigest() for name, content in sound.items()}
    monkeypatch.setattr(mnist.Source, "original", sums)
    yield served
    server.shutdown()
    server.server_close()


def test_missing_files_come_from_the_mirror_that_answers(mirror, sound, tmp_path):
    root = tmp_path / "new" / "root"
    record = data.prepare("mnist", {"root": str(root), "download": "true", "validation": 10})
    assert record["warning"] is None
    assert {path.name: path.read_bytes() for path in (root / "MNIST" / "raw").iterdir()} == sound


def test_only_what_is_missing_is_fetched(mirror, raw, sound):
    (raw / "t10k-labels-idx1-ubyte").unlink()
    before = {path: path.stat().st_mtime_ns for path in raw.iterdir()}
    data.prepare("mnist", {"root": str(raw.parents[1]), "validation": 10})
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == sound


def test_a_download_with_the_wrong_sum_leaves_nothing(mirror, tmp_path):
    (mirror / "t10k-labels-idx1-ubyte.gz").write_bytes(b"<html>")
    with pytest.raises(data.Unavailable, match="cannot be downloaded"):
        data.prepare("mnist", {"root": str(tmp_path / "new"), "download": True})
    assert not (tmp_path / "new").exists()


def test_another_set_is_not_completed_with_the_original(offline, raw):
    (raw / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(RequestError, match="its other files are those of another set"):
        data.prepare("mnist", {"root": str(raw.parents[1])})


def test_a_host_that_never_answers_is_given_up(tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    monkeypatch.setattr(download, "STALL_S", 0.5)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setattr(MNIST, "mirrors", [f"http://127.0.0.1:{silent.getsockname()[1]}/"])
        begin, timeout = time.monotonic(), socket.getdefaulttimeout()
        with pytest.raises(data.Unavailable, match=r"no answer for 0\.5 s"):
            data.prepare("mnist", {"root": str(tmp_path / "new"), "download": "true"})
    assert time.monotonic() - begin < 5
    assert socket.getdefaulttimeout() == timeout
    assert not (tmp_path / "new").exists()


def test_an_explicit_root_must_exist_unless_it_is_to_be_made(offline, tmp_path):
    root = tmp_path / "my data"
    for value in ("auto", "false", False):
        with pytest.raises(RequestError, match=f"does not exist.\n.*odenet data mnist 'data.root={root}'"):
            data.prepare("mnist", {"root": str(root), "download": value})
    with pytest.raises(data.Unavailable, match="Name or service not known"):
        data.prepare("mnist", {"root": str(root), "download": "true"})
    assert not root.exists()


def test_download_false_never_downloads(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "fetch", lambda *_: pytest.fail("downloaded"))
    for value in ("false", False):
        with pytest.raises(data.Unavailable, match=r"data\.download is false"):
            data.prepare("mnist", {"root": str(tmp_path), "download": value})


def test_auto_is_mnist_where_it_is_on_disk(raw, caplog):
    options = {"root": str(raw.parents[1]), "validation": 10, "crop": None, "surplus": 1}
    assert data.resolve_auto(options) == "mnist"
    assert "data=auto: using mnist" in caplog.text


def test_auto_is_digits_without_a_network(offline, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("ODENET_DATA", str(tmp_path / "cache"))
    begin = time.monotonic()
    assert data.resolve_auto({"root": None}) == "digits"
    assert time.monotonic() - begin < 5
    assert "data=auto: using digits" in caplog.text
    assert "Name or service not known" in caplog.text
    assert not (tmp_path / "cache").exists()


def test_auto_does_not_hide_damaged_files_or_a_wrong_root(offline, raw, tmp_path):
    (raw / "t10k-labels-idx1-ubyte").write_bytes(b"x")
    for root in (raw.parents[1], tmp_path / "nowhere"):
        with pytest.raises(RequestError) as caught:
            data.resolve_auto({"root": str(root)})
        assert not isinstance(caught.value, data.Unavailable)
