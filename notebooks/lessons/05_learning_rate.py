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
# # 05 The learning rate
#
# In the lessons so far every network learned its wrong labels by heart. Now
# we turn a single knob, the learning rate, and memorization stops.
#
# No new loss, no second network, no list of suspects. How can a step size
# tell a wrong label from a right one?
#
# **After this lesson you will be able to**
#
# * predict what a low and a high learning rate do with wrong labels, and
#   tell *slow* from *high*;
# * compute the loss of a network that knows the noise and has memorized
#   nothing;
# * estimate the noise rate of a data set from one number, and say when not to
#   trust the estimate.
#
# **Time:** about 70 minutes, three exercises, one live experiment. You need
# lesson 00. Everything runs on a laptop without a GPU.
#
# ## Predict first
#
# Four of ten labels are wrong. We train the same network twice for 60 epochs,
# once with learning rate 0.02 and once with 0.2, **ten times** as large. What
# happens at the high rate?
#
# * (a) it memorizes the wrong labels too, only sooner;
# * (b) nothing: the steps are too large to learn anything;
# * (c) it learns the digits and leaves the wrong labels alone;
# * (d) it forgets even the digits in the end.
#
# Write down a letter, and one sentence that says why.
#
# ## The data
#
# The digits again. `SEED` fixes the noise and the training. Change it, run
# all cells, and see what is luck and what is not.

# %%
import math

import numpy as np
import torch
from torch import nn

from nlcourse import datasets, noise
from nlcourse.methods import CrossEntropy
from nlcourse.panels import plots
from nlcourse.training import DivergedError, fit

SEED = 0
data = datasets.load("digits")
noisy = noise.inject(data, "symmetric", rate=0.4, seed=SEED)
print(f"{len(noisy.labels)} images, {noisy.noise_rate:.1%} wrong labels")

# %% [markdown]
# ## A network with batch norm
#
# The paper of today is Tanaka et al. (2018). Their network is a PreAct
# ResNet with 32 layers on CIFAR-10. We cannot train that in class. But we
# take over its ingredients: **batch norm**, momentum 0.9 and **weight
# decay**. Which of them matters? Keep the question in mind.


# %%
def network(image_shape, num_classes):
    """Two hidden layers of 128 units, each with batch norm."""

    def layer(inputs):
        linear = nn.Linear(inputs, 128, bias=False)
        return [linear, nn.BatchNorm1d(128), nn.ReLU()]

    hidden = layer(math.prod(image_shape)) + layer(128)
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(128, num_classes))


# %% [markdown]
# ## How much weight decay?
#
# With rate $\eta$ and decay $\lambda$, each step multiplies all weights by
# $1 - \eta\lambda$. So over a training of $T$ steps the pull of the decay
# adds up to $\eta \lambda T$.
#
# The paper takes $\lambda = 10^{-4}$ and many steps. We take few steps. With
# the same $\lambda$ our weights would hardly feel it. So we make $\lambda$
# larger by as much as our training is shorter. Then $\eta\lambda T$ is the
# paper's. We tune nothing.

# %%
EPOCHS = 60
paper_steps = 200 * math.ceil(45_000 / 128)  # epochs times batches
our_steps = EPOCHS * math.ceil(len(data.labels) / 64)
DECAY = 1e-4 * paper_steps / our_steps

print(f"steps in the paper, at one rate {paper_steps:7,}")
print(f"steps here, at one rate         {our_steps:7,}")
print(f"our weight decay                {DECAY:7.4f}")

# %% [markdown]
# One function for all runs of this lesson. It spoils the labels, trains, and
# returns the history.


# %%
def train(noise_rate, lr, epochs=EPOCHS, *, seed=SEED, **more):
    """Train `network` on digits with symmetric noise; return the history."""
    kind = more.pop("kind", "symmetric")
    spoiled = noise.inject(data, kind, noise_rate, seed=seed)
    settings = {"network": network, "weight_decay": DECAY} | more
    return fit(
        CrossEntropy(), spoiled, epochs=epochs, lr=lr, seed=seed, **settings
    )


# %% [markdown]
# ## Two rates
#
# The two rates are the paper's own: 0.02 and 0.2.

# %%
low = train(0.4, lr=0.02)
high = train(0.4, lr=0.2)
plots.show(
    plots.learning_curves(
        {"rate 0.02": low, "rate 0.2": high},
        title="40 % wrong labels, two learning rates",
    )
)

