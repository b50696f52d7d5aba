"""The one loop: beside a loop written out by hand, stopped, killed, diverged, resumed."""

import dataclasses
import functools
import math
import os
import signal
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn import functional as F

from nlcourse import datasets, noise
from nlcourse.datasets.augment import Augment
from nlcourse.methods import ELR, CoTeaching, CrossEntropy, DivideMix, MentorNet, Method
from nlcourse.training import (
    DivergedError,
    Options,
    checkpoint,
    device,
    find_device,
    fit,
    predict,
)
from nlcourse.training.batches import Images
from nlcourse.training.history import COLUMNS, History
from nlcourse.training.networks import mlp

small = functools.partial(mlp, hidden=(32,))


@pytest.fixture(scope="module")
def noisy():
    return noise.inject(datasets.load("digits").subset(300), "symmetric", 0.4, seed=1)


def numbers(history):
    """The rows without what may differ from run to run: the time they took."""
    return [{name: row[name] for name in row if name != "seconds"} for row in history.rows]


def same(one, other):
    """Equal to the last bit; nan equals nan."""
    return repr(numbers(one)) == repr(numbers(other))


RARE = {field.name for field in dataclasses.fields(Options)}


def quick(data, **options):
    options = {
        "network": small,
        "epochs": 4,
        "progress": False,
        "device": "cpu",
    } | options
    method = options.pop("method", None) or CrossEntropy()
    rare = {name: options.pop(name) for name in RARE & options.keys()}
    return fit(method, data, **{"options": Options(**rare)} | options)


# --- what it computes ---


