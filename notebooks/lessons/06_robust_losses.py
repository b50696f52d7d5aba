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
# # 06 Robust losses and regularizers
#
# A teacher corrects a pupil. The louder the pupil disagrees, the harder the
# teacher pulls. That is cross entropy. It is a good rule, as long as the
# teacher is right.
#
# **After this lesson you will be able to**
#
# * say how hard a loss pulls at an example, and read its robustness off that;
# * write four remedies (GCE, symmetric cross entropy, forward correction,
#   mixup) and train with them;
# * choose one for a kind of noise, and name what it costs on clean labels.
#
# **Time:** about 80 minutes, four exercises, one live experiment. You need
# lesson 00; lesson 03 helps.
#
# The main paper: Zhang and Sabuncu, *Generalized Cross Entropy Loss for
# Training Deep Neural Networks with Noisy Labels*, NeurIPS 2018, arXiv
# 1805.07836. Its relatives are in the references.

# %% [markdown]
# ## Predict first
#
# We replace cross entropy by a loss that **cannot be fooled** by symmetric
# noise: there is a theorem. We change nothing else. Four of ten labels are
# wrong. What happens?
#
# * (a) Nearly the accuracy of clean labels, whatever the seed.
# * (b) It hardly memorizes, but it learns slowly, and may never learn some
#   class at all.
# * (c) It memorizes as before: a network can fit anything.
# * (d) It depends on the kind of noise more than on the loss.
#
# Write your guess down, with a reason. More than one letter is allowed.

# %%
import torch
from torch.nn import functional as F

from nlcourse import datasets, losses, noise
from nlcourse.methods import CrossEntropy
from nlcourse.methods.robust import RobustLoss
from nlcourse.panels import plots
from nlcourse.training import Options, fit
from nlcourse.training.batches import Images

data = datasets.load("digits")
noisy = noise.inject(data, "symmetric", rate=0.4, seed=0)
print(f"{noisy.noise_rate:.1%} of the {len(noisy.labels)} labels are wrong")

# %% [markdown]
# ## One line makes the difference
#
# The same network, the same data, the same steps. Only the loss changes. The
# second line below uses the loss that you will write in a few minutes.

# %%
SETTINGS = {
    "epochs": 40,
    "lr": 0.05,
    "seed": 0,
    "options": Options(batch_size=64),
}

plain = fit(CrossEntropy(), noisy, **SETTINGS)
robust = fit(
    RobustLoss(losses.generalized_cross_entropy, q=0.7), noisy, **SETTINGS
)
print("cross entropy            ", plain)
print("generalized cross entropy", robust)

# %%
plots.show(
    plots.learning_curves(
        {"cross entropy": plain, "generalized": robust},
        title="40 % symmetric noise: two losses",
    )
)
gain = robust.mean_last("test_accuracy", 10) - plain.mean_last(
    "test_accuracy", 10
)
print(f"mean of the last ten epochs: {100 * gain:+.1f} points")
assert gain > 0.1, "the robust loss should end well above"

# %% [markdown]
# The left curve of cross entropy rises and falls, as in every lesson so far.
# The other one stays up. On the right you see why: it does not learn the
# wrong labels by heart.
#
# There is no second network here, no selection, no noise rate. What has
# changed?

# %% [markdown]
# ## How hard does a loss pull?
#
# A step of training changes the logits. The gradient of the loss says how
# much. Let $z_y$ be the logit of the **given** label and $p$ its probability.
# We call
#
# $$\text{pull} = -\frac{\partial L}{\partial z_y}$$
#
# how hard an example pulls the network towards its label. For cross entropy
# it is $1 - p$. The more surprised the network, the harder the pull.
#
# Wrong labels are surprising. So they pull hardest. Let us look.


# %%
def probability_of_label(method, dataset):
    """Probability of each training example's given label, float (n,)."""
    images = Images(dataset.images, dataset.mean, dataset.std)
    with torch.no_grad():
        rows = method.cpu()(images.get(slice(None)))
    return rows[torch.arange(len(dataset.labels)), dataset.labels]


young = CrossEntropy()
fit(young, noisy, **SETTINGS | {"epochs": 3})
p = probability_of_label(young, noisy)
right, wrong = p[~noisy.is_wrong], p[noisy.is_wrong]
print(
    f"after 3 epochs, median p of right labels {right.median():.2f}, "
    f"of wrong labels {wrong.median():.2f}"
)
assert right.median() > 4 * wrong.median()

# %%
figure, (axes,) = plots.new_figure()
common = {"bins": 25, "range": (0, 1), "lw": 2, "histtype": "step"}
axes.hist(right, label="right label", ls="--", color="black", **common)
axes.hist(wrong, label="wrong label", hatch="//", **common)
axes.set(xlabel="p of the given label, after 3 epochs", ylabel="examples")
axes.legend()
words = (
    "Histogram of the probability of the given label. Right labels have "
    f"the median {right.median():.2f}, wrong ones {wrong.median():.2f}."
)
plots.show(figure, alt=words)

