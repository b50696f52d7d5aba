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
# # 04 Early learning in a linear model
#
# Networks learn the easy pattern first and memorize the wrong labels later.
# Why? A network has too many parts to take apart by hand. A **linear** model
# has not, and it does the same.
#
# **After this lesson you will be able to**
#
# * derive the gradient of softmax regression and read it example by example;
# * measure the three claims of a theorem, and say where it is silent;
# * explain why gradients of clean examples vanish, and what then takes over.
#
# **Time:** about 80 minutes, three exercises, one live panel.
# You need lesson 00. Everything runs on a laptop in under a minute.

# %% [markdown]
# ## Predict first
#
# Two clouds of points in 100 dimensions. Each point gets a label, and 40 % of
# the labels are wrong. There are 120 points, and the model has one weight per
# dimension and class.
#
# We train a **linear** classifier for 10,000 steps. What will it say about
# the points whose label is **wrong**?
#
# * (a) the true class, always: a straight cut cannot learn exceptions;
# * (b) the given, wrong class, always: it is trained on nothing else;
# * (c) first the true class, later the wrong one;
# * (d) a coin toss.
#
# Write your guess down.

# %% [markdown]
# ## The data of the theorem
#
# Draw a direction $v$ of length 1. Class 0 lies around $+v$, class 1 around
# $-v$, and both clouds have the spread $\sigma$ in every direction:
#
# $$x = \pm v + \sigma\,\varepsilon,\qquad \varepsilon \sim N(0, I_p).$$
#
# Then each label is flipped with the probability `flip`. The paper writes
# $\Delta/2$ for it: it redraws a label with probability $\Delta$, and half of
# the redrawn ones are right by luck.

# %%
import torch

from nlcourse import linear
from nlcourse.panels import plots

n, p, sigma, flip = 120, 100, 0.1, 0.4
generator = torch.Generator().manual_seed(0)
data = linear.sample(n, p, sigma, flip, generator)
x, true_labels, given_labels, v = data
print("features", tuple(x.shape), "separator v", tuple(v.shape))
print(f"wrong labels {data.is_wrong.double().mean():.1%}")

# %% [markdown]
# We cannot see 100 dimensions. We can look at the shadow on two of them:
# along $v$, and along any direction across it. Along $v$ the classes are far
# apart. A look at the colours (given labels) shows how spoiled they are.

# %%
across = torch.randn(p, generator=generator, dtype=torch.float64)
across = torch.nn.functional.normalize(across - (across @ v) * v, dim=0)
figure, (axes,) = plots.new_figure(title="The data, seen from one side")
for label, colour, marker in ((0, "blue", "o"), (1, "vermilion", "s")):
    chosen = x[given_labels == label]
    axes.scatter(
        chosen @ v,
        chosen @ across,
        marker=marker,
        s=22,
        color=plots.COLOURS[colour],
        label=f"given label {label}",
    )
axes.set(xlabel="along v", ylabel="across v")
axes.legend()
right = ((x @ v > 0) == (true_labels == 0)).double().mean()
plots.show(
    figure,
    f"Two separate clouds, left and right of zero along v; "
    f"both given labels occur in both. v alone gets {right:.0%} right.",
)

# %% [markdown]
# ## The model
#
# Softmax regression: a weight row for each class, $\Theta$ of shape
# $(2, p)$, scores $z = \Theta x$, probabilities $p = \mathrm{softmax}(z)$.
# The loss is the mean cross entropy with the **given** labels. (As in the
# paper, $p$ is also the number of dimensions. With an index, and in $p - y$,
# it is a probability.)
#
# ### At the board: the gradient in five lines
#
# 1. One example costs $L = -\log p_y = -z_y + \log\sum_k e^{z_k}$.
# 2. Its slope in a score: $\partial L/\partial z_c = p_c - y_c$, where $y_c$
#    is 1 for the given class and 0 otherwise. (The sum gives $p_c$, the first
#    term gives $-y_c$.)
# 3. A score is $z_c = \Theta_c \cdot x$, so
#    $\partial z_c/\partial\Theta_c = x$.
# 4. Chain rule: $\partial L/\partial\Theta_c = (p_c - y_c)\,x$.
# 5. Mean over the examples:
#
# $$\nabla L(\Theta)_c = \frac{1}{n}\sum_i x^{[i]}\,(p_c^{[i]} - y_c^{[i]}).$$
#
# Read it aloud: **every example pulls along itself, with the strength
# $p - y$.** That strength, the *coefficient*, is the hero of this lesson.
#
# **Exercise 4.1** · difficulty ●●●○○ · importance ●●●●● · 12 minutes
#
# Write the last line of the derivation as code. One matrix product does the
# sum over the examples. No autograd here: you know the answer.