def test_fit_is_the_loop_one_would_write_by_hand(noisy):
    method = CrossEntropy()
    history = quick(noisy, method=method, lr=0.1, weight_decay=1e-3, seed=3)

    torch.manual_seed(3)
    network = small(noisy.image_shape, 10)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    generator = torch.Generator().manual_seed(3)
    images = (noisy.images - noisy.mean[0]) / noisy.std[0]
    for _ in range(4):
        order = torch.randperm(300, generator=generator)
        total = 0.0
        for start in range(0, 300, 64):
            index = order[start : start + 64]
            loss = F.cross_entropy(network(images[index]), noisy.labels[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(index)
    for ours, theirs in zip(method.network.parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    assert history.last["train_loss"] == pytest.approx(total / 300, rel=1e-3)


def test_the_shares_are_counted_as_their_names_say(noisy):
    method = CrossEntropy()
    row = quick(noisy, method=method).last
    guesses = predict(method, Images(noisy.images, noisy.mean, noisy.std)).tolist()
    given, true = noisy.labels.tolist(), noisy.true_labels.tolist()
    wrong = [i for i in range(300) if given[i] != true[i]]
    right = [i for i in range(300) if given[i] == true[i]]
    assert row["given_accuracy"] == pytest.approx(sum(map(int.__eq__, guesses, given)) / 300)
    assert row["true_accuracy"] == pytest.approx(sum(map(int.__eq__, guesses, true)) / 300)
    assert row["clean_accuracy"] == pytest.approx(
        sum(guesses[i] == true[i] for i in right) / len(right)
    )
    as_true = sum(guesses[i] == true[i] for i in wrong) / len(wrong)
    as_given = sum(guesses[i] == given[i] for i in wrong) / len(wrong)
    assert row["wrong_as_true"] == pytest.approx(as_true)
    assert row["wrong_as_given"] == pytest.approx(as_given)
    assert row["wrong_as_other"] == pytest.approx(1 - as_true - as_given)
    assert math.isnan(row["label_precision"])


def test_without_wrong_labels_their_shares_are_nan():
    row = quick(datasets.load("digits").subset(100), epochs=1).last
    assert math.isnan(row["wrong_as_given"])
    assert row["true_accuracy"] == row["given_accuracy"]


def test_label_precision_counts_what_trained_the_networks(noisy):
    method = CoTeaching(0.4, ramp_epochs=2)
    row = quick(noisy, method=method).last
    chosen = method.selected
    right = (chosen & ~noisy.is_wrong).sum().item()
    assert row["label_precision"] == pytest.approx(right / chosen.sum().item())
    assert row["label_recall"] == pytest.approx(right / (2 * (~noisy.is_wrong).sum().item()))
    assert row["label_precision"] > 1 - noisy.noise_rate  # better than choosing blindly


def test_label_recovery_counts_the_true_ones_among_a_methods_own_labels(noisy):
    class Flipping(CrossEntropy):
        """Keeps the given labels, from example 200 on moved to the next class."""

        def build(self, make_network, num_examples, num_classes):
            super().build(make_network, num_examples, num_classes)
            moved = noisy.labels.clone()
            moved[200:] = (moved[200:] + 1) % num_classes
            self.register_buffer("current_labels", F.one_hot(moved, num_classes).float())

    method = Flipping()
    row = quick(noisy, method=method, epochs=1).last
    own = method.current_labels.argmax(1)
    expected = sum(map(int.__eq__, own.tolist(), noisy.true_labels.tolist())) / 300
    assert row["label_recovery"] == pytest.approx(expected)
    assert 0 < expected < 1 - noisy.noise_rate
    assert math.isnan(quick(noisy, epochs=1).last["label_recovery"])


def test_true_labels_never_reach_a_method(noisy):
    """Scrambled true labels change no weight: they are used for measuring only."""
    import dataclasses

    scrambled = dataclasses.replace(noisy, true_labels=noisy.true_labels.flip(0))
    for make in (CrossEntropy, functools.partial(CoTeaching, 0.4)):
        one, other = make(), make()
        quick(noisy, method=one), quick(scrambled, method=other)
        for a, b in zip(one.parameters(), other.parameters(), strict=True):
            assert torch.equal(a, b)


def test_schedule_optimizer_and_augmentation_are_plain_torch(noisy):
    history = quick(
        noisy,
        epochs=5,
        optimizer=functools.partial(torch.optim.Adam, lr=1e-2),
        schedule=functools.partial(
            torch.optim.lr_scheduler.MultiStepLR, milestones=[2, 4], gamma=0.1
        ),
        augment=Augment(crop=1),
    )
    assert history["lr"] == pytest.approx([1e-2, 1e-2, 1e-3, 1e-3, 1e-4])


# --- the same again ---


def test_one_seed_one_result(noisy):
    network = functools.partial(mlp, hidden=(32,), dropout=0.3)
    first = quick(noisy, network=network, seed=5)
    torch.rand(7)  # whatever else draws random numbers in between
    assert same(first, quick(noisy, network=network, seed=5))
    assert not same(first, quick(noisy, network=network, seed=6))


def test_fit_leaves_the_global_random_state_alone(noisy):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    quick(noisy, epochs=1)
    assert torch.equal(torch.rand(3), expected)


def test_a_run_within_a_run_changes_nothing_for_it(noisy):
    network = functools.partial(mlp, hidden=(32,), dropout=0.3)
    alone = quick(noisy, network=network)
    threads = []

    def train_another(_):
        quick(noisy, epochs=1, seed=7)
        threads.append(torch.get_num_threads())

    assert same(alone, quick(noisy, network=network, on_epoch=train_another))
    assert set(threads) == {1}


@pytest.fixture
def two_threads(set_threads):
    set_threads(2)


class RunInAThread:
    """A run that goes on until it is let go, in a thread that afterwards counts its own threads."""

    def __init__(self, data, seed):
        self.began, self.stop = threading.Event(), threading.Event()
        self.threads = []
        self.thread = threading.Thread(target=self._work, args=(data, seed))
        self.thread.start()
        assert self.began.wait(60)

    def _work(self, data, seed):
        options = {"epochs": 10**6, "seed": seed, "options": Options(stop=self.stop)}
        for wanted in (lambda _: self.began.set(), None):
            self.threads.append(torch.get_num_threads())
            quick(data, **options, on_epoch=wanted)  # the second time it ends at once
        self.threads.append(torch.get_num_threads())

    def end(self):
        self.stop.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0)])
