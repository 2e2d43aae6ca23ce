"""A file that is not sound is named, with what was expected and found; no data of the user's are changed."""

import gzip
import http.server
import struct
import threading
import time
import zlib

import pytest
from faults_kit import content, tiny_mnist

ROW = "6 bad data"
slow, numerics = pytest.mark.slow, pytest.mark.numerics
WORDS = (
    "train",
    "data=mnist",
    "data.root=root",
    "data.download=false",
    "data.validation=10",
    "device=cpu",
    "model=mlp",
)
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
HTML = b"<!DOCTYPE html><html><body>404 Not Found</body></html>"


def endless(good):
    """A sound beginning and then 2 GiB of zeros, in 2 MB."""
    packer = zlib.compressobj(1, wbits=31)
    block = packer.compress(good) + packer.flush(zlib.Z_FULL_FLUSH)
    return block + (packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)) * 2048


SPOILT = {
    "missing": (LABELS, lambda path: path.unlink(), "Missing: train-labels-idx1-ubyte"),
    "truncated": (IMAGES, lambda path: path.write_bytes(path.read_bytes()[:-1]), "Expected 47,056 bytes"),
    "one byte long": (IMAGES, lambda path: path.write_bytes(b"\0"), "found 1 byte in all"),
    "wrong magic": (IMAGES, lambda path: spoil(path, 3, 1), "Expected the magic number 0x00000803"),
    "wrong byte order": (LABELS, lambda path: path.write_bytes(struct.pack("<2I", 0x801, 60)), "little-endian"),
    "HTML inside": (IMAGES, lambda path: path.write_bytes(HTML), "like a web page"),
    "another image size": (IMAGES, lambda path: spoil(path, 11, 32), "Expected images of 28×28 pixels; found 32×28"),
    "a count that lies": (IMAGES, lambda path: spoil(path, 7, 61), "found 47,056 bytes"),
    "a label out of range": (LABELS, lambda path: spoil(path, 20, 10), "Expected labels 0 to 9; found 10"),
    "one label short": (LABELS, lambda path: (spoil(path, 7, 59), cut(path)), "Expected 60 labels"),
    "a directory": (IMAGES, lambda path: (path.unlink(), path.mkdir()), "found a directory"),
    "a loop of links": (IMAGES, lambda path: (path.unlink(), path.symlink_to(path)), "Too many levels of symbolic"),
    "damaged gz": (IMAGES, lambda path: packed(path, lambda data: gzip.compress(data)[:-20]), "a damaged one"),
    "endless gz": (LABELS, lambda path: packed(path, endless), "found more"),
}


def spoil(path, place, value):
    data = bytearray(path.read_bytes())
    data[place] = value
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def packed(path, pack):
    path.with_name(f"{path.name}.gz").write_bytes(pack(path.read_bytes()))
    path.unlink()


@numerics
def test_a_file_that_is_not_sound_is_named(odenet, tmp_path, happened):
    """Fourteen ways to spoil a file: exit 2 naming it, what was expected and what found; no folder; nothing changed."""
    bad, said = [], []
    for number, (name, how, says) in enumerate(SPOILT.values()):
        home = tmp_path / f"{number}"
        how(tiny_mnist(home / "root") / name)
        before = content(home)
        done = odenet(*WORDS, cwd=home, limits={"RLIMIT_AS": 8 << 30})
        if done.code != 2 or says not in done.err or name not in done.err or content(home) != before:
            bad.append((says, done))
        said.append(done.err.count("\n"))
    assert bad == []
    happened(f"{len(SPOILT)} files refused in {max(said)} lines at most")


@numerics
def test_a_network_that_refuses(odenet, tmp_path):
    """No network: exit 2 naming the mirrors and the ways out, nothing under a final name."""
    begun = time.monotonic()
    done = odenet("data", "mnist", "data.root=new", "data.download=true", **NOBODY)
    assert done.code == 2
    assert time.monotonic() - begun < 60
    for part in ("cannot be downloaded", "data=digits", "odenet data mnist data.root=new"):
        assert part in done.err
    assert not (tmp_path / "new").exists()


NOBODY = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")


@slow
def test_a_network_that_never_answers(odenet, tmp_path, happened):
    """A server that takes the request and says nothing: exit 2 within 60 s, nothing under a final name."""

    class Silent(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            time.sleep(90)

        do_CONNECT = do_GET

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    begun = time.monotonic()
    done = odenet(
        *WORDS[:2],
        "data.root=new",
        "data.download=true",
        **dict.fromkeys(NOBODY, f"http://127.0.0.1:{server.server_port}"),
    )
    seconds = time.monotonic() - begun
    server.shutdown()
    assert done.code == 2
    assert seconds < 60
    assert not (tmp_path / "new").exists()
    happened(f"given up after {seconds:.0f} s")
