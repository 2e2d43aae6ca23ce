"""What the data sets hold, how they are split, and which options and roots they refuse."""

from __future__ import annotations

import gzip
import hashlib
import logging

import pytest
import torch
import torch.nn.functional as F

from odenet_cli import data
from odenet_cli.data import digits
from odenet_cli.errors import RequestError


def load(name, options, **changes) -> data.Data:
    how = {"batch_size": 8, "eval_batch_size": 10, "seed": 0, "device": torch.device("cpu"), "dtype": torch.float32}
    return data.load(name, options, **{**how, **changes})


def test_the_registry_is_the_files():
    assert {"digits", "mnist", "spirals", "poisson", "csv", "moons", "u1"} <= set(data.names())


@pytest.mark.parametrize("name", data.names())
def test_auto_and_slips_are_not_data_sets(name):
    for slip in ("auto", name[:-1]):
        with pytest.raises(RequestError, match=r"(?s)is not known.*Available: .*digits, .*mnist"):
            data.prepare(slip, {})


def test_mnist_holds_out_the_last_training_samples_whatever_the_seed(raw, sound):
    for seed in (0, 1):
        found = load("mnist", {"root": str(raw.parents[1]), "validation": 20}, seed=seed)
        assert (found.train.size, found.valid.size, found.test.size) == (40, 20, 20)
        assert (len(found.train), len(found.valid), len(found.test)) == (5, 2, 2)
        assert (found.shape, found.classes, found.task) == ((1, 28, 28), 10, "classify")
        whole = torch.cat([found.train.rows[0], found.valid.rows[0]])
        assert bytes(whole.flatten().tolist()) == sound["train-images-idx3-ubyte"][16:]
        assert bytes(found.test.rows[0].flatten().tolist()) == sound["t10k-images-idx3-ubyte"][16:]
        assert found.test.rows[1].tolist() == [i % 10 for i in range(20)]


def test_another_set_in_the_format_is_used_warned_about_and_recorded(raw, sound, caplog):
    with caplog.at_level(logging.WARNING, logger="odenet"):
        found = load("mnist", {"root": str(raw.parents[1]), "validation": 20})
    assert "intact but not the original MNIST" in caplog.text
    assert found.record["warning"] in caplog.text
    assert found.record == data.prepare("mnist", {"root": str(raw.parents[1]), "validation": 20})
    assert found.record["used"] == "mnist"
    assert found.record["root"] == str(raw.parents[1])
    assert found.record["sizes"] == {"train": 40, "valid": 20, "test": 20}
    assert found.record["sha256"] == {name: hashlib.sha256(content).hexdigest() for name, content in sound.items()}


def test_a_gz_beside_reads_as_the_file_itself(raw, sound):
    plain = data.prepare("mnist", {"root": str(raw.parents[1]), "validation": 20})
    for name, content in sound.items():
        (raw / name).unlink()
        (raw / f"{name}.gz").write_bytes(gzip.compress(content))
    assert data.prepare("mnist", {"root": str(raw.parents[1]), "validation": 20}) == plain


def test_the_default_root_is_odenet_data(raw, monkeypatch):
    monkeypatch.setenv("ODENET_DATA", str(raw.parents[1]))
    assert data.prepare("mnist", {"validation": 59})["sizes"]["train"] == 1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"crop": -1}, "data.crop=-1 is out of range: it must be 0 to 27"),
        ({"crop": 28}, "data.crop=28"),
        ({"crop": True}, "data.crop=True is not a whole number"),
        ({"validation": -1}, "data.validation=-1 is negative"),
        ({"validation": 60}, "(?s)data.validation=60 leaves no samples.* 60 training samples.*0 to 59"),
        ({"download": "maybe"}, "data.download=maybe is not known. Available: auto, true, false"),
        ({"root": " "}, "data.root=' ' is not the name of a folder"),
        ({"rot": "x"}, "data.rot is not an option of data=mnist. Did you mean `root`"),
    ],
)
def test_options_out_of_range_are_refused(raw, options, says):
    with pytest.raises(RequestError, match=says):
        data.prepare("mnist", {"root": str(raw.parents[1]), **options})


def test_ranges_are_checked_without_reading():
    data.check("mnist", {"root": "/nowhere", "crop": 27})
    with pytest.raises(RequestError, match=r"data\.crop=28"):
        data.check("mnist", {"root": "/nowhere", "crop": 28})


def test_a_batch_larger_than_the_training_set_is_refused():
    with pytest.raises(
        RequestError, match=r"trainer.batch_size=1294 is larger than the 1,293 training samples of digits"
    ):
        load("digits", {}, batch_size=1294)


def test_digits_are_split_in_the_order_of_their_writers():
    sklearn = pytest.importorskip("sklearn.datasets").load_digits()
    found = load("digits", {})
    parts = (found.train, found.valid, found.test)
    assert [part.size for part in parts] == [1293, 144, 360]
    assert torch.cat([part.rows[1] for part in parts]).tolist() == sklearn.target.tolist()
    small = torch.from_numpy(sklearn.images)
    smooth = F.interpolate(small[:, None] * (255 / 16), size=28, mode="bilinear")
    dealt = torch.cat([part.rows[0] for part in parts])
    # Rounded to the nearest byte: half a byte, plus the rounding of the reference.
    assert (dealt - smooth).abs().max() <= 0.5 + 1e-9
    assert (int(dealt.min()), int(dealt.max())) == (0, 255)
    assert found.record["sha256"] == hashlib.sha256(bytes(small.flatten().int().tolist())).hexdigest()


def test_digits_are_found_where_scikit_learn_keeps_them_elsewhere(monkeypatch):
    images, labels = digits.load_small()
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    elsewhere = digits.load_small.__wrapped__()
    assert torch.equal(images, elsewhere[0])
    assert torch.equal(labels, elsewhere[1])


def test_digits_refuse_a_validation_split_that_leaves_nothing():
    digits.Source(validation=1436)
    with pytest.raises(RequestError, match="0 to 1436"):
        data.check("digits", {"validation": 1437})