# %% [markdown]
# The low rate tells the story you know: good early, then down, while it
# learns the wrong labels by heart.
#
# The high rate shakes from epoch to epoch. But it does **not** go down, and
# it leaves the wrong labels alone. The answer is **(c)**.
#
# Because of the shaking we do not read off a single epoch. We take the mean
# of the last ten.

# %%
print("rate      test   memorized   training loss")
for name, history in {"0.02": low, "0.2": high}.items():
    test = history.mean_last("test_accuracy")
    memorized = history.mean_last("wrong_as_given")
    loss = history.mean_last("train_loss")
    print(f"{name:5}{test:9.1%}{memorized:12.1%}{loss:16.2f}")

assert low.mean_last("wrong_as_given") > 0.7, "a low rate memorizes"
assert high.mean_last("wrong_as_given") < 0.2, "a high rate does not"
gain = high.mean_last("test_accuracy") - low.mean_last("test_accuracy")
assert gain > 0.08, "and is better on new images at the end"

# %% [markdown]
# This is figure 2 of the paper on other data: at rate 0.02 the test accuracy
# gradually decreases, at 0.2 it stays high to the end.

# %% [markdown]
# ## An objection
#
# A good student says: "A rate so low that nothing is learned does not
# memorize either. Perhaps this is only a matter of **time**."
#
# Let us take it seriously. We add two very low rates. And we look at the
# result against a fairer clock than the epoch: **rate x epochs**, the distance
# that training can have covered. At equal distance, does the rate still
# matter?

# %%
runs = {rate: train(0.4, lr=rate) for rate in (0.0005, 0.002)}
runs |= {0.02: low, 0.2: high}

print("  rate   distance after 60 epochs   memorized   loss")
for rate, history in runs.items():
    row = history.last
    print(
        f"{rate:6}{60 * rate:27.2f}{row['wrong_as_given']:12.1%}"
        f"{row['train_loss']:7.2f}"
    )

# %%
distance = np.geomspace(0.002, 12, 80)


def along(history, rate):
    """Memorized share (%) at each `distance`; nan outside the run."""
    covered = rate * np.array(history["epoch"])
    share = 100 * np.array(history["wrong_as_given"])
    return np.interp(distance, covered, share, left=np.nan, right=np.nan)


# %%
figure = plots.lines(
    {f"rate {rate}": along(history, rate) for rate, history in runs.items()},
    x=distance,
    title="The same runs against the distance covered",
    xlabel="rate x epochs",
    ylabel="wrong labels memorized (%)",
    ylim=(0, 100),
    log_x=True,
)
plots.show(figure)
assert low["wrong_as_given"][59] > 0.7, "distance 1.2 at the low rate"
assert high["wrong_as_given"][5] < 0.2, "the same distance at the high rate"
assert max(high["wrong_as_given"]) < 0.3, "at no time"

# %% [markdown]
# If time were all, the four curves would lie on each other. Where the two
# slowest overlap they do. Then they part: at the same distance the **higher**
# rate has memorized **less**. The high rate goes ten times as far as the low
# one and does not memorize on all that way. So it is not a matter of time.

# %% [markdown]
# ## Slow, or high?
#
# At one point the student is right. The lowest rate has not memorized *yet*,
# and its test accuracy is even better than that of the high rate. If you stop
# it now, you are fine.
#
# How do you tell the two cases apart if you have no true labels? Look at the
# **training loss**. Does it still fall, or does it stand still?


# %%
def fall(history):
    """How much the loss fell from one stretch of ten epochs to the next."""
    losses = history["train_loss"]
    return sum(losses[-20:-10]) / 10 - sum(losses[-10:]) / 10


print("  rate    test   loss fell by")
for rate, history in runs.items():
    test = history.mean_last("test_accuracy")
    print(f"{rate:6}{test:8.1%}{fall(history):+15.3f}")
assert fall(runs[0.002]) > 0.1, "slow: on its way to memorizing"
assert fall(high) < 0.03, "high: it stands still"
best = runs[0.0005].mean_last("test_accuracy")
assert best > high.mean_last("test_accuracy"), "so far, slow is better"

