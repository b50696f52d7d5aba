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
# # 10 ELR and ELR+
#
# Early in training a network sees through most wrong labels. Later it learns
# them by heart. Other lessons throw examples away or rewrite labels. Today we
# do neither. We let the network **remember what it used to think**, and make
# it costly to change its mind.
#
# **After this lesson you will be able to**
#
# * write the ELR loss and derive its gradient on paper;
# * read that gradient example by example, for right and for wrong labels;
# * take ELR+ apart and measure what each of its three parts is worth.
#
# **Time:** about 85 minutes, four exercises, one live experiment. You need
# lesson 00; lesson 04 helps.
#
# The paper: Liu et al., *Early-Learning Regularization Prevents Memorization
# of Noisy Labels*, NeurIPS 2020, arXiv 2007.00151.

# %% [markdown]
# ## Predict first
#
# For every training image we keep a running mean $t$ of what the network has
# predicted for it. To the cross entropy we add a term that makes it cheaper
# to agree with $t$. No label is changed, no example is dropped, and nobody
# tells us how many labels are wrong. Which do you believe?
#
# * (a) It cannot work: the network agrees with itself anyway.
# * (b) It only slows memorization down.
# * (c) It stops memorization, but right labels are learned less well, too.
# * (d) It stops memorization and goes on learning the right labels.
#
# Write your guess down, with a reason.
#
# ## The data
#
# Handwritten digits, four of ten training labels replaced by another digit.
# `true` is there to measure with. No method sees it.

# %%
import torch
from torch.nn import functional as F

from nlcourse import datasets, noise
from nlcourse.methods import CrossEntropy
from nlcourse.methods.elr import ELR, ELRPlus
from nlcourse.panels import plots
from nlcourse.training import Options, fit
from nlcourse.training.batches import Images

data = datasets.load("digits")
noisy = noise.inject(data, "symmetric", rate=0.4, seed=0)
given, true, is_wrong = noisy.labels, noisy.true_labels, noisy.is_wrong
print(f"{noisy.noise_rate:.1%} of the {len(given)} labels are wrong")

# %% [markdown]
# ## The result first
#
# Sixty epochs with cross entropy, then sixty with ELR from the package. All
# else is equal: network, batches, first weights, learning rate.
#
# While cross entropy trains we film something for later: after each epoch
# `Recorder` keeps the logits of all training images and, if the method has
# one, its memory.


# %%
class Recorder:
    """After each epoch: logits of all training images, and the memory."""

    def __init__(self, method):
        self.method, self.logits, self.memories = method, [], []
        self.images = Images(noisy.images, noisy.mean, noisy.std)

    @torch.no_grad()
    def __call__(self, history):
        images = self.images.get(slice(None))
        self.logits.append(self.method.network(images))
        if hasattr(self.method, "targets"):
            self.memories.append(self.method.targets.clone())


# %%
SETTINGS = {
    "lr": 0.05,
    "epochs": 60,
    "progress": False,
    "device": "cpu",
}
BETA, LAMBDA, TITLE = 0.9, 7.0, "40 % symmetric noise"

ordinary, packaged = CrossEntropy(), ELR(BETA, LAMBDA)
film_ce = Recorder(ordinary)
plain = fit(ordinary, noisy, on_epoch=film_ce, **SETTINGS)
held = fit(packaged, noisy, **SETTINGS)

curves = {"cross entropy": plain, "ELR": held}
plots.show(plots.learning_curves(curves, title=TITLE))
ends = [run.last["test_accuracy"] for run in curves.values()]
print(f"last epoch: cross entropy {ends[0]:.1%}, ELR {ends[1]:.1%}")
assert ends[1] > ends[0] + 0.15

# %% [markdown]
# Cross entropy climbs, then sinks to its knees. ELR climbs and stays. Nothing
# told it the noise rate.
#
# ### Figure 1 of the paper, in the classroom
#
# The paper looks at the **training** images, in two groups. Those with a
# right label: are they predicted so? Those with a wrong label: seen through,
# or memorized?

# %%
SHARE = {"ylabel": "share of them (%)", "ylim": (0, 100)}

right = {
    f"{name}: correct": plots.percent(run, "clean_accuracy")
    for name, run in curves.items()
}
plots.show(plots.lines(right, title="Right labels", **SHARE))
wrong = {
    f"{name}: {word}": plots.percent(run, column)
    for name, run in curves.items()
    for word, column in (
        ("seen through", "wrong_as_true"),
        ("memorized", "wrong_as_given"),
    )
}
plots.show(plots.lines(wrong, title="Wrong labels", **SHARE))

# %% [markdown]
# For the **right** labels there is little between the two. For the **wrong**
# ones there are two different worlds. Cross entropy sees through most of them
# early, then gives in, one after the other. ELR freezes the good moment.
#
# So our answer is **(d)**, in this run and for this noise.
#
# How does it know which moment is good? It does not. It simply has a memory.

# %% [markdown]
# ## Piece 1: a memory
#
# Each training example $i$ gets a row $t^{[i]}$ with one number a class. At
# first all are 0. Whenever the example comes up in a batch, its row moves a
# little towards the prediction $p^{[i]}$:
#
# $$t^{[i]} \leftarrow \beta\,t^{[i]} + (1-\beta)\,p^{[i]},
# \qquad 0 \le \beta < 1.$$
#
# This is called **temporal ensembling**: a mean over time of one network
# replaces a mean over many networks. With a large $\beta$ the memory is slow.
#
# **Exercise 10.1** · difficulty ●●○○○ · importance ●●●●● · 8 minutes
#
# Write the update. Two things to watch. The table belongs to the caller:
# return a **new** one. And the memory is a fact, not a function: no gradient
# may flow through it.


