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
# # 08 Finding the wrong labels
#
# Other lessons learn *in spite of* wrong labels. Today we want to know
# **which ones they are**: a list that a person can work through.
#
# Five ways lead there. Watch the training and see which images resist. Ask
# networks that have never seen the label. Look for images that lie among
# strangers. Compare each image with typical ones. Or simply sort by the loss.
# We put all five beside each other, on the same data.
#
# **After this lesson you will be able to**
#
# * rank training examples by how little their label fits, in five ways;
# * choose a threshold without knowing which labels are wrong;
# * write the list for your own data, and say how far to trust it.
#
# **Time:** about 85 minutes, four exercises, one live experiment. You need
# lesson 00.
#
# The papers: Pleiss et al. 2020 (AUM), Guo et al. 2018 (CurriculumNet), Han
# et al. 2019 (deep self-learning), Northcutt et al. 2021 (confident
# learning).

# %% [markdown]
# ## Predict first
#
# Four of ten labels are redrawn as another digit. You train a network for 60
# epochs and sort the training images by their cross entropy **in the last
# epoch**, largest first. You throw out as many as there are wrong labels. Of
# those that you throw out, how many have a wrong label?
#
# * (a) Nearly all.
# * (b) Two of three.
# * (c) No more than by throwing dice: four of ten.
#
# And if you take the **mean over all epochs** instead? Write both guesses
# down, with a reason.
#
# ## The data

# %%
import torch

from nlcourse import datasets, noise
from nlcourse.experiments import results
from nlcourse.lessons.l08 import suspects
from nlcourse.lessons.l08.watched import WatchedCrossEntropy
from nlcourse.methods import CrossEntropy
from nlcourse.methods.aum import AUM
from nlcourse.methods.curriculum import CurriculumNet, density_subsets
from nlcourse.methods.features import all_features
from nlcourse.methods.self_learning import SelfLearning, all_prototypes
from nlcourse.panels import plots
from nlcourse.training import Options, fit
from nlcourse.training.batches import Images

SEED = 0
SETTINGS = {
    "lr": 0.05,
    "progress": False,
    "seed": SEED,
    "device": "cpu",
}
data = datasets.load("digits")
noisy = noise.inject(data, "symmetric", rate=0.4, seed=SEED)
given, is_wrong = noisy.labels, noisy.is_wrong
print(f"{noisy.noise_rate:.1%} of the {len(given)} labels are wrong")

# %% [markdown]
# ## The result first
#
# One ordinary training with cross entropy. `WatchedCrossEntropy` notes for
# each image how it stood just before its step; `Film` keeps that for every
# epoch. After ten epochs we also keep the *features*: what goes into the last
# layer. We will need them later.

# %%
images = Images(noisy.images, noisy.mean, noisy.std)
watched = WatchedCrossEntropy()
film, early = suspects.Film(watched), {}


def look(history):
    film(history)
    if len(history) == 10:
        early["features"] = all_features(
            watched.network, images.get, len(images)
        )


plain = fit(watched, noisy, epochs=60, on_epoch=look, **SETTINGS)
print(plain)

# %%
count = int(is_wrong.sum())
by_last = film.losses[-1].argsort(descending=True)[:count]
by_mean = film.mean_loss(30).argsort(descending=True)[:count]
share_last = is_wrong[by_last].float().mean().item()
share_mean = is_wrong[by_mean].float().mean().item()
print(f"thrown out by the loss of the last epoch:  {share_last:.1%} wrong")
print(f"thrown out by the mean loss of 30 epochs:  {share_mean:.1%} wrong")
assert share_mean > 0.9
assert share_last < share_mean - 0.2

# %% [markdown]
# So it is **(b)** for the last epoch, in this run. The same training, two very
# different lists. At the end the network knows
# the wrong labels by heart, and their loss is as small as that of the others.
# **When** you ask matters more than what you ask. The mean over the epochs
# still remembers how long each image resisted.
#
# This is what stands at the top of the better list:

# %%
top = by_mean[:10]
words = [
    f"{given[i]}, true {noisy.true_labels[i]}" for i in by_mean[:10].tolist()
]
title = "Largest mean loss: the given and the true label"
plots.show(plots.image_grid(noisy.images[top], words, columns=5, title=title))
assert is_wrong[top].all()

# %% [markdown]
# ## 1 The margin
#
# The AUM paper looks at the **margin** instead of the loss: the logit of the
# given label $y$ minus the largest of the other logits.
#
# $$M = z_y - \max_{k \ne y} z_k$$
#
# Positive: the network predicts the label. Very negative: it is sure of
# something else. The **area under the margin** (AUM) is the mean of $M$ over
# the epochs. The first epoch does not count.
#
# **Exercise 8.1** · difficulty ●●○○○ · importance ●●●●● · 8 minutes
#
# Write the margin of each example. Use the logits as they are, and do not
# change them: training still needs them.


