"""The command line: what it copies, starts, prints and returns."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
import types
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from nlcourse import datasets, noise, training
from nlcourse.course import cli
from nlcourse.course import paths as course
from nlcourse.lessons.checks.report import ReportError
from nlcourse.lessons.l13 import board
from nlcourse.methods import CrossEntropy
from nlcourse.training import fit
from nlcourse.training.history import History

REPOSITORY = Path(__file__).resolve().parent.parent


def notebook(text="", **metadata):
    """A notebook's file, as small as it gets."""
    cells = [{"cell_type": "markdown", "id": "a", "metadata": {}, "source": [text]}]
    parts = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(parts)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A small course, entered: two blank lessons with a solution and a source each."""
    root = tmp_path / "a course"
    for folder in ("notebooks/lessons", "notebooks/solutions", "notebooks/images", "nlcourse"):
        (root / folder).mkdir(parents=True)
    (root / "nlcourse" / "course").mkdir()
    for name in ("00_start_here", "07_co_teaching"):
        (root / "notebooks" / f"{name}.ipynb").write_text(notebook(name))
        (root / "notebooks" / "solutions" / f"{name}.ipynb").write_text(notebook("solved"))
        (root / "notebooks" / "lessons" / f"{name}.py").write_text("# %%\n1\n")
    (root / "notebooks" / "images" / "panel.svg").write_text("<svg/>")
    monkeypatch.chdir(root)
    return root


# ---- finding things ------------------------------------------------------------------------------


def test_root_is_found_from_a_folder_inside(root):
    assert course.find_root(root / "notebooks" / "lessons") == root


def test_root_falls_back_to_the_package_itself(tmp_path):
    assert course.find_root(tmp_path) == REPOSITORY


def test_missing_course_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(course, "__file__", str(tmp_path / "site" / "nlcourse" / "course.py"))
    with pytest.raises(course.CourseError, match="Clone the repository"):
        course.find_root(tmp_path)


@pytest.mark.parametrize(
    "which", ["7", "07", "07_co_teaching", "co_teaching", "notebooks/lessons/07_co_teaching.py"]
)
def test_lesson_by_number_name_or_path(root, which):
    assert course.find_lesson(which, root).name == "07_co_teaching"


@pytest.mark.parametrize("which", ["8", "", "teaching", "0"])
def test_unknown_lesson_names_the_known(root, which):
    if which == "0":
        assert course.find_lesson(which, root).name == "00_start_here"
        return
    with pytest.raises(course.CourseError, match="00_start_here, 07_co_teaching"):
        course.find_lesson(which, root)


# ---- the students' copies ------------------------------------------------------------------------


def test_lessons_are_copied_once_and_never_overwritten(root):
    copies = course.copy_into_work(root)
    assert copies.added == ("00_start_here.ipynb", "07_co_teaching.ipynb", "images/panel.svg")
    assert (root / "work" / "images" / "panel.svg").read_text() == "<svg/>"
    assert not (root / "work" / "lessons").exists()
    assert not (root / "work" / "solutions").exists()
    mine = root / "work" / "07_co_teaching.ipynb"
    mine.write_text("my own work")
    (root / "notebooks" / "07_co_teaching.ipynb").write_text(notebook("corrected"))
    (root / "notebooks" / "08_new.ipynb").write_text(notebook("new"))
    again = course.copy_into_work(root)
    assert again.added == ("08_new.ipynb",)
    assert len(again.kept) == 3
    assert mine.read_text() == "my own work"


def test_links_and_folders_in_the_way_are_left_alone(root):
    work = root / "work"
    work.mkdir()
    (work / "07_co_teaching.ipynb").symlink_to(root / "nowhere.ipynb")
    (work / "00_start_here.ipynb").mkdir()
    copies = course.copy_into_work(root)
    assert copies.added == ("images/panel.svg",)
    assert (work / "07_co_teaching.ipynb").is_symlink()
    assert not (root / "nowhere.ipynb").exists()


def test_a_copy_that_is_cut_off_leaves_nothing(root, monkeypatch):
    def cut_off(source, target):
        Path(target).write_text("hal")
        raise OSError("disk full")

    monkeypatch.setattr(course.shutil, "copyfile", cut_off)
    with pytest.raises(OSError, match="disk full"):
        course.copy_into_work(root)
    assert [path for path in (root / "work").rglob("*") if path.is_file()] == []


def test_newer_lesson_is_told_and_the_own_copy_kept(root):
    blank = root / "notebooks" / "00_start_here.ipynb"
    blank.write_text(notebook("v1", nlcourse={"source_sha256": "1"}))
    course.copy_into_work(root)
    assert course.copy_into_work(root).outdated == ()
    blank.write_text(notebook("v2", nlcourse={"source_sha256": "2"}))
    copies = course.copy_into_work(root)
    assert copies.outdated == ("00_start_here.ipynb",)
    assert "newer in the course: 00_start_here.ipynb" in str(copies)
    assert "v1" in (root / "work" / "00_start_here.ipynb").read_text()


def test_broken_copy_does_not_stop_the_lab(root):
    course.copy_into_work(root)
    (root / "work" / "00_start_here.ipynb").write_text("{ not json")
    assert course.copy_into_work(root).outdated == ()


# ---- nlcourse lab --------------------------------------------------------------------------------


@pytest.fixture
def executed(monkeypatch):
    """The commands that `nlcourse lab` would have become."""
    calls = []
    monkeypatch.setattr(os, "execve", lambda path, command, environment: calls.append(command))
    return calls


@pytest.mark.skipif(os.name == "nt", reason="Windows has no exec")
def test_lab_copies_says_so_and_becomes_jupyterlab(root, executed, capsys):
    cli.main(["lab", "--", "--port=9999", "--debug"])
    (command,) = executed
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert command[3] == str(Path("work", "00_start_here.ipynb"))
    assert command[-2:] == ["--port=9999", "--debug"]
    assert "added to work/: 00_start_here.ipynb, 07_co_teaching.ipynb" in capsys.readouterr().out


def test_copy_only_starts_nothing(root, executed):
    assert cli.main(["lab", "--copy-only"]) == 0
    assert executed == []
    assert (root / "work" / "00_start_here.ipynb").is_file()


def test_lab_stays_on_this_machine_with_its_token(root, monkeypatch):
    for user, display in ((0, None), (1000, ":0")):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user, raising=False)
        monkeypatch.setenv("DISPLAY", display or "")
        command = cli.lab_command(root)
        assert "--ServerApp.ip=localhost" in command
        assert not any(re.search("token|password|allow_remote|0.0.0.0", one) for one in command)


def test_what_a_user_asks_for_comes_last(root):
    command = cli.lab_command(root, ["--ip=192.0.2.1"])
    assert command[-1] == "--ip=192.0.2.1"
    assert "--ServerApp.ip=localhost" not in command


def test_nbgraders_menus_are_off_in_class(monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "elsewhere")
    environment = os.environ | {"JUPYTER_CONFIG_PATH": cli.config_path()}
    assert environment["JUPYTER_CONFIG_PATH"].endswith(f"{os.pathsep}elsewhere")
    command = [sys.executable, "-m", "jupyter", "labextension", "list"]
    listed = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    (line,) = [
        line for line in (listed.stdout + listed.stderr).splitlines() if "nbgrader v" in line
    ]
    assert "disabled" in line
    for settings in Path(cli.__file__).parent.glob("jupyter/labconfig/*.json"):
        json.loads(settings.read_text())  # JupyterLab passes over what it cannot read


@pytest.mark.parametrize(("user", "expected"), [(0, True), (1000, False)])
def test_root_is_allowed_only_when_it_is_root(root, monkeypatch, user, expected):
    monkeypatch.setattr(os, "geteuid", lambda: user, raising=False)
    assert ("--allow-root" in cli.lab_command(root)) is expected


@pytest.mark.parametrize(
    ("platform", "display", "wayland", "browser"),
    [
        ("linux", "", "", False),
        ("linux", ":0", "", True),
        ("linux", "", "wayland-0", True),
        ("darwin", "", "", True),
        ("win32", "", "", True),
    ],
)
def test_browser_only_where_there_is_a_display(
    root, monkeypatch, capsys, platform, display, wayland, browser
):
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("DISPLAY", display)
    monkeypatch.setenv("WAYLAND_DISPLAY", wayland)
    assert ("--no-browser" not in cli.lab_command(root)) is browser
    assert ("open the address" in capsys.readouterr().out) is not browser


def test_lab_imports_nothing_heavy_and_is_quick(root):
    """Up to the moment where JupyterLab takes over: within a second, without torch."""
    code = (
        "import sys, time; start = time.perf_counter()\n"
        "from nlcourse.course import cli; assert cli.main(['lab', '--copy-only']) == 0\n"
        "heavy = {'torch', 'numpy', 'matplotlib', 'jupyterlab', 'IPython', 'nbformat'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "print(time.perf_counter() - start)"
    )
    seconds = []
    for _ in range(5):  # the best of five: others may be using the machine
        done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        seconds.append(float(done.stdout.split()[-1]))
        if seconds[-1] < 0.5:
            return
    pytest.fail(f"expected `nlcourse lab` within 0.5 s, got {seconds}")


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_lab_really_serves_and_asks_for_its_token(root, tmp_path, monkeypatch):
    """Without a display it prints an address; with its token one gets in, without it not."""
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "JUPYTER_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with open(tmp_path / "log", "w+") as log:
        command = [sys.executable, "-P", "-m", "nlcourse.course.cli", "lab", "--", "--port=0"]
        server = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            base, token = wait_for_address(tmp_path / "log", server)
            assert len(token) >= 40
            with urllib.request.urlopen(f"{base}/api/contents?token={token}") as answer:
                names = {entry["name"] for entry in json.load(answer)["content"]}
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(f"{base}/api/contents")
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(20)
    assert "00_start_here.ipynb" in names  # the folder that a student sees is work/


def wait_for_address(log, server, seconds=60):
    """The address and the token that JupyterLab printed."""
    pattern = re.compile(r"(http://(?:localhost|127\.0\.0\.1):\d+)/lab\S*\?token=(\w+)")
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and server.poll() is None:
        if found := pattern.search(log.read_text()):
            return found.groups()
        time.sleep(0.1)
    pytest.fail(log.read_text())


# ---- nlcourse check ------------------------------------------------------------------------------


class FakeReport:
    """What `check_notebook` returns, as far as the command line looks at it."""

    def __init__(self, ok):
        self.ok = ok

    def lines(self):
        yield "7.1 forget_rate", "done" if self.ok else "open", ""

    def __str__(self):
        return "7.1 forget_rate: done"


@pytest.fixture
def checked(monkeypatch):
    """The notebooks that would be checked; exercises are done when the file says so."""
    calls = []

    def check_notebook(path, *, timeout=120):
        calls.append((path, timeout))
        if not path.read_text():
            raise ReportError(f"{path} is not a notebook")
        return FakeReport("done" in path.read_text())

    module = types.SimpleNamespace(check_notebook=check_notebook, ReportError=ReportError)
    monkeypatch.setitem(sys.modules, "nlcourse.lessons.checks.report", module)
    return calls


def test_check_takes_the_students_copy(root, checked, capsys):
    course.copy_into_work(root)
    assert cli.main(["check", "07"]) == 1
    (root / "work" / "07_co_teaching.ipynb").write_text("done")
    assert cli.main(["check", "7", "--timeout", "9"]) == 0
    assert checked == [
        (root / "work" / "07_co_teaching.ipynb", 120),
        (root / "work" / "07_co_teaching.ipynb", 9),
    ]
    assert "7.1 forget_rate: done" in capsys.readouterr().out


def test_check_takes_any_path(root, checked):
    assert cli.main(["check", "notebooks/07_co_teaching.ipynb"]) == 1
    assert checked[0][0] == Path("notebooks/07_co_teaching.ipynb")


def test_check_takes_a_whole_class(tmp_path, checked, capsys):
    """One broken file stops nobody, and the table has a row for everyone."""
    paths = []
    for name, text in (("ada", "done"), ("emmy", ""), ("kurt", "not yet")):
        (tmp_path / name).mkdir()
        paths.append(tmp_path / name / "07_mine.ipynb")
        paths[-1].write_text(text)
    assert cli.main(["check", *map(str, paths), "--csv", str(tmp_path / "class.csv")]) == 1
    assert [path for path, _ in checked] == paths
    told = capsys.readouterr()
    assert f"{paths[0].parent}: 7.1 forget_rate: done" in told.out
    assert "1 of 3 notebooks all in order" in told.out
    assert "is not a notebook" in told.err
    with open(tmp_path / "class.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["notebook"], row["what"], row["status"]) for row in rows] == [
        (str(paths[0]), "7.1 forget_rate", "done"),
        (str(paths[1]), "notebook", "failed"),
        (str(paths[2]), "7.1 forget_rate", "open"),
    ]


@pytest.mark.parametrize("which", ["07", "99", "missing.ipynb"])
def test_check_without_a_notebook_says_what_to_do(root, checked, capsys, which):
    assert cli.main(["check", which]) == 2
    assert checked == []
    error = capsys.readouterr().err
    assert error.startswith("nlcourse: ")
    assert "Traceback" not in error


# ---- nlcourse notebooks --------------------------------------------------------------------------


def test_notebooks_check_names_the_stale_and_fails(root, capsys):
    (root / "pyproject.toml").write_text('[project.urls]\nSource = "https://example.org/x"\n')
    assert cli.main(["notebooks", "--check", "7"]) == 1
    out = capsys.readouterr().out
    assert f"{Path('notebooks', '07_co_teaching.ipynb')}: is not what the source gives" in out
    assert "00_start_here" not in out


def test_notebooks_builds_then_has_nothing_to_do(root, capsys):
    (root / "pyproject.toml").write_text('[project.urls]\nSource = "https://example.org/x"\n')
    bad = root / "notebooks" / "lessons" / "00_start_here.py"
    bad.write_text("# %%\n### BEGIN SOLUTION\n")
    assert cli.main(["notebooks"]) == 1  # the bad one is said, the good one built all the same
    captured = capsys.readouterr()
    assert "00_start_here.py:2: `### BEGIN SOLUTION` has no" in captured.err
    assert "07_co_teaching: wrote" in captured.out
    bad.unlink()
    assert cli.main(["notebooks"]) == 0
    assert capsys.readouterr().out == "07_co_teaching: up to date\n"
    assert cli.main(["notebooks", "--check"]) == 1
    assert "00_start_here.ipynb: no source" in capsys.readouterr().out
    (root / "notebooks" / "00_start_here.ipynb").unlink()
    assert cli.main(["notebooks", "--check"]) == 0


# ---- nlcourse data, run --------------------------------------------------------------------------


def test_data_lists_and_loads(capsys):
    assert cli.main(["data"]) == 0
    assert "digits" in capsys.readouterr().out
    assert cli.main(["data", "digits"]) == 0
    assert "1297 training and 500 test images of 1x8x8, 10 classes" in capsys.readouterr().out


def test_data_that_is_unknown_is_an_error_without_traceback(capsys):
    assert cli.main(["data", "imagenet"]) == 2
    assert "imagenet" in capsys.readouterr().err


def test_run_writes_one_row_an_epoch(tmp_path, capsys):
    out, checkpoint = tmp_path / "results" / "history.csv", tmp_path / "run.pt"
    arguments = ["run", "--noise", "symmetric", "--rate", "0.3", "--method", "co-teaching"]
    arguments += ["--set", "ramp_epochs=2", "--epochs", "2", "--device", "cpu"]
    arguments += ["--checkpoint", str(checkpoint), "--out", str(out)]
    assert cli.main(arguments) == 0
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["epoch"]) for row in rows] == [1, 2]
    assert 0 < float(rows[-1]["test_accuracy"]) <= 1
    assert checkpoint.is_file()
    assert "noise_rate=0." in capsys.readouterr().out  # the true one was used, and said


@pytest.mark.parametrize(
    "arguments",
    [
        ["--method", "magic"],
        ["--set", "no_such_setting=1"],
        ["--epochs", "0"],
        ["--noise", "symmetric", "--rate", "1.5"],
        ["--data", "imagenet"],
    ],
)
def test_run_says_what_is_wrong(arguments, capsys):
    assert cli.main(["run", "--device", "cpu", *arguments]) == 2
    assert capsys.readouterr().err.startswith("nlcourse: ")


def test_a_run_that_diverges_keeps_its_epochs(tmp_path, capsys, monkeypatch):
    fit = training.fit

    def diverge(*inputs, **options):
        raise training.DivergedError("nan", fit(*inputs, **options))

    monkeypatch.setattr(training, "fit", diverge)
    out = tmp_path / "history.csv"
    assert cli.main(["run", "--device", "cpu", "--epochs", "2", "--out", str(out)]) == 1
    told = capsys.readouterr()
    assert told.err == "diverged in epoch 3: try a smaller --lr\n"
    assert "test_accuracy" in told.out
    assert len(History.from_csv(out)) == 2


def test_settings_are_literals_or_words():
    options = cli.build_parser().parse_args(
        ["run", "--set", "cross=False", "--set", "rate=1e-3", "--set", "mode=soft"]
    )
    assert dict(options.set) == {"cross": False, "rate": 1e-3, "mode": "soft"}
    assert cli.build_parser().parse_args(["run"]).set == []
    with pytest.raises(SystemExit):
        cli.build_parser().parse_args(["run", "--set", "cross"])


# ---- nlcourse bench, clean, errors ---------------------------------------------------------------


def test_bench_runs_all_even_when_one_fails(root, capfd):
    folder = root / "benchmarks"
    folder.mkdir()
    (folder / "a_fails.py").write_text("raise SystemExit(3)")
    (folder / "b_runs.py").write_text("import os; print('ran in', os.path.basename(os.getcwd()))")
    (folder / "_shared.py").write_text("raise SystemExit(4)")
    assert cli.main(["bench"]) == 1
    captured = capfd.readouterr()
    assert "ran in a course" in captured.out
    assert captured.err == "failed: a_fails.py\n"
    assert cli.main(["bench", "b_runs"]) == 0
    capfd.readouterr()
    assert cli.main(["bench", "b_runs", "b_rnus"]) == cli.USAGE_ERROR
    captured = capfd.readouterr()
    assert "(there: a_fails, b_runs), got b_rnus" in captured.err
    assert "ran in" not in captured.out


def test_clean_removes_caches_only(root):
    gone = ["nlcourse/__pycache__", ".pytest_cache", "notebooks/.ipynb_checkpoints"]
    stay = ["work/.ipynb_checkpoints", "data/__pycache__", ".venv/lib/__pycache__", "notebooks"]
    for folder in gone + stay:
        (root / folder).mkdir(parents=True, exist_ok=True)
        (root / folder / "file").touch()
    (root / ".nlcourse-progress.json").touch()
    assert cli.main(["clean"]) == 0
    assert not any((root / folder).exists() for folder in gone)
    assert all((root / folder / "file").exists() for folder in stay)
    assert (root / ".nlcourse-progress.json").exists()


def test_a_bug_keeps_its_traceback(root, monkeypatch):
    def broken(root):
        raise KeyError("a bug")

    monkeypatch.setattr(course, "copy_into_work", broken)
    with pytest.raises(KeyError):
        cli.main(["lab", "--copy-only"])


def test_help_names_every_command(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    for name in [
        "lab",
        "check",
        "notebooks",
        "run",
        "experiment",
        "board",
        "data",
        "bench",
        "clean",
    ]:
        assert re.search(rf"^ +{name}\b", text, re.M)


# ---- board ---------------------------------------------------------------------------------------


def test_board_merges_others_and_writes_the_page(tmp_path, capsys):
    data = noise.inject(datasets.load("digits").subset(100), "symmetric", 0.2, seed=0)
    history = fit(CrossEntropy(), data, epochs=1, progress=False, device="cpu")
    for student in ("ada", "emmy"):
        board.add(history, student, data=data, noise="symmetric", path=tmp_path / f"{student}.csv")
    paths = [str(tmp_path / name) for name in ("class.csv", "ada.csv", "emmy.csv")]
    assert cli.main(["board", *paths]) == 0
    assert "2 new rows" in capsys.readouterr().out
    page = (tmp_path / "class.html").read_text(encoding="utf-8")
    assert "ada" in page
    assert "emmy" in page
