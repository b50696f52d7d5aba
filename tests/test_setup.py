"""The set-up: what is pinned, and what `make` does once and never again."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
import time
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import nlcourse
from nlcourse.lessons.checks.exercise import exercises

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA_NAMES = {"pytorch": "torch"}
PINS = [
    Requirement(line)
    for line in (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]


def bounds(lines):
    """Name -> version bound of requirement lines."""
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(one.name): str(one.specifier) for one in found}


def project_bounds(*extras):
    """What pyproject.toml asks for, without the package itself."""
    lines = [*PROJECT["dependencies"]]
    for extra in extras:
        lines += PROJECT["optional-dependencies"][extra]
    found = bounds(lines)
    found.pop("nlcourse", None)
    return found


# ---- what is installed ---------------------------------------------------------------------------


def test_environment_yml_is_pyproject():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    assert "-e ." in pip["pip"]
    found = bounds([*conda, *(line for line in pip["pip"] if not line.startswith("-e"))])
    found = {CONDA_NAMES.get(name, name): bound for name, bound in found.items()}
    assert found.pop("pip") == ""
    python = Requirement(f"python{found.pop('python')}").specifier
    assert [minor for minor in range(20) if python.contains(f"3.{minor}.1")] == [11, 12, 13]
    assert found == project_bounds("teach", "dev", "suspects", "cluster")


def test_pyproject_has_lower_bounds_only():
    for name, bound in project_bounds("teach", "dev", "suspects", "cluster", "bench").items():
        assert re.fullmatch(r">=[\d.]+", bound), f"{name}{bound}"


def test_requirements_are_exact_and_within_the_bounds():
    pinned = {canonicalize_name(one.name): one for one in PINS}
    for one in PINS:
        assert re.fullmatch(r"==[\w.]+", str(one.specifier)), str(one)
        assert one.url is None
    for name, bound in project_bounds("teach", "dev", "suspects", "cluster").items():
        version = str(pinned[name].specifier).removeprefix("==")
        assert Requirement(f"{name}{bound}").specifier.contains(version), f"{name} {version}"


def test_pins_are_what_these_tests_run_with():
    if Path(sys.prefix) != ROOT / ".venv" or not (ROOT / ".venv" / ".set-up").exists():
        return  # a conda user's or a developer's own environment has other versions, rightly
    for one in PINS:
        if one.marker is None or one.marker.evaluate():
            assert one.specifier.contains(metadata.version(one.name)), str(one)


@pytest.mark.parametrize(
    "name",
    ["requirements.txt", "pyproject.toml", "environment.yml", "Makefile", ".ci/run"]
    + [".pre-commit-config.yaml", "CONTRIBUTING.md"],
)
def test_no_index_addresses(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"index-url|find-links|file://|/opt/|pypi\.org", text)


def test_repository_address_stands_in_one_place():
    address = PROJECT["urls"]["Source"]
    core = address.removeprefix("https://").removesuffix(".git")
    files = [
        *ROOT.glob("*.*"),
        *(
            path
            for name in ("nlcourse", "tests", "benchmarks")
            for path in (ROOT / name).rglob("*.py")
        ),
        *ROOT.glob("notebooks/lessons/*.py"),
        ROOT / "Makefile",
    ]
    assert [one.name for one in files if one.is_file() and core.encode() in one.read_bytes()] == [
        "pyproject.toml"
    ]


def test_readme_tells_the_time_and_the_needs_that_the_lessons_tell():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| (\d\d) .* \|([^|]*)\| (\d+) \|$", readme)
    told = {}
    for source in sorted((ROOT / "notebooks" / "lessons").glob("*.py")):
        text = source.read_text(encoding="utf-8").replace("\n#", "")
        time = re.search(r"\*\*Time:\*\* about (\d+) minutes[^.]*\.( You need [^.]*)?", text)
        told[source.name[:2]] = time[1], re.findall(r"\d\d", time[2] or "")
    assert {n: (minutes, re.findall(r"\d\d", needs)) for n, needs, minutes in rows} == told


def test_readme_names_the_functions_that_students_write():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"(?m)^\| (\d\d) [^|]*\|[^|]*\|([^|]*)\|", readme)
    told = {lesson: re.findall(r"`(\w+)`", cell) for lesson, cell in rows}
    written = {lesson: [] for lesson in told}
    for exercise in exercises().values():
        written[exercise.lesson].append(exercise.name)
    assert told == written | {"00": []}  # its one line is a warm-up


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert PROJECT["version"] == nlcourse.__version__ == citation["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_licences_and_what_the_package_names_are_there():
    for name in (*PROJECT["license-files"], PROJECT["readme"]):
        assert (ROOT / name).is_file(), name
    assert "MIT License" in (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "creativecommons.org/licenses/by/4.0" in (ROOT / "LICENSE-texts").read_text()


def test_devcontainer_makes_the_same_set_up():
    settings = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert settings["postCreateCommand"].startswith("make .venv/.set-up")


def test_a_wheel_holds_all_that_the_package_reads(tmp_path):
    source = tmp_path / "source"
    for name in ("nlcourse", "notebooks/lessons"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]):
        shutil.copy(ROOT / name, source)
    files = [*source.glob("notebooks/lessons/*.py"), *source.glob("nlcourse/**/*.*")]
    names = {path.relative_to(source).as_posix() for path in files if path.is_file()}
    needed = {name.replace("notebooks/", "nlcourse/") for name in names}
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, f"--wheel-dir={tmp_path}", str(source)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        shipped = [name.partition(".data/data/share/")[2] or name for name in archive.namelist()]
    assert needed <= set(shipped)
    assert {"nlcourse/py.typed", "nlcourse/experiments/recipes.toml"} <= needed


@pytest.mark.skipif(os.name == "nt", reason="no bash")
def test_ci_script_is_executable_bash():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & stat.S_IXUSR
    assert subprocess.run(["bash", "-n", script]).returncode == 0
    assert script.read_text().rstrip().endswith("make test")
    variables = set(re.findall(r"NLCOURSE_\w+", script.read_text()))
    assert variables == {"NLCOURSE_DATA", "NLCOURSE_REAL_DATA_LAYOUT"}
    told = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in told for name in variables)
    assert ".." not in re.sub(r"/\.\.\"", "", script.read_text())  # nothing beside the clone


def test_hooks_of_commits_use_the_projects_own_tools():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    (local,) = hooks["repos"]
    assert local["repo"] == "local"
    calls = [hook["entry"].split() for hook in local["hooks"]]
    assert [call[0] for call in calls] == [".venv/bin/python"] * 3
    assert [call[2:4] for call in calls] == [["ruff", "check"], ["ruff", "format"], ["mypy"]]


def test_issue_templates_have_a_name_and_say_what_for():
    for path in sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.md")):
        _, head, body = path.read_text(encoding="utf-8").split("---\n", 2)
        assert {"name", "about", "labels"} == set(yaml.safe_load(head)), path.name
        assert body.count("**") >= 4


# ---- make ----------------------------------------------------------------------------------------

# Stands in for python3: says its version, makes a venv of itself, and writes down what it is asked.
FAKE_PYTHON = """\
#!/bin/sh
echo "$(basename "$0") $*" >> "{log}"
case "$*" in
  *version_info*) exit {old} ;;
  "-m venv .venv") mkdir -p .venv/bin
    cp "$0" .venv/bin/python; cp "$0" .venv/bin/nlcourse ;;
  *"pip install"*) exit {pip} ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    """A checkout with a space in its path, and a python3 that only writes down."""
    if not shutil.which("make") or os.name == "nt":
        pytest.skip("needs make and sh")
    folder = tmp_path / "my course"
    folder.mkdir()
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    set_python(folder)
    return folder


