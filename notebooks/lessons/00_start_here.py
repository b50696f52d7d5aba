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
# # 00 Start here
#
# Real data sets are full of wrong labels. Somebody was tired, a file was
# mixed up, two classes look alike. Yet we train on them every day.
#
# What does a neural network do with a label that is wrong?
#
# **After this lesson you will be able to**
#
# * spoil the labels of a data set on purpose, and measure how many are wrong;
# * train a network on them and read its learning curves;
# * say what *early learning* and *memorization* are, and point at both.
#
# **Time:** about 50 minutes, one short exercise, one live experiment.
# Everything runs on a laptop without a GPU.

# %% [markdown]
# ## Predict first
#
# We take images of handwritten digits and give **four of ten images a wrong
# label**, chosen at random. Then we train an ordinary network on them.
#
# Before you scroll: how well will it recognise *new* digits, whose labels are
# right?
#
# * (a) hopeless: it was taught nonsense;
# * (b) about 60 %: it learns what it is told;
# * (c) over 90 %: it sees through the nonsense;
# * (d) it depends on when you look.
#
# Write your guess down. You will have the answer in five minutes.

# %% [markdown]
# ## The pictures
#
# `datasets.load` brings a data set as tensors. `"digits"` lies inside
# scikit-learn, so there is nothing to download. Later you can put `"mnist"`,
# `"fashion-mnist"` or `"cifar10"` here: the rest of the notebook stays as it
# is.

# %%
from nlcourse import datasets, noise
from nlcourse.panels import plots

data = datasets.load("digits")
print("training images", tuple(data.images.shape))
print("training labels", tuple(data.labels.shape))
print("test images    ", tuple(data.test_images.shape))

# %% [markdown]
# One image is 8 x 8 pixels of grey. Somebody wrote these digits by hand.
# Here are the first twenty, each with its label.

# %%
first = data.subset(20)
plots.show(
    plots.image_grid(
        first.images,
        [f"label {label}" for label in first.labels.tolist()],
        title="Twenty training images with their true labels",
    )
)

# %% [markdown]
# ## Now we spoil the labels
#
# `noise.inject` flips a coin for every training image. With probability 0.4
# the label is replaced by one of the nine **other** digits. This is called
# *symmetric* noise, and 0.4 is the *noise rate*.
#
# Two names will stay with us through the whole course:
#
# * the **given label** is what stands in the data set. It may be wrong;
# * the **true label** is what the image really shows. In real life nobody
#   has it. Here we keep it, but only to *measure*. No method ever sees it.

# %%
noisy = noise.inject(data, "symmetric", rate=0.4, seed=0)

some = noisy.subset(20)
plots.show(
    plots.image_grid(
        some.images,
        [f"label {label}" for label in some.labels.tolist()],
        marked=some.is_wrong.tolist(),
        title="The same data with given labels; wrong ones are framed",
    )
)

# %% [markdown]
# ## Your first exercise
#
# How many labels did we really spoil? A coin that lands on heads 40 % of the
# time does not land there *exactly* 40 % of the time.
#
# **Exercise 0.1** · difficulty ●○○○○ · importance ●●●○○ · 3 minutes
#
# Write the one line: the share of examples whose given label is not the true
# label.
#
# An exercise works like this. Replace the line with `raise` by your own and
# run the cell. Then run the cell below it, which **checks** your answer. As
# long as you have not written anything, the course goes on with its own
# version, so you are never stuck.


# %%
def share_of_wrong_labels(given_labels, true_labels):
    """Share of examples whose given label is wrong.

    given_labels: int64 (n,), the labels in the data set
    true_labels:  int64 (n,), what the images show
    returns a number between 0 and 1
    """
    ### BEGIN SOLUTION
    return (given_labels != true_labels).float().mean().item()
    ### END SOLUTION


# %%
from nlcourse.checks import check, hint

share_of_wrong_labels = check(share_of_wrong_labels)

# %% [markdown]
# Stuck? Remove the `#` and run the cell. Each call tells a little more: first
# a question, then the idea, then code, at last the solution.

# %%
# hint("0.1")

# %%
share = share_of_wrong_labels(noisy.labels, noisy.true_labels)
print(f"{share:.1%} of the training labels are wrong")