# %% [markdown]
# *Slow* is early stopping by another name: you must know when to stop. *High*
# has reached a **plateau**. It can run as long as you like. That is what
# Tanaka et al. need, because they want to repair labels for many epochs while
# nothing is being memorized (lesson 09).
#
# ## Three stages
#
# What if we lower the rate after the plateau? The paper trains with 0.2 up to
# epoch 200, then with 0.02, and from 400 on with 0.002. This is a **step
# schedule**: at each *milestone* the rate is multiplied by a *factor*.
#
# **Exercise 5.1** · difficulty ●○○○○ · importance ●●●○○ · 6 minutes
#
# Epochs count from 0. With a milestone at 60, epoch 59 is the last one with
# the old rate, and epoch 60 the first one with the new rate. It stays until
# the next milestone.


# %%
def step_schedule(epoch, lr, milestones, factor):
    """The learning rate in an epoch.

    epoch:      0, 1, 2, ...
    lr:         the rate at the start
    milestones: epochs in which the rate changes, for example [60, 120]
    factor:     the rate is multiplied by this at each milestone
    returns a number
    """
    ### BEGIN SOLUTION
    passed = sum(epoch >= milestone for milestone in milestones)
    return lr * factor**passed
    ### END SOLUTION


# %%
from nlcourse.checks import check, hint

step_schedule = check(step_schedule)

# %%
# hint("5.1")

# %% [markdown]
# Your function now drives the training. `fit` takes a `schedule`: it gets the
# optimizer and returns a torch schedule. `LambdaLR` multiplies the first rate
# by what your function says.
#
# We train at five noise rates, 180 epochs each. This is the longest cell of
# the lesson. **Before you run it:** where will the five loss curves end in
# the first stage? Where in the last?


# %%
def three_stages(optimizer):
    """Full rate, a tenth from epoch 60, a hundredth from epoch 120."""
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda epoch: step_schedule(epoch, 1.0, [60, 120], 0.1)
    )


rates = [0.0, 0.2, 0.4, 0.6, 0.8]
staged = {
    rate: train(rate, lr=0.2, epochs=180, schedule=three_stages)
    for rate in rates
}


# %%
def mark_milestones(figure):
    """Draw a line where the rate drops, and say so in the description."""
    for milestone in (60, 120):
        figure.axes[0].axvline(milestone + 0.5, color="black", linewidth=1)
    figure.alt_text += " The rate drops after epochs 60 and 120."
    return figure


figure = plots.lines(
    {f"noise {rate:.0%}": run["train_loss"] for rate, run in staged.items()},
    title="Training loss at rate 0.2, then 0.02, then 0.002",
    ylabel="cross entropy",
    ylim=(0, 2.8),
)
plots.show(mark_milestones(figure))

# %% [markdown]
# This is figure 3 of the paper. Read it stage by stage.
#
# * **First stage, high rate.** Each curve falls for a few epochs and then
#   stands still. The plateaus are in the order of the noise: more wrong
#   labels, more loss. Remember this; we shall make use of it.
# * **After each drop** the loss falls and goes on falling. The network
#   memorizes after all. Nothing else changed, only the rate.


# %%
def plateau(history):
    """Mean training loss over the last ten epochs of the first stage."""
    return sum(history["train_loss"][50:60]) / 10


print("noise   plateau   end of training   memorized at the end")
for rate, run in staged.items():
    end = run.mean_last("train_loss")
    print(
        f"{rate:5.0%}{plateau(run):10.2f}{end:18.2f}"
        f"{run.last['wrong_as_given']:23.1%}"
    )
    assert end < 0.75 * plateau(run), "the loss falls when the rate does"

levels = [plateau(run) for run in staged.values()]
steps = np.diff(levels)
assert steps.min() > 0.1, "the plateaus are in the order of the noise"

# %% [markdown]
# (`nan`: without wrong labels there is nothing to memorize.)
#
# **Where we differ from the paper.** There the loss falls to nearly 0 even at
# the highest noise. Ours falls far, but not to 0: it ends at 0.15 at 20 %
# noise, at 0.56 at 60 % and at 1.28 at 80 %. Our stages have far fewer steps,
# and we gave every step more weight decay in return. Which of the two is it?
# Question 1 at the end asks you to find out, and the answer is not flattering
# for our small copy.

# %% [markdown]
# ## The best moment
#
# What does the test accuracy do when the rate drops?

