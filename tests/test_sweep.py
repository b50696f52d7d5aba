"""Sweeps: what the file may say, rows that are neither lost nor doubled, processes and Dask."""

import csv
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nlcourse.course import cli
from nlcourse.experiments import recipes, results, sweep
from nlcourse.experiments.sweep import KEY, SweepError, SweepRun, read

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


@pytest.fixture
def write(tmp_path):
    def _write(text=SMALL, name="small.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return _write


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
    """The rows of an undisturbed sweep."""
    path = tmp_path_factory.mktemp("whole") / "whole.toml"
    path.write_text(SMALL)
    plan = read(path)
    outcome = sweep.sweep(plan, progress=False)
    assert (outcome.added, outcome.failed) == (12, {})
    return numbers(plan.table)


# --- the file ---


def test_the_file_says_which_runs(write):
    plan = read(write())
    assert plan.table.name == "small.csv"
    noises = [("symmetric", 0.2), ("symmetric", 0.4), ("none", 0.0)]
    wanted = list(itertools.product((0, 1), noises, ("cross-entropy", "elr")))
    assert [(run.seed, (run.noise, run.rate), run.method) for run in plan.runs] == wanted
    assert {(run.setting, run.data, run.subset, run.epochs) for run in plan.runs} == {
        ("classroom", "digits", 60, 2)
    }
    own = read(write(SMALL.replace("epochs = 2", 'table = "t/other.csv"')))
    assert own.table.parts[-2:] == ("t", "other.csv")
    assert {run.epochs for run in own.runs} == {60}  # the recipes'


def test_the_example_is_a_sweep():
    plan = read(ROOT / "docs" / "sweep.toml")
    assert len(set(plan.runs)) == 24


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = 2", "seed = 2", r"got `seed`; did you mean `seeds`\?"),
        ("seeds = 2", "", r"`seeds` is missing: a whole number"),
        ("seeds = 2", "seeds = 0", r"Expected `seeds` as a whole number from 1.*got 0"),
        ("seeds = 2", "seeds = [1, 1]", r"list of different ones.*got \[1, 1\]"),
        ("seeds = 2", "seeds = true", r"Expected `seeds`.*got True"),
        ("[0.2, 0.4]", "0.4", r"Expected `rates` as a list.*got 0.4"),
        ("[0.2, 0.4]", "[40]", r"numbers in \[0, 1\).*got \[40\]"),
        ("[0.2, 0.4]", '["0.4"]', r"Expected `rates`.*got \['0.4'\]"),
        ('["symmetric", "none"]', '["sideways"]', r"kinds out of symmetric.*'sideways'"),
        ('["symmetric", "none"]', "[]", r"Expected `noise`"),
        ('"elr"', '"magic"', r"recipe of 'classroom' out of .*'magic'"),
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
    with pytest.raises(ValueError, match=r"Cannot read the sweep .*none.toml: No such file"):
        read(tmp_path / "none.toml")


# --- rows ---


def test_a_row_is_the_run_that_its_key_says(write, expected):
    from nlcourse import datasets, noise
    from nlcourse.experiments import recipes

    data = noise.inject(datasets.load("digits").subset(60), "symmetric", 0.4, seed=1)
    recipe = recipes.find("classroom", "elr", noise="symmetric", rate=0.4)
    history = recipe.train(data, seed=1, epochs=2, progress=False)
    key = ("classroom", "elr", "digits", "60", "symmetric", "0.4", "1", "2")
    assert expected[key][:2] == [
        f"{history.best():.4f}",
        f"{history.last['test_accuracy']:.4f}",
    ]


def test_a_run_that_fails_leaves_the_others_alone(write, monkeypatch):
    train = sweep.recipes.Recipe.train

    def fail_once(self, data, *, seed, rate, **options):
        if (seed, rate, self.name) == (1, 0.2, "elr"):
            raise RuntimeError("no memory")
        return train(self, data, seed=seed, rate=rate, **options)

    monkeypatch.setattr(sweep.recipes.Recipe, "train", fail_once)
    plan = read(write())
    outcome = sweep.sweep(plan, progress=False)
    assert outcome.added == 11
    ((run, why),) = outcome.failed.items()
    assert (run.seed, run.rate, run.method, why) == (1, 0.2, "elr", "RuntimeError: no memory")
    monkeypatch.undo()
    again = sweep.sweep(plan, progress=False)
    assert (again.added, again.failed) == (1, {})


def test_a_run_that_diverges_has_a_row(write, monkeypatch):
    from nlcourse.training import DivergedError
    from nlcourse.training.history import History

    def diverge(self, data, **options):
        raise DivergedError("nan", History())

    monkeypatch.setattr(sweep.recipes.Recipe, "train", diverge)
    plan = read(write(SMALL.replace("seeds = 2", "seeds = [7]")))
    assert sweep.sweep(plan, progress=False).added == 6
    assert {(row["best"], row["ended"]) for row in rows_of(plan.table)} == {
        ("nan", "diverged in epoch 1")
    }


@pytest.mark.parametrize("lost", [1, 10, 200, 10_000])
def test_a_half_written_line_is_made_again(write, expected, lost):
    plan = read(write())
    sweep.sweep(plan, progress=False)
    written = plan.table.read_bytes()
    header = written.index(b"\n") + 1
    # What a kill or a full disk leaves: at least a piece of the header.
    plan.table.write_bytes(written[: max(len(written) - lost, header // 2)])
    added = sweep.sweep(plan, progress=False).added
    assert added >= 1 or lost == 1  # a line that lacks its end only is whole
    assert numbers(plan.table) == expected


def test_a_killed_sweep_goes_on(write, expected):
    path = write()
    table = path.with_suffix(".csv")
    command = [sys.executable, "-m", "nlcourse.course.cli", "sweep", str(path)]
    victim = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while victim.poll() is None and not (table.exists() and table.read_bytes().count(b"\n") > 3):
        time.sleep(0.001)
    os.kill(victim.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
    assert victim.wait(60) != 0, "it ended before it could be killed"
    there = table.read_bytes().count(b"\n") - 1
    assert 3 <= there < 12
    outcome = sweep.sweep(read(path), progress=False)
    assert outcome.added == 12 - there
    assert numbers(table) == expected


# --- the command ---


def test_the_command_says_how_far_it_is(write, expected, capsys):
    path = write()
    assert cli.main(["sweep", str(path), "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "0 of 12 runs are there" in told
    assert "to do: elr, symmetric 40 %, seed 1" in told
    assert not path.with_suffix(".csv").exists()
    assert cli.main(["sweep", str(path)]) == 0
    told = capsys.readouterr()
    assert "12 new rows" in told.out
    assert "12/12" in told.err  # the bar, with the time left before that
    assert numbers(path.with_suffix(".csv")) == expected
    assert cli.main(["sweep", str(path)]) == 0
    assert "12 of 12 runs are there" in capsys.readouterr().out


def test_a_second_sweep_beside_the_first_is_refused_in_words(write, capsys):
    path = write()
    with results.Table(path.with_suffix(".csv"), KEY).held():
        assert cli.main(["sweep", str(path)]) == cli.USAGE_ERROR
    assert "Another process adds rows to" in capsys.readouterr().err


def test_a_row_names_the_device_that_trained_it(write, set_threads):
    set_threads(2)  # digits are learned with one
    row = sweep.measure(read(write()).runs[0])
    assert results.provenance("cpu")["device"].endswith("CPU, 2 threads")
    assert row["device"].endswith("CPU, 1 thread")


def test_a_sweep_loads_its_data_once(write, monkeypatch):
    from nlcourse import datasets

    loaded = []
    load = datasets.load
    monkeypatch.setattr(
        datasets, "load", lambda name, **more: loaded.append(name) or load(name, **more)
    )
    recipes._load.cache_clear()
    sweep.sweep(read(write()), progress=False)
    assert loaded == ["digits"]


def test_the_command_refuses_a_wrong_file(write, capsys):
    assert cli.main(["sweep", str(write("rates = 1"))]) == cli.USAGE_ERROR
    assert "small.toml: `methods` is missing" in capsys.readouterr().err


# --- several processes ---


def test_a_process_a_device(write, expected):
    plan = read(write())
    outcome = sweep.sweep(plan, devices=["cpu", "cpu"], progress=False)
    assert (outcome.added, outcome.failed) == (12, {})
    assert numbers(plan.table) == expected


def test_each_process_takes_a_device_of_its_own(monkeypatch):
    import queue

    monkeypatch.setenv("NLCOURSE_DEVICE", "")
    free = queue.Queue()
    for name in ("cuda:0", "cuda:1"):
        free.put(name)
    taken = []
    for _ in range(2):
        sweep._take_device(free)
        taken.append(os.environ["NLCOURSE_DEVICE"])
    assert taken == ["cuda:0", "cuda:1"]


def test_all_gpus_are_used_when_there_are_several(monkeypatch):
    import torch

    monkeypatch.delenv("NLCOURSE_DEVICE", raising=False)
    for count, devices in ((0, []), (1, []), (3, ["cuda:0", "cuda:1", "cuda:2"])):
        monkeypatch.setattr(torch.cuda, "device_count", lambda count=count: count)
        assert sweep.find_devices() == devices
    monkeypatch.setenv("NLCOURSE_DEVICE", "cpu")
    assert sweep.find_devices() == []


def test_a_killed_process_is_said_and_the_rows_are_kept(write, expected):
    plan = read(write())

    def kill(row):
        import multiprocessing

        for child in multiprocessing.active_children():
            os.kill(child.pid, getattr(signal, "SIGKILL", signal.SIGTERM))

    with pytest.raises(SweepError, match="was killed.*the same command goes on"):
        sweep.sweep(plan, devices=["cpu"], progress=False, on_row=kill)
    assert 1 <= len(numbers(plan.table)) < 12
    sweep.sweep(plan, progress=False)
    assert numbers(plan.table) == expected


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
            os.kill(killed[0], getattr(signal, "SIGKILL", signal.SIGTERM))

        outcome = sweep.sweep(plan, scheduler=address, progress=False, on_row=kill)
    assert len(killed) == 1
    assert (outcome.added, outcome.failed) == (12, {})
    assert numbers(plan.table) == expected
    assert {row["versions"] for row in rows_of(plan.table)} == {results.provenance()["versions"]}


def test_an_answer_that_comes_twice_is_one_row(write, monkeypatch):
    plan = read(write(SMALL.replace("seeds = 2", "seeds = 1")))
    monkeypatch.setattr(
        sweep, "_here", lambda todo: ((run, sweep.measure(run)) for run in todo for _ in range(2))
    )
    assert sweep.sweep(plan, progress=False).added == 6
    assert len(numbers(plan.table)) == 6


def test_no_scheduler_is_said(write, monkeypatch):
    monkeypatch.setattr(sweep, "PATIENCE", 0.3)
    plan = read(write())
    with pytest.raises(SweepError, match=r"No Dask scheduler answers at tcp://127.0.0.1:1"):
        sweep.sweep(plan, scheduler="tcp://127.0.0.1:1", progress=False)
    with pytest.raises(SweepError, match="No Dask scheduler answers at nonsense"):
        sweep.sweep(plan, scheduler="nonsense://", progress=False)


def test_without_dask_the_extra_is_named(write, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask", None)
    with pytest.raises(SweepError, match=r"'.\[cluster\]'"):
        sweep.sweep(read(write()), scheduler="tcp://127.0.0.1:1", progress=False)


def test_a_run_names_itself():
    run = SweepRun("classroom", "elr", "symmetric", 0.4, 3, "digits", None, 60)
    assert str(run) == "elr, symmetric 40 %, seed 3"
    assert run.key == ("classroom", "elr", "digits", "all", "symmetric", 0.4, 3, 60)
