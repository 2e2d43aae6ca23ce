"""Folders of images: what is understood of them, what is refused, and that they train."""

from __future__ import annotations

import json

import numpy
import pytest
import torch
from PIL import Image
from runs_kit import train_run

from odenet_cli import data
from odenet_cli.errors import RequestError
from odenet_cli.report import pictures

RNG = numpy.random.default_rng(0)
PIXELS = RNG.integers(0, 256, (60, 8, 6, 3), dtype=numpy.uint8)
SPEC = {"batch_size": 8, "eval_batch_size": 10, "seed": 0, "device": torch.device("cpu"), "dtype": torch.float64}


def fill(folder, count, grey=False, start=0, classes=("ant", "bee")):
    """Save images in sub-folders of classes; return them by name."""
    made = {}
    for k, name in enumerate(classes):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for n in range(count):
            pixels = PIXELS[start + count * k + n]
            image = pixels[..., 0] if grey else pixels
            Image.fromarray(image).save(folder / name / f"{n}.png")
            made[name, n] = image
    return made


def load(folder, run=None, **options):
    return data.load("images", {"path": str(folder), **options}, run=run, **SPEC)


def test_a_folder_of_classes_is_dealt_whole_and_once(tmp_path):
    made = fill(tmp_path, 10)
    found = load(tmp_path)
    assert (found.shape, found.classes, found.task) == ((3, 8, 6), 2, "classify")
    assert found.record["classes"] == ["ant", "bee"]
    assert found.record["sizes"] == {"train": 16, "valid": 2, "test": 2}
    images, labels = (torch.cat(rows) for rows in zip(found.train.rows, found.valid.rows, found.test.rows))
    assert images.dtype == torch.uint8
    dealt = {(image.movedim(0, -1).numpy().tobytes(), label) for image, label in zip(images, labels.tolist())}
    assert dealt == {(image.tobytes(), ["ant", "bee"].index(name)) for (name, _), image in made.items()}


def test_splits_are_sub_folders_and_grey_images_have_one_channel(tmp_path):
    train = fill(tmp_path / "train", 5, grey=True)
    fill(tmp_path / "val", 2, grey=True, start=20)
    test = fill(tmp_path / "test", 3, grey=True, start=30)
    found = load(tmp_path)
    assert found.shape == (1, 8, 6)
    for split, made in ((found.train, train), (found.test, test)):
        assert numpy.array_equal(split.rows[0][:, 0].numpy(), numpy.stack([*made.values()]))
    assert found.record["sizes"] == {"train": 10, "valid": 4, "test": 6}


def test_one_image_of_colour_makes_all_of_them_three_channels(tmp_path):
    fill(tmp_path, 4, grey=True)
    fill(tmp_path / "x", 4, classes=("cat",))
    (tmp_path / "x" / "cat").rename(tmp_path / "cat")
    (tmp_path / "x").rmdir()
    assert load(tmp_path).shape == (3, 8, 6)


@pytest.mark.parametrize("size", [4, [5, 7]])
def test_images_are_scaled_where_that_is_asked(tmp_path, size):
    fill(tmp_path, 4)
    flat = Image.new("RGB", (30, 20), (200, 100, 50))
    flat.save(tmp_path / "ant" / "flat.jpg", quality=100)
    sides = (4, 4) if size == 4 else (5, 7)
    found = load(tmp_path, size=size)
    assert found.shape == (3, *sides)
    images = torch.cat((found.train.rows[0], found.valid.rows[0], found.test.rows[0])).int()
    away = (images - torch.tensor([200, 100, 50])[:, None, None]).abs().flatten(1).amax(1)
    assert int((away <= 2).sum()) == 1


def test_an_image_is_turned_as_its_exif_says(tmp_path):
    fill(tmp_path, 3, classes=("ant", "bee"))
    upright = Image.fromarray(PIXELS[50])
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn: stored 8×6 on its side
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "ant" / "9.png", exif=exif)
    found = load(tmp_path)
    images = torch.cat((found.train.rows[0], found.valid.rows[0], found.test.rows[0]))
    assert any(numpy.array_equal(image.movedim(0, -1).numpy(), PIXELS[50]) for image in images)


def test_what_is_no_image_is_left_out_and_said(tmp_path):
    fill(tmp_path, 4)
    (tmp_path / "readme.txt").write_text("x")
    (tmp_path / "ant" / "notes.md").write_text("x")
    (tmp_path / ".DS_Store").write_text("x")
    assert load(tmp_path).record["warning"].endswith("ignored, not images of a class: readme.txt, ant/notes.md.")


def test_transparent_images_are_told(tmp_path):
    """Of black drawings on nothing all pixels are black, without a word."""
    fill(tmp_path, 4)
    drawing = numpy.zeros((8, 6, 4), numpy.uint8)
    Image.fromarray(drawing).save(tmp_path / "bee" / "0.png")
    drawing[..., 3] = 255
    Image.fromarray(drawing).save(tmp_path / "bee" / "1.png")
    says = "transparent pixels are read as opaque, in the colour stored below the transparency: bee/0.png."
    assert load(tmp_path).record["warning"].endswith(says)


def test_a_class_of_other_files_is_told(tmp_path):
    fill(tmp_path, 4)
    (tmp_path / "cat").mkdir()
    Image.fromarray(PIXELS[0]).save(tmp_path / "cat" / "0.gif")
    with pytest.raises(RequestError, match=r"cat contains no image, but 0\.gif\. Fill it \(\.jpg \.jpeg \.png "):
        load(tmp_path)