def test_runs_at_once_leave_random_state_and_threads_alone(noisy, order):
    torch.manual_seed(11)
    expected = torch.rand(3)
    torch.manual_seed(11)
    runs = [RunInAThread(noisy, seed) for seed in range(3)]
    for number in order:
        runs[number].end()
    assert torch.equal(torch.rand(3), expected)
    assert [run.threads for run in runs] == [[2, 2, 2]] * 3
    assert torch.get_num_threads() == 2
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == 2


# --- stopping ---


def test_stop_from_another_thread_keeps_the_history(noisy):
    stop = threading.Event()
    reached = threading.Event()
    result = []
    thread = threading.Thread(
        target=lambda: result.append(
            quick(noisy, epochs=100_000, stop=stop, on_epoch=lambda _: reached.set())
        )
    )
    thread.start()
    assert reached.wait(60)
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    history = result[0]
    assert 1 <= len(history) < 100_000
    assert history.stopped == f"stopped in epoch {len(history) + 1} of 100000"


def test_the_stop_button_of_jupyter_keeps_the_history(noisy):
    def interrupt(history):
        if len(history) == 2:
            raise KeyboardInterrupt

    history = quick(noisy, epochs=50, on_epoch=interrupt)
    assert len(history) == 2
    assert history.stopped == "interrupted in epoch 3 of 50"


def test_a_stopped_run_goes_on_from_its_checkpoint(noisy, tmp_path):
    options = {"network": functools.partial(mlp, hidden=(32,), dropout=0.2), "epochs": 6}
    options["schedule"] = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=2)
    whole = quick(noisy, **options)
    stop = threading.Event()
    path = tmp_path / "run.pt"
    first = quick(
        noisy,
        **options,
        checkpoint=path,
        stop=stop,
        on_epoch=lambda history: stop.set() if len(history) == 3 else None,
    )
    assert len(first) == 3
    second = quick(noisy, **options, checkpoint=path)
    assert same(second, whole)
    assert second.stopped == ""
    # Finished: asked again it answers from the file.
    assert same(quick(noisy, **options, checkpoint=path), whole)


KILLED = """
import functools, sys, time
from nlcourse import datasets, noise
from nlcourse.methods import CoTeaching
from nlcourse.training import Options, fit
from nlcourse.training.networks import mlp
data = noise.inject(datasets.load("digits").subset(300), "symmetric", 0.4, seed=1)
slow = len(sys.argv) > 3

def report(history):
    print(len(history), flush=True)
    if slow:
        time.sleep(0.2)

history = fit(
    CoTeaching(0.4, ramp_epochs=3), data, epochs=8, device="cpu", progress=False, on_epoch=report,
    network=functools.partial(mlp, hidden=(32,), dropout=0.2),
    options=Options(checkpoint=sys.argv[1]),
)
history.to_csv(sys.argv[2])
"""


def test_a_killed_run_ends_bit_for_bit_like_one_that_was_left_alone(tmp_path):
    def start(name, *more):
        arguments = [
            sys.executable,
            "-c",
            KILLED,
            str(tmp_path / name),
            str(tmp_path / f"{name}.csv"),
        ]
        return subprocess.Popen([*arguments, *more], stdout=subprocess.PIPE, text=True)

    victim = start("killed.pt", "slow")
    for line in victim.stdout:
        if int(line) == 3:
            time.sleep(0.1)
            os.kill(victim.pid, signal.SIGKILL if hasattr(signal, "SIGKILL") else signal.SIGTERM)
            break
    victim.wait(60)
    assert not (tmp_path / "killed.pt.csv").exists()
    again, alone = start("killed.pt"), start("whole.pt")
    epochs_after_kill = [int(line) for line in again.stdout]
    assert alone.wait(120) == again.wait(120) == 0
    assert epochs_after_kill[0] > 1, "the run began again instead of going on"
    assert same(
        History.from_csv(tmp_path / "killed.pt.csv"), History.from_csv(tmp_path / "whole.pt.csv")
    )


