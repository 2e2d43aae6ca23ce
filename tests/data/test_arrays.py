"""Arrays of a user's own: what is understood of a file, what is refused before it is read, and that it trains."""

from __future__ import annotations

import json
import zipfile

import numpy
import pytest
import torch
from runs_kit import train_run

from odenet_cli import data
from odenet_cli.data.common import npz
from odenet_cli.errors import RequestError

RNG = numpy.random.default_rng(0)
LABELS = numpy.arange(40) % 4
VECTORS = RNG.normal(3, 2, (40, 5))
BYTES = RNG.integers(0, 256, (40, 6, 7, 3), dtype=numpy.uint8)
SPEC = {"batch_size": 8, "eval_batch_size": 10, "seed": 0, "device": torch.device("cpu"), "dtype": torch.float64}


@pytest.fixture
def file(tmp_path):
    """Write arrays to a file and return the options that name it."""

    def write(**arrays):
        numpy.savez(tmp_path / "file.npz", **arrays)
        return {"path": str(tmp_path / "file.npz")}

    return write


def load(options, run=None):
    return data.load("arrays", options, run=run, **SPEC)


def whole(found):
    return [torch.cat(rows) for rows in zip(found.train.rows, found.valid.rows, found.test.rows)]


def test_vectors_are_standardised_over_the_training_samples(file):
    found = load(file(x=VECTORS, y=LABELS))
    assert (found.shape, found.classes, found.task) == ((5,), 4, "classify")
    assert [found.train.size, found.valid.size, found.test.size] == [32, 4, 4]
    assert torch.allclose(found.train.rows[0].mean(0), torch.zeros(5, dtype=torch.float64), atol=1e-12)
    assert torch.allclose(found.train.rows[0].std(0, unbiased=False), torch.ones(5, dtype=torch.float64))
    # Every sample is dealt once, with its own label.
    x, y = whole(found)
    mean, sd = (numpy.array(found.record[key]) for key in ("x_mean", "x_sd"))
    back = x.numpy() * sd + mean
    place = [int(numpy.abs(VECTORS - row).sum(1).argmin()) for row in back]
    assert sorted(place) == list(range(40))
    assert y.tolist() == LABELS[place].tolist()


def test_which_samples_are_held_out_is_the_same_for_every_seed(file):
    options = file(x=VECTORS, y=LABELS)
    a, b = (data.load("arrays", options, **{**SPEC, "seed": seed}) for seed in (0, 1))
    assert torch.equal(a.test.rows[0], b.test.rows[0])
    assert not torch.equal(next(a.train.epoch(0))[0], next(b.train.epoch(0))[0])


@pytest.mark.parametrize(
    ("x", "options", "expected"),
    [
        (BYTES, {}, BYTES.transpose(0, 3, 1, 2)),
        (BYTES.transpose(0, 3, 1, 2), {}, BYTES.transpose(0, 3, 1, 2)),
        (BYTES[..., 0], {}, BYTES[:, None, :, :, 0]),
        (BYTES.transpose(0, 1, 3, 2), {"layout": "chw"}, BYTES.transpose(0, 1, 3, 2)),
    ],
)
def test_images_of_any_layout_stay_bytes(file, x, options, expected):
    found = load(
        file(x_train=x[:30], y_train=LABELS[:30], x_val=x[30:], y_val=LABELS[30:], x_test=x[:5], y_test=LABELS[:5])
        | options
    )
    assert found.train.rows[0].dtype == torch.uint8
    assert numpy.array_equal(found.train.rows[0].numpy(), expected[:30])
    assert numpy.array_equal(found.valid.rows[0].numpy(), expected[30:])
    batch, _ = next(found.test.epoch(0))
    assert numpy.allclose(batch.numpy(), expected[:5] / 255)


def test_real_images_are_standardised_by_channel(file):
    images = RNG.normal([1, 20, -3], [1, 5, 0.1], (40, 6, 7, 3)).astype(numpy.float32)
    found = load(file(x=images, y=LABELS))
    by_channel = found.train.rows[0].movedim(1, -1).reshape(-1, 3)
    assert torch.allclose(by_channel.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-4)
    assert torch.allclose(by_channel.std(0), torch.ones(3, dtype=torch.float64), atol=1e-3)