# %%
def margins(logits, labels):
    """The logit of the label minus the largest of the others.

    logits: float (n, C), C at least 2
    labels: int64 (n,)
    returns float (n,)
    """
    ### BEGIN SOLUTION
    rows = torch.arange(len(labels))
    others = logits.clone()
    others[rows, labels] = -torch.inf
    return logits[rows, labels] - others.max(dim=1).values
    ### END SOLUTION


# %%
from nlcourse.checks import check, hint  # noqa: F401 - for you

# hint("8.1")  # stuck? take away the first #
margins = check(margins)

# %% [markdown]
# Why not compare probabilities? Here is a network that becomes surer and
# surer. Its logits grow; its probabilities have nowhere left to go.

# %%
for scale in (1.0, 5.0, 25.0):
    z = scale * torch.tensor([[2.0, 0.0, 1.0]])
    (of_logits,) = margins(z, torch.tensor([0]))
    (of_shares,) = margins(z.softmax(dim=1), torch.tensor([0]))
    print(
        f"margin of logits {of_logits:5.1f}, of probabilities {of_shares:.3f}"
    )
assert of_shares > 0.99

# %% [markdown]
# Now the film. For each epoch, the mean margin of the rightly and of the
# wrongly labelled, with the middle 80 % of each group shaded.

# %%
frames = torch.stack(film.margins)
figure, (axes,) = plots.new_figure(title="Margins during training")
looks = {
    "right labels": (~is_wrong, "blue", "-"),
    "wrong labels": (is_wrong, "vermilion", "--"),
}
told = []
for name, (group, colour, dash) in looks.items():
    ends = torch.tensor([0.1, 0.9])
    low, high = torch.quantile(frames[:, group], ends, dim=1)
    middle, x = frames[:, group].mean(dim=1).tolist(), range(1, 61)
    axes.fill_between(x, low, high, alpha=0.2, color=plots.COLOURS[colour])
    axes.plot(x, middle, dash, color=plots.COLOURS[colour], label=name)
    told.append(plots.line_in_words(name, middle, x, "epoch"))
axes.axhline(0, color="grey", linewidth=0.8)
axes.set_xlabel("epoch")
axes.set_ylabel("margin")
axes.legend(frameon=False)
plots.show(figure, "Mean margin against the epoch. " + " ".join(told))

# %% [markdown]
# In the first epochs the two groups part: the network learns what most
# images of a digit have in common, and that speaks *against* a wrong label.
# Later the dashed curve crosses zero: memorized. A single late frame shows
# little. The area under the curve still shows the difference.
#
# How many epochs should go into the mean? We measure each ranking by its
# **average precision**: 1 if all wrong labels come first, about the noise
# rate if the order means nothing.

# %%
lengths = [2, 3, 5, 8, 12, 20, 30, 40, 60]
quality = {"AUM": [], "mean loss": [], "loss of that epoch": []}
for length in lengths:
    scores = -film.aum(length), film.mean_loss(length), film.losses[length - 1]
    for name, score in zip(quality, scores, strict=True):
        quality[name].append(suspects.average_precision(score, is_wrong)[0])
plots.show(
    plots.lines(
        quality,
        x=lengths,
        ylabel="average precision",
        title="How long to look",
    )
)
last = {name: values[-1] for name, values in quality.items()}
assert last["AUM"] > last["loss of that epoch"] + 0.1
assert abs(quality["AUM"][6] - quality["mean loss"][6]) < 0.01

# %% [markdown]
# Three things to read off. A loss at the *right* moment is a good ranking,
# but who tells you the moment? A mean forgives you: up to 30 epochs any length
# will do. And on these data the mean **loss** is as good as the AUM.
#
# After that the AUM sinks, since late margins are large for everybody and
# outweigh the early ones. (Late losses are near 0 and add nothing.) The paper
# therefore stops at the first fall of the learning rate, half-way through its
# training; we take 30 of 60 epochs. The margin's own gift is the next idea.
#
# ## 2 How low is too low?
#
# A ranking is not yet a decision. You could throw out as many as there are
# wrong labels, if somebody told you how many. AUM has a trick: take a few
# images and give them a class **that does not exist**. Their labels are wrong
# for sure, so their margins show how wrong labels behave *in this very
# training*.
#
# * $N/(C+1)$ images get the fake class; the network gets one output more.
# * The threshold $\alpha$ is the 99th percentile of *their* AUM.
# * Who lies at or under $\alpha$ is a suspect.
# * A second pass with other images judges those of the first.
#
# (You may read that "a share of 99 % clean data" is the best threshold. That
# is a misreading: the 99 is this percentile.)
#
# **Exercise 8.2** · difficulty ●○○○○ · importance ●●●●○ · 6 minutes


# %%
def flag_suspects(scores, threshold_scores, percentile=99.0):
    """Flag who looks no better than examples with the fake class.

    scores:           float (n,), AUM of the examples to judge
    threshold_scores: float (m,), AUM of those with the fake class
    percentile:       in [0, 100], interpolated as torch.quantile does
    returns bool (n,), True at or under the threshold
    """
    ### BEGIN SOLUTION
    threshold = torch.quantile(threshold_scores, percentile / 100)
    return scores <= threshold
    ### END SOLUTION