# %% [markdown]
# The young network already knows a lot. Most wrong labels stand on the left,
# where $p$ is small, and cross entropy pulls hardest exactly there.
#
# Now compare three losses. `label_pull` asks autograd for the pull, at any
# $p$. You know two of them; the third is the **mean absolute error**,
# $\sum_k |y_k - p_k| = 2(1-p)$.


# %%
def cross_entropy(logits, labels):
    return F.cross_entropy(logits, labels, reduction="none")


THREE = {
    "cross entropy": cross_entropy,
    "generalized, q = 0.7": losses.generalized_cross_entropy,
    "mean absolute error": losses.mean_absolute_error,
}
grid = torch.linspace(0.01, 0.99, 50)
axis = {"x": grid.tolist(), "xlabel": "probability p of the given label"}
pulls = {name: losses.label_pull(loss, grid) for name, loss in THREE.items()}
shown = {name: pull.tolist() for name, pull in pulls.items()}
plots.show(plots.lines(shown, **axis, ylabel="pull"))

# %% [markdown]
# Cross entropy pulls hardest on the left, at the labels that look wrong. The
# other two bend down to **zero** there. They forgive.
#
# How much of the whole pull comes from wrong labels? We have $p$ for every
# training example, so we can add it up.

# %%
share = {}
for name, loss in THREE.items():
    pull = losses.label_pull(loss, p.clamp(1e-6, 1 - 1e-6))
    share[name] = (pull[noisy.is_wrong].sum() / pull.sum()).item()
    print(f"{name:21} {share[name]:.0%} of the pull is by wrong labels")
assert share["cross entropy"] > 0.5 > share["generalized, q = 0.7"]

# %% [markdown]
# Fewer than half of the labels are wrong, but under cross entropy they do
# more than half of the pulling. Under the other two they are in the
# minority.
#
# ## A loss that cannot be fooled
#
# Take the mean absolute error and add it up over **all** labels that an
# example could have had:
#
# $$\sum_{k=1}^{C} 2(1-p_k) = 2C - 2\sum_k p_k = 2(C-1).$$
#
# The network has no say in it! A loss with this property is called
# **symmetric**. Cross entropy does not have it.

# %%
generator = torch.Generator().manual_seed(0)
every = torch.arange(10)
print("sum over all ten labels, for four random predictions")
for _ in range(4):
    logits = 3 * torch.randn(1, 10, generator=generator).repeat(10, 1)
    mae = losses.mean_absolute_error(logits, every).sum()
    ce = cross_entropy(logits, every).sum()
    print(f"mean absolute error {mae:7.3f}     cross entropy {ce:7.3f}")
    assert abs(mae - 18) < 1e-3

# %% [markdown]
# Why does it matter? With symmetric noise of rate $\eta$ the label is right
# with probability $1-\eta$, and each wrong one has $\eta/(C-1)$. The expected
# loss of an example is then
#
# $$(1-\eta)\,L(y) + \frac{\eta}{C-1}\sum_{k\ne y} L(k)
# = \Big(1-\tfrac{\eta C}{C-1}\Big) L(y) + \text{const}.$$
#
# The clean loss times a number, plus a constant. As long as the number is
# positive, **the best network for noisy labels is the best for clean ones**
# (Ghosh et al. 2017). That is the theorem. Now the experiment.

# %%
images = Images(data.test_images, data.mean, data.std).get(slice(None))
print("seed  last ten   accuracy on the test images of 0, 1, 2, ..., 9")
lost = []
for seed in range(5):
    method = RobustLoss(losses.mean_absolute_error)
    dirty = noise.inject(data, "symmetric", 0.4, seed=seed)
    mae = fit(method, dirty, **SETTINGS | {"seed": seed}, progress=False)
    with torch.no_grad():
        answers = method.cpu()(images).argmax(dim=1)
    hits = [
        (answers == digit)[data.test_labels == digit].float().mean().item()
        for digit in range(10)
    ]
    lost.append(min(hits) < 0.5)
    last = mae.mean_last("test_accuracy", 10)
    print(f"{seed:4d} {last:9.1%}  " + "".join(f"{hit:5.0%}" for hit in hits))
assert any(lost), "some seed should lose a class"

# %% [markdown]
# Look for zeros. The theorem speaks of the best network. It says nothing about
# **getting there**. At the start every $p$ is near one tenth, where this loss
# hardly pulls. A class with a bad start may not get off the ground before all
# others are settled. It is a lottery: the answer to our first question has to
# do with **(b)**.
#
# ## In between: generalized cross entropy
#
# Zhang and Sabuncu connect the two ends with one number $q$:
#
# $$L_q = \frac{1 - p_y^{\,q}}{q}, \qquad 0 < q \le 1.$$
#
# At $q = 1$ it is half of the mean absolute error. For $q \to 0$ it becomes
# cross entropy. Its gradient is that of cross entropy times $p_y^{\,q}$: the
# weight of an example. The paper takes $q = 0.7$ everywhere.
#
# **Exercise 6.1** · difficulty ●●●○○ · importance ●●●●● · 12 minutes
#
# One loss per example. Mind the far left: a network may give a label a
# probability so small that the computer writes 0. The slope of $p^q$ is
# infinite there. With $\log p$ you are safe, and
# $p^q = e^{\,q \log p}$.


