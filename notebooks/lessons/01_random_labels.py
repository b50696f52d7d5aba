# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 01 Random labels
#
# In lesson 00 some labels were wrong, and the network learned them by heart.
# Now we take the question to its end. What if **nothing** in the labels is
# right? What if the images are not even pictures?
#
# **After this lesson you will be able to**
#
# * destroy a data set in five ways, and say what each way leaves to learn;
# * measure whether a network *fits*, how long it needs, and what that costs;
# * judge the sentence "it generalises because it is regularised".
#
# **Time:** about 75 minutes, three exercises, one live experiment. You need
# lesson 00. Everything runs on a laptop without a GPU.

# %% [markdown]
# ## Predict first
#
# We take 1,000 handwritten digits and give **every** image a label by rolling
# a ten-sided die. The picture of a 7 may be called 2, the next 7 is called 9.
# There is no rule. Then we train the same small network as in lesson 00.
#
# How many of these 1,000 dice rolls will it reproduce after training?
#
# * (a) about 10 %: there is nothing to learn, so it can only guess;
# * (b) about half, and then it is stuck: too few weights, no pattern;
# * (c) nearly all, but it takes a thousand times longer than with true labels;
# * (d) all of them, in a few times the usual time.
#
# Write down a letter, and one sentence that says why.

# %% [markdown]
# ## The data, and one number to change
#
# One thousand digits for training, 500 for testing. A round number makes it
# easy to count. `SEED` fixes every die in this notebook: change it, run all
# cells again, and see what is luck and what is not.

# %%
import torch

from nlcourse import datasets, noise
from nlcourse.panels import plots

SEED = 0
data = datasets.load("digits").subset(1000)
true_labels = data.true_labels
print(data)


def dice(number=0):
    """Return a fresh source of random numbers; another for each number."""
    return torch.Generator().manual_seed(1000 * SEED + number)


# %% [markdown]
# ## Roll the die
#
# The experiment is that of Zhang, Bengio, Hardt, Recht and Vinyals (2017).
# They corrupt labels like this. For each example by itself:
#
# 1. toss a coin that says *redraw* with probability `share`;
# 2. if it does, draw a new label from **all** classes.
#
# "All" includes the old class. So a redrawn label is not always a wrong
# label. With `share = 1` we have purely random labels.
#
# **Exercise 1.1** · difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# Write these two steps. No loop over the examples is needed: torch tosses
# all coins in one call. Take every random number from `generator`.


# %%
def randomize_labels(labels, share, num_classes, generator):
    """Redraw each label with probability `share` from all classes.

    labels:      int64 (n,); they are not changed
    share:       probability that a label is redrawn, 0 to 1
    num_classes: a new label is one of 0, ..., num_classes - 1
    generator:   give it to every torch function that draws
    returns the new labels, int64 (n,)
    """
    ### BEGIN SOLUTION
    redraw = torch.rand(len(labels), generator=generator) < share
    drawn = torch.randint(num_classes, (len(labels),), generator=generator)
    return torch.where(redraw, drawn, labels)
    ### END SOLUTION


# %%
from nlcourse.checks import check, hint

randomize_labels = check(randomize_labels)

# %%
# hint("1.1")

# %% [markdown]
# ## One in ten is right by luck
#
# Before you run the next cell: we redraw first some and then **all** labels.
# How many will still be right in the last row?

# %%
print("share redrawn   right by count   wrong by count")
for share in (0.2, 0.5, 0.8, 1.0):
    random_labels = randomize_labels(true_labels, share, 10, dice())
    right = (random_labels == true_labels).float().mean().item()
    print(f"{share:13.1f}{right:17.1%}{1 - right:17.1%}")

assert abs(right - 0.1) < 0.06, "one in ten should be right by chance"

# %% [markdown]
# Of ten classes the die hits the old one about once in ten rolls. In general
# a share $p$ of redrawn labels leaves
#
# $$p \cdot \frac{C-1}{C}$$
#
# of them **wrong**, with $C$ classes. Remember this when you read papers. In
# some of them "50 % noise" means half the labels are *redrawn*, in others half
# of them are *wrong*. The first is less noise than the second.

# %% [markdown]
# ## Train until it fits
#
# We want to know *whether* and *when* the network fits its training set. So
# we do not fix the number of epochs. We stop as soon as every given label is
# predicted, and give up after 200 epochs.
#
# `fit` calls `on_epoch` after each epoch. When we set the event `stop`, the
# run ends. Network, learning rate and batch size are the same for all sets.
# The paper insists on this, and so do we: nobody tunes anything for random
# labels.

