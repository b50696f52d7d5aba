"""The panel of lesson 08, driven through `.value`: answers, goal, verdict, trace, errors."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
import torch
from panel_html import alt, cells

from nlcourse import datasets, noise
from nlcourse.lessons.l08 import suspects
from nlcourse.lessons.l08.panel import Ranking, SuspectExplorer, outcome, sweep
from nlcourse.panels import Goal


def judge(run):
    out = run.history
    good = out.precision >= 0.9 and out.recall >= 0.9
    return good, f"precision {out.precision:.0%}, recall {out.recall:.0%}"


@pytest.fixture(scope="module")
def noisy():
    return noise.inject(datasets.load("digits").subset(200), "symmetric", 0.3, seed=1)


@pytest.fixture
def panel(noisy):
    return make(noisy)


def make(noisy, **options):
    generator = torch.Generator().manual_seed(0)
    blur = torch.rand(200, generator=generator)
    rankings = {
        "good": Ranking(noisy.is_wrong + 0.9 * blur, noisy.is_wrong.clone()),
        "blind": blur,
    }
    return SuspectExplorer(noisy, rankings, **({"goal": Goal("Find them.", judge)} | options))


def move(panel, **values):
    for name, value in values.items():
        panel.controls[name].value = value
    assert panel.wait(30)


def test_the_picture_follows_the_slider_at_once(panel):
    assert panel.controls["share"].continuous_update
    move(panel, share=0.3)
    assert alt(panel.picture.value).startswith("good, the first 30% go")
    assert "60 thrown out" in panel.picture.value
    before = panel.picture.value
    move(panel, ranking="blind")
    assert panel.picture.value != before
    assert panel.tries == []  # looking is no try
    assert 'aria-live="polite"' in panel.picture.value


def test_the_answer_is_instant(panel):
    move(panel, share=0.3)
    spent = []
    for share in (0.31, 0.32, 0.33):
        began = time.process_time()  # of this process alone: other programs do not count
        move(panel, share=share)
        spent.append(time.process_time() - began)
    assert min(spent) < 0.5


@pytest.mark.parametrize("share", [0.0, 0.15, 0.5, 1.0])
def test_an_outcome_is_that_of_the_ranking(noisy, panel, share):
    for name, ranking in panel.rankings.items():
        out = outcome(ranking, noisy.is_wrong, share)
        flags = suspects.most_suspicious(ranking.scores, share)
        assert torch.equal(out.flags, flags)
        measured = suspects.precision_and_recall(flags, noisy.is_wrong)
        assert (out.precision, out.recall) == pytest.approx(measured, nan_ok=True)
        assert sorted(out.order.tolist()) == flags.nonzero().flatten().tolist()
        assert (ranking.scores[out.order].diff() <= 0).all()
        curve = panel.curves[name]
        count = round(200 * share)
        if count:
            assert curve["precision"][count - 1] == pytest.approx(100 * out.precision)
            assert curve["recall"][count - 1] == pytest.approx(100 * out.recall)
            assert curve["share"][count - 1] == pytest.approx(100 * share)
        else:
            assert math.isnan(out.precision)


def test_goal_verdict_and_trace(noisy, panel):
    assert "Find them." in panel.goal.value
    assert "Throw these out" in panel.status.value
    bad = panel.try_out(ranking="blind", share=0.5)
    assert bad.reached is False
    assert "✗ Not yet: precision" in panel.status.value
    good = panel.try_out(ranking="good", share=noisy.is_wrong.float().mean().item())
    assert good.reached is True
    assert "✓ Goal reached: precision 100%, recall 100%" in panel.status.value
    assert {"1", "► 2", "blind", f"✗ {bad.verdict}", f"✓ {good.verdict}"} <= set(
        cells(panel.table.value)
    )
    move(panel, share=0.9)  # the verdict was for another setting
    assert "Goal reached" not in panel.status.value


def test_the_button_makes_a_try(panel):
    move(panel, share=0.25)
    panel.keep_button.click()
    assert [(run.settings.ranking, run.settings.share) for run in panel.tries] == [("good", 0.25)]
    panel.keep_button.click()  # the same again is no second try
    assert len(panel.tries) == 1
    panel.clear_button.click()
    assert panel.tries == []
    assert panel.table.value == ""


def test_the_pictures_and_their_words(noisy, panel):
    panel.try_out(ranking="blind", share=0.5)
    out, words = panel.run.history, alt(panel.picture.value)
    for example in out.order[:8].tolist():
        given, true = noisy.labels[example], noisy.true_labels[example]
        caption = f"{given} is {true}" if noisy.is_wrong[example] else f"✗ {given}"
        assert caption in words
    assert words.count("✗") > 0
    figure = panel.figure()
    assert len(figure.axes[1].images) == 24
    lost = sum(not noisy.is_wrong[i] for i in [*out.order[:8], *out.order[-16:]])
    assert len(figure.axes[1].patches) == lost
    shown = figure.axes[1].images[0].get_array()
    np.testing.assert_allclose(shown, noisy.images[out.order[0], 0].numpy())


def test_nobody_goes(panel):
    run = panel.try_out(share=0.0)
    assert "nobody" in alt(panel.picture.value)
    assert "–" in cells(panel.table.value)
    assert run.reached is False


def test_its_own_threshold_is_drawn(panel):
    move(panel, ranking="good")
    assert "own threshold throws out" in alt(panel.picture.value)
    move(panel, ranking="blind")
    assert "own threshold" not in alt(panel.picture.value)


def test_without_a_goal_a_try_has_no_verdict(noisy):
    panel = make(noisy, goal=None, ranking="blind")
    assert panel.settings.ranking == "blind"
    run = panel.try_out(share=0.1)
    assert run.reached is None
    assert "20 thrown out" in panel.status.value


def test_what_cannot_be_shown_is_said(noisy, panel):
    with pytest.raises(ValueError, match="out of good, blind"):
        panel.try_out(ranking="other")
    with pytest.raises(ValueError, match="out of good, blind"):
        make(noisy, ranking="other")
    with pytest.raises(ValueError, match="share"):
        panel.try_out(share=1.2)
    with pytest.raises(ValueError, match="at least one ranking"):
        SuspectExplorer(noisy, {})
    with pytest.raises(ValueError, match="some wrong labels"):
        sweep(Ranking(torch.zeros(200)), torch.zeros(200, dtype=torch.bool))
    with pytest.raises(ValueError, match="Expected scores"):
        SuspectExplorer(noisy, {"short": torch.zeros(7)})


def test_colour_images_are_shown(noisy):
    import dataclasses

    colour = (255 * noisy.images.expand(-1, 3, -1, -1)).to(torch.uint8)
    data = dataclasses.replace(
        noisy, images=colour, test_images=colour[:5], test_labels=noisy.true_labels[:5],
        mean=(0.5,) * 3, std=(0.5,) * 3,
    )  # fmt: skip
    panel = SuspectExplorer(data, {"one": torch.rand(200)})
    assert panel.figure().axes[1].images[0].get_array().shape == (8, 8, 3)
