"""Tests of nlcourse.datasets and nlcourse.datasets.files: small files of their own, no network."""

from __future__ import annotations

import dataclasses
import functools
import gzip
import hashlib
import http.server
import math
import os
import pickle
import struct
import tarfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision import datasets as torchvision_datasets
from torchvision.datasets.utils import download_url

from nlcourse import datasets, noise
from nlcourse.datasets import files, loading

pytestmark = pytest.mark.usefixtures("offline")

# Those that are fetched file by file; photographs are tested in test_real_sets.py.
CHECKED = [name for name in datasets.NAMES if name not in ("digits", *datasets.PHOTOGRAPHS)]
REAL = os.environ.get("NLCOURSE_DATA")  # read before the fixtures change it


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


# ---------------------------------------------------------------- small files like the real ones


def idx_bytes(values: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return header + values.astype(np.uint8).tobytes()


def idx_contents() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    return {
        "train-images-idx3-ubyte": draw.integers(256, size=(40, 28, 28)),
        "train-labels-idx1-ubyte": np.arange(40) % 10,
        "t10k-images-idx3-ubyte": draw.integers(256, size=(20, 28, 28)),
        "t10k-labels-idx1-ubyte": np.arange(20) % 10,
    }


@pytest.fixture(params=["mnist", "fashion-mnist"])
def idx(request, tmp_path, monkeypatch):
    """Packed idx files of 40 and 20 images, with hashes that torchvision's class knows."""
    source = files.torchvision_class(request.param)
    folder = files.needed(request.param, tmp_path)[0][0][0].parent
    folder.mkdir(parents=True)
    resources = []
    for name, values in idx_contents().items():
        path = folder / f"{name}.gz"
        path.write_bytes(gzip.compress(idx_bytes(values), mtime=0))
        resources.append((path.name, md5(path)))
    monkeypatch.setattr(source, "resources", resources)
    return request.param, tmp_path, folder


def cifar_batch(size: int, seed: int, num_classes: int, key: str) -> dict:
    draw = np.random.default_rng(seed)
    pixels = draw.integers(256, size=(size, 3072)).astype(np.uint8)
    return {"data": pixels, key: (np.arange(size) % num_classes).tolist()}


def make_cifar(name: str, root: Path, monkeypatch) -> Path:
    """Write the batches of a CIFAR of 5 x 20 (or 200) and 20 images; return their folder."""
    source = files.torchvision_class(name)
    classes, key = (10, "labels") if name.removesuffix("n") == "cifar10" else (100, "fine_labels")
    folder = root / source.base_folder
    folder.mkdir(parents=True)
    lists = {}
    for part in ("train_list", "test_list"):
        lists[part] = []
        for number, (file, _) in enumerate(getattr(source, part)):
            size = 2 * classes
            batch = cifar_batch(size, number, classes, key)
            (folder / file).write_bytes(pickle.dumps(batch))
            lists[part].append([file, md5(folder / file)])
        monkeypatch.setattr(source, part, lists[part])
    meta = folder / source.meta["filename"]
    meta.write_bytes(pickle.dumps({source.meta["key"]: [f"class {i}" for i in range(classes)]}))
    monkeypatch.setattr(source, "meta", {**source.meta, "md5": md5(meta)})
    return folder


@pytest.fixture(params=["cifar10", "cifar100"])
def cifar(request, tmp_path, monkeypatch):
    return request.param, tmp_path, make_cifar(request.param, tmp_path, monkeypatch)


def human_labels(name: str, clean: np.ndarray) -> dict[str, np.ndarray]:
    """Shift a different share of the labels for each kind, so that no two kinds are equal."""
    keys = datasets.HUMAN_KINDS[name].values()
    classes = 10 if name == "cifar10n" else 100
    labels = {"clean_label": clean.astype(np.int64)}
    for number, key in enumerate(keys, start=2):
        wrong = np.arange(len(clean)) % number == 0
        labels[key] = np.where(wrong, (clean + 1) % classes, clean).astype(np.int64)
    return labels


def write_labels(path: Path, labels: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **{key: value.astype(np.uint8) for key, value in labels.items()})
    else:
        torch.save(labels, path)


def make_human(name, root, monkeypatch, suffix, labels=None) -> dict[str, np.ndarray]:
    make_cifar(name, root, monkeypatch)
    source = files.torchvision_class(name)
    clean = np.array(source(root, train=True).targets)
    labels = human_labels(name, clean) if labels is None else labels
    paths = [root / "cifar-n" / file for file, _ in files.LABEL_FILES[name]]
    wanted = next(path for path in paths if path.suffix == suffix)
    write_labels(wanted, labels)
    known = [(path.name, md5(path) if path == wanted else "0" * 32) for path in paths]
    monkeypatch.setitem(files.LABEL_FILES, name, known)
    return labels


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class Server:
    """Serve a folder on this machine; `cut` sends half of each file under its full length."""

    def __init__(self, folder: Path, cut: bool = False):
        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_args):
                pass

            def copyfile(self, source, outputfile):
                content = source.read()
                outputfile.write(content[: len(content) // 2] if cut else content)

        handler = functools.partial(Handler, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self.address

    def __exit__(self, *_exception):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def _local_network(monkeypatch, offline):
    """Give torchvision its real downloader back, for addresses on this machine."""
    monkeypatch.setattr("torchvision.datasets.utils.download_url", download_url)
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "127.0.0.1")


def move_away(folder: Path, goal: Path) -> Path:
    goal.mkdir()
    for path in folder.iterdir():
        path.rename(goal / path.name)
    return goal


def left_behind(root: Path) -> list[Path]:
    """What a fetch that failed has left; its lock, an empty file, stays."""
    found = [path for path in root.rglob("*") if path.is_file() or path.name.startswith(".")]
    return [path for path in found if path.suffix != ".lock"]


# ---------------------------------------------------------------- digits


def test_digits_are_the_whole_of_scikit_learn_s():
    from sklearn.datasets import load_digits

    data = datasets.load("digits")
    assert data.images.shape == (1297, 1, 8, 8)
    assert data.test_images.shape == (500, 1, 8, 8)
    assert data.images.dtype == torch.float32
    bunch = load_digits()
    ours = torch.cat([data.images, data.test_images]).flatten(1).numpy() * 16
    labels = torch.cat([data.labels, data.test_labels]).numpy()
    rows = sorted(map(tuple, np.column_stack([ours, labels]).astype(int)))
    assert rows == sorted(map(tuple, np.column_stack([bunch.data, bunch.target]).astype(int)))


def test_digits_split_is_stratified():
    data = datasets.load("digits")
    counts = torch.cat([data.labels, data.test_labels]).bincount()
    fair = counts * 500 / 1797
    assert ((data.test_labels.bincount() - fair).abs() < 1).all()


def test_digits_split_is_fixed():
    test_images = (datasets.load("digits").test_images * 16).to(torch.uint8)
    digest = hashlib.sha256(test_images.numpy().tobytes()).hexdigest()
    # Another split would make every number in the lessons another number.
    assert digest[:16] == "4477bd3322f1f82f"


def test_digits_carry_their_normalisation():
    data = datasets.load("digits")
    pixels = data.images.numpy().astype(np.float64)
    assert data.mean == pytest.approx([pixels.mean()])
    assert data.std == pytest.approx([pixels.std()])
    assert data.class_names == tuple("0123456789")


def test_digits_do_not_share_memory_between_given_and_true_labels():
    data = datasets.load("digits")
    data.labels[:] = 0
    assert (data.true_labels != 0).any()
    assert data.noise_rate == pytest.approx((data.true_labels != 0).double().mean().item())


# ---------------------------------------------------------------- the Dataset


def small(**changes) -> datasets.Dataset:
    parts = {
        "name": "small",
        "images": torch.rand(12, 3, 4, 5, generator=torch.Generator().manual_seed(0)),
        "labels": torch.arange(12) % 4,
        "true_labels": torch.arange(12) % 4,
        "test_images": torch.zeros(4, 3, 4, 5),
        "test_labels": torch.arange(4),
        "class_names": ("a", "b", "c", "d"),
        "mean": (0.5, 0.5, 0.5),
        "std": (0.2, 0.2, 0.2),
    }
    return datasets.Dataset(**{**parts, **changes})


def test_properties():
    labels = torch.arange(12) % 4
    labels[[2, 5, 7]] = 0
    data = small(labels=labels)
    assert data.num_classes == 4
    assert data.image_shape == (3, 4, 5)
    assert data.is_wrong.nonzero().squeeze(1).tolist() == [2, 5, 7]
    assert data.noise_rate == pytest.approx(0.25)
    assert repr(data) == (
        "Dataset('small': 12 training and 4 test images of (3, 4, 5), 4 classes, "
        "25.0% wrong labels)"
    )


def test_true_labels_that_nobody_knows_are_neither_right_nor_wrong():
    true_labels = torch.arange(12) % 4
    true_labels[[0, 1, 2]] = datasets.UNKNOWN
    labels = torch.arange(12) % 4
    labels[[2, 3, 4]] = 1
    data = small(labels=labels, true_labels=true_labels)
    assert data.is_known.tolist() == [False] * 3 + [True] * 9
    assert data.is_wrong.nonzero().squeeze(1).tolist() == [3, 4]
    assert data.noise_rate == pytest.approx(2 / 9)
    assert "22.2% wrong labels among the 75.0% that are known" in repr(data)
    nothing = small(true_labels=torch.full((12,), datasets.UNKNOWN))
    assert not nothing.is_wrong.any()
    assert math.isnan(nothing.noise_rate)
    assert repr(nothing).endswith("4 classes, true labels unknown)")


def test_a_subset_of_unknown_classes_keeps_the_shares_of_the_given_ones():
    part = small(true_labels=torch.full((12,), datasets.UNKNOWN)).subset(8)
    assert part.labels.bincount().tolist() == [2, 2, 2, 2]


@pytest.mark.parametrize("kind", noise.KINDS)
def test_no_noise_is_drawn_from_true_labels_that_nobody_knows(kind):
    data = dataclasses.replace(
        datasets.load("digits"), true_labels=torch.full((1297,), datasets.UNKNOWN)
    )
    with pytest.raises(ValueError, match="`labels` from 0 to 9.*got -1"):
        noise.inject(data, kind, 0.4)


def test_with_labels_keeps_the_true_labels():
    data = small()
    changed = data.with_labels(torch.zeros(12).long())
    assert (changed.labels == 0).all()
    assert torch.equal(changed.true_labels, data.true_labels)
    assert torch.equal(data.labels, data.true_labels)
    with pytest.raises(ValueError, match=r"`labels` of shape \(12,\)"):
        data.with_labels(torch.zeros(11).long())


def test_with_images_keeps_the_labels():
    data = small()
    noisy = noise.gaussian_images(data.images, torch.Generator().manual_seed(0))
    changed = data.with_images(noisy, test_images=data.test_images + 0.5)
    assert changed.images is noisy
    assert (changed.test_images == 0.5).all()
    assert changed.labels is data.labels
    assert data.with_images(noisy).test_images is data.test_images


def test_a_dataset_cannot_be_changed_in_place():
    with pytest.raises(AttributeError):
        small().labels = torch.zeros(12).long()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=60), st.data())