# %%
import threading

from nlcourse.methods import CrossEntropy
from nlcourse.training import Options, fit


def fit_fully(training_set, epochs=200, augment=None, **settings):
    """Train until all given labels are predicted; return method, history."""
    stop = threading.Event()

    def look(history):
        if history.last["given_accuracy"] == 1.0:
            stop.set()

    options = Options(stop=stop, augment=augment)
    settings = {"lr": 0.05, "seed": SEED, "options": options, **settings}
    settings |= {"epochs": epochs, "on_epoch": look}
    method = CrossEntropy()
    return method, fit(method, training_set, progress=False, **settings)


# %% [markdown]
# Three training sets to begin with: the true labels, half of them redrawn,
# and all of them redrawn. Each set is made **once** and then stays as it is.
# An image that is called 2 is called 2 in every epoch. Otherwise there would
# be nothing to memorize.
#
# Everything in this lesson is computed here and now, on your machine. Each
# line appears when its run has ended.


# %%
def with_random(share):
    """Return `data` with a share of its labels redrawn."""
    labels = randomize_labels(true_labels, share, 10, dice())
    return data.with_labels(labels)


sets = {
    "true labels": data,
    "half redrawn": with_random(0.5),
    "random labels": with_random(1.0),
}

# %%
trained, runs = {}, {}


def train_on(name):
    """Train on a set, keep network and history, print a line."""
    trained[name], runs[name] = fit_fully(sets[name])
    row = runs[name].last
    print(
        f"{name:16}{len(runs[name]):8}{row['given_accuracy']:11.1%}"
        f"{row['test_accuracy']:8.1%}"
    )
    assert row["given_accuracy"] > 0.99, "everything should be fitted"


print("                  epochs   training    test")
for name in sets:
    train_on(name)

# %% [markdown]
# Read the column *training*. A thousand rolls of a die, and the network
# reproduces them. The answer to our question is **(d)**.
#
# Now read the column *test*. With true labels the network is excellent. With
# dice it guesses: one in ten. It cannot do better, there was no rule to
# find. In between something interesting must happen. Let us look there.
#
# ## Is that memorizing?
#
# In *half redrawn* some labels are right and some are wrong. One accuracy
# for all of them hides what happens. We need one number for each group:
#
# * `clean`: of the **rightly** labelled, how many are predicted as labelled?
# * `wrong_as_given`: of the **wrongly** labelled, how many are predicted as
#   their *given* label? These are memorized.
# * `wrong_as_true`: of the **wrongly** labelled, how many are predicted as
#   what they *really* show?
#
# **Exercise 1.2** · difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# Take care with the denominators: each share is of *its own group*. An empty
# group has no accuracy, and `nan` is the honest answer. (The mean of an empty
# tensor is `nan` by itself.)


# %%
def group_accuracies(predictions, given_labels, true_labels):
    """Accuracy in the groups of rightly and wrongly labelled examples.

    predictions, given_labels, true_labels: int64 (n,)
    returns a dict of floats: clean, wrong_as_given, wrong_as_true
    """
    ### BEGIN SOLUTION
    wrong = given_labels != true_labels
    as_given = (predictions == given_labels).float()
    as_true = (predictions == true_labels).float()
    return {
        "clean": as_true[~wrong].mean().item(),
        "wrong_as_given": as_given[wrong].mean().item(),
        "wrong_as_true": as_true[wrong].mean().item(),
    }
    ### END SOLUTION


# %%
group_accuracies = check(group_accuracies)

# %%
# hint("1.2")

# %% [markdown]
# Let us ask the network that was trained on *half redrawn* what it says to
# each training image, and sort its answers into the groups.

# %%
from nlcourse.training import find_device, predict
from nlcourse.training.batches import Images


def predictions_of(method, images):
    """Return the predicted class of each image, on the CPU."""
    ready = Images(images, data.mean, data.std, find_device())
    return predict(method.eval(), ready).cpu()


half = sets["half redrawn"]
answers = predictions_of(trained["half redrawn"], half.images)
groups = group_accuracies(answers, half.labels, half.true_labels)
for name, share in groups.items():
    print(f"{name:15} {share:.1%}")