# %%
# hint("8.2")
flag_suspects = check(flag_suspects)

# %% [markdown]
# Your two functions are the method. `AUM` runs both passes side by side for
# 30 epochs, flags, and then trains a fresh network on the rest for 60.

# %%
found = AUM(30, margins=margins, flag=flag_suspects)
cleaned = fit(found, noisy, epochs=90, **SETTINGS)
precision, recall = suspects.precision_and_recall(found.suspects, is_wrong)
print(f"{int(found.suspects.sum())} suspects for {count} wrong labels")
print(f"precision {precision:.1%}: so many of the suspects are wrong")
print(f"recall    {recall:.1%}: so many of the wrong ones are suspects")
assert precision > 0.6  # it varies from seed to seed: see the table below
assert recall > 0.9

# %%
fakes = torch.cat(found.threshold_aum())
alpha = torch.quantile(fakes, 0.99).item()
aum = found.aum()
groups = {
    "right": (aum[~is_wrong], "blue", None),
    "wrong": (aum[is_wrong], "vermilion", "//"),
    "fake class": (fakes, "black", None),
}
edges = torch.linspace(aum.min().item(), aum.max().item(), 45)
figure, (axes,) = plots.new_figure(title="AUM of three groups")
for name, (values, colour, hatch) in groups.items():
    look_of = {"color": plots.COLOURS[colour], "label": name, "hatch": hatch}
    if name == "fake class":
        look_of |= {"histtype": "step", "linewidth": 2}
    else:
        look_of |= {"alpha": 0.55}
    axes.hist(values.numpy(), bins=edges.numpy(), **look_of)
axes.axvline(alpha, color="black", linestyle=":")
axes.set_xlabel("AUM")
axes.set_ylabel("examples")
axes.legend(frameon=False)
middle = {
    name: values.median().item() for name, (values, *_) in groups.items()
}
words = "Histograms of the AUM. Medians: " + ", ".join(
    f"{name} {value:.1f}" for name, value in middle.items()
)
plots.show(figure, f"{words}. The threshold lies near {alpha:.1f}.")
assert middle["wrong"] < 0 < middle["right"]

# %% [markdown]
# The fake class lies where the wrong labels lie, and its upper end (dotted,
# of both passes together) cuts between the hills. Nobody told it the noise
# rate. The price: some right labels on the slope are lost, too.
#
# Does the network thank us?

# %%
from_60 = cleaned["test_accuracy"][30:]
shown = {
    "cross entropy on all labels": plots.percent(plain, "test_accuracy"),
    "on what AUM left": [100 * value for value in from_60],
}
plots.show(
    plots.lines(
        shown, ylabel="test accuracy (%)", title="Without the suspects"
    )
)
ends = plain.last["test_accuracy"], cleaned.last["test_accuracy"]
print(f"last epoch: all labels {ends[0]:.1%}, without suspects {ends[1]:.1%}")
assert ends[1] > ends[0] + 0.1

# %% [markdown]
# ## 3 Ask somebody who has not seen the label
#
# A network that learned a label is a poor judge of it. So split the training
# set into five parts, train on four, and predict the fifth; five times over.
# Each image is then predicted by a network that **has not seen it**. These
# are *out-of-sample* predictions.
#
# `suspects.out_of_sample_probabilities` does this with the course's own
# `fit`. It needs no true label.

# %%
outside = suspects.out_of_sample_probabilities(
    noisy, folds=5, epochs=10, **SETTINGS
)
with torch.no_grad():
    inside = watched(images.get(slice(None)))
for name, p in (("out of sample", outside), ("by heart", inside)):
    repeats = (p.argmax(dim=1) == given)[is_wrong].float().mean().item()
    losses = suspects.label_losses(p, given)
    precise, _ = suspects.average_precision(losses, is_wrong)
    print(f"{name:14} repeats {repeats:4.0%} of the wrong labels,", end=" ")
    print(f"average precision {precise:.3f}")
assert precise < 0.9

# %% [markdown]
# **Confident learning** goes one step further, from a ranking to a decision.
# For every class $j$ it asks what probability is *usual* for $j$: the mean of
# $p_j$ over the images that were given $j$. An image with given label $i$
# that exceeds what is usual for another class $j$ is counted at $(i, j)$.
# From this table follows how many labels are wrong, class by class. That many
# are flagged.
#
# The authors' library is **cleanlab**. It is optional here.

# %%
try:
    flags, doubt = suspects.confident_learning(given, outside)
except ImportError as missing:
    print(missing)
    flags, doubt = None, suspects.label_losses(outside, given)
