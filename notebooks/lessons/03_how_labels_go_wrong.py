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
# # 03 How labels go wrong
#
# So far a wrong label was a roll of a die. People are no dice. They take a
# cat for a dog, and hardly ever for a truck. Does it matter *how* labels go
# wrong, when the number of wrong labels is the same?
#
# **After this lesson you will be able to**
#
# * write down any kind of label noise as a matrix, and draw labels from it;
# * say which noise a network takes over soonest, and why;
# * estimate the matrix, and the noise rate, from noisy labels alone.
#
# **Time:** about 80 minutes, four exercises, one live experiment. You need
# lesson 00. Everything runs on a laptop without a GPU or a download.

# %% [markdown]
# ## Predict first
#
# Four training sets of digits. In each of them **one label in five** is
# wrong. They differ in where the wrong labels come from:
#
# * (a) *symmetric*: any of the nine other digits, at random;
# * (b) *pair flip*: a 0 becomes a 1, a 1 becomes a 2, ..., a 9 becomes a 0;
# * (c) *asymmetric*: only five digits go wrong, each into one other digit;
# * (d) *instance-dependent*: each image has its own wrong label.
#
# Which one does a network take over **soonest**? Which one **last**? Write
# down an order, and one sentence that says why.
#
# ## A matrix says it all
#
# The shortest full answer to "how do labels go wrong" is a table with a row
# for each true class and a column for each given class:
#
# $$T_{ij} = P(\text{given label} = j \mid \text{true class} = i).$$
#
# It is called the **transition matrix**. Each row sums to 1. The diagonal
# says how often a label stays right. In this course a row is always a *true*
# class. Papers and programs differ, so ask whenever you meet such a matrix.

# %%
import torch

from nlcourse import datasets, noise
from nlcourse.panels import plots

SEED = 0
data = datasets.load("digits")
print(data)


def dice(number=0):
    """Return a fresh source of random numbers; another for each number."""
    return torch.Generator().manual_seed(1000 * SEED + number)


# %% [markdown]
# ## Symmetric noise, twice
#
# The simplest matrix treats all wrong classes alike. But there are **two**
# symmetric noises, and both are called "40 %":
#
# * *without* the true class: 40 % of the labels are replaced by one of the
#   $C - 1$ others. Then 40 % are wrong;
# * *with* the true class: 40 % of the labels are redrawn from all $C$
#   classes. Some redrawn labels are right by luck.
#
# **Exercise 3.1** · difficulty ●●○○○ · importance ●●●●● · 10 minutes
#
# Write both. In the second kind a redrawn label comes back to its own class
# with probability 1 / C. Do not forget to add that to the diagonal.


# %%
def symmetric_matrix(num_classes, rate, include_true=False):
    """Transition matrix of symmetric noise.

    num_classes:  C, at least 2
    rate:         share of wrong labels, 0 to 1; with `include_true` the
                  share of labels that are redrawn
    include_true: may a redrawn label be the true one?
    returns a float tensor (C, C), row = true class
    """
    ### BEGIN SOLUTION
    share = rate / (num_classes if include_true else num_classes - 1)
    matrix = torch.full((num_classes, num_classes), share)
    stays = 1 - rate + share if include_true else 1 - rate
    return matrix.fill_diagonal_(stays)
    ### END SOLUTION


# %%
from nlcourse.checks import check, hint

symmetric_matrix = check(symmetric_matrix)

# %%
# hint("3.1")

# %%
print("'noise rate'   wrong, without true class   wrong, with true class")
for rate in (0.2, 0.4, 0.5, 0.8):
    wrong = [
        1 - symmetric_matrix(10, rate, include_true)[0, 0].item()
        for include_true in (False, True)
    ]
    print(f"{rate:12.1f}{wrong[0]:28.2f}{wrong[1]:25.2f}")

# %% [markdown]
# So "50 %" of one paper is fewer wrong labels than "50 %" of another. Who
# does what?
#
# | the true class may come out | papers |
# |---|---|
# | no | Co-teaching, Co-teaching+, Forward, CDR, SCE, AUM |
# | yes | Zhang et al., Tanaka et al., ELR, DivideMix |
#
# Before you compare two numbers, find out which of the two noises each one
# used. The authors of DivideMix were asked just that (their issue 29).
#
# ## Pair flip
#
# Symmetric noise is kind: it spreads its lies thinly. The hardest noise puts
# them all in one place. In **pair flip** class $i$ can only be mistaken for
# class $i + 1$, and the last class for class 0.
#
# **Exercise 3.2** · difficulty ●●○○○ · importance ●●●●○ · 8 minutes
#
# Despite its name nothing is exchanged in pairs. It is a ring.


# %%
def pairflip_matrix(num_classes, rate):
    """Transition matrix of pair flip: class i is mistaken for i + 1.

    num_classes: C, at least 2; the last class is mistaken for class 0
    rate:        share of wrong labels, 0 to 1
    returns a float tensor (C, C), row = true class
    """
    ### BEGIN SOLUTION
    stays = torch.eye(num_classes)
    goes = stays.roll(1, dims=1)
    return (1 - rate) * stays + rate * goes
    ### END SOLUTION


# %%
pairflip_matrix = check(pairflip_matrix)

# %%
# hint("3.2")