# %%
def gradient(theta, features, given_labels):
    """Gradient of the mean cross entropy of softmax regression.

    theta:        float64 (2, p), one row of weights a class
    features:     float64 (n, p)
    given_labels: int64 (n,), 0 or 1
    returns a tensor (2, p)
    """
    ### BEGIN SOLUTION
    probabilities = (features @ theta.T).softmax(dim=1)
    one_hot = torch.nn.functional.one_hot(given_labels, 2)
    return (probabilities - one_hot).T @ features / len(features)
    ### END SOLUTION


# %%
from nlcourse.checks import check, hint  # noqa: F401 - for you

# hint("4.1")  # stuck? take away the first #
gradient = check(gradient)

# %% [markdown]
# Does autograd agree? It knows nothing of our derivation.

# %%
theta = linear.initial_theta(p, generator=generator).requires_grad_()
loss = torch.nn.functional.cross_entropy(x @ theta.T, given_labels)
loss.backward()
difference = gradient(theta.detach(), x, given_labels) - theta.grad
print(f"largest difference from autograd {difference.abs().max():.1e}")
assert difference.abs().max() < 1e-12

# %% [markdown]
# ## Two things to measure
#
# **Is the step good?** A step goes along *minus* the gradient. The best
# direction we could wish for is $v$. So we measure the cosine of the angle
# between the two: 1 is along $v$, 0 is across it, -1 is the wrong way.
#
# With two classes only the difference $\theta = \Theta_0 - \Theta_1$ decides,
# since $p_0 - p_1 = \tanh(\theta\cdot x/2)$. (The paper's appendix prints
# $\tanh(\theta\cdot x)$: the 2 is lost.) So the direction of a step is
# $d = -(G_0 - G_1)$, where $G$ is the gradient.
#
# **Exercise 4.2** · difficulty ●●○○○ · importance ●●●●○ · 8 minutes
#
# Write the cosine between $d$ and $v$. Do not rely on $v$ having length 1.


# %%
def alignment(gradient, separator):
    """Cosine of the angle between minus the gradient and v.

    gradient:  float64 (2, p), its two rows are opposite to each other
    separator: float64 (p,), v; class 0 lies around +v
    returns a number between -1 and 1
    """
    ### BEGIN SOLUTION
    direction = gradient[1] - gradient[0]
    cosine = direction @ separator / (direction.norm() * separator.norm())
    return cosine.item()
    ### END SOLUTION


# %%
# hint("4.2")
alignment = check(alignment)

# %% [markdown]
# **Has it seen through the wrong labels?** For that we ask only the points
# whose given label is wrong, and compare the prediction with the **true**
# label. With two classes the rest of them is memorized: there is no third
# answer.
#
# **Exercise 4.3** · difficulty ●●○○○ · importance ●●●●● · 8 minutes


# %%
def accuracy_on_wrong(theta, features, given_labels, true_labels):
    """Share of the wrongly labelled examples predicted as their true class.

    theta:        float64 (2, p); the larger score is the prediction
    features:     float64 (n, p)
    given_labels: int64 (n,)
    true_labels:  int64 (n,); at least one differs from the given label
    returns a number between 0 and 1
    """
    ### BEGIN SOLUTION
    predicted = (features @ theta.T).argmax(dim=1)
    is_wrong = given_labels != true_labels
    return (predicted == true_labels)[is_wrong].double().mean().item()
    ### END SOLUTION


# %%
# hint("4.3")
accuracy_on_wrong = check(accuracy_on_wrong)

# %% [markdown]
# ## Claim 1: early learning succeeds
#
# > For $t < T$ minus the gradient is well correlated with $v$, and at $t = T$
# > the accuracy on the wrongly labelled examples is higher than at the start.
#
# Here is gradient descent with your three functions. $\Theta$ starts at
# random, with $\theta$ on a sphere of radius 2, as in the paper.

# %%
theta = linear.initial_theta(p, generator=generator)
start = theta.clone()
lr, aligned, seen_through = 0.5, [], []
for _ in range(101):
    slope = gradient(theta, x, given_labels)
    aligned.append(alignment(slope, v))
    seen_through.append(accuracy_on_wrong(theta, x, given_labels, true_labels))
    theta = theta - lr * slope


# %% [markdown]
# The steps stand on a logarithmic axis: the first ten matter as much as the
# last thousands. (Step 0, before the first step, has its own place.)