# %%
def update_targets(targets, index, probabilities, beta):
    """Move the memory of the examples in a batch.

    targets:       float (N, C), one row for every training example
    index:         int64 (n,), which examples are in the batch
    probabilities: float (n, C), row k belongs to example index[k]
    beta:          in [0, 1), the share of the old memory that stays
    returns a new tensor (N, C)
    """
    ### BEGIN SOLUTION
    new = targets.clone()
    new[index] = beta * targets[index] + (1 - beta) * probabilities.detach()
    return new
    ### END SOLUTION


# %%
from nlcourse.checks import check, hint  # noqa: F401 - for you

# hint("10.1")  # stuck? take away the first #
update_targets = check(update_targets)

# %% [markdown]
# How long does a memory need to fill? Give it the same prediction again and
# again. After $k$ visits it holds $(1-\beta^k)\,p$. There is no correction
# for the empty start.

# %%
one, filling = torch.tensor([[1.0, 0.0]]), {}
for beta in (0.5, 0.7, 0.9, 0.99):
    t, filled = torch.zeros(1, 2), []
    for _ in range(40):
        t = update_targets(t, torch.tensor([0]), one, beta)
        filled.append(t[0, 0].item())
    filling[f"beta {beta}"] = filled
    assert abs(filled[9] - (1 - beta**10)) < 1e-5
axes = {"xlabel": "visits", "ylabel": "<p, t>"}
plots.show(plots.lines(filling, title="A memory fills up", **axes))

# %% [markdown]
# This matters. With $\beta = 0.9$ the memory is weak for the first ten epochs
# and the labels rule. By then the network has learned the simple pattern, and
# *that* is what gets remembered. With $\beta = 0.99$ it may come too late.
#
# What do the memories know? Here is what ELR remembers at the end of the run
# above for the examples whose label is **wrong**.

# %%
believed = packaged.targets.argmax(dim=1)
knows = (believed == true)[is_wrong].float().mean()
repeats = (believed == given)[is_wrong].float().mean()
print(f"memories of the wrongly labelled: {knows:.1%} hold the true class,")
print(f"{repeats:.1%} the given one")
assert knows > 0.85

shown = (is_wrong & (believed == true)).nonzero().flatten()[:10]
words = [f"{given[i]}, no: {believed[i]}" for i in shown.tolist()]
grid = {"columns": 5, "title": "Given label, and what the memory says"}
plots.show(plots.image_grid(noisy.images[shown], words, **grid))

# %% [markdown]
# ## Piece 2: a loss that listens to the memory
#
# $$L = \text{CE}(p, y) \;+\; \frac{\lambda}{n}\sum_i
#   \log\big(1 - \langle p^{[i]}, t^{[i]}\rangle\big).$$
#
# The inner product $\langle p, t\rangle=\sum_c p_c t_c$ is near 1 when
# prediction and memory are sure of the same class. Then the logarithm is very
# negative: a reward. Look at its shape.

# %%
agreement = torch.linspace(0, 0.999, 400)
slope = -1 / (1 - agreement)
figure = plots.lines(
    {"log(1 - <p, t>)": (1 - agreement).log().tolist()},
    x=agreement.tolist(),
    xlabel="agreement <p, t>",
    ylabel="the term",
    title="Steeper and steeper",
)
plots.show(figure)
print(f"slope at agreement 0: {slope[0]:.0f}, at 0.999: {slope[-1]:.0f}")

# %% [markdown]
# The logarithm is steepest where the agreement is best. That looks odd, and
# is the trick: where $p \approx y$ cross entropy has nothing more to say, and
# exactly there this term speaks up. You will see it in the gradient.
#
# A reward without limit is dangerous: at full agreement the logarithm of 0 is
# $-\infty$. So the authors' code keeps $p$ inside $[10^{-4}, 1-10^{-4}]$
# before it enters the term. The cross entropy takes the logits as they are.
#
# **Exercise 10.2** · difficulty ●●●○○ · importance ●●●●● · 10 minutes
#
# Write the loss of a batch. Take the mean over the batch in both parts.


# %%
def elr_loss(logits, labels, targets, lambda_):
    """Cross entropy plus lambda times the mean of log(1 - <p, t>).

    logits:  float (n, C)
    labels:  int64 (n,), the given labels; or rows, float (n, C), where
             mixup blended them (ELR+, below)
    targets: float (n, C), the memory of these examples
    lambda_: weight of the second part
    returns a scalar; p in the second part lies in [1e-4, 1 - 1e-4]
    """
    ### BEGIN SOLUTION
    cross_entropy = torch.nn.functional.cross_entropy(logits, labels)
    p = logits.softmax(dim=1).clamp(1e-4, 1 - 1e-4)
    agreement = (p * targets).sum(dim=1)
    return cross_entropy + lambda_ * (1 - agreement).log().mean()
    ### END SOLUTION


# %%
# hint("10.2")
elr_loss = check(elr_loss)

# %% [markdown]
# The loss can be **negative**, and its readers keep asking whether that is a
# bug. It is not. How low can the term get? Take a network that is completely
# sure, and a memory that holds the same.

# %%
for classes in (10, 100):
    sure = 50.0 * F.one_hot(torch.tensor([3]), classes).double()
    p = sure.softmax(dim=1).clamp(1e-4, 1 - 1e-4)
    bottom = elr_loss(sure, torch.tensor([3]), p / p.sum(), 1.0)
    print(f"{classes:3d} classes: the term stops at {bottom:.5f}")
    assert abs(bottom - {10: -6.90865, 100: -4.61502}[classes]) < 1e-4