# %% [markdown]
# ## Asymmetric: the map of a paper
#
# Between the two lies **asymmetric** noise. Patrini et al. (2017) wrote down,
# for each data set, which classes look alike. On the digits of MNIST:
# 7 → 1, 2 → 7, 5 ↔ 6, 3 → 8. On CIFAR-10: truck → automobile,
# bird → airplane, cat ↔ dog, deer → horse. All other classes stay as they
# are.


# %%
def show_matrices(matrices, title):
    """Draw some transition matrices side by side, with one alt text."""
    figure, panels = plots.new_figure(len(matrices), height=3.6, title=title)
    words = [title]
    for axes, (name, matrix) in zip(panels, matrices.items(), strict=True):
        # The square root makes small entries visible.
        axes.imshow(matrix.sqrt().numpy(), cmap="Blues", vmin=0, vmax=1)
        axes.set_title(name, fontsize=11)
        axes.set_xlabel("given class")
        axes.set_ylabel("true class")
        names = [str(i) for i in range(len(matrix))]
        words.append(plots.matrix(matrix, names, title=name).alt_text)
    plots.show(figure, alt=". ".join(words))


# %%
asymmetric = noise.asymmetric_matrix("digits", 0.4)
show_matrices(
    {
        "symmetric, 20 %": symmetric_matrix(10, 0.2),
        "pair flip, 20 %": pairflip_matrix(10, 0.2),
        "asymmetric, 40 %": asymmetric,
    },
    "Three matrices with about one wrong label in five",
)
share = data.true_labels.bincount(minlength=10) / len(data.true_labels)
overall = (share * (1 - asymmetric.diagonal())).sum().item()
print(f"asymmetric, rate 0.4: {overall:.1%} of all labels will be wrong")
assert 0.19 < overall < 0.21

# %% [markdown]
# Two traps hide in the third one.
#
# **The rate is that of a mapped class.** "40 % asymmetric" means 40 % of
# five classes and 0 % of the other five: about 20 % of all labels.
#
# **"Superclasses" of CIFAR-100.** There the published code takes blocks of
# five *consecutive class numbers*. The numbers are alphabetical. So the first
# block is apple, aquarium fish, baby, bear, beaver: no superclass at all.
#
# ## Draw the labels
#
# A matrix is a plan. Now we carry it out. For each example, look up the row
# of its true class and draw one given label from that row.
#
# **Exercise 3.3** · difficulty ●●●○○ · importance ●●●●● · 12 minutes
#
# Each example is drawn **by itself**, from its **true** label. Do it for all
# examples at once: `torch.multinomial` draws from every row of a table.


# %%
def corrupt(labels, matrix, generator):
    """Draw a given label for each example.

    labels:    true labels, int64 (n,); they are not changed
    matrix:    transition matrix, float (C, C), row = true class
    generator: give it to every torch function that draws
    returns given labels, int64 (n,)
    """
    ### BEGIN SOLUTION
    rows = matrix[labels]
    return torch.multinomial(rows, 1, generator=generator).squeeze(1)
    ### END SOLUTION


# %%
corrupt = check(corrupt)

# %%
# hint("3.3")

# %% [markdown]
# Let us look at what came out. `observed_matrix` counts, for each true class,
# which labels it was given. It scatters around the plan, as every count does.

# %%
given = corrupt(data.true_labels, asymmetric, dice())
counted = noise.observed_matrix(given, data.true_labels, 10)
for true, wrong in {7: 1, 2: 7, 5: 6, 6: 5, 3: 8}.items():
    plan, came = asymmetric[true, wrong], counted[true, wrong]
    print(f"{true} -> {wrong}: planned {plan:.2f}, counted {came:.2f}")
assert (counted - asymmetric).abs().max() < 0.2

# %% [markdown]
# ## A trap that sits in published code
#
# Several published programs draw asymmetric noise in a loop: first they turn
# some cats into dogs, in the label array itself. Then they turn some "dogs"
# into cats, and meet the cats that have just become dogs. Some of them are
# turned back.
#
# Here is that loop for the exchange 5 ↔ 6, on many labels.

# %%
many = torch.arange(50_000) % 10
cascade = many.clone()
for true, wrong in ((5, 6), (6, 5)):
    members = (cascade == true).nonzero().flatten()  # of the edited array!
    coins = torch.rand(len(members), generator=dice(1)) < 0.4
    cascade[members[coins]] = wrong

fair = corrupt(many, asymmetric, dice(2))
for name, labels in {"drawn from true labels": fair, "loop": cascade}.items():
    rate = noise.observed_matrix(labels, many, 10)[5, 6].item()
    print(f"{name:24} 5 -> 6: {rate:.3f}")
    lost = rate
assert abs(lost - 0.4 * 0.6) < 0.03, "0.4 of them go, 0.4 of these return"

# %% [markdown]
# "40 %" has become 24 %, that is $0.4 \cdot (1 - 0.4)$. The code of ELR, CDR
# and APL does this. So their "40 % asymmetric" is an easier problem than the
# same words in other papers. `noise.corrupt` always draws from the true
# labels.
#
# ## Noise that looks at the image
#
# A matrix treats all images of a class alike. Yet a sloppy 7 is more often
# taken for a 1 than a neat one. **Instance-dependent** noise (Xia et al.,
# 2020) gives each image $x$ a row of its own:
#
# 1. a flip rate $q$ for each image, normal around the rate;
# 2. one random matrix $W_c$ for each class;
# 3. the wrong label follows $\mathrm{softmax}(x W_c)$, true class left out.

