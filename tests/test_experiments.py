"""Plans and their runner: what files may say, rows neither lost nor doubled, processes, Dask."""

import contextlib
import csv
import dataclasses
import itertools
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nlcourse import datasets, noise
from nlcourse.course import cli
from nlcourse.experiments import plan as plans
from nlcourse.experiments import recipes, results, runner, runs
from nlcourse.experiments.plan import KEY, read
from nlcourse.experiments.runner import RunnerError, carry_out

ROOT = Path(__file__).parents[1]
SMALL = """
methods = ["cross-entropy", "elr"]
noise = ["symmetric", "none"]
rates = [0.2, 0.4]
seeds = 2
subset = 60
epochs = 2
"""
SAME = ("best", "last", "mean_of_last_ten", "memorized", "ended")  # whatever machine, whatever day
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


@pytest.fixture
def write(tmp_path):
    def _write(text=SMALL, name="small.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return _write


def work(plan, **options):
    return carry_out(plan, **{"progress": False} | options)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def numbers(path):
    """What was measured, by run; complains about a run that stands twice."""
    rows = rows_of(path)
    found = {tuple(row[name] for name in KEY): [row[name] for name in SAME] for row in rows}
    assert len(found) == len(rows), "a row is doubled"
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The rows of a plan that nothing disturbs."""
    path = tmp_path_factory.mktemp("whole") / "whole.toml"
    path.write_text(SMALL)
    plan = read(path)
    outcome = work(plan)
    assert (outcome.added, outcome.left, outcome.failed) == (12, 0, {})
    return numbers(plan.table)


# --- the file ---


def test_the_file_says_which_runs(write):
    plan = read(write())
    assert plan.table.name == "small.csv"
    noises = [("symmetric", 0.2), ("symmetric", 0.4), ("none", 0.0)]
    wanted = list(itertools.product((0, 1), noises, ("cross-entropy", "elr")))
    assert [(run["seed"], (run["noise"], run["rate"]), run["method"]) for run in plan.runs] == (
        wanted
    )
    told = [run[name] for run in plan.runs for name in ("setting", "data", "examples", "epochs")]
    assert told == ["classroom", "digits", 60, 2] * 12
    own = read(write(SMALL.replace("epochs = 2", 'table = "t/other.csv"')))
    assert own.table.parts[-2:] == ("t", "other.csv")
    assert {run["epochs"] for run in own.runs} == {60}  # the recipes'


def test_a_kind_may_have_a_rate_of_its_own_and_one_needs_no_list(write):
    plan = read(write(), noise="pairflip 0.45", methods="elr", seeds=[7])
    assert [(run["noise"], run["rate"], run["seed"]) for run in plan.runs] == [
        ("pairflip", 0.45, 7)
    ]


def test_the_example_is_a_plan():
    assert len({tuple(run.values()) for run in read(ROOT / "docs" / "sweep.toml").runs}) == 24


@pytest.mark.parametrize(
    "path", sorted((ROOT / "results").glob("*.csv")), ids=lambda path: path.stem
)
def test_every_table_holds_what_its_plan_says(path):
    """Its keys stay: nothing that was measured is measured again."""
    script = path.with_suffix(".py")
    if not script.exists():  # benchmarks, and those of classroom_methods.py for other data
        assert path.stem.startswith("benchmarks") or path.stem.endswith("mnist_methods")
        return
    assert runner.missing(read(script)) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = 2", "seed = 2", r"got 'seed': did you mean 'seeds'\?"),
        ("seeds = 2", "", r"Expected `seeds` as a whole number.*it is missing"),
        ("seeds = 2", "seeds = 0", r"Expected `seeds` as a whole number from 1.*got 0"),
        ("seeds = 2", "seeds = [1, 1]", r"list of different ones.*got \[1, 1\]"),
        ("seeds = 2", "seeds = true", r"Expected `seeds`.*got True"),
        ("rates = [0.2, 0.4]", "", r"Expected `rates`, or a rate beside 'symmetric'"),
        ("[0.2, 0.4]", "[40]", r"numbers in \[0, 1\).*got \[40\]"),
        ("[0.2, 0.4]", '["0.4"]', r"Expected `rates`.*got \['0.4'\]"),
        ('["symmetric", "none"]', '["sideways"]', r"kinds out of symmetric.*'sideways'"),
        ('["symmetric", "none"]', '["symmetric 40"]', r"kinds out of symmetric.*'symmetric 40'"),
        ('["symmetric", "none"]', "[]", r"Expected `noise`"),
        ('"elr"', '"magic"', r"recipe of 'classroom'` out of .*'magic'"),
        ('"elr"', "3", r"Expected `methods` as a list.*3"),
        ("epochs = 2", "epochs = 0", r"Expected `epochs` as a whole number from 1, got 0"),
        ("subset = 60", "subset = 1.5", r"Expected `subset`.*got 1.5"),
        ("subset = 60", 'data = "cats"', r"Expected `data`.*'cats'"),
        ("subset = 60", 'setting = "moon"', r"Expected `setting`.*'moon'"),
        ("subset = 60", 'table = "rows.txt"', r"ends in .csv.*'rows.txt'"),
        ("seeds = 2", "seeds = ", r"is no TOML file: .*line 5"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(write, old, new, message):
    assert old in SMALL
    with pytest.raises(ValueError, match=message) as caught:
        read(write(SMALL.replace(old, new)))
    assert "small.toml" in str(caught.value)


def test_a_file_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match=r"Cannot read the plan .*none.toml: No such file"):
        read(tmp_path / "none.toml")


# --- the papers' tables ---


def test_the_queue_holds_every_method_before_the_next_noise():
    queue = read(ROOT / "results" / "reproduced.toml")
    methods = [run["method"] for run in queue.runs]
    for setting in ("cifar10", "cifar10-fast"):
        own = [run for run in queue.runs if run["setting"] == setting]
        assert {run["method"] for run in own[:7]} == set(methods)
        assert len({(run["noise"], run["rate"]) for run in own[:7]}) == 1
        assert len(own) == 42
    assert queue.checkpoints is not None
    for name in set(methods):
        full, fast = (recipes.find(setting, name) for setting in ("cifar10", "cifar10-fast"))
        assert fast.epochs <= full.epochs / 3
        assert (fast.method, fast.network) == (full.method, full.network)


def test_a_setting_with_few_of_the_methods_queues_those_it_has(write):
    some = read(write(), setting=["fashion-mnist-papers"], methods=["cross-entropy", "cdr"])
    assert {run["method"] for run in some.runs} == {"cross-entropy", "cdr"}
    both = read(write(), setting=["classroom", "fashion-mnist-papers"], methods="elr")
    assert {run["setting"] for run in both.runs} == {"classroom"}


# --- rows ---


def test_a_row_is_the_run_that_its_key_says(expected):
    data = noise.inject(datasets.load("digits").subset(60), "symmetric", 0.4, seed=1)
    recipe = recipes.find("classroom", "elr", noise="symmetric", rate=0.4)
    history = recipe.train(data, seed=1, epochs=2, progress=False)
    key = ("classroom", "elr", "digits", "60", "symmetric", "0.4", "1", "2")
    assert expected[key][:2] == [
        f"{history.best():.4f}",
        f"{history.last['test_accuracy']:.4f}",
    ]


def test_labels_as_they_are_stay_as_they_are(expected):
    kept = [row for key, row in expected.items() if key[4] == "none"]
    assert {row[3] for row in kept} == {"nan"}  # no label of digits is wrong


def test_a_run_that_fails_leaves_the_others_alone(write, monkeypatch):
    train = recipes.Recipe.train

    def fail_once(self, data, *, seed, rate, **options):
        if (seed, rate, self.name) == (1, 0.2, "elr"):
            raise RuntimeError("no memory")
        return train(self, data, seed=seed, rate=rate, **options)

    monkeypatch.setattr(recipes.Recipe, "train", fail_once)
    plan = read(write())
    outcome = work(plan)
    assert outcome.added == 11
    ((run, why),) = outcome.failed.items()
    assert "method elr" in run
    assert "rate 0.2, seed 1" in run
    assert why == "RuntimeError: no memory"
    monkeypatch.undo()
    again = work(plan)
    assert (again.added, again.failed) == (1, {})


def test_a_run_that_diverged_is_noted_and_not_repeated(write, monkeypatch):
    find = recipes.find
    wild = {"kind": "sgd", "lr": 1e30}
    monkeypatch.setattr(recipes, "find", lambda *a, **k: find(*a, **k).but(optimizer=wild))
    plan = read(write(), methods="cross-entropy", noise="symmetric 0.4", seeds=1, subset=128)
    assert work(plan).added == 1
    (row,) = rows_of(plan.table)
    assert row["ended"].startswith("diverged in epoch")
    assert math.isnan(float(row["last"]))  # not one epoch was finished
    assert row["epochs"] == "2"  # that were wanted
    assert work(plan).added == 0


def test_a_table_keeps_its_columns(write):
    """Of a row the columns that are there; what is missing there is said."""
    plan = read(write(), methods="elr", seeds=1)
    plan.table.write_text(",".join((*KEY, "best", "device")) + "\n")
    assert work(plan).added == 3
    assert set(rows_of(plan.table)[0]) == {*KEY, "best", "device"}
    plan.table.write_text(",".join((*KEY, "beauty")) + "\n")
    with pytest.raises(ValueError, match="differ in their columns: beauty"):
        work(plan)


@pytest.mark.parametrize("lost", [1, 10, 10_000])
def test_a_half_written_line_is_made_again(write, expected, lost):
    plan = read(write())
    work(plan)
    written = plan.table.read_bytes()
    header = written.index(b"\n") + 1
    # What a kill or a full disk leaves: at least a piece of the header.
    plan.table.write_bytes(written[: max(len(written) - lost, header // 2)])
    assert work(plan).added >= 1 or lost == 1  # a line that lacks its end only is whole
    assert numbers(plan.table) == expected


def test_data_is_loaded_once(write, monkeypatch):
    loaded = []
    load = datasets.load
    monkeypatch.setattr(
        datasets, "load", lambda name, **more: loaded.append(name) or load(name, **more)
    )
    recipes._load.cache_clear()
    work(read(write()))
    assert loaded == ["digits"]


# --- the command ---


def test_the_command_goes_on_where_it_was_killed(write, expected, capsys):
    path = write()
    table = path.with_suffix(".csv")
    assert cli.main(["experiment", str(path), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "0 of 12 runs are there" in told
    assert "to do: setting classroom, method elr, data digits, examples 60, noise symmetric" in told
    assert not table.exists()
    command = [sys.executable, "-m", "nlcourse.course.cli", "experiment", str(path)]
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while victim.poll() is None and not (table.exists() and table.read_bytes().count(b"\n") > 3):
        time.sleep(0.001)
    os.kill(victim.pid, KILL)
    assert victim.wait(60) != 0, "it ended before it could be killed"
    there = table.read_bytes().count(b"\n") - 1
    assert 3 <= there < 12
    assert cli.main(["experiment", str(path)]) == 0
    told = capsys.readouterr()
    assert f"{12 - there} new rows" in told.out
    assert "12/12" in told.err  # the bar, with the time left before that
    assert numbers(table) == expected
    assert f"experiment {path}" in rows_of(table)[0]["command"]
    assert cli.main(["experiment", str(path)]) == 0
    assert "12 of 12 runs are there" in capsys.readouterr().out


def test_the_command_says_what_is_wrong(write, capsys):
    assert cli.main(["experiment", str(write("rates = 1"))]) == cli.USAGE_ERROR
    assert "small.toml: Expected `methods`" in capsys.readouterr().err
    path = write()
    with results.Table(path.with_suffix(".csv"), KEY).held():
        assert cli.main(["experiment", str(path)]) == cli.USAGE_ERROR
    assert "Another process adds rows to" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["experiment", str(path), "--budget", "nine"])
    assert "a time like 90s" in capsys.readouterr().err


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("9m", 540), ("1.5h", 5400)])
def test_a_budget_is_a_time(text, expected):
    options = cli.build_parser().parse_args(["experiment", "x", "--budget", text])
    assert options.budget == expected


# --- a time budget, and checkpoints ---


@pytest.fixture
def one(write):
    """One run that keeps a checkpoint."""
    return read(write(), methods="elr", noise="symmetric 0.4", seeds=1, epochs=6, checkpoints=True)


class StopAfter(threading.Event):
    """An event that is set once somebody has looked at it often enough."""

    def __init__(self, looks):
        super().__init__()
        self.looks = looks

    def is_set(self):
        self.looks -= 1
        return self.looks < 0


def test_a_run_that_was_cut_short_goes_on_and_ends_with_the_same_numbers(one, write, monkeypatch):
    whole = dataclasses.replace(one, table=one.table.with_name("whole.csv"), checkpoints=None)
    work(whole)

    @contextlib.contextmanager
    def after_three_steps(deadline):
        yield StopAfter(3)

    with monkeypatch.context() as patch:
        patch.setattr(runs, "alarm", after_three_steps)
        outcome = work(one)
    assert (outcome.added, outcome.left) == (0, 1)
    assert len(list(one.checkpoints.glob("*.pt"))) == 1
    assert not one.table.exists()
    epochs = []
    measure = recipes.Recipe.train
    monkeypatch.setattr(
        recipes.Recipe,
        "train",
        lambda *a, **k: measure(*a, **k, on_epoch=lambda history: epochs.append(len(history))),
    )
    assert work(one).added == 1
    assert epochs[0] > 1  # it did not begin again
    assert numbers(one.table) == numbers(whole.table)
    assert not list(one.checkpoints.glob("*"))


def test_without_time_nothing_is_begun(one):
    outcome = work(one, budget=0.0)
    assert (outcome.added, outcome.left) == (0, 1)
    assert not one.checkpoints.exists()


def test_ctrl_c_ends_the_queue_and_keeps_what_there_is(write, monkeypatch):
    plan = read(write(), seeds=1, checkpoints=True)
    train, begun = recipes.Recipe.train, []

    def interrupt(history):
        raise KeyboardInterrupt

    def interrupted(recipe, data, **options):
        begun.append(recipe.name)
        return train(recipe, data, **options, on_epoch=interrupt if len(begun) > 2 else None)

    monkeypatch.setattr(recipes.Recipe, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        work(plan)
    assert len(begun) == 3
    assert len(rows_of(plan.table)) == 2
    assert len(list(plan.checkpoints.glob("*.pt"))) == 1


def test_the_alarm_rings_when_the_time_is_up():
    with runs.alarm(time.time()) as stop:
        assert stop.wait(5)
    with runs.alarm(None) as stop:
        assert not stop.is_set()


# --- several processes ---


def test_a_process_a_device(write, expected):
    plan = read(write())
    outcome = work(plan, devices=["cpu", "cpu"])
    assert (outcome.added, outcome.failed) == (12, {})
    assert numbers(plan.table) == expected


def told_device(run):
    time.sleep(0.1)
    return {"seed": run["seed"], "on": os.environ["NLCOURSE_DEVICE"], "process": os.getpid()}


def test_each_process_has_a_device_of_its_own(tmp_path, monkeypatch):
    monkeypatch.delenv("NLCOURSE_DEVICE", raising=False)
    some = [{"seed": seed} for seed in range(8)]
    plan = plans.Plan(tmp_path / "t.csv", ("seed",), some, told_device)
    work(plan, devices=["cpu", "meta"])
    pairs = {(row["on"], row["process"]) for row in rows_of(plan.table)}
    assert len(pairs) == len(dict(pairs)) == 2
    alone = dataclasses.replace(plan, table=tmp_path / "alone.csv")
    work(alone, devices=["meta"])
    assert {(row["on"], row["process"]) for row in rows_of(alone.table)} == {
        ("meta", str(os.getpid()))
    }
    assert "NLCOURSE_DEVICE" not in os.environ


def test_all_gpus_are_used_when_there_are_several(monkeypatch):
    import torch

    monkeypatch.delenv("NLCOURSE_DEVICE", raising=False)
    for count, devices in ((0, []), (1, []), (3, ["cuda:0", "cuda:1", "cuda:2"])):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert runner.find_devices() == devices
    monkeypatch.setenv("NLCOURSE_DEVICE", "cpu")
    assert runner.find_devices() == []


def die(run):
    if run["seed"] == 2:
        os.kill(os.getpid(), KILL)
    return dict(run)


def test_a_killed_process_is_said_and_the_rows_are_kept(tmp_path):
    plan = plans.Plan(tmp_path / "t.csv", ("seed",), [{"seed": seed} for seed in range(9)], die)
    with pytest.raises(RunnerError, match="was killed.*the same command goes on"):
        work(plan, devices=["cpu", "cpu"])
    there = {row["seed"] for row in rows_of(plan.table)} if plan.table.exists() else set()
    assert "2" not in there
    work(dataclasses.replace(plan, measure=dict), devices=["cpu", "cpu"])
    assert {row["seed"] for row in rows_of(plan.table)} == {str(seed) for seed in range(9)}


# --- Dask ---


def test_a_cluster_loses_a_worker_and_no_row(write, expected):
    """Two worker processes; the one that is at work when the first row comes is killed."""
    from dask import distributed

    plan = read(write())
    killed = []
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs=50
    ) as cluster:
        address = cluster.scheduler_address

        def kill(row):
            if killed:
                return
            with distributed.Client(address, set_as_default=False) as client:
                pids = client.run(os.getpid)
                busy = [worker for worker, keys in client.processing().items() if keys]
            killed.append(pids[busy[0]])
            os.kill(killed[0], KILL)

        outcome = work(plan, scheduler=address, on_row=kill)
    assert len(killed) == 1
    assert (outcome.added, outcome.failed) == (12, {})
    assert numbers(plan.table) == expected
    assert {row["versions"] for row in rows_of(plan.table)} == {results.provenance()["versions"]}


def test_no_scheduler_is_said(write, monkeypatch):
    monkeypatch.setattr(runner, "PATIENCE", 0.3)
    for address in ("tcp://127.0.0.1:1", "nonsense://"):
        with pytest.raises(RunnerError, match=f"No Dask scheduler answers at {address}"):
            work(read(write()), scheduler=address)
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(RunnerError, match=r"'.\[cluster\]'"):
        work(read(write()), scheduler="tcp://127.0.0.1:1")


@pytest.mark.real_data("cifar-10-batches-py")
@pytest.mark.parametrize("method", ["elr", "co-teaching"])
def test_a_step_of_the_papers_recipes_on_real_cifar10(method):
    """One epoch on few images: says that every piece fits, not that it learns."""
    data = datasets.load("cifar10").subset(40)
    few = {"test_images": data.test_images[:40], "test_labels": data.test_labels[:40]}
    run = {"noise": "asymmetric", "rate": 0.4, "seed": 0}
    recipe = recipes.find("cifar10-fast", method, noise="asymmetric", rate=0.4)
    data = runs.corrupted(dataclasses.replace(data, **few), run)
    _, row = runs.train(recipe, run, data, epochs=1, device="cpu")
    assert row["data"] == "cifar10"