# %%
figure = plots.lines(
    {
        "test": plots.percent(staged[0.4], "test_accuracy"),
        "wrong labels memorized": plots.percent(staged[0.4], "wrong_as_given"),
    },
    title="Three stages at 40 % wrong labels",
    ylabel="share (%)",
    ylim=(0, 100),
)
plots.show(mark_milestones(figure))
test = staged[0.4]["test_accuracy"]
before, jump, end = sum(test[50:60]) / 10, max(test[60:70]), test[-1]
print(f"test accuracy on the plateau      {before:.1%}")
print(f"best within ten epochs of drop    {jump:.1%}")
print(f"at the very end                   {end:.1%}")
assert jump > before + 0.02, "right after the drop it is better"
assert end < before - 0.08, "and then it is lost"

# %% [markdown]
# Right after the drop the shaking stops, and the network is **as good as it
# ever was**: it knows the digits and has memorized hardly anything yet. Then
# it starts to.
#
# Imagine you could exchange the labels *on the plateau* for what the network
# believes, and lower the rate only then. There would be fewer wrong labels
# left to memorize. This is the plan of joint optimization, in lesson 09.

# %% [markdown]
# ## Now with the package, in one line
#
# torch has this schedule ready. We use it in the rest of the course.

# %%
from functools import partial

schedule = partial(
    torch.optim.lr_scheduler.MultiStepLR, milestones=[60, 120], gamma=0.1
)
optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.2)
torch_schedule = schedule(optimizer)
for epoch in range(180):
    ours = step_schedule(epoch, 0.2, [60, 120], 0.1)
    theirs = torch_schedule.get_last_lr()[0]
    assert math.isclose(ours, theirs, rel_tol=1e-5)
    if epoch in (0, 59, 60, 119, 120, 179):
        print(f"epoch {epoch:3}: rate {ours:g}, as torch says")
    optimizer.step()
    torch_schedule.step()

# %% [markdown]
# ## What is the height of the plateau?
#
# Think of an ideal network. It knows the true class of every image. It also
# knows the noise: with probability $r$ a label is wrong, and then it is any
# of the other $C - 1$ classes. But it has memorized **nothing**.
#
# What would it predict? The best it can: probability $1 - r$ for the true
# class, and $r / (C-1)$ for each other class. Its mean loss is then
#
# $$H(r) = -(1-r) \ln (1-r) \; - \; r \, \ln \frac{r}{C-1}.$$
#
# The first part comes from the right labels, the second from the wrong ones.
# $H$ is the **entropy** of the label, given the image. On average no network
# can go below it, *unless it memorizes*.
#
# **Exercise 5.2** · difficulty ●●●○○ · importance ●●●●● · 12 minutes
#
# Write it. One trap: at $r = 0$ the formula says $0 \cdot \ln 0$. What cannot
# happen costs nothing, so this part is 0. `torch.special.entr(p)` is
# $-p \ln p$ and knows that.


# %%
def irreducible_loss(noise_rate, num_classes):
    """Mean loss of a network that knows class and noise, no more.

    noise_rate:  share of wrong labels, spread evenly over the others
    num_classes: C, at least 2
    returns a number, in nats (natural logarithm, as cross entropy in torch)
    """
    ### BEGIN SOLUTION
    row = torch.full((num_classes,), noise_rate / (num_classes - 1))
    row[0] = 1 - noise_rate
    return torch.special.entr(row).sum().item()
    ### END SOLUTION


# %%
irreducible_loss = check(irreducible_loss)

# %%
# hint("5.2")

# %% [markdown]
# ## Three ways to end
#
# Now we put side by side, for each noise rate: the final loss at the low
# rate, the plateau at the high rate, and your formula. For the low rate four
# runs are missing.

# %%
low_runs = {
    rate: low if rate == 0.4 else train(rate, lr=0.02) for rate in rates
}
low_losses = [run.mean_last("train_loss") for run in low_runs.values()]
ideal = [irreducible_loss(rate, 10) for rate in rates]

print("noise   low rate   high rate   formula")
for row in zip(rates, low_losses, levels, ideal, strict=True):
    print("{:5.0%}{:11.2f}{:12.2f}{:10.2f}".format(*row))