# %%
instance = noise.inject(data, "instance", 0.2, seed=SEED)
by_image = noise.observed_matrix(instance.labels, instance.true_labels, 10)
wrong = by_image.clone().fill_diagonal_(0)
top = wrong.max(dim=1).values / wrong.sum(dim=1)
print(f"wrong labels: {instance.noise_rate:.1%}")
print("of the wrong labels of a class, the most frequent one takes")
print("  ".join(f"{c}: {t:.0%}" for c, t in enumerate(top)))
spread = top.mean().item()
assert 0.3 < spread < 0.97, "between symmetric noise and pair flip"

# %% [markdown]
# Symmetric noise would give about 11 % to each wrong label, pair flip 100 %
# to one. The "instance-dependent" noise lies between the two: images of one
# class share most of their light, so their scores $x W_c$ are alike, and
# many of them get the same wrong label. The noise is closer to a matrix than
# its name says.
#
# ## How people go wrong
#
# Wei et al. (2022) had all 50,000 training images of CIFAR-10 labelled again,
# each by three people. The counts of how they went wrong travel with this
# package, so you need no download. There are five kinds of labels:
#
# * **random1, random2, random3**: one person's label;
# * **aggre**: what most of the three say;
# * **worse**: a wrong one of the three, if there is any.
#
# We count their released labels. The last digit of one rate differs a
# little from what the authors' page says.

# %%
from nlcourse.noise import human as human_noise

said = {"aggre": "9.03 %"}
print("kind       wrong labels    the authors say")
for kind in human_noise.KINDS:
    rate = 1 - human_noise.human_matrix(kind).diagonal().mean()
    print(f"{kind:10}{100 * rate:10.2f} %    {said.get(kind, '')}")

human = human_noise.human_matrix("worse")
names = human_noise.class_names()
plots.show(
    plots.matrix(human, names, title="CIFAR-10N, worse: how people go wrong")
)

# %% [markdown]
# ## The map is a caricature
#
# Patrini's map says: truck → automobile, bird → airplane, cat ↔ dog,
# deer → horse. How much of what people really do is on this map?

# %%
patrini = noise.asymmetric_matrix("cifar10", 0.4)
off = human.clone().fill_diagonal_(0)
arrows = patrini.clone().fill_diagonal_(0) > 0
on_map = (off[arrows].sum() / off.sum()).item()
print(f"wrong labels of people that lie on the map's arrows: {on_map:.0%}\n")

for place in off.flatten().argsort(descending=True)[:9]:
    true, given = divmod(int(place), 10)
    mark = "on the map" if arrows[true, given] else ""
    print(
        f"{names[true]:10} -> {names[given]:10} {off[true, given]:.3f}  {mark}"
    )
print(f"bird       -> airplane   {off[2, 0]:.3f}  on the map")
assert on_map < 0.4, "most human mistakes are not on the map"

# %% [markdown]
# The map has a true core: trucks, cats, dogs and deer. But automobile →
# truck, the second most frequent mistake of all, is missing. Bird → airplane
# is on the map and rare among people. And most of the wrong labels lie on
# **no** arrow: people make every mistake a little.
#
# A map with five arrows is a caricature. It exaggerates what is typical. That
# makes it a good stress test, and a poor model of people.
#
# ## People also look at the image
#
# Suppose people followed a matrix: whoever labels a cat rolls the same die,
# whatever the picture. Then two people would go wrong on the same image only
# by chance, and chance can be computed from the two matrices. The table also
# counts how often it really happened.

# %%
print("                        both wrong           then the same label")
print("two people        counted   by matrices     counted   by matrices")
for first, second in human_noise.PAIRS:
    both, same = human_noise.wrong_together(first, second).sum(0).tolist()
    one, other = (
        human_noise.human_matrix(kind).fill_diagonal_(0)
        for kind in (first, second)
    )
    chance = 5000 * (one.sum(1) * other.sum(1)).sum().item()
    alike = 5000 * (one * other).sum().item() / chance
    print(f"{first}, {second}{both:9}{chance:14.0f}", end="")
    print(f"{same / both:12.0%}{alike:14.0%}")
    assert both > 1.3 * chance, "some images are hard for everyone"
    assert same / both > 1.3 * alike, "and hard in the same way"

# %% [markdown]
# They go wrong *together* far more often than a matrix allows. And when two
# people are both wrong, they give the same wrong label in nearly four of ten
# cases; matrices alone would give 23 %. Some images are hard for everyone,
# and in the same way. So human noise has what Xia's noise wants to imitate,
# and what no transition matrix can say. Keep this in mind whenever a method
# begins with "let $T$ be the transition matrix".
#
# If you have CIFAR-10 and CIFAR-10N on your disk (in the folder that
# `NLCOURSE_DATA` names, or in `data/`), the next cell shows the images.
# Without them it says so, and the lesson goes on.

# %%
try:
    photos = datasets.load("cifar10n", kind="worse", download=False)
except datasets.DataError:
    print("CIFAR-10N is not here; `nlcourse data cifar10n` fetches it")