def test_all_faults_are_told_at_once(tmp_path):
    fill(tmp_path, 4)
    whole = (tmp_path / "ant" / "0.png").read_bytes()
    (tmp_path / "ant" / "bad.png").write_bytes(b"hello")
    (tmp_path / "bee" / "bad.png").write_bytes(b"hello")
    (tmp_path / "ant" / "cut.png").write_bytes(whole[:40])
    Image.new("I;16", (6, 8)).save(tmp_path / "bee" / "deep.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "bee" / "large.png")
    (tmp_path / "cat").mkdir()
    with pytest.raises(RequestError) as refused:
        load(tmp_path)
    text = str(refused.value)
    assert "has 6 errors of 4 kinds" in text
    for part in (
        "cat contains no image",
        "not a valid image (unknown format): ant/bad.png, ant/cut.png, bee/bad.png",
        "I;16 pixels, of more than a byte each: bee/deep.png",
        "2 sizes: 8×6 (ant/0.png), 9×9 (bee/large.png). Scale them all to one: data.size=6",
    ):
        assert part in text


def test_an_image_that_is_damaged_behind_its_head_is_named(tmp_path):
    fill(tmp_path, 4)
    path = tmp_path / "bee" / "2.png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(RequestError, match=r"not a valid image \(.*\): bee/2.png"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"path": None}, "data.path is missing: data=images data.path=FOLDER"),
        ({"path": "/nowhere"}, "does not exist. Name a folder"),
        ({"path": __file__}, "is not a folder"),
        ({"size": 0}, r"data.size=\[0, 0\] is not a size"),
        ({"size": [4, 5, 6]}, r"data.size=\[4, 5, 6\] is not a size"),
        ({"augment": ["crop"], "crop": 7}, "data.crop=7 is as wide as the images"),
    ],
)
def test_options_are_checked(tmp_path, options, says):
    fill(tmp_path, 4)
    with pytest.raises(RequestError, match=says):
        data.prepare("images", {"path": str(tmp_path), **options})


@pytest.mark.parametrize(
    ("layout", "says"),
    [
        (lambda top: top.mkdir(exist_ok=True), "has no sub-folders of classes"),
        (lambda top: fill(top, 4, classes=("ant",)), "has only one class"),
        (
            lambda top: (fill(top / "train", 4), fill(top / "test", 2), fill(top / "x", 1)),
            "next to its splits it contains x",
        ),
        (
            lambda top: (fill(top / "train", 4), fill(top / "test", 2, classes=("cat",))),
            "2 samples of classes that the training samples lack, first 'cat'. They have ant, bee",
        ),
    ],
)
def test_folders_without_classes_to_tell_apart_are_refused(tmp_path, layout, says):
    layout(tmp_path / "top")
    with pytest.raises(RequestError, match=says):
        load(tmp_path / "top")


def test_a_folder_trains_and_another_is_scored_by_the_classes_of_the_run(odenet, tmp_path):
    fill(tmp_path / "pics", 10)
    fill(tmp_path / "other", 3, start=30, classes=("bee",))
    words = ["data=images", f"data.path={tmp_path / 'pics'}", "model=odenet", "model.width=4", "device=cpu"]
    words += ["data.augment=[crop,flip]", "trainer.max_steps=2", "logger=none"]
    folder = train_run(tmp_path / "run", *words)
    record = json.loads((folder / "run.json").read_text())
    assert record["data"]["about"] == ["x 3×8×6 bytes", "2 classes"]
    assert {path.name for path in pictures.write(folder)} >= {"training.png", "misread.png"}
    scored = odenet("eval", "run", "data.path=other")
    assert scored.returncode == 0, scored.stderr
    told = odenet("predict", "run", "data.path=other", "out=answers.csv")
    assert told.returncode == 0, told.stderr
    lines = [line.split(",") for line in (tmp_path / "answers.csv").read_text().splitlines()]
    assert lines[0] == ["sample", "file", "label", "class", "p_ant", "p_bee"]
    assert [line[1:3] for line in lines[1:]] == [[f"bee/{n}.png", "bee"] for n in range(3)]

    (tmp_path / "flat").mkdir()  # of classes that nobody knows
    for n in range(3):
        (tmp_path / "other" / "bee" / f"{n}.png").rename(tmp_path / "flat" / f"img {n}.png")
    (tmp_path / "flat" / "notes.txt").write_text("")
    told = odenet("predict", "run", "data.path=flat", "out=new.csv")
    assert told.returncode == 0, told.stderr
    assert "ignored, not images of a class: notes.txt" in told.stderr
    new = [line.split(",") for line in (tmp_path / "new.csv").read_text().splitlines()]
    assert new[0] == ["sample", "file", "class", "p_ant", "p_bee"]
    assert [line[1] for line in new[1:]] == [f"img {n}.png" for n in range(3)]
    for own, other in zip(lines[1:], new[1:]):
        # Another batch has other steps.
        assert [float(x) for x in other[3:]] == pytest.approx([float(x) for x in own[4:]], rel=1e-3)
        assert other[2] == own[3]
    refused = odenet("eval", "run", "data.path=flat")
    assert (refused.returncode, "has no y to compare with" in refused.stderr) == (2, True)
    (tmp_path / "void").mkdir()
    refused = odenet("predict", "run", "data.path=void", "out=new.csv")
    assert (refused.returncode, "void: it contains no image" in refused.stderr) == (2, True)
