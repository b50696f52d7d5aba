"""Write tables.md: every method beside cross entropy, and beside the papers' numbers.

    python results/tables.py

Reads the three tables of classroom_methods.py and what `experiments.papers` holds of CDR's table 1,
which is the largest on MNIST and Fashion-MNIST. Then the queue of `nlcourse reproduce`: what of the
papers' CIFAR-10 tables was run, and what was not.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from nlcourse.experiments import papers, reproduce, results

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
KINDS = {"symmetric": "symmetric_exclusive", reproduce.SYMMETRIC: "symmetric_inclusive"}
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
    """Return what `nlcourse reproduce` has run of the papers' tables, and what it has not."""
    path = FOLDER / "reproduced.csv"
    rows = results.load(path.stem, FOLDER) if path.exists() else []
    jobs = list(reproduce.queue())
    lines = [queue_line(job, rows) for job in jobs]
    missing = sum(line.endswith("| not run |") for line in lines)
    return [
        "",
        "## The papers' CIFAR-10 tables, at the papers' networks",
        "",
        f"The queue of `nlcourse reproduce`: of its {len(jobs)} runs {missing} were **not run** "
        "(they need a GPU). Ours: best / last accuracy. The papers' numbers are as printed there, "
        "of the best or the last epoch, of the epoch chosen on noisy labels, or the mean of the "
        "last ten (which DivideMix calls *last*). `papers.py` says what else lies behind "
        "each.",
        "",
        "| setting | method | noise | papers | ours |",
        "|---|---|---|---|---|",
        *lines,
    ]


def queue_line(job: reproduce.Job, rows: list[dict[str, str]]) -> str:
    """Return one run's line; the latest row of a run counts, at its recipe's full length."""
    recipe = job.recipe
    which = {"setting": recipe.setting, "method": recipe.name, "noise": job.noise}
    which |= {"rate": f"{job.rate:g}", "seed": str(job.seed), "epochs": str(recipe.epochs)}
    own = [row for row in rows if which.items() <= row.items()]
    measured = "not run"
    if own:
        measured = " / ".join(f"{100 * float(own[-1][column]):.1f}" for column in ("best", "last"))
    known = papers.load(
        dataset="CIFAR-10", noise_type=KINDS.get(job.noise, job.noise), noise_rate=job.rate
    )
    told = [
        f"{row['accuracy']} ({row['paper'].partition(' (')[0]}, {row['metric']})"
        for row in known
        if papers.ours(row["method"]) == recipe.name
    ]
    noise = f"{job.noise} {job.rate:.0%}"
    return f"| {recipe.setting} | {recipe.name} | {noise} | {'; '.join(told)} | {measured} |"


def text() -> str:
    """Return the whole page."""
    lines = [line for setting in SETTINGS for line in section(setting)] + queue_section()
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    (FOLDER / "tables.md").write_text(text(), encoding="utf-8")
