"""Write tables.md: every method beside cross entropy, and beside the papers' numbers.

    python results/tables.py

Reads the three tables of classroom_methods.py and what `nlcourse.papers` holds of CDR's table 1,
which is the largest on MNIST and Fashion-MNIST.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean

from nlcourse import papers, results

FOLDER = Path(__file__).parent
SETTINGS = {
    "classroom": ("digits: 1,297 training images, MLP, 60 epochs", None),
    "mnist": ("MNIST: 6,000 of its training images, all test images, MLP, 40 epochs", "MNIST"),
    "fashion_mnist": (
        "Fashion-MNIST: 6,000 of its training images, all test images, MLP, 40 epochs",
        "Fashion-MNIST",
    ),
}
KINDS = {"symmetric": "symmetric_exclusive"}  # ours -> the papers' name
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


def text() -> str:
    """Return the whole page."""
    lines = [line for setting in SETTINGS for line in section(setting)]
    return HEAD + "\n".join(lines) + "\n"


if __name__ == "__main__":
    (FOLDER / "tables.md").write_text(text(), encoding="utf-8")