def test_the_checkpoint_of_another_run_is_refused(noisy, tmp_path):
    path = tmp_path / "run.pt"
    quick(noisy, epochs=1, checkpoint=path)
    with pytest.raises(ValueError, match="its optimizer is .*lr=0.05.*lr=0.1"):
        quick(noisy, epochs=1, checkpoint=path, lr=0.1)
    with pytest.raises(ValueError, match="its examples"):
        quick(noisy.with_labels(noisy.true_labels), epochs=1, checkpoint=path)
    with pytest.raises(ValueError, match="its method is 'CrossEntropy|its method is CrossEntropy"):
        quick(noisy, epochs=1, checkpoint=path, method=CoTeaching(0.4))
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        quick(noisy, epochs=1, checkpoint=path)


def backwards(losses, forget_rate):
    """Another choice than Co-teaching's own: the first examples of the batch."""
    return torch.arange(int((1 - forget_rate) * len(losses)))


class Firsts:
    """A piece that is an object."""

    def __init__(self, left_out):
        self.left_out = left_out

    def __call__(self, losses, forget_rate):
        return torch.arange(len(losses) - self.left_out)


def test_pieces_have_names_that_are_the_same_in_every_process():
    for piece, name in (
        (backwards, f"{__name__}.backwards"),
        (functools.partial(backwards, forget_rate=0.5), "partial.backwards(forget_rate=0.5)"),
        (Firsts(1), f"{__name__}.Firsts"),
    ):
        assert f"select={name}" in checkpoint.pieces(CoTeaching(0.4, select=piece))


def test_a_run_is_described_by_all_plain_settings_of_its_method():
    assert "beta=0.9" in checkpoint.describe(ELR(0.9))
    one, other = DivideMix(lambda_u=25.0), DivideMix(lambda_u=150.0)
    assert "lambda_u=25.0" in checkpoint.describe(one)
    assert checkpoint.describe(one) != checkpoint.describe(other)
    assert "percentile=0.6, burn_in=3" in checkpoint.describe(MentorNet(0.6, burn_in=3))


def test_a_checkpoint_knows_the_pieces_of_its_method(noisy, tmp_path):
    path = tmp_path / "run.pt"
    quick(noisy, epochs=1, checkpoint=path, method=CoTeaching(0.4))
    with pytest.raises(ValueError, match="its pieces is .*small_loss_indices.*backwards"):
        quick(noisy, epochs=2, checkpoint=path, method=CoTeaching(0.4, select=backwards))
    assert len(quick(noisy, epochs=2, checkpoint=path, method=CoTeaching(0.4))) == 2
    other = tmp_path / "other.pt"
    quick(noisy, epochs=1, checkpoint=other, method=CoTeaching(0.4, select=Firsts(1)))
    with pytest.raises(ValueError, match="its pieces is .*Firsts"):
        quick(noisy, epochs=2, checkpoint=other, method=CoTeaching(0.4))
    again = quick(noisy, epochs=1, method=CoTeaching(0.4, select=backwards))
    assert "backwards" not in repr(again.settings)  # what tables and boards show stays


def test_the_random_state_is_that_of_the_device_that_trains(monkeypatch):
    """And not that of the first GPU."""
    asked, kept = [], {torch.device("cuda:0"): "zero", torch.device("cuda:1"): "one"}
    gpus = types.SimpleNamespace(
        get_rng_state=lambda device="cuda:0": kept[torch.device(device)],
        set_rng_state=lambda state, device="cuda:0": asked.append((state, torch.device(device))),
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: gpus)
    state = device.random_state(torch.device("cuda:1"))
    assert state["cuda"] == "one"
    device.set_random_state(torch.device("cuda:1"), state)
    assert asked == [("one", torch.device("cuda:1"))]