# %%
def generalized_cross_entropy(logits, labels, q=0.7):
    """(1 - p^q) / q, with p the probability of the label.

    logits: float (n, C)
    labels: int64 (n,), the given labels
    q:      between 0 (cross entropy) and 1 (half of the absolute error)
    returns float (n,), one loss per example
    """
    ### BEGIN SOLUTION
    log_p = logits.log_softmax(dim=1)[torch.arange(len(labels)), labels]
    return (1 - torch.exp(q * log_p)) / q
    ### END SOLUTION


# %%
from nlcourse.checks import check, hint

# hint("6.1")
generalized_cross_entropy = check(generalized_cross_entropy)

# %%
# Is the weight really p^q? We divide the pulls, with your function.
weights = {}
for q in (0.2, 0.5, 0.7, 1.0):
    mine = losses.label_pull(generalized_cross_entropy, grid, q=q)
    weight = mine / pulls["cross entropy"]
    weights[f"q = {q:g}"] = weight.tolist()
    assert torch.allclose(weight, grid**q, atol=1e-3)
words = "weight: p^q"
plots.show(plots.lines(weights, **axis, ylim=(0, 1), ylabel=words))

# %% [markdown]
# A larger $q$ is more forgiving. It forgives hard, rightly labelled examples
# too: nobody can tell the two apart by $p$ alone. You will look for the best
# $q$ in the explorer.
#
# ## Cutting off: the truncated loss
#
# The paper goes one step further. If $p \le k$ (they take $k = 0.5$), the
# example gets no weight at all. At the start that would be every example, so
# it begins after a third of the training. Then it is a **selection**, like in
# Co-teaching, by the network's own opinion, and we can ask for its label
# precision.

# %%
from nlcourse.methods.robust import TruncatedGCE

cut = fit(TruncatedGCE(q=0.7, k=0.5, start=13, every=4), noisy, **SETTINGS)
print("GCE           ", robust)
print("GCE, truncated", cut)
before = robust.mean_last("test_accuracy", 10)
after = cut.mean_last("test_accuracy", 10)
print(
    f"mean of the last ten: {before:.1%} and {after:.1%}; label precision "
    f"of the kept examples {cut.last['label_precision']:.1%}"
)
assert after > before - 0.01

# %% [markdown]
# ## Two terms: symmetric cross entropy
#
# Cross entropy is $-\sum_k y_k \log p_k$. Wang et al. (2019) add the same
# with the roles **swapped**, $-\sum_k p_k \log y_k$. The label is 0 for most
# classes, and $\log 0$ is put as a number, $A$ (here `log_clip`, -4):
#
# $$L = \alpha\,\mathrm{CE} + \beta\,\mathrm{RCE}, \qquad
# \mathrm{RCE} = -\sum_k p_k \log y_k = -A\,(1-p_y).$$
#
# The second form holds for a one-hot label. It is the mean absolute error
# again, times a number. Cross entropy learns fast, its partner is robust.
#
# **Exercise 6.2** · difficulty ●●●○○ · importance ●●●●○ · 10 minutes


# %%
def symmetric_cross_entropy(logits, labels, alpha, beta, log_clip=-4.0):
    """Weigh cross entropy (alpha) and reverse cross entropy (beta).

    logits:      float (n, C)
    labels:      int64 (n,)
    alpha, beta: weights of the two terms
    log_clip:    what stands for log 0 in the reverse term, below 0
    returns float (n,), one loss per example
    """
    ### BEGIN SOLUTION
    log_p = logits.log_softmax(dim=1)[torch.arange(len(labels)), labels]
    reverse = -log_clip * (1 - log_p.exp())
    return alpha * -log_p + beta * reverse
    ### END SOLUTION


# %%
# hint("6.2")
symmetric_cross_entropy = check(symmetric_cross_entropy)

# %%
sce = fit(
    RobustLoss(symmetric_cross_entropy, alpha=0.1, beta=1.0), noisy, **SETTINGS
)
print("cross entropy          ", plain)
print("symmetric cross entropy", sce)
assert sce.mean_last() > plain.mean_last() + 0.05

# %% [markdown]
# Better than cross entropy. And not as good as GCE here: a part of cross
# entropy is left, and it goes on pulling at the wrong labels for as long as
# we train.
#
# **Active and passive.** Ma et al. (2020) found another way to a symmetric
# loss: divide any loss by its sum over all labels. *Normalized* cross entropy
# $\log p_y / \sum_k \log p_k$ sums to 1 over the labels. It pulls the right
# class up (active) but learns slowly alone. The mean absolute error pushes
# the others down (passive). Both together are robust **and** learn:
# `losses.active_passive_loss`. You will meet it in the big table.