else:
    good = suspects.precision_and_recall(flags, is_wrong)
    print(f"cleanlab flags {int(flags.sum())} for {count} wrong labels:")
    print(f"precision {good[0]:.1%}, recall {good[1]:.1%}")
    assert min(good) > 0.8

# %% [markdown]
# Now compare cleanlab's **ranking** with the plain loss on the same
# predictions. Look closely: cleanlab's score is one minus the probability of
# the given label. The loss is minus its logarithm. Both fall when the
# probability rises.

# %%
losses = suspects.label_losses(outside, given)
orders = [
    suspects.average_precision(scores, is_wrong)[0]
    for scores in (losses, doubt)
]
print("average precision: loss {:.4f}, cleanlab {:.4f}".format(*orders))
assert abs(orders[0] - orders[1]) < 1e-3

# %% [markdown]
# It is the same order. What the library adds is the *number*: where to cut.
# And it stands or falls with the predictions. In our recorded table (below)
# the folds were trained for 10 and for 30 epochs. With 30 they had begun to
# memorize *their* wrong labels, predicted worse, and both ranking and
# threshold suffered.
#
# ## 4 Among strangers: density
#
# So far we asked what a network *says*. CurriculumNet asks where an image
# *lies*. Take the features of all images with one given label. Images of that
# digit lie close together. A wrong label puts an image among strangers.
#
# For the $n$ images of a class, let $D_{ij}$ be their distances. The
# **density** of image $i$ is the number of others within a cutoff,
#
# $$\rho_i = \#\{\,j \ne i : D_{ij} < d_c\,\},$$
#
# where $d_c$ is the value at place $\lceil 0.6\,n^2 \rceil$ of all $n^2$
# sorted distances, counted from 1 (the zeros of the diagonal are among them).
#
# **Exercise 8.3** · difficulty ●●●○○ · importance ●●●○○ · 12 minutes
#
# Write the density. Whether you square the distances makes no difference. An
# image does not count itself.


# %%
def local_density(features, share=0.6):
    """How many others of its class lie closer than the cutoff.

    features: float (n, d), of all images with one given label
    share:    in (0, 1], which place of the sorted distances
    returns int64 (n,)
    """
    ### BEGIN SOLUTION
    import math

    distances = torch.cdist(features, features) ** 2
    place = math.ceil(share * distances.numel())
    cutoff = distances.flatten().sort().values[place - 1]
    return (distances < cutoff).sum(dim=1) - 1
    ### END SOLUTION


# %%
# hint("8.3")
local_density = check(local_density)

# %% [markdown]
# k-means with three centres then splits the densities of each class into
# *clean*, *noisy* and *highly noisy*. We use the features after ten epochs,
# before memorization has spoiled them.

# %%
subsets = density_subsets(early["features"], given, 10, density=local_density)
names = ("clean", "noisy", "highly noisy")
shares = []
for number, name in enumerate(names):
    group = subsets == number
    shares.append(is_wrong[group].float().mean().item())
    print(f"{name:13} {int(group.sum()):4d} images, {shares[-1]:.0%} wrong")
assert shares == sorted(shares)

member = (given == 3).nonzero().flatten()
rho = local_density(early["features"][member])
ends = torch.cat([rho.argsort(descending=True)[:5], rho.argsort()[:5]])
words = [f"{noisy.true_labels[member[i]]}, ρ {rho[i]}" for i in ends.tolist()]
grid = {"columns": 5, "title": "Given label 3: the densest, the sparsest"}
marks = is_wrong[member[ends]].tolist()
pictures = noisy.images[member[ends]]
plots.show(plots.image_grid(pictures, words, marked=marks, **grid))

# %% [markdown]
# The captions show the **true** digit; a frame marks wrong labels. Now the
# curriculum: a fresh network learns ten epochs from *clean*, ten from *clean*
# and *noisy*, then from all three, with weights 1, 0.5 and 0.5.

# %%
curriculum = CurriculumNet(10, 10, density=local_density)
staged = fit(curriculum, noisy, epochs=60, **SETTINGS)
shown = {
    "cross entropy": plots.percent(plain, "test_accuracy"),
    "curriculum": plots.percent(staged, "test_accuracy"),
    "its right labels": plots.percent(staged, "label_precision"),
}
title = "First network to epoch 10, stages from 11, 21 and 31"
plots.show(plots.lines(shown, ylabel="%", title=title))
second, third = (staged["test_accuracy"][e] for e in (29, -1))
print(f"test accuracy after stage 2: {second:.1%}, at the end: {third:.1%}")
assert third < second

# %% [markdown]
# (At epoch 11 a fresh network begins: hence the dip.) In the first two stages
# the accuracy holds while cross entropy loses it. The last stage lets
# **everything** back in. Half a weight does not stop memorization, it only
# slows it down: on digits the accuracy falls again. The paper had millions of
# web images and a training of its own, and reports a gain. Here the *subsets*
# are worth more than the last stage. We report what we see.