else:
    few = photos.subset(20, seed=SEED)
    captions = [photos.class_names[label] for label in few.labels.tolist()]
    plots.show(
        plots.image_grid(
            few.images,
            captions,
            marked=few.is_wrong,
            title="Labels by people, wrong ones framed",
        )
    )

# %% [markdown]
# ## Your turn: the explorer
#
# Choose a kind of noise and move the rate. The heat map and the labels of
# the forty images follow at once. *human-shaped* is the matrix of the people
# above, scaled to the rate you choose and put on digits: their pattern of
# mistakes, not their pictures.
#
# The plot below shows what decides in the end: the **margin**. It is the
# share of the right label minus that of the most frequent wrong one, in the
# class where that is smallest. Above 0, a majority vote in every class would
# still be right.
#
# **Your goal:** make more than **80 %** of the labels wrong, while every
# class keeps its majority. Press *Keep this try* to be judged.

# %%
from nlcourse.lessons.l03.panel import NoiseExplorer
from nlcourse.panels import Goal

goal = Goal(
    "More than 80 % wrong labels, and every class keeps its majority.",
    lambda one: (one.wrong > 0.8 and one.margin > 0, one.summary()),
)
explorer = NoiseExplorer(data, goal=goal)
explorer

# %%
# The same from code, so that you see a picture even if you only read.
for kind, rate in {
    "pairflip": 0.45,
    "asymmetric": 0.6,
    "instance": 0.4,
    "human-shaped": 0.4,
    "symmetric": 0.85,
}.items():
    tried = explorer.try_out(kind=kind, rate=rate)
    print(f"{kind:13}{rate:5.2f}  {tried.summary()}")
plots.show(explorer.figure())
assert tried.reached, "thin lies leave the truth its majority"

# %% [markdown]
# ## Which noise is memorized soonest?
#
# Now your prediction. One label in five is wrong in every training set. The
# network is that of lesson 00. We also take the human-shaped matrix at this
# rate. For the asymmetric map one in five means 40 % of the five mapped
# classes.

# %%
kinds = {
    "symmetric": symmetric_matrix(10, 0.2),
    "human-shaped": human_noise.rescale(human, 0.2).float(),
    "pair flip": pairflip_matrix(10, 0.2),
    "asymmetric": asymmetric.float(),
}
training_sets = {
    name: data.with_labels(corrupt(data.true_labels, matrix, dice(3)))
    for name, matrix in kinds.items()
}
training_sets["instance"] = noise.inject(data, "instance", 0.2, seed=SEED)
for name, noisy in training_sets.items():
    print(f"{name:13}{noisy.noise_rate:6.1%} wrong labels")
    assert abs(noisy.noise_rate - 0.2) < 0.05

# %%
from nlcourse.methods import CrossEntropy
from nlcourse.training import fit

runs = {
    name: fit(
        CrossEntropy(), noisy, epochs=40, lr=0.05, seed=SEED, progress=False
    )
    for name, noisy in training_sets.items()
}
memorized = {
    name: [100 * share for share in run["wrong_as_given"]]
    for name, run in runs.items()
}
plots.show(
    plots.lines(
        memorized,
        ylabel="taken over (%)",
        ylim=(0, 100),
        title="Wrong labels predicted as given, one in five wrong",
    )
)


# %%
def early(run):
    """Mean share of wrong labels taken over in the first ten epochs."""
    return sum(run["wrong_as_given"][:10]) / 10


print("               first 10    half of them   last    test, %")
print("noise          epochs      in epoch       epoch   best  last")
for name, run in runs.items():
    shares = run["wrong_as_given"]
    half = next((i + 1 for i, s in enumerate(shares) if s > 0.5), None)
    print(
        f"{name:13}{early(run):8.0%}{half!s:>12}{shares[-1]:14.0%}"
        f"{100 * run.best():8.1f}{100 * run.last['test_accuracy']:6.1f}"
    )

# %%
first = {name: early(run) for name, run in runs.items()}
for thick in ("instance", "pair flip", "asymmetric"):
    assert max(first["symmetric"], first["human-shaped"]) < first[thick]
assert first["asymmetric"] > 1.4 * first["pair flip"]
assert all(run["wrong_as_given"][-1] > 0.7 for run in runs.values())
assert runs["asymmetric"].best() < min(
    run.best() for name, run in runs.items() if name != "asymmetric"
)

# %% [markdown]
# **Soonest: asymmetric noise**, by far. Then pair flip and instance-dependent
# noise. **Last: symmetric noise**, together with the human-shaped matrix.
# That is the order in the *first* epochs. In the end all kinds are taken
# over, and the late order is another one: there the network learns single
# images by heart, and which noise made them plays little part.
#
# The same number of wrong labels costs very differently, too. Compare the
# column *best*: asymmetric noise spoils even the best epoch. In the last
# epoch the kinds lie seven points apart, too, but in another order, and that
# order changes with `SEED`.
#
# ## Why: one lie, told often
#
# Here is a guess. A network that learns patterns is a majority vote among
# images that look alike. What threatens it is not the number of lies. It is
# how often **the same** lie is told.
#
# Let us test the guess. For each matrix take the *largest wrong entry* of a
# row, averaged over the wrong labels. And let us ask the **test** images,
# too: how many are taken for just this most frequent wrong class of theirs?
# No test image was ever seen with a wrong label. It cannot be memorized.
#
# One more matrix is needed, as a **control**. The map of the papers pairs
# digits that look alike. So take the same five digits, the same 40 %, and
# send them to digits that do *not* look like them: 7 → 0, 2 → 5, 5 → 4,
# 6 → 9, 3 → 0. If likeness matters, this noise is taken over later.

