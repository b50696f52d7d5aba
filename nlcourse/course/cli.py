"""The command line: `nlcourse lab / check / notebooks / run / experiment / board / ...`.

torch, Jupyter and the rest are imported inside the commands that need them: `nlcourse lab` itself
takes a fraction of a second.
"""

from __future__ import annotations

import argparse
import ast
import csv
import inspect
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import paths as course

TOOLS = (".pytest_cache", ".ruff_cache", ".mypy_cache", ".hypothesis")
CACHES = ("__pycache__", ".ipynb_checkpoints", *TOOLS)
NEVER_CLEANED = (".venv", ".git", "work", "data")
USAGE_ERROR = 2


Command = Callable[[argparse.Namespace], int]
_commands: dict[Command, tuple[tuple[Any, Any], ...]] = {}  # with the arguments of each


def argument(*names: str, **how: Any) -> tuple[Any, Any]:
    """An argument of a command, as for argparse's `add_argument`."""
    return names, how


def command(*arguments: tuple[Any, Any]) -> Callable[[Command], Command]:
    """Make a function a command of its name; the first line of its docstring is the help."""

    def register(function: Command) -> Command:
        _commands[function] = arguments
        return function

    return register


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands; ``options.command`` is the function to call."""
    parser = argparse.ArgumentParser(prog="nlcourse", description="Learning with noisy labels.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for function, arguments in _commands.items():
        summary = (function.__doc__ or "").partition("\n")[0].rstrip(".")
        one = commands.add_parser(function.__name__, help=summary, description=summary)
        one.set_defaults(command=function)
        for names, how in arguments:
            one.add_argument(*names, **how)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return the exit code: 0 good, 1 something is not right, 2 a wrong call."""
    options = build_parser().parse_args(argv)
    try:
        return options.command(options)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130
    except Exception as error:
        # What the course or a file complains about needs no traceback; anything else is a bug.
        ours = type(error).__module__.partition(".")[0] == "nlcourse"
        if not ours and not isinstance(error, ValueError | OSError):
            raise
        print(f"nlcourse: {error}", file=sys.stderr)
        return USAGE_ERROR