# %% [markdown]
# ## 5 Typical images: prototypes
#
# Deep self-learning turns the question round. It chooses a few **prototypes**
# for each class and compares every image with them. Two images are alike if
# their features point in the same direction (cosine).
#
# A prototype is an image that many of its class resemble (a high density
# $\rho$) and that is no near copy of a denser one (a low $\eta$). Here are
# the eight of three classes. Nobody looked at a true label to choose them.

# %%
prototypes = all_prototypes(early["features"], given, 10, count=8)
three = (0, 3, 8)
places = []
for digit in three:
    for one in prototypes[digit]:
        distance = (early["features"] - one).abs().sum(dim=1)
        places.append(int(distance.argmin()))
grid = {"columns": 8, "title": "Prototypes of the given labels 0, 3 and 8"}
words = [str(int(noisy.true_labels[place])) for place in places]
marks = is_wrong[places].tolist()
pictures = noisy.images[places]
plots.show(plots.image_grid(pictures, words, marked=marks, **grid))
print(f"{sum(marks)} of these {len(marks)} prototypes are labelled wrong")
assert sum(marks) <= 6

# %% [markdown]
# The score of class $c$ is the mean cosine with its prototypes,
#
# $$\sigma_c = \frac{1}{p_c}\sum_{l=1}^{p_c}
#   \cos\big(G(x),\, G(X_{c,l})\big),\qquad
#   \hat y = \arg\max_c \sigma_c,$$
#
# where $G$ stands for the features. The **corrected label** $\hat y$ is the
# class with the largest score. You may find this described as "cluster random
# images and take the nearest centre". There are no centres: there are chosen
# images, and a mean over all of a class.
#
# **Exercise 8.4** · difficulty ●●○○○ · importance ●●●●○ · 10 minutes


# %%
def prototype_labels(features, prototypes):
    """The class whose prototypes an image resembles most, on average.

    features:   float (n, d)
    prototypes: list of C tensors (p_c, d), one a class; p_c may differ
    returns int64 (n,)
    """
    ### BEGIN SOLUTION
    scores = []
    for some in prototypes:
        f = torch.nn.functional.normalize(features, dim=1)
        p = torch.nn.functional.normalize(some, dim=1)
        scores.append((f @ p.T).mean(dim=1))
    return torch.stack(scores, dim=1).argmax(dim=1)
    ### END SOLUTION


# %%
# hint("8.4")
prototype_labels = check(prototype_labels)

# %%
corrected = prototype_labels(early["features"], prototypes)
changed = corrected != given
good = suspects.precision_and_recall(changed, is_wrong)
recovered = (corrected == noisy.true_labels).float().mean().item()
print(f"labels changed: {int(changed.sum())} for {count} wrong ones")
print(f"precision {good[0]:.1%}, recall {good[1]:.1%}")
print(f"labels that are true: {1 - noisy.noise_rate:.1%} → {recovered:.1%}")
assert min(good) > 0.85
assert recovered > 0.85

# %% [markdown]
# A ranking *and* a threshold without any parameter for the noise: a label is
# suspicious if its image resembles another class more. And a suggestion for
# the right label comes free of charge.
#
# The method corrects the labels after every epoch from the tenth on, and
# trains with $L = (1-\alpha)\,\text{CE}(y) + \alpha\,\text{CE}(\hat y)$,
# $\alpha = 0.5$.

# %%
learner = SelfLearning(0.5, warm_up=10, relabel=prototype_labels)
taught = fit(learner, noisy, epochs=60, **SETTINGS)
shown = {
    "cross entropy, test": plots.percent(plain, "test_accuracy"),
    "self-learning, test": plots.percent(taught, "test_accuracy"),
    "corrected labels that are true": plots.percent(taught, "label_recovery"),
}
title = "Corrected labels from epoch 10"
plots.show(plots.lines(shown, ylabel="%", ylim=(50, 100), title=title))
assert taught.last["test_accuracy"] > plain.last["test_accuracy"] + 0.05

# %% [markdown]
# Well above cross entropy, and yet it sinks. Half of the loss still asks for
# the wrong label, epoch after epoch. The features bend, and the corrections
# with them. The best correction was an early one.
#
# ## Where to draw the line?
#
# Now you decide. Choose a ranking and how many of the most suspicious images
# go. Left: precision and recall. Right: the pictures, the most suspicious and
# the last to go. A frame marks a label that was right: a loss. The diamonds
# are the ranking's own threshold, where it has one.
#
# **Goal:** throw out wrong labels only, or nearly: at least 95 % precision,
# and at least 93 % of the wrong labels gone. With which rankings can it be
# done? With which can it not, wherever you cut?

# %%
from nlcourse.lessons.l08.panel import Ranking, SuspectExplorer
from nlcourse.panels import Goal


def judge(run):
    out = run.history
    words = f"precision {out.precision:.0%}, recall {out.recall:.0%}"
    return out.precision >= 0.95 and out.recall >= 0.93, words


