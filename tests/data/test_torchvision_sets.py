"""Fashion-MNIST, CIFAR-10 and SVHN: small copies are read as torchvision lays them, and others refused by name."""

from __future__ import annotations

import hashlib
import pickle

import numpy
import pytest
import scipy.io
import torch

from odenet_cli import data
from odenet_cli.data.common import download
from odenet_cli.errors import RequestError

RNG = numpy.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (60, 3, 32, 32), dtype=numpy.uint8)
LABELS = [n % 10 for n in range(60)]
SPEC = {"batch_size": 8, "eval_batch_size": 10, "seed": 0, "device": torch.device("cpu"), "dtype": torch.float32}


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def make_cifar10(root, monkeypatch):
    from torchvision.datasets import CIFAR10

    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    lists = {"train_list": [], "test_list": []}
    for name, part in (("data_batch_1", slice(0, 20)), ("data_batch_2", slice(20, 40)), ("test_batch", slice(40, 60))):
        batch = {"data": IMAGES[part].reshape(20, -1), "labels": LABELS[part]}
        (folder / name).write_bytes(pickle.dumps(batch))
        lists["test_list" if "test" in name else "train_list"].append([name, md5(folder / name)])
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    for name, values in lists.items():
        monkeypatch.setattr(CIFAR10, name, values)
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": md5(folder / "batches.meta")})
    return folder / "data_batch_2"


def make_svhn(root, monkeypatch):
    from torchvision.datasets import SVHN

    folder, known = root / "SVHN", {}
    folder.mkdir(parents=True)
    for split, part in (("train", slice(0, 40)), ("test", slice(40, 60))):
        url, name, _ = SVHN.split_list[split]
        labels = numpy.array([[label or 10] for label in LABELS[part]], dtype=numpy.uint8)  # 10 stands for 0
        scipy.io.savemat(folder / name, {"X": IMAGES[part].transpose(2, 3, 1, 0), "y": labels})
        known[split] = [url, name, md5(folder / name)]
    monkeypatch.setattr(SVHN, "split_list", known)
    return folder / "train_32x32.mat"


MAKE = {"cifar10": make_cifar10, "svhn": make_svhn}


@pytest.mark.parametrize("name", MAKE)
def test_a_set_is_read_whole_and_its_bytes_stay_bytes(tmp_path, monkeypatch, name):
    MAKE[name](tmp_path, monkeypatch)
    found = data.load(name, {"root": str(tmp_path), "validation": 5, "augment": ["crop", "flip"]}, **SPEC)
    assert (found.shape, found.classes, found.task) == ((3, 32, 32), 10, "classify")
    assert found.record["sizes"] == {"train": 35, "valid": 5, "test": 20}
    for rows, part in (
        (found.train.rows, slice(0, 35)),
        (found.valid.rows, slice(35, 40)),
        (found.test.rows, slice(40, 60)),
    ):
        assert rows[0].dtype == torch.uint8
        assert numpy.array_equal(rows[0].numpy(), IMAGES[part])
        assert rows[1].tolist() == LABELS[part]
    assert next(found.train.epoch(0))[0].shape == (8, 3, 32, 32)
    assert (found.train.crop, found.train.flip, found.test.flip) == (4, True, False)


@pytest.mark.parametrize("name", MAKE)
def test_a_file_of_another_sum_is_refused_before_it_is_read(tmp_path, monkeypatch, name):
    """CIFAR-10's files are pickles, which run code: only those that torchvision knows are opened."""
    path = MAKE[name](tmp_path, monkeypatch)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(RequestError, match=rf"(?s){path} is damaged.*Expected the MD5 .*odenet data {name}"):
        data.prepare(name, {"root": str(tmp_path), "validation": 5})


PLACES = {
    "cifar10": ("CIFAR-10", "cifar-10-batches-py", "data_batch_1"),
    "svhn": ("SVHN", "SVHN", "train_32x32.mat"),
    "fashion_mnist": ("FashionMNIST", "FashionMNIST/raw", "t10k-labels-idx1-ubyte"),
}


@pytest.mark.parametrize("name", PLACES)
def test_without_a_network_it_says_what_to_put_where(tmp_path, monkeypatch, name):
    def refuse(*_):
        raise OSError("mirror.example: Name or service not known")

    monkeypatch.setattr(download, "fetch", refuse)
    title, place, file = PLACES[name]
    for options, why in (({}, "cannot be downloaded .mirror.example"), ({"download": False}, "data.download is false")):
        with pytest.raises(data.Unavailable) as caught:
            data.prepare(name, {"root": str(tmp_path), **options})
        text = str(caught.value)
        for part in (f"{title} is not complete in {tmp_path / place} and", file, f"odenet data {name} data.root="):
            assert part in text
        assert f"to FOLDER/{place}" in text
        assert why.split(" .")[0] in text
    assert not (tmp_path / place).exists()


def test_what_is_fetched_lies_under_its_final_names(tmp_path, monkeypatch):
    def fetch(resources, mirrors, folder, stop):
        assert resources == [("cifar-10-python.tar.gz", resources[0][1])]
        assert mirrors == ["https://www.cs.toronto.edu/~kriz/"]
        made.rename(folder / "cifar-10-batches-py")

    make_cifar10(tmp_path / "made", monkeypatch)
    made = tmp_path / "made" / "cifar-10-batches-py"
    monkeypatch.setattr(download, "fetch", fetch)
    record = data.prepare("cifar10", {"root": str(tmp_path / "new"), "download": True, "validation": 5})
    assert record["sizes"]["train"] == 35
    names = {path.name for path in (tmp_path / "new" / "cifar-10-batches-py").iterdir()}
    assert names == {"data_batch_1", "data_batch_2", "test_batch", "batches.meta"}


def test_fashion_mnist_has_the_format_of_mnist_in_a_folder_of_its_own(raw, tmp_path):
    raw.parent.rename(tmp_path / "FashionMNIST")
    found = data.load("fashion_mnist", {"root": str(tmp_path), "validation": 20, "augment": ["flip"]}, **SPEC)
    assert (found.record["used"], found.record["warning"]) == ("fashion_mnist", None)
    assert (found.train.size, found.train.crop, found.train.flip) == (40, 0, True)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"augment": ["turn"]}, "data.augment=turn is not known. Available: crop, flip"),
        ({"crop": 32}, "data.crop=32 is out of range: it must be 0 to 31"),
        ({"download": "maybe"}, "data.download=maybe"),
        ({"root": "/nowhere"}, "(?s)does not exist.*odenet data cifar10 data.root=/nowhere"),
    ],
)
def test_options_are_checked(options, says):
    with pytest.raises(RequestError, match=says):
        data.prepare("cifar10", options)