def set_python(folder, *, old=0, pip=0):
    """Put the fake python3 there: `old` and `pip` are its exit codes."""
    python = folder / "fake python3"
    python.write_text(FAKE_PYTHON.format(log=folder / "log", old=old, pip=pip))
    python.chmod(0o755)


def make(folder, *arguments):
    """Call make; return its result and what the fake Python was asked, in order."""
    (folder / "log").write_text("")
    command = ["make", f"PYTHON={folder / 'fake python3'}", *arguments]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done, (folder / "log").read_text().splitlines()


def test_first_make_sets_up_the_second_only_starts(checkout):
    done, asked = make(checkout, "lab")
    assert done.returncode == 0, done.stderr
    assert asked[0].startswith("fake python3 -c import sys")
    assert asked[1] == "fake python3 -m venv .venv"
    assert asked[-3:] == [
        "python -m pip install --disable-pip-version-check -r requirements.txt",
        "python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .",
        "nlcourse lab --",
    ]
    start = time.perf_counter()
    done, asked = make(checkout, "lab")
    assert time.perf_counter() - start < 1
    assert asked == ["nlcourse lab --"]
    _, asked = make(checkout, "test", "ARGS=-k noise")
    assert asked == ["python -m pytest -k noise"]


@pytest.mark.parametrize("name", ["requirements.txt", "pyproject.toml"])
def test_changed_requirements_are_installed(checkout, name):
    make(checkout, "test")
    future = time.time() + 5
    os.utime(checkout / name, (future, future))
    _, asked = make(checkout, "test")
    assert any("pip install" in line for line in asked)
    assert not any("-m venv" in line for line in asked)  # the environment itself stays


def test_failed_installation_is_tried_again(checkout):
    set_python(checkout, pip=1)
    done, asked = make(checkout, "lab")
    assert done.returncode != 0
    assert not any(line.startswith("nlcourse") for line in asked)
    shutil.rmtree(checkout / ".venv")
    set_python(checkout)
    done, asked = make(checkout, "lab")
    assert done.returncode == 0
    assert asked[-1] == "nlcourse lab --"


def test_old_python_is_told_before_anything_is_made(checkout):
    set_python(checkout, old=1)
    done, _ = make(checkout, "lab")
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stdout
    assert "make lab PYTHON=python3.12" in done.stdout
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["check", "LESSON=07"], "nlcourse check 07"),
        (["notebooks", "ARGS=--check"], "nlcourse notebooks --check"),
        (["bench"], "nlcourse bench"),
        (["clean"], "nlcourse clean"),
    ],
)
def test_targets_are_one_call(checkout, arguments, asked):
    make(checkout, "lab")
    _, log = make(checkout, *arguments)
    assert [line.strip() for line in log] == [asked]


def test_check_asks_which_lesson(checkout):
    make(checkout, "lab")
    done, asked = make(checkout, "check")
    assert done.returncode != 0
    assert "make check LESSON=07" in done.stdout
    assert asked == []


def test_clean_sets_nothing_up(checkout):
    done, asked = make(checkout, "clean")
    assert done.returncode == 0
    assert asked == []
    assert not (checkout / ".venv").exists()