@pytest.mark.parametrize(
    "names",
    [("x_train", "y_train", "x_test", "y_test"), ("train_images", "train_labels", "test_images", "test_labels")],
)
def test_splits_are_found_by_their_names(file, names):
    arrays = dict(zip(names, (VECTORS[:30], LABELS[:30, None], VECTORS[30:], LABELS[30:, None])))
    found = load(file(**arrays))
    assert found.record["sizes"] == {"train": 27, "valid": 3, "test": 10}
    assert found.test.rows[1].tolist() == LABELS[30:].tolist()


def test_arrays_can_be_named(file):
    options = file(a=VECTORS, b=LABELS, c=VECTORS[:, 0]) | {"x": "a"}
    assert load(options | {"y": "b"}).task == "classify"
    found = load(options | {"y": "c"})
    assert (found.task, found.classes) == ("regression", 1)
    assert "ignored arrays: b" in found.record["warning"]


def test_text_names_the_classes_and_a_vector_may_be_one_number(file):
    found = load(file(x=VECTORS[:, 0], y=numpy.array(["cat", "ant"] * 20)))
    assert (found.shape, found.classes, found.record["classes"]) == ((1,), 2, ["ant", "cat"])
    assert set(whole(found)[1].tolist()) == {0, 1}


def test_values_to_predict_are_standardised_and_their_units_go_with_the_batch(file):
    y = VECTORS[:, :2] * [1e3, 1] + 7
    found = load(file(x=VECTORS, y=y))
    assert (found.task, found.classes) == ("regression", 2)
    x, scaled, unit = next(found.train.epoch(0))
    own = scaled.numpy() * unit.sd + unit.mean
    assert numpy.allclose(own[:, 1] - 7, x.numpy()[:, 1] * found.record["x_sd"][1] + found.record["x_mean"][1])
    assert torch.allclose(found.train.rows[1].std(0, unbiased=False), torch.ones(2, dtype=torch.float64))


def test_another_file_is_measured_in_the_units_of_the_run(file):
    run = data.prepare("arrays", file(x=VECTORS, y=LABELS))
    other = file(x=VECTORS[:3] + 100, y=LABELS[:3])
    x, _ = whole(load(other, run=run))
    assert numpy.allclose(numpy.sort(x.numpy() * run["x_sd"] + run["x_mean"], 0), numpy.sort(VECTORS[:3] + 100, 0))
    assert data.shape("arrays", other, run) == ((5,), 4)
    for arrays, says in [
        ({"x": VECTORS[:3, :4], "y": LABELS[:3]}, r"samples \(4,\), and the run was trained on \(5,\)"),
        ({"x": VECTORS[:3], "y": LABELS[:3] + 3}, "2 labels outside the 4 classes"),
    ]:
        with pytest.raises(RequestError, match=says):
            load(file(**arrays), run=run)