@command(
    argument("--copy-only", action="store_true", help="do not start JupyterLab"),
    argument("jupyter", nargs="*", metavar="-- ARG", help="arguments of JupyterLab, after `--`"),
)
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
    screens = ("DISPLAY", "WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not any(map(os.environ.get, screens)):
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


@command(
    argument("lessons", nargs="+", metavar="LESSON", help="number (07), name, or path of a file"),
    argument("--csv", type=Path, metavar="FILE", help="also write a row per exercise"),
    argument("--timeout", type=int, default=120, metavar="SECONDS", help="a cell (%(default)s)"),
)
def check(options: argparse.Namespace) -> int:
    """Run notebooks in clean kernels under nbval and print which exercises are done."""
    root = course.find_root()
    paths = [course.find_notebook(which, root) for which in options.lessons]
    from ..lessons.checks.report import ReportError, check_notebook

    not_ok = 0
    # Line by line, so that a class that is stopped half-way keeps its rows.
    with open(options.csv or os.devnull, "w", buffering=1, encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("notebook", "what", "status", "why"))
        for path in paths:
            try:
                report = check_notebook(path, timeout=options.timeout)
            except ReportError as error:  # one broken file must not keep a class waiting
                print(f"{path}: {error}", file=sys.stderr)
                table.writerow((path, "notebook", "failed", error))
                not_ok += 1
                continue
            print(f"{path.parent}: {report}" if len(paths) > 1 else report, flush=True)
            table.writerows((path, *line) for line in report.lines())
            not_ok += not report.ok
    if len(paths) > 1:
        print(f"{len(paths) - not_ok} of {len(paths)} notebooks all in order")
    return 1 if not_ok else 0


@command(
    argument("lessons", nargs="*", metavar="LESSON", help="number or name; none: all"),
    argument("--check", action="store_true", help="write nothing, exit 1 when some are stale"),
    argument("--force", action="store_true", help="execute again even what is up to date"),
)
def notebooks(options: argparse.Namespace) -> int:
    """Build the notebooks whose lessons changed, or say which are not up to date."""
    root = course.find_root()
    try:
        from nbclient.exceptions import CellExecutionError, CellTimeoutError

        from . import builder
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
    failed = 0  # a lesson that fails does not keep the others from being built
    for lesson in chosen:
        try:
            written = builder.build(lesson, force=options.force)
        except (CellExecutionError, CellTimeoutError, ValueError) as error:
            failed += 1
            print(f"{lesson.name}: not built\n{error}", file=sys.stderr)
            continue
        names = ", ".join(str(path.relative_to(root)) for path in written)
        print(f"{lesson.name}: {'wrote ' + names if written else 'up to date'}", flush=True)
    return 1 if failed else 0


@command(argument("names", nargs="*", metavar="NAME", help="none: list them"))
def data(options: argparse.Namespace) -> int:
    """Fetch data sets into NLCOURSE_DATA or data/ and say what each holds."""
    from .. import datasets

    if not options.names:
        print("data sets:", ", ".join(datasets.NAMES))
        return 0
    for name in options.names:
        loaded = datasets.load(name)
        shape = "x".join(str(side) for side in loaded.image_shape)
        images = f"{len(loaded.labels)} training and {len(loaded.test_labels)} test images"
        print(f"{name}: {images} of {shape}, {loaded.num_classes} classes")
    return 0


def _setting(text: str) -> tuple[str, object]:
    """``name=value`` with a Python literal, or a plain word, as value."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"expected name=value, got {text!r}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


SET: dict[str, Any] = {"action": "append", "type": _setting, "default": [], "metavar": "NAME=VALUE"}


@command(
    argument("--data", default="digits", help="data set (%(default)s)"),
    argument("--kind", help="which human labels, for cifar10n and cifar100n"),
    argument("--noise", help="kind of label noise to inject, for example symmetric"),
    argument("--rate", type=float, default=0.4, help="noise rate (%(default)s)"),
    argument("--method", default="cross-entropy", help="method (%(default)s)"),
    argument("--set", **SET, help="a setting of the method; may be repeated"),
    argument("--network", default="mlp", help="network (%(default)s)"),
    argument("--epochs", type=int, default=30),
    argument("--lr", type=float, default=0.05),
    argument("--batch-size", type=int, default=64),
    argument("--weight-decay", type=float, default=0.0),
    argument("--seed", type=int, default=0),
    argument("--device", help="cpu, cuda or mps; found by itself when left out"),
    argument("--checkpoint", type=Path, help="renewed each epoch, continued from"),
    argument("--out", type=Path, metavar="CSV", help="where the history goes"),
)
def run(options: argparse.Namespace) -> int:
    """Train one method on one data set, print the history and write it as CSV."""
    from .. import datasets, methods, noise, training
    from ..base import expect_one_of
    from ..experiments import results

    expect_one_of("method", options.method, methods.METHODS)
    loaded = datasets.load(options.data, kind=options.kind)
    if options.noise:
        loaded = noise.inject(loaded, options.noise, options.rate, seed=options.seed)
    history, ended = results.trained(
        training.fit,
        _make_method(methods.METHODS[options.method], dict(options.set), loaded.noise_rate),
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
    parameter = inspect.signature(make).parameters.get("noise_rate")
    if parameter and parameter.default is parameter.empty and "noise_rate" not in settings:
        if math.isnan(measured_rate):
            why = "nobody knows the true labels here. Guess one, for example --set noise_rate=0.3"
            raise ValueError(f"Expected a noise rate: {why}")
        print(f"noise_rate={measured_rate:.3f}: the true one, which in earnest nobody knows")
        settings = {"noise_rate": measured_rate, **settings}
    try:
        return make(**settings)
    except TypeError as error:
        raise ValueError(f"Expected settings that {make.__name__} has: {error}") from None


def _seconds(text: str) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text.strip())
    if not found or float(found[1]) == 0:
        raise argparse.ArgumentTypeError(f"Expected a time like 90s, 9m or 1.5h, got {text!r}")
    return float(found[1]) * {"s": 1, "m": 60, "h": 3600}[found[2]]


@command(
    argument("plan", type=Path, metavar="PLAN", help="such as docs/sweep.toml or results/*.py"),
    argument("--dry-run", action="store_true", help="list the runs, train nothing"),
    argument("--budget", type=_seconds, metavar="TIME", help="such as 90s, 9m or 1.5h"),
    argument("--set", **SET, help="another value for the TOML file, such as epochs=1; repeatable"),
    argument("--scheduler", metavar="ADDRESS", help="of a Dask cluster that takes runs"),
    argument(
        "--devices",
        type=lambda text: text.split(","),
        default=[],
        metavar="LIST",
        help="a process for each, such as cuda:0,cuda:1 or cpu,cpu (all GPUs when left out)",
    ),
)
def experiment(options: argparse.Namespace) -> int:
    """Make all runs of a plan that its table does not hold yet, a row each."""
    from ..base import expect
    from ..experiments import plan, runner

    expect(not (options.scheduler and options.devices), "`--scheduler` or `--devices`", "both")
    chosen = plan.read(options.plan, **dict(options.set))
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


@command(
    argument("file", type=Path, metavar="BOARD.csv"),
    argument("others", type=Path, nargs="*", help="boards to merge into it"),
)
def board(options: argparse.Namespace) -> int:
    """Write the page that shows a class's board, with the boards of others merged into it."""
    from ..lessons.l13 import board as boards

    if options.others:
        print(f"{boards.merge(options.others, options.file)} new rows")
    print(f"wrote {boards.write_page(options.file)}")
    return 0


@command(argument("names", nargs="*", metavar="NAME", help="scripts without .py"))
def bench(options: argparse.Namespace) -> int:
    """Run the benchmarks one after another, each in its own process, all of them."""
    root = course.find_root()
    scripts = {one.stem: one for one in sorted((root / "benchmarks").glob("[!_]*.py"))}
    unknown = [name for name in options.names if name not in scripts]
    if unknown or not scripts:
        there, got = (", ".join(names) or "none" for names in (scripts, unknown))
        raise ValueError(f"Expected scripts of benchmarks/ (there: {there}), got {got}")
    failed = []
    for script in [scripts[name] for name in options.names] or scripts.values():
        print(f"== {script.name}", flush=True)
        if subprocess.call([sys.executable, str(script)], cwd=root):
            failed.append(script.name)
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


@command()
def clean(options: argparse.Namespace) -> int:
    """Remove caches; never the students' work, the data, or the environment."""
    root = course.find_root()
    removed = 0
    for folder, names, _ in os.walk(root):
        for path in [Path(folder, name) for name in names if name in CACHES]:
            if not path.is_symlink():
                shutil.rmtree(path)
                removed += 1
        passed = CACHES + (NEVER_CLEANED if Path(folder) == root else ())
        names[:] = [name for name in names if name not in passed]
    print(f"removed {removed} cache folder(s); work/, data/ and .venv are as they were")
    return 0


if __name__ == "__main__":
    sys.exit(main())