# %% [markdown]
# ## Your functions train
#
# These two functions are the whole method. `ELR` keeps the table and calls
# them for each batch: **first** the memory moves, **then** the loss looks at
# it. We film this run, too.

# %%
method = ELR(BETA, LAMBDA, update=update_targets, objective=elr_loss)
film = Recorder(method)
mine = fit(method, noisy, on_epoch=film, **SETTINGS)
print("yours  ", mine)
print("package", held)
ends = [run.mean_last("test_accuracy", 10) for run in (mine, held)]
assert abs(ends[0] - ends[1]) < 0.02, "both are the same method"

# %% [markdown]
# ## Piece 3: the gradient, at the board
#
# Why does it work? Lesson 04 taught us to look at the **coefficient**: the
# gradient in the logits, $p - y$ for cross entropy. Now the term's own part.
# Write $s = \langle p, t\rangle$ and take $t$ as a constant.
#
# 1. $\dfrac{\partial}{\partial z_c}\log(1-s)
#    = -\dfrac{1}{1-s}\,\dfrac{\partial s}{\partial z_c}$.
# 2. Softmax: $\partial p_k/\partial z_c = p_k(\delta_{kc} - p_c)$.
# 3. So $\partial s/\partial z_c = \sum_k t_k p_k(\delta_{kc} - p_c)
#    = p_c\,(t_c - s)$.
# 4. Together: $g_c = \dfrac{p_c\,(s - t_c)}{1-s}$.
# 5. Since $\sum_k p_k = 1$, we may write $s - t_c = \sum_k (t_k - t_c)\,p_k$.
#    That is how the paper prints it:
#
# $$g_c = \frac{p_c}{1-\langle p,t\rangle}\sum_k (t_k - t_c)\,p_k
# \qquad\text{(Lemma 2).}$$
#
# The coefficient of an example under ELR is $p - y + \lambda g$.
#
# **Exercise 10.3** · difficulty ●●●○○ · importance ●●●●● · 12 minutes
#
# Write $g$ for a batch, without autograd and without a clamp.


# %%
def regularizer_gradient(probabilities, targets):
    """The gradient of log(1 - <p, t>) in the logits behind p.

    probabilities: float (n, C)
    targets:       float (n, C)
    returns float (n, C)
    """
    ### BEGIN SOLUTION
    agreement = (probabilities * targets).sum(dim=1, keepdim=True)
    return probabilities * (agreement - targets) / (1 - agreement)
    ### END SOLUTION


# %%
# hint("10.3")
regularizer_gradient = check(regularizer_gradient)

# %%
# Does autograd agree? The gradient of your loss, in double precision, at
# probabilities that the clamp does not touch.
generator = torch.Generator().manual_seed(0)
logits = torch.randn(50, 10, generator=generator, dtype=torch.float64)
labels = torch.randint(10, (50,), generator=generator)
t = 0.9 * torch.rand(50, 10, generator=generator).double().softmax(dim=1)
leaf = logits.clone().requires_grad_()
(by_autograd,) = torch.autograd.grad(elr_loss(leaf, labels, t, 7.0), leaf)
p = logits.softmax(dim=1)
by_hand = p - F.one_hot(labels, 10) + 7.0 * regularizer_gradient(p, t)
error = (by_autograd - by_hand / 50).abs().max().item()
print(f"largest difference {error:.0e}")
assert error < 1e-10

# %% [markdown]
# ## Read the lemma
#
# Four situations, three classes, true class 0. Cover the right half of the
# table and guess the sign: does the sum push the logit of the **true** class
# up (negative, a step goes against it) or down?

# %%
situations = [  # name, p, given label, memory t
    ("right label, at first", [0.4, 0.3, 0.3], 0, [0.0, 0.0, 0.0]),
    ("right label, learned", [0.97, 0.02, 0.01], 0, [0.85, 0.03, 0.02]),
    ("wrong label, early", [0.8, 0.1, 0.1], 1, [0.6, 0.1, 0.1]),
    ("wrong label, late", [0.45, 0.5, 0.05], 1, [0.7, 0.2, 0.0]),
]
print(f"{'':24}  p - y   7 g    sum   (entry of the true class)")
for name, *numbers in situations:
    p, y, t = (torch.tensor([value]) for value in numbers)
    pull = (p - F.one_hot(y, 3))[0, 0].item()
    term = 7 * regularizer_gradient(p, t)[0, 0].item()
    print(f"{name:24} {pull:+6.2f} {term:+6.2f} {pull + term:+6.2f}")
    assert pull + term < 0

# %% [markdown]
# * **Right label, learned.** $p - y$ is nearly 0: cross entropy has fallen
#   silent. The term is negative and keeps pushing the true class up. So right
#   labels go on counting.
# * **Wrong label.** $p - y$ is *positive*: cross entropy wants the true class
#   **down**. The term is negative and outweighs it. The wrong label still
#   speaks, but it does not get its way.
#
# At first there is no memory, and ELR *is* cross entropy. Early learning is
# left alone. It is only not allowed to end.
#
# ### Figure 2 of the paper, measured
#
# Now for all 1,297 training images and every epoch. From the films we take
# the entry of the true class of $p - y$ and of $\lambda g$. We let autograd
# do the second, since training has the clamp and the lemma has not.


# %%
def parts(logits, memory, lambda_):
    """Return p - y and lambda g at the true class, each (N,)."""
    leaf = logits.clone().requires_grad_()
    loss = len(given) * elr_loss(leaf, given, memory, lambda_)
    (total,) = torch.autograd.grad(loss, leaf)
    of_labels = logits.softmax(dim=1) - F.one_hot(given, 10)
    entries = (of_labels, total - of_labels)
    return [part.gather(1, true[:, None]).flatten() for part in entries]


