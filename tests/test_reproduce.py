"""The queue of the papers' tables: its order, its budget, and going on where it stopped."""

from __future__ import annotations

import contextlib
import math
import threading

import pytest
import torch

from nlcourse import datasets
from nlcourse.experiments import recipes, reproduce, results


class StopAfter(threading.Event):
    """An event that is set once somebody has looked at it often enough."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    def is_set(self):
        self.looks -= 1
        return self.looks < 0


@pytest.fixture
def tiny():
    return datasets.load("digits").subset(128)


@pytest.fixture
def table(tmp_path):
    return results.Table(tmp_path / "reproduced.csv", reproduce.KEY)


def classroom(*names, seed=0):
    return [
        reproduce.Job(recipes.find("classroom", name), "symmetric", 0.4, seed) for name in names
    ]


def work(jobs, table, tmp_path, data, **options):
    lines = []
    options = {"epochs": 3, "progress": False, "device": "cpu", "say": lines.append} | options
    left = reproduce.run(jobs, table, tmp_path / "kept", data=data, **options)
    return left, lines


# --- the queue ---


def test_the_queue_holds_every_method_before_the_next_noise():
    jobs = list(reproduce.queue(["cifar10"]))
    methods = [m for m in reproduce.METHODS if m in recipes.names("cifar10")]
    assert [job.recipe.name for job in jobs[: len(methods)]] == methods
    assert len({(job.noise, job.rate) for job in jobs[: len(methods)]}) == 1
    assert len({str(job) for job in jobs}) == len(jobs) == len(methods) * len(reproduce.NOISES)


def test_the_papers_methods_all_have_a_recipe_and_a_fast_one_beside_it():
    for setting in ("cifar10", "cifar10-fast"):
        assert set(reproduce.METHODS) <= set(recipes.names(setting))
    for name in reproduce.METHODS:
        full, fast = (recipes.find(setting, name) for setting in ("cifar10", "cifar10-fast"))
        assert fast.epochs <= full.epochs / 3
        assert (fast.method, fast.network) == (full.method, full.network)


def test_photographs_keep_the_wrong_labels_that_they_have(table, tmp_path, tiny):
    jobs = list(reproduce.queue(["clothing1m"], ["elr", "cross-entropy"]))
    assert [(job.noise, job.rate) for job in jobs] == [("none", 0.0)] * 2
    job = reproduce.Job(recipes.find("classroom", "cross-entropy"), "none", 0.0)
    left, _ = work([job], table, tmp_path, tiny)
    (row,) = results.load(table.path.stem, table.path.parent)
    assert left == 0
    assert row["noise"] == "none"
    assert row["memorized"] == "nan"  # no label of this set is wrong


def test_settings_for_one_noise_arrive_in_the_job():
    job = next(reproduce.queue(["cifar10"], ["elr"], [("asymmetric", 0.4)]))
    assert job.recipe.arguments == {"beta": 0.9, "lambda_": 1.0}


def test_a_setting_with_few_of_the_methods_queues_those_it_has():
    jobs = list(reproduce.queue(["fashion-mnist-papers"]))
    assert {job.recipe.name for job in jobs} == {"cross-entropy", "cdr"}


def test_a_method_without_a_recipe_is_refused():
    with pytest.raises(ValueError, match="with a recipe in cifar10-fast"):
        list(reproduce.queue(["cifar10-fast"], ["mae"]))


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("9m", 540), ("1.5h", 5400)])
def test_a_budget_is_a_time(text, expected):
    assert reproduce.seconds(text) == expected


@pytest.mark.parametrize("text", ["9", "m", "-3m", "0s", "nine minutes"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(ValueError, match="a time like"):
        reproduce.seconds(text)


# --- working through it ---


def test_finished_runs_add_rows_and_are_not_made_again(table, tmp_path, tiny):
    jobs = classroom("cross-entropy", "elr")
    left, lines = work(jobs, table, tmp_path, tiny)
    rows = results.load("reproduced", tmp_path)
    assert left == 0
    assert [row["method"] for row in rows] == ["cross-entropy", "elr"]
    assert {row["examples"] for row in rows} == {"128"}
    assert all(0 < float(row["best"]) <= 1 and row["commit"] for row in rows)
    assert not list((tmp_path / "kept").glob("*"))
    assert len(lines) == 4

    again = results.Table(tmp_path / "reproduced.csv", reproduce.KEY)
    left, lines = work(jobs, again, tmp_path, tiny)
    assert (left, lines) == (0, [])
    assert len(results.load("reproduced", tmp_path)) == 2


def test_a_run_that_was_cut_short_goes_on_and_ends_with_the_same_numbers(
    table, tmp_path, tiny, monkeypatch
):
    jobs = classroom("elr")
    alarm = reproduce._alarm

    @contextlib.contextmanager
    def after_five_steps(end):
        yield StopAfter(5)  # two batches an epoch: in the middle of the third

    monkeypatch.setattr(reproduce, "_alarm", after_five_steps)
    left, lines = work(jobs, table, tmp_path, tiny, epochs=6)
    assert left == 1
    assert "goes on" in lines[-1]
    assert len(list((tmp_path / "kept").glob("*.pt"))) == 1
    assert not (tmp_path / "reproduced.csv").exists()

    monkeypatch.setattr(reproduce, "_alarm", alarm)
    left, lines = work(jobs, table, tmp_path, tiny, epochs=6)
    assert left == 0
    assert "going on" in lines[0]
    whole = results.Table(tmp_path / "whole.csv", reproduce.KEY)
    work(jobs, whole, tmp_path, tiny, epochs=6)
    broken, unbroken = (results.load(name, tmp_path)[0] for name in ("reproduced", "whole"))
    for column in ("best", "last", "mean_of_last_ten", "memorized"):
        assert broken[column] == unbroken[column]


def test_without_time_nothing_is_begun(table, tmp_path, tiny):
    left, lines = work(classroom("elr", "cross-entropy"), table, tmp_path, tiny, budget=0.0)
    assert (left, lines) == (2, [])


def test_an_interrupt_ends_the_queue(table, tmp_path, tiny, monkeypatch):
    train, begun = recipes.Recipe.train, []

    def interrupt(history):
        raise KeyboardInterrupt

    def interrupted(recipe, data, **options):
        begun.append(recipe.name)
        return train(recipe, data, **options, on_epoch=interrupt)

    monkeypatch.setattr(recipes.Recipe, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        work(classroom("cross-entropy", "elr"), table, tmp_path, tiny)
    assert begun == ["cross-entropy"]
    assert not table.path.exists()
    assert len(list((tmp_path / "kept").glob("*.pt"))) == 1


def test_the_queue_loads_its_data_once(table, tmp_path, monkeypatch):
    loaded = []
    load = datasets.load
    monkeypatch.setattr(
        datasets, "load", lambda name, **more: loaded.append(name) or load(name, **more)
    )
    recipes._load.cache_clear()
    left, _ = work(classroom("elr", "cross-entropy"), table, tmp_path, None, budget=0.0)
    assert (left, loaded) == (2, ["digits"])


def test_the_alarm_rings_when_the_time_is_up():
    with reproduce._alarm(0.0) as stop:
        assert stop.wait(5)
    with reproduce._alarm(None) as stop:
        assert not stop.is_set()


def test_a_run_that_diverged_is_noted_and_not_repeated(table, tmp_path, tiny):
    wild = recipes.find("classroom", "cross-entropy")
    wild = type(wild)(**vars(wild) | {"optimizer": {"kind": "sgd", "lr": 1e30}})
    jobs = [reproduce.Job(wild, "symmetric", 0.4)]
    left, _ = work(jobs, table, tmp_path, tiny)
    row = results.load("reproduced", tmp_path)[0]
    assert left == 0
    assert row["ended"].startswith("diverged in epoch")
    assert math.isnan(float(row["last"]))  # not one epoch was finished
    assert work(jobs, table, tmp_path, tiny)[1] == []


@pytest.mark.real_data("cifar-10-batches-py")
@pytest.mark.parametrize("method", ["elr", "co-teaching"])
def test_a_step_of_the_papers_recipes_on_real_cifar10(table, tmp_path, method):
    """One epoch on few images: says that every piece fits, not that it learns."""
    torch.manual_seed(0)
    data = datasets.load("cifar10").subset(40)
    data = type(data)(**vars(data) | {
        "test_images": data.test_images[:40], "test_labels": data.test_labels[:40]
    })  # fmt: skip
    jobs = list(reproduce.queue(["cifar10-fast"], [method], [("asymmetric", 0.4)]))
    left, _ = work(jobs, table, tmp_path, data, epochs=1)
    assert left == 0
    assert results.load("reproduced", tmp_path)[0]["data"] == "cifar10"