assert groups["clean"] > 0.99, "the rightly labelled are fitted too"
assert groups["wrong_as_given"] > 0.98, "the wrong labels are memorized"

# %% [markdown]
# The network gives the wrong labels back, exactly as it was told. Yet on
# *new* images it is right far more often than one time in ten: see the table
# above. It has learned the rule **and** the exceptions.
#
# `fit` records the same three numbers after each epoch. So the picture from
# lesson 00 is there already. The rule comes first.

# %%
assert 0.3 < runs["half redrawn"].last["test_accuracy"] < 0.9
plots.show(
    plots.label_shares(
        runs["half redrawn"], title="Half redrawn: the wrongly labelled images"
    )
)

# %% [markdown]
# ## Now spoil the pictures
#
# Labels are one half of the data. We can also destroy the other half and
# keep the labels true. The paper does it in three ways:
#
# * **shuffled pixels**: draw *one* new order of the 64 pixels, and use it for
#   every image. A jigsaw puzzle, but always cut in the same way;
# * **random pixels**: a new order for each image. Only the set of grey values
#   survives;
# * **Gaussian**: throw the picture away and put noise in its place, with the
#   mean and the spread of the data.
#
# Which of the three could still be learned? Think of what stays the *same*
# between two images of a 7.
#
# **Exercise 1.3** · difficulty ●●●○○ · importance ●●●○○ · 10 minutes
#
# Write the first way. The idea is in one word: **one** permutation. If every
# image got its own, you would have written *random pixels*.
#
# A pixel of a colour image has several channels. They travel together.


# %%
def shuffle_pixels(images, generator):
    """Move the pixels of all images by the same random permutation.

    images:    (n, channels, height, width); they are not changed
    generator: give it to the torch function that draws
    returns images of the same shape and dtype
    """
    n, channels, height, width = images.shape
    ### BEGIN SOLUTION
    order = torch.randperm(height * width, generator=generator)
    return images.flatten(2)[:, :, order].reshape(images.shape)
    ### END SOLUTION


# %%
shuffle_pixels = check(shuffle_pixels)

# %%
# hint("1.3")

# %% [markdown]
# Test images must be shuffled in the **same** order as the training images,
# or we test on another puzzle than we trained on. The easy way: put both into
# one tensor, shuffle once, cut them apart again.
#
# The other two ways are in the package: `noise.random_pixels` and
# `noise.gaussian_images`.


# %%
def change_images(change):
    """Return `data` with all its images, training and test, changed."""
    both = torch.cat([data.images, data.test_images])
    changed = change(both, dice(1))
    return data.with_images(changed[:1000], changed[1000:])


shuffled = change_images(shuffle_pixels)
random_pixels = change_images(noise.random_pixels)
gaussian = change_images(noise.gaussian_images)

# %% [markdown]
# Look at five images of a **one**: as they are, and in the three destroyed
# versions. To us the lower rows look alike. But compare within a row. In the
# shuffled row the same places are bright in all five. In the last two rows
# nothing connects one image with the next, except the label.

# %%
versions = {
    "as it is": data,
    "shuffled": shuffled,
    "random": random_pixels,
    "Gaussian": gaussian,
}
ones = (true_labels == 1).nonzero()[:5, 0]
plots.show(
    plots.image_grid(
        torch.cat([version.images[ones] for version in versions.values()]),
        [name for name in versions for _ in ones],
        columns=5,
        title="Five ones, each with the label 1",
    )
)

# %% [markdown]
# ## Six training sets
#
# Three more runs, and we have the six training sets of the paper. In the
# last three the labels are true and the images are not.
#
# Before you run the cell: which of the three will be fitted? Which of them
# will do well on test images that were changed in the same way?

# %%
sets |= {
    "shuffled pixels": shuffled,
    "random pixels": random_pixels,
    "Gaussian": gaussian,
}
print("                  epochs   training    test")
for name in list(sets)[3:]:
    train_on(name)

test = {name: run.last["test_accuracy"] for name, run in runs.items()}
for name in ("true labels", "shuffled pixels"):
    assert test[name] > 0.9, f"{name}: there is a pattern to learn"
for name in ("random labels", "random pixels", "Gaussian"):
    assert test[name] < 0.25, f"{name}: nobody can beat chance by much"