# %%
def against_steps(series, steps, **words):
    """Draw lines against the step on a logarithmic axis that has a 0."""
    figure = plots.lines(series, x=steps, xlabel="step", **words)
    figure.set_figheight(4.2)
    axes = figure.axes[0]
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(-0.1, 1.1 * max(steps))
    return figure


# %%
early = {
    "alignment of minus the gradient with v": aligned,
    "wrongly labelled, seen through": seen_through,
}
plots.show(
    against_steps(
        early,
        range(101),
        title="Claim 1: early learning",
        ylabel="cosine, share",
        ylim=(0, 1),
    )
)

# %% [markdown]
# Both halves of the claim are there. At first the gradient points almost
# straight along $v$, although 36 % of the labels pull the other way. And
# after a few steps nearly all wrongly labelled points are predicted as what
# they **are**, not as what they were **called**.
#
# Then the alignment drops to zero. The steps go on, but across $v$.

# %%
top = max(range(101), key=seen_through.__getitem__)
print(
    f"alignment at step 0: {aligned[0]:.2f}, at step 100: {aligned[100]:.2f}"
)
print(
    f"seen through at step 0: {seen_through[0]:.0%}, "
    f"at best {seen_through[top]:.0%} (step {top})"
)
assert aligned[0] > 0.5
assert seen_through[top] > seen_through[0]

# %% [markdown]
# ### Now with the package, in one line
#
# `linear.gradient_descent` takes the same steps, 10,000 of them in a fraction
# of a second, and records what the theorem speaks about. It follows only
# $\theta$: two products of a matrix and a vector and a tanh a step.

# %%
from time import perf_counter

began = perf_counter()
run = linear.gradient_descent(data, lr=lr, steps=10_000, theta=start)
print(run)
print(f"took {perf_counter() - began:.2f} s")
assert abs(run.at("wrong_as_true", 100) - seen_through[100]) < 1e-9
assert abs(run.at("alignment", 10) - aligned[10]) < 1e-9


# %% [markdown]
# ## Claim 2: gradients of clean examples vanish
#
# > Between 0 and $T$ the coefficients of the clean examples shrink while
# > those of the wrongly labelled ones grow.
#
# We look at the entry of $p - y$ that belongs to the **true** class. A clean
# example has $p - 1$ there, a wrongly labelled one $p - 0$.


# %%
def coefficients(run, title, until=10_000):
    """Draw the coefficients of both groups, with one standard deviation."""
    shown = run["step"] <= until
    steps = run["step"][shown]
    groups = {"rightly labelled": "clean", "wrongly labelled": "wrong"}
    means = {
        name: run[f"{group}_coefficient"][shown]
        for name, group in groups.items()
    }
    figure = against_steps(
        means, steps, title=title, ylabel="coefficient of the true class"
    )
    for name, colour in zip(groups, ("blue", "vermilion"), strict=True):
        spread = run[f"{groups[name]}_coefficient_std"][shown]
        figure.axes[0].fill_between(
            steps,
            means[name] - spread,
            means[name] + spread,
            alpha=0.2,
            color=plots.COLOURS[colour],
            linewidth=0,
        )
    return figure


# %%
plots.show(coefficients(run, "Claim 2: clean gradients vanish"))
for step in (0, 10, 100, 1000, 10_000):
    print(
        f"step {step:6d}: rightly labelled "
        f"{run.at('clean_coefficient', step):+.2f}, wrongly labelled "
        f"{run.at('wrong_coefficient', step):+.2f}"
    )
early_clean = [run.at("clean_coefficient", step) for step in (0, 10)]
early_wrong = [run.at("wrong_coefficient", step) for step in (0, 10)]
assert abs(early_clean[1]) < abs(early_clean[0])
assert early_wrong[1] > early_wrong[0]

# %% [markdown]
# The solid curve creeps towards zero, the dashed one away from it: the model
# becomes sure of the true classes, so clean examples have less and less to
# say, and the wrong ones more and more. (Beyond its top memorization begins,
# and the dashed curve falls as well. The bands are one standard deviation.)
#
# ### Why the alignment must die
#
# Each group pulls along $v$ with *its share of the points* times *its
# coefficient*: the clean ones forwards, the wrong ones backwards. The clean
# are in the majority, but each of them pulls less and less. Let us weigh the
# two.

# %%
share = data.is_wrong.double().mean().item()
print("  step  forwards  backwards  alignment")
for step in (0, 3, 10, 30, 100):
    forwards = -(1 - share) * run.at("clean_coefficient", step)
    backwards = share * run.at("wrong_coefficient", step)
    print(
        f"{step:6d} {forwards:9.3f} {backwards:10.3f} "
        f"{run.at('alignment', step):10.2f}"
    )

