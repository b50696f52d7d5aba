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
# # 02 A closer look at memorization
#
# Lesson 01 ended with a riddle. The network that reads real digits so well
# can also learn pure dice by heart. So does it learn the real digits by heart
# as well? Arpit et al. (2017) looked closer: not at *whether* a network fits,
# but at *how* it gets there.
#
# **After this lesson you will be able to**
#
# * tell learning from memorizing by looking at the way, not at the end;
# * measure it with three numbers: loss sensitivity, its Gini coefficient and
#   the critical sample ratio;
# * say what capacity, data and regularisers do to memorization, and show it.
#
# **Time:** about 80 minutes, three exercises, one live experiment. You need
# lesson 00. Everything runs on a laptop without a GPU.

# %% [markdown]
# ## Predict first
#
# We train one small network on 400 digits until it has all labels right.
# Once with the true labels, once with labels rolled by a die. The second run
# takes longer. How many times longer?
#
# * (a) about twice;
# * (b) about five times;
# * (c) a hundred times, if it ends at all;
# * (d) there is no such number: it depends on the network and on the data.
#
# Write down a letter. If it is (d), write down *how* it depends.

# %% [markdown]
# ## Three worlds
#
# The paper compares three data sets that differ in one thing only: how much
# there is to understand.
#
# * **real**: the digits with their true labels;
# * **random labels** (the paper's *randY*): the same pictures, each label
#   rolled with a ten-sided die;
# * **noise images** (*randX*): the true labels, but each picture replaced by
#   Gaussian noise with the mean and deviation of the data.
#
# `SEED` fixes all dice of this notebook. Change it, run everything again, and
# see what is luck and what is not.

# %%
from functools import partial

import numpy as np
import torch

from nlcourse import datasets, noise
from nlcourse.panels import plots

torch.set_num_threads(1)  # networks this small gain nothing from a second
SEED = 0
data = datasets.load("digits")
print(data)


# %%
def roll_labels(data):
    kind = "symmetric-including-true"
    return noise.inject(data, kind, rate=1.0, seed=SEED)


def make_noise_images(data):
    dice = torch.Generator().manual_seed(SEED)
    images = torch.cat((data.images, data.test_images))
    images = noise.gaussian_images(images, dice)
    n = len(data.images)
    return data.with_images(images[:n], images[n:])


# %%
some = data.subset(500, seed=SEED)
worlds = {
    "real": some,
    "random labels": roll_labels(some),
    "noise images": make_noise_images(some),
}
pictures = torch.cat([world.images[:8] for world in worlds.values()])
labels = torch.cat([world.labels[:8] for world in worlds.values()])
captions = [str(label) for label in labels.tolist()]
title = "Real digits, random labels, noise images (one row each)"
plots.show(plots.image_grid(pictures, captions, columns=8, title=title))

# %% [markdown]
# In the first row picture and label belong together. In the second nothing
# connects them, although the pictures still look alike among themselves. In
# the third there is not even that.
#
# `train` is `fit` from lesson 00, kept on the processor and without a bar.
# `seen` gives the pictures as the network sees them: with mean 0 and
# deviation 1.

# %%
from nlcourse.methods import CrossEntropy
from nlcourse.training import Options, fit
from nlcourse.training.batches import Images
from nlcourse.training.networks import mlp

train = partial(fit, progress=False, device="cpu")


def seen(images):
    return Images(images, data.mean, data.std).get(slice(None))


# %% [markdown]
# ## 1. Simple patterns first
#
# Suppose the network learned everything by heart, one example after the
# other. Then no example would be easier than another. After one epoch some
# would be right, by luck, and in the next run it would be others.
#
# So repeat the first epoch many times, each time with new first weights and
# a new order of the examples. How often is each example missed? We take 1,000
# examples, as the paper does, and 30 runs.
#
# Beside them we put what pure luck looks like: `coins`, as many as examples,
# each tossed once a run, with the mean of the noise images.

# %%
RUNS = 30


def miss_rates(world):
    missed = torch.zeros(len(world.labels))
    for run in range(RUNS):
        method = CrossEntropy()
        train(method, world, epochs=1, lr=0.01, seed=1000 * SEED + run)
        with torch.no_grad():
            predicted = method.network(seen(world.images)).argmax(dim=1)
        missed += predicted != world.labels
    return missed / RUNS