# %%
from nlcourse.training import find_device
from nlcourse.training.batches import Images


def probabilities_of(method, images):
    """Return what a trained method predicts, (n, C), on the CPU."""
    ready = Images(images, data.mean, data.std, find_device())
    with torch.no_grad():
        return method(ready.get(slice(None))).cpu()


def most_told(matrix):
    """Largest wrong entry of a row, averaged over the wrong labels."""
    off = matrix.clone().fill_diagonal_(0)
    weight = off.sum(1) / off.sum()
    return (weight * off.max(1).values).sum().item()


# %%
unlike = torch.eye(10)
for true, wrong in {7: 0, 2: 5, 5: 4, 6: 9, 3: 0}.items():
    unlike[true, true], unlike[true, wrong] = 0.6, 0.4

plans = {f"pair flip {r}": pairflip_matrix(10, r) for r in (0.1, 0.2, 0.3)}
plans |= {"pair flip 0.4": pairflip_matrix(10, 0.4), "unlike 0.4": unlike}
for r in (0.2, 0.4):
    plans[f"symmetric {r}"] = symmetric_matrix(10, r)
    plans[f"human-shaped {r}"] = human_noise.rescale(human, r).float()
    plans[f"asymmetric {r}"] = noise.asymmetric_matrix("digits", r).float()


# %%
def try_plan(matrix):
    """Return most told lie, lies taken over, test images that follow."""
    method, off = CrossEntropy(), matrix.clone().fill_diagonal_(0)
    given = corrupt(data.true_labels, matrix, dice(4))
    run = fit(
        method,
        data.with_labels(given),
        epochs=10,
        lr=0.05,
        seed=SEED,
        progress=False,
    )
    told = probabilities_of(method, data.test_images).argmax(1)
    lies = off.argmax(1)[data.test_labels]
    spoiled = (off.sum(1) > 0)[data.test_labels]
    follow = (told == lies)[spoiled].float().mean().item()
    return most_told(matrix), early(run), follow


points = {name: try_plan(matrix) for name, matrix in plans.items()}

# %%
print("matrix              most told lie   taken over   test images")
for name, (told, taken, follow) in sorted(
    points.items(), key=lambda item: item[1]
):
    print(f"{name:20}{told:13.2f}{taken:13.0%}{follow:14.0%}")
assert points["symmetric 0.4"][1] < points["pair flip 0.2"][1]
assert points["unlike 0.4"][1] > 0.95 * points["asymmetric 0.4"][1]
assert points["pair flip 0.4"][2] > 5 * points["symmetric 0.4"][2]

# %%
figure, (axes,) = plots.new_figure(height=3.6, title="The first ten epochs")
table = torch.tensor(list(points.values())).T
told, taken, follow = table.numpy()
axes.plot(told, 100 * taken, "o", label="wrong labels taken over")
axes.plot(
    told,
    100 * follow,
    "s",
    label="test images that follow the lie",
    color=plots.COLOURS["vermilion"],
)
axes.set_xlabel("most told lie: largest wrong entry of a row")
axes.set_ylabel("share (%)")
axes.legend(loc="upper left")
alike = torch.corrcoef(table[:2])[0, 1].item()
words = "Eleven matrices: share against the most told lie. The more one lie "
words += f"is told, the more wrong labels are taken over ({alike:.2f})."
plots.show(figure, alt=words)
print(f"correlation of the circles: {alike:.2f}")
assert alike > 0.85, "what counts is how often the same lie is told"

# %% [markdown]
# The guess holds roughly: the most told lie decides the order of magnitude.
# At 40 % symmetric noise there are twice as many wrong labels as at 20 % pair
# flip, and still they are taken over later. It does not decide all. At 0.40
# between 23 % and 55 % of the test images follow.
#
# The squares say *what kind* of learning this is. With concentrated
# noise the network gives the wrong class to **new** images as well. It has
# not memorized examples. It has **learned the lie as a rule**. For symmetric
# noise there is no rule to learn, so the wrong labels must be learned one by
# one, and that comes late.
#
# And the control? `unlike 0.4` is taken over not later than `asymmetric 0.4`
# but a little *sooner*. On these digits it is not likeness that makes
# asymmetric noise dangerous. It is that 40 % of a class tell the same lie.
# This is a finding about a small network on small digits. On photographs
# likeness may well add to it.
#
# And **real people**? For that we need their photographs. The next cell shows
# a stored run on 3,000 images of CIFAR-10 with a small convolutional network
# (`results/human_noise_cifar10.py`): the people's own labels; labels drawn
# from the matrix of these people; symmetric noise. All three have the same
# rate, about 40 %.

# %%
import csv
from pathlib import Path

import nlcourse

file = Path(nlcourse.__file__).parents[1] / "results/human_noise_cifar10.csv"
stored = list(csv.DictReader(file.read_text("utf-8").splitlines()))