# %% [markdown]
# After some thirty steps they balance. Along $v$ nothing moves any more.
# What is left of the gradient lies **across** $v$: in the noise part of each
# point, which is different for every point. Moving there means learning
# single points by heart.
#
# ## Claim 3: in the end everything is memorized
#
# > As $t \to \infty$ the classifier fits all labels, the wrong ones included.

# %%
shares = {
    "rightly labelled, right": 100 * run["clean_as_true"],
    "wrongly labelled, seen through": 100 * run["wrong_as_true"],
    "wrongly labelled, memorized": 100 * run["wrong_as_given"],
    "all given labels fitted": 100 * run["fitted"],
}
plots.show(
    against_steps(
        shares,
        run["step"],
        title="Claim 3: memorization",
        ylabel="share of the points (%)",
        ylim=(0, 100),
    )
)
for step in (0, 10, 100, 1000, 3000, 10_000):
    print(
        f"step {step:6d}: seen through "
        f"{run.at('wrong_as_true', step):4.0%}, fitted "
        f"{run.at('fitted', step):4.0%}"
    )
assert run["fitted"][-1] == 1.0

# %% [markdown]
# The answer to our first question was **(c)**. And the model is *linear*. It
# has 100 directions to turn into and 120 points to please. That is room
# enough to learn all the wrong labels by heart.
#
# ## One run is no proof
#
# Other points, other first weights: does it always go like this? Five seeds,
# taken as they come.


# %%
def repeat(seed, sigma=0.1, n=120, p=100, **options):
    """Draw everything anew and descend."""
    generator = torch.Generator().manual_seed(seed)
    data = linear.sample(n, p, sigma, 0.4, generator)
    return linear.gradient_descent(data, generator=generator, **options)


runs = [repeat(seed) for seed in range(5)]
print("seed  start  step 10  step 3000  fitted at the end")
for seed, one in enumerate(runs):
    at = [one.at("wrong_as_true", step) for step in (0, 10, 3000)]
    print(
        f"{seed:4d} {at[0]:6.0%} {at[1]:8.0%} {at[2]:10.0%} "
        f"{one['fitted'][-1]:12.0%}"
    )

# %%
at_ten = sorted(one.at("wrong_as_true", 10) for one in runs)
assert at_ten[2] > 0.9, "the median run sees through nine of ten"
for one in runs:
    gain = one.at("wrong_as_true", 10) - one.at("wrong_as_true", 0)
    assert gain > 0.05, "early learning"
    assert one.at("wrong_as_true", 3000) < 0.1, "memorization"
    assert one["fitted"][-1] == 1.0
print(
    f"seen through at step 10: {at_ten[0]:.0%} to {at_ten[-1]:.0%}, "
    f"median {at_ten[2]:.0%}"
)

# %% [markdown]
# The **order of events** is the same every time. The **height** of the peak
# is not: some draws have nearly as many wrong labels as right ones, and some
# first weights point away from $v$.
#
# The theorem says "with probability $1 - o(1)$ as $n, p \to \infty$": luck
# should matter less and less. Keep $p/n$ and let both grow.

# %%
print("    p   lowest tenth and deviation of 40 peaks")
spread = {}
for features in (25, 100, 400):
    peaks = torch.tensor(
        [
            repeat(seed, n=round(1.2 * features), p=features, steps=20).peak(
                "wrong_as_true"
            )[0]
            for seed in range(40)
        ]
    )
    spread[features] = peaks.std()
    print(f"{features:5d} {peaks.quantile(0.1):8.0%} {peaks.std():12.0%}")
assert spread[25] > spread[100] > spread[400]

# %% [markdown]
# It does: the spread shrinks from 23 points to 4.
#
# ## The paper's numbers beside ours
#
# The proof looks at the first step where $\theta\cdot v \ge 0.1$. At
# classroom size that is often no moment at all: first weights of length 2 in
# 100 dimensions can have that much by chance. So our $T$ is the step with the
# best accuracy on the wrongly labelled. The paper writes
# $\kappa = 2(p - y)$ for a coefficient.

# %%
best, T = run.peak("wrong_as_true")
until = run["alignment"][run["step"] < T].min()


def squared(run, group, step):
    """Mean of the squared kappa of a group."""
    mean = run.at(f"{group}_coefficient", step)
    spread = run.at(f"{group}_coefficient_std", step)
    return 4 * (mean**2 + spread**2)