# %%
plots.show(
    plots.lines(
        {
            "rate 0.02": low_losses,
            "rate 0.2": levels,
            "formula H(r)": ideal,
        },
        x=[100 * rate for rate in rates],
        title="Final training loss against the noise",
        xlabel="wrong labels (%)",
        ylabel="cross entropy",
        ylim=(0, 2.5),
    )
)
for measured, formula in zip(levels, ideal, strict=True):
    assert abs(measured - formula) < 0.25, "the plateau is at the formula"
for lower, formula in zip(low_losses[1:], ideal[1:], strict=True):
    assert lower < 0.6 * formula, "below the formula: memorized"

# %% [markdown]
# Nobody fitted the formula to the measurement. It contains no learning rate
# and no network. Yet the plateau of the high rate lies close to it.
#
# Two errors pull in opposite directions. The high rate is not perfect on the
# digits: this lifts the loss, most visibly where there is no noise. And it
# memorizes a little: this lowers the loss, most visibly where noise is
# strong.
#
# The low rate lies far **below** the formula. There is only one way to get
# there. So a training loss well below $H(r)$ is a sure sign of memorization,
# and you need no true label to see it. But you need $r$.

# %% [markdown]
# ## How do I know the noise rate of my own data?
#
# Many methods of this course ask for the noise rate. In real life nobody
# tells you. But now you have a curve from the noise rate to the loss. Read it
# **backwards**: train once at a high rate, look at the loss, find the rate.
#
# **Exercise 5.3** · difficulty ●●○○○ · importance ●●●●○ · 8 minutes
#
# A curve is given by points: `noise_rates` and the `losses` that belong to
# them, both rising. Between two neighbours it is a straight line. Below its
# first point answer with the first rate, above its last point with the last.
# You may use any tool, for example `numpy.interp`.


# %%
def estimate_noise_rate(loss, noise_rates, losses):
    """The noise rate at which the curve has this loss.

    loss:        a number
    noise_rates: tensor (k,), rising
    losses:      tensor (k,), rising: the loss at each of these rates
    returns a number
    """
    ### BEGIN SOLUTION
    from numpy import interp

    return float(interp(loss, losses, noise_rates))
    ### END SOLUTION


# %%
estimate_noise_rate = check(estimate_noise_rate)

# %%
# hint("5.3")

# %% [markdown]
# ## A blind test
#
# We have two curves to read. The **formula**, at many rates: it needs no data
# at all. And the **measured** plateaus: they know how *this* network fails on
# *these* images, but somebody had to have true labels to make them.
#
# Then five data sets with five secret noise rates, each with its own noise
# and its own training. Only the loss is handed over. One run each, 40 epochs,
# at rate 0.2.

# %%
grid = torch.linspace(0, 0.89, 90)
curves = {
    "formula": (
        grid,
        torch.tensor([irreducible_loss(r, 10) for r in grid.tolist()]),
    ),
    "measured": (torch.tensor(rates), torch.tensor(levels)),
}
dice = torch.Generator().manual_seed(1000 + SEED)
secrets = (0.02 + 0.73 * torch.rand(5, generator=dice)).tolist()

# %%
errors = {name: [] for name in curves}
print("secret    loss   formula   measured")
for number, secret in enumerate(secrets, start=1):
    run = train(secret, lr=0.2, epochs=40, seed=100 * number + SEED)
    loss = run.mean_last("train_loss")
    line = f"{secret:6.1%}{loss:8.2f}"
    for name, curve in curves.items():
        guess = estimate_noise_rate(loss, *curve)
        errors[name].append(abs(guess - secret))
        line += f"{guess:10.1%}"
    print(line)

for name, wrong in errors.items():
    mean = sum(wrong) / len(wrong)
    print(
        f"{name:9} mean error {100 * mean:.1f} points, "
        f"largest {100 * max(wrong):.1f} points"
    )
    assert mean < 0.04, "a few points, not more"
    assert max(wrong) < 0.08, "even the worst of five"

# %% [markdown]
# One run, one number, and we know the noise rate to within a few points. That
# is good enough for every method that asks for it.
#
# Three cautions about this table. The "secret" is the rate of the coin; the
# share that came out differs a little by chance. Five tries do not show the
# worst case. And the measured curve was made with the same images, which is
# kinder than life. Even so, compare the two columns: did it help?
#
# ## When not to trust it
#
# The formula assumes that a wrong label is *any* other class. Suppose people
# mix up each class with the **next** one only: pair flip, 4 becomes 5. Before
# you run the cell: will the estimate be right, too low or too high?