BAD = [
    ({"x": VECTORS}, {}, r"no array has a name such as y or y_train; there are x \(40, 5\). Name it: data.y="),
    ({"x": VECTORS, "y": LABELS[:39]}, {}, "x has 40 samples, and y 39"),
    ({"x": VECTORS.astype(object), "y": LABELS}, {}, r"x is \(40, 5\) object. Save it as real numbers"),
    ({"x": VECTORS + 1j, "y": LABELS}, {}, r"x is \(40, 5\) complex128"),
    ({"x": VECTORS[:, :, None, None, None], "y": LABELS}, {}, "Inputs must be vectors"),
    ({"x": VECTORS[:0], "y": LABELS[:0]}, {}, "N at least 1"),
    (
        {"x": BYTES[:, :3, :, :], "y": LABELS},
        {},
        "both of its axes 2 and 4 can be .*data.layout=chw or data.layout=hwc",
    ),
    ({"x": BYTES[:, :, :, :].repeat(2, 3), "y": LABELS}, {}, "neither of its axes"),
    ({"x": VECTORS, "y": LABELS - 1}, {}, "y holds 10 numbers that are not labels, first -1 in sample 0"),
    ({"x": VECTORS, "y": LABELS * 2}, {}, "3 of the 7 classes 0 to 6 have no training sample: 1, 3, 5"),
    (
        {"x": VECTORS, "y": LABELS + (LABELS == 3) * 10**15},
        {},
        "1,000,000,000,000,000 of the 1,000,000,000,000,004 classes .*: 3, 4, 5, 6, 7 and 999,999,999,999,995 more",
    ),
    ({"x": VECTORS, "y": LABELS * 0}, {}, "y has only one class"),
    ({"x": VECTORS, "y": LABELS.astype(float)}, {}, "data.task=classify or data.task=regression"),
    ({"x": VECTORS, "y": LABELS.astype(float)[:, None]}, {}, "data.task=classify or data.task=regression"),
    ({"x": VECTORS, "y": numpy.eye(4)[LABELS]}, {}, "as a one-hot code does, but stored as float64. .* argmax"),
    ({"x": VECTORS, "y": LABELS + 0.5}, {"task": "classify"}, "40 numbers that are not labels, first 0.5"),
    ({"x": VECTORS, "y": numpy.eye(4, dtype=int)[LABELS]}, {}, "one-hot code"),
    ({"x": VECTORS, "y": VECTORS[:, 0] * 0}, {"task": "regression"}, "y is constant .0. in training"),
    ({"x": VECTORS, "y": numpy.array(["a", "b"] * 20)}, {"task": "regression"}, "y is text"),
    ({"x": VECTORS, "y": LABELS, "x_test": VECTORS}, {}, "both unsplit samples and splits"),
    ({"x_train": VECTORS, "y_train": LABELS, "x_test": VECTORS}, {}, "x_test without y"),
    (
        {"x_train": VECTORS, "y_train": LABELS, "x_test": VECTORS[:, :4], "y_test": LABELS},
        {},
        r"shape \(4,\), and x_tr",
    ),
    ({"x": VECTORS, "y": LABELS}, {"x": "z"}, "data.x=z does not exist"),
    ({"x": VECTORS, "y": LABELS}, {"augment": ["flip"]}, "is for images, and the inputs x are vectors"),
    ({"x": BYTES, "y": LABELS}, {"augment": ["crop"], "crop": 6}, "data.crop=6 is as wide"),
    ({"x": VECTORS * 1e200, "y": LABELS}, {}, "too large to be squared"),
    ({"x": VECTORS[:4], "y": LABELS[:4]}, {"validation": 0.9}, "leave none for training"),
]


@pytest.mark.parametrize(("arrays", "options", "says"), BAD, ids=[says[:30] for *_, says in BAD])
def test_what_is_wrong_is_named(file, arrays, options, says):
    with pytest.raises(RequestError, match=f"(?s){says}"):
        load(file(**arrays) | options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": None}, "data.path is missing"),
        ({"path": "x.npz", "augment": ["rotate"]}, "data.augment=rotate is not known. Available: crop, flip"),
        ({"path": "x.npz", "crop": 2}, r"data.crop=2 needs data.augment=\[crop\]"),
        ({"path": "x.npz", "test": 0.0}, "data.test=0.0 is out of range"),
        ({"path": "x.npz", "task": "sort"}, "data.task=sort is not known"),
        ({"path": "/nowhere/x.npz"}, "this file does not exist"),
        ({"path": "/tmp"}, "is not a file but a folder"),
    ],
)
def test_options_are_checked(options, says):
    with pytest.raises(RequestError, match=says):
        data.prepare("arrays", options)


def test_all_faults_are_told_at_once_and_counted(file):
    x, y = VECTORS.copy(), VECTORS[:, 0].copy()
    x[3, 1], x[7, 2], y[5] = numpy.nan, numpy.inf, numpy.nan
    with pytest.raises(RequestError) as refused:
        load(file(x=x, y=y))
    assert "x holds NaN or infinite numbers in 2 of 40 samples, first in sample 3" in str(refused.value)
    y = y.astype(numpy.float64)
    with pytest.raises(RequestError) as refused:
        load(file(x_train=x.astype(object), y_train=LABELS[:9], x_test=VECTORS[:, :2], y_test=LABELS))
    lines = str(refused.value).splitlines()
    assert "has 3 errors of 3 kinds" in lines[0]
    assert len(lines) == 4


def test_a_pickle_is_never_loaded(file, tmp_path):
    """Not even unpickled to be refused: the class would run code."""

    class Trap:
        def __reduce__(self):
            return (tmp_path.joinpath("touched").touch, ())

    with pytest.raises(RequestError, match="without objects"):
        load(file(x=numpy.array([Trap()] * 40, dtype=object), y=LABELS))
    assert not (tmp_path / "touched").exists()


def test_shapes_are_refused_without_reading_the_numbers(file, monkeypatch):
    options = file(x=VECTORS, y=LABELS[:3])
    monkeypatch.setattr(npz, "read_arrays", lambda *_: pytest.fail("the arrays were read"))
    monkeypatch.setattr("odenet_cli.data.arrays.read_arrays", npz.read_arrays)
    with pytest.raises(RequestError, match="x has 40 samples, and y 3"):
        load(options)