def column(kind, name):
    return [float(row[name]) for row in stored if row["kind"] == kind]


print("labels          seeds   taken over, epochs 1-5   seen through, best")
for kind in ("human", "human matrix", "symmetric"):
    taken = column(kind, "memorized_first_5")
    through = column(kind, "seen_through_best")
    print(
        f"{kind:15}{len(taken):6}{min(taken):13.0%} to {max(taken):.0%}"
        f"{min(through):18.0%} to {max(through):.0%}"
    )
thin = max(column("symmetric", "memorized_first_5"))
assert min(column("human", "memorized_first_5")) > thin, "thin comes last"

people, drawn = (
    column(kind, "seen_through_best") for kind in ("human", "human matrix")
)
less = sum(p < d for p, d in zip(people, drawn, strict=True))
print(f"people's errors seen through less than drawn ones: {less} seeds")

# %% [markdown]
# "Seen through" means: predicted as the true class although the given label
# is wrong. Human labels are taken over sooner than symmetric ones, and so are
# labels from their matrix. Again the same lie is told more often; that cats
# and dogs look alike may add to it. Whether people's own labels are taken
# over sooner than those of their matrix, this small run cannot tell: the
# ranges overlap. With most seeds, not with all, the network saw through fewer
# of the people's errors. That is a hint that they sit on hard images, and no
# proof.
#
# ## Estimate the matrix
#
# In real life nobody hands you $T$. Patrini et al. read it off a trained
# network. Their idea: suppose the network has learned how labels are *given*
# and has learned none of them by heart. Show it an image that is a 7 beyond
# doubt. Then it should say "this will be called 7 with probability 0.6 and 1
# with probability 0.4". That is row 7 of $T$.
#
# Which image is a 7 beyond doubt? The one to which the network gives the
# largest score for 7. It is called an **anchor point**:
#
# $$x^i = \arg\max_x \, p(i \mid x), \qquad \hat T_{ij} = p(j \mid x^i).$$
#
# **Exercise 3.4** · difficulty ●●●○○ · importance ●●●●○ · 12 minutes


# %%
def estimate_transition(probabilities):
    """Read the transition matrix off a network's predictions.

    probabilities: float (n, C), the network's softmax on n images
    returns (C, C): row i is the prediction for the image that has the
    largest probability of class i
    """
    ### BEGIN SOLUTION
    surest = probabilities.argmax(dim=0)
    return probabilities[surest]
    ### END SOLUTION


# %%
estimate_transition = check(estimate_transition)

# %%
# hint("3.4")

# %% [markdown]
# To judge an estimate we need a distance. Take for each row the *total
# variation*, $\frac12 \sum_j |\hat T_{ij} - T_{ij}|$. It is the share of
# labels that the estimate puts into a wrong column. We average over the rows.
#
# Now train on 40 % symmetric noise. Estimate after **every** epoch, and watch
# the error. Predict first: will it get better and better?

# %%
from nlcourse.noise import estimation as estimation


def watch(matrix, epochs=60):
    """Train on labels from a matrix; estimate it after every epoch."""
    given = corrupt(data.true_labels, matrix, dice(5))
    method, seen = CrossEntropy(), []

    def look(history):
        seen.append(probabilities_of(method, data.images))

    fit(
        method,
        data.with_labels(given),
        epochs=epochs,
        lr=0.05,
        seed=SEED,
        progress=False,
        on_epoch=look,
    )
    return seen


# %%
def error(estimate, true):
    """Mean total variation of the rows."""
    return estimation.matrix_error(estimate, true).mean().item()


truth = {
    "symmetric": symmetric_matrix(10, 0.4),
    "pair flip": pairflip_matrix(10, 0.4),
}
seen = {name: watch(matrix) for name, matrix in truth.items()}
errors = {
    name: [error(estimate_transition(p), truth[name]) for p in seen[name]]
    for name in truth
}
plots.show(
    plots.lines(
        errors,
        ylabel="error of the estimate",
        ylim=(0, 0.6),
        title="Estimating the matrix, epoch by epoch",
    )
)

# %% [markdown]
# It gets better, and then **worse and worse**. Look at what the network says
# after epoch 5 and after the last one.

# %%
show_matrices(
    {
        "true": truth["symmetric"],
        "after epoch 5": estimate_transition(seen["symmetric"][4]),
        "after epoch 60": estimate_transition(seen["symmetric"][-1]),
    },
    "40 % symmetric noise: the true matrix and two estimates",
)
for name, curve in errors.items():
    nothing = error(torch.eye(10), truth[name])
    print(
        f"{name:10} epoch 5: {curve[4]:.2f}   epoch 60: {curve[-1]:.2f}"
        f"   the identity: {nothing:.2f}"
    )
    assert curve[-1] > curve[4] + 0.05, "memorization ruins the estimate"
    assert abs(curve[-1] - nothing) < 0.05, "it says: no label is wrong"

