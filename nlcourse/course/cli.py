"""The command line: `nlcourse lab / check / notebooks / run / experiment / board / ...`.

torch, Jupyter and the rest are imported inside the commands that need them: `nlcourse lab` itself
takes a fraction of a second.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import csv
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from . import paths as course

CACHES = (
    "__pycache__", ".pytest_cache", ".ruff_cache", ".mypy_cache", ".hypothesis",
    ".ipynb_checkpoints",
)  # fmt: skip
NEVER_CLEANED = (".venv", ".git", "work", "data")
USAGE_ERROR = 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0 good, 1 something is not right, 2 a wrong call."""
    options = build_parser().parse_args(argv)
    try:
        return options.command(options)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except Exception as error:
        # What the course itself complains about needs no traceback; anything else is a bug.
        if not isinstance(error, ValueError) and not _is_our_own(error):
            raise
        print(f"nlcourse: {error}", file=sys.stderr)
        return USAGE_ERROR


def _is_our_own(error: Exception) -> bool:
    return type(error).__module__.partition(".")[0] == "nlcourse"


# ---- lab -----------------------------------------------------------------------------------------


def lab(options: argparse.Namespace) -> int:
    """Copy the lessons into work/ once, then become JupyterLab."""
    root = course.find_root()
    print(course.copy_into_work(root), flush=True)
    if options.copy_only:
        return 0
    command = lab_command(root, options.jupyter)
    os.chdir(root)
    environment = os.environ | {"JUPYTER_CONFIG_PATH": config_path()}
    if os.name == "nt":  # there exec would return to the prompt while JupyterLab still runs
        return subprocess.call(command, env=environment)
    os.execve(command[0], command, environment)


def lab_command(root: Path, extra: Sequence[str] = ()) -> list[str]:
    """The call of JupyterLab: on this machine only, with its token, whatever a user's config says.

    What stands in `extra` comes last and so overrules.
    """
    command = [sys.executable, "-m", "jupyterlab"]
    start = root / "work" / f"{course.START}.ipynb"
    if start.is_file():
        command.append(str(start.relative_to(root)))
    if not any(one.startswith(("--ip", "--ServerApp.ip")) for one in extra):
        command.append("--ServerApp.ip=localhost")
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")
    if not _has_display():
        command.append("--no-browser")
        print("No display here: open the address that JupyterLab prints in a browser.", flush=True)
    return [*command, *extra]


def config_path() -> str:
    """Where Jupyter looks for settings: first the course's own, then the user's.

    Ours turn nbgrader's menus off (a teacher's tool, it only confuses in class), and JupyterLab's
    question about news and its look-up of updates.
    """
    own = str(Path(__file__).parent / "jupyter")
    return os.pathsep.join(filter(None, [own, os.environ.get("JUPYTER_CONFIG_PATH")]))


def _has_display() -> bool:
    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


# ---- check, notebooks ----------------------------------------------------------------------------


def check(options: argparse.Namespace) -> int:
    """Run notebooks in clean kernels under nbval and print which exercises are done."""
    root = course.find_root()
    paths = [course.find_notebook(which, root) for which in options.lessons]
    from ..lessons.checks.report import ReportError, check_notebook

    not_ok = 0
    with _class_table(options.csv) as write:
        for path in paths:
            try:
                report = check_notebook(path, timeout=options.timeout)
            except ReportError as error:  # one broken file must not keep a class waiting
                print(f"{path}: {error}", file=sys.stderr)
                write([(path, "notebook", "failed", error)])
                not_ok += 1
                continue
            print(f"{path.parent}: {report}" if len(paths) > 1 else report, flush=True)
            write((path, *line) for line in report.lines())
            not_ok += not report.ok
    if len(paths) > 1:
        print(f"{len(paths) - not_ok} of {len(paths)} notebooks all in order")
    return 1 if not_ok else 0


@contextlib.contextmanager
def _class_table(path: Path | None):
    """Give a function that adds rows to a CSV file, or forgets them when there is no file."""
    if path is None:
        yield lambda rows: None
        return
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("notebook", "what", "status", "why"))

        def write(rows) -> None:
            writer.writerows(rows)
            file.flush()

        yield write


def notebooks(options: argparse.Namespace) -> int:
    """Build the notebooks whose lessons changed, or say which are not up to date."""
    root = course.find_root()
    try:
        from . import builder as builder
    except ImportError as error:
        print(f"nlcourse: {error.name} is missing: pip install -e '.[teach]'", file=sys.stderr)
        return USAGE_ERROR
    chosen = [course.find_lesson(which, root) for which in options.lessons]
    chosen = [one for one in chosen or course.lessons(root) if one.source.is_file()]
    if options.check:
        problems = [line for lesson in chosen for line in builder.stale(lesson)]
        problems += [] if options.lessons else builder.orphans(root)
        print("\n".join(problems) or f"{len(chosen)} lesson(s): all notebooks are up to date")
        return 1 if problems else 0
    return _build(builder.build, chosen, force=options.force)