# %% [markdown]
# ## Train
#
# The network is small: two hidden layers of 256 units. It starts from random
# weights. In one **epoch** it meets every training image once, in batches of
# 64, and after each batch its weights move a little downhill on the loss.
#
# The loss is cross entropy, $-\log p_{y}$: the network is punished when it
# gives the *given* label $y$ a small probability. It has no other source of
# wisdom. It believes every label.

# %%
from nlcourse.methods import CrossEntropy
from nlcourse.training import fit

history = fit(CrossEntropy(), noisy, epochs=60, lr=0.05, seed=0)
print(history)

# %%
plots.show(
    plots.learning_curves(history, title="Training on 40 % wrong labels")
)

# %% [markdown]
# Look at the curve for **test accuracy** from left to right. It rises
# steeply. A few epochs after the start the network recognises most of the new
# digits, although it has only ever seen spoiled labels. Then the curve turns
# and sinks, and sinks.
#
# Meanwhile the accuracy on the **given** labels creeps up to the top. The
# network is learning the wrong labels too, one by one.
#
# So the answer to our question was **(d)**: it depends on when you look.

# %%
best, last = history.best("test_accuracy"), history.last["test_accuracy"]
print(f"best test accuracy of all epochs  {best:.1%}")
print(f"test accuracy after the last one  {last:.1%}")
losses = history["train_loss"]
print(
    f"training loss, first and last epoch  {losses[0]:.2f}, {losses[-1]:.2f}"
)
assert best - last > 0.10, "memorization should have cost over 10 points"
assert losses[-1] < losses[0] / 10, "on the given labels all looks well"

# %% [markdown]
# ## What happens to the wrong labels
#
# The most telling picture of the whole course looks **only at the images
# whose given label is wrong**. For each the network can do three things:
#
# * predict the **true** class. It has seen through the wrong label;
# * predict the **given** wrong class. It has *memorized*: nothing in the
#   image speaks for that answer;
# * predict something **else**.

# %%
plots.show(plots.label_shares(history, title="Images with a wrong label"))

# %% [markdown]
# First the true class wins: this is **early learning**. What most images of
# a class share is easy to learn, and it is right more often than wrong.
#
# Then the memorized share takes over: this is **memorization**. Once the easy
# patterns are used up, the only way to lower the loss is to learn the
# exceptions by heart. The network has weights enough to do it.
#
# Every method in this course tries the same thing in its own way: **keep the
# first, prevent the second, without knowing which labels are wrong.**

# %%
middle = max(history["wrong_as_true"])
print(
    f"wrongly labelled images predicted as their true class: "
    f"at most {middle:.1%}, at the end {history.last['wrong_as_true']:.1%}"
)
print(f"memorized at the end: {history.last['wrong_as_given']:.1%}")
assert middle > 0.5, "early learning should be right about most of them"
assert history.last["wrong_as_given"] > 0.8, "memorization comes later"

# %% [markdown]
# ## Your turn: the explorer
#
# Run the next cell. Move the sliders, press **Start**, and watch the network
# learn. Every run stays on the plot as a thin line, so you can compare. You
# can use the keyboard: Tab goes from control to control, the arrow keys move
# a slider, Enter presses a button.
#
# **Your goal:** leave the noise rate at 0.4, symmetric, for 30 epochs. Find
# the *largest* learning rate at which the network does **not** memorize, and
# is still good on the test set. The panel tells you whether you got there and
# keeps your tries.

# %%
from nlcourse.panels import Explorer, Goal


def judge(run):
    asked, row = run.settings, run.history.last
    given = asked.noise_kind, asked.noise_rate
    if given != ("symmetric", 0.4) or asked.epochs < 30:
        return False, "the goal is for noise rate 0.4, symmetric, 30 epochs"
    memorized, test = row["wrong_as_given"], row["test_accuracy"]
    reached = memorized < 0.2 and test > 0.9
    return reached, f"memorized {memorized:.0%}, test {test:.0%}"


goal = Goal(
    "At noise rate 0.4, symmetric, 30 epochs: memorize under 20 % of the "
    "wrong labels and keep over 90 % test accuracy, with the largest "
    "learning rate you can.",
    judge,
)
explorer = Explorer(methods=("cross-entropy",), epochs=30, goal=goal)
explorer