print(
    "theta.v at the start, seeds 0 to 4:",
    ", ".join(f"{one.at('overlap', 0):+.2f}" for one in runs),
)
moved = {
    group: squared(run, group, T) - squared(run, group, 0)
    for group in ("clean", "wrong")
}

# %%
print(f"T = step {T}                        the paper      here")
print(f"smallest alignment before T       > 0.167    {until:6.3f}")
print(
    f"seen through at the start        <= .5001    "
    f"{run.at('wrong_as_true', 0):6.3f}"
)
print(f"seen through at T                 > .9999    {best:6.3f}")
print(f"squared kappa, clean, 0 to T     <= -0.05    {moved['clean']:+6.3f}")
print(f"squared kappa, wrong, 0 to T     >= +0.05    {moved['wrong']:+6.3f}")
print(f"given labels fitted in the end       1.0     {run['fitted'][-1]:6.3f}")
assert moved["clean"] < 0 < moved["wrong"]

# %% [markdown]
# The numbers of the paper hold in the limit and for a tiny $\sigma$. Ours
# come from 120 points and one draw. The signs agree; the sizes need not. The
# paper draws its own simulation (its figure A.1) in 100 dimensions with 40 %
# flipped labels, but does not say which $n$ and $\sigma$: $n = 120$ and
# $\sigma = 0.1$ are **our** choice.
#
# ## Where the theorem speaks: sigma
#
# The theorem asks for $\sigma \le \sigma_\Delta$, small. Why? Take
# $\Theta = 0$. All coefficients are $\pm\frac12$, so minus the gradient is
#
# $$\tfrac12\Big[(1 - 2\,\mathrm{flip})\,v
#   + \tfrac{\sigma}{\sqrt n}\,N(0, I_p)\Big].$$
#
# The noise part has the length $\sigma\sqrt{p/n}$. So with
# $a = 1 - 2\,\mathrm{flip}$ the cosine is about
# $a / \sqrt{a^2 + \sigma^2 p/n}$.

# %%
a = 1 - 2 * flip
sigmas = (0.1, 0.2, 0.5)
print("sigma  predicted  measured (mean of 20 draws)")
for value in sigmas:
    predicted = a / (a**2 + value**2 * p / n) ** 0.5
    measured = (
        sum(
            repeat(seed, sigma=value, theta=torch.zeros(2, p), steps=1)[
                "alignment"
            ][0]
            for seed in range(20)
        )
        / 20
    )
    print(f"{value:5.1f} {predicted:10.2f} {measured:9.2f}")

# %% [markdown]
# (Some draws have fewer wrong labels than 40 %, some more, and with more than
# half the sign turns. So the mean of the draws lies near the formula, not on
# it.) Now the whole runs, the mean of the five seeds.

# %%
by_sigma = {0.1: runs} | {
    value: [repeat(seed, sigma=value) for seed in range(5)]
    for value in (0.2, 0.5)
}
means = {
    f"sigma {value}": 100 * sum(one["wrong_as_true"] for one in five) / 5
    for value, five in by_sigma.items()
}
plots.show(
    against_steps(
        means,
        run["step"],
        title="Wrongly labelled, seen through",
        ylabel="share of them (%), mean of five",
        ylim=(0, 100),
    )
)

# %%
gains = {}
for value, five in by_sigma.items():
    tops = [one.peak("wrong_as_true")[0] for one in five]
    starts = [one.at("wrong_as_true", 0) for one in five]
    gains[value] = (sum(tops) - sum(starts)) / 5
    print(
        f"sigma {value}: mean start {sum(starts) / 5:.0%}, "
        f"mean peak {sum(tops) / 5:.0%}"
    )
assert gains[0.1] > gains[0.2] > gains[0.5]
assert gains[0.5] < 0.15, "early learning has gone"

# %% [markdown]
# At 0.2 the hill is lower. At 0.5 there is next to none: the model goes
# straight to memorizing. Large noise gives every point so much of a face of
# its own that it is learned by heart as quickly as $v$ is learned.
#
# ## Where the theorem speaks: p/n
#
# The third claim needs room: all labels can be fitted only if some cut
# separates them. The theorem asks for $1 - \mathrm{flip} < p/n < 1$. We keep
# $p$ and change the number of points.

# %%
low, high = linear.region(flip)
print(
    f"region of p/n: {low:g} to {high:g}, so {p / high:.0f} to "
    f"{p / low:.0f} points for p = {p}"
)
ratios = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0, 1.2)
by_ratio = [
    [repeat(seed, n=round(p / ratio)) for seed in range(2)] for ratio in ratios
]
fitted = [50 * sum(one["fitted"][-1] for one in pair) for pair in by_ratio]
memorized = [
    50 * sum(one["wrong_as_given"][-1] for one in pair) for pair in by_ratio
]