# %% [markdown]
# **Everything is fitted.** Pure dice, pure noise: no set is too senseless.
#
# The column *test* falls into two groups. Where a common pattern is left,
# the network finds it. Where none is left, it guesses.
#
# Shuffled pixels cost this network almost nothing. No surprise, if you think
# of what it does first: it flattens the image into a list of 64 numbers. It
# never knew which pixels are neighbours. A convolutional network does use
# that. Would you expect it to lose something here?
#
# The next figure is figure 1(a) of the paper, on our digits: the training
# loss after each epoch.

# %%
plots.show(
    plots.lines(
        {name: run["train_loss"] for name, run in runs.items()},
        title="Training loss of six training sets, until each is fitted",
        ylabel="cross entropy",
        ylim=(0, 2.5),
    )
)
noise_epochs = max(len(runs["random pixels"]), len(runs["Gaussian"]))
assert len(runs["random labels"]) > noise_epochs, "noise images are easier"

# %% [markdown]
# Three things to see:
#
# * All curves end near zero. Only the road differs.
# * **Random labels** start slowly. When true labels are nearly done, they
#   have hardly begun: a step that helps one image hurts its neighbour, which
#   looks alike and is called something else. Then the images are pulled
#   apart, one by one.
# * **Random pixels and Gaussian** drop sooner than random labels, although
#   the images are noise. Noise images lie far from each other, so they are
#   easy to tell apart. Two sevens with different labels are not.

# %% [markdown]
# ## The price, step by step
#
# Between *true labels* and *random labels* there is a road. We walk it in
# steps of 20 %, and measure two things at the moment of the perfect fit:
#
# * how many **epochs** it took;
# * the **test error**. The test labels are true, always.
#
# The two ends are there already. Four runs are new.

# %%
shares = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
road = {0.0: runs["true labels"], 1.0: runs["random labels"]}
epochs_needed, errors = [], []
print("share redrawn   epochs   test error")
for share in shares:
    if share not in road:
        _, road[share] = fit_fully(with_random(share))
    epochs_needed.append(len(road[share]))
    errors.append(100 * (1 - road[share].last["test_accuracy"]))
    print(f"{share:13.1f}{epochs_needed[-1]:9}{errors[-1]:11.1f} %")

# %%
plots.show(
    plots.lines(
        {"epochs until everything is fitted": epochs_needed},
        x=shares,
        title="Time to fit",
        xlabel="share of redrawn labels",
        ylabel="epochs",
        ylim=(0, 1.1 * max(epochs_needed)),
    )
)
factor = epochs_needed[-1] / epochs_needed[0]
print(f"random labels take {factor:.1f} times as long as true labels")
assert 1.5 < factor < 15, "longer, by a small factor"

# %% [markdown]
# The paper's figure 1(b) shows the same: more corruption takes longer, but
# only by a **small constant factor**. Nothing explodes. Fitting dice is not a
# different kind of problem for gradient descent. It is the same problem, a
# few times longer.
#
# Where does the curve rise most? At its beginning. One way to see it: a
# single exception inside a crowd of equals is the hardest to fit. How much the
# later dots jump up and down is luck. Change `SEED` and compare.

# %%
plots.show(
    plots.lines(
        {
            "measured at the perfect fit": errors,
            "guessing": [90.0] * len(shares),
        },
        x=shares,
        title="Test error when the training set is fitted",
        xlabel="share of redrawn labels",
        ylabel="test error (%)",
        ylim=(0, 100),
    )
)
assert errors[0] < 10, "true labels: almost no error"
assert errors[-1] > 75, "random labels: guessing"
assert errors[0] < errors[2] < errors[4], "the error grows on the way"

# %% [markdown]
# This is figure 1(c). The error climbs smoothly from almost nothing to that
# of a guess. And here is the point of the whole paper:
#
# > At **every** dot of this curve the training error is zero.
#
# Six networks of the same size, trained in the same way, all perfect on
# their training data. Their test errors cover the whole range. So neither the
# size of the network nor its training error can tell you how good it is. The
# only thing that differs is the **data**.

# %% [markdown]
# ## A trap: which test labels?
#
# You may find demo code on the net that corrupts the labels of the data set
# when it is loaded: training **and** test. Its "test accuracy" looks
# different from ours. Let us do it wrong once, on purpose, with the network
# that was trained on *half redrawn*. We do not train again. Only the labels
# we compare with are other ones.