# %%
print("pair flip    loss   formula   memorized")
for rate in (0.2, 0.4):
    run = train(rate, lr=0.2, epochs=40, kind="pairflip")
    loss = run.mean_last("train_loss")
    guess = estimate_noise_rate(loss, *curves["formula"])
    print(
        f"{rate:9.0%}{loss:8.2f}{guess:10.1%}"
        f"{run.mean_last('wrong_as_given'):12.1%}"
    )

assert guess < 0.3, "far too low: the wrong formula for this noise"

# %% [markdown]
# Far too low. The loss does not count wrong labels. It measures how
# **unpredictable** a label is, and a label that is always wrong in the same
# way is easy to predict. The more regular the mistakes, the more of them hide.
#
# Do not read *memorized* as usual here: predicting the next class is not
# always learning by heart. Where nearly half the fours are called 5, it is a
# pattern.
#
# So before you believe such an estimate, ask four questions.
#
# * **Which kind of noise?** Human mistakes are not symmetric. Then the number
#   is a lower bound at best. Lesson 03 estimates the whole matrix.
# * **Would clean data have loss 0?** On digits nearly. On photographs a high
#   rate has much loss even with true labels, and the formula puts all of it
#   down to noise. Measure a curve on similar data that you trust.
# * **Is it a plateau?** If the loss still falls, you measured your patience.
# * **What do I need it for?** Lesson 12 shows what happens to a method when
#   the assumed rate is off.

# %% [markdown]
# ## Is it really the rate?
#
# One more question, and it is the deepest. Why does a high rate forget?
#
# A wrong label is one image against many. It pushes the weights once an epoch.
# In the rest of the epoch the weights must *keep* that push. But each step of
# the decay takes a share $\eta\lambda$ of them away, ten times that with
# momentum 0.9. What all images say is renewed in every step. What one image
# says is **forgotten**.

# %%
here, there = our_steps / EPOCHS, paper_steps / 200  # steps an epoch
print("the weights forget within        steps   epochs")
for name, rate, decay, per_epoch in (
    ("digits, rate 0.02", 0.02, DECAY, here),
    ("digits, rate 0.2", 0.2, DECAY, here),
    ("paper's CIFAR-10, rate 0.2", 0.2, 1e-4, there),
):
    steps = (1 - 0.9) / (rate * decay)
    print(f"{name:30}{steps:8.0f}{steps / per_epoch:9.0f}")

# %% [markdown]
# A network that forgets within a few epochs cannot collect exceptions. (How
# few is few? In the paper it has longer than ours. That much does not carry
# over from one data set to another. Our guess: photographs are harder to learn
# by heart than our small digits.)
#
# If this is right, not the rate alone decides but the **product** of rate and
# decay. That can be tested. **Predict first:**
#
# * the high rate *without* weight decay: does it memorize?
# * the low rate with *ten times* the decay: does it?
#
# And two rows more: the plain network of the earlier lessons, which has no
# batch norm, at the high rate without decay and with it.

# %%
no_decay = train(0.4, lr=0.2, weight_decay=0.0)
more_decay = train(0.4, lr=0.02, weight_decay=10 * DECAY)
plain = train(0.4, lr=0.2, weight_decay=0.0, network="mlp")
plain_decay = train(0.4, lr=0.2, network="mlp")

# %%
six = {
    "rate 0.2,  our decay": high,
    "rate 0.02, our decay": low,
    "rate 0.2,  no decay": no_decay,
    "rate 0.02, ten times the decay": more_decay,
    "rate 0.2,  plain, no decay": plain,
    "rate 0.2,  plain, our decay": plain_decay,
}
for name, run in six.items():
    print(
        f"{name:32} memorized {run.mean_last('wrong_as_given'):6.1%}"
        f"   test {run.mean_last('test_accuracy'):6.1%}"
    )
assert no_decay.mean_last("wrong_as_given") > 0.7, "the rate alone: no"
assert more_decay.mean_last("wrong_as_given") < 0.2, "the product: yes"
top = high.mean_last("test_accuracy")
assert more_decay.mean_last("test_accuracy") > top, "and better"
assert plain.mean_last("test_accuracy") < top - 0.1, "no success"
assert plain_decay.mean_last("wrong_as_given") < 0.2, "decay again"