# %%
figure = plots.lines(
    {"all given labels fitted": fitted, "wrong labels memorized": memorized},
    x=ratios,
    xlabel="p / n",
    ylabel="share after 10,000 steps (%)",
    title="The shaded region is the theorem's",
    ylim=(0, 100),
)
figure.axes[0].axvspan(low, high, color=plots.COLOURS["sky"], alpha=0.3)
figure.alt_text += f" The region from {low:g} to {high:g} is shaded."
plots.show(figure)
assert fitted[0] < 90
assert min(fitted[5:]) > 95

# %% [markdown]
# Far to the left there are too many points for 100 weights, and part of the
# wrong labels cannot be memorized. Nothing breaks to the right of 1: only
# the *proof* needs $p < n$. A theorem says where something is certain, not
# where it ends.
#
# ## Your turn: the panel
#
# Move a slider and let go: ten thousand steps are computed at once. Earlier
# tries stay in grey. The strip below the curves shows whether $p/n$ lies in
# the region.
#
# **Your goal:** no memorization without ELR. Keep sigma at 0.1 or more, flip
# at 0.4, lambda at 0, and $p/n$ inside the region. Find the *largest* step
# size at which after 10,000 steps still over half of the wrongly labelled
# points are seen through. Then say in your own words why it works.

# %%
from nlcourse.lessons.l04.panel import LinearExplorer
from nlcourse.panels import Goal


def judge(run):
    """Say whether the goal is reached, and why."""
    asked, seen = run.settings, run.history["wrong_as_true"][-1]
    fair = (
        asked.sigma >= 0.1
        and asked.flip == 0.4
        and asked.lambda_ == 0
        and asked.inside
    )
    words = f"seen through {seen:.0%} at step size {asked.lr:.3g}"
    return bool(fair and seen > 0.5), words if fair else "other settings"


goal = Goal(
    "Over half of the wrongly labelled seen through at the end, "
    "with the largest step size.",
    judge,
)
explorer = LinearExplorer(goal=goal)
explorer

# %% [markdown]
# The same panel, driven from code, for those who only read:

# %%
first = explorer.try_out(lr=0.5)
second = explorer.try_out(lr=0.05)
third = explorer.try_out(lr=0.002)
for attempt in (first, second, third):
    print("reached " if attempt.reached else "not yet ", attempt.verdict)
plots.show(explorer.figure())
assert third.reached
assert not first.reached

# %% [markdown]
# A small step size moves the whole film to the right: a tenth of the step
# size, ten times the steps. That is the $T = \Omega(1/\eta)$ of the theorem.
# After 10,000 tiny steps the model is only half way through memorization. It
# is **early stopping** in disguise, and to know when to stop you would need
# true labels.
#
# ## ELR beside cross entropy
#
# *Early-learning regularization* (lesson 10) changes the coefficient. It
# remembers for each example a running mean $t$ of its past predictions, and
# adds $\lambda g$ to $p - y$ (Lemma 2 of the paper):
#
# $$g_c = \frac{p_c}{1 - \langle p, t\rangle}\sum_k (t_k - t_c)\,p_k .$$
#
# If memory and prediction agree on class $c$, then $g_c < 0$: the example
# goes on pulling although $p - y$ has vanished. Where the given label says
# something else, $\lambda g$ cancels its pull.

# %%
held = {
    f"ELR, lambda {value:g}"
    if value
    else "cross entropy": linear.gradient_descent(
        data, theta=start, lambda_=value, beta=0.7
    )
    for value in (0.0, 1.0, 3.0)
}
seen = {name: 100 * one["wrong_as_true"] for name, one in held.items()}
plots.show(
    against_steps(
        seen,
        run["step"],
        title="Wrongly labelled, seen through",
        ylabel="share of them (%)",
        ylim=(0, 100),
    )
)
assert held["ELR, lambda 3"]["wrong_as_true"][-1] == 1.0
assert held["cross entropy"]["wrong_as_true"][-1] < 0.1

# %%
for seed in range(5):
    strong, weak = (repeat(seed, lambda_=value) for value in (3.0, 1.0))
    late = strong["step"] >= 30
    lowest = strong["wrong_as_true"][late].min()
    print(
        f"seed {seed}: lambda 3 at least {lowest:.0%} from step 30 on, "
        f"lambda 1 at the end {weak['wrong_as_true'][-1]:.0%}"
    )
    assert lowest == 1.0

