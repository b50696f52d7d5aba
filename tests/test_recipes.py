"""Every recipe names what exists, makes its method and takes a step."""

from __future__ import annotations

import pytest
import torch

from nlcourse import datasets, noise, recipes
from nlcourse.methods import METHODS
from nlcourse.models import NETWORKS

ALL = [(setting, name) for setting in recipes.settings() for name in recipes.names(setting)]
INCLUDING = "symmetric-including-true"
CLASSROOM = recipes.names("classroom")


@pytest.fixture(scope="module")
def tiny():
    """A part of digits small enough for a step of any method."""
    return noise.inject(datasets.load("digits").subset(260), "symmetric", 0.4, seed=0)


@pytest.mark.parametrize(("setting", "name"), ALL)
def test_every_recipe_names_a_method_a_network_and_a_data_set(setting, name):
    recipe = recipes.find(setting, name)
    assert recipe.method in METHODS
    assert recipe.network in NETWORKS
    assert recipe.data in datasets.NAMES
    assert recipe.source


@pytest.mark.parametrize(("setting", "name"), ALL)
def test_every_recipe_makes_its_method_and_its_schedule(setting, name, tiny):
    recipe = recipes.find(setting, name, noise="asymmetric", rate=0.4)
    assert isinstance(recipe.make_method(tiny, "symmetric", 0.4), METHODS[recipe.method])
    options = recipe.options()
    optimizer = options["optimizer"]([torch.zeros(1, requires_grad=True)])
    if options["schedule"] is None:
        return
    schedule = options["schedule"](optimizer)
    rates = []
    for _ in range(recipe.epochs):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert len(set(rates)) > 1
    assert all(rate >= 0 for rate in rates)


@pytest.mark.parametrize("name", CLASSROOM)
def test_every_classroom_recipe_trains(name, tiny):
    recipe = recipes.find("classroom", name, noise="symmetric", rate=0.4)
    history = recipe.train(tiny, kind="symmetric", rate=0.4, epochs=2, device="cpu", progress=False)
    assert len(history) == 2
    assert 0 <= history.last["test_accuracy"] <= 1


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
    ],
)
def test_dividemix_has_its_authors_lambda_u(data, kind, rate, lambda_u):
    assert recipes.find(data, "dividemix", noise=kind, rate=rate).arguments["lambda_u"] == lambda_u


def test_a_methods_line_changes_one_number_and_keeps_the_others():
    recipe = recipes.find("classroom", "weight-decay")
    assert recipe.optimizer == {"kind": "sgd", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-3}
    assert recipe.method == "cross-entropy"


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
        schedule = recipes.make_schedule(what, epochs)(optimizer)
        seen = []
        for _ in range(epochs):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return seen

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