# %%
test_answers = predictions_of(trained["half redrawn"], data.test_images)
dirty_labels = randomize_labels(data.test_labels, 0.5, 10, dice(2))
honest = (test_answers == data.test_labels).float().mean().item()
dirty = (test_answers == dirty_labels).float().mean().item()
print(f"against true test labels      {honest:.1%}")
print(f"against corrupted test labels {dirty:.1%}")
assert dirty < honest - 0.1, "corrupted test labels hide what was learned"

# %% [markdown]
# The same network, the same answers. With corrupted test labels even a
# perfect network gets only about 55 % here ($1 - 0.5 \cdot 9/10$): a right
# answer is counted as a mistake whenever the *label* is wrong.
#
# So: noise belongs in the **training** labels. Test labels stay true. In
# this course `noise.inject` never touches the test set.

# %% [markdown]
# ## But surely regularisation stops this?
#
# The textbook says: a big network does not memorize because we *regularise*
# it. Three classic ways:
#
# * **weight decay** pulls all weights towards zero;
# * **dropout** switches off random units in each step, so that no unit can
#   rely on another one;
# * **augmentation** changes each image a little in every epoch. Here: shifted
#   by up to one pixel.
#
# If they explained generalisation, they would have to stop the fit of random
# labels. Do they? Each of them gets the same 200 epochs at most.

# %%
from functools import partial

from nlcourse.datasets.augment import Augment
from nlcourse.training.networks import mlp

regularizers = {
    "none": {},
    "weight decay": {"weight_decay": 5e-4},
    "dropout 20 %": {"network": partial(mlp, dropout=0.2)},
    "shift 1 pixel": {"augment": Augment(crop=1)},
}

# %%
fitted = {}
print("                random labels          true labels")
print("               training  epochs     training    test")
for name, settings in regularizers.items():
    _, dull = fit_fully(sets["random labels"], **settings)
    _, real = fit_fully(data, epochs=30, **settings)
    fitted[name] = dull.last["given_accuracy"]
    print(
        f"{name:14}{fitted[name]:9.1%}{len(dull):8}"
        f"{real.last['given_accuracy']:13.1%}"
        f"{real.last['test_accuracy']:8.1%}"
    )

assert fitted["none"] > 0.99
assert fitted["weight decay"] > 0.99, "not stopped"
assert fitted["dropout 20 %"] > 0.95, "slower, but not stopped"
assert fitted["shift 1 pixel"] > 0.2, "slowed down, yet memorizing"

# %% [markdown]
# Read the left half first.
#
# * **Weight decay** does not stop it. It changes next to nothing.
# * **Dropout** of 20 % does not stop it either. It takes longer, and gets
#   there.
# * **Shifting** is another matter: within our 200 epochs this network does
#   *not* fit. Be fair to it. One pixel of eight is a large step. Each image
#   comes in nine versions, so that nine times as many points must be fitted.
#   It is slowed down a lot, and still far above chance.
#
# Now the right half: with true labels the network is good with and **without**
# any of them.

# %% [markdown]
# ## Beside the paper
#
# Zhang et al. trained far larger networks on CIFAR-10: 50,000 colour
# photographs in ten classes. These are rows of their table 1, accuracies in
# per cent. Watch three things: the column *train*, the rows of random labels,
# and how much *test* moves between "no regularisation" and the row above it.

# %%
paper = [
    ("Inception", "true", "crop, weight decay", 100.0, 89.05),
    ("Inception", "true", "none", 100.0, 85.75),
    ("Inception", "random", "none", 100.0, 9.78),
    ("AlexNet", "true", "crop, weight decay", 99.90, 81.22),
    ("AlexNet", "true", "none", 100.0, 76.07),
    ("AlexNet", "random", "none", 99.82, 9.86),
    ("MLP 3 x 512", "true", "weight decay", 100.0, 53.35),
    ("MLP 3 x 512", "true", "none", 100.0, 52.39),
    ("MLP 3 x 512", "random", "none", 100.0, 10.48),
]
ours = [
    (
        "ours, digits",
        name.split()[0],
        "none",
        100 * runs[name].last["given_accuracy"],
        100 * test[name],
    )
    for name in ("true labels", "random labels")
]
print("network       labels  regularisation       train    test")
for network, labels, regularizer, train, accuracy in paper + ours:
    print(f"{network:14}{labels:8}{regularizer:19}{train:7.2f}{accuracy:8.2f}")

