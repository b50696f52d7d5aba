"""Write tables.md: every method beside cross entropy, and beside the papers' numbers.

    python results/tables.py

Reads the three tables of classroom_methods.py and what `experiments.papers` holds of CDR's table 1,
which is the largest on MNIST and Fashion-MNIST. Then the queue of `reproduced.toml`: what of the
papers' CIFAR-10 tables was run, and what was not.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from nlcourse.experiments import papers, plan, results

FOLDER = Path(__file__).parent
SETTINGS = {
    "classroom": ("digits: 1,297 training images, MLP, 60 epochs", None),
    "mnist": ("MNIST: 6,000 of its training images, all test images, MLP, 40 epochs", "MNIST"),
    "fashion_mnist": (
        "Fashion-MNIST: 6,000 of its training images, all test images, MLP, 40 epochs",
        "Fashion-MNIST",
    ),
}
# Ours -> the papers' name.
KINDS = {"symmetric": "symmetric_exclusive", "symmetric-including-true": "symmetric_inclusive"}
ORDER = ("symmetric", "asymmetric", "pairflip", "instance")
SELECTION = ("label_precision", "label_recovery")
HEAD = """# Every method beside cross entropy

Written by `python results/tables.py` from the `*_methods.csv` beside it; do not edit. Test accuracy
in per cent, mean over the seeds. *Labels*: the share of true labels among those that the method
learned from in the last epoch (precision), or among its corrected labels (recovery). *Paper*: CDR's
table 1, at the epoch that was best on noisy validation labels, full data, LeNet for MNIST and
ResNet-50 for Fashion-MNIST: compare it with *best*, and directions rather than numbers.
"""


def section(setting: str) -> list[str]:
    """Return the lines of one setting, a table for each noise; none where nothing was measured."""
    path = FOLDER / f"{setting}_methods.csv"
    if not path.exists():
        return []
    title, of_papers = SETTINGS[setting]
    rows = results.load(path.stem, FOLDER)
    lines = ["", f"## {title}"]
    noises = {(row["noise"], row["rate"]) for row in rows}
    for kind, rate in sorted(noises, key=lambda noise: (ORDER.index(noise[0]), noise[1])):
        some = [row for row in rows if (row["noise"], row["rate"]) == (kind, rate)]
        known = published(of_papers, kind, rate)
        seeds = sorted({row["seed"] for row in some})
        lines += ["", f"### {kind} {float(rate):.0%}, {len(seeds)} seed{'s' * (len(seeds) > 1)}"]
        lines += ["", "| method | best | last | mean of last ten | labels | paper |"]
        lines += ["|---|---|---|---|---|---|"]
        lines += [line(name, some, known) for name in dict.fromkeys(r["method"] for r in some)]
    return lines


def published(data: str | None, kind: str, rate: str) -> dict[str, str]:
    """Return the paper's accuracy by the name of our recipe."""
    if data is None:
        return {}
    which = {"dataset": data, "noise_type": KINDS.get(kind, kind), "noise_rate": float(rate)}
    found = papers.load(paper="CDR", **which)
    return {papers.ours(row["method"]): row["accuracy"] for row in found}


def line(name: str, rows: list[dict[str, str]], known: dict[str, str]) -> str:
    """Return one method's line."""
    own = [row for row in rows if row["method"] == name]
    shown = [per_cent(own, column) for column in ("best", "last", "mean_of_last_ten")]
    labels = [per_cent(own, column) for column in SELECTION]
    labels = ", ".join(
        f"{column.split('_')[1]} {value}"
        for column, value in zip(SELECTION, labels, strict=True)
        if value
    )
    ended = sum(bool(row["ended"]) for row in own)
    note = f" ({ended} of {len(own)} diverged)" if ended else ""
    return f"| {name}{note} | {' | '.join(shown)} | {labels} | {known.get(name, '')} |"


def per_cent(rows: list[dict[str, str]], column: str) -> str:
    """Return the mean over the seeds, or nothing where it was not measured."""
    values = [float(row[column]) for row in rows if row[column] != "nan"]
    return f"{100 * mean(values):.1f}" if values else ""


def queue_section() -> list[str]:
    """Return what has been run of the papers' tables, and what has not."""
    path = FOLDER / "reproduced.csv"
    rows = results.load(path.stem, FOLDER) if path.exists() else []
    queue = plan.read(results.FOLDER / "reproduced.toml").runs
    lines = [queue_line(run, rows) for run in queue]
    missing = sum(line.endswith("| not run |") for line in lines)
    return [
        "",
        "## The papers' CIFAR-10 tables, at the papers' networks",
        "",
        f"The queue of `results/reproduced.toml`: of its {len(queue)} runs {missing} were **not "
        "run** (they need a GPU). Ours: best / last accuracy. The papers' numbers are as printed "
        "there, of the best or the last epoch, of the epoch chosen on noisy labels, or the mean of "
        "the last ten (which DivideMix calls *last*). `papers.py` says what else lies behind each.",
        "",
        "| setting | method | noise | papers | ours |",
        "|---|---|---|---|---|",
        *lines,
    ]


def queue_line(run: plan.Run, rows: list[dict[str, str]]) -> str:
    """Return one run's line; the latest row of a run counts, at its recipe's full length."""
    which = {
        name: str(run[name]) for name in ("setting", "method", "noise", "rate", "seed", "epochs")
    }
    own = [row for row in rows if which.items() <= row.items()]
    measured = "not run"
    if own:
        measured = " / ".join(f"{100 * float(own[-1][column]):.1f}" for column in ("best", "last"))
    kind = KINDS.get(run["noise"], run["noise"])
    told = [
        f"{row['accuracy']} ({row['paper'].partition(' (')[0]}, {row['metric']})"
        for row in papers.load(dataset="CIFAR-10", noise_type=kind, noise_rate=run["rate"])
        if papers.ours(row["method"]) == run["method"]
    ]
    noise = f"{run['noise']} {run['rate']:.0%}"
    return f"| {run['setting']} | {run['method']} | {noise} | {'; '.join(told)} | {measured} |"


def text() -> str:
    """Return the whole page."""
    lines = [line for setting in SETTINGS for line in section(setting)] + queue_section()
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    (FOLDER / "tables.md").write_text(text(), encoding="utf-8")