# --- going wrong ---


def test_divergence_names_epoch_rate_and_what_to_try(noisy):
    class Exploding(Method):
        def loss(self, batch):
            loss = F.cross_entropy(self.network(batch.images), batch.labels)
            return loss * (math.inf if self.epoch == 2 else 1.0)

    with pytest.raises(
        DivergedError, match=r"epoch 3, at learning rate 0.05.*for example 0.005"
    ) as caught:
        quick(noisy, method=Exploding())
    assert len(caught.value.history) == 2


def test_bad_settings_are_refused(noisy):
    with pytest.raises(ValueError, match="`epochs` of at least 1"):
        quick(noisy, epochs=0)
    for method in (CrossEntropy, "elr"):
        with pytest.raises(ValueError, match=r"a method, such as `CrossEntropy\(\)`, got"):
            fit(method, noisy)
    for data in ("digits", (noisy.images, noisy.labels)):
        with pytest.raises(ValueError, match="a `Dataset`, as `datasets.load` gives, got"):
            fit(CrossEntropy(), data)
    with pytest.raises(ValueError, match="learning rate"):
        quick(noisy, lr=-0.1)
    with pytest.raises(ValueError, match="Expected `network` out of .*'resnet-1000'"):
        quick(noisy, network="resnet-1000")


def test_the_device_can_be_chosen(monkeypatch):
    monkeypatch.setenv("NLCOURSE_DEVICE", "cpu")
    assert find_device() == torch.device("cpu")


# --- a student's own method ---


def test_ten_lines_make_a_method(noisy):
    class Smoothed(Method):
        def build(self, make_network, num_examples, num_classes):
            super().build(make_network, num_examples, num_classes)
            self.register_buffer("visits", torch.zeros(num_examples))

        def train_epoch(self, batches, step):
            for batch in batches:
                self.visits[batch.index] += 1
                step(self.loss, batch)

        def loss(self, batch):
            return F.cross_entropy(self.network(batch.images), batch.labels, label_smoothing=0.1)

    method = Smoothed()
    history = quick(noisy, method=method)
    assert method.visits.tolist() == [4] * 300
    assert history.last["train_loss"] < history["train_loss"][0]


# --- the history ---


def test_a_history_survives_csv_bit_for_bit(noisy, tmp_path):
    history = quick(noisy)
    history.to_csv(tmp_path / "history.csv")
    back = History.from_csv(tmp_path / "history.csv")
    assert repr(back.rows) == repr([{k: float(v) for k, v in row.items()} for row in history.rows])


def test_a_history_answers_and_refuses(noisy, tmp_path):
    history = quick(noisy, epochs=12)
    assert history["epoch"] == list(range(1, 13))
    assert history.best() == max(history["test_accuracy"])
    assert history.mean_last("test_accuracy", 10) == pytest.approx(
        sum(history["test_accuracy"][2:]) / 10
    )
    assert "test accuracy best" in repr(history)
    assert len(history.table().splitlines()) >= 10
    with pytest.raises(KeyError, match="no column"):
        history["accuracy"]
    with pytest.raises(ValueError, match="no epoch has finished"):
        History().best()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no column"):
        History.from_csv(tmp_path / "other.csv")
    assert tuple(history.last) == COLUMNS


# --- on a GPU ---


@pytest.mark.gpu
def test_a_gpu_trains_as_well_as_the_processor(noisy):
    on_gpu = quick(noisy, device="cuda", epochs=20)
    on_cpu = quick(noisy, device="cpu", epochs=20)
    assert abs(on_gpu.best() - on_cpu.best()) < 0.08
    assert on_gpu.settings["device"] == "cuda"
