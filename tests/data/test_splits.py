"""An epoch is a pure function of (seed, epoch, position), and a crop is a window of the padded image."""

from __future__ import annotations

import dataclasses

import pytest
import torch
import torch.nn.functional as F

from odenet_cli.data.common.images import ImageSplit, crop_windows
from odenet_cli.data.common.splits import epoch_seed


def split(size: int = 50, **options) -> ImageSplit:
    """Image i holds the byte i everywhere, so an uncropped sample names itself."""
    images = torch.arange(size, dtype=torch.uint8).view(size, 1, 1, 1).expand(size, 1, 28, 28).contiguous()
    options = {"batch_size": 8, "dtype": torch.float32, "train": True, **options}
    return ImageSplit(rows=(images, torch.arange(size)), **options)


def same(left, right) -> bool:
    left, right = list(left), list(right)
    return len(left) == len(right) and all(torch.equal(a, b) for x, y in zip(left, right) for a, b in zip(x, y))


def test_the_same_seed_and_epoch_deal_the_same_batches():
    assert same(split(crop=4, seed=3).epoch(2), split(crop=4, seed=3).epoch(2))


def test_another_seed_or_epoch_deals_another_order():
    data = split(crop=4, seed=3)
    assert not same(data.epoch(2), data.epoch(3))
    assert not same(data.epoch(2), split(crop=4, seed=4).epoch(2))
    assert len({epoch_seed(seed, epoch) & 0xFFFFFFFF for seed in range(-20, 20) for epoch in range(40)}) == 1600


def test_neither_global_random_state_nor_what_was_dealt_before_matters():
    data = split(crop=4)
    first = list(data.epoch(0))
    torch.manual_seed(99)
    next(data.epoch(1))
    state = torch.get_rng_state()
    assert same(data.epoch(0), first)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("start", [0, 1, 4, 6])
def test_an_epoch_resumed_at_a_batch_goes_on_as_if_it_had_not_stopped(start, train):
    data = split(crop=4 if train else 0, train=train)
    assert same(data.epoch(7, start), list(data.epoch(7))[start:])


def test_a_start_beyond_the_epoch_is_refused():
    with pytest.raises(ValueError, match="batch 7 of an epoch of 6"):
        split().epoch(0, 7)


def test_training_deals_whole_batches_and_each_sample_at_most_once():
    data = split()
    batches = list(data.epoch(0))
    seen = torch.cat([label for _, label in batches])
    assert len(batches) == len(data) == 6
    assert {len(label) for _, label in batches} == {8}
    assert len(seen.unique()) == len(seen) == 48


def test_images_travel_with_their_labels():
    for image, label in split().epoch(0):
        assert torch.equal((image[:, 0, 14, 14] * 255).round().long(), label)


@pytest.mark.parametrize(("size", "batches"), [(50, 7), (48, 6), (0, 0)])
def test_evaluation_deals_everything_once_in_order(size, batches):
    data = split(size, train=False)
    dealt = list(data.epoch(5))
    assert len(dealt) == len(data) == batches
    assert [i for _, label in dealt for i in label.tolist()] == list(range(size))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bytes_become_fractions_of_255(dtype):
    ((image, _),) = split(size=256, batch_size=256, dtype=dtype, train=False).epoch(0)
    assert image.dtype == dtype
    assert torch.equal(image[:, 0, 0, 0], torch.arange(256, dtype=dtype) / 255)


@pytest.mark.parametrize("padding", [1, 2, 4])
def test_a_crop_is_the_window_of_the_padded_image_at_every_offset(padding):
    side = 2 * padding + 1
    shifts = torch.cartesian_prod(torch.arange(side), torch.arange(side))
    images = torch.randint(256, (len(shifts), 1, 28, 28), dtype=torch.uint8)
    padded = F.pad(images, (padding,) * 4)
    slow = [padded[i, :, y : y + 28, x : x + 28] for i, (y, x) in enumerate(shifts.tolist())]
    assert torch.equal(crop_windows(images, shifts, padding), torch.stack(slow))


def test_channels_of_an_image_are_cropped_and_mirrored_together():
    images = torch.randint(256, (1, 3, 8, 5), dtype=torch.uint8).expand(64, 3, 8, 5)
    data = ImageSplit(
        rows=(images, torch.arange(64)), batch_size=64, dtype=torch.float64, train=True, crop=1, flip=True
    )
    padded, seen = F.pad(images[0], (1,) * 4), set()
    for image in next(data.epoch(0))[0]:
        windows = {(y, x, z): padded[:, y : y + 8, x : x + 5] for y in range(3) for x in range(3) for z in (0,)}
        windows |= {(y, x, 1): window.flip(-1) for (y, x, _), window in windows.items()}
        (place,) = [key for key, window in windows.items() if torch.equal((255 * image).round().byte(), window)]
        seen.add(place)
    assert len(seen) > 12  # of 18
    assert {flipped for *_, flipped in seen} == {0, 1}


def test_an_epoch_of_a_small_set_is_several_passes():
    data = split(20, least=5)
    labels = [label for number in range(2) for _, label in data.epoch(number)]
    assert len(data) == 5
    for one in range(5):  # 2 batches of 8 a pass
        assert len(torch.cat(labels[2 * one : 2 * one + 2]).unique()) == 16
    assert same(data.epoch(1, 3), list(data.epoch(1))[3:])


def test_all_offsets_of_a_crop_occur_and_differ_between_samples_and_epochs():
    image = torch.zeros(1, 1, 28, 28, dtype=torch.uint8)
    image[..., 14, 14] = 255
    data = ImageSplit(
        rows=(image.expand(1024, 1, 28, 28), torch.zeros(1024, dtype=torch.int64)),
        batch_size=1024,
        dtype=torch.float32,
        train=True,
        crop=2,
    )
    places = [next(data.epoch(epoch))[0].flatten(1).argmax(1) for epoch in (0, 1)]
    assert set(places[0].tolist()) == {28 * y + x for y in range(12, 17) for x in range(12, 17)}
    assert not torch.equal(*places)


@pytest.mark.gpu
def test_a_gpu_deals_the_batches_of_the_cpu_without_a_sync():
    here = split(crop=4)
    there = dataclasses.replace(here, rows=tuple(row.cuda() for row in here.rows))
    dealt = there.epoch(3)
    first = next(dealt)
    torch.cuda.set_sync_debug_mode("error")
    try:
        rest = list(dealt)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert same([[part.cpu() for part in batch] for batch in [first, *rest]], here.epoch(3))