# %% [markdown]
# The same panel can be driven from code. Here are two tries, so that you see
# a picture even if you only read.

# %%
explorer.try_out(noise_rate=0.4, lr=0.05)
run = explorer.try_out(noise_rate=0.4, lr=0.005)
plots.show(explorer.figure())

# %% [markdown]
# ## The same in a paper
#
# Tanaka et al. (2018) trained a much larger network on CIFAR-10, a set of
# 50,000 colour photographs, with plain cross entropy. Their table 1 gives the
# best test accuracy of all epochs and that of the last epoch. Let us measure
# the same on our digits.
#
# One trap: their noise is the *including* kind. An image that is chosen gets
# a label drawn from **all** ten classes, so one in ten keeps its own. We ask
# for the same kind here, so that equal rates mean equal things.

# %%
paper = {
    0.1: (91.0, 87.0),
    0.3: (88.4, 72.2),
    0.5: (85.0, 55.3),
    0.7: (78.4, 36.6),
    0.9: (41.1, 20.4),
}

print("            CIFAR-10, paper     digits, here and now")
print("noise rate     best    last         best    last")
for rate, (paper_best, paper_last) in paper.items():
    spoiled = noise.inject(data, "symmetric-including-true", rate, seed=0)
    measured = fit(CrossEntropy(), spoiled, epochs=60, lr=0.05, seed=0)
    best = 100 * measured.best()
    last = 100 * measured.last["test_accuracy"]
    print(
        f"{rate:10.1f} {paper_best:8.1f}{paper_last:8.1f} "
        f"{best:12.1f}{last:8.1f}"
    )
    assert best > last, "the last epoch should be worse than the best"

# %% [markdown]
# The data, the network and the size differ, so the numbers need not agree.
# The **shape** does. In every row the best epoch is better than the last one,
# and the distance grows with the noise until almost nothing is left to learn.
#
# Do not read the column *best* as something you could have. To find the best
# epoch you must look at test images with **true** labels, which you do not
# have in real life. Lesson 13 comes back to this.

# %% [markdown]
# ## Think about it
#
# **1.** At 40 % symmetric noise, does the most frequent given label of all
# images of a "3" still say "3"? Up to which noise rate?
#
# <details><summary>Answer</summary>
#
# Yes. Six of ten say "3" and the other four are spread over nine digits, so
# "3" wins by far. With ten classes it stays in front as long as the share of
# right labels, 1 - rate, is larger than rate / 9: up to a rate of 0.9. This
# is why early learning can be right although so many labels are wrong.
#
# </details>
#
# **2.** Why not simply stop training at the top of the test curve?
#
# <details><summary>Answer</summary>
#
# It is an honest method, called early stopping. But you need clean examples
# to see the top, and at the top some hard, rightly labelled images are not
# learned yet. The methods of the later lessons want to go on learning those
# without memorizing the others.
#
# </details>
#
# **3.** In our run the training loss fell from 2.14 to 0.01, while the test
# accuracy fell, too. What does that tell you about using the loss to choose a
# model?
#
# <details><summary>Answer</summary>
#
# On noisy labels the training loss rewards memorization: the lower it gets,
# the more wrong labels the network has learned by heart.
#
# </details>

# %% [markdown]
# ## What to remember
#
# * A **given** label may be wrong; **true** labels are for measuring only.
# * **Early learning**: at first the network learns what most examples share
#   and sees through many wrong labels.
# * **Memorization**: later it learns the wrong labels by heart and gets worse
#   on new images.
# * *Best* and *last* test accuracy tell different stories. Ask which one you
#   are being shown.
#
# ## References
#
# * D. Tanaka et al., *Joint Optimization Framework for Learning with Noisy
#   Labels*, CVPR 2018, arXiv 1803.11364 (table 1).
# * S. Liu et al., *Early-Learning Regularization Prevents Memorization of
#   Noisy Labels*, NeurIPS 2020, arXiv 2007.00151 (figure 1 is our picture of
#   the wrong labels).
# * D. Arpit et al., *A Closer Look at Memorization in Deep Networks*, ICML
#   2017, arXiv 1706.05394.
#
# **Next:** lesson 01 takes the question to its end. What if *all* labels are
# random?
