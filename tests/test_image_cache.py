"""The cache of images: small photographs made here, killed and damaged decodings."""

from __future__ import annotations

import multiprocessing
import os
import time
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from nlcourse.datasets import DataError, Decoding, image_cache
from nlcourse.datasets.image_cache import cached_images, decode

QUIET = {"size": 16, "progress": False, "workers": 2}


def make_image(path, seed=0, shape=(24, 40, 3)):
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(seed)
    Image.fromarray(draw.integers(256, size=shape, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def photos(tmp_path):
    """Seven images, of more shapes and kinds than one; the folder and their paths."""
    shapes = [(24, 40, 3), (40, 24, 3), (16, 16, 3), (300, 17, 3), (8, 8, 3), (20, 33), (24, 30, 4)]
    paths = [f"some/{i}.png" for i in range(len(shapes))]
    for seed, (path, shape) in enumerate(zip(paths, shapes, strict=True)):
        make_image(tmp_path / path, seed, shape)
    return tmp_path, paths


@pytest.fixture
def decoded(monkeypatch):
    """The images that were decoded, in a list that a test may empty."""
    seen = []
    real = image_cache.decode

    def noting(path, size):
        seen.append(path.name)
        return real(path, size)

    monkeypatch.setattr(image_cache, "decode", noting)
    return seen


def by_torchvision(path, size):
    """Resize and cut as the published codes do for testing."""
    steps = [transforms.Resize(size), transforms.CenterCrop(size), transforms.PILToTensor()]
    with Image.open(path) as image:
        return transforms.Compose(steps)(image.convert("RGB"))


def check(cached, base, paths, size=16):
    assert sorted(cached.index.tolist()) == list(range(len(paths)))
    for row, image in enumerate(cached.index.tolist()):
        assert torch.equal(cached.images[row], by_torchvision(base / paths[image], size))


def files_of(base):
    return sorted(path.name for path in (base / image_cache.FOLDER).glob("*.npy"))


# ---------------------------------------------------------------- decoding


@pytest.mark.parametrize("size", [1, 16, 31])
def test_images_are_resized_and_cut_as_torchvision_does(photos, size):
    base, paths = photos
    cached = cached_images("set", base, paths, Decoding(**QUIET | {"size": size}))
    assert cached.images.shape == (7, 3, size, size)
    assert cached.images.dtype == torch.uint8
    check(cached, base, paths, size)


def test_the_middle_of_the_longer_side_is_kept(tmp_path):
    pixels = np.zeros((10, 30, 3), dtype=np.uint8)
    pixels[:, 10:20] = 200
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    assert (decode(tmp_path / "wide.png", 10) == 200).all()


def test_the_second_time_nothing_is_decoded(photos, decoded):
    base, paths = photos
    first = cached_images("set", base, paths, Decoding(**QUIET))
    assert len(decoded) == 7
    decoded.clear()
    second = cached_images("set", base, paths, Decoding(**QUIET))
    assert decoded == []
    assert torch.equal(first.images, second.images)
    assert first.images.cache_key == second.images.cache_key


def test_images_lie_on_the_disk_not_in_memory(photos):
    base, paths = photos
    cached = cached_images("set", base, paths, Decoding(**QUIET))
    (file,) = (base / image_cache.FOLDER).glob("set-16-????????????.npy")
    pixels = np.load(file)  # memory of its own
    assert torch.equal(torch.from_numpy(pixels), cached.images)
    with file.open("r+b") as changed:
        changed.seek(-1, os.SEEK_END)
        changed.write(bytes([pixels[-1, -1, -1, -1] ^ 255]))
    assert cached.images[-1, -1, -1, -1] == pixels[-1, -1, -1, -1] ^ 255  # seen at once


def test_no_warning_reaches_the_student(photos):
    base, paths = photos
    torch.set_warn_always(True)  # else torch warns once in a process, and here perhaps no more
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for _ in range(2):
                cached_images("set", base, paths, Decoding(**QUIET))
    finally:
        torch.set_warn_always(False)


def test_another_place_for_the_cache(photos, tmp_path):
    base, paths = photos
    cached_images("set", base, paths, Decoding(**QUIET, cache=tmp_path / "elsewhere"))
    assert not (base / image_cache.FOLDER).exists()
    assert len(list((tmp_path / "elsewhere").glob("*.npy"))) == 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"size": 0}, "`size` of at least 1 pixel, got 0"),
        ({"damaged": "ignore"}, "`damaged` out of refuse, skip, got 'ignore'"),
        ({"workers": 0}, "`workers` of at least 1, got 0"),
    ],
)
def test_settings_without_meaning_are_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        Decoding(**setting)


# ---------------------------------------------------------------- what makes a cache stale


def test_another_list_or_size_is_another_cache(photos, decoded):
    base, paths = photos
    cached_images("set", base, paths, Decoding(**QUIET))
    with pytest.warns(UserWarning, match="of another list of images .*delete them .*set-16-"):
        fewer = cached_images("set", base, paths[:3], Decoding(**QUIET))
    check(fewer, base, paths[:3])
    cached_images("set", base, paths, Decoding(**QUIET | {"size": 8}))
    assert len(decoded) == 7 + 3 + 7
    assert len(files_of(base)) == 6