# %% [markdown]
# **What the paper claims.** (1) Networks fit random labels, without changing
# any setting. (2) Explicit regularisation may help a little, but it is
# neither necessary nor sufficient for generalisation: without it the test
# accuracy falls by a few points, not to chance.
#
# **What we measured.** The same two facts, on a much smaller problem. Our
# digits are easier than photographs, so our *true* row is higher. The *random*
# rows agree: chance is 10 % in both worlds.
#
# **Where we differ.** Our shifted images were not fitted in the time we
# gave. And our time to fit grows fast at first and then flattens, which a
# single network on small images need not share with Inception. A claim that
# holds "qualitatively" leaves room for such things. On ImageNet with random
# labels the paper itself reaches 95.20 % on the training set, not 100
# (its main text).

# %% [markdown]
# ## How few weights are enough?
#
# Our network has far more weights than examples; the cell below counts them.
# Is that why it can memorize?
#
# **Theorem 1** of the paper: a ReLU network with two layers and only
# $2n + d$ weights can give *any* values to $n$ different points with $d$
# coordinates. The proof is a recipe, and you can cook it.
#
# 1. **Line up.** Project all points on one random direction $a$. Now they are
#    numbers on a line. Sort them: $z_1 < z_2 < \dots < z_n$.
# 2. **Bend.** Give each point $z_j$ one ReLU, $\max(z - b_j, 0)$, that wakes
#    up between the point before and $z_j$. For all earlier points it is zero.
#    We let it wake up right at the point before.
# 3. **Solve.** The first ReLU alone decides the value at $z_1$, the second
#    corrects $z_2$, and so on. The equations form a triangle.
#
# The weights are $a$ ($d$ of them), the bends ($n$) and the heights ($n$).
# Nothing is trained.


# %%
def build_memorizer(points, values, generator):
    """Theorem 1: points (n, d), values (n,) -> direction, bends, weights."""
    d = points.shape[1]
    direction = torch.randn(d, generator=generator, dtype=torch.float64)
    places, order = (points @ direction).sort()
    bends = torch.cat([places[:1] - 1, places[:-1]])
    triangle = (places[:, None] - bends).clamp(min=0)
    weights = torch.linalg.solve_triangular(
        triangle, values[order, None].double(), upper=False
    )
    return direction, bends, weights[:, 0]


def ask(memorizer, points):
    """Return the network's answer to each point, float64 (m,)."""
    direction, bends, weights = memorizer
    return ((points @ direction)[:, None] - bends).clamp(min=0) @ weights


# %%
points = data.images.flatten(1).double()
random_labels = sets["random labels"].labels
memorizer = build_memorizer(points, random_labels, dice(3))
error = (ask(memorizer, points) - random_labels).abs().max().item()
size = sum(part.numel() for part in memorizer)
network = trained["random labels"].network
trained_size = sum(part.numel() for part in network.parameters())
print(f"trained network      {trained_size:7,} weights")
print(f"constructed network  {size:7,} weights, largest error {error:.0e}")
assert size == 2 * 1000 + 64, "2n + d"
assert error < 1e-4, "every random label is hit, up to rounding"

# %%
places, order = (points @ memorizer[0]).sort()
near = order[500:521]
plots.show(
    plots.lines(
        {"the constructed network": ask(memorizer, points[near]).tolist()},
        x=places[500:521].tolist(),
        title="21 neighbouring points on the line, each label is hit",
        xlabel="place on the line, z",
        ylabel="answer (a class)",
        ylim=(0, 12),
    )
)

# %% [markdown]
# The constructed network is a zigzag that goes through every label; the
# figure shows a piece of it. A thousand random labels, hit exactly, with a
# small part of the weights that our network has. So *being able* to memorize
# is cheap.
#
# And now the best question of this lesson. Build the same network on the
# **true** labels. It fits them exactly, too. How good is it on the test set?
# Guess before you run the cell.

# %%
honest_memorizer = build_memorizer(points, true_labels, dice(3))
on_training = ask(honest_memorizer, points).round()
new_points = data.test_images.flatten(1).double()
on_test = ask(honest_memorizer, new_points).round().clamp(0, 9)
fit_share = (on_training == true_labels).float().mean().item()
test_share = (on_test == data.test_labels).float().mean().item()
print(f"constructed: training {fit_share:.1%}, test {test_share:.1%}")
print(
    f"trained:     training {runs['true labels'].last['given_accuracy']:.1%}"
    f", test {test['true labels']:.1%}"
)
assert fit_share > 0.999, "perfect on the training set"
assert test_share < 0.4, "far from what the trained network knows"