def test_subset_keeps_the_shares_of_the_classes(true_labels, data):
    size = data.draw(st.integers(1, len(true_labels)))
    true_labels = torch.tensor(true_labels)
    count = len(true_labels)
    images = torch.arange(count * 3.0).view(count, 3, 1, 1) / 100
    whole = small(
        images=images,
        labels=(true_labels + 1) % 4,
        true_labels=true_labels,
        test_images=torch.zeros(4, 3, 1, 1),
    )
    part = whole.subset(size, seed=3)
    assert len(part.images) == size
    fair = true_labels.bincount(minlength=4) * size / count
    assert ((part.true_labels.bincount(minlength=4) - fair).abs() < 1).all()
    # Each chosen image keeps its labels, and none is chosen twice.
    position = (part.images[:, 0, 0, 0] * 100 / 3).round().long()
    assert len(position.unique()) == size
    assert torch.equal(whole.labels[position], part.labels)
    assert torch.equal(whole.true_labels[position], part.true_labels)
    assert part.test_images is whole.test_images


def test_subset_repeats_from_its_seed():
    data = datasets.load("digits")
    assert torch.equal(data.subset(100).images, data.subset(100).images)
    assert not torch.equal(data.subset(100).images, data.subset(100, seed=1).images)


@pytest.mark.parametrize("size", [0, -1, 13])
def test_subset_refuses_other_sizes(size):
    with pytest.raises(ValueError, match=f"`size` from 1 to 12, .*got {size}"):
        small().subset(size)


