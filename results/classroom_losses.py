"""Which loss resists which noise, and what does it cost on clean labels? Lesson 06's table.

    python results/classroom_losses.py

Digits, the classroom MLP, SGD, 50 epochs, five seeds, one thread; about half an hour. The
parameters of the losses are those of their papers; the weights of l1 and l2 and the epochs before
the estimate are ours, set once. No seed is chosen by a result.

Learning rate, batch and epochs are the same for all but the determinant. It needs large batches
and, after ten epochs of cross entropy, a hundredth of the learning rate. Its batches have 260
images, so that the last one of an epoch is not tiny. Some of its runs still fall apart.

"forward, true matrix" and "backward, true matrix" are told the matrix that the labels were drawn
with. "early stopping" trains with cross entropy on 90 % of the noisy training data and takes the
epoch that is best on the other 10 %, whose labels are as noisy: its number is `chosen`.
"""

import itertools
import re
from pathlib import Path

from torch.nn import functional as F

from nlcourse import losses, noise
from nlcourse.experiments import recipes, runner, runs
from nlcourse.experiments.plan import Plan
from nlcourse.methods import CrossEntropy, ForwardCorrection, Mixup, RobustLoss, TruncatedGCE
from nlcourse.training.early_stopping import EarlyStopping

EPOCHS = 50
NOISES = [("symmetric", rate) for rate in (0.0, 0.2, 0.4, 0.6)] + [("asymmetric", 0.4)]
WARM_UP = 10  # epochs of cross entropy before the determinant
KEY = ("method", "noise", "rate", "seed")
RECIPE = recipes.find("classroom", "cross-entropy").but(epochs=EPOCHS)
CHANGES = {
    "l2": {"optimizer": {"weight_decay": 5e-3}},
    "DMI": {
        "batch_size": 260,  # 1297 = 4 * 260 + 257: no small batch at the end
        "schedule": {"kind": "milestones", "epochs": [WARM_UP], "factor": 0.01},
    },
}
METHODS = {  # how to make one from the true matrix
    "cross entropy": lambda matrix: CrossEntropy(),
    "early stopping": lambda matrix: CrossEntropy(),
    "l2": lambda matrix: CrossEntropy(),
    "l1": lambda matrix: RobustLoss(F.cross_entropy, l1=1e-4),
    "label smoothing": lambda matrix: RobustLoss(F.cross_entropy, label_smoothing=0.1),
    "bootstrap, soft": lambda matrix: RobustLoss(losses.bootstrap_cross_entropy, beta=0.95),
    "bootstrap, hard": lambda matrix: RobustLoss(
        losses.bootstrap_cross_entropy, beta=0.8, hard=True
    ),
    "mixup, alpha 1": lambda matrix: Mixup(1.0),
    "mixup, alpha 8": lambda matrix: Mixup(8.0),
    "MAE": lambda matrix: RobustLoss(losses.mean_absolute_error),
    "GCE": lambda matrix: RobustLoss(losses.generalized_cross_entropy, q=0.7),
    # The paper: epoch 40 of 120, then every 10 epochs; here the same parts of the run.
    "GCE, truncated": lambda matrix: TruncatedGCE(start=EPOCHS // 3, every=EPOCHS // 12),
    "SCE": lambda matrix: RobustLoss(losses.symmetric_cross_entropy, alpha=0.1, beta=1.0),
    "NCE + MAE": lambda matrix: RobustLoss(losses.active_passive_loss),
    "NCE + RCE": lambda matrix: RobustLoss(losses.active_passive_loss, passive="rce"),
    "DMI": lambda matrix: RobustLoss(losses.determinant_mutual_information, warm_up=WARM_UP),
    "forward, true matrix": ForwardCorrection,
    "forward, estimated": lambda matrix: ForwardCorrection(),
    "backward, true matrix": lambda matrix: RobustLoss(
        losses.backward_corrected_cross_entropy, matrix=matrix
    ),
}


def measure(run):
    """Train once; a run that diverged has what it had until then."""
    clean, name = RECIPE.load(), run["method"]
    noisy, watch = runs.corrupted(clean, run), None
    method = METHODS[name](noise.transition_matrix(clean, run["noise"], run["rate"]))
    recipe = RECIPE.but(method=lambda: method, **CHANGES.get(name, {}))
    if name == "early stopping":
        watch = EarlyStopping(method, noisy, seed=run["seed"])
        noisy = watch.training_part
    history, row = runs.train(recipe, run, noisy, on_epoch=watch, device="cpu")
    # In a few words, without the hundred numbers of a matrix.
    words = re.sub(r"\[\[.*\]\]", "true matrix", getattr(method, "described", row["settings"]))
    return row | {
        "chosen": "" if watch is None or row["ended"] else f"{watch.chosen(history):.4f}",
        "settings": ", ".join(filter(None, (words, row["ended"]))),
    }


RUNS = [  # seed by seed: a stopped command leaves whole tables
    dict(zip(KEY, (name, *noise_, seed), strict=True))
    for seed, noise_, name in itertools.product(range(5), NOISES, METHODS)
]
PLAN = Plan(Path(__file__).with_suffix(".csv"), KEY, RUNS, measure)

if __name__ == "__main__":
    runner.carry_out(PLAN)
