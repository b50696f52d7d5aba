"""The panel that draws a whole sweep: answers, goal, verdict, memory, stop, errors."""

from __future__ import annotations

import numpy as np
import pytest
from panel_html import WAIT, alt

from nlcourse import datasets, noise
from nlcourse.lessons.l01.panel import NoiseSweep, Sweep, SweepTry
from nlcourse.methods import CrossEntropy
from nlcourse.panels import Goal
from nlcourse.training import fit
from nlcourse.training.history import History
from nlcourse.training.networks import mlp

RATES = (0.0, 0.3, 0.6)


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits").subset(200)


def panel(digits, **options) -> NoiseSweep:
    options = {"rates": RATES, "width": 16, "seeds": 2, "epochs": 3} | options
    return NoiseSweep(digits, **options)


def test_start_draws_the_sweep(digits):
    explorer = panel(digits)
    assert "no try yet" in alt(explorer.picture.value)
    explorer.start()
    assert explorer.wait(WAIT)
    assert explorer.run.finished
    assert len(explorer.run.history) == 3
    assert 'aria-busy="false"' in explorer.picture.value
    assert "Try 1, epoch 3 of 3: test accuracy in the last epoch" in explorer.picture.value
    assert "symmetric noise, lr 0.05, two layers of 16, 2 seeds, 3 epochs" in alt(
        explorer.picture.value
    )


def test_every_point_is_a_run_of_its_own(digits):
    run = panel(digits).try_out(lr=0.1, noise_kind="pairflip")
    last, best = (run.history.test_accuracy(which) for which in ("last", "best"))
    assert last.shape == best.shape == (3, 2)
    assert (best >= last).all()
    for row, rate in enumerate(RATES):
        for seed in range(2):
            alone = fit(
                CrossEntropy(), noise.inject(digits, "pairflip", rate, seed=seed),
                network=lambda shape, classes: mlp(shape, classes, hidden=(16, 16)),
                epochs=3, lr=0.1, seed=seed, progress=False,
            )  # fmt: skip
            assert last[row, seed] == pytest.approx(100 * alone.last["test_accuracy"], abs=1)
            assert best[row, seed] == pytest.approx(100 * alone.best(), abs=1)
    assert len(np.unique(last)) > 3


@pytest.mark.parametrize("goal", [None, Goal("Get above 40 %.", lambda run: (True, "above"))])
def test_a_sweep_that_diverges_as_a_whole_says_so(digits, goal):
    explorer = panel(digits, goal=goal)
    run = explorer.try_out(lr=1e20)
    words = "all 6 runs diverged: take a smaller learning rate"
    assert run.summary() == run.verdict == words
    assert run.finished
    assert run.reached is (None if goal is None else False)
    assert words.removeprefix("all") in explorer.status.value
    assert words in alt(explorer.picture.value)
    assert words in run.figure.alt_text


def test_points_that_diverge_are_left_out_and_said(digits):
    lost = History()
    lost.stopped = "diverged in epoch 1"
    sweep = Sweep((0.0, 0.5), [lost, History([{"test_accuracy": 0.5}])])
    run = SweepTry(panel(digits).settings, history=sweep)
    assert (sweep.diverged, sweep.all_diverged) == (1, False)
    assert np.isnan(sweep.test_accuracy("last")[0]).all()
    assert run.summary().endswith("; 1 of 2 runs diverged")


def test_the_stop_button_while_labels_are_drawn_leaves_no_run_on(digits):
    def interrupted(data, rate, seed):
        raise KeyboardInterrupt

    explorer = panel(digits, noise_kinds=[{"interrupted": interrupted}])
    run = explorer.try_out()
    assert not run.running
    assert run.history.stopped == "interrupted"
    assert "no verdict" in explorer.status.value


def test_goal_verdict_and_ghosts(digits):
    def judge(run):
        top = run.history.test_accuracy("last").mean()
        return bool(top > 40), f"on the mean {top:.0f} %"

    explorer = panel(digits, goal=Goal("Get above 40 %.", judge))
    assert "Get above 40 %." in explorer.goal.value
    bad = explorer.try_out(lr=0.001)
    assert bad.reached is False
    assert "✗ Not yet: on the mean" in explorer.status.value
    good = explorer.try_out(lr=0.2, epochs=10)
    assert good.reached is True
    assert "✓ Goal reached" in explorer.status.value
    assert "In grey: 1 earlier try." in explorer.picture.value
    assert "In grey, try 1," in alt(explorer.picture.value)


def test_the_same_settings_come_from_memory(digits):
    explorer = panel(digits)
    first = explorer.try_out()
    explorer.try_out(seeds=1)
    assert explorer.try_out() is first
    assert "trained before" in explorer.status.value
    explorer.start()
    assert explorer.run is first
    assert not explorer.runner.running
    explorer.clear()
    assert explorer.tries == []
    assert "no try yet" in alt(explorer.picture.value)


def test_stop_keeps_what_was_trained(digits):
    explorer = panel(digits, epochs=5000)
    explorer.start()
    while explorer.run.running and not len(explorer.run.history):
        pass
    explorer.stop()
    assert explorer.wait(WAIT)
    assert 1 <= len(explorer.run.history) < 5000
    assert "no verdict" in explorer.run.verdict
    assert "stopped in epoch" in explorer.run.history.stopped


def test_what_goes_wrong_is_shown_and_raised(digits):
    def broken(data, rate, seed):
        raise RuntimeError("no labels today")

    explorer = panel(digits, noise_kinds=[{"broken": broken}])
    with pytest.raises(RuntimeError, match="no labels today"):
        explorer.try_out()
    assert "no labels today" in explorer.status.value


def test_bad_settings_are_refused(digits):
    explorer = panel(digits)
    with pytest.raises(ValueError, match="got 'colour'"):
        explorer.try_out(colour=1)
    with pytest.raises(ValueError, match="symmetric, pairflip, got 'sideways'"):
        explorer.try_out(noise_kind="sideways")
    with pytest.raises(ValueError, match="growing noise `rates`"):
        panel(digits, rates=(0.4, 0.2))
    with pytest.raises(ValueError, match="Nothing was tried yet"):
        explorer.figure()


def test_an_empty_sweep_has_no_epoch():
    assert len(Sweep()) == 0
    assert Sweep().stopped == ""