# %%
many = data.subset(1000, seed=SEED)
large_worlds = many, roll_labels(many), make_noise_images(many)
missed = {
    name: miss_rates(world)
    for name, world in zip(worlds, large_worlds, strict=True)
}
mean = missed["noise images"].mean()
coins = torch.distributions.Binomial(RUNS, mean)
torch.manual_seed(SEED)
missed["coins"] = coins.sample((len(many.labels),)) / RUNS

curves = {
    name: 100 * rates.sort().values.numpy() for name, rates in missed.items()
}

# %%
plots.show(
    plots.lines(
        curves,
        title=f"Who is missed after one epoch, in {RUNS} runs?",
        xlabel="rank of the example, 1 = easiest",
        ylabel="runs that miss it (%)",
        ylim=(0, 100),
    )
)

# %% [markdown]
# *The paper (figure 1, 100 runs, 1,000 examples):* on real data many examples
# are nearly always right and many nearly always wrong. Noise images lie on
# the coins. Random labels lie in between.
#
# Is it so here? The standard deviation of the rates says it in one number.
# Beside it stands that of coins with the same mean. We call an example *easy*
# when at most one run in ten misses it.

# %%
spread, easy = {}, {}
print("                mean missed     spread    of coins    easy examples")
for name in worlds:
    p = missed[name].mean()
    luck = (p * (1 - p) / RUNS).sqrt()
    spread[name] = missed[name].std()
    easy[name] = (missed[name] <= 0.1).float().mean()
    print(
        f"{name:14} {p:12.0%} {spread[name]:10.3f} {luck:11.3f}"
        f" {easy[name]:16.1%}"
    )

assert spread["real"] > spread["random labels"] > spread["noise images"]
assert spread["noise images"] < 1.3 * luck, "close to luck"
assert easy["real"] > 0.2
assert max(easy["random labels"], easy["noise images"]) < 0.05

# %% [markdown]
# On real digits *the same* examples come first in every run. The network did
# not choose them by luck: they share patterns with many others, so one step
# for one of them is a step for all. (Few of ours are missed in *every* run;
# the paper's photographs have more such.)
#
# Why do random labels not lie on the coins? Because the pictures still share
# patterns. Two zeros with two different labels pull the network in two
# directions. The label that happens to be frequent among the zeros wins, and
# the others are missed in every run. How wide that spreads the rates depends
# on the dice: try other seeds. But hardly anybody becomes *easy*.
#
# Which digits are easy, and which are hard?

# %%
order = missed["real"].argsort()
shown = torch.cat((order[:10], order[-10:])).tolist()
captions = [f"{many.labels[i]}: {missed['real'][i]:.0%}" for i in shown]
title = "Missed least (above) and most often (below): label and rate"
plots.show(plots.image_grid(many.images[shown], captions, title=title))

# %% [markdown]
# ## 2. Who teaches the network? Loss sensitivity
#
# Look inside while it trains. If an example still matters, a small change of
# its pixels changes the loss. The paper's *loss sensitivity* of an example
# $x$ is the l1 norm of the slope in its pixels,
#
# $$ g_x = \left\| \frac{\partial \ell(f(x), y)}{\partial x} \right\|_1
#        = \sum_{\text{pixels } i}
#          \left| \frac{\partial \ell}{\partial x_i} \right| . $$
#
# **Exercise 2.1** · difficulty ●●●○○ · importance ●●●●○ · 12 minutes
#
# Write it for a whole batch at once. Autograd gives slopes in pixels just as
# it gives slopes in weights: the pixels only have to ask for them.


# %%
def loss_sensitivity(network, images, labels):
    """Return the l1 norm of the slope of each loss in the pixels.

    network: maps images to logits (n, C)
    images:  float (n, channels, height, width); not changed
    labels:  int64 (n,)
    returns one number for each image, (n,)
    """
    ### BEGIN SOLUTION
    images = images.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(
        network(images), labels, reduction="sum"
    )
    gradient = torch.autograd.grad(loss, images)[0]
    return gradient.abs().flatten(1).sum(dim=1)
    ### END SOLUTION


# %%
from nlcourse.checks import check, hint

loss_sensitivity = check(loss_sensitivity)

# %%
# hint("2.1")