def test_another_order_is_another_cache(photos):
    base, paths = photos
    cached_images("set", base, paths, Decoding(**QUIET))
    with pytest.warns(UserWarning, match="another list"):
        check(cached_images("set", base, paths[::-1], Decoding(**QUIET)), base, paths[::-1])


def test_another_format_makes_old_caches_stale(photos, decoded, monkeypatch):
    base, paths = photos
    cached_images("set", base, paths, Decoding(**QUIET))
    monkeypatch.setattr(image_cache, "FORMAT", image_cache.FORMAT + 1)
    with pytest.warns(UserWarning, match="older format"):
        cached_images("set", base, paths, Decoding(**QUIET))
    assert len(decoded) == 14


def test_a_replaced_image_alone_is_decoded_again(photos, decoded):
    base, paths = photos
    before = cached_images("set", base, paths, Decoding(**QUIET)).images.cache_key
    decoded.clear()
    make_image(base / paths[2], seed=99, shape=(50, 50, 3))
    after = cached_images("set", base, paths, Decoding(**QUIET))
    assert decoded == ["2.png"]
    check(after, base, paths)
    assert after.images.cache_key != before


def test_originals_may_go_once_they_are_decoded(photos, decoded):
    base, paths = photos
    first = cached_images("set", base, paths, Decoding(**QUIET)).images.clone()
    for path in paths:
        (base / path).unlink()
    decoded.clear()
    assert torch.equal(cached_images("set", base, paths, Decoding(**QUIET)).images, first)
    assert decoded == []


@pytest.mark.parametrize("part", ["images", "rows"])
@pytest.mark.parametrize("damage", ["cut off", "gone", "garbage", "empty"])
def test_a_damaged_cache_is_made_anew(photos, decoded, part, damage):
    base, paths = photos
    cached_images("set", base, paths, Decoding(**QUIET))
    found = sorted((base / image_cache.FOLDER).glob("set-*.npy"))
    file = next(path for path in found if (".rows." in path.name) == (part == "rows"))
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    else:
        new = {"cut off": content[:-20], "garbage": b"x" * len(content), "empty": b""}[damage]
        file.write_bytes(new)
    decoded.clear()
    check(cached_images("set", base, paths, Decoding(**QUIET)), base, paths)
    assert len(decoded) == 7


# ---------------------------------------------------------------- killed and resumed


def kill_in_the_middle(base, paths):
    """Decode until the fifth image, then die as under `kill -9`."""
    count = [0]
    real = image_cache.decode

    def dying(path, size):
        count[0] += 1
        if count[0] == 5:
            os._exit(9)
        return real(path, size)

    image_cache.decode = dying
    image_cache.CHUNK = 2
    cached_images("set", base, paths, Decoding(**QUIET | {"workers": 1}))


def test_a_killed_decoding_goes_on_where_it_was(photos, decoded):
    base, paths = photos
    process = multiprocessing.get_context("spawn").Process(
        target=kill_in_the_middle, args=(base, paths)
    )
    process.start()
    process.join()
    assert process.exitcode == 9
    check(cached_images("set", base, paths, Decoding(**QUIET)), base, paths)
    assert sorted(decoded) == ["4.png", "5.png", "6.png"]


def decode_all(base, paths, results, together):
    count = [0]
    real = image_cache.decode

    def counting(path, size):
        count[0] += 1
        time.sleep(0.1)  # long enough for the other process to come across
        return real(path, size)

    image_cache.decode = counting
    together.wait()
    cached = cached_images("set", base, paths, Decoding(**QUIET))
    results.put((count[0], cached.images.sum().item()))


def test_two_processes_at_once_decode_each_image_once(photos):
    base, paths = photos
    context = multiprocessing.get_context("spawn")
    results, together = context.Queue(), context.Barrier(2)
    arguments = (base, paths, results, together)
    workers = [context.Process(target=decode_all, args=arguments) for _ in range(2)]
    for worker in workers:
        worker.start()
    counts, sums = zip(*[results.get(timeout=120) for _ in workers], strict=True)
    for worker in workers:
        worker.join()
    assert sum(counts) == 7
    assert sums[0] == sums[1]
    check(cached_images("set", base, paths, Decoding(**QUIET)), base, paths)


def test_a_stopped_decoding_goes_on_where_it_was(photos, decoded, monkeypatch):
    base, paths = photos
    monkeypatch.setattr(image_cache, "CHUNK", 3)
    noting = image_cache.decode

    def stop(path, size):
        if path.name == "4.png":
            raise KeyboardInterrupt
        return noting(path, size)

    monkeypatch.setattr(image_cache, "decode", stop)
    with pytest.raises(KeyboardInterrupt):
        cached_images("set", base, paths, Decoding(**QUIET | {"workers": 1}))
    decoded.clear()
    monkeypatch.setattr(image_cache, "decode", noting)
    check(cached_images("set", base, paths, Decoding(**QUIET)), base, paths)
    assert sorted(decoded) == ["3.png", "4.png", "5.png", "6.png"]