typical = suspects.prototype_doubt(early["features"], given, 10)
lonely = suspects.density_doubt(early["features"], given, 10)
rankings = {
    "AUM, fake class": Ranking(-found.aum(), found.suspects),
    "mean loss": Ranking(film.mean_loss(30)),
    "last loss": Ranking(film.losses[-1]),
    "confident learning": Ranking(doubt, flags),
    "prototypes": Ranking(typical, typical > 0),
    "density": Ranking(lonely, subsets == 2),
}
text = "At least 95 % precision and 93 % recall."
explorer = SuspectExplorer(noisy, rankings, goal=Goal(text, judge))
explorer

# %%
# The same from code, for readers without a kernel.
for name in ("last loss", "prototypes"):
    explorer.try_out(ranking=name, share=0.37)
    print(name, "→", explorer.run.verdict)
assert explorer.tries[-1].history.precision > 0.9
plots.show(explorer.figure())

# %% [markdown]
# ## Five seeds, four kinds of noise
#
# One run proves little. These are **recorded** runs, five seeds each:
# `python results/classroom_suspects.py` makes them anew, in some minutes.
# First the rankings: average precision, in per cent. Here "last loss" is that
# of epoch 30, as in the means; above it was that of epoch 60.

# %%
rows = results.load("classroom_suspects")
KINDS = {
    "sym. 20 %": ("symmetric", 0.2),
    "sym. 40 %": ("symmetric", 0.4),
    "sym. 60 %": ("symmetric", 0.6),
    "asym. 40 %": ("asymmetric", 0.4),
}


def recorded(what, kind, column):
    """The numbers of five seeds, in per cent."""
    name, rate = KINDS[kind]
    which = {"what": what, "noise": name, "rate": rate}
    return 100 * torch.tensor(results.numbers(rows, column, **which))


def row(what, column):
    """One line of a table: mean and standard deviation for each noise."""
    cells = [recorded(what, kind, column) for kind in KINDS]
    told = "".join(f"{v.mean():8.1f} ±{v.std():4.1f}" for v in cells)
    short = what.replace("confident learning", "cleanlab")
    return f"{short:31}{told}"


# %%
RANKINGS = ["AUM", "mean loss", "last loss", "confident learning, 10 epochs"]
RANKINGS += ["confident learning", "prototypes", "density"]
print(f"{'average precision (%)':31}" + "".join(f"{k:>14}" for k in KINDS))
for what in RANKINGS:
    print(row(what, "average_precision"))
for kind in KINDS:
    few, many = (
        recorded(name, kind, "average_precision").mean()
        for name in ("confident learning, 10 epochs", "confident learning")
    )
    assert few > many
    ours = recorded("prototypes", kind, "average_precision").mean()
    assert ours > recorded("last loss", kind, "average_precision").mean()

# %% [markdown]
# On symmetric noise AUM, mean loss and prototypes are excellent, and hardly
# differ. Confident learning comes close **if** its networks stopped early.
#
# On **asymmetric** noise (a 7 called 1, a 3 called 8, and so on: always the
# same partner) everything gets harder. Four of ten sevens are called 1, so
# there is a *pattern* to learn, and networks learn it. The prototypes hold
# out best: most images of a class are still labelled right, and prototypes
# are chosen where a class is dense.
#
# Now each method's **own threshold**, without knowledge of the noise rate.

# %%
OWN = ("AUM, fake class", "confident learning, 10 epochs", "prototypes")
OWN += ("density",)
for column in ("precision", "recall"):
    print(f"{column + ' (%)':31}" + "".join(f"{k:>14}" for k in KINDS))
    for what in OWN:
        print(row(what, column))
    print()
harder = recorded("AUM, fake class", "asym. 40 %", "precision").mean()
assert harder < recorded("AUM, fake class", "sym. 40 %", "precision").mean()

# %% [markdown]
# The fake class throws out too much rather than too little: its recall is high
# everywhere, and its precision pays. It also varies much from seed to seed.
# No wonder: a pass has 117 fakes here, and their 99th percentile hangs on the
# second and third highest.
#
# Precision suffers most of all under asymmetric noise. The AUM paper, too,
# names asymmetric noise as its weak spot, and gives a reason: fake labels then
# lie *lower* than real errors. Do they?

# %%
hard = noise.inject(data, "asymmetric", rate=0.4, seed=SEED)
watcher = AUM(30)
fit(watcher, hard, epochs=30, **SETTINGS)
for name, method, of in (
    ("symmetric", found, noisy),
    ("asymmetric", watcher, hard),
):
    aum, fakes = method.aum(), torch.cat(method.threshold_aum())
    parts = {
        "fake": fakes,
        "wrong": aum[of.is_wrong],
        "right": aum[~of.is_wrong],
    }
    middle = {part: values.median().item() for part, values in parts.items()}
    words = ", ".join(f"{part} {value:5.2f}" for part, value in middle.items())
    print(f"{name:10} median AUM: {words}")
assert middle["fake"] < middle["wrong"] < middle["right"]