# %% [markdown]
# On our digits it is the **product**. The high rate without decay memorizes.
# The low rate with more decay does not, and is better on new images.
#
# The plain network without decay is a warning. It memorizes less than the low
# rate does, but look at its test accuracy: it does not gain by it. It cannot
# hold **anything** well. *Not memorizing* alone is no success. Give it our
# decay, and it behaves. So batch norm is not the point.
#
# In the paper's figures the decay is the same everywhere. So its message "a
# high learning rate does not memorize" is right for its setting. Take it along
# with its condition: together with weight decay, and for long enough.

# %% [markdown]
# ## Your turn: the explorer
#
# Same network, same decay. Two sliders matter: **learning rate** (each step
# multiplies it) and **noise rate**.
#
# **Your goal:** at 60 % noise find a rate that does not memorize **and**
# stands still, so that you could let it run. A slow rate will not do. How far
# up can you go? Then move the noise slider and watch the training loss that
# the panel tells you: which noise rate does it speak of?

# %%
from nlcourse.panels import Explorer, Goal, MethodChoice


def judge(run):
    asked, history = run.settings, run.history
    loss = history.mean_last("train_loss")
    guess = estimate_noise_rate(loss, *curves["formula"])
    words = f"loss {loss:.2f} speaks of {guess:.0%} noise"
    if asked.noise_kind != "symmetric" or abs(asked.noise_rate - 0.6) > 0.01:
        return False, words + "; the goal is for symmetric noise of 60 %"
    if len(history) < 20:
        return False, "take at least 20 epochs: no plateau is seen sooner"
    memorized = history.mean_last("wrong_as_given")
    test, falls = history.mean_last("test_accuracy"), fall(history)
    reached = memorized < 0.2 and test > 0.5 and falls < 0.03
    return reached, (
        f"memorized {memorized:.0%}, test {test:.0%}, {words} and fell by "
        f"{falls:.2f} in ten epochs"
    )


# %%
choice = MethodChoice(
    "cross-entropy",
    CrossEntropy,
    fit_options={"network": network, "weight_decay": DECAY},
)
explorer = Explorer(
    methods=(choice,),
    noise_kinds=("symmetric", "pairflip"),
    noise_rate=0.6,
    lr=0.02,
    epochs=40,
    seed=SEED,
    goal=Goal(
        "Symmetric noise of 60 %: memorize under 20 %, test over 50 %, and a "
        "loss that stands still (falls by less than 0.03 in ten epochs).",
        judge,
    ),
)
explorer

# %% [markdown]
# Two tries from code, so that you see a picture even if you only read. The
# first rate is low enough to look fine, but it is only slow.

# %%
slow = explorer.try_out(noise_rate=0.6, lr=0.001)
tried = explorer.try_out(noise_rate=0.6, lr=0.2)
for run in (slow, tried):
    print(f"rate {run.settings.lr:g}: reached {run.reached}. {run.verdict}")
plots.show(explorer.figure())
assert not slow.reached, "slow is not a plateau"
assert tried.reached

# %% [markdown]
# ## What if I ask for nonsense?
#
# Nothing breaks. A rate that is no rate is refused before training. At a rate
# that is far too large the numbers overflow; `fit` stops and says so, and the
# error carries the epochs until then.

# %%
try:
    train(0.4, lr=-0.1)
except ValueError as error:
    print("ValueError:", error)

try:
    train(0.4, lr=100)
    raise AssertionError("this rate should have been too large")
except DivergedError as error:
    print("DivergedError:", error)
    print("epochs until then:", len(error.history))

# %% [markdown]
# ## Beside the paper
#
# The figures of the paper print no numbers, but say this:
#
# | what | CIFAR-10, paper | digits, here |
# |---|---|---|
# | low rate, test accuracy | falls gradually | falls |
# | high rate, test accuracy | stays high to the end | stays, shaking |
# | loss at the high rate | grows with the noise | grows, near $H(r)$ |
# | loss after the drops | near 0 at all noise | 0.15 at 20 %, 1.28 at 80 % |
# | weight decay | $10^{-4}$ | more, as we have fewer steps |
#
# Its table 1 has numbers for cross entropy: test accuracy in the best epoch
# and in the last. Their noise rate includes the true class, so that a rate
# of 0.9 means 81 % *wrong* labels. We list both by the share of wrong labels,
# and take our three-stage runs.