def _build(build: Callable, chosen: Sequence[course.Lesson], *, force: bool) -> int:
    """Build lesson after lesson; a lesson that fails does not keep the others from being built."""
    from nbclient.exceptions import CellExecutionError, CellTimeoutError

    failed = 0
    for lesson in chosen:
        try:
            written = build(lesson, force=force)
        except (CellExecutionError, CellTimeoutError, ValueError) as error:
            failed += 1
            print(f"{lesson.name}: not built\n{error}", file=sys.stderr)
            continue
        names = ", ".join(str(path.relative_to(lesson.root)) for path in written)
        print(f"{lesson.name}: {'wrote ' + names if written else 'up to date'}", flush=True)
    return 1 if failed else 0


# ---- data, run -----------------------------------------------------------------------------------


def data(options: argparse.Namespace) -> int:
    """Fetch data sets into NLCOURSE_DATA or data/ and say what each holds."""
    from .. import datasets

    if not options.names:
        print("data sets:", ", ".join(datasets.NAMES))
        return 0
    for name in options.names:
        loaded = datasets.load(name)
        shape = "x".join(str(side) for side in loaded.image_shape)
        print(
            f"{name}: {len(loaded.labels)} training and {len(loaded.test_labels)} test images of"
            f" {shape}, {loaded.num_classes} classes"
        )
    return 0


def run(options: argparse.Namespace) -> int:
    """Train one method on one data set, print the history and write it as CSV."""
    from .. import datasets, methods, noise, training
    from ..experiments import results

    if options.method not in methods.METHODS:
        raise ValueError(
            f"Expected a method of {', '.join(methods.METHODS)}, got {options.method!r}"
        )
    loaded = datasets.load(options.data, kind=options.kind)
    if options.noise:
        loaded = noise.inject(loaded, options.noise, options.rate, seed=options.seed)
    history, ended = results.trained(
        training.fit,
        _make_method(methods.METHODS[options.method], options.set, loaded.noise_rate),
        loaded,
        network=options.network,
        epochs=options.epochs,
        lr=options.lr,
        weight_decay=options.weight_decay,
        seed=options.seed,
        device=options.device,
        options=training.Options(batch_size=options.batch_size, checkpoint=options.checkpoint),
    )
    print(history.table())
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        history.to_csv(options.out)
        print(f"wrote {options.out}")
    if history.stopped:
        print(f"stopped early: {history.stopped}", file=sys.stderr)
    if ended:
        print(f"{ended}: try a smaller --lr", file=sys.stderr)
    return 1 if history.stopped or ended else 0


def _make_method(make: Callable, settings: dict[str, object], measured_rate: float):
    """The method with its settings; a noise rate that it needs and nobody gave is the true one."""
    import inspect

    parameter = inspect.signature(make).parameters.get("noise_rate")
    if parameter and parameter.default is parameter.empty and "noise_rate" not in settings:
        if math.isnan(measured_rate):
            raise ValueError(
                "Expected a noise rate: nobody knows the true labels here. Guess one, for example "
                "--set noise_rate=0.3"
            )
        print(f"noise_rate={measured_rate:.3f}: the true one, which in earnest nobody knows")
        settings = {"noise_rate": measured_rate, **settings}
    try:
        return make(**settings)
    except TypeError as error:
        raise ValueError(f"Expected settings that {make.__name__} has: {error}") from None


def _setting(text: str) -> tuple[str, object]:
    """``name=value`` with a Python literal, or a plain word, as value."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"expected name=value, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def experiment(options: argparse.Namespace) -> int:
    """Make all runs of a plan that its table does not hold yet, a row each."""
    from ..experiments import plan, runner

    chosen = plan.read(options.plan, **options.set)
    todo = runner.missing(chosen)
    there = len(chosen.runs) - len(todo)
    print(f"{chosen.table}: {there} of {len(chosen.runs)} runs are there", flush=True)
    if options.dry_run:
        for run in chosen.runs:
            print(f"{'to do' if run in todo else 'done'}: {runner.in_words(run)}")
        return 0
    where = {"devices": options.devices, "scheduler": options.scheduler}
    outcome = runner.carry_out(chosen, budget=options.budget, **where)
    print(f"{outcome.added} new rows" + (f", {outcome.left} runs are left" if outcome.left else ""))
    for what, why in outcome.failed.items():
        print(f"failed: {what}: {why}", file=sys.stderr)
    return 1 if outcome.failed else 0


def board(options: argparse.Namespace) -> int:
    """Write the page that shows a class's board, with the boards of others merged into it."""
    from ..lessons.l13 import board as boards

    if options.others:
        print(f"{boards.merge(options.others, options.file)} new rows")
    print(f"wrote {boards.write_page(options.file)}")
    return 0


# ---- bench, clean --------------------------------------------------------------------------------