# %% [markdown]
# ## How unequal? The Gini coefficient
#
# Do a few examples hold all the sensitivity, or all of them alike? Economists
# ask the same about money. Their **Gini coefficient** is 0 when all own the
# same, and close to 1 when one owns everything. With the values in rising
# order, $x_1 \le \dots \le x_n$,
#
# $$ G = \frac{2 \sum_{i=1}^{n} i\, x_i}{n \sum_{i=1}^{n} x_i}
#        - \frac{n+1}{n} . $$
#
# **Exercise 2.2** · difficulty ●●○○○ · importance ●●●○○ · 8 minutes


# %%
def gini(values):
    """Return the Gini coefficient of values that are not negative.

    values: (n,), in any order
    returns a number from 0 (all equal) to (n - 1) / n
    """
    ### BEGIN SOLUTION
    n = len(values)
    ranks = torch.arange(1, n + 1)
    rising = values.sort().values
    return 2 * (ranks * rising).sum() / (n * values.sum()) - (n + 1) / n
    ### END SOLUTION


# %%
gini = check(gini)

# %%
# hint("2.2")

# %% [markdown]
# ## 3. How twisted? Critical samples
#
# The second measure looks at the *borders* between the classes. An image is
# **critical** when a tiny change of its pixels, at most $r$ in each, changes
# the predicted class. Labels play no part. The **critical sample ratio**
# (CSR) is the share of critical images. A network that has drawn a border
# around every single example has borders everywhere.
#
# To find such a change the paper searches. From the image it goes uphill on
# the loss *of the class that the network predicts*, adds a random kick, and
# returns into the box of half-width $r$ around the image. The paper calls the
# search LASS, and repeats until the class changes or it gives up.
#
# $$ \tilde x \leftarrow \mathrm{clip}\big(\tilde x + \alpha\,
#    \mathrm{sign}(\nabla) + \text{kick},\; x - r,\; x + r\big) $$

# %% [markdown]
# **Exercise 2.3** · difficulty ●●○○○ · importance ●●●●○ · 10 minutes
#
# Write one step of the search. `torch.clamp` accepts tensors as limits.


# %%
def lass_step(moved, images, gradient, kick, radius, step):
    """Return where the search stands after one more step.

    moved:    (n, channels, height, width), where it stands now
    images:   same shape, the images it started from
    gradient: same shape, slope of the loss at `moved`
    kick:     same shape, the random part of the step
    radius:   half the width of the box, in each pixel
    step:     alpha, how far each pixel goes
    """
    ### BEGIN SOLUTION
    moved = moved + step * gradient.sign() + kick
    return torch.clamp(moved, images - radius, images + radius)
    ### END SOLUTION


# %%
lass_step = check(lass_step)

# %%
# hint("2.3")

# %% [markdown]
# ## How large is the box?
#
# The paper takes $r = 0.3$ where pixels go from 0 to 255, and
# $\alpha = 0.25$. Its kick is Gaussian with deviation 0.2. All three must be
# on the scale of *our* input:
#
# * divide by 255, because our pixels go from 0 to 1;
# * divide by the deviation of the data, because `fit` normalises them.
#
# An 8 x 8 scan has only 17 levels of grey, and a small network has calmer
# borders than a large one. So we also take a natural step of this data set:
# **one level of grey**, 1/16. We keep the paper's $\alpha / r$ and kick.

# %%
from nlcourse.memorization import Search, critical_sample_ratio

paper_radius = 0.3 / 255 / data.std[0]
radius = 1 / 16 / data.std[0]
print(f"the paper's box, on the scale of our input: {paper_radius:.4f}")
print(f"one level of grey, on the same scale:       {radius:.4f}")

# %% [markdown]
# ## Measure while it trains
#
# `Watch` measures after every fifth epoch. It takes your three functions.
# Sensitivity belongs to the training images, CSR to test images (for the
# noise images: fresh noise). As in the paper, the sensitivities are averaged
# over training before the Gini coefficient is taken.

# %%
from nlcourse.memorization import Watch


def watched(world, epochs=50):
    method = CrossEntropy()
    views = seen(world.images), world.labels, seen(world.test_images)
    watch = Watch(
        method,
        *views,
        radius=radius,
        every=5,
        search=Search(iterations=20, move=lass_step),
        measures=(loss_sensitivity, gini),
    )
    history = train(method, world, epochs=epochs, seed=SEED, on_epoch=watch)
    return method.network, history, watch


networks, histories, watches = {}, {}, {}
for name, world in worlds.items():
    networks[name], histories[name], watches[name] = watched(world)


