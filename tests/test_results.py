"""Measured tables: appended, continued, read back."""

import contextlib
import csv
import importlib.util
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from nlcourse import datasets
from nlcourse.experiments import results
from nlcourse.methods import CrossEntropy
from nlcourse.training import DivergedError, fit
from nlcourse.training.device import name_of
from nlcourse.training.history import COLUMNS, History


@pytest.fixture
def table(tmp_path):
    return results.Table(tmp_path / "some.csv", key=("method", "rate", "seed"))


def a_row(seed, last=0.5):
    return {"method": "m", "rate": 0.4, "seed": seed, "last": last}


def test_rows_are_kept_with_what_made_them(table):
    table.add(a_row(0))
    (row,) = results.load("some", table.path.parent)
    assert row["last"] == "0.5"
    assert row["command"]
    assert row["device"]
    assert row["commit"]
    assert "torch" in row["versions"]


def test_a_run_that_is_there_is_known_again_later(table):
    table.add(a_row(0))
    again = results.Table(table.path, table.key)
    for each in (table, again):
        assert a_row(0) in each
        assert a_row(1) not in each
    again.add(a_row(1))
    with open(table.path, newline="") as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["0", "1"]


def test_a_row_goes_under_the_right_names_or_not_in_at_all(table):
    table.add(a_row(0))
    again = results.Table(table.path, table.key)
    again.add(dict(reversed(a_row(1).items())))
    assert results.numbers(results.load("some", table.path.parent), "seed") == [0.0, 1.0]
    with pytest.raises(ValueError, match="differ in their columns: more"):
        again.add(a_row(2) | {"more": 1})