# %%
plots.show(
    coefficients(
        held["ELR, lambda 3"], "p - y + lambda g, ELR with lambda 3", until=30
    )
)
for name in ("cross entropy", "ELR, lambda 3"):
    one = held[name]
    pairs = [
        f"{one.at('clean_coefficient', step):+.2f} / "
        f"{one.at('wrong_coefficient', step):+.2f}, alignment "
        f"{one.at('alignment', step):.2f}"
        for step in (0, 10, 25)
    ]
    print(f"{name}: right / wrong " + "; ".join(pairs))
assert held["ELR, lambda 3"].at("alignment", 25) > 0.9

# %% [markdown]
# With $\lambda = 3$ nothing is memorized, from the peak to the last step.
# With $\lambda = 1$ memorization only comes later. The figure says why.
# Compare with claim 2: the solid curve does not vanish, its size **grows** to
# 0.71 and stays above 0.6. The dashed one shrinks, since $\lambda g$ cancels
# the pull of the wrong labels. So the two groups do not balance, and the step
# goes on along $v$.
#
# We stop this figure at step 30 for a reason. As in the authors' code, $p$ is
# clamped to $[10^{-4}, 1 - 10^{-4}]$. Once it gets there $g$ is switched off,
# the wrong labels pull back a little, $g$ is switched on again: the
# coefficients jump to and fro. The predictions do not notice.
#
# ## And in a real network?
#
# Nothing of this needs a linear model to be *measured*. Take lesson 00's
# network on digits with 40 % wrong labels. There is no $v$. Its part is
# played by the gradient we would have if all labels were right.

# %%
from torch.nn import functional as F

from nlcourse import datasets, noise
from nlcourse.methods import CrossEntropy
from nlcourse.training import Options, fit
from nlcourse.training.batches import Images

digits = noise.inject(datasets.load("digits"), "symmetric", 0.4, seed=0)
images = Images(digits.images, digits.mean, digits.std).get(slice(None))
given, true = digits.labels, digits.true_labels
method, measured = CrossEntropy(), []