# %% [markdown]
# Both networks are perfect on the *true* training labels. One knows digits,
# the other knows next to nothing: to it, "near" means near on one random
# line.
#
# There are countless networks that fit. **Which of them you get is decided
# by the way you search.** Gradient descent from small weights does not end
# at a wild zigzag if a simpler answer is near. This is called **implicit
# regularisation**: nobody wrote it into the loss, it comes with the
# algorithm. For linear models the paper shows what it is: descent from zero
# ends at the solution with the *smallest norm*.

# %% [markdown]
# ## Your turn: the explorer
#
# Here you can mix. The menu chooses **what** is corrupted, the slider **how
# much** of the training set. The test images and labels stay as they are.
# Every run stays on the plot as a thin line.
#
# **Your goal:** corrupt at least 80 % of the training set, let the network
# fit it, and still be right on more than 80 % of the *true* test images.
#
# One kind of corruption makes that impossible. Which one, and why? Predict
# first.


# %%
def some_images(change):
    """Return a corruption of a share of the training images."""

    def corrupt(clean, share, seed):
        generator = torch.Generator().manual_seed(seed)
        changed = change(clean.images, generator).to(clean.images.dtype)
        hit = torch.rand(len(changed), generator=generator) < share
        images = torch.where(hit[:, None, None, None], changed, clean.images)
        return clean.with_images(images)

    return corrupt


def some_labels(clean, share, seed):
    """Return the data set with a share of its labels redrawn."""
    generator = torch.Generator().manual_seed(seed)
    labels = randomize_labels(clean.true_labels, share, 10, generator)
    return clean.with_labels(labels)


kinds = {
    "labels": some_labels,
    "shuffled pixels": some_images(shuffle_pixels),
    "random pixels": some_images(noise.random_pixels),
    "Gaussian": some_images(noise.gaussian_images),
}

# %%
from nlcourse.panels import Explorer, Goal


def judge(run):
    row = run.history.last
    fits, test_accuracy = row["given_accuracy"], row["test_accuracy"]
    much = run.settings.noise_rate >= 0.8
    reached = much and fits > 0.98 and test_accuracy > 0.8
    return reached, f"fitted {fits:.0%}, test {test_accuracy:.0%}"


goal = Goal(
    "Corrupt at least 80 % of the training set, fit over 98 % of it, and "
    "keep over 80 % test accuracy.",
    judge,
)

explorer = Explorer(
    data,
    noise_kinds=[kinds],
    methods=("cross-entropy",),
    noise_rate=0.8,
    epochs=60,
    goal=goal,
    seed=SEED,
)
explorer

# %% [markdown]
# The same from code, so that you see a picture even if you only read. First
# labels, then noise images, with the same share.

# %%
with_labels = explorer.try_out(noise_kind="labels", noise_rate=0.8)
with_noise = explorer.try_out(noise_kind="Gaussian", noise_rate=0.8)
for run in (with_labels, with_noise):
    plots.show(run.figure)
    print(
        f"{run.settings.noise_kind:9} {run.verdict:28}"
        f" goal {'reached' if run.reached else 'not reached'}"
    )
    assert run.history.last["given_accuracy"] > 0.9
assert with_noise.history.last["test_accuracy"] > 0.75
assert with_labels.history.last["test_accuracy"] < 0.6

# %% [markdown]
# Both networks memorized four fifths of a senseless training set. The one
# with noise *images* hardly minds. Noise lies far away from every real digit.
# What the network memorizes there seldom reaches the digits, and these it
# learns from the remaining fifth.
#
# Wrong *labels* sit on real digits. There they pull the answer in the wrong
# direction exactly where the test images are. So it is not memorizing in
# itself that hurts. It hurts to memorize something **false** about the
# region you care about.

# %% [markdown]
# ## All noise rates at once
#
# One run is one point. The paper's figures are whole curves. These networks
# are so small that the course trains many of them as **one** program: nine
# noise rates with three seeds each, 27 networks, while you watch. Move the
# learning rate or the width, press **Start**, and compare with the grey
# curves of before.
#
# What to look for: the *highest* accuracy falls slowly, the *last* one falls
# from the first step. The gap between them is what memorization costs.

# %%
from nlcourse.lessons.l01.panel import NoiseSweep

sweep = NoiseSweep()
sweep