# %% [markdown]
# **Memorization ruins the estimate.** After the last epoch the network knows
# every given label by heart, and is sure of all of them. Its matrix is the
# identity: "your labels are perfect". The more it has memorized, the louder
# it says so.
#
# The very first epoch is no good either. The network is not sure of anything
# yet, and doubt looks like noise.
#
# ## A rank instead of the maximum
#
# The *largest* score is a poor witness. It belongs to the one image that the
# network has learned best, perhaps by heart. Patrini et al. therefore take
# the image at the 97th percentile of the scores. The package does it with
# `quantile=0.97`.
#
# A warning if you read their program: to leave out the top scores it writes
# zeros over them, *in the array of predictions itself*. The rows of later
# classes are then read from an array with holes. The paper is right, the
# code is not. The package copies nothing of it.

# %%
robust = {
    f"{name}, {word}": [
        error(estimation.estimate_transition(p, quantile=q), truth[name])
        for p in seen[name]
    ]
    for name in truth
    for word, q in (("largest", 1.0), ("97th percentile", 0.97))
}
plots.show(
    plots.lines(
        robust,
        ylabel="error of the estimate",
        ylim=(0, 0.6),
        title="The largest score, or the 97th percentile",
    )
)
for name, curve in robust.items():
    print(
        f"{name:27} mean error of epochs 4 to 15: "
        f"{sum(curve[3:15]) / 12:.2f}   epoch 60: {curve[-1]:.2f}"
    )

# %%
for name in truth:
    largest, rank = (
        robust[f"{name}, {word}"][3:15]
        for word in ("largest", "97th percentile")
    )
    assert sum(rank) < sum(largest), "the rank is the better witness"
    assert robust[f"{name}, 97th percentile"][-1] > 0.3, "not at the end"

# %% [markdown]
# ## How do I know the noise rate of my own data?
#
# This is the question that users of noisy-label programs ask most. Many of
# these methods want the rate as an input. Here is a first answer, with given
# labels alone:
#
# 1. hold out a fifth of your noisy data;
# 2. train on the rest, and stop at the epoch in which the loss on the
#    **held-out given labels** is smallest. Nobody can memorize labels that
#    were held out, so this finds the time before memorization;
# 3. estimate the matrix there. One minus its mean diagonal is the rate.
#
# There is a simpler number, too: how often does that network **disagree**
# with the held-out given labels? It disagrees because labels are wrong *or*
# because it is wrong itself. So read it as an upper bound.


# %%
def hold_out(given, share=0.2):
    """Return positions to train on and positions held out."""
    order = torch.randperm(len(given), generator=dice(6))
    count = int(share * len(given))
    return order[count:], order[:count]


def training_part(given, places):
    """Return the data set of some training examples."""
    import dataclasses

    return dataclasses.replace(
        data,
        images=data.images[places],
        labels=given[places],
        true_labels=data.true_labels[places],
    )


# %%
def first_answer(given, epochs=20):
    """Estimate the noise rate from given labels: matrix, disagreement."""
    train, held = hold_out(given)
    method, best = CrossEntropy(), {"loss": float("inf")}

    def look(history):
        p = probabilities_of(method, data.images)
        loss = -p[held, given[held]].clamp_min(1e-9).log().mean().item()
        if loss < best["loss"]:
            best.update(loss=loss, p=p, epoch=len(history))

    fit(
        method,
        training_part(given, train),
        epochs=epochs,
        lr=0.05,
        seed=SEED,
        progress=False,
        on_epoch=look,
    )
    p = best["p"]
    matrix = estimation.estimate_transition(p, quantile=0.97)
    disagree = (p[held].argmax(1) != given[held]).float().mean().item()
    return estimation.noise_rate(matrix), disagree, best["epoch"]


# %%
unknown = {"no noise": torch.eye(10)}
for name in (
    "symmetric 0.2",
    "symmetric 0.4",
    "human-shaped 0.4",
    "pair flip 0.3",
    "asymmetric 0.4",
):
    unknown[name] = plans[name]
unknown["symmetric 0.6"] = symmetric_matrix(10, 0.6)

print("                  truly wrong   matrix says   disagree   epoch")
for name, matrix in unknown.items():
    given = corrupt(data.true_labels, matrix, dice(7))
    wrong = (given != data.true_labels).float().mean().item()
    rate, disagree, epoch = first_answer(given)
    print(f"{name:18}{wrong:11.0%}{rate:14.0%}{disagree:11.0%}{epoch:8}")
    assert abs(rate - wrong) < (0.15 if wrong else 0.05), "a rough answer"
    assert disagree > wrong - 0.06, "an upper bound, up to chance"

# %% [markdown]
# Rough, but usable: clean data look clean, and very noisy data look very
# noisy. It is off by up to ten points here (42 % is read as 51 %). Take it
# for a size, not for a number. And know when it *cannot* work:
#
# * **without anchors.** If no image is a 7 beyond doubt, the doubt of the
#   image is booked as noise;
# * **without a majority.** If most 7s are called 1, then no method in the
#   world can tell from these labels that they are 7s;
# * **when noise looks at the image.** Then there is no one matrix to find.
#
# Lesson 05 has a second answer (the loss at a high learning rate) and
# lesson 12 a third one. If it matters, do what always works: let somebody
# check two hundred labels by hand.
#
# ## Beside the papers
#
# The table of results in the ELR paper (Liu et al., 2020, table 1) has rows
# for plain cross entropy and for *Forward*, which trains with the estimated
# matrix (lesson 06). CIFAR-10, ResNet-34, test accuracy in %. These rows were
# copied there from the GCE paper (Zhang and Sabuncu, 2018; lesson 06). It
# says *uniform*, and we do not know which kind. So 20 % may mean 20 % or 18 %
# wrong labels. "40 % asymmetric" means about 20 %.