# %%
def flat_gradient(scores, labels):
    """Gradient of the cross entropy in all weights, as one vector."""
    weights = list(method.network.parameters())
    loss = F.cross_entropy(scores, labels)
    parts = torch.autograd.grad(loss, weights, retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


# %%
@torch.enable_grad()
def measure(history):
    """Note alignment and coefficients after an epoch."""
    scores = method.network(images)
    as_given = flat_gradient(scores, given)
    if_right = flat_gradient(scores, true)
    pull = linear.true_class_coefficients(
        scores.detach().softmax(dim=1), given, true
    )
    measured.append(
        (
            F.cosine_similarity(as_given, if_right, dim=0).item(),
            pull[given == true].mean().item(),
            pull[given != true].mean().item(),
        )
    )


# %%
history = fit(
    method,
    digits,
    epochs=60,
    lr=0.05,
    seed=0,
    on_epoch=measure,
    progress=False,
    device="cpu",
)
cosines, clean, wrong = zip(*measured, strict=True)
plots.show(
    plots.lines(
        {
            "cosine of the gradient and that of true labels": cosines,
            "coefficient, rightly labelled": clean,
            "coefficient, wrongly labelled": wrong,
        },
        title="Claims 1 and 2 in a network on digits",
        ylabel="cosine, coefficient",
    )
)

# %%
plots.show(
    plots.label_shares(history, title="Claims 1 and 3 in a network on digits")
)
print(f"cosine: epoch 1 {cosines[0]:.2f}, last {cosines[-1]:.2f}")
print(
    f"coefficient, wrong labels: epoch 1 {wrong[0]:.2f}, highest "
    f"{max(wrong):.2f}, last {wrong[-1]:.2f}"
)
print(f"memorized at the end: {history.last['wrong_as_given']:.0%}")
assert cosines[0] > 0.5 > cosines[-1]
assert max(wrong) > wrong[0] + 0.1
assert abs(clean[-1]) < 0.1
assert history.last["wrong_as_given"] > 0.8

# %% [markdown]
# The same three acts, in a model for which nothing is proved. Early the
# gradient agrees with that of true labels; the coefficients of wrong labels
# rise and those of clean ones fade; then everything is memorized, and the
# little gradient that is left no longer points the right way.
#
# ## The Jacobian set right
#
# For a network the paper writes
#
# $$\nabla L(\Theta) = \frac1n\sum_i
#   \nabla\mathcal N_{x^{[i]}}(\Theta)\,(p^{[i]} - y^{[i]}).$$
#
# The notes this course grew from remark that $\nabla\mathcal N$ is a
# derivative "of $x$ with respect to $\Theta$", where one would expect it the
# other way round. Let us sort that out.
#
# * $\mathcal N_x(\Theta)$ is the vector of $C$ **scores**. The image $x$ is
#   held fixed; it is a name tag, not a variable. We differentiate scores with
#   respect to the $P$ **weights**. Nothing is differentiated with respect to
#   $x$. (In the theorem's model $P = 2p$.)
# * What can differ is the **layout**. The usual Jacobian $J$ has a row for
#   each output: shape $(C, P)$. The gradient layout has a *column* for each
#   output: shape $(P, C)$. One is the other transposed.
# * The product must have a number for each weight, shape $(P,)$. So the paper,
#   which writes $\nabla\mathcal N\,(p - y)$, uses $(P, C)$. With the usual
#   Jacobian one writes $J^\top(p - y)$. **Same numbers.**

# %%
example, weights = x[0], start
J = torch.func.jacrev(lambda theta: theta @ example)(weights)
J = J.reshape(2, -1)
residual = (weights @ example).softmax(0)
residual[given_labels[0]] -= 1
nabla = J.T
print("Jacobian, a row a score   ", tuple(J.shape))
print("the paper's nabla N       ", tuple(nabla.shape))
print("product, a number a weight", tuple((nabla @ residual).shape))

# %%
single = gradient(weights, x[:1], given_labels[:1]).flatten()
assert torch.allclose(nabla @ residual, single)
assert torch.allclose(torch.einsum("cw,c->w", J, residual), single)
try:
    J @ residual
except RuntimeError as error:
    print("J (p - y) does not even fit:", str(error)[:60])

# %% [markdown]
# ## Think about it
#
# **1.** Set `flip` to 0.6 in the panel. What is learned early, and is that
# against the theorem?
#
# <details><summary>Answer</summary>
#
# The majority of the labels now says the opposite, so the model learns $-v$
# first: the alignment is negative. The theorem has $\Delta < 1$, so a flip
# probability below one half. Early learning finds what the **majority** says,
# not what is true.
#
# </details>
#
# **2.** Each clean coefficient shrinks. Why does that alone not stop the model
# from classifying clean points well?
#
# <details><summary>Answer</summary>
#
# A coefficient shrinks *because* the point is classified well. The trouble is
# not that clean points are forgotten, but that what remains of the gradient
# belongs to the wrong labels.
#
# </details>
#
# **3.** Why can a large step size not blow this model up, as it does with a
# network?
#
# <details><summary>Answer</summary>
#
# Every coefficient lies between -1 and 1, so a step is never longer than the
# step size times the mean length of the points (times 2 for $\theta$). The
# weights can swing, but they grow at most linearly. Only a step size near the
# largest float breaks it; `gradient_descent` then stops with a
# `DivergedError`.
#
# </details>
#
# **4.** You have no true labels. Which curve of claim 3 could you still draw?
#
# <details><summary>Answer</summary>
#
# Only the share of all given labels that are fitted. It shows no sign of the
# peak: it keeps rising.
#
# </details>

# %% [markdown]
# ## What to remember
#
# * Every example pulls along itself with the strength $p - y$.
# * **Early** all pull equally hard, and the majority wins: the gradient points
#   along $v$.
# * **Then** clean examples are learned and fall silent. Wrong ones do not, and
#   soon both groups balance along $v$.
# * **Late** the model turns across $v$ and learns single points by heart.
# * The theorem needs a small $\sigma$, a majority of right labels and room:
#   $1 - \mathrm{flip} < p/n < 1$.
# * ELR keeps the clean examples pulling and cancels the pull of the wrong
#   ones.
#
# ## References
#
# * S. Liu, J. Niles-Weed, N. Razavian, C. Fernandez-Granda, *Early-Learning
#   Regularization Prevents Memorization of Noisy Labels*, NeurIPS 2020, arXiv
#   2007.00151: Theorem 1, Lemma 2, figures A.1 and B.1; the proofs are in its
#   appendix. Two slips there: $\tanh(\theta\cdot x)$ for
#   $\tanh(\theta\cdot x/2)$, and a squared radius 2 in one lemma where the
#   radius itself is 2.
# * D. Arpit et al., *A Closer Look at Memorization in Deep Networks*, ICML
#   2017, arXiv 1706.05394.
#
# **Next:** lesson 05. A small step size only delays. What does a *large*
# learning rate do?
