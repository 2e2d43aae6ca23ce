"""A checkpoint is whole and checked, or refused by name; nothing in it runs."""

import os
import pickle
import random

import pytest
import torch

from odenet_cli.errors import RequestError
from odenet_cli.training import checkpoint

CONTENT = {
    "model": {"w": torch.linspace(-1, 1, 24).reshape(4, 6), "n": torch.tensor(3), "half": torch.ones(3).half()},
    "step": 7,
    "rate": 0.1,
    "names": ["a", "b"],
    "best": None,
    "flag": True,
}


def same(a, b):
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return type(a) is type(b) and a == b


def test_what_is_saved_is_loaded(tmp_path):
    path = tmp_path / "checkpoints" / "last.pt"
    checkpoint.save(path, CONTENT)
    assert same(checkpoint.load(path), CONTENT)
    assert os.listdir(path.parent) == ["last.pt"]
    checkpoint.save(path, CONTENT | {"step": 8})
    assert checkpoint.load(path)["step"] == 8
    assert checkpoint.load(checkpoint.previous(path))["step"] == 7


@pytest.mark.parametrize("moment", ["open", "fsync", "replace 1", "replace 2"])
def test_an_interrupted_write_leaves_the_old_one(tmp_path, monkeypatch, moment):
    class Killed(BaseException):
        pass

    path = tmp_path / "last.pt"
    checkpoint.save(path, CONTENT)
    checkpoint.save(path, CONTENT | {"step": 8})
    real, calls = os.replace, []

    def replace(a, b):
        calls.append(a)
        if len(calls) == int(moment[-1]):
            raise Killed
        real(a, b)

    def die(*_):
        raise Killed

    if moment == "open":
        monkeypatch.setattr("builtins.open", die)
    elif moment == "fsync":
        monkeypatch.setattr(os, "fsync", die)
    else:
        monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(Killed):
        checkpoint.save(path, CONTENT | {"step": 9})
    monkeypatch.undo()
    content, trouble = checkpoint.latest(path)
    assert content["step"] == 8
    assert trouble is None
    checkpoint.save(path, CONTENT | {"step": 10})
    assert checkpoint.latest(path)[0]["step"] == 10


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("kept") / "last.pt"
    checkpoint.save(path, CONTENT)
    return path.read_bytes()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_flipped_bit_never_changes_what_is_loaded(written, tmp_path):
    """Some bits of a zip file mean nothing (dates, padding); every other one is found."""
    path, draw, refused = tmp_path / "last.pt", random.Random(0), 0
    flips = [draw.randrange(8 * len(written)) for _ in range(600)]
    for bit in flips:
        damaged = bytearray(written)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            content = checkpoint.load(path)
        except RequestError as error:
            refused += str(path) in str(error)
        else:
            assert same(content, CONTENT), bit
    assert refused > len(flips) / 4


def test_every_flipped_bit_of_the_weights_is_found(written, tmp_path):
    path, numbers = tmp_path / "last.pt", CONTENT["model"]["w"].numpy().tobytes()
    start = written.index(numbers)
    for bit in range(8 * start, 8 * (start + len(numbers)), 5):
        damaged = bytearray(written)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        with pytest.raises(RequestError, match=r"last\.pt"):
            checkpoint.load(path)


