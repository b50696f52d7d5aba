"""Tests of the real noisy sets, on small folders with the layouts of the published ones."""

from __future__ import annotations

import math
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nlcourse import datasets, training
from nlcourse.datasets import (
    PHOTOGRAPHS,
    UNKNOWN,
    DataError,
    Decoding,
    dataset,
    image_cache,
    load,
    load_folder,
)
from nlcourse.datasets.photographs import FOLDERS, HOW_TO_GET
from nlcourse.methods import METHODS
from nlcourse.training.batches import Images
from nlcourse.training.measure import accuracy_shares

pytestmark = pytest.mark.usefixtures("offline")

QUICK = Decoding(size=8, progress=False, workers=2)


def make_image(path: Path, value: int) -> None:
    """Write an image of one grey, by which a test knows it again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (12, 10), (value, value, value)).save(path)


def greys(images: torch.Tensor) -> list[int]:
    """Say which images these are (a JPEG may be off by one)."""
    return [5 * round(value / 5) for value in images.float().mean(dim=(1, 2, 3)).tolist()]


def write(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def by_grey(data: datasets.Dataset) -> dict[int, tuple[int, int]]:
    pairs = zip(data.labels.tolist(), data.true_labels.tolist(), strict=True)
    return dict(zip(greys(data.images), pairs, strict=True))


# ---------------------------------------------------------------- Clothing1M


def make_clothing(root: Path, *, lists: str = ".", images: str = "images") -> Path:
    """Six noisy and three clean training images, two for validation, three for testing.

    Image k is of grey 10 k; the given label of image k is k, of the clean ones k + 1.
    """
    folder = root / "Clothing1M"
    keys = [f"images/{k % 3}/0{k}/12{k},99{k}.jpg" for k in range(14)]
    for k, key in enumerate(keys):
        make_image(folder / key.replace("images", images, 1), 10 * k)
    noisy, clean, validation, test = keys[:6], keys[6:9], keys[9:11], keys[11:14]
    write(folder / lists / "noisy_train_key_list.txt", *noisy)
    write(folder / lists / "clean_train_key_list.txt", *clean)
    write(folder / lists / "clean_val_key_list.txt", *validation)
    write(folder / lists / "clean_test_key_list.txt", *test)
    given = [f"{key} {k}" for k, key in enumerate(keys) if k != 8]
    write(folder / lists / "noisy_label_kv.txt", *given)
    true = [f"{keys[k]} {(k + 1) % 14}" for k in (6, 8, 9, 10, 11, 12, 13)]
    write(folder / lists / "clean_label_kv.txt", *true, f"{keys[7]} 7", f"{keys[2]} 3")
    return folder


def test_clothing1m_has_a_million_labels_that_nobody_checked(tmp_path):
    make_clothing(tmp_path)
    data = load("clothing1m", root=tmp_path, decoding=QUICK)
    assert data.name == "clothing1m"
    assert data.image_shape == (3, 8, 8)
    assert data.images.dtype == torch.uint8
    unknown = {10 * k: (k, UNKNOWN) for k in range(6)}
    assert by_grey(data) == unknown | {20: (2, 3)}  # one of them stands in the clean list too
    assert dict(zip(greys(data.test_images), data.test_labels.tolist(), strict=True)) == {
        110: 12,
        120: 13,
        130: 0,
    }
    assert data.num_classes == 14
    assert (data.class_names[0], data.class_names[13]) == ("T-Shirt", "Underwear")
    assert data.mean == (0.6959, 0.6537, 0.6371)
    assert data.noise_rate == 1  # of the one that is known


def test_clothing1m_with_both_labels_has_a_noise_rate(tmp_path):
    make_clothing(tmp_path)
    data = load("clothing1m", root=tmp_path, kind="both", test="validation", decoding=QUICK)
    assert by_grey(data) == {60: (6, 7), 70: (7, 7)}
    assert data.noise_rate == 0.5
    assert sorted(data.test_labels.tolist()) == [10, 11]


def test_clothing1m_clean(tmp_path):
    make_clothing(tmp_path)
    data = load("clothing1m", root=tmp_path, kind="clean", decoding=QUICK)
    assert by_grey(data) == {60: (7, 7), 70: (7, 7), 80: (9, 9)}
    assert data.noise_rate == 0


@pytest.mark.parametrize(("lists", "images"), [("annotations", "images"), (".", ".")])
def test_clothing1m_in_the_other_layouts_that_codes_use(tmp_path, lists, images):
    make_clothing(tmp_path, lists=lists, images=images)
    assert len(load("clothing1m", root=tmp_path, decoding=QUICK).images) == 6


def test_a_line_that_stands_twice_counts_once(tmp_path):
    folder = make_clothing(tmp_path)
    for name in ("noisy_train_key_list.txt", "noisy_label_kv.txt"):
        text = (folder / name).read_text()
        (folder / name).write_text(text + text.splitlines()[0] + "\n\n")
    assert len(load("clothing1m", root=tmp_path, decoding=QUICK).images) == 6


@pytest.mark.parametrize(
    ("file", "line", "message"),
    [
        ("noisy_label_kv.txt", "images/0/00/120,990.jpg 14", ":14: .*label from 0 to 13, got"),
        ("noisy_label_kv.txt", "images/0/00/120,990.jpg -1", ":14: .*label from 0 to 13, got"),
        ("noisy_label_kv.txt", "images/0/00/120,990.jpg", ":14: expected a path and a label"),
        ("noisy_label_kv.txt", "images/0/00/120,990.jpg 5", ":14: a second, other label for im"),
        ("noisy_train_key_list.txt", "images/new.jpg", "1 images of .*no label, .*images/new.jpg"),
    ],
)
def test_a_clothing1m_list_that_cannot_be_is_refused(tmp_path, file, line, message):
    folder = make_clothing(tmp_path)
    with (folder / file).open("a") as opened:
        opened.write(line + "\n")
    with pytest.raises(DataError, match=message):
        load("clothing1m", root=tmp_path, decoding=QUICK)


def test_an_empty_list_is_refused(tmp_path):
    folder = make_clothing(tmp_path)
    write(folder / "noisy_train_key_list.txt")
    with pytest.raises(DataError, match="No image is listed for clothing1m-noisy"):
        load("clothing1m", root=tmp_path, decoding=QUICK)


def test_missing_images_of_a_published_set_say_what_belongs_where(tmp_path):
    folder = make_clothing(tmp_path)
    (folder / "images/0/00/120,990.jpg").unlink()
    with pytest.raises(DataError) as caught:
        load("clothing1m", root=tmp_path, decoding=QUICK)
    message = str(caught.value)
    assert "1 of the 6 images of clothing1m-noisy are missing" in message
    assert f"Expected in {folder}: noisy_train_key_list.txt" in message
    with pytest.warns(UserWarning, match="left out: 1 of the 6"):
        data = load("clothing1m", root=tmp_path, decoding=replace(QUICK, damaged="skip"))
    assert by_grey(data).keys() == {10, 20, 30, 40, 50}
    assert all(given == grey // 10 for grey, (given, _) in by_grey(data).items())


# ---------------------------------------------------------------- WebVision


def make_webvision(root: Path, *, imagenet: str | None = None, synsets: bool = True) -> Path:
    folder = root / "WebVision"
    ids = [f"n0{1440764 + c}" for c in range(60)]
    train = [(f"google/q000{k}/a{k}.jpg", 7 * k) for k in range(9)]  # 0, 7, ..., 49, 56
    for k, (path, _) in enumerate(train):
        make_image(folder / path, 10 * k)
    write(folder / "info/train_filelist_google.txt", *(f"{path} {label}" for path, label in train))
    test = [(f"val00000{k}.jpg", label) for k, label in enumerate((49, 50, 0))]
    for k, (path, _) in enumerate(test):
        make_image(folder / "val_images_256" / path, 100 + 10 * k)
    write(folder / "info/val_filelist.txt", *(f"{path} {label}" for path, label in test))
    if synsets:
        write(
            folder / "info/synsets.txt", *(f"{name} thing {c}, other" for c, name in enumerate(ids))
        )
    if imagenet:
        for c in range(60):
            one = str(c) if imagenet == "numbers" else ids[c]
            make_image(folder / "imagenet/val" / one / f"ILSVRC2012_val_{c}.JPEG", c * 4)
    return folder


def test_mini_webvision_is_the_first_fifty_classes(tmp_path):
    make_webvision(tmp_path)
    data = load("mini-webvision", root=tmp_path, decoding=QUICK)
    assert by_grey(data) == {10 * k: (7 * k, UNKNOWN) for k in range(8)}
    assert dict(zip(greys(data.test_images), data.test_labels.tolist(), strict=True)) == {
        100: 49,
        120: 0,
    }
    assert data.num_classes == 50
    assert data.class_names[49] == "thing 49"
    assert math.isnan(data.noise_rate)
    assert "true labels unknown" in repr(data)


@pytest.mark.parametrize("folders", ["numbers", "synsets"])
def test_the_second_test_set_is_imagenet_s(tmp_path, folders):
    make_webvision(tmp_path, imagenet=folders)
    data = load("mini-webvision", root=tmp_path, test="ilsvrc12", decoding=QUICK)
    assert sorted(data.test_labels.tolist()) == list(range(50))
    grey = data.test_images.float().mean(dim=(1, 2, 3))
    assert (grey - 4 * data.test_labels).abs().max() <= 1


def test_both_test_sets_share_the_training_images(tmp_path, monkeypatch):
    folder = make_webvision(tmp_path, imagenet="numbers")
    load("mini-webvision", root=tmp_path, decoding=QUICK)
    load("mini-webvision", root=tmp_path, test="ilsvrc12", decoding=QUICK)
    caches = [path.name for path in (folder / image_cache.FOLDER).glob("*.rows.npy")]
    assert sorted(name.rsplit("-", 2)[0] for name in caches) == [
        "mini-webvision-ilsvrc12",
        "mini-webvision-train",
        "mini-webvision-webvision",
    ]


def test_synset_folders_need_to_be_told_apart(tmp_path):
    make_webvision(tmp_path, imagenet="synsets", synsets=False)
    with pytest.raises(DataError, match="folders 0 to 49, or synset folders .* got 60 folders"):
        load("mini-webvision", root=tmp_path, test="ilsvrc12", decoding=QUICK)
    assert load("mini-webvision", root=tmp_path, decoding=QUICK).class_names[3] == "class 3"


def test_missing_imagenet_is_said(tmp_path):
    folder = make_webvision(tmp_path)
    with pytest.raises(DataError, match=f"missing: {folder / 'imagenet/val'}"):
        load("mini-webvision", root=tmp_path, test="ilsvrc12", decoding=QUICK)


# ---------------------------------------------------------------- Food-101


def make_food(root: Path) -> Path:
    folder = root / "food-101"
    train = ["apple_pie/1005", "waffles/77", "apple_pie/1006", "sushi/3"]
    test = ["sushi/4", "waffles/78"]
    for k, key in enumerate(train + test):
        make_image(folder / "images" / f"{key}.jpg", 20 * k)
    write(folder / "meta/classes.txt", "apple_pie", "sushi", "waffles")
    write(folder / "meta/train.txt", *train)
    write(folder / "meta/test.txt", *test)
    return folder


def test_food101_has_noisy_training_labels(tmp_path):
    make_food(tmp_path)
    data = load("food101", root=tmp_path, decoding=QUICK)
    assert by_grey(data) == {
        k: (label, UNKNOWN) for k, label in [(0, 0), (20, 2), (40, 0), (60, 1)]
    }
    assert greys(data.test_images) == [80, 100]
    assert data.test_labels.tolist() == [1, 2]
    assert data.class_names == ("apple pie", "sushi", "waffles")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("pizza/1", r"train.txt:5: 'pizza' is none of the classes apple_pie, sushi, waffles"),
        ("sushi/3", "images/sushi/3.jpg stands twice in"),
    ],
)
def test_a_food101_list_that_cannot_be_is_refused(tmp_path, line, message):
    folder = make_food(tmp_path)
    with (folder / "meta/train.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(DataError, match=message):
        load("food101", root=tmp_path, decoding=QUICK)


def test_food101_is_fetched_whole_or_not_at_all(tmp_path, monkeypatch):
    make_food(tmp_path / "served")
    archive = tmp_path / "food-101.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "served/food-101", "food-101")

    def serve(url, root, filename=None, md5=None):
        (Path(root) / filename).write_bytes(archive.read_bytes())

    root = tmp_path / "data"
    with pytest.raises(DataError, match="could not be fetched: no network in the tests"):
        load("food101", root=root, decoding=QUICK)
    assert list((root / "food-101").iterdir()) == []
    monkeypatch.setattr("torchvision.datasets.utils.download_url", serve)
    # The lists of torchvision's class, which looks into them when all is there.
    for name in ("train", "test"):
        write(tmp_path / f"served/food-101/meta/{name}.json", "{}")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tmp_path / "served/food-101", "food-101")
    assert (
        len(load("food101", root=root, decoding=replace(QUICK, cache=tmp_path / "cache")).images)
        == 4
    )
    assert sorted(path.name for path in (root / "food-101").iterdir()) == ["images", "meta"]
    assert len(load("food101", root=root, download=False, decoding=QUICK).images) == 4


# ---------------------------------------------------------------- names and options


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_a_missing_set_says_what_belongs_where_and_where_it_comes_from(name, tmp_path):
    with pytest.raises(DataError) as caught:
        load(name, root=tmp_path, download=False)
    message = str(caught.value)
    folder = tmp_path / FOLDERS[name]
    assert f"missing: {folder}" in message
    assert f"Expected in {folder}: " in message
    assert message.endswith(HOW_TO_GET[name][1])
    assert list(tmp_path.iterdir()) == []
    if name != "food101":
        with pytest.raises(DataError, match="missing: "):
            load(name, root=tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("clothing1m", {"kind": "worse"}, "out of noisy, both, clean, got 'worse'"),
        ("clothing1m", {"test": "ilsvrc12"}, "out of test, validation, got 'ilsvrc12'"),
        ("mini-webvision", {"test": "best"}, "out of webvision, ilsvrc12, got 'best'"),
        ("food101", {"kind": "noisy"}, "`kind` of 'food101' to be left out"),
        ("mnist", {"test": "best"}, "`test` of 'mnist' to be left out, got 'best'"),
        ("digits", {"decoding": QUICK}, "`decoding` for clothing1m, .* only, got 'digits'"),
    ],
)
def test_options_without_meaning_are_refused(name, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load(name, root=tmp_path, download=False, **options)


# ---------------------------------------------------------------- any folder with a label file


@pytest.fixture
def folder(tmp_path):
    """Ten images of grey 10 k below two folders, under names that say nothing of classes."""
    for k in range(10):
        make_image(tmp_path / f"shots/{'ab'[k % 2]}/{k}.png", 10 * k)
    return tmp_path / "shots"


def line(k: int, *labels: str) -> str:
    return ",".join([f"{'ab'[k % 2]}/{k}.png", *labels])


def test_a_folder_with_label_files(folder):
    write(folder / "labels.csv", "path,label,true_label", *(
        line(k, "cat" if k < 4 else "dog", "dog" if k == 0 else ("" if k == 5 else "cat"))
        for k in range(8)
    ))  # fmt: skip
    write(folder / "test_labels.csv", "path,label", line(8, "dog"), line(9, "cat"))
    data = load_folder(folder, decoding=QUICK)
    assert data.name == "shots"
    assert data.class_names == ("cat", "dog")
    assert by_grey(data) == {
        0: (0, 1), 10: (0, 0), 20: (0, 0), 30: (0, 0),
        40: (1, 0), 50: (1, UNKNOWN), 60: (1, 0), 70: (1, 0),
    }  # fmt: skip
    assert data.noise_rate == pytest.approx(4 / 7)
    assert "57.1% wrong labels among the 87.5% that are known" in repr(data)
    assert dict(zip(greys(data.test_images), data.test_labels.tolist(), strict=True)) == {
        80: 1,
        90: 0,
    }
    pixels = data.images.transpose(0, 1).flatten(1).double() / 255
    assert data.mean == pytest.approx(pixels.mean(1).tolist())
    assert data.std == pytest.approx(pixels.std(1, correction=0).tolist())


def test_label_files_of_another_name_and_place(folder, tmp_path):
    write(tmp_path / "mine.csv", "label, path", *(f"{k % 3},{line(k)}" for k in range(10)))
    write(folder / "held.csv", "path,label", "../extra.png,1")
    make_image(tmp_path / "extra.png", 200)
    data = load_folder(folder, labels=tmp_path / "mine.csv", test_labels="held.csv", decoding=QUICK)
    assert by_grey(data) == {10 * k: (k % 3, UNKNOWN) for k in range(10)}
    assert greys(data.test_images) == [200]


def test_numbers_are_sorted_by_their_size(folder):
    write(folder / "labels.csv", "path,label", *(line(k, str(k + 1)) for k in range(10)))
    data = load_folder(folder, test_share=0.2, decoding=QUICK)
    assert data.class_names == tuple(str(k + 1) for k in range(10))


def test_a_share_is_split_off_for_testing(folder):
    write(folder / "labels.csv", "path,label,true_label", *(
        line(k, "x", "xy"[k % 2]) for k in range(10)
    ))  # fmt: skip
    splits = []
    for seed in (0, 0, 1):
        how = replace(QUICK, cache=folder / f"c{len(splits)}")
        data = load_folder(folder, test_share=0.4, seed=seed, decoding=how)
        train, test = by_grey(data), greys(data.test_images)
        assert sorted([*train, *test]) == [10 * k for k in range(10)]
        assert len(test) == 4
        # The true classes keep their shares, and the test labels are the true ones.
        assert data.test_labels.bincount().tolist() == [2, 2]
        assert data.test_labels.tolist() == [grey // 10 % 2 for grey in test]
        splits.append(sorted(test))
    assert splits[0] == splits[1] != splits[2]


def test_a_label_without_truth_serves_as_test_label(folder):
    write(folder / "labels.csv", "path,label", *(line(k, "xy"[k % 2]) for k in range(10)))
    data = load_folder(folder, decoding=QUICK)
    assert data.test_labels.tolist() == [grey // 10 % 2 for grey in greys(data.test_images)]
    assert (data.true_labels == UNKNOWN).all()


@pytest.mark.parametrize("share", [0, 1, 0.04, 0.96, -1])
def test_a_share_that_leaves_no_images_is_refused(folder, share):
    write(folder / "labels.csv", "path,label", *(line(k, "x") for k in range(10)))
    with pytest.raises(ValueError, match="`test_share`"):
        load_folder(folder, test_share=share, decoding=QUICK)


@pytest.mark.parametrize(
    ("lines", "names", "message"),
    [
        (["image,label", "a/0.png,x"], None, "columns path,label.* got image,label"),
        ([], None, "got an empty file"),
        (["path,label"], None, "No image is listed for labels in"),
        (["path,label", "a/0.png,"], None, "labels.csv:2: expected a path and a label"),
        (["path,label", "a/0.png"], None, "labels.csv:2: expected a path and a label"),
        (["path,label", "a/0.png,x", "a/./0.png,y"], None, "a/0.png stands twice in"),
        (["path,label", "a/0.png,x"], ["y", "z"], "labels.csv:2: 'x' is none of the classes y, z"),
        (["path,label,true_label", "a/0.png,y,x"], ["y"], "labels.csv:2: 'x' is none of the"),
        (
            ["path,label", "a/0.png,x", "a/gone.png,x"],
            None,
            "1 of .* or damaged:\n.*gone.png",
        ),
    ],
)
def test_a_label_file_that_cannot_be_is_refused(folder, lines, names, message):
    write(folder / "labels.csv", *lines)
    write(folder / "test_labels.csv", "path,label", "b/1.png,y")
    with pytest.raises(DataError, match=message):
        load_folder(folder, class_names=names, decoding=QUICK)


def test_an_image_may_not_be_in_both_parts(folder):
    write(folder / "labels.csv", "path,label", line(0, "x"), line(1, "y"))
    write(folder / "test_labels.csv", "path,label", line(1, "y"))
    with pytest.raises(DataError, match=r"test_labels.csv:2: b/1.png is a training image as well"):
        load_folder(folder, decoding=QUICK)


def test_a_label_file_that_is_not_there(folder):
    with pytest.raises(DataError, match="no label file mine.csv"):
        load_folder(folder, labels="mine.csv", decoding=QUICK)


def test_damaged_images_of_a_folder(folder):
    write(folder / "labels.csv", "path,label", *(line(k, "xy"[k % 2]) for k in range(8)))
    write(folder / "test_labels.csv", "path,label", line(8, "x"), line(9, "y"))
    (folder / "a/2.png").write_text("no image")
    with pytest.raises(DataError, match=r"1 of the 8 images .*\n.*a/2.png: UnidentifiedImageError"):
        load_folder(folder, decoding=QUICK)
    with pytest.warns(UserWarning, match="left out"):
        data = load_folder(folder, decoding=replace(QUICK, damaged="skip"))
    assert by_grey(data) == {10 * k: (k % 2, UNKNOWN) for k in range(8) if k != 2}


# ---------------------------------------------------------------- a folder for each class


def test_class_folders_in_train_and_test(tmp_path):
    for k in range(6):
        make_image(tmp_path / f"train/{'ab'[k % 2]}/deep/{k}.jpg", 20 * k)
    make_image(tmp_path / "test/b/9.jpg", 200)
    write(tmp_path / "train/a/notes.txt", "no image, and not taken for one")
    data = load_folder(tmp_path, decoding=QUICK)
    assert data.class_names == ("a", "b")
    assert by_grey(data) == {20 * k: (k % 2, UNKNOWN) for k in range(6)}
    assert (greys(data.test_images), data.test_labels.tolist()) == ([200], [1])


def test_class_folders_alone(tmp_path):
    for k in range(10):
        make_image(tmp_path / f"{'ab'[k % 2]}/{k}.png", 10 * k)
    (tmp_path / ".ipynb_checkpoints").mkdir()
    for _ in range(2):  # the second time the cache lies there, and is no class
        data = load_folder(tmp_path, decoding=QUICK)
        assert data.class_names == ("a", "b")
        assert (len(data.images), len(data.test_images)) == (8, 2)


def test_test_labels_need_labels_for_training(tmp_path):
    make_image(tmp_path / "a/1.png", 0)
    with pytest.raises(ValueError, match="Expected `labels` beside `test_labels`"):
        load_folder(tmp_path, test_labels="held.csv", decoding=QUICK)


def test_class_folders_in_the_order_that_was_asked_for(tmp_path):
    for k in range(10):
        make_image(tmp_path / f"{'ab'[k % 2]}/{k}.png", 10 * k)
    data = load_folder(tmp_path, class_names=["b", "a", "c"], decoding=QUICK)
    assert data.num_classes == 3
    assert all(given == 1 - grey // 10 % 2 for grey, (given, _) in by_grey(data).items())
    with pytest.raises(DataError, match="/b: 'b' is none of the classes a"):
        load_folder(tmp_path, class_names=["a"], decoding=QUICK)


def test_a_test_class_that_was_never_trained_is_refused(tmp_path):
    make_image(tmp_path / "train/a/1.png", 0)
    make_image(tmp_path / "test/b/2.png", 0)
    with pytest.raises(DataError, match="test/b: 'b' is none of the classes a"):
        load_folder(tmp_path, decoding=QUICK)


def test_an_empty_folder_says_what_is_expected(tmp_path):
    with pytest.raises(DataError, match=r"labels.csv \(path,label\[,true_label\]\) or a folder of"):
        load_folder(tmp_path, decoding=QUICK)
    with pytest.raises(DataError, match="there is none at .*nowhere"):
        load_folder(tmp_path / "nowhere", decoding=QUICK)


def test_a_folder_of_black_images_has_a_deviation(tmp_path):
    for k in range(4):
        make_image(tmp_path / f"train/{k % 2}/{k}.png", 0)
        make_image(tmp_path / f"test/{k % 2}/{k}.png", 0)
    assert min(load_folder(tmp_path, decoding=QUICK).std) > 0


# ---------------------------------------------------------------- training on it


@pytest.fixture
def photographs(folder):
    write(folder / "labels.csv", "path,label,true_label", *(
        line(k, "xy"[k % 2], "xy"[k // 5]) for k in range(10)
    ))  # fmt: skip
    return load_folder(folder, decoding=QUICK)


def is_mapped(images: torch.Tensor, data: datasets.Dataset) -> bool:
    return images.untyped_storage().data_ptr() == data.images.untyped_storage().data_ptr()


def test_training_reads_the_memory_map_itself(photographs):
    images = Images(photographs.images, photographs.mean, photographs.std)
    assert is_mapped(images._stored, photographs)
    assert is_mapped(photographs.with_labels(photographs.labels).images, photographs)


def test_it_trains(photographs):
    history = training.fit(
        METHODS["cross-entropy"](), photographs, network="small-cnn", epochs=2, progress=False
    )
    assert len(history) == 2
    assert math.isfinite(history.last["train_loss"])


@pytest.mark.parametrize(
    ("name", "settings"), [("co-teaching", {"noise_rate": 0.3}), ("joint-optimization", {})]
)
def test_what_needs_true_labels_is_nan_where_nobody_knows_them(photographs, name, settings):
    unknown = replace(photographs, true_labels=torch.full_like(photographs.labels, UNKNOWN))
    method = METHODS[name](**settings)
    row = training.fit(method, unknown, network="small-cnn", epochs=1, progress=False).last
    for column in ("test_accuracy", "given_accuracy", "train_loss"):
        assert math.isfinite(row[column])
    of_truth = {"true_accuracy", "clean_accuracy", "wrong_as_true", "wrong_as_given"}
    of_truth |= {"wrong_as_other", "label_precision", "label_recall", "label_recovery"}
    assert all(math.isnan(row[column]) for column in of_truth), row


def test_shares_are_those_of_the_known_examples():
    predicted, given = torch.tensor([0, 1, 1, 2, 2]), torch.tensor([0, 1, 2, 2, 0])
    true = torch.tensor([0, UNKNOWN, 1, 0, UNKNOWN])
    shares = {k: v.item() for k, v in accuracy_shares(predicted, given, true).items()}
    assert shares == pytest.approx(
        {
            "given_accuracy": 3 / 5,
            "true_accuracy": 2 / 3,
            "clean_accuracy": 1,
            "wrong_as_true": 1 / 2,
            "wrong_as_given": 1 / 2,
            "wrong_as_other": 0,
        }
    )


def test_a_checkpoint_asks_for_the_key_and_does_not_read_the_images(
    photographs, tmp_path, monkeypatch
):
    def run(data, epochs):
        options = training.Options(checkpoint=tmp_path / "run.pt")
        how = {"network": "small-cnn", "progress": False, "options": options}
        return training.fit(METHODS["cross-entropy"](), data, epochs=epochs, **how)

    run(photographs, 1)
    monkeypatch.setattr(torch.Tensor, "contiguous", _refuse_images(torch.Tensor.contiguous))
    assert len(run(photographs, 2)) == 2
    monkeypatch.undo()
    with pytest.raises(ValueError, match="belongs to another run: its examples"):
        run(photographs.with_images(photographs.images.clone()), 3)


def _refuse_images(real):
    def contiguous(tensor, *arguments, **options):
        assert not getattr(tensor, dataset.KEY, ""), "the whole memory map was read"
        return real(tensor, *arguments, **options)

    return contiguous


def test_the_key_tells_images_apart_and_goes_with_them(photographs, folder):
    assert photographs.images_key
    assert photographs.with_labels(1 - photographs.labels).images_key == photographs.images_key
    assert photographs.with_images(photographs.images.clone()).images_key == ""
    assert photographs.subset(3).images_key == ""
    other = load_folder(folder, seed=1, decoding=replace(QUICK, cache=folder / "other"))
    assert other.images_key != photographs.images_key
    assert datasets.load("digits").images_key == ""


def test_a_subset_lies_in_memory(photographs):
    part = photographs.subset(4)
    assert not is_mapped(part.images, photographs)
    part.images.zero_()  # and may be written to
    assert np.count_nonzero(photographs.images.numpy())