# %%
def against_epoch(column, title, ylabel):
    series = {name: watch[column] for name, watch in watches.items()}
    epochs = watches["real"]["epoch"]
    top = (0, 1)
    return plots.lines(series, x=epochs, title=title, ylabel=ylabel, ylim=top)


plots.show(
    plots.lines(
        {k: plots.percent(h, "given_accuracy") for k, h in histories.items()},
        title="All three worlds are fitted, sooner or later",
        ylabel="training accuracy (%)",
        ylim=(0, 100),
    )
)

# %%
title = "Gini coefficient of the sensitivities, averaged so far"
plots.show(against_epoch("mean_gini", title, "Gini coefficient"))
last = {name: watch["mean_gini"][-1] for name, watch in watches.items()}
now = {name: watch["gini"][-1] for name, watch in watches.items()}
print("               averaged    last epoch alone")
for name, value in last.items():
    print(f"{name:14} {value:8.2f} {now[name]:15.2f}")
assert last["real"] > 1.3 * last["random labels"]
assert last["real"] > 1.3 * last["noise images"]

# %% [markdown]
# *The paper (figure 3):* a high Gini coefficient on real data, a low one on
# random data.
#
# On real digits most examples soon have nothing left to teach: what others
# taught covers them. A few odd ones hold the sensitivity. Where every label
# is a die, every example has to be learned by itself. At one moment late in
# training a few dice matter most (second column). Averaged over training, all
# mattered alike.

# %% [markdown]
# ## The paper's own $g_x$
#
# One honest remark. The slope above is taken at the weights as they are. The
# paper's derivative goes further: *through all SGD updates* in which the
# example took part. It asks what having trained on $x$ did to the loss. That
# takes a second derivative through the whole training, so the paper used 1,000
# images and two layers of 16 units. We do it with 500. Does the order of the
# three worlds change? After that, look at the borders.

# %%
from nlcourse.memorization import unrolled_loss_sensitivity

steps = (100, 200, 400, 800)
unrolled = {}
for name, world in worlds.items():
    torch.manual_seed(SEED)
    small = mlp(data.image_shape, 10, hidden=(16, 16))
    found = []
    for t in steps:
        dice = torch.Generator().manual_seed(SEED)
        found.append(
            unrolled_loss_sensitivity(
                small,
                seen(world.images),
                world.labels,
                steps=t,
                lr=0.1,
                batch_size=32,
                generator=dice,
            )
        )
    unrolled[name] = [
        gini(torch.stack(found[: k + 1]).mean(0)) for k in range(len(steps))
    ]

# %%
plots.show(
    plots.lines(
        unrolled,
        x=steps,
        title="Gini coefficient, through the updates",
        xlabel="SGD steps",
        ylabel="Gini coefficient",
        ylim=(0, 1),
    )
)
for name, values in unrolled.items():
    print(f"{name:14} {values[-1]:.2f} after {steps[-1]} steps")
assert unrolled["real"][-1] > unrolled["random labels"][-1]
assert unrolled["real"][-1] > unrolled["noise images"][-1]

# %%
plots.show(against_epoch("csr", "Critical sample ratio", "share critical"))
csr = {name: watch["csr"] for name, watch in watches.items()}
for name, values in csr.items():
    low = min(values)
    print(f"{name:14} {values[0]:.2f} first, {low:.2f} lowest", end=", ")
    print(f"{values[-1]:.2f} last")
assert csr["random labels"][-1] > csr["real"][-1] + 0.3
assert csr["noise images"][-1] > csr["real"][-1] + 0.3
assert min(csr["random labels"][-3:]) > 0.95, "they stay at the top"
assert csr["real"][-1] < csr["real"][0], "on real digits it falls"

# %% [markdown]
# *The paper (figures 7 to 9):* CSR is far higher for both kinds of noise than
# for real data; it rises in training and then levels off.
#
# The first half is here. The second half is here for random labels: after a
# dip they climb to 1 and stay. Noise images start at the top, and on real
# digits our curve *falls*. After one epoch the network is unsure of nearly
# everything, so the smallest change tips it over. It becomes sure before it
# has to draw anything complicated. The paper's photographs have many hard
# examples left for later; our digits have few.