pairs = zip(film.logits, film.memories, strict=True)
coefficients = [parts(z, t, LAMBDA) for z, t in pairs]
of_labels, term = zip(*coefficients, strict=True)
sums = [first + second for first, second in coefficients]


# %%
def band(axes, rows, group, name, colour):
    """Draw mean and standard deviation of a group; return them in words."""
    values = torch.stack([row[group] for row in rows])
    middle, spread = values.mean(dim=1), values.std(dim=1)
    epochs = range(1, len(middle) + 1)
    dash = "--" if name.endswith("g") else "-"
    axes.plot(epochs, middle, dash, c=plots.COLOURS[colour], label=name)
    edges = middle - spread, middle + spread
    axes.fill_between(epochs, *edges, alpha=0.2, fc=plots.COLOURS[colour])
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("epoch")
    axes.legend(fontsize=plots.SMALL_FONT)
    return f"{name}: first {middle[0]:+.2f}, last {middle[-1]:+.2f}. "


# %%
title = "Coefficient of the true class under ELR (after figure 2)"
figure, (left, middle, right) = plots.new_figure(3, width=11, title=title)
left.set_ylabel("entry of the true class")
words = title + ", epoch by epoch, means with one standard deviation. "
words += band(left, sums, ~is_wrong, "sum, right labels", "blue")
words += band(left, sums, is_wrong, "sum, wrong labels", "vermilion")
words += band(middle, of_labels, ~is_wrong, "right: p - y", "blue")
words += band(middle, term, ~is_wrong, "right: lambda g", "sky")
words += band(right, of_labels, is_wrong, "wrong: p - y", "vermilion")
words += band(right, term, is_wrong, "wrong: lambda g", "orange")
plots.show(figure, words)

# %% [markdown]
# **Middle:** right labels. The dark curve, cross entropy, vanishes; the light
# one takes over. **Right:** wrong labels. The dark curve pulls the true class
# down with all its might, to the end. The light one takes most of that away.
# **Left:** the sum. (The bands grow wide: the clamp switches the term off for
# an example that is sure, its label pulls it back a little, and the term is
# there again.)
#
# Who wins? Weigh both groups, as in lesson 04: the *share* of the group times
# its mean coefficient. Forwards is towards the true classes.


# %%
def forwards_and_backwards(row):
    """Return the pull of the right and that of the wrong labels."""
    share = is_wrong.float().mean()
    forwards = -(1 - share) * row[~is_wrong].mean()
    return forwards.item(), (share * row[is_wrong].mean()).item()


nothing = torch.zeros(len(given), 10)
alone = [parts(z, nothing, 0.0)[0] for z in film_ce.logits]
print("         cross entropy           ELR")
print("epoch    forwards  backwards     forwards  backwards")
for epoch in (1, 5, 10, 20, 40, 60):
    pulls = [forwards_and_backwards(row[epoch - 1]) for row in (alone, sums)]
    (f, b), (f_elr, b_elr) = pulls
    print(f"{epoch:4d}{f:12.2f}{b:11.2f}{f_elr:13.2f}{b_elr:11.2f}")

# %%
late = torch.tensor([forwards_and_backwards(row) for row in sums[-20:]])
left_over = torch.stack(sums[-20:])[:, is_wrong].mean()
pull = torch.stack(of_labels[-20:])[:, is_wrong].mean()
print(
    f"ELR, last 20 epochs: forwards {late[:, 0].mean():.2f}, "
    f"backwards {late[:, 1].mean():.2f}"
)
print(f"of the wrong labels' pull {left_over / pull:.0%} is left")
assert late[:, 0].mean() > late[:, 1].mean()
assert left_over < 0.6 * pull

# %% [markdown]
# With cross entropy both pulls die: the labels are fitted, right and wrong
# alike, and there is nothing left to learn. With ELR the right labels keep
# more weight than the wrong ones, to the last epoch.
#
# ## Why the target must not carry gradient
#
# In exercise 10.1 you had to detach. There are three reasons. Let us look at
# each, and be honest about the third.
#
# **One: the past.** The memory of today contains that of yesterday. With the
# gradient left in, today's step would have to go back through every step so
# far. PyTorch refuses in the second one:

# %%
weights = torch.zeros(2, 3, requires_grad=True)
x, t, stopped = torch.ones(1, 3), torch.zeros(1, 2), None
for step in (1, 2):
    p = (x @ weights.T).softmax(dim=1)
    t = 0.9 * t + 0.1 * p  # no detach
    try:
        (1 - (p * t).sum(dim=1)).log().sum().backward()
        print(f"step {step}: done")
    except RuntimeError as refused:
        stopped = step
        print(f"step {step}: {str(refused)[:50]} ...")
assert stopped == 2

# %% [markdown]
# **Two: the formula.** Suppose only the newest share carries gradient, so
# that this cannot happen. Then $s=\langle p, t\rangle$ contains $p$ twice,
# and Lemma 2 is no longer the gradient. The $t$ above the line becomes
# $t + (1-\beta)\,p$:

# %%
old = 0.8 * torch.rand(6, 4, generator=generator).double().softmax(dim=1)
z = torch.randn(6, 4, generator=generator).double().requires_grad_()
p = z.softmax(dim=1)
t = 0.9 * old + 0.1 * p  # the newest share keeps its gradient
rest = 1 - (p * t).sum(dim=1, keepdim=True)
(measured,) = torch.autograd.grad(rest.log().sum(), z)

p, t, rest = p.detach(), t.detach(), rest.detach()
more = t + 0.1 * p
predicted = p * ((p * more).sum(dim=1, keepdim=True) - more) / rest
far = (measured - regularizer_gradient(p, t)).abs().max()
near = (measured - predicted).abs().max()
print(f"off Lemma 2 by {far:.3f}, off the new formula by {near:.0e}")
assert near < 1e-10