# %% [markdown]
# ## Explore
#
# On top you see the pull of the chosen loss. It follows the sliders at once.
# Start trains with it.
#
# **Your goal:** leave the noise at symmetric 60 %. Bring the mean test
# accuracy of the last ten epochs above 88 % with *generalized cross
# entropy*. Only $q$ moves. Watch what happens on both sides of the best one.

# %%
from nlcourse.lessons.l06.panel import LOSSES, LossChoice, LossExplorer
from nlcourse.panels import Goal, Parameter

mine = LossChoice(
    "generalized cross entropy",
    generalized_cross_entropy,
    (Parameter("q", 0.3, 0.05, 1.0, 0.05),),
)


def judge(run):
    asked = run.settings
    if asked.noise_kind != "symmetric" or abs(asked.noise_rate - 0.6) > 0.01:
        return False, "the goal is for symmetric noise of 60 %"
    test = run.history.mean_last("test_accuracy", 10)
    known = run.history.last["wrong_as_given"]
    return test > 0.88, f"last ten {test:.1%}, memorized {known:.0%}"


# %%
goal = Goal(
    "Symmetric noise of 60 %: mean test accuracy of the last ten "
    "epochs above 88 %.",
    judge,
)
explorer = LossExplorer(
    (mine, *(one for one in LOSSES if one.name != mine.name)),
    noise_kinds=("symmetric", "asymmetric", "pairflip"),
    noise_rate=0.6,
    epochs=25,
    hide=("lr",),
    goal=goal,
)
explorer

# %% [markdown]
# Three tries from code, so that you see a picture even if you only read: too
# little $q$, too much, and one in between.

# %%
for q in (0.3, 1.0, 0.7):
    print(f"q = {q:g}: {explorer.try_out(q=q).verdict}")
plots.show(explorer.pull_figure(q=0.7))
plots.show(explorer.figure())
few, many, between = (run.history for run in explorer.tries)
assert few.last["wrong_as_given"] > between.last["wrong_as_given"] + 0.1
assert between.mean_last() > few.mean_last() + 0.05
assert many.last["wrong_as_given"] < few.last["wrong_as_given"] - 0.1

# %% [markdown]
# A small $q$ memorizes. A large one does not. But $q = 1$ is half of the mean
# absolute error, with its lottery: try a few values between 0.6 and 1. Then
# try *symmetric cross entropy*. And switch the noise to *asymmetric* at 40 %:
# does the goal's $q$ still help?
#
# ## When the noise has structure
#
# Symmetric losses rest on a promise: all wrong classes are equally likely.
# People do not make such mistakes. They confuse a 7 with a 1, not with a 0.
# With **asymmetric** noise the wrong labels of a class agree with each other.
#
# Suppose we know *how* labels go wrong: the transition matrix $T$, row = true
# class (lesson 03). Then we need no forgiving loss. We can **explain** the
# given label: the network says how likely each true class is, $T$ says which
# label it then gets. Summed over all true classes, label $j$ has the
# probability
#
# $$P(\text{given} = j) = \sum_i p_i\,T_{ij}, \qquad
# L = -\log \sum_i p_i\,T_{i\,y}.$$
#
# **Exercise 6.3** · difficulty ●●●○○ · importance ●●●●○ · 10 minutes
#
# The *forward correction* of Patrini et al. (2017). Check for yourself: with
# the identity matrix it has to be plain cross entropy.


# %%
def forward_corrected_cross_entropy(logits, labels, matrix):
    """Minus the log probability of the GIVEN label.

    logits: float (n, C), of the true class
    labels: int64 (n,), the given labels
    matrix: float (C, C), row = true class, column = given label
    returns float (n,), one loss per example
    """
    ### BEGIN SOLUTION
    given = logits.softmax(dim=1) @ matrix
    return -given[torch.arange(len(labels)), labels].log()
    ### END SOLUTION


# %%
# hint("6.3")
forward_corrected_cross_entropy = check(forward_corrected_cross_entropy)

# %% [markdown]
# Asymmetric noise: 40 % of the 7s are called 1, of the 2s 7, of the 3s 8, and
# 5 and 6 are taken for each other. We train cross entropy, GCE, and your
# correction, first with the **true** matrix, then with one that it
# **estimates** from its own predictions after five epochs.

# %%
from nlcourse.methods import ForwardCorrection

skewed = noise.inject(data, "asymmetric", rate=0.4, seed=0)
true_matrix = noise.asymmetric_matrix("digits", 0.4)
informed = ForwardCorrection(true_matrix, loss=forward_corrected_cross_entropy)
guessing = ForwardCorrection(loss=forward_corrected_cross_entropy)
gce = RobustLoss(generalized_cross_entropy, q=0.7)
on_skewed = {}
for name, method in {
    "cross entropy": CrossEntropy(),
    "GCE": gce,
    "forward, true matrix": informed,
    "forward, estimated": guessing,
}.items():
    on_skewed[name] = fit(method, skewed, **SETTINGS)
    last = on_skewed[name].mean_last("test_accuracy", 10)
    print(f"{name:21} last ten epochs {last:.1%}")