# %% [markdown]
# They do. Errors with a pattern are easier to learn than fakes without one:
# the hill of the wrong labels moves towards that of the right ones, and any
# line between them costs a lot.
#
# And what is it worth to **train** without them? Test accuracy at the end.
# *Oracle* is cross entropy on the right labels alone.

# %%
CUT = "confident learning, 10 epochs, retrained"
TRAINED = ["cross-entropy", "aum", CUT, "confident learning, retrained"]
TRAINED += ["curriculum", "self-learning", "oracle"]
for column in ("last", "best"):
    print(f"test, {column + ' (%)':25}" + "".join(f"{k:>14}" for k in KINDS))
    for what in TRAINED:
        print(row(what, column))
    print()
for kind in KINDS:
    plain_end = recorded("cross-entropy", kind, "last").mean()
    for what in ("aum", "self-learning", "oracle"):
        assert recorded(what, kind, "last").mean() > plain_end + 3
worst = recorded("aum", "asym. 40 %", "last").min()
assert worst < recorded("cross-entropy", "asym. 40 %", "last").min()

# %%
# Of the labels learned from in the last epoch, how many are true?
print(f"{'label precision, last (%)':31}" + "".join(f"{k:>14}" for k in KINDS))
for what in TRAINED[1:5]:
    print(row(what, "label_precision"))
print(f"{'label recovery, last (%)':31}")
print(row("self-learning", "label_recovery"))

# %% [markdown]
# Throwing out works. With 20 and 40 % symmetric noise AUM ends near its best
# and far above cross entropy. It does not reach the oracle: some wrong labels
# stay (see the label precision), and some right ones are lost.
#
# Look at the spread in the last column. One of the five seeds threw out more
# than a third of the right labels and ended **below** cross entropy. There
# self-learning, which throws nothing out, is ahead. And cleanlab's cut is
# worth as much as its predictions: 10 epochs a fold against 30.
#
# "Best" takes the epoch that is best on the test set. Nobody has that in
# practice; look at "last".
#
# ## The labels of digits itself
#
# Now the real question: no noise of ours. Are there wrong labels in `digits`
# as it is? We let two rankings vote that know little of each other: the AUM,
# and out-of-sample predictions. Here are those on which both agree: among the
# first 25 of each.

# %%
own = WatchedCrossEntropy()
own_film = suspects.Film(own)
fit(own, data, epochs=30, on_epoch=own_film, **SETTINGS)
p = suspects.out_of_sample_probabilities(data, folds=5, epochs=15, **SETTINGS)
by_margin = (-own_film.aum()).argsort(descending=True)[:25]
by_others = suspects.label_losses(p, data.labels)
agreed = set(by_margin.tolist())
ranked = suspects.suspect_list(data.labels, by_others, probabilities=p)
both = [one for one in ranked[:25] if one["position"] in agreed]
words = [f"{r['given_label']}, or {r['suggested_label']}?" for r in both]
pictures = data.images[[one["position"] for one in both]]
grid = {"columns": 6, "title": "digits as it is: label, or suggestion?"}
plots.show(plots.image_grid(pictures, words, **grid))
print(f"{len(both)} of {len(data.labels)} images are suspects of both")
assert 3 <= len(both) <= 25

# %% [markdown]
# Look at them before you read on. How many labels would *you* change?
#
# What we see: for most of them the label is right and the writing is odd: a 1
# with a long flag, a 4 like a fork, an 8 whose loops are closed, and a 0 that
# is simply a 0. Of a few nobody can tell, at 8 x 8 pixels, what the writer
# meant: is the first a 5 or a 9? One is called 3 and looks more like a 7 to
# us; there we would ask. We found **none** where we would swear that the label
# is wrong. So the list does not say
# *wrong*. It says **look here first**. Whoever threw these out would remove
# the rare hands from the training set and call it cleaning.
#
# ## How do I get the list of suspicious examples?
#
# Users of published code ask this again and again. For your own data:
#
# 1. out-of-sample predictions, from a training that stops early;
# 2. a ranking, and a threshold you trust (cleanlab's, the fake class's, or
#    as many as you have time to look at);
# 3. a file with position, given label and suggestion, most suspicious first.
#
# That is three calls. The CSV opens in any spreadsheet.

# %%
import tempfile
from pathlib import Path

flagged = flags if flags is not None else found.suspects
listed = suspects.suspect_list(
    given, doubt, flags=flagged, probabilities=outside
)
folder = Path(tempfile.mkdtemp())  # choose your own
path = suspects.save_suspects(folder / "suspects.csv", listed)
print(*path.read_text().splitlines()[:6], sep="\n")
print(f"... {len(listed)} rows")
true = noisy.true_labels[[one["position"] for one in listed]]
hits = (true == torch.tensor([r["suggested_label"] for r in listed])).float()
print(f"{hits.mean():.0%} of the suggestions are the true label")
assert hits.mean() > 0.75