def bench(options: argparse.Namespace) -> int:
    """Run the benchmarks one after another, each in its own process, all of them."""
    root = course.find_root()
    scripts = {one.stem: one for one in sorted((root / "benchmarks").glob("[!_]*.py"))}
    unknown = [name for name in options.names if name not in scripts]
    if unknown or not scripts:
        there = ", ".join(scripts) or "none"
        raise ValueError(
            f"Expected benchmarks of {root / 'benchmarks'} (there: {there}), got "
            f"{', '.join(unknown) or 'none'}"
        )
    failed = []
    for name, script in scripts.items():
        if options.names and name not in options.names:
            continue
        print(f"== {script.name}", flush=True)
        if subprocess.call([sys.executable, str(script)], cwd=root):
            failed.append(script.name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def clean(options: argparse.Namespace) -> int:
    """Remove caches; never the students' work, the data, or the environment."""
    import shutil

    root = course.find_root()
    removed = 0
    for folder, names, _ in os.walk(root):
        if Path(folder) == root:
            names[:] = [name for name in names if name not in NEVER_CLEANED]
        for name in [name for name in names if name in CACHES]:
            path = Path(folder, name)
            if not path.is_symlink():
                shutil.rmtree(path)
                removed += 1
            names.remove(name)
    print(f"removed {removed} cache folder(s); work/, data/ and .venv are as they were")
    return 0


# ---- the parser ----------------------------------------------------------------------------------


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; ``options.command`` is the function to call."""
    parser = argparse.ArgumentParser(prog="nlcourse", description="Learning with noisy labels.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(function: Callable[[argparse.Namespace], int]) -> argparse.ArgumentParser:
        summary = (function.__doc__ or "").partition("\n")[0].rstrip(".")
        command = commands.add_parser(function.__name__, help=summary, description=summary)
        command.set_defaults(command=function)
        return command

    _add_lab(add(lab))
    _add_check(add(check))
    _add_notebooks(add(notebooks))
    _add_run(add(run))
    _add_experiment(add(experiment))
    _add_board(add(board))
    add(data).add_argument("names", nargs="*", metavar="NAME", help="none: list them")
    add(bench).add_argument("names", nargs="*", metavar="NAME", help="scripts without .py")
    add(clean)
    return parser


def _add_lab(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--copy-only", action="store_true", help="do not start JupyterLab")
    parser.add_argument(
        "jupyter", nargs="*", metavar="-- ARG", help="what follows `--` is passed to JupyterLab"
    )


def _add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "lessons", nargs="+", metavar="LESSON", help="number (07), name or path of a notebook"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write a row per exercise")
    parser.add_argument(
        "--timeout", type=int, default=120, metavar="SECONDS", help="for one cell (%(default)s)"
    )


def _add_notebooks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lessons", nargs="*", metavar="LESSON", help="number or name; none: all")
    parser.add_argument(
        "--check", action="store_true", help="write nothing, exit 1 when some are not up to date"
    )
    parser.add_argument(
        "--force", action="store_true", help="execute again even what is up to date"
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", default="digits", help="data set (%(default)s)")
    parser.add_argument("--kind", help="which human labels, for cifar10n and cifar100n")
    parser.add_argument("--noise", help="kind of label noise to inject, for example symmetric")
    parser.add_argument("--rate", type=float, default=0.4, help="noise rate (%(default)s)")
    parser.add_argument("--method", default="cross-entropy", help="method (%(default)s)")
    _add_settings(parser, "a setting of the method")
    parser.add_argument("--network", default="mlp", help="network (%(default)s)")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", help="cpu, cuda or mps; found by itself when left out")
    parser.add_argument("--checkpoint", type=Path, help="renewed each epoch, continued from")
    parser.add_argument("--out", type=Path, metavar="CSV", help="where the history goes")


def _add_experiment(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "plan", type=Path, metavar="PLAN",
        help="docs/sweep.toml, results/reproduced.toml (the papers' tables), results/*.py, yours",
    )  # fmt: skip
    parser.add_argument("--dry-run", action="store_true", help="list the runs, train nothing")
    parser.add_argument("--budget", type=_seconds, metavar="TIME", help="such as 90s, 9m or 1.5h")
    _add_settings(parser, "a line of the TOML file in other words, such as epochs=1")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster that takes runs")
    where.add_argument(
        "--devices",
        type=lambda text: text.split(","),
        default=[],
        metavar="LIST",
        help="a process for each, such as cuda:0,cuda:1 or cpu,cpu (all GPUs when left out)",
    )


def _add_settings(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--set", type=_setting, action=_CollectSettings, default={}, metavar="NAME=VALUE",
        help=f"{what}; may be repeated",
    )  # fmt: skip


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not found or float(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"Expected a time like 90s, 9m or 1.5h, got {text!r}")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


def _add_board(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="BOARD.csv")
    parser.add_argument("others", type=Path, nargs="*", help="boards to merge into it")


class _CollectSettings(argparse.Action):
    """Collects repeated ``--set name=value`` into a new dict (the default must stay empty)."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        name, value = values
        setattr(namespace, self.dest, {**getattr(namespace, self.dest), name: value})


if __name__ == "__main__":
    sys.exit(main())
