"""Every recipe names what exists, makes its method and takes a step."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from nlcourse import datasets, noise
from nlcourse.datasets import files
from nlcourse.experiments import recipes
from nlcourse.methods import METHODS
from nlcourse.training import resnet
from nlcourse.training.loop import network_maker
from nlcourse.training.networks import NETWORKS

ALL = [(setting, name) for setting in recipes.settings() for name in recipes.names(setting)]
INCLUDING = "symmetric-including-true"
CLASSROOM = recipes.names("classroom")
# What takes a GPU in earnest: the papers' settings and those that shall be as good in less time.
LARGE = [(setting, name) for setting, name in ALL if recipes.names(setting) != CLASSROOM]
# So short that three epochs see all parts of a method.
SHORT = {
    "warm_up": 1, "estimate_epochs": 1, "revise_epoch": 2, "start": 1, "begin": 1, "average": 1,
    "find_epochs": 2, "steps": 2,
}  # fmt: skip
SHAPES = {
    "mnist": ((1, 28, 28), 10),
    "fashion-mnist": ((1, 28, 28), 10),
    "cifar10": ((3, 32, 32), 10),
    "cifar100": ((3, 32, 32), 100),
    "clothing1m": ((3, 224, 224), 14),
    "mini-webvision": ((3, 224, 224), 50),
    "food101": ((3, 224, 224), 101),
}


@pytest.fixture(scope="module")
def tiny():
    """A part of digits small enough for a step of any method."""
    return noise.inject(datasets.load("digits").subset(260), "symmetric", 0.4, seed=0)


def random_images(name, size, side=None):
    """A data set of that name and its classes, whose images are noise."""
    (channels, height, _), classes = SHAPES[name]
    side = side or height
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(256, (size + 8, channels, side, side), dtype=torch.uint8, generator=draw)
    labels = torch.arange(size + 8) % classes
    data = datasets.Dataset(
        name=name,
        images=images[:size],
        labels=labels[:size],
        true_labels=labels[:size],
        test_images=images[size:],
        test_labels=labels[size:],
        class_names=tuple(map(str, range(classes))),
        mean=(0.5,) * channels,
        std=(0.3,) * channels,
    )
    return noise.inject(data, "symmetric", 0.4, seed=0)


def test_every_recipe_names_what_there_is_and_makes_its_method_and_schedule(tiny):
    """One test for all: few of them go wrong at a time, and each says its name."""
    for setting, name in ALL:
        where = f"{setting} {name}"
        recipe = recipes.find(setting, name, noise="asymmetric", rate=0.4)
        assert recipe.network in NETWORKS, where
        assert recipe.data in datasets.NAMES, where
        assert recipe.source, where
        made = recipe.make_method(tiny, "symmetric", 0.4)
        assert isinstance(made, METHODS[recipe.method]), where
        options = recipe.options()
        optimizer = options["options"].optimizer([torch.zeros(1, requires_grad=True)])
        if options["schedule"] is not None:
            rates = rates_of(options["schedule"](optimizer), optimizer, recipe.epochs)
            assert len(set(rates)) > 1, where
            assert min(rates) >= 0, where


def rates_of(schedule, optimizer, epochs):
    seen = []
    for _ in range(epochs):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_a_share_of_the_run_follows_its_length(tiny):
    made = {}
    for epochs in (60, 40):
        recipe = dataclasses.replace(recipes.find("classroom", "mentornet"), epochs=epochs)
        method = recipe.make_method(tiny)
        made[epochs] = method.settings.burn_in, method.settings.soft_from
    assert made == {60: (11, 54), 40: (7, 36)}  # 18 and 90 %
    history = recipes.find("classroom", "d2l").train(tiny, epochs=2, progress=False, device="cpu")
    assert "epochs=2" in history.settings["method"]


def one_a_method(found):
    """The first recipe of each method."""
    return list({recipes.find(*one).method: one for one in reversed(found)}.values())


@pytest.mark.parametrize(("setting", "name"), one_a_method([("classroom", n) for n in CLASSROOM]))
def test_a_classroom_recipe_of_each_method_trains(setting, name, tiny):
    recipe = recipes.find(setting, name, noise="symmetric", rate=0.4)
    told = {"kind": "symmetric", "rate": 0.4, "device": "cpu", "progress": False}
    history = recipe.train(tiny.subset(65), epochs=1, **told)
    assert 0 <= history.last["test_accuracy"] <= 1


@pytest.mark.parametrize(("setting", "name"), one_a_method(LARGE))
def test_a_large_recipe_of_each_method_trains_with_a_small_network(setting, name):
    recipe = recipes.find(setting, name, noise=INCLUDING, rate=0.4)
    given = recipe.arguments
    short = {key: min(given[key], SHORT[key]) for key in given.keys() & SHORT.keys()}
    data = random_images(recipe.data, max(64, 2 * SHAPES[recipe.data][1]), side=12)
    history = recipe.but(arguments=short).train(
        data, kind="symmetric", rate=0.4, network="small-cnn", epochs=3, device="cpu",
        progress=False,
    )  # fmt: skip
    assert len(history) == 3
    assert 0 <= history.last["test_accuracy"] <= 1


def one_for_each(*attributes):
    """The last large recipe of each combination of these attributes."""
    found = [recipes.find(*one) for one in LARGE]
    kinds = {str([getattr(one, name) for name in attributes]): one for one in found}
    return [(one.setting, one.name) for one in kinds.values()]


def test_every_large_network_takes_the_images_of_its_recipe(monkeypatch):
    monkeypatch.setattr(resnet, "_load_imagenet_weights", lambda network: None)
    for setting, name in one_for_each("network", "network_arguments", "data"):
        recipe = recipes.find(setting, name)
        shape, classes = SHAPES[recipe.data]
        data = random_images(recipe.data, 8, side=8)
        with monkeypatch.context() as patch, torch.device("meta"):  # shapes alone: no numbers
            patch.setattr(type(data), "image_shape", shape)
            network = network_maker(recipe.options()["network"], data)()
            assert network(torch.zeros(2, *shape)).shape == (2, classes), f"{setting} {name}"


@pytest.mark.parametrize(("setting", "name"), one_for_each("network"))
def test_every_large_network_trains(setting, name, monkeypatch):
    monkeypatch.setattr(resnet, "_load_imagenet_weights", lambda network: None)
    recipe = recipes.find(setting, name)
    side = 28 if recipe.network in ("lenet", "nine-layer-cnn", "mlp") else 12
    data = random_images(recipe.data, 22, side)
    history = recipe.train(data, kind="symmetric", rate=0.4, epochs=1, device="cpu", progress=False)
    assert len(history) == 1


def test_every_method_of_the_course_has_a_classroom_recipe():
    covered = {recipes.find("classroom", name).method for name in CLASSROOM}
    assert set(METHODS) - covered <= {"fixmatch"}  # learns from a few labels, all of them right


def test_what_holds_for_one_noise_overrules_what_holds_for_all():
    plain = recipes.find("cifar10", "elr", noise="symmetric", rate=0.4)
    other = recipes.find("cifar10", "elr", noise="asymmetric", rate=0.4)
    assert plain.arguments == {"beta": 0.7, "lambda_": 3.0}
    assert other.arguments == {"beta": 0.9, "lambda_": 1.0}


@pytest.mark.parametrize(
    ("data", "kind", "rate", "lambda_u"),
    [
        ("cifar10", INCLUDING, 0.2, 0),
        ("cifar10", INCLUDING, 0.5, 25),
        ("cifar10", INCLUDING, 0.8, 25),
        ("cifar10", INCLUDING, 0.9, 50),
        ("cifar10", "asymmetric", 0.4, 0),
        ("cifar100", INCLUDING, 0.2, 25),
        ("cifar100", INCLUDING, 0.5, 150),
        ("cifar100", INCLUDING, 0.9, 150),
        ("clothing1m", None, None, 0),
        ("mini-webvision", None, None, 0),
    ],
)
def test_dividemix_has_its_authors_lambda_u(data, kind, rate, lambda_u):
    assert recipes.find(data, "dividemix", noise=kind, rate=rate).arguments["lambda_u"] == lambda_u


def test_a_methods_line_changes_one_number_and_keeps_the_others():
    recipe = recipes.find("classroom", "weight-decay")
    assert recipe.optimizer == {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-3}
    assert recipe.method == "cross-entropy"


def test_a_network_has_the_arguments_of_its_recipe():
    data = random_images("mnist", 8)
    network = network_maker(
        recipes.find("mnist-papers", "co-teaching-plus").options()["network"], data
    )()
    assert sum(weights.numel() for weights in network.parameters()) == 203_530  # 784-256-10
    assert recipes.find("mnist-papers", "cdr").options()["network"] == "lenet"


@pytest.mark.parametrize("setting", ["clothing1m", "mini-webvision"])
def test_photographs_that_are_not_there_are_asked_for_kindly(setting, tmp_path, monkeypatch):
    monkeypatch.setenv("NLCOURSE_DATA", str(tmp_path))
    with pytest.raises(files.DataError, match="cannot be used"):
        recipes.find(setting, "elr-plus").load()


def test_a_noise_rate_that_nobody_knows_is_asked_for():
    data = random_images("clothing1m", 28, side=12)
    data = type(data)(**vars(data) | {"true_labels": torch.full((28,), datasets.UNKNOWN)})
    with pytest.raises(ValueError, match="true labels are unknown"):
        recipes.find("cifar100", "co-teaching").make_method(data)


def test_another_optimizer_takes_nothing_from_the_old_one():
    assert recipes.find("cifar10", "co-teaching").optimizer == {"kind": "adam", "lr": 1e-3}


def test_mnist_trains_what_the_classroom_trains():
    assert recipes.names("mnist") == CLASSROOM
    recipe = recipes.find("mnist", "elr")
    assert (recipe.data, recipe.subset, recipe.epochs) == ("mnist", 6000, 40)
    assert recipe.arguments == recipes.find("classroom", "elr").arguments


def test_a_measured_noise_rate_is_that_of_the_data(tiny):
    method = recipes.find("classroom", "co-teaching").make_method(tiny)
    assert method.noise_rate == pytest.approx(tiny.noise_rate)


def test_the_true_matrix_is_the_one_the_labels_came_from(tiny):
    method = recipes.find("classroom", "forward-true").make_method(tiny, "pairflip", 0.3)
    torch.testing.assert_close(method.given, noise.pairflip_matrix(10, 0.3).float())


def test_noise_without_a_matrix_is_refused_for_methods_that_want_one(tiny):
    with pytest.raises(ValueError, match="that one matrix makes"):
        recipes.find("classroom", "forward-true").make_method(tiny, "instance", 0.4)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [(("nowhere", "elr"), "nowhere"), (("classroom", "elf"), "elr-plus")],
)
def test_unknown_names_are_answered_with_those_that_there_are(arguments, word):
    with pytest.raises(ValueError, match=word):
        recipes.find(*arguments)


def test_an_unknown_schedule_is_refused():
    with pytest.raises(ValueError, match="milestones"):
        recipes.make_schedule({"kind": "stairs"}, 10)


def test_the_schedules_are_those_of_the_papers():
    def rates(what, epochs, lr=1.0):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
        return rates_of(recipes.make_schedule(what, epochs)(optimizer), optimizer, epochs)

    steps = rates({"kind": "milestones", "epochs": [2, 4], "factor": 0.1}, 6)
    assert steps == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    # Co-teaching: constant to epoch 80 of 200, then to 0 in equal steps.
    line = rates({"kind": "linear", "begin": 80}, 200)
    assert line[:81] == [1.0] * 81
    assert line[140] == pytest.approx(0.5)
    assert line[199] == pytest.approx(1 / 120)
    waves = rates({"kind": "restarts", "period": 10, "lowest": 0.001}, 25)
    assert waves[0] == waves[10] == waves[20] == 1.0
    assert waves[5] == pytest.approx(0.5005)
    cycle = rates({"kind": "one-cycle", "warm_up": 0.25}, 40)
    assert max(cycle) == pytest.approx(1.0, abs=0.01)
    assert cycle.index(max(cycle)) in (9, 10)
    assert cycle[-1] < 0.02
    fall = rates({"kind": "exponential", "factor": 0.5}, 4)
    assert fall == pytest.approx([1, 0.5, 0.25, 0.125])