# %% [markdown]
# The extra $(1-\beta)\,p$ rewards being sure **now**, whatever the memory
# says. A network that has just begun to believe a wrong label is encouraged.
#
# **Three: does it hurt?** That is a question for a measurement, so we made
# one: five seeds, 60 epochs, the last ten averaged. This takes minutes, so
# the runs are **recorded**. `python results/classroom_elr.py` makes them
# anew.

# %%
from statistics import mean, stdev

from nlcourse.experiments import results

rows = results.load("classroom_elr")
print(f"{len(rows)} recorded runs on {rows[0]['device']}")


def recorded(method, noise_="symmetric", rate=0.4, **wanted):
    """Mean of the last ten test accuracies (%), one number a seed."""
    wanted |= {"method": method, "noise": noise_, "rate": rate}
    texts = {key: str(value) for key, value in wanted.items()}
    found = [row for row in rows if texts.items() <= row.items()]
    assert sorted(row["seed"] for row in found) == list("01234")
    found.sort(key=lambda row: row["seed"])
    return [100 * float(row["mean_of_last_ten"]) for row in found]


# %%
def told(values):
    return f"{mean(values):5.1f} ± {stdev(values):3.1f}"


strong, weak = {"beta": 0.9, "lambda": 7.0}, {"beta": 0.7, "lambda": 3.0}
print("40 % symmetric, digits      beta 0.9, lambda 7    0.7, 3")
for name in ("elr", "gradient through target"):
    slow, fast = (recorded(name, **pair) for pair in (strong, weak))
    print(f"{name:26} {told(slow):>16}{told(fast):>16}")
labelled = recorded("labels as target", **strong)
print(f"{'labels as target':26} {told(labelled):>16}")
print(f"{'cross entropy':26} {told(recorded('cross-entropy')):>16}")
assert mean(labelled) < mean(recorded("elr", **strong)) - 5

# %% [markdown]
# Surprised? We were. On digits the gradient through the newest share does
# **not** hurt. With the slow memory it changes next to nothing, and with the
# fast one it *helps*: it acts like a stronger term, and $\lambda = 3$ is on
# the weak side here. So the detach is what makes the lemma true and the
# method affordable; that it is needed for accuracy we cannot confirm at this
# scale.
#
# The last row is a different matter. A memory of the **labels** instead of
# the predictions gives much of the gain away. What is worth remembering is
# not what the network was told but what it thought.
#
# ## Five seeds, four kinds of noise
#
# Recorded as well. On the left the paper's table 1: CIFAR-10, ResNet-34, the
# epoch chosen on held-out *noisy* labels. On the right our digits: mean of
# the last ten epochs, no choosing.

# %%
table1 = {  # cross entropy and ELR in the paper
    ("symmetric", 0.2): (86.98, 91.16),
    ("symmetric", 0.4): (81.88, 89.15),
    ("symmetric", 0.6): (74.14, 86.12),
    ("asymmetric", 0.4): (80.11, 90.12),
}
whole = {"networks": 2, "weight_averaging": 1, "mixup": 1}
print("                  paper           digits, here")
print("noise             CE     ELR         CE          ELR          ELR+")
for kind, paper in table1.items():
    ce = recorded("cross-entropy", *kind)
    elr = recorded("elr", *kind, **strong)
    plus = recorded("elr+", *kind, **strong, **whole)
    line = f"{kind[0]:10} {kind[1]:.0%} {paper[0]:8.2f}{paper[1]:7.2f}  "
    print(line + "".join(f"{told(one):>13}" for one in (ce, elr, plus)))
    assert mean(elr) > mean(ce) + 5

# %% [markdown]
# Do not compare left with right: other images, another network. (And the
# paper's 40 % counts labels that were redrawn and came out right by luck; ours
# are all wrong.) Compare the **pattern**: ELR beats cross entropy in every
# row; under symmetric noise the more so, the more labels are wrong.
#
# ELR varies most from seed to seed under asymmetric noise. There all wrong
# labels of a class say the same, so a young network may follow them. We
# suspect that the *memory* is then wrong, too. How would you check?
#
# ## Explore: lambda and beta
#
# Now you are at the controls. Sixty per cent of the labels are wrong.
#
# **Your goal:** bring the mean test accuracy of the last ten epochs above
# 90 % within 30 epochs. Then find out what happens when $\lambda$ is far too
# large, and say why. Your tries stay on the plot in grey.
#
# Below the panel are three tries from code, for those who only read: a weak
# term, a strong one, and one that is far too strong.

# %%
from nlcourse.panels import Explorer, Goal, MethodChoice, Parameter


def my_elr(beta, lambda_):
    return ELR(beta, lambda_, update=update_targets, objective=elr_loss)


controls = (
    Parameter("beta", 0.7, 0.0, 0.99, 0.01, label="beta"),
    Parameter("lambda_", 1.0, 0.0, 30.0, 0.5, label="lambda"),
)
choice = MethodChoice("elr", my_elr, controls)


def judge(run):
    if run.settings.noise_rate < 0.6 or run.settings.epochs < 30:
        return False, "the goal is for 60 % noise and 30 epochs"
    test = run.history.mean_last("test_accuracy", 10)
    end = run.history.last
    words = f"last ten {test:.1%}, memorized {end['wrong_as_given']:.0%}, "
    return test > 0.90, words + f"a third class {end['wrong_as_other']:.0%}"