BAD_PARTS = [
    ({"images": torch.rand(12, 4, 5)}, ValueError, r"`images` of shape .*got \(12, 4, 5\)"),
    ({"images": [[0.0]]}, ValueError, "`images` of shape .*got list"),
    ({"images": torch.rand(12, 3, 4, 5).double()}, TypeError, "`images` as uint8 .*torch.float64"),
    ({"images": torch.rand(12, 3, 4, 5) * 255}, ValueError, "0..1 scale, got .*divide by 255"),
    ({"images": torch.full((12, 3, 4, 5), torch.nan)}, ValueError, "0..1 scale, got nan to nan"),
    ({"test_images": torch.zeros(4, 1, 4, 5)}, ValueError, r"`test_images` of the shape \(3, 4, 5"),
    ({"test_images": torch.zeros(0, 3, 4, 5)}, ValueError, "`test_images` of shape"),
    ({"labels": torch.zeros(12)}, TypeError, "`labels` as an int64 tensor .*torch.float32"),
    ({"labels": [0] * 12}, TypeError, "`labels` as an int64 tensor .*got list"),
    ({"labels": torch.zeros(12, 4).long()}, ValueError, r"`labels` of shape \(12,\)"),
    ({"true_labels": torch.full((12,), 4)}, ValueError, "`true_labels` from 0 to 3.*got 4 to 4"),
    ({"true_labels": torch.full((12,), -2)}, ValueError, "`true_labels` from 0 to 3.*got -2 to -2"),
    ({"labels": torch.full((12,), -1)}, ValueError, "`labels` from 0 to 3.*got -1 to -1"),
    ({"test_labels": torch.full((4,), -1)}, ValueError, "`test_labels` from 0 to 3.*got -1 to -1"),
    ({"test_labels": torch.zeros(3).long()}, ValueError, r"`test_labels` of shape \(4,\)"),
    ({"class_names": ("a", "b")}, ValueError, r"from 0 to 1 \(2 classes\)"),
    ({"mean": (0.5,)}, ValueError, "`mean` and a positive `std` for each of the 3 channels"),
    ({"std": (0.2, 0.0, 0.2)}, ValueError, "positive `std`"),
]