# %% [markdown]
# ## What the search finds
#
# The search proves that an image is critical. It never proves that it is not.
# So a better search finds more. One straight step to the corner of the box is
# the fast version.
#
# Look at the last column too, CSR on the *training* images. For noise images
# it is far lower than on fresh noise: the loss goes on pushing fitted
# examples away from the borders. That is why the paper measures CSR on images
# that the network has not seen.


# %%
def ratio(name, images, radius, **options):
    dice = torch.Generator().manual_seed(SEED)
    return critical_sample_ratio(
        networks[name], seen(images), radius, Search(**options), dice
    )


print("                  one step   full search   paper's box   training")
for name, world in worlds.items():
    test = name, world.test_images
    fast, full = ratio(*test, radius, single_step=True), ratio(*test, radius)
    tiny = ratio(*test, paper_radius)
    training = ratio(name, world.images, radius)
    print(f"{name:14} {fast:11.3f} {full:13.3f} {tiny:13.3f} {training:10.3f}")
    assert fast <= full

# %% [markdown]
# ## 4. Noise needs capacity, and time
#
# Now our question from the start. We train until *all* given labels are
# right and count the epochs: for four widths, four numbers of examples, true
# and random labels. We give up after 160 epochs.

# %%
from nlcourse.memorization import epochs_to_fit

WIDTHS, SIZES, PATIENCE = (16, 32, 64, 256), (100, 200, 400, 800), 160
kinds = {"true labels": lambda data: data, "random labels": roll_labels}
needed = {}
for kind, change in kinds.items():
    for width in WIDTHS:
        for size in SIZES:
            world = change(data.subset(size, seed=SEED))
            needed[kind, width, size] = epochs_to_fit(
                CrossEntropy(),
                world,
                max_epochs=PATIENCE,
                options=Options(batch_size=50),
                network=partial(mlp, hidden=(width, width)),
                seed=SEED,
                device="cpu",
            )

# %%
for kind in kinds:
    print(f"{kind}: epochs until all are right")
    print("   width" + "".join(f"{size:>8} ex." for size in SIZES))
    for width in WIDTHS:
        row = [needed[kind, width, size] for size in SIZES]
        words = [f"{n:.0f}" if n <= PATIENCE else "never" for n in row]
        print(f"{width:8}" + "".join(f"{word:>12}" for word in words))

# %%
draw = partial(plots.lines, ylim=(0, PATIENCE), ylabel="epochs (gap: never)")
by_width = {kind: [needed[kind, w, 400] for w in WIDTHS] for kind in kinds}
figure = draw(
    by_width,
    x=WIDTHS,
    log_x=True,
    xlabel="width of both layers",
    title="400 examples: epochs until all are right",
)
figure.axes[0].set_xticks(WIDTHS, [str(width) for width in WIDTHS])
figure.axes[0].minorticks_off()
plots.show(figure)
by_size = {
    f"{kind}, width {w}": [needed[kind, w, n] for n in SIZES]
    for kind in kinds
    for w in (64, 256)
}
title = "More and more examples: epochs until all are right"
plots.show(draw(by_size, x=SIZES, xlabel="examples", title=title))


# %%
def times(kind, width, size):
    return needed[kind, width, size] / needed["true labels", width, size]


assert needed["true labels", 16, 800] <= PATIENCE
assert needed["random labels", 16, 800] > PATIENCE, "dice need more width"
print("random labels take so many times longer:")
for width in (64, 256):
    low, high = (times("random labels", width, n) for n in (100, 800))
    print(f"width {width:3}: {low:.1f} at 100 examples, {high:.1f} at 800")
    assert high > 1.5
true_growth, random_growth = (
    needed[k, 64, 800] / needed[k, 64, 100] for k in kinds
)
print(
    f"width 64, from 100 to 800 examples: true labels x {true_growth:.1f}, "
    f"random labels x {random_growth:.1f}"
)
assert random_growth > true_growth

# %% [markdown]
# *The paper (figures 5 and 6):* with noise more units are needed; the time to
# fit rises as units are taken away or examples added, and for noise it rises
# much more.
#
# So the answer was **(d)**. With true labels more examples cost no epochs: an
# epoch has more steps, and they all say the same. With dice each new example
# is a new thing to remember. The wide network hardly feels it, the narrow one
# runs out of room. That is a limit of *capacity*, and real digits never meet
# it here: they fit into 16 units.