# %%
task = "60 % symmetric noise, 30 epochs: last ten test accuracies above 90 %."
explorer = Explorer(
    methods=(choice,),
    noise_kinds=("symmetric",),
    noise_rate=0.6,
    lr=0.05,
    epochs=30,
    hide=("lr",),
    goal=Goal(task, judge),
)
explorer

# %%
for beta, lambda_ in ((0.7, 1.0), (0.9, 7.0), (0.9, 30.0)):
    tried = explorer.try_out(beta=beta, lambda_=lambda_)
    mark = "reached " if tried.reached else "not yet "
    print(f"beta {beta}, lambda {lambda_:4}: {mark}{tried.verdict}")
plots.show(explorer.figure())
ends = [one.history.last for one in explorer.tries]
assert ends[1]["test_accuracy"] > ends[0]["test_accuracy"] + 0.1
assert ends[2]["wrong_as_given"] < ends[0]["wrong_as_given"] - 0.2

# %% [markdown]
# With a weak term memorization comes, only later.
#
# With the huge one look at the right plot. Hardly anything is memorized, and
# still the accuracy climbs and then breaks down: images are predicted as a
# *third* class, neither true nor given. That is no memorization. The steps of
# the term have become so large that the network loses its footing.
#
# $\lambda$ and $\beta$ hide a guess. The paper uses $\beta=0.7$,
# $\lambda=3$ for CIFAR-10 with symmetric noise, but $0.9$ and $1$ for
# asymmetric noise, and $0.9$ and $7$ for CIFAR-100. ELR does not ask for the
# noise rate, but its best settings know something about the noise.
#
# ## ELR+: three more parts
#
# The memory is only as good as the predictions that feed it. ELR+ improves
# them with three old friends:
#
# 1. **Two networks.** The memory of one is fed by the other (lesson 07: do
#    not be your own teacher).
# 2. **Weight averaging.** The teacher is not the other network as it is now,
#    but the mean of its weights over the last steps. It jumps less.
# 3. **mixup** (lesson 06). The network learns from blends of two images. The
#    labels *and the memories* are blended in the same shares. The teacher
#    looks at the images as they are.
#
# **Exercise 10.4** · difficulty ●●○○○ · importance ●●●●○ · 8 minutes
#
# Write the weight averaging: the average keeps the share $g$, the current
# weights add the share $1-g$. With $g=\gamma=0.997$ from the beginning the
# random start would stay in the average for hundreds of steps. So $g$ grows:
#
# $$g = \min\!\Big(1 - \frac{1}{k+1},\; \gamma\Big),\qquad k = 0, 1, 2, \dots$$


# %%
def average_weights(average, weights, step, gamma):
    """Move averaged weights towards the current ones.

    average: float, any shape; do not change it
    weights: float, the same shape, after the step
    step:    k, 0 in the first step
    gamma:   in [0, 1), the share that stays in the long run
    returns a new tensor
    """
    ### BEGIN SOLUTION
    g = min(1 - 1 / (step + 1), gamma)
    return g * average + (1 - g) * weights
    ### END SOLUTION


# %%
# hint("10.4")
average_weights = check(average_weights)

# %%
# A weight that drifts from 0 to 1 with much noise; averages begin at 3.
generator = torch.Generator().manual_seed(0)
noise_on_top = 0.4 * torch.randn(400, generator=generator)
current = torch.linspace(0, 1, 400) + noise_on_top
series = {"current weight": current.tolist()}
for gamma in (0.9, 0.99):
    kept, averages = torch.tensor(3.0), []
    for step, weight in enumerate(current):
        kept = average_weights(kept, weight, step, gamma)
        averages.append(kept.item())
    series[f"average, gamma {gamma}"] = averages
title = "Averages jump less and lag behind"
plots.show(plots.lines(series, xlabel="step", ylabel="value", title=title))
assert abs(averages[-1] - 1) < 0.4

# %% [markdown]
# Your four functions, all three parts. Thirty epochs are enough to see it.
#
# The paper's $\gamma = 0.997$ looks back over about one of *its* epochs. With
# our 21 steps an epoch we take 0.99, about five of ours.

# %%
pieces = {"update": update_targets, "objective": elr_loss}
plus = ELRPlus(BETA, LAMBDA, gamma=0.99, average=average_weights, **pieces)
improved = fit(plus, noisy, **SETTINGS | {"epochs": 30})
three = {"cross entropy": plain, "ELR": mine, "ELR+": improved}
plots.show(plots.learning_curves(three, title=TITLE))
print("ELR+", improved)
assert improved.last["test_accuracy"] > plain.best("test_accuracy") - 0.02

# %% [markdown]
# ### What is each part worth?
#
# Three switches make eight methods. The paper's table 5 has all of them
# (CIFAR-10; 40 and 80 % of the labels redrawn). Ours are recorded: five seeds
# each, at 40 % wrong labels, and at 80 % redrawn, counted as in the paper.
#
# To read such a table compare pairs that differ in **one** switch. There are
# four such pairs for each switch. With five seeds we count how often it
# helped.

# %%
table5 = {  # (networks, weight averaging, mixup): at 40 %, at 80 %
    (1, 0, 0): (90.83, 72.54),
    (1, 0, 1): (91.05, 81.43),
    (1, 1, 0): (92.09, 76.50),
    (1, 1, 1): (93.04, 87.23),
    (2, 0, 0): (91.86, 73.49),
    (2, 0, 1): (93.51, 84.75),
    (2, 1, 0): (92.95, 80.13),
    (2, 1, 1): (93.68, 88.62),
}
KINDS = (("symmetric", 0.4), ("symmetric-including-true", 0.8))
ours = {}
for on in table5:
    some = strong | dict(zip(whole, on, strict=True))
    ours[on] = [recorded("elr+", *kind, **some) for kind in KINDS]