# %%
plots.show(plots.learning_curves(on_skewed, title="40 % asymmetric noise"))
told = on_skewed["forward, true matrix"].mean_last("test_accuracy", 10)
ce = on_skewed["cross entropy"].mean_last("test_accuracy", 10)
assert told > ce + 0.03, "knowing the matrix should help"

# %% [markdown]
# Both corrections beat cross entropy. How much the true matrix is ahead of the
# estimated one depends on the seed; the big table below has five. Here is the
# estimate.

# %%
from nlcourse.noise.estimation import matrix_error

estimate = guessing.matrix.cpu()
plots.show(
    plots.matrix(
        estimate, data.class_names, title="Estimated; row = true class"
    )
)
errors = matrix_error(estimate, true_matrix)
worst = int(errors.argmax())
print(
    f"mean error of a row {errors.mean():.2f}, worst: true class {worst} "
    f"with {errors[worst]:.2f}"
)

# %% [markdown]
# The estimate trusts that for each class some image is beyond doubt, and
# that the network is honest about it. So few images a class are a hard place
# for that. Lesson 03 shows when it works.
#
# ## Two theorems, two prices
#
# **Backward.** One can also *undo* the noise: $T^{-1}$ times the vector of
# losses. Its mean over the noise is exactly the clean loss. But it can be
# **negative, without end**: a network that makes its logits larger gets more
# and more. The row *backward, true matrix* of the big table shows what comes
# of it.
#
# **The determinant** (Xu et al. 2019). Count in a table $U$ how often label
# $i$ meets prediction $j$. Noise that depends on the class only multiplies it
# by $T$, and
# $$\log|\det(U T)| = \log|\det U| + \log|\det T| .$$
# The last term is a constant. The same network is best whatever $T$ is, and
# nobody has to know $T$. The price: it is **one number for a batch**. It
# wants large batches, tiny steps and a network that has begun with cross
# entropy. Near a determinant of 0 its gradient explodes.

# %% [markdown]
# ## Changing the target
#
# The other family leaves cross entropy alone and changes what it aims at.
#
# * **Bootstrapping** (Reed et al. 2015): $\beta$ of the label plus
#   $1-\beta$ of the network's own opinion.
# * **Label smoothing**: $1-\varepsilon$ of the label, the rest for all.
# * **mixup** (Zhang et al. 2018): mixed pictures with mixed labels.
#
# Can smoothing undo noise? Redraw 40 % of the labels of the 3s from all ten
# classes, and average their one-hot rows.

# %%
threes = torch.full((20_000,), 3)
redraw = noise.symmetric_matrix(10, 0.4, include_true=True)
drawn = noise.corrupt(threes, redraw, torch.Generator().manual_seed(0))
average = F.one_hot(drawn, 10).float().mean(dim=0)
smooth = 0.6 * F.one_hot(torch.tensor(3), 10) + 0.4 / 10
print("mean noisy label ", " ".join(f"{v:.2f}" for v in average))
print("smoothed, eps 0.4", " ".join(f"{v:.2f}" for v in smooth))
assert (average - smooth).abs().max() < 0.02

# %% [markdown]
# They are the same. Noise **is** smoothing, on average. So more smoothing
# cannot take it away; it only keeps the network from being too sure.
#
# ## mixup
#
# Take two training examples and a share $\lambda$ from
# $\mathrm{Beta}(\alpha,\alpha)$, and train on their mixture:
#
# $$\tilde x = \lambda' x_i + (1-\lambda') x_j, \qquad
# \tilde y = \lambda' y_i + (1-\lambda') y_j, \qquad
# \lambda' = \max(\lambda, 1-\lambda).$$
#
# The labels $y$ are rows now, with one 1 in each. The fold
# $\max(\lambda, 1-\lambda)$ makes the first example the larger part. The
# mixup paper does without; ELR+ and DivideMix need it (lessons 10 and 11).
#
# **Exercise 6.4** · difficulty ●●○○○ · importance ●●●●○ · 8 minutes
#
# Write the mixing. Who is mixed with whom, and the share, are given.


# %%
def mix_pairs(images, rows, partner, share):
    """Mix every example with its partner.

    images:  float (n, ...)
    rows:    float (n, C), labels as rows that sum to 1
    partner: int64 (n,), the position of each example's partner
    share:   lambda, between 0 and 1, before the fold
    returns (mixed images, mixed rows), in the shapes of the inputs
    """
    ### BEGIN SOLUTION
    share = max(share, 1 - share)
    mixed_images = share * images + (1 - share) * images[partner]
    mixed_rows = share * rows + (1 - share) * rows[partner]
    return mixed_images, mixed_rows
    ### END SOLUTION