# %%
# The same from code, for readers without a kernel.
tried = sweep.try_out()
plots.show(sweep.figure())
best, last = (
    tried.history.test_accuracy(which).mean(axis=1)
    for which in ("best", "last")
)
print(f"no noise: highest {best[0]:.1f} %, last {last[0]:.1f} %")
print(f"40 %:     highest {best[4]:.1f} %, last {last[4]:.1f} %")
assert best[4] - last[4] > best[0] - last[0] + 5

# %% [markdown]
# ## What the next paper answered
#
# Does this mean that networks *always* just memorize? The seed of this
# course, a set of notes on these papers, puts the follow-up by Arpit et al.
# (2017) next to Zhang's. Its main points:
#
# * On real data a network does not simply memorize. It learns **simple
#   patterns first**. You saw it: with true labels the loss falls at once,
#   with random labels it starts slowly.
# * Noise takes **more time and more capacity** than real data.
# * Regularisation does not forbid memorizing, but it can **slow it down**,
#   dropout above all, with little harm to the real patterns. Look at our
#   table again: with dropout the dice took far longer, and with shifted
#   images they were not fitted in time.
#
# The two papers do not contradict each other. One says what networks *can*
# do, the other what they do *first*. Lesson 02 measures it.
#
# ## Now with the package, in one line
#
# What you wrote is in `nlcourse`, too. From now on we use these.

# %%
all_random = noise.inject(data, "symmetric-including-true", 1.0, seed=SEED)
shuffled_images = noise.shuffle_pixels(data.images, dice(4))
print(f"{all_random.noise_rate:.1%} of the labels are wrong")
print(f"shuffled images: {tuple(shuffled_images.shape)}")
assert 0.8 < all_random.noise_rate < 0.97

# %% [markdown]
# ## Think about it
#
# **1.** A colleague says: "My network has 100 % training accuracy, so it has
# understood the data." Which experiment of this lesson do you show?
#
# <details><summary>Answer</summary>
#
# The run on random labels. It has the same training accuracy, and there was
# nothing to understand. Or the constructed network: perfect on true labels,
# and poor on new images.
#
# </details>
#
# **2.** We froze the random labels before training. What would the training
# loss do if we rolled the dice again in every epoch?
#
# <details><summary>Answer</summary>
#
# It would stay near $\log 10 \approx 2.3$, the loss of saying "10 % each".
# What the network learns by heart in one epoch is wrong in the next one. Only
# fixed labels can be memorized. Some methods make use of this: they change
# the data all the time, like augmentation does.
#
# </details>
#
# **3.** Classical theory bounds the test error by training error plus a term
# for the *capacity* of the model class. What does this lesson say about such
# a bound?
#
# <details><summary>Answer</summary>
#
# A class that can fit *all* labellings has the largest possible capacity
# (Rademacher complexity close to 1). The bound then says "the error is at
# most 100 %": true, and useless. A bound that helps has to look at the data
# or at the algorithm, not only at the class.
#
# </details>
#
# **4.** With a share of 0.8 redrawn labels, is there still a signal in the
# labels? Look at the test curve of the explorer's first run.
#
# <details><summary>Answer</summary>
#
# Yes. Of all images of a "3", 28 % still say "3" (20 % untouched and 8 %
# redrawn to the same class), and only 8 % say any other given digit. The
# curve is highest early on, before the wrong labels are memorized. The rest
# of the course lives on this gap between highest and last.
#
# </details>

# %% [markdown]
# ## What to remember
#
# * A network fits **anything**: random labels, random pixels, pure noise, in
#   a small multiple of the usual time.
# * So a perfect training accuracy says **nothing** about new data.
# * Explicit regularisation may slow memorizing down (dropout, shifts; our
#   weight decay did not). It does not explain why networks generalise.
# * Countless networks fit; the algorithm picks one: **implicit**
#   regularisation.
# * Redrawing from all classes keeps one in $C$ right. Keep test labels true.
#
# ## References
#
# * C. Zhang, S. Bengio, M. Hardt, B. Recht, O. Vinyals, *Understanding Deep
#   Learning Requires Rethinking Generalization*, ICLR 2017, arXiv 1611.03530
#   (figure 1, table 1, theorem 1).
# * D. Arpit et al., *A Closer Look at Memorization in Deep Networks*, ICML
#   2017, arXiv 1706.05394.
#
# **Next:** lesson 02 takes a closer look at memorization: which patterns
# come first, and how do you measure that?
