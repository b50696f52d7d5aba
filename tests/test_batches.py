"""Batches and batched augmentation, against per-image loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlcourse.datasets.augment import Augment
from nlcourse.training import batches
from nlcourse.training.batches import Batches, Images


def some_images(count=12, channels=3, side=8, dtype=torch.uint8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (count, channels, side, side), generator=generator).to(torch.uint8)
    return images if dtype == torch.uint8 else images.float() / 255


def make_batches(images, seed=0, **options):
    labels = torch.arange(len(images)) % 3
    stored = Images(images, (0.5,) * images.shape[1], (0.25,) * images.shape[1])
    generator = torch.Generator().manual_seed(seed)
    return Batches(stored, labels, generator=generator, **options)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_normalisation_is_that_of_the_textbook(dtype):
    images = some_images(dtype=dtype)
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    ours = Images(images, mean, std).get(slice(None))
    scaled = images.double() / 255 if dtype == torch.uint8 else images.double()
    expected = (scaled - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=30)
@given(count=st.integers(1, 40), batch_size=st.integers(1, 45), seed=st.integers(0, 99))
def test_an_epoch_meets_every_example_once(count, batch_size, seed):
    batches = make_batches(some_images(count), seed, batch_size=batch_size)
    met = list(batches)
    index = torch.cat([batch.index for batch in met])
    assert sorted(index.tolist()) == list(range(count))
    assert len(met) == len(batches)
    assert all(len(batch.index) == batch_size for batch in met[:-1])
    for batch in met:
        assert torch.equal(batch.labels, batches.labels[batch.index])
        assert torch.equal(batch.images, batches.images(batch.index))


def test_one_seed_gives_the_same_batches_bit_for_bit():
    augment = Augment(crop=2, flip=True, cutout=3)
    runs = [
        [
            batch
            for _ in range(2)
            for batch in make_batches(some_images(), 7, batch_size=5, augment=augment)
        ]
        for _ in range(2)
    ]
    for one, other in zip(*runs, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    other_seed = list(make_batches(some_images(), 8, batch_size=5, augment=augment))
    assert not torch.equal(runs[0][0].index, other_seed[0].index)


def test_each_epoch_has_its_own_order():
    batches = make_batches(some_images(40), batch_size=40)
    assert not torch.equal(next(iter(batches)).index, next(iter(batches)).index)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("crop", [0, 1, 3])
def test_every_crop_is_a_window_of_the_padded_image(crop, flip):
    images = some_images(60, side=6)
    shifted = Augment(crop=crop, flip=flip).shift(images, torch.Generator().manual_seed(1))
    seen = set()
    for before, after in zip(images, shifted, strict=True):
        padded = torch.zeros(3, 6 + 2 * crop, 6 + 2 * crop, dtype=torch.uint8)
        padded[:, crop : crop + 6, crop : crop + 6] = before
        matches = set()
        for row in range(2 * crop + 1):
            for column in range(2 * crop + 1):
                window = padded[:, row : row + 6, column : column + 6]
                for mirrored in range(1 + flip):
                    candidate = window.flip(2) if mirrored else window
                    if torch.equal(candidate, after):
                        matches.add((row, column, mirrored))
        assert matches, "an augmented image is no window of its padded original"
        seen |= matches
    # 60 draws: a generator that never mirrors, or never moves, would show.
    assert {mirrored for _, _, mirrored in seen} == set(range(1 + flip))
    assert {row for row, _, _ in seen} == set(range(2 * crop + 1))


def test_padding_is_black_also_when_images_are_normalised_first():
    late, early = some_images(dtype=torch.uint8), some_images(dtype=torch.float32)
    results = []
    for images in (late, early):
        stored = Images(images, (0.5,) * 3, (0.25,) * 3)
        generator = torch.Generator().manual_seed(3)
        results.append(stored.get(slice(None), Augment(crop=3), generator))
    torch.testing.assert_close(*results, atol=1e-5, rtol=0)
    assert results[0].min().item() == pytest.approx(-2.0, abs=1e-5)  # (0 - 0.5) / 0.25


@settings(max_examples=25)
@given(
    size=st.integers(1, 6),
    channels=st.integers(1, 3),
    height=st.integers(1, 7),
    width=st.integers(1, 7),
    crop=st.integers(0, 4),
    flip=st.booleans(),
    seed=st.integers(0, 99),
)
def test_crop_and_flip_are_those_of_a_loop_over_images(
    size, channels, height, width, crop, flip, seed
):
    whole = torch.rand(size + 1, channels, height, width, generator=torch.Generator())
    images = whole[1:]  # does not begin where its memory begins
    shifted = Augment(crop=crop, flip=flip).shift(images, torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed)
    mirrored = torch.rand(size, generator=generator) < 0.5 if flip else torch.zeros(size).bool()
    offsets = torch.zeros(2, size).long()
    if crop:
        offsets = torch.randint(2 * crop + 1, (2, size), generator=generator)
    for number, image in enumerate(images):
        padded = torch.zeros(channels, height + 2 * crop, width + 2 * crop)
        padded[:, crop : crop + height, crop : crop + width] = image
        top, left = offsets[:, number].tolist()
        window = padded[:, top : top + height, left : left + width]
        assert torch.equal(shifted[number], window.flip(2) if mirrored[number] else window)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_are_the_same_however_one_asks_for_them(dtype):
    images = Images(some_images(9, dtype=dtype), (0.5,) * 3, (0.25,) * 3)
    chosen = torch.tensor([7, 2, 2])
    mask = torch.zeros(9, dtype=torch.bool)
    mask[[2, 7]] = True
    assert torch.equal(images.get(chosen), images.get(slice(None))[chosen])
    assert torch.equal(images.get(mask), images.get(torch.tensor([2, 7])))
    assert torch.equal(images.get(slice(2, 3)), images.get(torch.tensor([2])))


def test_cutout_cuts_one_square_an_image():
    cut = Augment(cutout=4).cut(torch.ones(200, 2, 8, 8), torch.Generator().manual_seed(0))
    sizes = set()
    for image in cut:
        assert torch.equal(image[0], image[1])
        rows, columns = (image[0] == 0).nonzero(as_tuple=True)
        height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
        assert len(rows) == height * width  # a full rectangle
        sizes.add((int(height), int(width)))
    assert max(sizes) == (4, 4)
    assert min(sizes) < (4, 4)  # squares may lie across the border


def test_a_flip_happens_for_half_of_the_images():
    images = some_images(2000, channels=1, side=4)
    flipped = Augment(flip=True).shift(images, torch.Generator().manual_seed(0))
    share = (flipped == images.flip(3)).flatten(1).all(1).float().mean().item()
    assert abs(share - 0.5) < 0.06  # over five standard deviations


def test_uint8_images_stay_small_until_the_batch():
    images = some_images(200)
    stored = Images(images, (0.5,) * 3, (0.25,) * 3)
    tensors = [value for value in vars(stored).values() if isinstance(value, torch.Tensor)]
    assert sum(tensor.nbytes for tensor in tensors) < 1.1 * images.nbytes


def test_bad_input_says_what_to_do():
    with pytest.raises(ValueError, match="batch_size"):
        make_batches(some_images(), batch_size=0)
    with pytest.raises(TypeError, match="uint8"):
        Images(some_images().double(), (0.5,) * 3, (0.25,) * 3)
    with pytest.raises(ValueError, match="channels, height, width"):
        Images(some_images()[0], (0.5,) * 3, (0.25,) * 3)
    with pytest.raises(ValueError, match="one label an image"):
        Batches(Images(some_images(), (0.5,) * 3, (0.2,) * 3), torch.zeros(3), batch_size=2)
    with pytest.raises(ValueError, match="crop"):
        Augment(crop=-1)


@pytest.mark.gpu
def test_batches_live_on_the_gpu():
    stored = Images(some_images(), (0.5,) * 3, (0.25,) * 3, "cuda")
    generator = torch.Generator("cuda").manual_seed(0)
    batches = Batches(
        stored,
        torch.zeros(12).long(),
        batch_size=5,
        generator=generator,
        augment=Augment(2, True, 2),
    )
    assert {tensor.device.type for batch in batches for tensor in batch} == {"cuda"}


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_too_many_for_the_device_stay_where_they_are(dtype, monkeypatch):
    """They come to it batch by batch, and are normalised there."""
    monkeypatch.setattr(batches, "_fits", lambda images, device: False)
    stored = Images(some_images(dtype=dtype), (0.5,) * 3, (0.25,) * 3, "meta")
    got = stored.get(torch.tensor([3, 1]), Augment(cutout=2))
    assert (got.device.type, got.shape, got.dtype) == ("meta", (2, 3, 8, 8), torch.float32)