def test_killed_between_images_and_rows_is_started_clean(photos):
    """The images have their size, the rows are not there yet."""
    base, paths = photos
    cached_images("set", base, paths, Decoding(**QUIET))
    (rows,) = (base / image_cache.FOLDER).glob("*.rows.npy")
    rows.unlink()
    check(cached_images("set", base, paths, Decoding(**QUIET)), base, paths)


def test_killed_while_a_gap_was_closed(photos):
    """One image in two rows: the second is given up."""
    base, paths = photos
    cached_images("set", base, paths, Decoding(**QUIET))
    (rows_file,) = (base / image_cache.FOLDER).glob("*.rows.npy")
    rows = np.load(rows_file)
    rows[6] = rows[2]
    np.save(rows_file, rows)
    check(cached_images("set", base, paths, Decoding(**QUIET)), base, paths)


# ---------------------------------------------------------------- damaged and missing images


def damage(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_damaged_images_are_named_all_at_once(photos, decoded):
    base, paths = photos
    damage(base / paths[1])
    (base / paths[4]).write_text("no image")
    with pytest.raises(DataError) as caught:
        cached_images("set", base, paths, Decoding(**QUIET))
    message = str(caught.value)
    assert "2 of the 7 images of set are missing or damaged" in message
    assert f"{base / paths[1]}: OSError" in message
    assert f"{base / paths[4]}: UnidentifiedImageError" in message
    assert 'Decoding(damaged="skip")' in message
    make_image(base / paths[1], 1)
    make_image(base / paths[4], 4)
    decoded.clear()
    check(cached_images("set", base, paths, Decoding(**QUIET)), base, paths)
    assert sorted(decoded) == ["1.png", "4.png"]  # the others were kept


def test_damaged_images_are_left_out_when_asked(photos):
    base, paths = photos
    damage(base / paths[1])
    (base / paths[4]).unlink()
    for _ in range(2):
        with pytest.warns(UserWarning, match="left out: 2 of the 7 images") as said:
            cached = cached_images("set", base, paths, Decoding(**QUIET, damaged="skip"))
        assert f"{base / paths[4]}: missing" in str(said[0].message)
        assert sorted(cached.index.tolist()) == [0, 2, 3, 5, 6]
        assert cached.images.shape == (5, 3, 16, 16)
        for row, image in enumerate(cached.index.tolist()):
            assert torch.equal(cached.images[row], by_torchvision(base / paths[image], 16))


def test_a_repaired_image_comes_back(photos, decoded):
    base, paths = photos
    damage(base / paths[0])
    with pytest.warns(UserWarning, match="left out"):
        before = cached_images("set", base, paths, Decoding(**QUIET, damaged="skip"))
    make_image(base / paths[0], 50)
    decoded.clear()
    after = cached_images("set", base, paths, Decoding(**QUIET, damaged="skip"))
    check(after, base, paths)
    assert decoded == ["0.png"]
    assert after.images.cache_key != before.images.cache_key


def test_missing_images_are_said_before_anything_is_decoded(photos, decoded):
    base, paths = photos
    (base / paths[3]).unlink()
    with pytest.raises(
        DataError, match=r"1 of the 7 images of set are missing or damaged:\n.*3.png: missing"
    ):
        cached_images("set", base, paths, Decoding(**QUIET))
    assert decoded == []


@pytest.mark.parametrize("how", ["refuse", "skip"])
def test_a_folder_without_any_of_its_images(tmp_path, how):
    paths = [f"{i}.jpg" for i in range(20)]
    with pytest.raises(DataError, match="20 of the 20 images of set are missing") as caught:
        cached_images("set", tmp_path, paths, Decoding(**QUIET, damaged=how))
    assert "and 10 more" in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_only_damaged_images_are_no_data_set(photos):
    base, paths = photos
    for path in paths:
        (base / path).write_text("no image")
    with pytest.raises(DataError, match="7 of the 7 images"):
        cached_images("set", base, paths, Decoding(**QUIET, damaged="skip"))


# ---------------------------------------------------------------- no room, no right to write


def test_a_full_disk_is_refused_before(photos, monkeypatch):
    base, paths = photos
    free = 7 * 3 * 16 * 16 - 1

    def nearly_full(_folder):
        return image_cache.shutil._ntuple_diskusage(10**9, 10**9 - free, free)

    monkeypatch.setattr(image_cache.shutil, "disk_usage", nearly_full)
    with pytest.raises(DataError, match=r"GB are free. A smaller `size`.*Decoding.cache="):
        cached_images("set", base, paths, Decoding(**QUIET))
    cached_images("set", base, paths[:6], Decoding(**QUIET))


def test_a_cache_that_cannot_be_made_says_so(photos, tmp_path):
    base, paths = photos
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match='cannot be made: .*Another place: Decoding.cache="FOLDER"'):
        cached_images("set", base, paths, Decoding(**QUIET, cache=tmp_path / "file" / "cache"))