@pytest.mark.parametrize("length", [0, 1, 100, 0.5, 0.99])
def test_a_truncated_file_is_refused(written, tmp_path, length):
    path = tmp_path / "last.pt"
    path.write_bytes(written[: int(length * len(written)) if isinstance(length, float) else length])
    with pytest.raises(RequestError, match=r"last\.pt is not a valid checkpoint"):
        checkpoint.load(path)


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("how", ["torch", "pickle", "inside"])
def test_code_in_a_checkpoint_does_not_run(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "last.pt"
    if how == "pickle":
        path.write_bytes(pickle.dumps(Bomb()))
    else:
        payload = {"format": 1, "sha256": "", "content": {"model": Bomb()}}
        torch.save(Bomb() if how == "torch" else payload, path)
    with pytest.raises(RequestError, match=r"last\.pt"):
        checkpoint.load(path)
    assert not (tmp_path / "exploded").exists()


def test_other_files_are_refused_by_what_they_are(tmp_path):
    path = tmp_path / "last.pt"
    for content, part in [
        ({"model": {}}, "not a checkpoint of odenet"),
        ([1], "not a checkpoint of odenet"),
        ({"format": 99, "sha256": "", "content": {}}, "format 99"),
        ({"format": 1, "sha256": "0" * 64, "content": {}}, "damaged"),
        ({"format": torch.ones(2), "sha256": "", "content": {}}, "format tensor"),
        ({"format": 1, "sha256": torch.ones(2), "content": {}}, "damaged"),
        ({"format": 1, "sha256": "", "content": {"w": torch.eye(2).to_sparse()}}, "damaged"),
        ({"format": 1, "sha256": checkpoint.digest([1]), "content": [1]}, "not a checkpoint of odenet"),
    ]:
        torch.save(content, path)
        with pytest.raises(RequestError, match=part):
            checkpoint.load(path)
    with pytest.raises(RequestError, match="does not exist"):
        checkpoint.load(tmp_path / "no.pt")
    with pytest.raises(RequestError, match="not a valid checkpoint"):
        checkpoint.load(tmp_path)


def test_a_link_in_the_place_of_what_is_being_written_is_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / ".last.pt.part").symlink_to(precious)
    checkpoint.save(tmp_path / "last.pt", CONTENT)
    assert precious.read_text() == "mine"
    assert same(checkpoint.load(tmp_path / "last.pt"), CONTENT)


def test_the_one_before_stands_in_for_a_damaged_one(tmp_path):
    path = tmp_path / "last.pt"
    assert checkpoint.latest(path) == (None, None)
    checkpoint.save(path, CONTENT)
    checkpoint.save(path, CONTENT | {"step": 8})
    path.write_bytes(path.read_bytes()[:-40])
    content, trouble = checkpoint.latest(path)
    assert content["step"] == 7
    assert "last.pt" in trouble
    checkpoint.previous(path).write_bytes(b"")
    with pytest.raises(RequestError, match="no valid checkpoint"):
        checkpoint.latest(path)


def test_the_one_before_stands_in_for_one_of_no_use(tmp_path):
    path, tried = tmp_path / "last.pt", []

    def take(content):
        tried.append((content.path.name, content["step"]))
        if content["step"] == 8:
            raise RequestError(f"{content.path} is odd")

    def none(content):
        raise RequestError(f"{content.path.name} is odd")

    checkpoint.save(path, CONTENT)
    checkpoint.save(path, CONTENT | {"step": 8})
    content, trouble = checkpoint.latest(path, take)
    assert (content["step"], trouble) == (7, f"{path} is odd")
    assert tried == [("last.pt", 8), ("previous-last.pt", 7)]
    with pytest.raises(RequestError, match=r"\Alast\.pt is odd\n  There is no valid checkpoint"):
        checkpoint.latest(path, none)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({"x": 1}, {"x": 1.0}),
        ({"x": 1}, {"x": True}),
        ({"x": torch.zeros(2)}, {"x": torch.zeros(2, dtype=torch.float64)}),
        ({"x": torch.zeros(2, 3)}, {"x": torch.zeros(3, 2)}),
        ({"x": torch.zeros(2)}, {"x": -torch.zeros(2)}),
        ({"x": [1, 2]}, {"x": [12]}),
        ({"x": {"y": 1}, "z": 2}, {"x": {"y": 1, "z": 2}}),
        ({"x": "1"}, {"x": 1}),
    ],
)
def test_the_digest_tells_contents_apart(a, b):
    assert checkpoint.digest(a) != checkpoint.digest(b)


def test_the_digest_does_not_depend_on_storage():
    whole = torch.arange(12.0).reshape(3, 4)
    assert checkpoint.digest({"x": whole.t()}) == checkpoint.digest({"x": whole.t().contiguous()})
    assert checkpoint.digest({"x": whole[1]}) == checkpoint.digest({"x": whole[1].clone()})