def test_looking_at_a_table_changes_nothing(table):
    for seed in range(3):
        table.add(a_row(seed))
    whole = table.path.read_bytes()
    header = whole.index(b"\n") + 1
    for there in (whole[:-1], whole[:-20], whole[:header], whole[: header // 2], b""):
        table.path.write_bytes(there)
        results.Table(table.path, table.key)
        assert table.path.read_bytes() == there


@pytest.mark.parametrize("held", [True, False])
def test_the_next_row_is_not_glued_to_half_a_one(table, held):
    for seed in range(3):
        table.add(a_row(seed))
    whole = table.path.read_bytes()
    header = whole.index(b"\n") + 1
    for left, there in ((whole[:-1], 3), (whole[:-20], 2), (whole[:header], 0), (whole[:9], 0)):
        table.path.write_bytes(left)
        again = results.Table(table.path, table.key)
        assert (a_row(2) in again) == (there == 3)
        with again.held() if held else contextlib.nullcontext():
            again.add(a_row(7))
        seeds = [row["seed"] for row in results.load("some", table.path.parent)]
        assert seeds == [*map(str, range(there)), "7"]
        assert table.path.read_bytes().startswith(whole[:header])


def test_numbers_picks_rows_by_text_and_by_number(table):
    for seed in range(3):
        table.add(a_row(seed, last=seed / 10))
    rows = results.load("some", table.path.parent)
    assert results.numbers(rows, "last", method="m", rate=0.4) == [0.0, 0.1, 0.2]
    assert results.numbers(rows, "last", seed=2) == [0.2]
    assert results.numbers(rows, "last", method="other") == []


def of_a_method(method, late, *, last=0.1, ended="", noise="symmetric", rate="0.4"):
    row = {"method": method, "noise": noise, "rate": rate, "last": str(last), "ended": ended}
    return row | {"mean_of_last_ten": str(late), "best": "0.9"}


def test_ranking_is_the_mean_over_seeds_best_first():
    rows = [of_a_method("a", 0.2), of_a_method("b", 0.5), of_a_method("a", 0.4)]
    rows += [of_a_method("b", 0.9, rate="0.6"), of_a_method("c", "nan")]
    ranked = results.ranking(rows, "symmetric", 0.4)
    assert list(ranked) == ["b", "a"]
    assert ranked == pytest.approx({"a": 30.0, "b": 50.0})
    by_best = results.ranking(rows, "symmetric", "0.4", "best")
    assert by_best == pytest.approx({"a": 90.0, "b": 90.0, "c": 90.0})
    assert results.ranking(rows, "pairflip", 0.4) == {}


def test_a_run_that_diverged_ranks_with_what_it_came_to():
    """Co-teaching+ on Fashion-MNIST: 61.8 % before it diverged, 10 % when it did."""
    rows = [of_a_method("plain", 0.476), of_a_method("plus", 0.618, ended="diverged in epoch 13")]
    ranked = results.ranking(rows, "symmetric", 0.4)
    assert list(ranked) == ["plain", "plus"]
    assert ranked["plus"] == pytest.approx(10.0)
    recorded = results.ranking(results.load("fashion_mnist_methods"), "symmetric", 0.6)
    assert recorded["co-teaching-plus"] == pytest.approx(10.0)
    assert recorded["dmi"] < recorded["cross-entropy"]


def test_a_missing_table_names_those_that_are_there(table):
    table.add(a_row(0))
    with pytest.raises(FileNotFoundError, match="there are some"):
        results.load("other", table.path.parent)


def test_the_summary_is_that_of_the_history():
    rows = [dict.fromkeys(COLUMNS, 0.0) | {"test_accuracy": share} for share in (0.2, 0.9, 0.4)]
    row = results.summary(History(rows))
    assert (row["epochs"], row["best"], row["last"], row["mean_of_last_ten"]) == (
        "3", "0.9000", "0.4000", "0.5000",
    )  # fmt: skip


def test_a_history_without_an_epoch_has_a_summary_too():
    row = results.summary(History())
    assert row == {
        "epochs": "0", "best": "nan", "last": "nan", "mean_of_last_ten": "nan",
        "memorized": "nan", "seconds": "0.0",
    }  # fmt: skip


def test_half_a_run_is_no_row():
    history = History([dict.fromkeys(COLUMNS, 0.5)])
    history.stopped = "interrupted in epoch 2 of 9"
    with pytest.raises(KeyboardInterrupt):
        results.summary(history)


def test_a_row_names_the_device_that_trained(table, monkeypatch):
    """Not the one that the process could have had."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device}")
    data = datasets.load("digits").subset(60)
    history = fit(CrossEntropy(), data, epochs=1, progress=False, device="cpu")
    table.add({"method": "m", "rate": 0.0, "seed": 0} | results.summary(history))
    (row,) = results.load("some", table.path.parent)
    assert row["device"] == f"{platform.machine()} CPU, 1 thread"
    assert results.provenance()["device"] == "GPU cuda"
    monkeypatch.setenv("NLCOURSE_DEVICE", "cpu")
    assert "CPU" in results.provenance()["device"]


@pytest.mark.parametrize(
    ("device", "name"), [("cuda:1", "GPU cuda:1"), ("mps", f"{platform.machine()} MPS")]
)
def test_a_device_has_a_name(device, name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"GPU {device}")
    assert name_of(device) == name_of(torch.device(device)) == name


def test_a_run_that_diverges_is_a_result_as_far_as_it_came():
    short = History([dict.fromkeys(COLUMNS, 0.5)])

    def diverge():
        raise DivergedError("no number", short)

    assert results.trained(diverge) == (short, "diverged in epoch 2")
    assert results.trained(lambda: short) == (short, "")
    with pytest.raises(ValueError, match="another error"):
        results.trained(lambda: int("another error"))


def page():
    """The script that writes results/tables.md, as a module."""
    path = Path(__file__).parents[1] / "results" / "tables.py"
    specification = importlib.util.spec_from_file_location("tables", path)
    tables = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(tables)
    return tables


def test_the_page_of_all_methods_is_what_its_script_writes():
    written = (results.FOLDER / "tables.md").read_text(encoding="utf-8")
    assert written == page().text()


def test_readme_tells_the_measured_speed():
    latest = {row["benchmark"]: row for row in results.load("benchmarks")}
    readme = (results.FOLDER.parent / "README.md").read_text().partition("| ours / the other |")[2]
    rows = [line.strip("| ").split(" | ") for line in readme.split("\n\n")[0].splitlines()[2:]]
    assert len(rows) > 10
    for name, told, goal in rows:
        ratio, aim = float(latest[name]["ratio"]), float(latest[name]["goal"])
        assert told == f"{ratio:.2f}"
        assert goal.partition(",")[0] == f"{aim:.2f}"
        assert ("missed" in goal) == (ratio > aim)
    missed = {name for name, row in latest.items() if float(row["ratio"]) > float(row["goal"])}
    assert {name for name in missed if "ours" in name} <= {name for name, _, _ in rows}


def test_a_table_is_held_by_one_process_at_a_time(table):
    other = results.Table(table.path, table.key)
    with table.held():
        table.add(a_row(0))
        with pytest.raises(RuntimeError, match="adds rows to .*: wait"), other.held():
            pass
    with other.held():
        assert a_row(0) in other  # what the first has added is known to the second
    with pytest.raises(KeyError), table.held():
        raise KeyError
    with other.held():  # an error lets go as well
        pass


def test_a_killed_process_lets_go(table):
    code = f"""
import os, signal
from nlcourse.experiments import results
with results.Table({str(table.path)!r}, {table.key!r}).held():
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    with table.held():
        pass


def test_the_page_tells_what_of_the_queue_was_run(monkeypatch, tmp_path):
    tables = page()
    monkeypatch.setattr(tables, "FOLDER", tmp_path)
    assert all(line.endswith("| not run |") for line in tables.queue_section()[7:])
    header = "setting,method,noise,rate,seed,epochs,best,last\n"
    row = "cifar10,elr,symmetric-including-true,0.4,0,120,0.8912,0.8834\n"
    (tmp_path / "reproduced.csv").write_text(header + row)
    lines = tables.queue_section()
    (ours,) = [line for line in lines[7:] if not line.endswith("| not run |")]
    assert ours.startswith("| cifar10 | elr | symmetric-including-true 40% | ")
    assert "89.15 (ELR, chosen)" in ours
    assert ours.endswith("| 89.1 / 88.3 |")
    assert f"of its {len(lines) - 7} runs {len(lines) - 8} were" in lines[3]