# %%
print("                                 paper           digits, here")
print("networks  averaging  mixup     40 %   80 %      40 %         80 %")
for on, paper in table5.items():
    averaging, mixup = ("yes" if part else "–" for part in on[1:])
    line = f"{on[0]:5d} {averaging:>11} {mixup:>9} "
    line += f"{paper[0]:8.2f}{paper[1]:8.2f}"
    print(line + "".join(f"{told(values):>13}" for values in ours[on]))
for rate in (0, 1):
    assert mean(ours[2, 1, 1][rate]) > mean(ours[1, 0, 0][rate])


# %%
def gains(place, rate):
    """Return what a switch adds: four pairs of methods, five seeds each."""
    found = []
    for on, runs in ours.items():
        off = (*on[:place], 0 if place else 1, *on[place + 1 :])
        if off != on:
            found += map(float.__sub__, runs[rate], ours[off][rate])
    return found


print("switched on            40 %                 80 %")
for place, name in enumerate(("second network", "averaging", "mixup")):
    line = f"{name:16}"
    for rate in (0, 1):
        found = gains(place, rate)
        helped = sum(gain > 0 for gain in found)
        line += f"{mean(found):+8.1f} ({helped:2d} of 20)"
    print(line)

# %% [markdown]
# **mixup** helps most, in nearly every pair, as in the paper's 80 % column.
# A **second network** helps a little. **Averaging**, which helps in every
# row of the paper, *hurts* ours, most of all at 80 %. An honest table may
# disagree with the paper. Then ask why.
#
# The averaged teacher jumps less. It also lags. Here is how sure the memories
# are after ten epochs, one network, no mixup, 80 % redrawn:

# %%
hard, sure = noise.inject(data, *KINDS[1], seed=0), {}


class OneNetwork(ELRPlus):
    num_networks = 1  # its own average makes its targets


def no_mixing(images, labels, targets, alpha, generator):
    return images, labels, targets


def current_weights(average, weights, step, gamma):
    return weights


for averaging in (False, True):
    average = average_weights if averaging else current_weights
    one = OneNetwork(BETA, LAMBDA, gamma=0.99, average=average, mix=no_mixing)
    fit(one, hard, **SETTINGS | {"epochs": 10})
    sure[averaging] = one.targets[0].max(dim=1).values.mean().item()
    print(
        f"averaging {averaging!s:5}: largest entry of a memory, mean "
        f"{sure[averaging]:.2f}"
    )
assert sure[True] < 0.8 * sure[False]

# %% [markdown]
# The mean of many young networks is unsure. Its memory is weak just when
# memorization begins, and the term comes too late. The paper trains for 200
# epochs of about 390 steps; its average looks back over one of them. We have
# 60 epochs of 21 steps, and ours looks back over about five. What is a short
# look back there is a long one here. With a longer training the same part
# may well help.
#
# ## PreAct ResNet: why the identity path helps
#
# At full scale ELR+ uses a **PreAct ResNet-18** (He et al. 2016). A residual
# block does not compute a new image. It computes a *correction*:
#
# $$x_{l+1} = x_l + F(x_l).$$
#
# Put $L$ blocks in a row and the last image is $x_0$ plus all corrections.
# The chain rule then multiplies factors of the form $1 + F'$. Multiply them
# out: one of the terms is **1**. It carries the gradient of the loss to the
# first block as it is, however deep the network.
#
# For this the path has to be free. The older ResNet puts a ReLU on it, after
# the sum. *Pre-activation* moves batch norm and ReLU into $F$, before each
# convolution.
#
# A trap: the model file that mixup, DivideMix and ELR+ share adds
# $h=\mathrm{ReLU}(\mathrm{BN}(x))$ instead of $x$. Half of each signal is cut
# off in every block. Nobody notices by counting parameters.
#
# So look at the gradient instead. We stack small blocks, send a random
# gradient in at the top and see what arrives at the bottom: how much longer
# it has become, and how much of its **direction** is left.

# %%
from nlcourse.training.preact_resnet import PreActBlock, preact_resnet18

for legacy in (False, True):
    network = preact_resnet18((3, 32, 32), 10, legacy_shortcut=legacy)
    size = sum(weights.numel() for weights in network.parameters())
    print(f"legacy shortcut {legacy!s:5}: {size:,} parameters")
    assert size == 11_171_274


# %%
class PlainBlock(PreActBlock):
    """The same convolutions without any shortcut."""

    def forward(self, x):
        h = F.relu(self.norm1(x))
        return self.conv2(F.relu(self.norm2(self.conv1(h))))


def through(kind, depth, seed):
    """Growth of a gradient through a stack, and what is left of its way."""
    torch.manual_seed(seed)
    make = PlainBlock if kind == "none" else PreActBlock
    legacy = kind == "ReLU(BN(x))"
    stack = torch.nn.Sequential(*(make(8, 8, 1, legacy) for _ in range(depth)))
    x = torch.randn(32, 8, 8, 8, requires_grad=True)
    top = torch.randn(32, 8, 8, 8)
    (bottom,) = torch.autograd.grad((stack(x) * top).sum(), x)
    kept = F.cosine_similarity(bottom.flatten(), top.flatten(), dim=0)
    return (bottom.norm() / top.norm()).item(), kept.item()


# %%
print("shortcut       depth    length of the gradient    direction kept")
kept = {}
for kind in ("none", "ReLU(BN(x))", "x itself"):
    for depth in (4, 16, 40):
        runs = [through(kind, depth, seed) for seed in range(5)]
        growth, direction = (
            mean(column) for column in zip(*runs, strict=True)
        )
        kept[kind, depth] = [direction for _, direction in runs]
        print(f"{kind:14}{depth:6}{'x ':>14}{growth:<14.4g}{direction:10.2f}")