# %% [markdown]
# ## Your turn: the explorer
#
# Move the width, the number of examples and the share of wrong labels, then
# press **Start**.
#
# **Your goal:** leave the noise rate at 0.4 and the 30 epochs. Find a width
# and a number of examples at which the network memorizes **less than a
# fifth** of the wrong labels and still reads **over 80 %** of the test
# digits. Is more data or less width the better way?

# %%
from nlcourse.panels import Explorer, Goal
from nlcourse.panels.compute import Parameter


def train_on(settings, stop, on_epoch):
    asked = dict(settings.options)
    world = data.subset(asked["examples"], seed=SEED)
    world = noise.inject(world, "symmetric", settings.noise_rate, seed=SEED)
    network = partial(mlp, hidden=(asked["width"], asked["width"]))
    torch.set_num_threads(1)  # each thread of a program has its own setting
    return train(
        CrossEntropy(),
        world,
        network=network,
        epochs=settings.epochs,
        lr=settings.lr,
        seed=settings.seed,
        options=Options(stop=stop),
        on_epoch=on_epoch,
    )


# %%
def judge(run):
    asked, row = run.settings, run.history.last
    if asked.noise_rate != 0.4 or asked.epochs < 30:
        return False, "the goal is for noise rate 0.4 and 30 epochs"
    memorized, test = row["wrong_as_given"], row["test_accuracy"]
    reached = memorized < 0.2 and test > 0.8
    return reached, f"memorized {memorized:.0%}, test {test:.0%}"


goal = Goal(
    "At noise rate 0.4, 30 epochs: memorize under 20 % of the wrong "
    "labels and keep over 80 % test accuracy.",
    judge,
)

# %%
explorer = Explorer(
    train=train_on,
    noise_kinds=("symmetric",),
    methods=("cross-entropy",),
    options=(
        Parameter("width", 64, 4, 256, 4),
        Parameter("examples", 400, 100, 1200, 100),
    ),
    hide=("lr",),
    epochs=30,
    seed=SEED,
    goal=goal,
)
explorer

# %% [markdown]
# Four tries from code, so that you see a picture even if you only read: a
# wide network and a narrow one, with few examples and with many. Answer the
# question of the goal before you scroll.

# %%
tries = {}
for width, size in ((256, 400), (8, 400), (256, 1200), (16, 1200)):
    run = explorer.try_out(noise_rate=0.4, width=width, examples=size)
    tries[f"width {width}, {size} examples"] = run
    print(f"width {width:3}, {size:5} examples: {run.verdict}")
curves = {name: run.history for name, run in tries.items()}
plots.show(plots.learning_curves(curves, title="40 % wrong labels"))
*others, both = tries.values()
assert both.reached, "it takes both"
assert not any(run.reached for run in others), "one alone is not enough"

# %% [markdown]
# **It takes both.** With few examples the narrow network memorizes little,
# and reads too little. The wide one memorizes, however many examples it gets.
# Many examples *and* little width: now the common pattern is cheaper than the
# exceptions.
#
# ## 5. Regularisers
#
# Lesson 01 said: explicit regularisation does not *stop* memorization. The
# paper asks a finer question. Does it *slow* memorization down, and what does
# that cost where the labels are right?
#
# So we train each setting twice for 50 epochs, on 400 digits with random and
# with true labels. We note how many random labels were fitted at the end, and
# the best test accuracy with true labels. Five ways, each in three strengths:
#
# * **dropout** of hidden units; **input noise**; **weight decay**;
# * **adversarial training**: half of the loss at pictures moved to the corner
#   of a box where the loss is larger;
# * **dropout and adversarial training** together.
#
# The figure is drawn like the paper's figures 10 and 11. All lines start from
# the plain network. Go to the left as far as you can, and lose no height.

# %%
from nlcourse.lessons.l02.adversarial import AdversarialTraining


class InputNoise(torch.nn.Module):
    def __init__(self, deviation):
        super().__init__()
        self.deviation = deviation

    def forward(self, images):
        if not self.training:
            return images
        return images + self.deviation * torch.randn_like(images)


# %%
def adversarial(levels):
    return partial(AdversarialTraining, radius=levels * radius)


def build(shape, num_classes, dropout=0.0, deviation=0.0):
    network = mlp(shape, num_classes, hidden=(128, 128), dropout=dropout)
    return torch.nn.Sequential(InputNoise(deviation), network)