# %%
# hint("6.4")
mix_pairs = check(mix_pairs)

# %%
some = data.images[:8]
rows = F.one_hot(data.true_labels[:8], 10).float()
partner = torch.arange(8).roll(1)
pictures, captions = [], []
for share in (1.0, 0.8, 0.5):
    mixed, soft = mix_pairs(some, rows, partner, share)
    pictures.append(mixed)
    for row in soft:
        parts = [f"{row[c]:.1f} of {c}" for c in row.nonzero().flatten()]
        captions.append("\n".join(parts))
plots.show(
    plots.image_grid(
        torch.cat(pictures),
        captions,
        columns=8,
        title="Share 1, 0.8 and 0.5, with labels",
    )
)

# %% [markdown]
# What does a network learn from this? Between two images it should change its
# mind **evenly**. To memorize a wrong label it would need a sharp bump around
# one image. Mixtures forbid bumps. The larger $\alpha$, the more often both
# parts are nearly equal, and the stronger the medicine.

# %%
from nlcourse.methods.mixup import Mixup

mixed = {"cross entropy": plain}
for alpha in (1.0, 8.0):
    method = Mixup(alpha, mix=mix_pairs)
    mixed[f"mixup, alpha {alpha:g}"] = fit(method, noisy, **SETTINGS)
plots.show(plots.learning_curves(mixed, title="40 % symmetric noise"))
ends = [history.mean_last("test_accuracy", 10) for history in mixed.values()]
print("mean of the last ten:", ", ".join(f"{end:.1%}" for end in ends))
assert ends[0] < ends[1] < ends[2]

# %% [markdown]
# ## The honest baseline
#
# Every curve of cross entropy has a good moment. Why not stop there? The
# test labels must not tell us when. But a part of the **noisy** training
# labels may: hold one tenth back and take the epoch that predicts *them*
# best. They are as noisy as the rest; a right answer still hits more of them
# than a wrong one.

# %%
from dataclasses import replace