@pytest.mark.parametrize(("changes", "error", "message"), BAD_PARTS)
def test_parts_that_do_not_fit_are_refused(changes, error, message):
    with pytest.raises(error, match="Expected .*" + message):
        small(**changes)


# ---------------------------------------------------------------- names, kinds, folders


def test_unknown_names_are_told_the_known_ones():
    with pytest.raises(ValueError, match="digits, mnist, .*food101, got 'svhn'"):
        datasets.load("svhn")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10n", "out of worse, aggre, random1, random2, random3, got 'best'"),
        ("cifar100n", "out of noisy, got 'best'"),
        ("mnist", "to be left out, got 'best'"),
        ("digits", "to be left out, got 'best'"),
    ],
)
def test_unknown_kinds_are_told_the_known_ones(name, message):
    with pytest.raises(ValueError, match=message):
        datasets.load(name, kind="best")


def test_the_root_is_the_argument_then_the_variable_then_data(tmp_path, monkeypatch):
    repository = Path(datasets.__file__).resolve().parents[2]
    assert files.data_root(None) == repository / "data"
    monkeypatch.setenv("NLCOURSE_DATA", str(tmp_path / "named"))
    assert files.data_root(None) == tmp_path / "named"
    assert files.data_root(tmp_path / "given") == tmp_path / "given"
    monkeypatch.setenv("NLCOURSE_DATA", "")
    assert files.data_root(None) == repository / "data"
    monkeypatch.setattr(
        files, "__file__", str(tmp_path / "site-packages" / "nlcourse" / "files.py")
    )
    monkeypatch.chdir(tmp_path)
    assert files.data_root(None) == tmp_path / "data"


@pytest.mark.parametrize("name", CHECKED)
def test_missing_data_is_one_clear_error(name, tmp_path, monkeypatch):
    root = tmp_path / "nowhere"
    with pytest.raises(datasets.DataError) as caught:
        datasets.load(name, root=root, download=False)
    message = str(caught.value)
    assert f"missing: {root}" in message
    assert f"Looked for in {root}" in message
    assert f"nlcourse data {name}   with NLCOURSE_DATA={root}" in message
    assert 'datasets.load("digits") needs no files' in message
    assert "could not be fetched" not in message
    assert not root.exists()
    monkeypatch.setenv("NLCOURSE_DATA", str(root))
    with pytest.raises(datasets.DataError, match=f"nlcourse data {name}\n"):
        datasets.load(name, download=False)