# %%
plain = (CrossEntropy, {}, {})
ways = {
    "dropout": [(CrossEntropy, {"dropout": p}, {}) for p in (0.1, 0.3, 0.6)],
    "input noise": [
        (CrossEntropy, {"deviation": s}, {}) for s in (0.3, 0.6, 1.0)
    ],
    "weight decay": [
        (CrossEntropy, {}, {"weight_decay": w}) for w in (3e-3, 1e-2, 3e-2)
    ],
    "adversarial": [(adversarial(r), {}, {}) for r in (1, 2, 4)],
    "dropout + adversarial": [
        (adversarial(r), {"dropout": 0.3}, {}) for r in (1, 2, 4)
    ],
}

# %%
few = data.subset(400, seed=SEED)
dice_labels = roll_labels(few)


def try_way(method, parts, options):
    network = partial(build, **parts)
    results = [
        train(
            method(), world, network=network, epochs=50, seed=SEED, **options
        )
        for world in (dice_labels, few)
    ]
    return results[0].last["given_accuracy"], results[1].best()


fitted, best = try_way(*plain)
points = {
    way: [(fitted, best), *(try_way(*setting) for setting in settings)]
    for way, settings in ways.items()
}

# %%
print("                        random labels fitted / best test, true labels")
for way, found in points.items():
    words = [f"{a:.0%} / {100 * b:.1f}" for a, b in found]
    print(f"{way:22}" + "".join(f"{word:>14}" for word in words))

# %%
figure, (axes,) = plots.new_figure(title="Slower dice", width=7, height=4)
told, colours = [], list(plots.COLOURS.values())
for number, (way, found) in enumerate(points.items()):
    x, y = (100 * torch.tensor(found)).T.tolist()
    axes.plot(
        x,
        y,
        label=way,
        color=colours[number],
        marker=plots.MARKERS[number],
        linestyle=plots.DASHES[number],
    )
    pairs = zip(x, y, strict=True)
    words = [f"{b:.1f} where {a:.0f} are fitted" for a, b in pairs]
    told.append(f"{way}: {', '.join(words)}")
axes.set_xlabel("random labels fitted after 50 epochs (%)")
axes.set_ylabel("best test accuracy, true labels (%)")
axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16))
axes.grid(alpha=0.3)
plots.show(
    figure,
    "Test accuracy with true labels (%) against the random "
    "labels fitted (%). " + "; ".join(told) + ".",
)


# %%
def at_half(found):
    """Best test accuracy where half of the random labels are fitted."""
    return np.interp(0.5, *zip(*sorted(found), strict=True))


half = {way: at_half(found) for way, found in points.items()}
print(f"plain network: {fitted:.0%} fitted, {best:.1%} on the test set")
for way in sorted(half, key=half.get, reverse=True):
    print(f"half of the dice fitted with {way:22} {half[way]:.1%}")
    assert points[way][-1][0] < fitted - 0.25, f"{way} should slow the dice"
    assert half[way] > best - 0.03, f"{way} should cost little here"
assert half["dropout + adversarial"] > half["weight decay"]

# %% [markdown]
# *The paper:* each of them slows the fitting of random labels. Dropout, alone
# or with adversarial training, does so almost for free; input noise and
# weight decay lower the accuracy on real data along with it.
#
# *Here:* all five slow the dice down, and at equal slowness dropout with
# adversarial training stands above weight decay, as in the paper. Look at the
# distances before you believe the rest: one test digit is 0.2 points, so
# neighbours in our list may change places with `SEED`. And the *cost* is
# missing. Where half of the dice are fitted nobody is far below the plain
# network: with 400 easy examples a little regularisation even helps.
#
# Why does the ranking come out at all? Dropout and adversarial training ask
# for an answer that holds *around* an example, with parts missing. A shared
# pattern can give that, a single memory cannot. Weight decay makes everything
# small, memories and patterns alike. That is our reading, not a proof.

# %% [markdown]
# ## 6. Effective capacity
#
# Put the pieces together. A network of given size *could* hold very many
# functions: its **representational** capacity. What training really reaches,
# with this optimiser, in this time, on these data, is much less: its
# **effective** capacity. A summary of the paper that you may meet calls the
# effective capacity "far larger" than what SGD reaches. It is the other way
# round: effective *is* what training reaches.
#
# Everything we changed in this lesson changed it: the data (1, 2, 3), width
# and time (4), the regulariser (5). With weight decay the 128 units were
# still there, and the dice still could have been stored. SGD did not get
# there. So capacity is no property of a network alone. It depends on the
# *data*.