@pytest.mark.parametrize("damage", ["text", "npy", "cut", "bits", "header", "empty"])
def test_a_file_that_is_no_sound_npz_is_named(tmp_path, damage):
    path = tmp_path / "file.npz"
    numpy.savez(path, x=VECTORS, y=LABELS)
    content = bytearray(path.read_bytes())
    if damage == "text":
        content = bytearray(b"x,y\n1,2\n")
    elif damage == "cut":
        content = content[:900]
    elif damage == "bits":
        content[600] ^= 255
    path.write_bytes(content)
    if damage == "npy":
        with path.open("wb") as file:
            numpy.save(file, VECTORS)
    elif damage in ("header", "empty"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy" if damage == "header" else "x.txt", b"\x93NUMPY\x01\x00\x05\x00{}   ")
    with pytest.raises(RequestError, match=r"file\.npz.*(not a complete .npz|damaged|contains no array)"):
        data.prepare("arrays", {"path": str(path)})


CASES = {
    "classes of images": ({"x": BYTES, "y": LABELS}, "error", "x 3×6×7 bytes; 4 classes"),
    "values of vectors": ({"x": VECTORS, "y": VECTORS[:, :2] ** 2}, "rmse", "x 5 numbers; 2 values to predict"),
}


@pytest.mark.parametrize("case", CASES)
def test_an_odenet_trains_on_arrays_by_one_command(odenet, file, tmp_path, case):
    arrays, score, about = CASES[case]
    words = ["data=arrays", f"data.path={file(**arrays)['path']}", "model=odenet", "model.width=4", "device=cpu"]
    short = ("trainer.max_steps=3", "trainer.batch_size=16", "logger=none")
    made = odenet("train", *words, *short, "hydra.run.dir=run", figures=True)
    assert made.returncode == 0, made.stderr
    assert about in made.stdout
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert {path.name for path in (tmp_path / "run" / "figures").glob("*.png")} >= {"training.png"}
    scored = odenet("eval", "run")
    assert scored.returncode == 0, scored.stderr
    again = json.loads((tmp_path / "run" / "eval.jsonl").read_text().splitlines()[-1])
    assert again[score] == pytest.approx(record["final"][score])


@pytest.mark.parametrize("model", ["rknet", "resnet", "mlp"])
@pytest.mark.parametrize("case", CASES)
def test_every_network_trains_on_arrays(tmp_path, file, model, case):
    arrays, score, _ = CASES[case]
    small = "model.hidden=4" if model == "mlp" else "model.width=4"
    words = ["data=arrays", f"data.path={file(**arrays)['path']}", f"model={model}", small, "trainer.max_steps=2"]
    folder = train_run(tmp_path / "run", *words, "device=cpu", "trainer.batch_size=16", "logger=none")
    assert json.loads((folder / "run.json").read_text())["final"][score] >= 0


def test_bad_arrays_end_with_2_and_leave_nothing(odenet, file, tmp_path):
    refused = odenet("train", "data=arrays", f"data.path={file(x=VECTORS, y=LABELS * 2)['path']}")
    assert refused.returncode == 2
    assert "have no training sample" in refused.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["own.csv", "own.XLSX"])
def test_a_table_is_told_what_reads_it(tmp_path, name):
    (tmp_path / name).write_text("x,y\n1,2\n")
    with pytest.raises(RequestError, match=r"is a table, and data=arrays .* data=features data\.y=NAME"):
        data.prepare("arrays", {"path": str(tmp_path / name)})


def test_fractions_where_the_run_had_bytes_are_refused(file):
    run = load(file(x=BYTES, y=LABELS)).record
    images, _ = whole(load(file(x=BYTES.astype(numpy.float32), y=LABELS), run=run))
    assert torch.equal(images, whole(load(file(x=BYTES, y=LABELS), run=run))[0] / 255)
    with pytest.raises(RequestError, match=r"numbers up to 1, and the run was trained on bytes, 0 to 255. Save"):
        load(file(x=BYTES / 255, y=LABELS), run=run)


def test_bytes_where_the_run_had_fractions_are_told(file):
    run = load(file(x=BYTES / 255, y=LABELS)).record
    found = load(file(x=BYTES, y=LABELS), run=run)
    assert f"x[0] ({BYTES[..., 0].mean():.4g}; there {run['x_mean'][0]:.4g} ±" in found.record["warning"]