# %%
print("                               wrong    cross")
print("CIFAR-10, paper               labels   entropy   Forward")
print("symmetric 20 %            18 or 20 %     86.98     87.99")
print("asymmetric 40 %           about 20 %     80.11     83.55")
print()
print("digits, here                           last      best")
for name in ("symmetric", "asymmetric"):
    run = runs[name]
    print(
        f"{name:30}{training_sets[name].noise_rate:6.0%}"
        f"{100 * run.last['test_accuracy']:10.1f}{100 * run.best():10.1f}"
    )
assert runs["asymmetric"].best() < runs["symmetric"].best()

# %% [markdown]
# With about the same number of wrong labels, the concentrated ones cost more
# in the paper. Here they do at the best epoch; in the last one, after
# everything was learned by heart, the order may turn. Data and networks
# differ, so compare directions, never sizes.
#
# And does the estimated matrix help? On CIFAR-10 it does, a little. On
# **CIFAR-100** the same table says, for 40 % symmetric noise: cross entropy
# 48.20, Forward **31.05**. There the method does harm. A likely reason is the
# estimate: a matrix of 100 × 100 entries is read off 100 single images.
#
# ## Now with the package, in one line
#
# All that you wrote is in `nlcourse`, with error messages for bad input.

# %%
same = [
    noise.symmetric_matrix(10, 0.4) - symmetric_matrix(10, 0.4),
    noise.pairflip_matrix(10, 0.4) - pairflip_matrix(10, 0.4),
    estimation.estimate_transition(seen["symmetric"][4])
    - estimate_transition(seen["symmetric"][4]),
]
assert all(difference.abs().max() < 1e-5 for difference in same)
print(noise.inject(data, "pairflip", 0.45, seed=SEED))

# %% [markdown]
# ## Think about it
#
# **1.** Why do the papers stop pair flip at 45 %, but go up to 80 % and 90 %
# with symmetric noise?
#
# <details><summary>Answer</summary>
#
# At 50 % pair flip a class is called by its own name as often as by its
# neighbour's. The margin is 0. Above that the majority lies, and the labels
# say something false on average. With symmetric noise over ten classes the
# true label stays in front up to 90 % wrong labels. The explorer's plot shows
# both.
#
# </details>
#
# **2.** Asymmetric noise was taken over soonest. Is "memorized" the right
# word for it?
#
# <details><summary>Answer</summary>
#
# Not in the first epochs. Test images follow the lie, too, so the network
# has learned a rule, and not single examples. A method that looks for "hard
# examples with a large loss" will not find these wrong labels: to the network
# they look easy. Lessons 07 and 11 meet this problem.
#
# </details>
#
# **3.** You estimate the matrix of your own data after long training and get
# a perfect diagonal. What do you conclude?
#
# <details><summary>Answer</summary>
#
# Nothing about the data. A network that has memorized everything says so for
# any labels. Look at the training accuracy on the given labels: if it is
# near 100 %, the estimate came too late. Use held-out labels.
#
# </details>
#
# **4.** The human-shaped matrix was taken over about as late as symmetric
# noise. So is human noise harmless?
#
# <details><summary>Answer</summary>
#
# No. We only took over the *matrix* of people, and put it on digits that
# never looked alike in these pairs. On photographs it was taken over sooner
# than symmetric noise (the stored run). And real people err together on the
# same hard images, as the table of pairs showed. A matrix cannot carry that.
#
# </details>
#
# ## What to remember
#
# * Label noise is a **matrix**: row = true class. Ask which way round, and
#   whether the true class may be redrawn.
# * Not the number of wrong labels decides how soon they are taken over, but
#   how often **the same** lie is told. Concentrated noise is learned as a
#   rule; thin noise is memorized example by example, and late.
# * A transition matrix cannot say that some *images* are hard. People err
#   together.
# * The matrix can be read off a network at its **anchor points**, early. A
#   network that has memorized says that there is no noise.
# * Noise rate of your own data: held-out given labels choose the epoch; the
#   matrix there is a rough answer.
#
# ## References
#
# * G. Patrini et al., *Making Deep Neural Networks Robust to Label Noise: a
#   Loss Correction Approach*, CVPR 2017, arXiv 1609.03683.
# * X. Xia et al., *Part-dependent Label Noise: Towards Instance-dependent
#   Label Noise*, NeurIPS 2020, arXiv 2006.07836.
# * J. Wei et al., *Learning with Noisy Labels Revisited: A Study Using
#   Real-World Human Annotations*, ICLR 2022, arXiv 2110.12088. The counts in
#   this lesson come from its labels, CIFAR-10N, licence CC BY-NC 4.0.
# * B. Han et al., *Co-teaching*, NeurIPS 2018, arXiv 1804.06872 (pair flip).
# * S. Liu et al., *Early-Learning Regularization Prevents Memorization of
#   Noisy Labels*, NeurIPS 2020, arXiv 2007.00151 (table 1).
#
# **Next:** lesson 04 takes the smallest model that shows early learning at
# all. It is linear, and a theorem says what happens.
