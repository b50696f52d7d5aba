"""Tests of nlcourse.noise against loops in numpy, closed forms and the papers' own code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nlcourse import noise
from nlcourse.datasets import Dataset
from nlcourse.noise import images as noise_images
from nlcourse.noise import injectors

EXACT = 1e-12
# A normal variable lies beyond 6 deviations once in 5e8 draws; with the slack for small counts
# every bound below fails by chance far less than once in a million runs.
DEVIATIONS = 6.0

rates = st.floats(0, 1)
classes = st.integers(2, 12)
seeds = st.integers(0, 2**31)
moderate = settings(max_examples=40, deadline=None)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def slack(rate: float, size: int) -> float:
    """Return how far a share of `size` draws may lie from its probability."""
    return DEVIATIONS * math.sqrt(rate * (1 - rate) / size) + 20 / size


def balanced(num_classes: int, each: int) -> torch.Tensor:
    return torch.arange(num_classes).repeat_interleave(each)


def fake(name="digits", each=100):
    true_labels = balanced(10, each)
    images = torch.rand(len(true_labels), 1, 4, 4, generator=generator(5))
    return Dataset(
        name=name,
        images=images,
        labels=torch.zeros_like(true_labels),
        true_labels=true_labels,
        test_images=images,
        test_labels=true_labels,
        class_names=tuple("abcdefghij"),
        mean=(0.5,),
        std=(0.3,),
    )


# ---------------------------------------------------------------- matrices


@moderate
@given(classes, rates, st.booleans())
def test_symmetric_matrix_is_the_loop(num_classes, rate, include_true):
    expected = np.zeros((num_classes, num_classes))
    for i in range(num_classes):
        for j in range(num_classes):
            if include_true:
                expected[i, j] = rate / num_classes + (1 - rate if i == j else 0)
            else:
                expected[i, j] = 1 - rate if i == j else rate / (num_classes - 1)
    matrix = noise.symmetric_matrix(num_classes, rate, include_true)
    np.testing.assert_allclose(matrix.numpy(), expected, atol=EXACT)


@moderate
@given(classes, rates)
def test_pairflip_matrix_is_the_loop(num_classes, rate):
    expected = np.zeros((num_classes, num_classes))
    for i in range(num_classes):
        expected[i, i] += 1 - rate
        expected[i, (i + 1) % num_classes] += rate
    np.testing.assert_allclose(
        noise.pairflip_matrix(num_classes, rate).numpy(), expected, atol=EXACT
    )


MAPS = {
    "mnist": {7: 1, 2: 7, 5: 6, 6: 5, 3: 8},
    "digits": {7: 1, 2: 7, 5: 6, 6: 5, 3: 8},
    "fashion-mnist": {0: 6, 2: 4, 5: 7, 7: 5},
    "cifar10": {9: 1, 2: 0, 3: 5, 5: 3, 4: 7},
    "cifar10n": {9: 1, 2: 0, 3: 5, 5: 3, 4: 7},
}


@pytest.mark.parametrize("name", MAPS)
def test_asymmetric_matrix_moves_only_the_mapped_classes(name):
    expected = np.eye(10)
    for true_class, wrong_class in MAPS[name].items():
        expected[true_class, true_class] = 0.7
        expected[true_class, wrong_class] = 0.3
    np.testing.assert_allclose(noise.asymmetric_matrix(name, 0.3).numpy(), expected, atol=EXACT)


def test_cifar100_turns_round_blocks_of_five_consecutive_ids():
    matrix = noise.asymmetric_matrix("cifar100", 0.4)
    for block in range(20):
        ids = list(range(5 * block, 5 * block + 5))
        for place, true_class in enumerate(ids):
            assert matrix[true_class, true_class] == pytest.approx(0.6)
            assert matrix[true_class, ids[(place + 1) % 5]] == pytest.approx(0.4)
    assert int((matrix > 0).sum()) == 200
    assert "not* the real superclasses" in " ".join(noise.asymmetric_matrix.__doc__.split())


@moderate
@given(rates, st.sampled_from([*MAPS, "cifar100", "cifar100n"]))
def test_all_matrices_are_transition_matrices(rate, name):
    for matrix in (
        noise.asymmetric_matrix(name, rate),
        noise.pairflip_matrix(7, rate),
        noise.symmetric_matrix(7, rate),
        noise.symmetric_matrix(7, rate, include_true=True),
    ):
        assert matrix.dtype == torch.float64
        assert (matrix >= 0).all()
        torch.testing.assert_close(
            matrix.sum(1), torch.ones(len(matrix), dtype=torch.float64), atol=EXACT, rtol=0
        )


def test_share_of_wrong_labels_in_the_papers_conventions():
    def wrong(matrix):
        return 1 - matrix.diagonal().mean().item()

    assert wrong(noise.symmetric_matrix(10, 0.5)) == pytest.approx(0.5)
    assert wrong(noise.symmetric_matrix(10, 0.5, include_true=True)) == pytest.approx(0.45)
    assert wrong(noise.symmetric_matrix(100, 0.9, include_true=True)) == pytest.approx(0.891)
    assert wrong(noise.asymmetric_matrix("cifar10", 0.4)) == pytest.approx(0.2)
    assert wrong(noise.asymmetric_matrix("fashion-mnist", 0.4)) == pytest.approx(0.16)
    assert wrong(noise.asymmetric_matrix("cifar100", 0.4)) == pytest.approx(0.4)


def as_the_original_draws(matrix) -> np.ndarray:
    """Draw as the published Co-teaching and Forward code do, for 5,000 labels of each class."""
    random = np.random.RandomState(0)  # noqa: NPY002 - the generator of the published numbers
    labels = np.repeat(np.arange(10), 5000)
    rows = matrix.numpy()
    return np.array([random.multinomial(1, rows[label]).argmax() for label in labels])


@pytest.mark.parametrize(
    ("matrix", "realised", "first"),
    [
        (noise.symmetric_matrix(10, 0.2), 0.20202, "000000010000"),
        (noise.symmetric_matrix(10, 0.5), 0.50054, "000030450050"),
        (noise.pairflip_matrix(10, 0.45), 0.44920, "010011011000"),
        (noise.asymmetric_matrix("cifar10", 0.4), 0.19804, None),
    ],
)
def test_golden_numbers_of_the_original_code(matrix, realised, first):
    given_labels = as_the_original_draws(matrix)
    assert np.mean(given_labels != np.repeat(np.arange(10), 5000)) == pytest.approx(realised)
    if first:
        assert "".join(map(str, given_labels[:12])) == first


@moderate
@given(st.integers(2, 6), st.integers(1, 80), seeds)
def test_observed_matrix_is_the_loop(num_classes, size, seed):
    draw = np.random.default_rng(seed)
    given_labels, true_labels = draw.integers(num_classes, size=(2, size))
    expected = np.zeros((num_classes, num_classes))
    for given_label, true_label in zip(given_labels, true_labels, strict=True):
        expected[true_label, given_label] += 1
    with np.errstate(invalid="ignore"):
        expected /= expected.sum(1, keepdims=True)
    matrix = noise.observed_matrix(
        torch.from_numpy(given_labels), torch.from_numpy(true_labels), num_classes
    )
    np.testing.assert_allclose(matrix.numpy(), expected, atol=EXACT)


# ---------------------------------------------------------------- corrupt


@settings(max_examples=15, deadline=None)
@given(st.integers(2, 6), seeds)
def test_corrupt_draws_each_cell_at_its_rate(num_classes, seed):
    rows = np.random.default_rng(seed).dirichlet(np.ones(num_classes), size=num_classes)
    each = 3000
    given_labels = noise.corrupt(
        balanced(num_classes, each), torch.from_numpy(rows), generator(seed)
    )
    for true_class, part in enumerate(given_labels.numpy().reshape(num_classes, each)):
        for given_class in range(num_classes):
            probability = rows[true_class, given_class]
            assert abs(np.mean(part == given_class) - probability) <= slack(probability, each)


@moderate
@given(st.integers(0, 200), classes, rates, seeds)
def test_corrupt_repeats_and_leaves_its_input(size, num_classes, rate, seed):
    labels = torch.randint(num_classes, (size,), generator=generator(seed))
    before = labels.clone()
    matrix = noise.symmetric_matrix(num_classes, rate)
    first = noise.corrupt(labels, matrix, generator(seed))
    assert torch.equal(first, noise.corrupt(labels, matrix, generator(seed)))
    assert torch.equal(labels, before)
    assert first.dtype == torch.int64
    assert first.shape == (size,)
    assert first.device == labels.device
    if rate == 0:
        assert torch.equal(first, labels)
    if rate == 1:
        assert (first != labels).all()


def test_corrupt_with_another_seed_draws_other_labels():
    labels = balanced(10, 100)
    matrix = noise.symmetric_matrix(10, 0.5)
    one, two = (noise.corrupt(labels, matrix, generator(seed)) for seed in (1, 2))
    assert not torch.equal(one, two)


def test_without_a_generator_the_global_seed_counts():
    labels, matrix = balanced(10, 100), noise.symmetric_matrix(10, 0.5)
    torch.manual_seed(3)
    first = noise.corrupt(labels, matrix)
    second = noise.corrupt(labels, matrix)
    torch.manual_seed(3)
    assert torch.equal(noise.corrupt(labels, matrix), first)
    assert not torch.equal(first, second)


def test_a_given_generator_leaves_the_global_one_alone():
    state = torch.get_rng_state()
    noise.corrupt(balanced(10, 10), noise.symmetric_matrix(10, 0.5), generator())
    noise.instance_dependent(torch.rand(9, 4), torch.zeros(9).long(), 0.4, 3, generator())
    data = fake(each=5)
    for kind in noise.KINDS:
        noise.inject(data, kind, 0.3)
    # torch.rand above moved the global state once; nothing else may have.
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    torch.rand(9, 4)
    assert torch.equal(torch.get_rng_state(), after)


def test_a_matrix_in_float32_draws_the_same_labels():
    labels, matrix = balanced(10, 20), noise.pairflip_matrix(10, 0.3)
    expected = noise.corrupt(labels, matrix, generator())
    result = noise.corrupt(labels, matrix.float(), generator())
    assert (result == expected).float().mean() > 0.99  # float32 may round one draw over an edge


# ---------------------------------------------------------------- instance-dependent


def reference_rows(images, labels, rate, num_classes, seed):
    """Algorithm 2 image by image, in numpy, from the same random numbers in the same order."""
    draw = generator(seed)
    flips = torch.empty(len(images), 1, dtype=torch.float64)
    torch.nn.init.trunc_normal_(flips, rate, 0.1, 0.0, 1.0, generator=draw)
    size = images[0].numel()
    matrices = [
        torch.randn(size, num_classes, generator=draw).double().numpy() for _ in range(num_classes)
    ]
    rows = np.zeros((len(images), num_classes))
    for i, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        scores = image.double().numpy().ravel() @ matrices[label]
        scores[label] = -np.inf
        weights = np.exp(scores - scores.max())
        rows[i] = flips[i].item() * weights / weights.sum()
        rows[i, label] = 1 - flips[i].item()
    return rows


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 20), st.integers(2, 5), st.floats(0.05, 0.9), seeds)
def test_instance_rows_are_algorithm_2(size, num_classes, rate, seed):
    draw = generator(seed)
    pixels = 3 * torch.rand(size, 2, 3, 3, generator=draw)  # dim, so that the softmax is soft
    labels = torch.randint(num_classes, (size,), generator=draw)
    rows = injectors._instance_rows(pixels.flatten(1), labels, rate, num_classes, generator(seed))
    expected = reference_rows(pixels, labels, rate, num_classes, seed)
    np.testing.assert_allclose(rows.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(rows.sum(1).numpy(), 1, atol=EXACT)


def test_uint8_and_float_images_mean_the_same_pixels():
    images = torch.randint(256, (300, 1, 5, 5), generator=generator(), dtype=torch.uint8)
    labels = balanced(3, 100)
    from_bytes = noise.instance_dependent(images, labels, 0.4, 3, generator(1))
    from_floats = noise.instance_dependent(images.float() / 255, labels, 0.4, 3, generator(1))
    assert (from_bytes == from_floats).float().mean() > 0.99
    assert 0.2 < (from_bytes != labels).float().mean() < 0.6


def truncated_mean(mean: float, std: float = 0.1) -> float:
    """Mean of a normal variable cut to [0, 1], in closed form."""

    def density(x):
        return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    def below(x):
        return (1 + math.erf(x / math.sqrt(2))) / 2

    low, high = (0 - mean) / std, (1 - mean) / std
    return mean + std * (density(low) - density(high)) / (below(high) - below(low))


@pytest.mark.parametrize(("rate", "golden"), [(0.2, 0.2055), (0.3, 0.3004), (0.4, 0.4000)])
def test_instance_noise_flips_at_the_mean_of_the_truncated_normal(rate, golden):
    assert truncated_mean(rate) == pytest.approx(golden, abs=6e-5)
    labels = balanced(5, 8000)
    images = torch.rand(len(labels), 1, 2, 2, generator=generator(9))
    given_labels = noise.instance_dependent(images, labels, rate, 5, generator(2))
    share = (given_labels != labels).double().mean().item()
    assert abs(share - golden) <= slack(golden, len(labels))


def test_on_the_scale_of_the_paper_an_image_has_one_wrong_label():
    images = torch.rand(400, 3, 16, 16, generator=generator(4))
    labels = balanced(10, 40)
    draws = [injectors._pixels(images, 400), labels, 0.4, 10]
    rows = injectors._instance_rows(*draws, generator(0)).scatter(1, labels[:, None], 0.0)
    largest = (rows.max(1).values / rows.sum(1)).mean()
    assert largest > 0.99


def test_equal_images_of_one_class_share_their_wrong_label():
    images = torch.rand(1, 1, 8, 8, generator=generator()).expand(2000, -1, -1, -1)
    labels = torch.full((2000,), 2)
    given_labels = noise.instance_dependent(images, labels, 0.4, 10, generator(3))
    assert len(given_labels.unique()) == 2


def test_instance_noise_repeats_and_keeps_its_inputs():
    images, labels = torch.rand(60, 1, 4, 4), balanced(6, 10)
    kept_images, kept_labels = images.clone(), labels.clone()
    one, two, other = (
        noise.instance_dependent(images, labels, 0.5, 6, generator(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)
    assert one.dtype == torch.int64
    assert torch.equal(images, kept_images)
    assert torch.equal(labels, kept_labels)


def test_instance_noise_of_rate_zero_changes_nothing():
    labels = balanced(3, 50)
    result = noise.instance_dependent(torch.rand(150, 4), labels, 0.0, 3, generator())
    assert torch.equal(result, labels)
    assert result is not labels


def test_instance_noise_of_no_images_is_empty():
    result = noise.instance_dependent(torch.empty(0, 1, 2, 2), torch.empty(0).long(), 0.3, 3)
    assert result.shape == (0,)


def test_instance_noise_warns_of_normalised_images():
    with pytest.warns(UserWarning, match="before normalisation"):
        noise.instance_dependent(torch.randn(50, 4), torch.zeros(50).long(), 0.3, 3, generator())


# ---------------------------------------------------------------- inject


@pytest.mark.parametrize("kind", noise.KINDS)
def test_inject_draws_from_the_true_labels_at_the_rate(kind):
    data = fake(each=600)
    noisy = noise.inject(data, kind, 0.4, seed=7)
    expected = {"symmetric-including-true": 0.36, "asymmetric": 0.2}.get(kind, 0.4)
    share = (noisy.labels != data.true_labels).double().mean().item()
    assert abs(share - expected) <= slack(expected, 6000)
    assert noisy.true_labels is data.true_labels
    assert noisy.images is data.images
    assert (data.labels == 0).all()


@pytest.mark.parametrize("kind", noise.KINDS)
def test_inject_repeats_from_its_seed_and_forgets_earlier_noise(kind):
    data = fake(each=50)
    once = noise.inject(data, kind, 0.3, seed=1)
    twice = noise.inject(noise.inject(data, kind, 0.9, seed=2), kind, 0.3, seed=1)
    assert torch.equal(once.labels, twice.labels)
    assert not torch.equal(once.labels, noise.inject(data, kind, 0.3, seed=3).labels)


def test_asymmetric_injection_does_not_cascade():
    data = fake("cifar10", each=5000)
    noisy = noise.inject(data, "asymmetric", 0.4)
    for true_class, wrong_class in ((3, 5), (5, 3)):
        members = noisy.labels[data.true_labels == true_class]
        share = (members == wrong_class).double().mean().item()
        # A cascade would give 0.24 for the cats (published code of ELR, CDR, APL).
        assert abs(share - 0.4) <= slack(0.4, 5000)


def test_inject_names_the_kinds_it_knows():
    with pytest.raises(ValueError, match="symmetric, symmetric-including-true, pairflip") as caught:
        noise.inject(fake(), "uniform", 0.2)
    assert "'uniform'" in str(caught.value)


def test_inject_on_data_without_a_map_says_so():
    with pytest.raises(ValueError, match="mnist, digits, fashion-mnist, cifar10.*'flowers'"):
        noise.inject(fake("flowers"), "asymmetric", 0.2)


# ---------------------------------------------------------------- images without content

shapes = st.tuples(st.integers(1, 6), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))


def numbered(shape) -> torch.Tensor:
    return torch.arange(math.prod(shape), dtype=torch.float32).view(shape)


@moderate
@given(shapes, seeds)
def test_shuffle_pixels_moves_all_images_alike(shape, seed):
    images = numbered(shape)
    shuffled = noise.shuffle_pixels(images, generator(seed))
    assert shuffled.shape == images.shape
    flat, moved = images.flatten(2), shuffled.flatten(2)
    order = moved[0, 0] - flat[0, 0, 0]
    assert sorted(order.tolist()) == list(range(flat.shape[-1]))
    for image in range(shape[0]):
        for channel in range(shape[1]):
            assert torch.equal(moved[image, channel], flat[image, channel][order.long()])


@moderate
@given(shapes, seeds)
def test_random_pixels_moves_each_image_by_a_permutation(shape, seed):
    images = numbered(shape)
    moved = noise.random_pixels(images, generator(seed)).flatten(2)
    flat = images.flatten(2)
    for image in range(shape[0]):
        order = (moved[image, 0] - flat[image, 0, 0]).long()
        assert sorted(order.tolist()) == list(range(flat.shape[-1]))
        for channel in range(shape[1]):
            assert torch.equal(moved[image, channel], flat[image, channel][order])


def test_random_pixels_gives_each_image_its_own_order(monkeypatch):
    monkeypatch.setattr(noise_images, "CHUNK", 7)  # several chunks
    images = torch.arange(36.0).view(1, 1, 6, 6).expand(20, -1, -1, -1)
    moved = noise.random_pixels(images, generator())
    assert len(moved.flatten(1).unique(dim=0)) == 20
    shuffled = noise.shuffle_pixels(images, generator())
    assert len(shuffled.flatten(1).unique(dim=0)) == 1
    assert not torch.equal(shuffled, images)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("corruption", [noise.shuffle_pixels, noise.random_pixels])
def test_moved_pixels_keep_dtype_and_input(corruption, dtype):
    images = torch.randint(200, (4, 3, 5, 5), generator=generator()).to(dtype)
    before = images.clone()
    moved = corruption(images, generator(1))
    assert moved.dtype == dtype
    assert torch.equal(images, before)
    assert torch.equal(moved, corruption(images, generator(1)))
    assert not torch.equal(moved, corruption(images, generator(2)))


@pytest.mark.parametrize("as_bytes", [True, False])
def test_gaussian_images_have_the_data_s_mean_and_deviation(as_bytes):
    draw = np.random.default_rng(0)
    bytes_ = draw.integers([[[20]], [[100]]], [[[60]], [[250]]], size=(500, 2, 16, 16))
    images = torch.from_numpy(bytes_).to(torch.uint8)
    if not as_bytes:
        images = images.float() / 255
    result = noise.gaussian_images(images, generator(3)).double().numpy()
    scaled = bytes_ / 255
    count = 500 * 16 * 16
    for channel in range(2):
        std = scaled[:, channel].std()
        error = abs(result[:, channel].mean() - scaled[:, channel].mean())
        assert error <= DEVIATIONS * std / math.sqrt(count)
        # The deviation of n normal numbers scatters by std / sqrt(2 n).
        error = abs(result[:, channel].std() - std)
        assert error <= DEVIATIONS * std / math.sqrt(2 * count)
    assert noise.gaussian_images(images, generator(3)).dtype == torch.float32
    assert torch.equal(
        noise.gaussian_images(images, generator(3)), noise.gaussian_images(images, generator(3))
    )


@pytest.mark.parametrize(
    "corruption", [noise.shuffle_pixels, noise.random_pixels, noise.gaussian_images]
)
@pytest.mark.parametrize("images", [torch.zeros(3, 4), [[0]], torch.zeros(0, 1, 2, 2)])
def test_image_corruptions_want_images(corruption, images):
    with pytest.raises(ValueError, match=r"shape \(n, channels, height, width\), got"):
        corruption(images)


# ---------------------------------------------------------------- errors


def all_rated(rate):
    """One call for each function that takes a rate."""
    return [
        lambda: noise.symmetric_matrix(10, rate),
        lambda: noise.symmetric_matrix(10, rate, include_true=True),
        lambda: noise.pairflip_matrix(10, rate),
        lambda: noise.asymmetric_matrix("mnist", rate),
        lambda: noise.instance_dependent(torch.rand(4, 3), torch.zeros(4).long(), rate, 3),
        *[lambda kind=kind: noise.inject(fake(each=2), kind, rate) for kind in noise.KINDS],
    ]


@pytest.mark.parametrize("rate", [-0.1, 1.2, 40, math.nan, math.inf])
@pytest.mark.parametrize("number", range(len(all_rated(0.1))))
def test_rates_out_of_range_are_refused(rate, number):
    with pytest.raises(ValueError, match=r"Expected `rate` in \[0, 1\], got .*share of labels"):
        all_rated(rate)[number]()


def test_a_rate_in_percent_is_recognised():
    with pytest.raises(ValueError, match="for 40 % give 0.4"):
        noise.symmetric_matrix(10, 40)


def test_a_rate_must_be_a_number():
    with pytest.raises(TypeError, match="Expected `rate` as a number in .* got str"):
        noise.symmetric_matrix(10, "0.4")


@pytest.mark.parametrize("num_classes", [1, 0, -3])
def test_one_class_has_no_wrong_label(num_classes):
    calls = [
        lambda: noise.symmetric_matrix(num_classes, 0.1),
        lambda: noise.pairflip_matrix(num_classes, 0.1),
        lambda: noise.instance_dependent(torch.rand(2, 3), torch.zeros(2).long(), 0.1, num_classes),
        lambda: noise.observed_matrix(torch.zeros(2).long(), torch.zeros(2).long(), num_classes),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=rf"`num_classes` of at least 2, got {num_classes}"):
            call()


def test_asymmetric_matrix_lists_the_data_sets_it_knows():
    with pytest.raises(ValueError, match="mnist, digits, fashion-mnist, .*cifar100n, got 'svhn'"):
        noise.asymmetric_matrix("svhn", 0.2)


BAD_LABELS = [
    ([0, 1], TypeError, "int64 tensor of class numbers, got list.*torch.as_tensor"),
    (torch.tensor([0.0, 1.0]), TypeError, r"int64 tensor .*, got torch.float32.*\.long"),
    (torch.tensor([True, False]), TypeError, "int64 tensor .*got torch.bool"),
    (torch.tensor([0, 1]).int(), TypeError, "int64 tensor .*got torch.int32"),
    (torch.eye(2).long(), ValueError, r"shape \(n,\), got \(2, 2\).*one-hot"),
    (torch.tensor([0, 10]), ValueError, r"0 to 9 \(10 classes\), got 0 to 10"),
    (torch.tensor([-1, 3]), ValueError, "from 0 to 9 .*, got -1 to 3"),
]


@pytest.mark.parametrize(("labels", "error", "message"), BAD_LABELS)
def test_bad_labels_are_refused(labels, error, message):
    with pytest.raises(error, match="Expected `labels`.*" + message):
        noise.corrupt(labels, noise.symmetric_matrix(10, 0.2))
    with pytest.raises(error, match="Expected `labels`.*" + message):
        noise.instance_dependent(torch.rand(2, 5), labels, 0.2, 10)
    with pytest.raises(error, match="Expected `true_labels`.*" + message):
        noise.observed_matrix(torch.tensor([0, 1]), labels, 10)


def test_observed_matrix_wants_pairs():
    with pytest.raises(ValueError, match=r"`labels` of shape \(3,\), got \(2,\): one class"):
        noise.observed_matrix(torch.tensor([0, 1]), torch.tensor([0, 1, 1]), 2)


BAD_MATRICES = [
    (torch.full((2, 3), 1 / 3), ValueError, r"with 2 rows, .*got \(2, 3\)"),
    (torch.ones(4) / 4, ValueError, r"with 4 rows, .*got \(4,\)"),
    (torch.tensor([[1.1, -0.1], [0, 1]]), ValueError, "numbers from 0 on .*numbers from -0.1"),
    (torch.tensor([[math.nan, 1], [0, 1]]), ValueError, "got sums from nan"),
    (torch.tensor([[0.5, 0.5], [0.5, 0.4]]), ValueError, "sum to 1, got sums from 0.9 to 1"),
    (torch.tensor([[0.5, 0.1], [0.5, 0.9]]), ValueError, "sums from 0.6 to 1.4.*transposed"),
    (torch.tensor([[1.0, math.inf], [0, 1]]), ValueError, "sum to 1, got sums from 1 to inf"),
    (torch.eye(2).long(), TypeError, "tensor of floats, got torch.int64"),
    ([[1.0, 0.0], [0.0, 1.0]], TypeError, "tensor of floats, got list"),
]


@pytest.mark.parametrize(("matrix", "error", "message"), BAD_MATRICES)
def test_matrices_that_are_none_are_refused(matrix, error, message):
    with pytest.raises(error, match="`matrix`.*" + message):
        noise.corrupt(torch.tensor([0, 1]), matrix)


def test_a_matrix_of_too_few_classes_is_refused():
    with pytest.raises(ValueError, match="0 to 2 .3 classes., got 0 to 9"):
        noise.corrupt(balanced(10, 2), noise.symmetric_matrix(3, 0.2))
    with pytest.raises(ValueError, match=r"`matrix` with 10 rows, .*got \(3, 3\)"):
        noise.check_transition(noise.symmetric_matrix(3, 0.2), num_classes=10)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.rand(3, 4), ValueError, r"one label an image, got \(3, 4\) and 2 labels"),
        (torch.rand(2), ValueError, r"shape \(n, \.\.\.\)"),
        (torch.tensor([[0.0], [math.nan]]), ValueError, "finite `images`, got nan or inf"),
        ([[0.0], [1.0]], TypeError, "torch tensor, got list"),
    ],
)
def test_instance_noise_refuses_bad_images(images, error, message):
    with pytest.raises(error, match=message):
        noise.instance_dependent(images, torch.tensor([0, 1]), 0.2, 3)


# ---------------------------------------------------------------- devices


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnCuda:
    """The result lives where the labels do; the numbers come from the generator's device."""

    def test_a_cpu_generator_gives_the_same_labels_everywhere(self):
        labels, images = balanced(10, 50), torch.rand(500, 1, 4, 4)
        matrix = noise.symmetric_matrix(10, 0.4)
        on_cpu = noise.corrupt(labels, matrix, generator(1))
        on_gpu = noise.corrupt(labels.cuda(), matrix, generator(1))
        assert on_gpu.is_cuda
        assert torch.equal(on_cpu, on_gpu.cpu())
        assert torch.equal(on_cpu, noise.corrupt(labels.cuda(), matrix.cuda(), generator(1)).cpu())
        on_cpu = noise.instance_dependent(images, labels, 0.4, 10, generator(1))
        on_gpu = noise.instance_dependent(images.cuda(), labels.cuda(), 0.4, 10, generator(1))
        assert on_gpu.is_cuda
        assert torch.equal(on_cpu, on_gpu.cpu())

    def test_a_cuda_generator_repeats(self):
        labels, images = balanced(10, 500).cuda(), torch.rand(5000, 1, 4, 4).cuda()
        runs = []
        for _ in range(2):
            draw = torch.Generator("cuda").manual_seed(1)
            corrupted = noise.corrupt(labels, noise.symmetric_matrix(10, 0.4), draw)
            instance = noise.instance_dependent(images, labels, 0.4, 10, draw)
            runs.append((corrupted, instance))
        for one, two in zip(*runs, strict=True):
            assert one.is_cuda
            assert torch.equal(one, two)
            assert abs((one != labels).double().mean().item() - 0.4) <= slack(0.4, 5000)

    @pytest.mark.parametrize(
        "corruption", [noise.shuffle_pixels, noise.random_pixels, noise.gaussian_images]
    )
    def test_images_stay_on_their_device(self, corruption):
        images = torch.rand(6, 3, 4, 4)
        on_gpu = corruption(images.cuda(), generator(1))
        assert on_gpu.is_cuda
        torch.testing.assert_close(on_gpu.cpu(), corruption(images, generator(1)))