# %% [markdown]
# Then **look**. Correct what is wrong, keep what is merely odd, and measure
# on held-out labels that a person has checked. For a large set look at a
# hundred random rows of the list: the share of real errors among them *is*
# its precision.
#
# ## Now with the package
#
# ```python
# fit(AUM(30), noisy, epochs=90)                    # find, drop, retrain
# fit(CurriculumNet(), noisy, epochs=60)            # dense first
# fit(SelfLearning(), noisy, epochs=60)             # correct by prototypes
# p = suspects.out_of_sample_probabilities(noisy, epochs=10)
# flags, doubt = suspects.confident_learning(noisy.labels, p)  # cleanlab
# ```

# %%
rest = suspects.without(noisy, flagged)
again = fit(CrossEntropy(), rest, epochs=60, **SETTINGS)
print(f"{len(rest.labels)} images left, {rest.noise_rate:.1%} of them wrong")
print("cross entropy on the rest:", again)
assert again.last["test_accuracy"] > plain.last["test_accuracy"] + 0.05

# %% [markdown]
# ## Beside the papers
#
# | the papers | we, on digits |
# |---|---|
# | AUM ranks wrong labels low | yes; so does the mean loss |
# | AUM, CIFAR-10, sym. 20 %: error 25.0 → 9.8 % | table above |
# | AUM, CIFAR-10, sym. 40 %: error 43.3 → 12.5 % | table above |
# | AUM is weak on asymmetric noise: fakes lie too low | yes, both |
# | dense images of a class are mostly right | yes |
# | CurriculumNet's third stage helps | no: it memorizes again |
# | prototypes correct most labels | yes; best ranking for asymmetric noise |
# | confident learning needs out-of-sample predictions | yes, early ones |
#
# (The error rates of AUM are taken from a summary of the paper. Theirs is
# ResNet-32 with 32 x 32 colour images. Ours are digits and a small network:
# compare directions, not numbers.)

# %% [markdown]
# ## Think about it
#
# **1.** AUM leaves the first epoch out. Why?
#
# <details><summary>Answer</summary>
#
# In it the margins are mostly those of random weights. They say nothing about
# the labels.
#
# </details>
#
# **2.** Why does the fake class get *random* images, not wrongly labelled
# ones?
#
# <details><summary>Answer</summary>
#
# Nobody knows who is wrongly labelled: that is the question. Any image is
# wrong in a class that does not exist. But these labels are wrong *without a
# pattern*. Where the true noise has one (a 7 is called 1), the real errors
# are easier to learn than the fakes, or the fakes harder, and the threshold
# does not fit.
#
# </details>
#
# **3.** Your set has ten thousand images of one class and fifty of another.
# Which of the five rankings treats the small class unfairly?
#
# <details><summary>Answer</summary>
#
# Loss, margin and out-of-sample predictions: a network has seen little of the
# small class and doubts all of it. Density and prototypes look inside each
# class; confident learning has a threshold of its own for each class.
#
# </details>
#
# **4.** You throw out all suspects and the validation error falls, measured on
# a held-out part that you cleaned **with the same list**. What is wrong?
#
# <details><summary>Answer</summary>
#
# You have also thrown the hard images out of the examination. Any test would
# look easier. Clean test labels by looking at them, or not at all.
#
# </details>
#
# **5.** Why does an early stop improve out-of-sample predictions, although
# the network has never seen the image?
#
# <details><summary>Answer</summary>
#
# It has seen its *neighbours*, four of ten with wrong labels. A network that
# has learned those by heart repeats them for whatever lies near.
#
# </details>

# %% [markdown]
# ## What to remember
#
# * When you ask matters most: after memorization the loss knows little. A
#   mean over the training, or predictions from outside, remember.
# * AUM: the logit of the label minus the largest other, averaged. A fake
#   class gives it a threshold.
# * cleanlab's default score orders like the loss. Its own part is the
#   threshold, and it needs good out-of-sample predictions.
# * Density and prototypes look at features. Take them early.
# * Noise with a pattern is hard for all of them.
# * A suspect is not a convict. Look at the list.
#
# ## References
#
# * G. Pleiss, T. Zhang, E. Elenberg and K. Weinberger, *Identifying
#   Mislabeled Data using the Area Under the Margin Ranking*, NeurIPS 2020,
#   arXiv 2001.10528. Their code: asappresearch/aum.
# * S. Guo et al., *CurriculumNet: Weakly Supervised Learning from Large-Scale
#   Web Images*, ECCV 2018, arXiv 1808.01097.
# * J. Han, P. Luo and X. Wang, *Deep Self-Learning From Noisy Labels*, ICCV
#   2019, arXiv 1908.02160.
# * C. Northcutt, L. Jiang and I. Chuang, *Confident Learning: Estimating
#   Uncertainty in Dataset Labels*, 2021, arXiv 1911.00068. Their library:
#   cleanlab.
#
# **Next:** lesson 09 keeps every image and lets the network rewrite the
# labels, all of them, while it learns.