for seed in range(5):
    order = [kept[k, 16][seed] for k in ("none", "ReLU(BN(x))", "x itself")]
    assert order == sorted(order)

# %% [markdown]
# Without a shortcut the gradient's direction is lost after a few blocks, and
# its length runs away. With a ReLU on the path the length is tame but less
# and less of the direction arrives. With the identity a fifth is left after 40
# blocks (cosine 0.20 against 0.04).
#
# `preact_resnet18` has the true identity; `legacy_shortcut=True` gives the
# published file, for whoever wants to reproduce its numbers. Hand it to
# `fit(..., network=preact_resnet18)` when you have a GPU.
#
# ## The paper and its code
#
# | | paper | published code |
# |---|---|---|
# | $p$ in the term | as it is | kept in $[10^{-4}, 1-10^{-4}]$ |
# | memory takes in | $p$ | that $p$ over its sum |
# | averaged weights | before the step | after the step |
# | they begin as | 0 | another random network |
# | $\lambda$ | constant | grows, for CIFAR-100 |
# | ELR+ predicts | mean of both | mean of both networks' logits |
# | noise | one set of labels | each network draws **its own** |
#
# Our package follows the code in the first three rows and the paper in
# $\lambda$ and in the noise. Its averages begin as the network itself; its
# prediction is the mean of the probabilities.
#
# The last row is more than a detail. Two networks with two draws of the noise
# see, together, more right labels than the data set has. Whoever has one set
# of labels, as in life, has no second draw.
#
# ## Beside the paper
#
# | the paper | we, on digits |
# |---|---|
# | figure 1: cross entropy memorizes, ELR does not | the same |
# | figure 2: $\lambda g$ takes over, and cancels | the same |
# | table 1: ELR above cross entropy | in all four recorded rows |
# | table 5: every part of ELR+ helps | mixup, second network yes |
# | table 5: averaging helps | no: it comes too late in a short run |
# | no gradient through the target | needed for the lemma |

# %% [markdown]
# ## Think about it
#
# **1.** Why does ELR not remember the *wrong* labels? Its memory is made of
# predictions, and in the end those could be wrong.
#
# <details><summary>Answer</summary>
#
# Timing. The memory fills while the network still sees through the wrong
# labels. From then on each turn against the memory costs more than the label
# pays. Where the early network is wrong (asymmetric noise), the memory is
# wrong as well, and ELR protects the error.
#
# </details>
#
# **2.** A student replaces the term by $-\sum_c t_c\log p_c$, the cross
# entropy with the memory. What will happen?
#
# <details><summary>Answer</summary>
#
# Its coefficient is $p\sum_c t_c - t$. It vanishes when $p$ has the
# proportions of $t$, and it pulls *back* when $p$ is surer than $t$. So it
# has nothing to set against the labels in the long run. The paper (appendix
# C) found that it only delays memorization.
#
# </details>
#
# **3.** Set $\beta = 0$. What is the memory then, and what does the term
# reward?
#
# <details><summary>Answer</summary>
#
# The memory is the present prediction. The term rewards being sure, of
# whatever. There is no past to hold on to: if the label wins once, the term
# helps it. The paper reports that accuracy collapses (appendix H).
#
# </details>
#
# **4.** The training loss is negative and falls on. Is that a sign of
# overfitting?
#
# <details><summary>Answer</summary>
#
# No. The term alone may go down to about $-6.9\,\lambda$ with ten classes. The
# loss measures agreement with labels *and* with itself. To see overfitting
# look at the accuracy on held-out (noisy) labels.
#
# </details>
#
# **5.** Which examples does ELR harm?
#
# <details><summary>Answer</summary>
#
# Rightly labelled ones that are hard: at first the network gets them wrong,
# the memory keeps that, and the right label has to fight it. Measure it:
# which share of the right labels is not predicted at the end, with and
# without the term?
#
# </details>

# %% [markdown]
# ## What to remember
#
# * ELR adds $\lambda \log(1-\langle p,t\rangle)$, where $t$ remembers what the
#   network thought. No label is changed, no noise rate is needed.
# * Its coefficient is $p - y + \lambda g$ (Lemma 2): it keeps right labels
#   alive when $p-y$ vanishes, and cancels the pull of wrong ones.
# * The memory is a fact, not a function: no gradient through it. And $p$ is
#   clamped, or the logarithm blows up.
# * ELR+ improves the memory: another network, averaged weights, mixup. Which
#   part pays depends on the length of the training: run the ablation.
# * A free identity path carries the gradient through a deep network. Check
#   what a published model file really adds.
#
# ## References
#
# * S. Liu, J. Niles-Weed, N. Razavian and C. Fernandez-Granda,
#   *Early-Learning Regularization Prevents Memorization of Noisy Labels*,
#   NeurIPS 2020, arXiv 2007.00151 (tables 1 and 5, figures 1 and 2, appendices
#   C and H). Their code: shengliu66/ELR.
# * S. Laine and T. Aila, *Temporal Ensembling for Semi-Supervised Learning*,
#   ICLR 2017, arXiv 1610.02242.
# * A. Tarvainen and H. Valpola, *Mean teachers are better role models*,
#   NeurIPS 2017, arXiv 1703.01780 (averaged weights as a teacher).
# * H. Zhang et al., *mixup: Beyond Empirical Risk Minimization*, ICLR 2018,
#   arXiv 1710.09412.
# * K. He et al., *Identity Mappings in Deep Residual Networks*, ECCV 2016,
#   arXiv 1603.05027.
#
# **Next:** lesson 11 goes one step further. DivideMix decides for each label
# whether it is right, and treats the rest as images without a label.