def hold_back(dataset, seed):
    """The data without a random tenth, and the positions of that tenth."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(dataset.labels), generator=generator)
    kept, out = order.tensor_split([int(0.9 * len(order))])
    return replace(
        dataset,
        images=dataset.images[kept],
        labels=dataset.labels[kept],
        true_labels=dataset.true_labels[kept],
    ), out


# %%
part, out = hold_back(noisy, seed=0)
looked = Images(noisy.images[out], noisy.mean, noisy.std).get(slice(None))
stopping, scores = CrossEntropy(), []


def look(history):
    """Called after each epoch: accuracy on the noisy labels held back."""
    with torch.no_grad():
        answers = stopping(looked.to(stopping.selected.device)).argmax(dim=1)
    scores.append((answers.cpu() == noisy.labels[out]).float().mean().item())


early = fit(stopping, part, on_epoch=look, **SETTINGS)

# %%
test, best = early["test_accuracy"], scores.index(max(scores))
print(f"best on the held-back labels: epoch {best + 1}, {scores[best]:.1%}")
print(f"test accuracy there {test[best]:.1%}, at the end {test[-1]:.1%}")
assert test[best] > test[-1] + 0.1
both = {"test images": test, "held-back noisy labels": scores}
plots.show(plots.lines(both, ylim=(0, 1), ylabel="accuracy"))

# %% [markdown]
# No new loss, no parameter, no noise rate. Whoever proposes a robust loss has
# to beat **this**. Many papers compare with the last epoch of cross entropy
# only.

# %% [markdown]
# ## The big table
#
# Every method of this lesson, clean and noisy, five seeds: too long for a
# class. The next cell **loads recorded runs** and trains nothing. They were
# made by `python results/classroom_losses.py`: digits, this network, 50
# epochs. The number is the mean of the last ten epochs; for early stopping
# that of its epoch.
#
# The parameters are those of the papers, with four exceptions. The weights of
# l1 and l2, and the epochs before the estimate, are ours. The determinant has
# batches of 260 and, after ten epochs of cross entropy, a hundredth of the
# rate. The active-passive losses take the paper's weights with the full
# absolute error and $A = -4$; the authors used half of it and $A = -9.21$.

# %%
from collections import Counter

from nlcourse.experiments import results

table = results.load("classroom_losses")
size = Counter(row["seed"] for row in table)  # a seed counts when complete
table = [row for row in table if size[row["seed"]] == max(size.values())]
NOISES = {
    ("symmetric", "0.0"): "clean",
    ("symmetric", "0.2"): "sym 20",
    ("symmetric", "0.4"): "sym 40",
    ("symmetric", "0.6"): "sym 60",
    ("asymmetric", "0.4"): "asym 40",
}
runs = {}  # method -> kind of noise -> a number for each seed
for row in table:
    kind = NOISES[row["noise"], row["rate"]]
    value = 100 * float(row["chosen"] or row["mean_of_last_ten"])
    runs.setdefault(row["method"], {}).setdefault(kind, []).append(value)
print(
    f"loaded {len(table)} recorded runs of {len(runs)} methods, seeds",
    *sorted({row["seed"] for row in table}),
)

# %%
import statistics

means = {
    name: {kind: statistics.mean(values) for kind, values in of.items()}
    for name, of in runs.items()
}
print("mean ± deviation over the seeds, test accuracy in %")
print(" " * 22 + "".join(f"{kind:>12}" for kind in NOISES.values()))
for name, of in runs.items():
    cells = [
        f"{means[name][kind]:6.1f} ±{statistics.stdev(of[kind]):4.1f}"
        for kind in NOISES.values()
    ]
    print(f"{name:22}" + "".join(f"{cell:>12}" for cell in cells))

# %%
shown = sorted(runs, key=lambda name: means[name]["sym 40"])
figure, (axes,) = plots.new_figure(width=9, height=6.2)
words = [f"Dot plot of {len(runs)} methods."]
colours = {"clean": "black", "sym 40": "blue", "asym 40": "vermilion"}
for (kind, colour), marker in zip(colours.items(), "Dos", strict=True):
    seeds = torch.tensor([runs[name][kind] for name in shown])
    mean, least, most = seeds.mean(1), seeds.amin(1), seeds.amax(1)
    axes.errorbar(
        mean,
        range(len(shown)),
        label=kind,
        fmt=marker,
        xerr=torch.stack((mean - least, most - mean)),
        color=plots.COLOURS[colour],
    )
    words.append(
        f"Best mean, {kind}: {shown[mean.argmax()]}, {mean.max():.1f} %."
    )
axes.set_yticks(range(len(shown)), shown)
axes.set(xlabel="test accuracy (%): mean, worst and best seed", xlim=(5, 101))
axes.legend(loc="upper left")
plots.show(figure, alt=" ".join(words))

# %% [markdown]
# Read it column by column.
#
# **Clean.** What does robustness cost? Little for most. A lot for the mean
# absolute error, which loses a class here and there. Early stopping pays for
# the tenth that it holds back.
#
# **Symmetric.** The bounded losses carry the day: GCE, its truncation, the
# active-passive pair. Bootstrapping, smoothing and l1 stay near cross
# entropy. Early stopping is hard to beat.
#
# **Asymmetric.** The order changes. Symmetric losses lose their promise: the
# lead of GCE is gone. So is that of early stopping: the held-back labels are
# wrong in the same way as the network. Forward correction, which is told the
# structure, gains most. The truncated loss and the active-passive pair keep a
# part of their lead. The determinant should be at home here, and its best runs
# are. But look at its whiskers: some runs fall apart.

# %%
for kind in ("sym 40", "asym 40"):
    order = sorted(means, key=lambda name: -means[name][kind])
    gap = means["GCE"][kind] - means["cross entropy"][kind]
    print(
        f"{kind}: first three {', '.join(order[:3])}; "
        f"GCE over cross entropy {gap:+.1f}"
    )
cost = {
    name: means["cross entropy"]["clean"] - of["clean"]
    for name, of in means.items()
}
print(
    "cost on clean labels: "
    + ", ".join(f"{name} {cost[name]:.1f}" for name in ("GCE", "SCE", "MAE"))
)
assert means["GCE"]["sym 40"] > means["cross entropy"]["sym 40"] + 15
assert cost["MAE"] > cost["GCE"]

# %% [markdown]
# ## Beside the papers
#
# CIFAR-10, ResNet-34. Cross entropy, forward (estimated matrix) and GCE are
# the rows of the GCE paper; bootstrap was run again by the authors of ELR
# (table 1 of arXiv 2007.00151). Their symmetric noise redraws from all
# classes, so their "40 %" holds 36 % wrong labels.

# %%
PAPER = {
    "cross entropy": (81.88, 80.11),
    "bootstrap, hard": (82.23, 81.21),
    "forward, estimated": (83.25, 83.55),
    "GCE": (87.13, 76.74),
}
print("                       CIFAR-10, paper      digits, here")
print("                       sym 40   asym 40     sym 40   asym 40")
for name, (even, skew) in PAPER.items():
    mine = means[name]
    print(
        f"{name:20}{even:9.2f}{skew:10.2f}{mine['sym 40']:11.1f}"
        f"{mine['asym 40']:10.1f}"
    )
for column, kind in enumerate(("sym 40", "asym 40")):
    theirs = PAPER["GCE"][column] - PAPER["cross entropy"][column]
    ours = means["GCE"][kind] - means["cross entropy"][kind]
    print(
        f"{kind}: GCE over cross entropy, paper {theirs:+.1f}, "
        f"here {ours:+.1f}"
    )

# %% [markdown]
# The pattern is the same: on symmetric noise GCE leads by far and bootstrap
# hardly moves. On asymmetric noise its lead melts away, in the paper below 0.
# Our leads are larger, since our cross entropy memorizes everything in 50
# epochs without augmentation or weight decay.

# %% [markdown]
# ## The papers and their code
#
# * **Symmetric cross entropy**: the paper writes $A = -4$. The published code
#   clips $y$ at $10^{-4}$, so its $A$ is $\ln 10^{-4}$. Who takes the weights
#   from the one and the clip from the other trains with a third loss.
# * **Active-passive**: the code's mean absolute error is $1-p$, half of the
#   definition; the best weights were found with that half.
# * **Truncated GCE**: the replication that most people use prunes with the
#   network of the best **test** epoch. That is peeking.
# * **Bootstrapping**: gradients flow through the network's own opinion in the
#   paper. Some versions cut them there, and one library has the sign of that
#   term wrong.
# * **Forward**: one published estimator overwrites its own predictions while
#   it reads them.
#
# The page `docs/deviations.md` says for each which one we follow.

# %% [markdown]
# ## Think about it
#
# **1.** Cross entropy gives surprising examples the largest weight. In which
# situation is that exactly right?
#
# <details><summary>Answer</summary>
#
# When labels are right. A surprising example is then one that the network
# still gets wrong, and there is the most to learn. Robust losses give this
# up: rare and hard examples are forgiven together with wrong ones.
#
# </details>
#
# **2.** Where in the proof for symmetric losses did we use that the noise is
# symmetric?
#
# <details><summary>Answer</summary>
#
# When all wrong labels got the same probability, so that their losses could
# be added and replaced by a constant minus $L(y)$. With asymmetric noise the
# wrong labels have different weights, and the sum does not close.
#
# </details>

# %% [markdown]
# **3.** Mixup folds its share: $\lambda' = \max(\lambda, 1-\lambda)$. Does it
# change what plain mixup learns?
#
# <details><summary>Answer</summary>
#
# No. The partner is random. "0.3 of A and 0.7 of B" appears as often with A
# in front as with B. It matters to methods that keep something for each
# example, such as ELR's targets: the mixture should be filed under the
# example that it mostly shows.
#
# </details>
#
# **4.** Early stopping looked at noisy labels. Why did that work, and when
# would it fail?
#
# <details><summary>Answer</summary>
#
# With symmetric noise a right answer hits a held-back label with probability
# $1-\eta$, a wrong one far less often. So noisy accuracy is a rising function
# of clean accuracy: the best epoch is the same. It fails when the held-back
# labels are wrong in the way the network is wrong (asymmetric noise), or
# when so few are held back that chance decides.
#
# </details>
#
# **5.** Forward correction with a true matrix still memorizes some wrong
# labels. How can that be, if its minimum is the clean posterior?
#
# <details><summary>Answer</summary>
#
# "Minimum" means: over infinitely many examples. On a finite set the network
# can raise the probability of each single given label above what the matrix
# expects, image by image. The correction makes that less profitable, but it
# does not forbid it.
#
# </details>

# %% [markdown]
# ## What to remember
#
# * The **pull** of a loss tells its robustness: what bends down towards small
#   $p$ forgives wrong labels, and hard right ones.
# * **Symmetric** losses are safe against symmetric noise in theory. Alone
#   they may fail to learn; mixtures with cross entropy are the practical
#   form, and $q$ or $\alpha$ is the price tag.
# * If noise has structure, **model it** (forward correction), and be as good
#   as your estimate of the matrix.
# * mixup needs no knowledge of the noise, and helps against every kind in the
#   table.
# * Compare with **early stopping on noisy labels** before you believe a
#   method.

# %% [markdown]
# ## References
#
# * A. Ghosh, H. Kumar, P. Sastry, *Robust Loss Functions under Label Noise
#   for Deep Neural Networks*, AAAI 2017, arXiv 1712.09482.
# * Z. Zhang and M. Sabuncu, *Generalized Cross Entropy Loss for Training
#   Deep Neural Networks with Noisy Labels*, NeurIPS 2018, arXiv 1805.07836.
# * Y. Wang et al., *Symmetric Cross Entropy for Robust Learning with Noisy
#   Labels*, ICCV 2019, arXiv 1908.06112.
# * X. Ma et al., *Normalized Loss Functions for Deep Learning with Noisy
#   Labels*, ICML 2020, arXiv 2006.13554.
# * G. Patrini et al., *Making Deep Neural Networks Robust to Label Noise: a
#   Loss Correction Approach*, CVPR 2017, arXiv 1609.03683.
# * Y. Xu et al., *L_DMI: A Novel Information-theoretic Loss Function for
#   Training Deep Nets Robust to Label Noise*, NeurIPS 2019, arXiv 1909.03388.
# * S. Reed et al., *Training Deep Neural Networks on Noisy Labels with
#   Bootstrapping*, ICLR workshop 2015, arXiv 1412.6596.
# * H. Zhang et al., *mixup: Beyond Empirical Risk Minimization*, ICLR 2018,
#   arXiv 1710.09412.
#
# **Next:** a robust loss lets every example count a little less. Lesson 07
# makes a harder choice: it throws examples out, and lets a second network
# decide which.