# %%
paper = [
    (0.0, 93.5, 93.4),
    (0.1, 91.0, 87.0),
    (0.3, 88.4, 72.2),
    (0.5, 85.0, 55.3),
    (0.7, 78.4, 36.6),
    (0.9, 41.1, 20.4),
]
print("wrong labels    best    last")
for rate, best, last in paper:
    print(f"{0.9 * rate:8.0%}{best:12.1f}{last:8.1f}   CIFAR-10, paper")
for rate, run in staged.items():
    best, last = 100 * run.best(), 100 * run.last["test_accuracy"]
    print(f"{rate:8.0%}{best:12.1f}{last:8.1f}   digits, three stages")
    if rate:
        assert best > last + 5, "the last epoch is worse than the best"

# %% [markdown]
# The digits are easier, so our numbers are higher at equal noise. The shape is
# the same. And note what the last column says: the *last* epoch comes after
# the rate has dropped. The high rate protects you only as long as it is high.

# %% [markdown]
# ## Think about it
#
# **1.** Our loss at 80 % noise does not fall to 0 in the three stages. Is it
# the time, or the decay? How would you find out?
#
# <details><summary>Answer</summary>
#
# Change one thing at a time. `train(0.8, lr=0.2, epochs=540, schedule=...)`
# with milestones 180 and 360 gives more time at the same decay: the loss does
# not come near 0, it stays even higher. Add `weight_decay=DECAY / 3`, and it
# does come near 0, as in the paper. So it is the decay of a single step.
#
# But look at the first stage of that run. Its loss does not stand still any
# more; it sinks far below $H(0.8)$. With less decay our *high* rate memorizes,
# too. On digits, neither of the two gives both the paper's plateau and the
# paper's zero. (Both runs are in `tests/test_lesson_05.py`.)
#
# </details>
#
# **2.** Somebody shows you a training loss of 0.3 on ten classes and says:
# "My labels have 40 % symmetric noise, and my network has not memorized." Can
# that be?
#
# <details><summary>Answer</summary>
#
# No. Without memorizing, the mean loss cannot be below $H(0.4)$, which your
# function gives as far more than 0.3 (see the table above). One of the two
# statements is wrong.
#
# </details>
#
# **3.** Where is $H(r)$ largest, and what does the estimate do beyond?
#
# <details><summary>Answer</summary>
#
# At $r = 0.9$ for ten classes: then all classes are equally likely, and
# $H = \ln 10$. Beyond that the loss falls again, because "certainly not this
# class" is knowledge, too. Near the top the curve is flat. A small error of
# the loss becomes a large error of the rate, so strong noise is estimated
# badly.
#
# </details>
#
# **4.** Would a smaller batch size help against memorizing?
#
# <details><summary>Answer</summary>
#
# It makes more steps in an epoch, each with the same decay, so the weights
# forget more between two visits of an image. And each step is noisier. Both
# act like a higher rate. Try `train(0.4, lr=0.02, batch_size=20)`.
#
# </details>

# %% [markdown]
# ## What to remember
#
# * At a **high** learning rate, together with weight decay, a network learns
#   the pattern and does not memorize. When the rate drops, it does.
# * *Slow* is not *high*: a slow run still moves, a high one stands still.
# * The plateau lies near $H(r)$, the loss of a network that knows the noise
#   but memorized nothing. Below $H(r)$ there is memorization.
# * Read backwards, the plateau **estimates the noise rate**, for symmetric
#   noise on easy data.
# * Rate and decay act together. A claim about the one is a claim about both.
#
# ## References
#
# * D. Tanaka et al., *Joint Optimization Framework for Learning with Noisy
#   Labels*, CVPR 2018, arXiv 1803.11364 (figures 2 and 3, table 1).
# * K. He et al., *Identity Mappings in Deep Residual Networks*, ECCV 2016,
#   arXiv 1603.05027 (the PreAct ResNet).
# * T. van Laarhoven, *L2 Regularization versus Batch and Weight
#   Normalization*, 2017, arXiv 1706.05350 (why decay acts on the rate when
#   there is batch norm).
#
# **Next:** lesson 06 changes the loss itself: which losses resist noise?