@pytest.mark.parametrize("name", CHECKED)
def test_without_a_network_the_error_says_why(name, tmp_path):
    with pytest.raises(datasets.DataError, match="could not be fetched: .*no network in the tests"):
        datasets.load(name, root=tmp_path)
    assert left_behind(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(datasets.DataError, match="could not be fetched: .*file"):
        datasets.load("mnist", root=tmp_path / "file" / "data")


def test_digits_need_no_fetching(tmp_path):
    datasets.load("digits", root=tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


# ---------------------------------------------------------------- MNIST and Fashion-MNIST


def check_idx(data: datasets.Dataset, name: str) -> None:
    expected = idx_contents()
    assert data.name == name
    assert data.images.dtype == torch.uint8
    assert data.image_shape == (1, 28, 28)
    np.testing.assert_array_equal(data.images[:, 0], expected["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(data.test_images[:, 0], expected["t10k-images-idx3-ubyte"])
    for labels, key in (
        (data.labels, "train-labels-idx1-ubyte"),
        (data.true_labels, "train-labels-idx1-ubyte"),
        (data.test_labels, "t10k-labels-idx1-ubyte"),
    ):
        assert labels.dtype == torch.int64
        np.testing.assert_array_equal(labels, expected[key])
    assert (data.mean, data.std) == loading.STATISTICS[name]


def test_packed_files_are_used_as_they_are(idx):
    name, root, folder = idx
    before = sorted(folder.iterdir())
    data = datasets.load(name, root=root, download=False)
    check_idx(data, name)
    assert sorted(folder.iterdir()) == before
    assert data.labels.data_ptr() != data.true_labels.data_ptr()
    assert data.class_names[6] == {"mnist": "6", "fashion-mnist": "Shirt"}[name]


def test_the_variable_names_the_folder(idx, monkeypatch):
    name, root, _ = idx
    monkeypatch.setenv("NLCOURSE_DATA", str(root))
    check_idx(datasets.load(name, download=False), name)


def unpack(folder: Path, keep: bool = False) -> list[Path]:
    unpacked = []
    for path in sorted(folder.glob("*.gz")):
        unpacked.append(path.with_suffix(""))
        unpacked[-1].write_bytes(gzip.decompress(path.read_bytes()))
        if not keep:
            path.unlink()
    return unpacked


def test_unpacked_files_serve_alone(idx):
    name, root, folder = idx
    unpack(folder)
    check_idx(datasets.load(name, root=root, download=False), name)


def test_a_damaged_packed_file_beside_its_unpacked_one_is_left_alone(idx):
    name, root, folder = idx
    unpack(folder, keep=True)
    half(folder / "train-images-idx3-ubyte.gz")
    check_idx(datasets.load(name, root=root, download=False), name)


@pytest.mark.parametrize("number", range(4))
def test_a_cut_off_packed_file_is_named(idx, number):
    name, root, folder = idx
    victim = sorted(folder.glob("*.gz"))[number]
    half(victim)
    with pytest.raises(datasets.DataError, match="damaged .its md5") as caught:
        datasets.load(name, root=root, download=False)
    assert str(victim) in str(caught.value)
    assert "never used" in str(caught.value)
    assert str(caught.value).count("damaged (") == 1


def test_one_changed_byte_in_a_packed_file_is_found(idx):
    name, root, folder = idx
    victim = folder / "train-labels-idx1-ubyte.gz"
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    victim.write_bytes(content)
    with pytest.raises(datasets.DataError, match="train-labels-idx1-ubyte.gz"):
        datasets.load(name, root=root, download=False)


BROKEN_IDX = {
    "cut off": lambda raw: raw[:-5],
    "too long": lambda raw: raw + b"\x00",
    "empty": lambda raw: b"",
    "cut in the header": lambda raw: raw[:6],
    "a web page": lambda raw: b"<html>" + raw,
    "other numbers": lambda raw: b"\x00\x00\x0d" + raw[3:],
    "labels": lambda raw: idx_bytes(np.arange(40)),
}


@pytest.mark.parametrize("damage", BROKEN_IDX)
def test_a_damaged_unpacked_file_is_named(idx, damage):
    name, root, folder = idx
    unpack(folder)
    victim = folder / "train-images-idx3-ubyte"
    victim.write_bytes(BROKEN_IDX[damage](victim.read_bytes()))
    with pytest.raises(datasets.DataError, match="no whole idx file") as caught:
        datasets.load(name, root=root, download=False)
    assert str(victim) in str(caught.value)


def test_whole_files_that_do_not_belong_together_are_refused(idx):
    name, root, folder = idx
    unpack(folder)
    (folder / "train-labels-idx1-ubyte").write_bytes(idx_bytes(np.arange(39) % 10))
    with pytest.raises(datasets.DataError, match="one class number an example"):
        datasets.load(name, root=root, download=False)


@pytest.mark.usefixtures("_local_network")
def test_fetching_stores_whole_files(idx, tmp_path, monkeypatch):
    name, root, folder = idx
    served = move_away(folder, tmp_path / "served")
    with Server(served) as address:
        # The first mirror is dead: the second must serve.
        monkeypatch.setattr(
            files.torchvision_class(name), "mirrors", [address + "nothing/", address]
        )
        datasets.load(name, root=root)
    for path in served.iterdir():
        assert (folder / path.name).read_bytes() == path.read_bytes()
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        path.name for path in served.iterdir()
    )
    check_idx(datasets.load(name, root=root, download=False), name)


@pytest.mark.usefixtures("_local_network")
def test_a_broken_download_leaves_nothing_and_is_mended_by_the_next(idx, tmp_path, monkeypatch):
    name, root, folder = idx
    served = move_away(folder, tmp_path / "served")
    source = files.torchvision_class(name)
    with Server(served, cut=True) as address:
        monkeypatch.setattr(source, "mirrors", [address])
        with pytest.raises(datasets.DataError, match="could not be fetched: http://127.0.0.1"):
            datasets.load(name, root=root)
    assert left_behind(folder) == []
    with Server(served) as address:
        monkeypatch.setattr(source, "mirrors", [address])
        check_idx(datasets.load(name, root=root), name)


def test_two_that_want_the_same_files_fetch_them_once(idx, tmp_path, monkeypatch):
    name, root, folder = idx
    served = move_away(folder, tmp_path / "served")
    fetched = []

    def slowly(url, folder, filename, _md5):
        fetched.append(filename)
        time.sleep(0.1)
        (Path(folder) / filename).write_bytes((served / filename).read_bytes())

    monkeypatch.setattr("torchvision.datasets.utils.download_url", slowly)
    with ThreadPoolExecutor() as threads:
        for data in threads.map(lambda _: datasets.load(name, root=root), range(3)):
            check_idx(data, name)
    assert sorted(fetched) == sorted(path.name for path in served.iterdir())


def test_a_downloader_that_breaks_off_silently_is_caught(idx, tmp_path, monkeypatch):
    name, root, folder = idx
    served = move_away(folder, tmp_path / "served")

    def half_a_file(url, folder, filename, _md5):
        content = (served / filename).read_bytes()
        (Path(folder) / filename).write_bytes(content[: len(content) // 2])

    monkeypatch.setattr("torchvision.datasets.utils.download_url", half_a_file)
    with pytest.raises(datasets.DataError, match="not the published file .cut off"):
        datasets.load(name, root=root)
    assert left_behind(folder) == []


def test_a_killed_download_is_not_taken_for_good(idx, tmp_path, monkeypatch):
    name, root, folder = idx
    served = move_away(folder, tmp_path / "served")

    def interrupted(url, folder, filename, _md5):
        (Path(folder) / filename).write_bytes((served / filename).read_bytes()[:20])
        raise KeyboardInterrupt

    monkeypatch.setattr("torchvision.datasets.utils.download_url", interrupted)
    with pytest.raises(KeyboardInterrupt):
        datasets.load(name, root=root)
    assert left_behind(folder) == []
    with pytest.raises(datasets.DataError, match="missing: .*train-images"):
        datasets.load(name, root=root, download=False)


@pytest.mark.usefixtures("_local_network")
def test_a_damaged_file_is_said_and_fetched_again(idx, tmp_path, monkeypatch):
    name, root, folder = idx
    served = tmp_path / "served"
    served.mkdir()
    for path in folder.iterdir():
        (served / path.name).write_bytes(path.read_bytes())
    half(folder / "train-images-idx3-ubyte.gz")
    with Server(served) as address:
        monkeypatch.setattr(files.torchvision_class(name), "mirrors", [address])
        with pytest.warns(UserWarning, match="damaged .*train-images-idx3-ubyte.gz; fetching it"):
            check_idx(datasets.load(name, root=root), name)


def test_the_time_limit_of_connections_is_put_back(tmp_path):
    import socket

    socket.setdefaulttimeout(123.0)
    try:
        with pytest.raises(datasets.DataError):
            datasets.load("mnist", root=tmp_path)
        assert socket.getdefaulttimeout() == 123.0
    finally:
        socket.setdefaulttimeout(None)


# ---------------------------------------------------------------- CIFAR


def test_cifar_is_read_channels_first(cifar):
    name, root, folder = cifar
    data = datasets.load(name, root=root, download=False)
    batches = sorted(folder.glob("data_batch_*")) or [folder / "train"]
    raw = np.concatenate([pickle.loads(path.read_bytes())["data"] for path in batches])
    assert data.images.dtype == torch.uint8
    assert data.images.is_contiguous()
    np.testing.assert_array_equal(data.images.numpy(), raw.reshape(-1, 3, 32, 32))
    assert data.labels.dtype == torch.int64
    assert data.num_classes == {"cifar10": 10, "cifar100": 100}[name]
    assert data.class_names[3] == "class 3"
    assert torch.equal(data.labels, torch.arange(len(raw)) % data.num_classes)
    assert data.labels.data_ptr() != data.true_labels.data_ptr()
    assert (data.mean, data.std) == loading.STATISTICS[name]
    assert data.noise_rate == 0


class Trap:
    """A pickle that writes a file when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("part", ["train", "test", "meta"])
def test_a_cifar_pickle_is_not_opened_before_its_hash_is_checked(cifar, tmp_path, part):
    name, root, folder = cifar
    source = files.torchvision_class(name)
    victim = {
        "train": source.train_list[0][0],
        "test": source.test_list[0][0],
        "meta": source.meta["filename"],
    }[part]
    (folder / victim).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    with pytest.raises(datasets.DataError, match="damaged") as caught:
        datasets.load(name, root=root, download=False)
    assert str(folder / victim) in str(caught.value)
    assert not (tmp_path / "sprung").exists()
    pickle.loads((folder / victim).read_bytes())
    assert (tmp_path / "sprung").exists()  # the trap works


def pack_cifar(name, root, folder, served, monkeypatch) -> Path:
    source = files.torchvision_class(name)
    served.mkdir(exist_ok=True)
    archive = served / source.filename
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=source.base_folder)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    monkeypatch.setattr(source, "tgz_md5", md5(archive))
    return archive


@pytest.mark.usefixtures("_local_network")
def test_cifar_is_fetched_and_unpacked(cifar, tmp_path, monkeypatch):
    name, root, folder = cifar
    expected = datasets.load(name, root=root).images
    archive = pack_cifar(name, root, folder, tmp_path / "served", monkeypatch)
    with Server(archive.parent) as address:
        monkeypatch.setattr(files.torchvision_class(name), "url", address + archive.name)
        data = datasets.load(name, root=root)
    assert torch.equal(data.images, expected)
    assert not (root / archive.name).exists()
    assert not list(root.glob(".fetching-*"))


@pytest.mark.usefixtures("_local_network")
def test_a_broken_cifar_archive_leaves_nothing(cifar, tmp_path, monkeypatch):
    name, root, folder = cifar
    archive = pack_cifar(name, root, folder, tmp_path / "served", monkeypatch)
    with Server(archive.parent, cut=True) as address:
        monkeypatch.setattr(files.torchvision_class(name), "url", address + archive.name)
        with pytest.raises(datasets.DataError, match="could not be fetched: http://127.0.0.1"):
            datasets.load(name, root=root)
    assert left_behind(root) == [archive]


def test_a_cifar_archive_that_lies_there_is_unpacked(cifar, tmp_path, monkeypatch):
    name, root, folder = cifar
    expected = datasets.load(name, root=root).images
    pack_cifar(name, root, folder, root, monkeypatch)
    assert torch.equal(datasets.load(name, root=root).images, expected)


# ---------------------------------------------------------------- human labels


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
@pytest.mark.parametrize("name", ["cifar10n", "cifar100n"])
def test_human_labels_of_each_kind(name, suffix, tmp_path, monkeypatch):
    labels = make_human(name, tmp_path, monkeypatch, suffix)
    kinds = datasets.HUMAN_KINDS[name]
    for kind, key in kinds.items():
        data = datasets.load(name, root=tmp_path, kind=kind, download=False)
        np.testing.assert_array_equal(data.labels, labels[key])
        np.testing.assert_array_equal(data.true_labels, labels["clean_label"])
        assert data.labels.dtype == torch.int64
        assert data.name == name
        assert data.noise_rate > 0
    default = datasets.load(name, root=tmp_path, download=False)
    np.testing.assert_array_equal(default.labels, labels[next(iter(kinds.values()))])


def test_the_default_kind_of_cifar10n_is_worse():
    assert next(iter(datasets.HUMAN_KINDS["cifar10n"])) == "worse"


def rename_in_pickle(path: Path, old: bytes, new: bytes) -> int:
    """Rewrite a file of torch.save as another numpy would have written it; return the changes."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    changes = sum(content.count(old) for content in members.values())
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content.replace(old, new))
    return changes


@pytest.mark.parametrize("module", [b"numpy.core.", b"numpy._core."])
def test_labels_saved_by_an_old_and_a_new_numpy_are_read(module, tmp_path):
    path = tmp_path / "labels.pt"
    expected = {"clean_label": np.arange(7), "worse_label": np.arange(7)[::-1].copy()}
    torch.save(expected, path)
    written = b"numpy._core." if np.__version__ >= "2" else b"numpy.core."
    assert rename_in_pickle(path, written, module) > 0
    result = files.read_labels(path)
    assert result.keys() == expected.keys()
    for key, values in expected.items():
        np.testing.assert_array_equal(result[key], values)


def test_reading_labels_runs_no_pickle(tmp_path):
    for path in (tmp_path / "labels.pt", tmp_path / "labels.npz"):
        trap = Trap(tmp_path / "sprung")
        if path.suffix == ".pt":
            torch.save({"clean_label": trap}, path)
        else:
            np.savez(path, clean_label=np.array([trap], dtype=object))
        with pytest.raises((pickle.UnpicklingError, ValueError)):
            files.read_labels(path)["clean_label"]
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("suffix", [".npz", ".pt"])
def test_damaged_human_labels_are_named(suffix, tmp_path, monkeypatch):
    make_human("cifar10n", tmp_path, monkeypatch, suffix)
    victim = next((tmp_path / "cifar-n").iterdir())
    half(victim)
    with pytest.raises(datasets.DataError, match="damaged") as caught:
        datasets.load("cifar10n", root=tmp_path, download=False)
    assert str(victim) in str(caught.value)


def test_missing_human_labels_name_both_files(tmp_path, monkeypatch):
    make_cifar("cifar10n", tmp_path, monkeypatch)
    with pytest.raises(datasets.DataError, match="cifar10n.npz or .*CIFAR-10_human.pt"):
        datasets.load("cifar10n", root=tmp_path, download=False)


def test_human_labels_in_another_order_are_refused(tmp_path, monkeypatch):
    clean = np.roll(np.arange(100) % 10, 1)
    make_human("cifar10n", tmp_path, monkeypatch, ".npz", human_labels("cifar10n", clean))
    with pytest.raises(datasets.DataError, match="not those of the CIFAR images.*another order"):
        datasets.load("cifar10n", root=tmp_path, download=False)


@pytest.mark.usefixtures("_local_network")
def test_human_labels_are_fetched_without_fetching_the_images_again(tmp_path, monkeypatch):
    labels = make_human("cifar10n", tmp_path, monkeypatch, ".pt")
    served = move_away(tmp_path / "cifar-n", tmp_path / "served")
    monkeypatch.setattr(torchvision_datasets.CIFAR10, "url", "http://127.0.0.1:1/never")
    with Server(served) as address:
        monkeypatch.setattr(files, "LABEL_ADDRESS", address)
        data = datasets.load("cifar10n", root=tmp_path)
    np.testing.assert_array_equal(data.labels, labels["worse_label"])


# ---------------------------------------------------------------- with noise


@pytest.mark.parametrize("kind", noise.KINDS)
def test_all_noise_goes_into_digits(kind):
    data = datasets.load("digits")
    noisy = noise.inject(data, kind, 0.4)
    assert 0.1 < noisy.noise_rate < 0.6
    assert torch.equal(noisy.true_labels, data.true_labels)
    assert data.noise_rate == 0


def test_every_data_set_with_known_labels_has_an_asymmetric_map():
    for name in ("digits", *CHECKED):
        assert len(noise.asymmetric_matrix(name, 0.2)) == (100 if "cifar100" in name else 10)


# ---------------------------------------------------------------- the real files


@pytest.fixture
def real_root(monkeypatch, offline):
    if not REAL:
        pytest.skip("NLCOURSE_DATA does not name a folder of real data")
    monkeypatch.setenv("NLCOURSE_DATA", REAL)
    return REAL


def load_real(name, **options):
    try:
        return datasets.load(name, download=False, **options)
    except datasets.DataError as error:
        if "damaged" in str(error):
            raise
        pytest.skip(f"{name} is not in NLCOURSE_DATA")


SIZES = {
    "mnist": (60000, 10000, (1, 28, 28)),
    "fashion-mnist": (60000, 10000, (1, 28, 28)),
    "cifar10": (50000, 10000, (3, 32, 32)),
    "cifar100": (50000, 10000, (3, 32, 32)),
}
HOLDS = {
    "mnist": pytest.mark.real_data("MNIST"),
    "fashion-mnist": pytest.mark.real_data("FashionMNIST"),
    "cifar10": pytest.mark.real_data("cifar-10-batches-py"),
    "cifar100": pytest.mark.real_data("cifar-100-python"),
}


@pytest.mark.real_data
@pytest.mark.usefixtures("real_root")
@pytest.mark.parametrize("name", [pytest.param(name, marks=HOLDS[name]) for name in SIZES])
def test_real_sets(name):
    data = load_real(name)
    assert (len(data.images), len(data.test_images), data.image_shape) == SIZES[name]
    assert data.images.dtype == torch.uint8
    assert data.noise_rate == 0
    pixels = data.images.transpose(0, 1).flatten(1).double() / 255
    # Four digits are recorded; those of CIFAR-100 are taken over from others.
    tolerance = 6e-4 if name == "cifar100" else 5.1e-5
    assert data.mean == pytest.approx(pixels.mean(1).tolist(), abs=tolerance)
    assert data.std == pytest.approx(pixels.std(1, correction=0).tolist(), abs=tolerance)


@pytest.mark.real_data
@pytest.mark.usefixtures("real_root")
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_real_idx_files_are_torchvision_s(name):
    data = load_real(name)
    try:
        theirs = files.torchvision_class(name)(REAL, train=True, download=False)
    except RuntimeError:
        pytest.skip("torchvision wants the files unpacked")
    assert torch.equal(data.images[:, 0], theirs.data)
    assert torch.equal(data.labels, theirs.targets)


@pytest.mark.real_data
@pytest.mark.usefixtures("real_root")
@pytest.mark.parametrize(
    ("name", "kind", "percent"),
    [
        ("cifar10n", "aggre", 9.01),
        ("cifar10n", "random1", 17.23),
        ("cifar10n", "random2", 18.12),
        ("cifar10n", "random3", 17.64),
        ("cifar10n", "worse", 40.21),
        pytest.param("cifar100n", "noisy", 40.20, marks=HOLDS["cifar100"]),
    ],
)
def test_real_human_labels_disagree_as_published(name, kind, percent):
    data = load_real(name, kind=kind)
    assert 100 * data.noise_rate == pytest.approx(percent, abs=0.0051)
    if kind == "worse":
        matrix = noise.observed_matrix(data.labels, data.true_labels, 10)
        names = data.class_names
        truck, car = names.index("truck"), names.index("automobile")
        assert matrix[truck, car].item() == pytest.approx(0.282, abs=6e-4)
        assert matrix[car, truck].item() == pytest.approx(0.247, abs=6e-4)
        assert matrix[names.index("cat"), names.index("dog")].item() == pytest.approx(
            0.206, abs=6e-4
        )
