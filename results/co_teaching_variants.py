"""What is each part of Co-teaching worth? The recorded table of lesson 07.

    python results/co_teaching_variants.py

Digits, the classroom MLP, SGD, 30 epochs, one thread. Eight seeds for pair flip, five for symmetric
noise. Seeds are taken as they come.
"""

from pathlib import Path

from torch.nn import functional as F

from nlcourse.experiments import recipes, runner, runs
from nlcourse.experiments.plan import Plan
from nlcourse.methods import CoTeaching, CrossEntropy, Method
from nlcourse.methods.co_teaching import forget_rate, own_losses, small_loss_indices

RUNS = [("pairflip", 0.45, range(8)), ("symmetric", 0.5, range(5))]
KEY = ("method", "noise", "rate", "seed")
RECIPE = recipes.find("classroom", "cross-entropy").but(epochs=30)


class OneNetwork(Method):
    """The schedule and the selection of Co-teaching with a single network."""

    def __init__(self, noise_rate):
        """Keep the assumed noise rate."""
        super().__init__()
        self.noise_rate = noise_rate

    def loss(self, batch):
        """Return the mean loss of the network's own small-loss examples."""
        losses = F.cross_entropy(self.network(batch.images), batch.labels, reduction="none")
        share = forget_rate(self.epoch, self.noise_rate, ramp_epochs=10)
        kept = small_loss_indices(losses.detach(), share)
        self.mark_selected(0, batch.index[kept])
        return losses[kept].mean()


def no_ramp(epoch, noise_rate, ramp_epochs, exponent):
    """Drop the full share from the first epoch on."""
    return noise_rate


VARIANTS = {
    "cross entropy": lambda rate: CrossEntropy(),
    "one network": OneNetwork,
    "two, no exchange": lambda rate: CoTeaching(rate, losses=own_losses),
    "two, crossed": CoTeaching,
    "crossed, no ramp": lambda rate: CoTeaching(rate, forget_rate=no_ramp),
}


def measure(run):
    """Train a variant, told the noise rate."""
    recipe = RECIPE.but(method=lambda: VARIANTS[run["method"]](run["rate"]))
    return runs.train(recipe, run, device="cpu")[1]


RUNS = [
    dict(zip(KEY, (name, kind, rate, seed), strict=True))
    for kind, rate, seeds in RUNS
    for seed in seeds
    for name in VARIANTS
]
PLAN = Plan(Path(__file__).with_suffix(".csv"), KEY, RUNS, measure)

if __name__ == "__main__":
    runner.carry_out(PLAN)