# %% [markdown]
# ## What we saw, beside what the paper saw
#
# | | paper (MNIST, CIFAR-10) | here (digits) |
# |---|---|---|
# | some examples are easy in every run | real yes, noise images no | same |
# | Gini of the sensitivities | real high, noise low | same, two measures |
# | CSR | noise far above real | same |
# | CSR over time | rises, levels off | random labels so; real digits: falls |
# | width | noise needs more units | same |
# | data | noise: more time | narrow net yes, wide one hardly |
# | regularisers slow the dice | all | all |
# | best | dropout (+ adversarial) | dropout + adversarial |
# | worst | weight decay, input noise | weight decay |
# | cost on real labels | visible | none where half the dice are fitted |
#
# The rows are those of sections 1 to 5; the cells above print our numbers.
# The paper gives curves and no tables, so shapes are all we can compare.
#
# ## Five claims, and where you saw them
#
# Short summaries of the paper usually make these five points.
#
# 1. *Dice can be fitted, yet real data are not learned by heart; simple
#    patterns come first.* Section 1, and the curves of section 3.
# 2. *Memorization depends on the data: noise needs more time and more
#    capacity.* Section 4.
# 3. *Regularisers slow memorization and cost little; dropout with adversarial
#    training does it best.* Section 5.
# 4. *SGD is aware of content; sensitivity and CSR show it.* Sections 1 to 3.
# 5. *Effective capacity depends on structure, steps, regularisation and
#    data.* Section 6.

# %% [markdown]
# ## Now with the package, in one line
#
# Everything you wrote stands in `nlcourse.memorization`, with its arguments
# checked.

# %%
from nlcourse import memorization

network, images = networks["real"], seen(some.images)
values = memorization.loss_sensitivity(network, images, some.labels)
print(f"Gini coefficient now: {memorization.gini(values):.2f}")

# %% [markdown]
# ## Think about it
#
# **1.** In section 1 the random labels had a wider spread than coins. Could
# you make the spread *zero* with random labels?
#
# <details><summary>Answer</summary>
#
# If all pictures were the same, the network could only give one answer. The
# most frequent label would always be right and all others always missed:
# rates of 0 and 1, the widest spread there is. For *no* spread beyond coins
# the pictures must share nothing, as noise images do.
#
# </details>
#
# **2.** CSR needs no labels. Could it tell you that your data set has wrong
# labels?
#
# <details><summary>Answer</summary>
#
# Not alone: you would have to know which CSR the same network has with right
# labels. But its rise *during* training is a sign. When it starts to climb
# late, the network is drawing borders around single examples.
#
# </details>
#
# **3.** A network that fits dice in 40 epochs was stopped after 10 on real
# data with some wrong labels. Which of the claims makes you hope?
#
# <details><summary>Answer</summary>
#
# Claim 1: what most examples share comes first. And claim 2: the exceptions
# need more time. Early stopping lives on both. Lesson 04 proves them for a
# linear model, lesson 07 uses them to *select* examples.
#
# </details>
#
# **4.** Why did we not call a network that reaches 100 % on its training set
# "memorizing"?
#
# <details><summary>Answer</summary>
#
# All three worlds end there. The end does not tell: the way does, and so do
# images that the network has not seen.
#
# </details>

# %% [markdown]
# ## What to remember
#
# * A network *can* learn dice by heart. That does not mean that it does so
#   with real data.
# * **Simple patterns first:** the same real examples are learned first in
#   every run; with noise none stand out.
# * **Loss sensitivity** says who still teaches, its **Gini coefficient** how
#   few they are, the **critical sample ratio** how twisted the borders are.
# * Noise needs more **capacity** and more **time**; with little capacity, more
#   examples make memorization harder.
# * Regularisers do not forbid memorization. They slow it, some for free.
#
# ## References
#
# * D. Arpit et al., *A Closer Look at Memorization in Deep Networks*, ICML
#   2017, arXiv 1706.05394.
# * C. Zhang et al., *Understanding Deep Learning Requires Rethinking
#   Generalization*, ICLR 2017, arXiv 1611.03530 (lesson 01).
# * I. Goodfellow et al., *Explaining and Harnessing Adversarial Examples*,
#   ICLR 2015, arXiv 1412.6572.
#
# **Next:** real labels do not go wrong like dice. Lesson 03 shows how they
# do.
